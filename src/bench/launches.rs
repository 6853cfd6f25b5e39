//! Number of kernels that a GPU is given.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use burn_cubecl::cubecl::config::{TypeNameFormatLevel, type_name_format};
use burn_cubecl::cubecl::logging::{LaunchObservation, LaunchObserver};

#[derive(Default)]
struct Counts(Mutex<BTreeMap<&'static str, usize>>);

impl LaunchObserver for Counts {
    fn launched(&self, kernel: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(kernel).or_default() += 1;
    }
}

/// Kernels that `work` launches, on all threads: how many of each, the most first.
pub fn count(work: impl FnOnce()) -> Vec<(String, usize)> {
    let counts = Arc::new(Counts::default());
    let watching = LaunchObservation::new(counts.clone());
    work();
    drop(watching);
    let counts = counts.0.lock().unwrap_or_else(PoisonError::into_inner);
    let mut named = BTreeMap::new();
    for (kernel, count) in counts.iter() {
        let name = type_name_format(kernel, TypeNameFormatLevel::Short);
        *named.entry(name).or_default() += *count;
    }
    let mut named: Vec<(String, usize)> = named.into_iter().collect();
    named.sort_by(|a, b| b.1.cmp(&a.1));
    named
}
