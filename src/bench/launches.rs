//! Number of kernels that a GPU is given.

/// Counts launches of kernels on all threads, from when it is made.
#[cfg(feature = "_gpu")]
pub struct Launches {
    count: std::sync::Arc<Count>,
    _watching: burn_cubecl::cubecl::logging::LaunchObservation,
}

#[cfg(feature = "_gpu")]
#[derive(Default)]
struct Count(std::sync::atomic::AtomicUsize);

#[cfg(feature = "_gpu")]
impl burn_cubecl::cubecl::logging::LaunchObserver for Count {
    fn launched(&self, _kernel: &'static str) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

#[cfg(feature = "_gpu")]
impl Launches {
    pub fn watch() -> Self {
        let count = std::sync::Arc::new(Count::default());
        let _watching = burn_cubecl::cubecl::logging::LaunchObservation::new(count.clone());
        Self { count, _watching }
    }

    pub fn so_far(&self) -> usize {
        self.count.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// A build without GPUs launches none.
#[cfg(not(feature = "_gpu"))]
pub struct Launches;

#[cfg(not(feature = "_gpu"))]
impl Launches {
    pub fn watch() -> Self {
        Self
    }

    pub fn so_far(&self) -> usize {
        0
    }
}
