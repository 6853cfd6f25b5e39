//! Names of compute devices: "cpu", "gpu", "gpu:1", "cuda:1", ….

#[cfg(feature = "_wgpu")]
mod gpu;

use std::path::Path;

use burn::tensor::Device;
use serde::Serialize;

use crate::error::{Error, Result, nearest};

/// A GPU, or a driver that plays one, as WebGPU sees it.
#[derive(Clone, Debug, Serialize)]
pub struct Adapter {
    /// Name for `--device`: "gpu:0".
    pub device: String,
    /// The maker's name.
    pub name: String,
    /// "discrete", "integrated", "virtual", "software" or "other".
    pub kind: &'static str,
    /// "vulkan", "metal", "dx12" or "gl".
    pub interface: &'static str,
    /// Name and version of the driver.
    pub driver: String,
    /// The device's own memory, where the driver tells.
    pub memory_mib: Option<u64>,
    /// Largest buffer that a kernel can have.
    pub largest_buffer_mib: u64,
    /// Whether kernels can compute in f16.
    pub half_precision: bool,
}

impl Adapter {
    /// Whether it is the CPU behind a GPU's interface.
    pub fn is_software(&self) -> bool {
        self.kind == "software"
    }
}

/// Backends that this build can use, in the order in which messages list them.
pub fn compiled_in() -> Vec<&'static str> {
    let all = [
        ("cpu", cfg!(feature = "flex")),
        ("gpu", cfg!(feature = "_wgpu")),
        ("vulkan", cfg!(feature = "vulkan")),
        ("metal", cfg!(feature = "metal")),
        ("cuda", cfg!(feature = "cuda")),
        ("rocm", cfg!(feature = "rocm")),
    ];
    all.into_iter()
        .filter(|(_, enabled)| *enabled)
        .map(|(name, _)| name)
        .collect()
}

/// What GPUs have in this build: "autotune, fusion, …", or none without a GPU's feature.
pub fn gpu_build() -> Option<&'static str> {
    let tuned = cfg!(any(feature = "wgpu", feature = "cuda", feature = "rocm"));
    cfg!(feature = "_gpu").then_some(match (tuned, cfg!(feature = "keep-tuning")) {
        (true, true) => "autotune (kept), fusion, fused BatchNorm",
        (true, false) => "autotune (in each process), fusion, fused BatchNorm",
        (false, _) => "fusion, fused BatchNorm",
    })
}

/// GPUs, and drivers that play one, that a build with the feature `wgpu` finds; the order is that of their numbers.
pub fn adapters() -> Vec<Adapter> {
    #[cfg(feature = "_wgpu")]
    return gpu::adapters();
    #[cfg(not(feature = "_wgpu"))]
    Vec::new()
}

/// Memory in bytes of a GPU's own; none for the CPU, and where the driver does not tell.
pub fn own_memory(device: &Device) -> Option<u64> {
    let name = name(device);
    let is_it = |adapter: &&Adapter| name == format!("gpu ({})", adapter.name);
    let adapters = adapters();
    let adapter = adapters.iter().find(is_it)?;
    adapter.memory_mib.map(|mib| mib << 20)
}

/// Settings of CubeCL for the device of this name; to be called before one is opened. What its users set in files or
/// variables of their own stays, but for this: which kernels were the fastest is kept in `folder`, where it is kept, and a
/// driver that plays a GPU is not measured for long, because no speed can be had there.
pub fn prepare(name: &str, folder: Option<&Path>) {
    #[cfg(feature = "_gpu")]
    {
        use burn_cubecl::cubecl::config::autotune::AutotuneLevel;
        use burn_cubecl::cubecl::config::cache::CacheConfig;
        use burn_cubecl::cubecl::config::{CubeClRuntimeConfig, RuntimeConfig as _};
        let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
        if let (CacheConfig::Target, Some(folder)) = (&config.environment.path, folder) {
            config.environment.path = CacheConfig::Directory(folder.to_path_buf());
        }
        let adapters = adapters();
        let adapter = adapters.iter().find(|adapter| adapter.device == name);
        if adapter.is_some_and(Adapter::is_software) {
            config.autotune.level = AutotuneLevel::Minimal;
            let bench = &mut config.autotune.bench;
            (bench.min_samples, bench.max_samples) = (1, 1);
            bench.short_circuit_samples = 1;
        }
        CubeClRuntimeConfig::try_set(config);
    }
    #[cfg(not(feature = "_gpu"))]
    let _ = (name, folder);
}

