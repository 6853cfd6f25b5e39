//! Names of compute devices: "cpu", "vulkan", "cuda:1", ….

use burn::tensor::Device;
#[cfg(any(feature = "vulkan", feature = "metal"))]
use burn::tensor::DeviceKind;

use crate::error::{Error, Result};

/// Backends that this build can use, in the order in which messages list them.
pub fn compiled_in() -> Vec<&'static str> {
    let all = [
        ("cpu", cfg!(feature = "flex")),
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

/// Name of a device in files and reports.
pub fn name(device: &Device) -> String {
    #[cfg(feature = "flex")]
    if *device == Device::flex() {
        return "cpu".to_owned();
    }
    format!("{device:?}").to_lowercase()
}

/// The device called `name`: a backend, for GPUs with an index after a colon ("cuda" is "cuda:0";
/// "vulkan" and "metal" without an index are the driver's first device).
///
/// # Errors
/// [`Error::Device`] for a name that is unknown or was not compiled in.
pub fn open(name: &str) -> Result<Device> {
    let (backend, index) = match name.split_once(':') {
        Some((backend, index)) => (backend, Some(index)),
        None => (name, None),
    };
    let refuse = |problem: String, hint: String| Error::Device {
        name: name.to_owned(),
        problem,
        hint,
    };
    let known = ["cpu", "vulkan", "metal", "cuda", "rocm"];
    if !known.contains(&backend) {
        let hint = crate::error::nearest(backend, compiled_in());
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
    match backend {
        #[cfg(feature = "flex")]
        "cpu" => Ok(Device::flex()),
        #[cfg(feature = "vulkan")]
        "vulkan" => Ok(Device::vulkan(
            index.map_or(DeviceKind::DefaultDevice, DeviceKind::DiscreteGpu),
        )),
        #[cfg(feature = "metal")]
        "metal" => Ok(Device::metal(
            index.map_or(DeviceKind::DefaultDevice, DeviceKind::IntegratedGpu),
        )),
        #[cfg(feature = "cuda")]
        "cuda" => Ok(Device::cuda(index.unwrap_or(0))),
        #[cfg(feature = "rocm")]
        "rocm" => Ok(Device::rocm(index.unwrap_or(0))),
        _ => Err(refuse(
            "not compiled in".to_owned(),
            format!(
                "this build has {}; build with --features {backend}",
                compiled_in().join(", ")
            ),
        )),
    }
}
