//! Contact sheets: views of images side by side, in one PNG file.

use std::path::Path;

use super::own_output::mark_png;
use super::png::{byte, encode};
use crate::error::{Error, Result};
use crate::files::write_output;
use crate::tensor::Batch;

/// Width of the gap between two pictures, in pixels.
const GAP: usize = 2;
/// Largest size of a contact sheet in memory, in bytes.
const MAX_SHEET: usize = 1 << 30;

/// Writes a contact sheet: a row per image, a column per view, white gaps between them.
///
/// Each pixel is enlarged to `scale` × `scale`. Values are clamped to [0, 1]: shift a signed view
/// (high frequencies) first. Gray and colour columns may be mixed. The file is written whole or not at all,
/// and marked as this program's, so that it is never read as data.
///
/// # Shapes
/// Each column is `[images, 1 or 3 channels, height, width]`.
///
/// # Errors
/// [`Error::Data`] if the columns differ in images, height or width, if there is nothing to draw,
/// or if the sheet would be too large; [`Error::Io`] if it cannot be written.
pub fn contact_sheet(columns: &[&Batch], scale: usize, path: &Path) -> Result<()> {
    let refuse =
        |problem: String, hint: &str| Err(Error::data(path.display().to_string(), problem, hint));
    let Some(first) = columns.first() else {
        return refuse(
            "expected views to draw, found none".into(),
            "name at least one view",
        );
    };
    let [rows, _, height, width] = first.shape;
    for (c, column) in columns.iter().enumerate() {
        let [n, channels, h, w] = column.shape;
        let whole = column.data.len() == n * channels * h * w;
        if [n, h, w] != [rows, height, width] || !matches!(channels, 1 | 3) || !whole {
            return refuse(
                format!(
                    "view {}: expected shape [{rows}, 1 or 3, {height}, {width}], found {:?} with {} values",
                    c + 1,
                    column.shape,
                    column.data.len()
                ),
                "draw views of the same images",
            );
        }
    }
    if first.data.is_empty() || scale == 0 {
        return refuse(
            format!(
                "expected images and a scale of at least 1, found {rows} images and a scale of {scale}"
            ),
            "1 draws the images in their own size",
        );
    }
    let colour = columns.iter().any(|column| column.shape[1] == 3);
    let depth = if colour { 3 } else { 1 };
    let side = |cells: usize, len: usize| {
        let pixels = len
            .checked_mul(scale)?
            .checked_add(GAP)?
            .checked_mul(cells)?
            - GAP;
        u32::try_from(pixels).ok()
    };
    let sides = side(columns.len(), width).zip(side(rows, height));
    let bytes = sides.and_then(|(w, h)| (w as usize).checked_mul(h as usize)?.checked_mul(depth));
    let (Some((sheet_width, sheet_height)), Some(bytes @ ..=MAX_SHEET)) = (sides, bytes) else {
        return refuse(
            format!(
                "expected a contact sheet of at most {MAX_SHEET} bytes, found {rows} × {} pictures of {width} × {height} at a scale of {scale}",
                columns.len()
            ),
            "use a smaller scale or fewer images",
        );
    };

    let mut sheet = vec![255; bytes];
    for (c, column) in columns.iter().enumerate() {
        for row in 0..rows {
            let top = row * (height * scale + GAP);
            let left = c * (width * scale + GAP);
            for y in 0..height * scale {
                let start = ((top + y) * sheet_width as usize + left) * depth;
                let line = &mut sheet[start..][..width * scale * depth];
                for (x, pixel) in line.chunks_exact_mut(depth).enumerate() {
                    for (channel, shown) in pixel.iter_mut().enumerate() {
                        *shown = value(column, row, channel, y / scale, x / scale);
                    }
                }
            }
        }
    }
    let png = encode(&sheet, sheet_width, sheet_height, colour);
    let png = png.map_err(Error::io("write", path))?;
    write_output(path, &mark_png(png))
}

/// One value of a view as a byte. A gray view has the same value in every channel; NaN becomes
/// black.
fn value(column: &Batch, row: usize, channel: usize, y: usize, x: usize) -> u8 {
    let [_, channels, height, width] = column.shape;
    let channel = channel.min(channels - 1);
    byte(column.data[((row * channels + channel) * height + y) * width + x])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn batch(shape: [usize; 4], data: &[f32]) -> Batch {
        Batch {
            data: data.to_vec(),
            shape,
        }
    }

    #[test]
    fn a_sheet_holds_each_view_enlarged_and_clamped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sheet.png");
        let gray = batch([2, 1, 1, 2], &[0.0, 0.2, 0.4, 9.0]);
        let colour = batch(
            [2, 3, 1, 2],
            &[-1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6],
        );
        contact_sheet(&[&gray, &colour], 3, &path).unwrap();
        let sheet = image::open(&path).unwrap().into_rgb8();
        assert_eq!(sheet.dimensions(), (6 + 2 + 6, 3 + 2 + 3));
        assert_eq!(sheet.get_pixel(5, 2).0, [51; 3]);
        assert_eq!(sheet.get_pixel(6, 2).0, [255; 3], "gap");
        assert_eq!(sheet.get_pixel(8, 0).0, [0; 3]);
        assert_eq!(sheet.get_pixel(0, 5).0, [102; 3]);
        assert_eq!(sheet.get_pixel(5, 7).0, [255; 3], "clamped");
        assert_eq!(sheet.get_pixel(13, 7).0, [153; 3]);
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no temporary file left"
        );

        contact_sheet(&[&gray], 1, &path).unwrap();
        let sheet = image::open(&path).unwrap();
        assert_eq!(sheet.color(), image::ColorType::L8);
        assert_eq!(sheet.into_luma8().dimensions(), (2, 4));
    }

    #[test]
    fn a_sheet_that_cannot_be_drawn_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sheet.png");
        let one = batch([1, 1, 1, 2], &[0.0, 0.2]);
        let other = batch([1, 1, 2, 1], &[0.0, 0.2]);
        let short = batch([1, 1, 1, 2], &[0.0]);
        let none = batch([0, 1, 1, 2], &[]);
        let cases: [(&[&Batch], usize); 6] = [
            (&[], 1),
            (&[&one, &other], 1),
            (&[&one, &short], 1),
            (&[&none], 1),
            (&[&one], 0),
            (&[&one], usize::MAX / 2),
        ];
        for (columns, scale) in cases {
            let error = contact_sheet(columns, scale, &path).unwrap_err();
            assert!(matches!(error, Error::Data { .. }), "{error}");
        }
        assert!(!path.exists());
        let nowhere = dir.path().join("missing/sheet.png");
        assert!(matches!(
            contact_sheet(&[&one], 1, &nowhere),
            Err(Error::Io { .. })
        ));
    }
}
