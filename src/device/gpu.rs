//! GPUs that WebGPU's drivers find: by Vulkan, Metal, DirectX 12 or OpenGL.

use std::sync::{Mutex, OnceLock, PoisonError};

use burn::tensor::wgpu::WgpuBackend;
use burn::tensor::wgpu::wgpu::{
    self, AdapterInfo, Backend, DeviceType, Features, Instance, InstanceDescriptor,
};
use burn::tensor::{Device, DeviceKind};
use burn_cubecl::cubecl::future::block_on;
use burn_cubecl::cubecl::wgpu::AutoGraphicsApi;

use super::Adapter;
use crate::error::{Error, Result};

const MIB: u64 = 1 << 20;

/// An adapter, and what Burn calls it.
#[derive(Clone)]
struct Found {
    adapter: Adapter,
    kind: DeviceKind,
}

/// The adapters of the machine, in the order of their numbers. Drivers are asked once: a loader that is opened and closed by
/// several threads may crash.
fn found() -> &'static [Found] {
    static FOUND: OnceLock<Vec<Found>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mut software = Vec::new();
        // As CubeCL chooses: the first interface that reaches a GPU, or else the first that reaches anything.
        for api in AutoGraphicsApi::chain() {
            let adapters = adapters_by(api);
            if adapters.iter().any(|found| !found.adapter.is_software()) {
                return adapters;
            }
            if software.is_empty() {
                software = adapters;
            }
        }
        software
    })
}

fn adapters_by(api: Backend) -> Vec<Found> {
    let instance = Instance::new(InstanceDescriptor {
        backends: api.into(),
        ..InstanceDescriptor::new_without_display_handle()
    });
    let adapters = block_on(instance.enumerate_adapters(api.into()));
    let mut seen = [0; 4];
    let mut next = |place: usize| {
        seen[place] += 1;
        seen[place] - 1
    };
    let described = adapters.iter().enumerate().map(|(index, adapter)| {
        let info = adapter.get_info();
        // Burn counts each kind by itself, and knows one software driver.
        let (kind, burn) = match info.device_type {
            DeviceType::DiscreteGpu => ("discrete", DeviceKind::DiscreteGpu(next(0))),
            DeviceType::IntegratedGpu => ("integrated", DeviceKind::IntegratedGpu(next(1))),
            DeviceType::VirtualGpu => ("virtual", DeviceKind::VirtualGpu(next(2))),
            DeviceType::Cpu => ("software", DeviceKind::Cpu),
            DeviceType::Other => ("other", DeviceKind::DefaultDevice),
        };
        Found {
            adapter: describe(index, kind, adapter, info),
            kind: burn,
        }
    });
    let described = described.collect();
    // Never given back: drivers that are closed while their threads end have crashed there (Mesa 22.3, one time in 300).
    std::mem::forget((adapters, instance));
    described
}

fn describe(
    index: usize,
    kind: &'static str,
    adapter: &wgpu::Adapter,
    info: AdapterInfo,
) -> Adapter {
    let driver = [info.driver, info.driver_info];
    let driver: Vec<String> = driver.into_iter().filter(|part| !part.is_empty()).collect();
    let limits = adapter.limits();
    let largest = (limits.max_buffer_size).min(limits.max_storage_buffer_binding_size);
    Adapter {
        device: format!("gpu:{index}"),
        name: info.name,
        kind,
        interface: info.backend.to_str(),
        driver: driver.join(", "),
        memory_mib: memory(adapter).map(|bytes| bytes / MIB),
        largest_buffer_mib: largest / MIB,
        half_precision: adapter.features().contains(Features::SHADER_F16),
    }
}

/// The device's own memory in bytes. WebGPU does not tell, Vulkan does.
#[cfg(not(target_vendor = "apple"))]
#[allow(unsafe_code)]
fn memory(adapter: &wgpu::Adapter) -> Option<u64> {
    // SAFETY: what is borrowed of the driver's own objects is read while the adapter is alive, and nothing is destroyed.
    let properties = unsafe {
        let raw = adapter.as_hal::<wgpu::hal::api::Vulkan>()?;
        let instance = raw.shared_instance().raw_instance();
        instance.get_physical_device_memory_properties(raw.raw_physical_device())
    };
    let heaps = properties.memory_heaps_as_slice().iter();
    // The first flag of Vulkan's heaps says that it is the device's own.
    let own = heaps.filter(|heap| heap.flags.as_raw() & 1 != 0);
    Some(own.map(|heap| heap.size).sum())
}

#[cfg(target_vendor = "apple")]
fn memory(_adapter: &wgpu::Adapter) -> Option<u64> {
    None
}

/// What there is on this machine, in the order of their numbers.
pub(super) fn adapters() -> Vec<Adapter> {
    found().iter().map(|found| found.adapter.clone()).collect()
}

/// Opens an adapter by its number, or else the first that is no software driver.
///
/// # Errors
/// [`Error::Device`] where there is none, and with what the driver said where it refused.
pub(super) fn open(name: &str, index: Option<usize>, api: WgpuBackend) -> Result<Device> {
    let refuse = |problem: String, hint: String| Error::Device {
        name: name.to_owned(),
        problem,
        hint,
    };
    let found = found();
    let index = match index {
        Some(index) => index,
        None => first_gpu().ok_or_else(|| no_gpu(name))?,
    };
    let Some(chosen) = found.get(index) else {
        let problem = format!("this machine has {} of them, counted from 0", found.len());
        return Err(refuse(problem, "advcl info lists them".to_owned()));
    };
    // A device is made once in a process; later calls get the same one.
    static OPENED: Mutex<Vec<(usize, WgpuBackend, Device)>> = Mutex::new(Vec::new());
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    let is_it = |(i, a, _): &&(usize, WgpuBackend, Device)| (*i, *a) == (index, api);
    if let Some((_, _, device)) = opened.iter().find(is_it) {
        return Ok(device.clone());
    }
    let options = Device::wgpu_options().device_kind(chosen.kind.clone());
    let device = options.graphics_api(api).init().map_err(|error| {
        let problem = format!(
            "{} by {}: {error}",
            chosen.adapter.name, chosen.adapter.interface
        );
        let hint = "a newer driver may help; --device cpu computes without it".to_owned();
        refuse(problem, hint)
    })?;
    opened.push((index, api, device.clone()));
    Ok(device)
}

/// Number of the first adapter that is no software driver.
pub(super) fn first_gpu() -> Option<usize> {
    found()
        .iter()
        .position(|found| !found.adapter.is_software())
}

/// Says that there is no GPU, and what there is.
pub(super) fn no_gpu(name: &str) -> Error {
    let (problem, hint) = match found().first() {
        None => (
            "no driver for a GPU was found".to_owned(),
            "install the GPU's Vulkan driver, or use --device cpu".to_owned(),
        ),
        Some(Found { adapter, .. }) => (
            format!(
                "no GPU was found, only a driver that plays one on the CPU: {}",
                adapter.name
            ),
            format!(
                "use --device cpu, which is faster; --device {} takes that driver all the same",
                adapter.device
            ),
        ),
    };
    Error::Device {
        name: name.to_owned(),
        problem,
        hint,
    }
}
