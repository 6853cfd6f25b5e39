//! Global average pooling.

use crate::shape::Activation;

/// The mean over the pixels: `[height, width, batch, channels]` to `[batch, channels]`.
///
/// # Panics
/// If `x` does not have `shape`'s length.
pub fn mean_pool(shape: &Activation, x: &[f32]) -> Vec<f32> {
    assert_eq!(
        x.len(),
        shape.len(),
        "the input does not have the length of its shape: {shape:?}"
    );
    let row = shape.batch * shape.channels;
    let mut sum = vec![0.0; row];
    for pixel in x.chunks_exact(row.max(1)) {
        for (sum, value) in sum.iter_mut().zip(pixel) {
            *sum += value;
        }
    }
    let scale = 1.0 / (shape.height * shape.width) as f32;
    sum.iter_mut().for_each(|sum| *sum *= scale);
    sum
}

/// The gradient of [`mean_pool`]'s input of shape `shape`.
///
/// # Panics
/// If `dy` is not `[batch, channels]`.
pub fn mean_pool_backward(shape: &Activation, dy: &[f32]) -> Vec<f32> {
    assert_eq!(
        dy.len(),
        shape.batch * shape.channels,
        "the gradient is not [batch, channels] of {shape:?}"
    );
    let pixels = shape.height * shape.width;
    let scale = 1.0 / pixels as f32;
    let pixel: Vec<f32> = dy.iter().map(|value| value * scale).collect();
    pixel.repeat(pixels)
}
