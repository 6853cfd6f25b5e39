//! Convolution on the matrix tiles of Intel's AMX: products of bf16, sums in f32.
//!
//! A tile is 16 rows of 64 bytes. One instruction multiplies 16 rows of 32 bf16 by 32 rows of 16
//! columns and adds the products to a tile of 16 × 16 sums. Here two by two such tiles of sums are
//! computed at a time, so that each tile that is loaded serves two products ([`tiles`]).
//!
//! For the output and the gradient of the input, the rows are the images of neighbouring pixels: in
//! our layout they follow each other, so neither a batch of one image nor one of 33 wastes much.
//! The source is rounded to bf16 first, in [`strips`]: the pixels that one position of the kernel
//! meets along a row of the result, with zeros beyond the border. The columns are channels, packed
//! once for each weight. The gradient of the weight sums over pixels and images instead; there the
//! strips of the input are transposed.
//!
//! Sums over few channels stay with the other kernels: they would fill a fraction of a tile, and
//! the first layer keeps the precision of its images.
//!
//! # Bytes
//! Rounding reads each value of the source once (4 bytes) and writes two bytes, which stay in the
//! caches: images are taken in groups of at most 8 MiB. Each position of the kernel reads these two
//! bytes again for each 32 columns, from the nearest caches where a task's rows fit there. The
//! result is written once, as f32, with the epilogue. Sums stay in tiles until they are complete;
//! only those of the weight's gradient are stored and loaded again, after every 512 rows or more.
//!
//! # What was run
//! The algorithm is written once, over [`tiles::Tiles`]. Its tests run everywhere with tiles in
//! plain Rust. The assembly runs in tests on any x86-64 Linux: where the processor refuses the
//! instructions, a signal handler carries them out. On a processor with AMX the same tests use its
//! own instructions, whose last bit may differ; so far no such processor has run them, and nothing
//! here was timed on one.

mod convolve;
#[cfg(test)]
mod emulated;
mod hardware;
mod pack;
mod plan;
mod strips;
#[cfg(test)]
mod tests;
mod tiles;
#[cfg(all(test, target_arch = "x86_64", target_os = "linux", not(miri)))]
mod trap;
mod weight;

use crate::epilogue::PreparedEpilogue;
use crate::packed::Packed;
#[cfg(test)]
use crate::permission::usable;
use crate::shape::Convolution;

pub(crate) use pack::{depth, pack};

/// The fewest channels whose sums are worth a tile's 32, half of which are zeros then.
pub(crate) const FEWEST: usize = 16;

/// Bytes of rounded activations at a time, so that they stay in the caches.
const SCRATCH: usize = 8 << 20;

/// The number of images that are computed at a time, if all together take `cells` of 4 bytes. A
/// multiple of 16 where that is possible.
fn images_at_once(batch: usize, cells: usize) -> usize {
    let bytes = cells * size_of::<f32>();
    if bytes <= SCRATCH {
        return batch.max(1);
    }
    match batch * SCRATCH / bytes {
        fitting @ 0..16 => fitting.max(1),
        fitting => fitting / 16 * 16,
    }
}

/// The output of a convolution, or the gradient of its input, depending on `packed`.
pub(crate) fn convolve(
    conv: &Convolution,
    source: &[f32],
    packed: &Packed,
    epilogue: Option<&PreparedEpilogue>,
) -> Vec<f32> {
    #[cfg(test)]
    if !usable() {
        return convolve::convolve::<emulated::Emulated>(conv, source, packed, epilogue, None);
    }
    convolve::convolve::<hardware::Hardware>(conv, source, packed, epilogue, None)
}

/// The gradient of a convolution's weight, `[out, in, kernel, kernel]`.
pub(crate) fn weight_gradient(conv: &Convolution, x: &[f32], dy: &[f32]) -> Vec<f32> {
    #[cfg(test)]
    if !usable() {
        return weight::weight_gradient::<emulated::Emulated>(conv, x, dy, None);
    }
    weight::weight_gradient::<hardware::Hardware>(conv, x, dy, None)
}
