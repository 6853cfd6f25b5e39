//! Names of compute devices: "cpu", "vulkan", "cuda:1", ….

use burn::tensor::Device;

use crate::error::{Error, Result};

/// The devices that this build can use, in the order of preference for messages.
pub fn compiled_in() -> Vec<&'static str> {
    let all = [
        ("cpu", cfg!(feature = "flex")),
        ("vulkan", cfg!(feature = "vulkan")),
        ("metal", cfg!(feature = "metal")),
        ("cuda", cfg!(feature = "cuda")),
        ("rocm", cfg!(feature = "rocm")),
    ];
    all.into_iter()
        .filter(|(_, there)| *there)
        .map(|(name, _)| name)
        .collect()
}

/// The device called `name`: a backend, and for GPUs an index after a colon ("cuda" is "cuda:0").
///
/// # Errors
/// [`Error::Device`] for a name that is unknown or was not compiled in.
pub fn open(name: &str) -> Result<Device> {
    let (backend, index) = name.split_once(':').unwrap_or((name, "0"));
    let refuse = |problem: String, hint: String| Error::Device {
        name: name.to_owned(),
        problem,
        hint,
    };
    let known = ["cpu", "vulkan", "metal", "cuda", "rocm"];
    if !known.contains(&backend) {
        let hint = crate::error::nearest(backend, known);
        return Err(refuse("no such device".to_owned(), hint));
    }
    let index: usize = index.parse().map_err(|_| {
        let hint = format!("write {backend}:0 for the first one");
        refuse(
            format!("expected a number after the colon, found {index:?}"),
            hint,
        )
    })?;
    if backend == "cpu" && index > 0 {
        let problem = "there is one CPU device; it uses all cores".to_owned();
        return Err(refuse(problem, "use --device cpu".to_owned()));
    }
    match backend {
        #[cfg(feature = "flex")]
        "cpu" => Ok(Device::flex()),
        #[cfg(feature = "vulkan")]
        "vulkan" => Ok(Device::vulkan(burn::tensor::DeviceKind::DiscreteGpu(index))),
        #[cfg(feature = "metal")]
        "metal" => Ok(Device::metal(burn::tensor::DeviceKind::IntegratedGpu(
            index,
        ))),
        #[cfg(feature = "cuda")]
        "cuda" => Ok(Device::cuda(index)),
        #[cfg(feature = "rocm")]
        "rocm" => Ok(Device::rocm(index)),
        _ => Err(refuse(
            "not compiled in".to_owned(),
            format!(
                "this build has {}; build with --features {backend}",
                compiled_in().join(", ")
            ),
        )),
    }
}