/// Name of a device in files and reports: "cpu", or the GPU's own behind its runtime's.
pub fn name(device: &Device) -> String {
    #[cfg(feature = "flex")]
    if *device == Device::flex() {
        return "cpu".to_owned();
    }
    #[cfg(feature = "_gpu")]
    if let Some(identity) = device.identity() {
        return format!("gpu ({})", identity.name);
    }
    format!("{device:?}").to_lowercase()
}

/// Turns "auto" into the name of one device: a GPU where this build and this machine have one, else the CPU. Every other name
/// is returned as it is.
///
/// # Errors
/// [`Error::Device`] for a build that has neither.
pub fn resolve(name: &str) -> Result<String> {
    if name != "auto" {
        return Ok(name.to_owned());
    }
    #[cfg(feature = "_wgpu")]
    if let Some(index) = gpu::first_gpu() {
        return Ok(format!("gpu:{index}"));
    }
    let first = compiled_in().into_iter().find(|name| *name != "gpu");
    first.map(str::to_owned).ok_or_else(|| Error::Device {
        name: name.to_owned(),
        problem: "no GPU was found, and this build has no CPU".to_owned(),
        hint: "build with --features flex".to_owned(),
    })
}

/// Names of backends, whether compiled in or not.
const KNOWN: [&str; 7] = ["cpu", "gpu", "wgpu", "vulkan", "metal", "cuda", "rocm"];

/// The device of one of several processes on this machine, by a name without a number or by the first one's: each has a GPU of
/// its own, as far as there are enough.
pub fn of_local_rank(name: &str, local_rank: usize) -> String {
    let backend = name.split(':').next().unwrap_or(name);
    if backend == "cpu" || !KNOWN.contains(&backend) {
        return name.to_owned();
    }
    let real = adapters().into_iter().filter(|found| !found.is_software());
    match real.count() {
        // Another runtime counts them.
        0 if backend != "gpu" && backend != "wgpu" => format!("{backend}:{local_rank}"),
        0 => name.to_owned(),
        count => format!("{backend}:{}", local_rank % count),
    }
}

/// The device called `name`: a backend, for GPUs with an index after a colon as [`adapters`] counts them ("cuda" is "cuda:0").
/// "gpu", also called "wgpu", is the first one that is no software driver; "auto" is that or else the CPU.
///
/// # Errors
/// [`Error::Device`] for a name that is unknown, was not compiled in or is not there, and for a driver that refuses.
pub fn open(name: &str) -> Result<Device> {
    let resolved = resolve(name)?;
    let (backend, index) = match resolved.split_once(':') {
        Some((backend, index)) => (backend, Some(index)),
        None => (resolved.as_str(), None),
    };
    let refuse = |problem: String, hint: String| Error::Device {
        name: name.to_owned(),
        problem,
        hint,
    };
    if !KNOWN.contains(&backend) {
        let hint = nearest(backend, compiled_in());
        return Err(refuse("no such device".to_owned(), hint));
    }
    let number = |index: &str| {
        index.parse::<usize>().map_err(|_| {
            let problem = format!("expected a number after the colon, found {index:?}");
            refuse(problem, format!("write {backend}:0 for the first one"))
        })
    };
    let index = index.map(number).transpose()?;
    if backend == "cpu" && index.is_some_and(|index| index > 0) {
        let problem = "there is one CPU device; it uses all cores".to_owned();
        return Err(refuse(problem, "use --device cpu".to_owned()));
    }
    #[cfg(feature = "_wgpu")]
    use burn::tensor::wgpu::WgpuBackend;
    match backend {
        #[cfg(feature = "flex")]
        "cpu" => Ok(Device::flex()),
        #[cfg(feature = "_wgpu")]
        "gpu" | "wgpu" => gpu::open(name, index, WgpuBackend::Auto),
        #[cfg(feature = "vulkan")]
        "vulkan" => gpu::open(name, index, WgpuBackend::Vulkan),
        #[cfg(feature = "metal")]
        "metal" => gpu::open(name, index, WgpuBackend::Metal),
        #[cfg(feature = "cuda")]
        "cuda" => Ok(Device::cuda(index.unwrap_or(0))),
        #[cfg(feature = "rocm")]
        "rocm" => Ok(Device::rocm(index.unwrap_or(0))),
        _ => {
            let feature = match backend {
                "cpu" => "flex",
                "gpu" => "wgpu",
                other => other,
            };
            Err(refuse(
                "not compiled in".to_owned(),
                format!(
                    "this build has {}; build with --features {feature}",
                    compiled_in().join(", ")
                ),
            ))
        }
    }
}
