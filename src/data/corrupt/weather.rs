//! Snow, frost and fog: random layers over an image.

use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use rand_distr::StandardNormal;

use super::filter::{Border, Plane, Planes, gaussian};
use crate::data::images::luma;

/// Fog: mixes in `amount` of a random cloud, which is the smoother the larger `decay` is.
pub(super) fn fog(image: &mut Planes, (amount, decay): (f32, f32), rng: &mut ChaCha8Rng) {
    let (height, width) = (image[0].height, image[0].width);
    let cloud = cloud(height.max(width).next_power_of_two(), decay, rng);
    let values = image.iter().flat_map(|plane| &plane.values);
    let brightest = values.fold(0.0f32, |most, &value| most.max(value));
    let share = brightest / (brightest + amount);
    for plane in image {
        for (i, value) in plane.values.iter_mut().enumerate() {
            let fog = cloud.values[i / width * cloud.width + i % width];
            *value = (*value + amount * fog) * share;
        }
    }
}

/// Plasma fractal on a torus by the diamond-square algorithm, in [0, 1]; `side` is a power of two.
fn cloud(side: usize, decay: f32, rng: &mut ChaCha8Rng) -> Plane {
    let mut map = Plane::from_fn(side, side, |_, _| 0.0);
    let (mut step, mut amplitude) = (side, 100.0f32);
    while step >= 2 {
        let half = step / 2;
        let around = |map: &Plane, points: [(usize, usize); 4], rng: &mut ChaCha8Rng| {
            let value = |(y, x): (usize, usize)| map.values[y % side * side + x % side];
            let mean = points.map(value).iter().sum::<f32>() / 4.0;
            mean + amplitude * amplitude * rng.random_range(-1.0..=1.0f32)
        };
        for y in (half..side).step_by(step) {
            for x in (half..side).step_by(step) {
                let (up, left) = (y - half, x - half);
                let corners = [
                    (up, left),
                    (up, x + half),
                    (y + half, left),
                    (y + half, x + half),
                ];
                map.values[y * side + x] = around(&map, corners, rng);
            }
        }
        for y in (0..side).step_by(half) {
            let first = if y % step == 0 { half } else { 0 };
            for x in (first..side).step_by(step) {
                let (up, left) = (y + side - half, x + side - half);
                let beside = [(up, x), (y + half, x), (y, left), (y, x + half)];
                map.values[y * side + x] = around(&map, beside, rng);
            }
        }
        (step, amplitude) = (half, amplitude / decay);
    }
    let least = map.values.iter().copied().fold(f32::INFINITY, f32::min);
    let most = map.values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let range = (most - least).max(f32::MIN_POSITIVE);
    let scaled = |value: &mut f32| *value = (*value - least) / range;
    map.values.iter_mut().for_each(scaled);
    map
}

/// Parameters of snow: mean and deviation of the noise, size of the flakes, threshold of the noise,
/// radius and deviation of the motion blur, and weight of the unchanged image.
pub(super) type Snow = (f32, f32, f64, f32, usize, f32, f32);

/// Snow: whitens the image and adds blurred flakes, and the same flakes turned by 180°.
pub(super) fn snow(image: &mut Planes, snow: Snow, rng: &mut ChaCha8Rng) {
    let (mean, deviation, size, threshold, radius, sigma, stays) = snow;
    let (height, width) = (image[0].height, image[0].width);
    let mut flakes = Plane::from_fn(height, width, |_, _| {
        mean + deviation * rng.sample::<f32, _>(StandardNormal)
    })
    .zoomed(size);
    for value in &mut flakes.values {
        *value = if *value < threshold {
            0.0
        } else {
            value.clamp(0.0, 1.0)
        };
    }
    let degrees = rng.random_range(-135.0..-45.0);
    let flakes = flakes.smeared(radius, sigma, degrees).values;
    let gray: Vec<f32> = match &image[..] {
        [red, green, blue] => (0..height * width)
            .map(|i| luma([red.values[i], green.values[i], blue.values[i]]))
            .collect(),
        other => other[0].values.clone(),
    };
    for plane in image {
        for (i, value) in plane.values.iter_mut().enumerate() {
            let white = value.max(gray[i] * 1.5 + 0.5);
            let fallen = flakes[i] + flakes[height * width - 1 - i];
            *value = stays * *value + (1.0 - stays) * white + fallen;
        }
    }
}

/// Frost: mixes `stays` of the image with `amount` of an ice texture.
///
/// The published images take the texture from photographs. This one is drawn: needles in three
/// directions, as in ice crystals, on fine grain, with the mean, the deviation within a picture and
/// the tint of the photographs.
pub(super) fn frost(image: &mut Planes, (stays, amount): (f32, f32), rng: &mut ChaCha8Rng) {
    let (height, width) = (image[0].height, image[0].width);
    let level = rng.random_range(0.38..0.9f32);
    let contrast = rng.random_range(0.06..0.15f32);
    let tint = rng.random_range(0.0..1.0f32);
    let first = rng.random_range(0.0..std::f64::consts::PI);
    let mut ice = Plane::from_fn(height, width, |_, _| {
        0.5 * rng.sample::<f32, _>(StandardNormal)
    });
    for needle in 0..(height + width) / 2 {
        let (mut y, mut x) = (
            rng.random_range(0.0..height as f64),
            rng.random_range(0.0..width as f64),
        );
        let angle = first + std::f64::consts::FRAC_PI_3 * (needle % 3) as f64;
        let (down, right) = angle.sin_cos();
        let length = rng.random_range(2..=(height.min(width) / 3).max(2));
        let strength = rng.random_range(0.5..2.0f32);
        for _ in 0..length {
            let inside = (0.0..height as f64).contains(&y) && (0.0..width as f64).contains(&x);
            if inside {
                ice.values[y as usize * width + x as usize] += strength;
            }
            (y, x) = (y + down, x + right);
        }
    }
    let ice = ice.blurred(&gaussian(0.4, 1), Border::Mirror);
    let count = ice.values.len() as f32;
    let mean = ice.values.iter().sum::<f32>() / count;
    let spread = ice.values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / count;
    let spread = spread.sqrt().max(f32::MIN_POSITIVE);
    // Red, green, blue: the ice is bluish in some of the photographs. Gray images have no tint.
    let tints: &[f32] = match image.len() {
        3 => &[-0.12, 0.0, 0.08],
        _ => &[0.0],
    };
    for (plane, colour) in image.iter_mut().zip(tints) {
        for (value, ice) in plane.values.iter_mut().zip(&ice.values) {
            let texture = level + contrast * (ice - mean) / spread + tint * colour;
            *value = stays * *value + amount * texture.clamp(0.0, 1.0);
        }
    }
}
