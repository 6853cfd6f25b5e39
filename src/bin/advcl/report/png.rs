//! Pixels inside the page.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};

/// Pixels in gray or colour, row by row, as an address of a PNG that holds it; none of an image without pixels.
pub fn png(bytes: &[u8], width: usize, height: usize) -> Option<String> {
    let kind = match bytes.len() == 3 * width * height {
        true => ExtendedColorType::Rgb8,
        false => ExtendedColorType::L8,
    };
    let mut png = Vec::new();
    let size = (width as u32, height as u32);
    let written = PngEncoder::new(&mut png).write_image(bytes, size.0, size.1, kind);
    written.ok()?;
    Some(format!("data:image/png;base64,{}", STANDARD.encode(png)))
}
