//! Noise, brightness, glass, elastic and JPEG corruptions of one image, with given parameters.

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use super::filter::{Border, Plane, Planes, byte, gaussian};
use crate::data::images::unit;
use crate::error::{Error, Result};

/// Changes each value separately, in order.
pub(super) fn each(image: &mut Planes, mut change: impl FnMut(f32) -> f32) {
    let values = image.iter_mut().flat_map(|plane| &mut plane.values);
    values.for_each(|value| *value = change(*value));
}

/// Increases the value (of hue, saturation, value): multiplies all channels by the same factor.
/// Black becomes gray.
pub(super) fn brighten(image: &mut Planes, amount: f32) {
    for i in 0..image[0].values.len() {
        let value = image.iter().map(|p| p.values[i]).fold(0.0, f32::max);
        let brighter = (value + amount).min(1.0);
        for plane in image.iter_mut() {
            plane.values[i] = if value > 0.0 {
                plane.values[i] * (brighter / value)
            } else {
                brighter
            };
        }
    }
}

/// Glass blur: blurs the image, gives pixels the values of others nearby, and blurs again.
///
/// The published code intends to swap pixels; since they are views of one array there, it copies
/// one over the other. So does this function.
pub(super) fn glass(
    image: &mut Planes,
    sigma: f32,
    (reach, rounds): (usize, usize),
    rng: &mut ChaCha8Rng,
) {
    let (height, width) = (image[0].height, image[0].width);
    let weights = gaussian(sigma, (4.0 * sigma + 0.5) as usize);
    image
        .iter_mut()
        .for_each(|p| *p = p.blurred(&weights, Border::Edge));
    each(image, |value| unit(byte(value)));
    for _ in 0..rounds {
        for y in (reach + 1..=height.saturating_sub(reach)).rev() {
            for x in (reach + 1..=width.saturating_sub(reach)).rev() {
                let right = rng.random_range(0..2 * reach);
                let down = rng.random_range(0..2 * reach);
                let from = (y + down - reach) * width + x + right - reach;
                for plane in image.iter_mut() {
                    plane.values[y * width + x] = plane.values[from];
                }
            }
        }
    }
    image
        .iter_mut()
        .for_each(|p| *p = p.blurred(&weights, Border::Edge));
}

/// Applies the affine map that moves three points around the centre by up to `reach` pixels.
pub(super) fn shear(image: &mut Planes, reach: f64, rng: &mut ChaCha8Rng) {
    let (height, width) = (image[0].height, image[0].width);
    let (y, x) = ((height / 2) as f64, (width / 2) as f64);
    let off = (height.min(width) / 3) as f64;
    let from = [[x + off, y + off], [x + off, y - off], [x - off, y - off]];
    let to = from.map(|point| point.map(|at| at + rng.random_range(-reach..=reach)));
    // The source of an output pixel: the inverse map takes `to` to `from`.
    let edge = |points: [[f64; 2]; 3], i: usize, axis: usize| points[i][axis] - points[0][axis];
    let [a, b, c, d] = [(1, 0), (2, 0), (1, 1), (2, 1)].map(|(i, axis)| edge(to, i, axis));
    let determinant = a * d - b * c;
    if determinant == 0.0 {
        return; // In an image of a few pixels the points may lie on a line.
    }
    let back = |y: usize, x: usize| {
        let (x, y) = (x as f64 - to[0][0], y as f64 - to[0][1]);
        let (u, v) = ((d * x - b * y) / determinant, (a * y - c * x) / determinant);
        [1, 0].map(|axis| from[0][axis] + u * edge(from, 1, axis) + v * edge(from, 2, axis))
    };
    for plane in image {
        *plane = Plane::from_fn(height, width, |y, x| {
            let [y, x] = back(y, x);
            plane.sample(y, x, Border::MirrorInside)
        });
    }
}

/// Moves every pixel by smoothed noise: `amount` is its strength and `sigma` its smoothing, both in
/// pixels.
pub(super) fn bend(image: &mut Planes, amount: f32, sigma: f32, rng: &mut ChaCha8Rng) {
    let (height, width) = (image[0].height, image[0].width);
    let weights = gaussian(sigma, (3.0 * sigma + 0.5) as usize);
    let mut field = || {
        let noise = Plane::from_fn(height, width, |_, _| rng.random_range(-1.0..=1.0f32));
        noise.blurred(&weights, Border::Mirror)
    };
    let (right, down) = (field(), field());
    let moved =
        |at: usize, field: &Plane, i: usize| at as f64 + f64::from(amount * field.values[i]);
    for plane in image {
        *plane = Plane::from_fn(height, width, |y, x| {
            let i = y * width + x;
            plane.sample(moved(y, &down, i), moved(x, &right, i), Border::Mirror)
        });
    }
}

/// Compresses and decompresses the image as JPEG, with colours at half the resolution (4:2:0).
pub(super) fn jpeg(image: &mut Planes, quality: u8) -> Result<()> {
    use jpeg_encoder::{ChromaSubsamplingMethod, ColorType, Encoder, SamplingFactor};
    let (height, width) = (image[0].height, image[0].width);
    let (Ok(high), Ok(wide)) = (u16::try_from(height), u16::try_from(width)) else {
        let problem = format!("a JPEG file cannot hold {height} × {width} pixels");
        return Err(Error::data("jpeg_compression", problem, ""));
    };
    // Interleaved pixels. The values are whole multiples of 1/255, so these are the bytes of the
    // image.
    let pixels: Vec<u8> = (0..height * width)
        .flat_map(|i| {
            image
                .iter()
                .map(move |p| (p.values[i] * 255.0).round() as u8)
        })
        .collect();
    let channels = image.len();
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, quality);
    encoder.set_sampling_factor(SamplingFactor::R_4_2_0);
    encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
    let colour = match channels {
        3 => ColorType::Rgb,
        _ => ColorType::Luma,
    };
    let whole = "as many bytes as pixels, and memory takes them";
    encoder.encode(&pixels, wide, high, colour).expect(whole);
    let file = image::load_from_memory_with_format(&file, image::ImageFormat::Jpeg);
    let decoded = file.expect("a JPEG file that was just written");
    let back = match channels {
        3 => decoded.into_rgb8().into_raw(),
        _ => decoded.into_luma8().into_raw(),
    };
    for (channel, plane) in image.iter_mut().enumerate() {
        for (value, pixel) in plane.values.iter_mut().zip(back.chunks_exact(channels)) {
            *value = unit(pixel[channel]);
        }
    }
    Ok(())
}
