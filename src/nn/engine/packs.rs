//! Weights packed for the kernels, kept as long as somebody holds the weights.
//!
//! A weight does not change within a training step, and a step runs it thirty times and more: forward for each view and
//! each step of the attack, and as often on the way back.

use std::sync::{Arc, Mutex, PoisonError};

use advcl_kernels::{Convolution, Packed, Pass};
use burn::backend::Bytes;
use burn_flex::FlexTensor;

struct Kept {
    /// Held, so that nobody can write these bytes in place, nor other weights take their address.
    weight: Arc<Bytes>,
    packed: Arc<Packed>,
}

static KEPT: Mutex<Vec<Kept>> = Mutex::new(Vec::new());

/// The packed form of `w`, made if it is not there.
pub(super) fn packed(conv: &Convolution, w: &FlexTensor, pass: Pass) -> Arc<Packed> {
    let weight = w.data_arc();
    let whole = w.is_contiguous() && weight.len() == conv.weight_len() * size_of::<f32>();
    if whole {
        let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept
            .iter()
            .find(|k| Arc::ptr_eq(&k.weight, &weight) && k.packed.fits(conv, pass));
        if let Some(found) = found {
            return found.packed.clone();
        }
    }
    let contiguous = w.to_contiguous();
    let values: &[f32] = contiguous.as_slice().expect("the engine's tensors are f32");
    let packed = Arc::new(Packed::new(conv, values, pass));
    if whole {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody asks again for weights that only we still hold.
        kept.retain(|k| Arc::strong_count(&k.weight) > 1);
        kept.push(Kept {
            weight,
            packed: packed.clone(),
        });
    }
    packed
}

/// Drops all: the weights were replaced. Autodiff may hold the old ones until its next backward pass, and with two
/// generations of packed weights a step would take half as much memory again.
pub(super) fn forget() {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).clear();
}
