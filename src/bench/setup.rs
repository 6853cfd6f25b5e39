//! Sizes of a benchmark, and its timing.

use burn::tensor::Device;
use rand::Rng;
use rand::rngs::ChaCha8Rng;
use serde::Serialize;

use super::layers::{Layer, Passes, resnet18};
use super::machine::{GemmPeak, gemm_peak, peak_memory_mib, seconds};
use crate::data::Images;
use crate::error::{Error, Result};
use crate::nn::{Depth, EncoderConfig, Sharding, Stem};
use crate::ranks;

/// Sizes of a benchmark with a ResNet-18.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Channels of the first stage.
    pub width: usize,
    /// Images per batch.
    pub batch: usize,
    /// Most images of a training step that pass the encoder at once; all of them without it.
    pub micro_batch: Option<usize>,
    /// How the batch is cut.
    pub sharding: Sharding,
    /// Height and width of the images, in pixels.
    pub size: usize,
    /// Channels of the images: 1 or 3.
    pub channels: usize,
    /// First layer.
    pub stem: Stem,
    /// Number of measurements; the median is reported.
    pub runs: usize,
}

/// Timing of an operation on a batch of images.
#[derive(Clone, Debug, Serialize)]
pub struct Timing {
    /// Channels of the first stage.
    pub width: usize,
    /// First layer.
    pub stem: Stem,
    /// Batch, channels, height, width.
    pub shape: [usize; 4],
    /// Steps of PGD.
    pub attack_steps: usize,
    /// Duration of each measurement.
    pub seconds: Vec<f64>,
    /// Median of `seconds`.
    pub median_seconds: f64,
    /// Images per second, by the median.
    pub images_per_second: f64,
    /// Direct-equivalent operations of the convolutions ([`Passes::operations`]) divided by the
    /// median, in 10⁹ per second. Each product of a sum counts as two operations, however it is
    /// computed.
    pub gflops: f64,
    /// Fastest matrix product, measured after the runs.
    pub gemm: GemmPeak,
    /// `gflops` relative to the matrix product. Winograd, which needs fewer operations, can exceed
    /// 1.
    pub of_gemm_peak: f64,
    /// Peak resident memory of the process until the end of the runs, in MiB; Linux only.
    pub peak_memory_mib: Option<f64>,
    /// Threads of the operations on the CPU.
    pub threads: usize,
    /// Bytes that this process sends to others in a run, in MiB; none where it is alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_mib: Option<f64>,
}

impl Setup {
    /// Refuses sizes that cannot be timed, before memory is allocated.
    pub(super) fn check(&self, what: &str, least_batch: usize) -> Result<()> {
        let Self {
            width,
            batch,
            size,
            channels,
            stem,
            runs,
            ..
        } = *self;
        // Behind the first layer.
        let pixels = size.div_ceil(stem.stride()).pow(2);
        let bounded = (least_batch..=65_536).contains(&batch)
            && [1, 3].contains(&channels)
            && (8..=1024).contains(&size)
            && (1..=1024).contains(&width)
            && (1..=10_000).contains(&runs);
        // None of these overflows, but together they could still need too much memory.
        if bounded && batch * (pixels * width).max(size * size * channels) <= 1 << 30 {
            return Ok(());
        }
        let problem = format!(
            "cannot time batch {batch}, {channels} channels, size {size}, width {width}, {runs} runs"
        );
        let hint = format!(
            "expected a batch of {least_batch} to 65536, 1 or 3 channels, size 8 to 1024, width 1 to 1024, 1 to 10000 runs, and at most 2^30 values in the first layer"
        );
        Err(Error::recipe(what, problem, hint))
    }

    /// Refuses micro-batches that are none of the batch.
    pub(super) fn check_micro_batch(&self) -> Result<()> {
        match self.micro_batch {
            Some(most) if !(2..=self.batch).contains(&most) => {
                let problem = format!("expected 2 to {} images, found {most}", self.batch);
                let hint = "a micro-batch is a part of the batch";
                Err(Error::input("--micro-batch", problem, hint))
            }
            _ => Ok(()),
        }
    }

    /// Shape of a batch: `[batch, channels, height, width]`.
    pub(super) fn shape(&self) -> [usize; 4] {
        [self.batch, self.channels, self.size, self.size]
    }

    /// Configuration of the encoder.
    pub(super) fn encoder(&self) -> EncoderConfig {
        EncoderConfig {
            depth: Depth::D18,
            width: self.width,
            stem: self.stem,
        }
    }

    /// Convolution layers of the encoder.
    pub(super) fn layers(&self) -> Vec<Layer> {
        resnet18(self.stem, self.width, self.channels, self.size)
    }

    /// Draws a batch of random images.
    pub(super) fn images(&self, rng: &mut ChaCha8Rng) -> Images {
        let mut pixels = vec![0; self.shape().iter().product()];
        rng.fill_bytes(&mut pixels);
        Images::new(pixels, [self.channels, self.size, self.size])
    }

    /// Times `work`: one warm-up, then `runs` measurements. `work` must wait for the device.
    pub(super) fn time(
        &self,
        (attack_steps, passes): (usize, Passes),
        device: &Device,
        mut work: impl FnMut(),
    ) -> Timing {
        work();
        let before = ranks::sent();
        let seconds: Vec<f64> = (0..self.runs).map(|_| seconds(&mut work)).collect();
        let sent = (ranks::sent() - before) as f64 / self.runs as f64;
        // Read before the matrix products, which do not belong to the measurement.
        let peak_memory_mib = peak_memory_mib();
        let gemm = gemm_peak(device);
        let median_seconds = median(&seconds);
        let operations = passes.operations(&self.layers()) * self.batch as f64;
        let gflops = operations / median_seconds / 1e9;
        Timing {
            width: self.width,
            stem: self.stem,
            shape: self.shape(),
            attack_steps,
            images_per_second: self.batch as f64 / median_seconds,
            seconds,
            median_seconds,
            gflops,
            of_gemm_peak: gflops / gemm.gflops,
            gemm,
            peak_memory_mib,
            threads: rayon::current_num_threads(),
            sent_mib: (ranks::count() > 1).then_some(sent / f64::from(1 << 20)),
        }
    }
}

/// Median; the larger of the two middle values if there are two.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
