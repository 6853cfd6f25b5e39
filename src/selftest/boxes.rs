//! Checks of FAB's projection and of the Square attack: its schedule, patterns, starts and single
//! changes.

use super::OUTPUT;
use super::golden::Golden;
use crate::attack::fab::shift_to_plane;
use crate::attack::square::{Canvas, Window, pattern};
use crate::attack::{Norm, Square};
use crate::error::Result;

/// Checks FAB: the shortest change that brings a point onto a hyperplane.
pub fn fab_projection(file: &mut Golden) -> Result<()> {
    let [count, size] = file.dims("points")?;
    let points = file.shaped("points", &[count, size])?;
    let weights = file.shaped("weights", &[count, size])?;
    let residuals = file.shaped("residuals", &[count])?;
    for (name, norm) in [("linf", Norm::Linf), ("l2", Norm::L2)] {
        let cases = points.chunks(size).zip(weights.chunks(size));
        let shift = |((point, slope), residual): ((&[f32], &[f32]), &f32)| {
            shift_to_plane(norm, point, slope, f64::from(*residual))
        };
        let ours: Vec<f32> = cases.zip(&residuals).flat_map(shift).collect();
        file.compare(name, &ours, OUTPUT)?;
    }
    Ok(())
}

/// Checks the Square attack, except for its random numbers.
pub fn square_step(file: &mut Golden) -> Result<()> {
    let square = Square {
        queries: file.count("queries")?,
        p_init: file.number("p_init")?,
        restarts: 1,
    };
    let (_, queries) = file.values("queries")?;
    let share = |query: &f32| {
        let halvings = square.halvings(*query as usize);
        (square.p_init / f64::powi(2.0, halvings as i32)) as f32
    };
    let shares: Vec<f32> = queries.iter().map(share).collect();
    file.compare("shares", &shares, OUTPUT)?;
    for suffix in file.some_suffixes("pattern.")? {
        let name = format!("pattern.{suffix}");
        // Both sides, before a pattern of this size is made.
        let [side, _] = file.dims(&name)?;
        file.shaped(&name, &[side, side])?;
        file.compare(&name, &pattern(side), OUTPUT)?;
    }

    let [count, channels, height, width] = file.dims("images")?;
    let shape = [channels, height, width];
    let whole = [count, channels, height, width];
    let images = file.shaped("images", &whole)?;
    let size = channels * height * width;
    let canvas = |image: usize, radius: f64| Canvas {
        original: &images[image * size..][..size],
        shape,
        radius,
    };

    let radius = file.number("epsilon_linf")?;
    let stripes = file.shaped("linf.start_signs", &[count, channels, width])?;
    let start = file.shaped("linf.start", &whole)?;
    let windows = file.shaped("linf.windows", &[count, 3])?;
    let signs = file.shaped("linf.signs", &[count, channels])?;
    let (mut starts, mut changed) = (Vec::new(), start);
    for (image, x) in changed.chunks_mut(size).enumerate() {
        let canvas = canvas(image, radius);
        starts.extend(canvas.stripes(&stripes[image * channels * width..][..channels * width]));
        let [top, left, side] = [0, 1, 2].map(|at| windows[image * 3 + at]);
        let window = window(file, "linf.windows", [top, left, side], shape)?;
        canvas.paint(x, window, &signs[image * channels..][..channels]);
    }
    file.compare("linf.start", &starts, OUTPUT)?;
    file.compare("linf.next", &changed, OUTPUT)?;

    let radius = file.number("epsilon_l2")?;
    let tiles = canvas(0, radius).tiles().len();
    let turned = file.shaped("l2.start_turned", &[count, tiles])?;
    let turned: Vec<bool> = turned.iter().map(|v| *v != 0.0).collect();
    let tile_signs = file.shaped("l2.start_signs", &[count, tiles, channels])?;
    let start = file.shaped("l2.start", &whole)?;
    let corners = file.shaped("l2.windows", &[count, 2, 2])?;
    let side = file.shaped("l2.side", &[1])?[0];
    let rotated = file.shaped("l2.turned", &[count])?;
    let signs = file.shaped("l2.signs", &[count, channels])?;
    let (mut starts, mut changed) = (Vec::new(), Vec::new());
    for (image, best) in start.chunks(size).enumerate() {
        let canvas = canvas(image, radius);
        let tile_signs = &tile_signs[image * tiles * channels..][..tiles * channels];
        starts.extend(canvas.tiled(&turned[image * tiles..][..tiles], tile_signs));
        let corner = |at: usize| {
            let [top, left] = [0, 1].map(|axis| corners[image * 4 + at * 2 + axis]);
            window(file, "l2.windows", [top, left, side], shape)
        };
        let windows = [corner(0)?, corner(1)?];
        let signs = &signs[image * channels..][..channels];
        let (pattern, rotated) = (pattern(side as usize), rotated[image] != 0.0);
        changed.extend(canvas.reshape(best, windows, &pattern, rotated, signs));
    }
    file.compare("l2.start", &starts, OUTPUT)?;
    file.compare("l2.next", &changed, OUTPUT)
}

/// Window with the given top, left and side, which must lie within the image.
fn window(
    file: &Golden,
    name: &str,
    numbers: [f32; 3],
    [_, height, width]: [usize; 3],
) -> Result<Window> {
    let [top, left, side] = numbers.map(|v| v as usize);
    if side == 0 || side > height || side > width || top > height - side || left > width - side {
        let (place, found) = (format!("tensor {name}"), format!("{numbers:?}"));
        return Err(file.broken(place, "windows inside the images", found));
    }
    Ok(Window { top, left, side })
}
