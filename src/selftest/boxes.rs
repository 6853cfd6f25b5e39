//! Checks of FAB's projection and of the Square attack: its schedule, patterns, starts and single
//! changes.

use super::OUTPUT;
use super::golden::Golden;
use crate::attack::fab::shift_to_plane;
use crate::attack::square::{Canvas, Window, pattern};
use crate::attack::{Norm, Square};
use crate::error::{Error, Result};

/// Checks FAB: the shortest change that brings a point onto a hyperplane.
pub fn fab_projection(file: &mut Golden) -> Result<()> {
    let [count, size] = dimensions(file, "points")?;
    let points = shaped(file, "points", &[count, size])?;
    let weights = shaped(file, "weights", &[count, size])?;
    let residuals = shaped(file, "residuals", &[count])?;
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
    for suffix in file.suffixes("pattern.") {
        let name = format!("pattern.{suffix}");
        let [side, _] = dimensions(file, &name)?;
        file.compare(&name, &pattern(side), OUTPUT)?;
    }

    let [count, channels, height, width] = dimensions(file, "images")?;
    let shape = [channels, height, width];
    let whole = [count, channels, height, width];
    let images = shaped(file, "images", &whole)?;
    let size = channels * height * width;
    let canvas = |image: usize, radius: f64| Canvas {
        original: &images[image * size..][..size],
        shape,
        radius,
    };

    let radius = file.number("epsilon_linf")?;
    let stripes = shaped(file, "linf.start_signs", &[count, channels, width])?;
    let start = shaped(file, "linf.start", &whole)?;
    let windows = shaped(file, "linf.windows", &[count, 3])?;
    let signs = shaped(file, "linf.signs", &[count, channels])?;
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
    let turned = shaped(file, "l2.start_turned", &[count, tiles])?;
    let turned: Vec<bool> = turned.iter().map(|v| *v != 0.0).collect();
    let tile_signs = shaped(file, "l2.start_signs", &[count, tiles, channels])?;
    let start = shaped(file, "l2.start", &whole)?;
    let corners = shaped(file, "l2.windows", &[count, 2, 2])?;
    let side = shaped(file, "l2.side", &[1])?[0];
    let rotated = shaped(file, "l2.turned", &[count])?;
    let signs = shaped(file, "l2.signs", &[count, channels])?;
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

/// Shape of a tensor that must have `D` axes, none of them empty.
fn dimensions<const D: usize>(file: &Golden, name: &str) -> Result<[usize; D]> {
    let (shape, _) = file.values(name)?;
    let found = format!("{shape:?}");
    let shape = <[usize; D]>::try_from(shape).ok();
    let shape = shape.filter(|shape| shape.iter().all(|axis| *axis > 0));
    let place = format!("tensor {name}");
    shape.ok_or_else(|| Error::format(&file.path, place, format!("{D} axes, none empty"), found))
}

/// Values of a tensor that must have the given shape.
fn shaped(file: &Golden, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
    let (found, values) = file.values(name)?;
    if found != shape {
        let (expected, found) = (format!("{shape:?}"), format!("{found:?}"));
        return Err(Error::format(
            &file.path,
            format!("tensor {name}"),
            expected,
            found,
        ));
    }
    Ok(values)
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
        let place = format!("tensor {name}");
        let (expected, found) = ("windows inside the images", format!("{numbers:?}"));
        return Err(Error::format(&file.path, place, expected, found));
    }
    Ok(Window { top, left, side })
}
