//! `advcl bench`: benchmarks, as tables or JSON.

mod recipe;

use advcl::bench::{self, BatchNormSpeed, GemmPeak, KernelSpeeds, LayerSpeed, Setup, Timing};
use advcl::nn::Sharding;
use advcl::{Error, device, nn, ranks};
use anyhow::Result;

use crate::args::{Bench, BenchSetup, Shared};
use crate::format::Table;
use crate::output::{print, print_json};
use crate::table::pairs;

pub fn bench(what: &Bench, shared: &Shared) -> Result<()> {
    match what {
        Bench::Kernels(setup) => kernels(&timed(setup), shared),
        Bench::Step(what) => match &what.recipe {
            Some(name) => recipe::steps(name, what, shared),
            None => {
                let device = device::open(&shared.device)?;
                let setup = Setup {
                    micro_batch: shared.micro_batch,
                    sharding: Sharding {
                        count: shared.shards(),
                        ..Sharding::default()
                    },
                    ..timed(&what.setup)
                };
                let outcome =
                    nn::with_precision(shared.precision(), || bench::step(&setup, &device))?;
                timing("step", &outcome, shared)
            }
        },
        Bench::Evaluate(setup) => {
            let outcome = bench::evaluate(&timed(setup), &device::open(&shared.device)?)?;
            timing("clean and PGD-20", &outcome, shared)
        }
    }
}

fn timed(setup: &BenchSetup) -> Setup {
    Setup {
        width: setup.width,
        batch: setup.batch,
        micro_batch: None,
        sharding: Sharding::default(),
        size: setup.size,
        channels: setup.channels,
        stem: setup.stem,
        runs: setup.runs,
    }
}

fn kernels(setup: &Setup, shared: &Shared) -> Result<()> {
    device::open(&shared.device)?;
    if !shared.on_cpu() {
        return Err(Error::Device {
            name: shared.device.clone(),
            problem: "bench kernels times the CPU kernels only".to_owned(),
            hint: "use --device cpu; bench step and bench evaluate run on every device".to_owned(),
        }
        .into());
    }
    let outcome = nn::with_precision(shared.precision(), || bench::kernels(setup))?;
    if shared.json {
        print_json(&outcome)
    } else {
        print(&kernels_text(&outcome))
    }
}

fn timing(what: &str, outcome: &Timing, shared: &Shared) -> Result<()> {
    if shared.json {
        print_json(outcome)
    } else {
        print(&timing_text(what, outcome, &shared.device))
    }
}

/// A count with its noun: "1 thread", "2 threads".
fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

fn shape_text(stem: nn::Stem, width: usize, [batch, channels, size, _]: [usize; 4]) -> String {
    let (stem, channels) = (stem.name(), counted(channels, "channel"));
    format!(
        "ResNet-18 of width {width}, stem {stem}; batch {batch}, {size} × {size} pixels, {channels}"
    )
}

fn uses_text(instructions: &str, algorithm: &str, threads: usize) -> String {
    format!(
        "{instructions}, {algorithm}, {}",
        counted(threads, "thread")
    )
}

fn gemm_text(gemm: &GemmPeak) -> String {
    format!(
        "{:.0} GFLOP/s, the fastest f32 matrix product ({} × {}) of this process",
        gemm.gflops, gemm.side, gemm.side
    )
}

fn kernels_text(outcome: &KernelSpeeds) -> String {
    let about = [
        (
            "model",
            shape_text(outcome.stem, outcome.width, outcome.shape),
        ),
        (
            "CPU uses",
            uses_text(outcome.instructions, outcome.algorithm, outcome.threads),
        ),
        ("GEMM peak", gemm_text(&outcome.gemm)),
    ];
    let mut text = pairs(&about.map(|(name, value)| (name.to_owned(), value)));
    let mut table = Table::new()
        .left("convolution")
        .left("input")
        .right("layers");
    for head in ["forward", "input grad", "weight grad"] {
        table = table.right(head).right("of peak");
    }
    for layer in &outcome.layers {
        table.row(layer_row(layer));
    }
    text += &format!(
        "\nGFLOP/s in direct-equivalent operations: forward pass, gradient of input, gradient of weight\n{}",
        table.text()
    );
    let mut table = Table::new().left("BatchNorm + ReLU").left("input");
    table = table.right("forward").right("backward");
    for speed in &outcome.batch_norm {
        table.row(norm_row(speed));
    }
    text += &format!(
        "\nGB/s: {} bytes per value forward, {} backward\n{}",
        bench::BATCH_NORM_BYTES[0],
        bench::BATCH_NORM_BYTES[1],
        table.text()
    );
    text
}

fn layer_row(speed: &LayerSpeed) -> Vec<String> {
    let layer = &speed.layer;
    let stride = match layer.stride {
        1 => String::new(),
        stride => format!(", stride {stride}"),
    };
    let mut row = vec![
        format!(
            "{} → {}, {k} × {k}{stride}",
            layer.input,
            layer.output,
            k = layer.kernel
        ),
        format!("{size} × {size}", size = layer.size),
        layer.count.to_string(),
    ];
    for speed in [speed.forward, speed.data_gradient, speed.weight_gradient] {
        row.push(format!("{:.1}", speed.gflops));
        row.push(format!("{:.0} %", 100.0 * speed.of_gemm_peak));
    }
    row
}

fn norm_row(speed: &BatchNormSpeed) -> Vec<String> {
    vec![
        format!("{} channels", speed.channels),
        format!("{size} × {size}", size = speed.size),
        format!("{:.1}", speed.forward.gb_per_second),
        format!("{:.1}", speed.backward.gb_per_second),
    ]
}

/// A device, and how it computes: "cpu: avx2, winograd, 2 threads".
fn device_text(device: &str, threads: usize) -> String {
    match nn::cpu_kernels() {
        Some(kernels) if device.starts_with("cpu") => {
            let uses = uses_text(kernels.instructions, kernels.algorithm(), threads);
            format!("{device}: {uses}")
        }
        _ => device.to_owned(),
    }
}

fn mib_text(mib: Option<f64>) -> String {
    mib.map_or("–".to_owned(), |mib| format!("{mib:.0} MiB"))
}

fn timing_text(what: &str, outcome: &Timing, device: &str) -> String {
    let uses = device_text(device, outcome.threads);
    let memory = mib_text(outcome.peak_memory_mib);
    let rows = [
        (
            "model",
            shape_text(outcome.stem, outcome.width, outcome.shape),
        ),
        ("device", uses),
        (
            what,
            format!(
                "{:.3} s, median of {}",
                outcome.median_seconds,
                outcome.seconds.len()
            ),
        ),
        (
            "images",
            format!("{:.2} per second", outcome.images_per_second),
        ),
        (
            "convolutions",
            format!(
                "{:.1} GFLOP/s in direct-equivalent operations, {:.0} % of the GEMM peak",
                outcome.gflops,
                100.0 * outcome.of_gemm_peak
            ),
        ),
        ("GEMM peak", gemm_text(&outcome.gemm)),
        ("peak memory", memory),
    ];
    let sent = outcome.sent_mib.map(|sent| {
        let count = ranks::count();
        (
            "ranks",
            format!("{count}; this one sends {sent:.2} MiB a {what}"),
        )
    });
    let rows = rows.into_iter().chain(sent);
    let rows: Vec<_> = rows.map(|(name, value)| (name.to_owned(), value)).collect();
    pairs(&rows)
}
