//! Decoder of image files: PNG, JPEG, WebP, BMP, TIFF and GIF, whatever their names.

use std::io::{Cursor, Read};
use std::path::Path;

use image::error::LimitErrorKind;
use image::metadata::Orientation;
use image::{
    ColorType, DynamicImage, GrayImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits,
    RgbImage,
};

use super::fit::Picture;
use super::images::luma;
use super::reading::{Channels, Reading};
use super::stream::{read_at_most, read_error};
use super::{tiff, webp};
use crate::error::{Error, Result};

/// Largest side of an image in pixels that is not brought to another size: far above what encoders are trained
/// on, and small enough that a damaged header cannot reserve all memory.
pub const MAX_SIDE: usize = 4096;
/// Largest image file in bytes.
const MAX_FILE: u64 = 64 << 20;
/// Most bytes of pixels for each byte of a file, beside [`FEW_BYTES`]: what compression can reach. No more memory
/// is claimed by what a header declares.
const MAX_RATIO: usize = 4096;
/// Bytes of pixels that any file may declare.
const FEW_BYTES: usize = 64 << 20;
/// Memory for what a PNG file holds besides its pixels, in bytes: colour profiles, texts. Each thread that
/// decodes may take as much.
const MAX_EXTRAS: u64 = 16 << 20;
/// Memory of the decoders of other formats, in bytes.
const MAX_DECODER: u64 = 512 << 20;

/// A decoded image.
#[derive(Debug)]
pub(super) struct Decoded {
    /// Image in the size and with the channels that are asked for; its own where none are.
    pub(super) picture: Picture,
    /// Height and width in the file, upright.
    pub(super) found: [usize; 2],
    /// Whether the file has 16 bits a channel, which were scaled to 8.
    pub(super) scaled_down: bool,
    /// Whether the image was turned or mirrored, as its EXIF orientation says.
    pub(super) turned: bool,
}

/// Reads an image file; `path` is for messages.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for a damaged archive around it; [`Error::Data`] for a file above the
/// limit.
pub(super) fn read_file(path: &Path, content: impl Read) -> Result<Vec<u8>> {
    let bytes = read_at_most(content, MAX_FILE)
        .map_err(|error| read_error(path, "image", "a whole file", error))?;
    bytes.ok_or_else(|| {
        Error::data(
            path.display().to_string(),
            format!("expected an image file of at most {MAX_FILE} bytes, found more"),
            "is it an image?",
        )
    })
}

/// Formats that are read.
const FORMATS: [ImageFormat; 6] = [
    ImageFormat::Png,
    ImageFormat::Jpeg,
    ImageFormat::WebP,
    ImageFormat::Bmp,
    ImageFormat::Tiff,
    ImageFormat::Gif,
];

/// Formats that are read, for messages.
pub(super) const KNOWN: &str = "PNG, JPEG, WebP, BMP, TIFF or GIF";

/// Format of a file that begins with these bytes; none where it is not one of those that are read.
pub(super) fn format_of(start: &[u8]) -> Option<ImageFormat> {
    let format = image::guess_format(start).ok()?;
    FORMATS.contains(&format).then_some(format)
}

/// Name of a format that is read.
pub(super) fn name_of(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Png => "PNG",
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Tiff => "TIFF",
        _ => "GIF",
    }
}

/// Kind of a file that is no image, in words, and what to do about it.
fn kind_of(bytes: &[u8]) -> (String, &'static str) {
    let starts = |start: &[u8]| bytes.starts_with(start);
    let brand = bytes.get(4..12).filter(|box_| box_.starts_with(b"ftyp"));
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).to_lowercase();
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    let (kind, hint) = match brand.map(|brand| &brand[4..]) {
        Some(b"avif" | b"avis") => ("an AVIF image", "convert it to PNG"),
        Some(b"heic" | b"heix" | b"hevc" | b"heim" | b"heis" | b"mif1" | b"msf1") => {
            ("a HEIC image", "convert it to JPEG or PNG")
        }
        Some(_) => ("a video", "take single images out of it"),
        None if bytes.is_empty() => ("an empty file", "copy it again"),
        None if text.starts_with("<!doctype html") || text.starts_with("<html") => {
            ("an HTML page", "the download failed: fetch it again")
        }
        None if text.starts_with("version https://git-lfs") => {
            ("a Git LFS pointer", "fetch the file itself: git lfs pull")
        }
        None if text.starts_with("<svg") || text.starts_with("<?xml") => {
            ("an SVG or XML text", "convert it to PNG")
        }
        None if starts(b"\x93NUMPY") => ("a NumPy array", "convert it to PNG"),
        None if starts(b"%PDF") => ("a PDF", "convert its pages to PNG"),
        None if starts(b"PK") => ("a zip archive", "unpack it"),
        None if starts(&[0x1f, 0x8b]) => ("a gzip file", "unpack it"),
        None if starts(b"\0\x05\x16\x07") => {
            ("a resource file of macOS", "delete it: it has no pixels")
        }
        None if starts(b"\xff\x4f\xff\x51") || starts(b"\0\0\0\x0cjP") => {
            ("a JPEG 2000 image", "convert it to PNG")
        }
        None if starts(b"\xff\x0a") || starts(b"\0\0\0\x0cJXL") => {
            ("a JPEG XL image", "convert it to PNG")
        }
        None if !bytes.iter().take(200).any(|&byte| byte == 0) && text.is_ascii() => {
            ("a text", "take it out of the images")
        }
        None => ("something else", "is it an image, and whole?"),
    };
    (format!("{kind} ({} bytes)", bytes.len()), hint)
}

/// Decodes an image file; `path` is for messages.
///
/// # Errors
/// [`Error::Format`] for a damaged file; [`Error::Data`] for another kind of file, transparency without a
/// background, kinds of pixels that cannot be converted, and too many pixels.
pub(super) fn decode(path: &Path, bytes: &[u8], reading: &Reading) -> Result<Decoded> {
    let decoded = decode_whole(path, bytes, reading)?;
    Ok(Decoded {
        picture: decoded.picture.read_as(reading),
        ..decoded
    })
}

/// Decodes an image file in its own size and with its own channels, without alpha; `path` is for messages.
///
/// # Errors
/// As [`decode`].
pub(super) fn decode_whole(path: &Path, bytes: &[u8], reading: &Reading) -> Result<Decoded> {
    // By content: a JPEG file called .png is common and harmless.
    let Some(format) = format_of(bytes) else {
        let (found, hint) = kind_of(bytes);
        let problem = format!("expected {KNOWN}, found {found}");
        return Err(Error::data(path.display().to_string(), problem, hint));
    };
    let place = |part: &str| format!("{} {part}", name_of(format));
    let most_declared = FEW_BYTES.saturating_add(MAX_RATIO.saturating_mul(bytes.len()));
    let most_in_words = || {
        format!(
            "at most {most_declared} bytes of pixels in {} bytes",
            bytes.len()
        )
    };
    let damaged = |part: &str, error: ImageError| match error {
        ImageError::Limits(error) if error.kind() == LimitErrorKind::DimensionError => {
            too_large(path, reading)
        }
        ImageError::Limits(_) => {
            let (expected, found) = match format {
                ImageFormat::Png | ImageFormat::Jpeg => (
                    format!("at most {MAX_EXTRAS} bytes besides the pixels"),
                    "more: a colour profile, or texts",
                ),
                ImageFormat::Gif => (most_in_words(), "a frame with more"),
                _ => (format!("at most {MAX_DECODER} bytes of memory"), "more"),
            };
            Error::format(path, place(part), expected, found)
        }
        error => Error::format(path, place(part), "a whole image", error.to_string()),
    };
    if format == ImageFormat::Tiff
        && let Some(found) = tiff::beyond(bytes, most_declared as u64)
    {
        return Err(Error::format(
            path,
            place("directory"),
            most_in_words(),
            found,
        ));
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let most = match reading.size {
        Some(_) => u32::MAX,
        None => MAX_SIDE as u32,
    };
    let mut limits = Limits::default();
    limits.max_image_width = Some(most);
    limits.max_image_height = Some(most);
    limits.max_alloc = Some(match format {
        ImageFormat::Png | ImageFormat::Jpeg => MAX_EXTRAS,
        // Besides the pixels: a frame of another size than the image.
        ImageFormat::Gif => most_declared as u64,
        _ => MAX_DECODER,
    });
    reader.limits(limits);
    let mut decoder = reader
        .into_decoder()
        .map_err(|error| damaged("header", error))?;
    let (width, height) = decoder.dimensions();
    let (width, height) = (width as usize, height as usize);
    let pixels = width.saturating_mul(height);
    if width.max(height) > most as usize || pixels > reading.pixel_limit() {
        return Err(too_large(path, reading));
    }
    if pixels == 0 {
        let found = format!("{width} × {height}");
        return Err(Error::format(
            path,
            place("header"),
            "a pixel at least",
            found,
        ));
    }
    let kind = Kind::of(decoder.color_type()).ok_or_else(|| {
        let found = format!("{:?}", decoder.color_type());
        let problem = format!("expected gray or colour in 8 or 16 bits, found {found}");
        Error::data(path.display().to_string(), problem, "convert it to PNG")
    })?;
    // What the file says about it may be damaged while its pixels are not.
    let orientation = match format {
        // Its decoder claims what a chunk declares.
        ImageFormat::WebP => webp::orientation(bytes),
        _ => decoder.orientation().ok(),
    };
    let orientation = orientation.unwrap_or(Orientation::NoTransforms);
    // The JPEG decoder fills missing data with gray and reports no error.
    if format == ImageFormat::Jpeg && !jpeg_is_whole(bytes) {
        let found = format!("{} bytes without one", bytes.len());
        return Err(Error::format(
            path,
            place("image data"),
            "an end mark",
            found,
        ));
    }
    if format == ImageFormat::WebP
        && let Some((expected, found)) = webp::frame_of_another_size(bytes, [width, height])
    {
        return Err(Error::format(path, place("frame"), expected, found));
    }
    let length = pixels * kind.channels * if kind.wide { 2 } else { 1 };
    if length > most_declared {
        let expected = most_in_words();
        let found = length.to_string();
        return Err(Error::format(path, place("header"), expected, found));
    }
    let scaled = reading.size.map(|size| {
        let upright = match orientation.to_exif() {
            5.. => [width, height],
            _ => [height, width],
        };
        reading.fit.scaled(upright, size.sides())
    });
    let most = reading.pixel_limit();
    if scaled.is_some_and(|[height, width]| height.saturating_mul(width) > most) {
        let problem = format!(
            "{width} × {height} pixels: scaled in these proportions, it has more than {most}"
        );
        let hint = "take it out, or cut it: it is a line rather than an image";
        return Err(Error::data(path.display().to_string(), problem, hint));
    }
    let mut values = vec![0; length];
    if decoder.total_bytes() != values.len() as u64 {
        let found = format!("{} bytes", decoder.total_bytes());
        let expected = format!("{} bytes", values.len());
        return Err(Error::format(path, place("header"), expected, found));
    }
    decoder
        .read_image(&mut values)
        .map_err(|error| damaged("image data", error))?;
    if kind.wide {
        let (pairs, _) = values.as_chunks::<2>();
        let scaled = |pair: &[u8; 2]| ((u32::from(u16::from_ne_bytes(*pair)) + 128) / 257) as u8;
        values = pairs.iter().map(scaled).collect();
    }
    if kind.alpha {
        values = without_alpha(path, &values, kind.channels, reading)?;
    }
    let channels = kind.channels - usize::from(kind.alpha);
    let picture = Picture {
        pixels: values,
        height,
        width,
        channels,
    };
    let picture = upright(picture, orientation);
    let found = [picture.height, picture.width];
    Ok(Decoded {
        picture,
        found,
        scaled_down: kind.wide,
        turned: orientation != Orientation::NoTransforms,
    })
}

/// Kind of the values that a decoder gives.
struct Kind {
    /// Channels, with alpha.
    channels: usize,
    alpha: bool,
    /// Whether there are 16 bits a channel.
    wide: bool,
}

impl Kind {
    fn of(color: ColorType) -> Option<Self> {
        let (channels, alpha, wide) = match color {
            ColorType::L8 => (1, false, false),
            ColorType::La8 => (2, true, false),
            ColorType::Rgb8 => (3, false, false),
            ColorType::Rgba8 => (4, true, false),
            ColorType::L16 => (1, false, true),
            ColorType::La16 => (2, true, true),
            ColorType::Rgb16 => (3, false, true),
            ColorType::Rgba16 => (4, true, true),
            _ => return None,
        };
        Some(Self {
            channels,
            alpha,
            wide,
        })
    }
}

/// Values without their last channel, alpha: dropped where it is opaque everywhere, else mixed with the background.
fn without_alpha(
    path: &Path,
    values: &[u8],
    channels: usize,
    reading: &Reading,
) -> Result<Vec<u8>> {
    let opaque = values.iter().skip(channels - 1).step_by(channels);
    let transparent = opaque.filter(|&&alpha| alpha < 255).count();
    let colours = channels - 1;
    let background = match (transparent, reading.background) {
        (0, _) => [0; 3],
        (_, Some(background)) => background,
        (count, None) => {
            let problem = format!(
                "{count} of {} pixels are transparent, and the colour behind them is not known",
                values.len() / channels
            );
            let hint = "--set 'data.background = [255, 255, 255]' puts white behind them";
            return Err(Error::data(path.display().to_string(), problem, hint));
        }
    };
    let behind: Vec<f32> = match colours {
        1 => vec![luma(background.map(f32::from))],
        _ => background.map(f32::from).to_vec(),
    };
    let mut mixed = Vec::with_capacity(values.len() / channels * colours);
    for pixel in values.chunks_exact(channels) {
        let alpha = f32::from(pixel[colours]) / 255.0;
        for (&value, behind) in pixel.iter().zip(&behind) {
            let value = alpha * f32::from(value) + (1.0 - alpha) * behind;
            mixed.push(value.round() as u8);
        }
    }
    Ok(mixed)
}

/// The image as a viewer shows it.
fn upright(picture: Picture, orientation: Orientation) -> Picture {
    if orientation == Orientation::NoTransforms {
        return picture;
    }
    let Picture {
        pixels,
        height,
        width,
        channels,
    } = picture;
    let whole = "as many values as the size says";
    let (w, h) = (width as u32, height as u32);
    let mut image = match channels {
        1 => DynamicImage::ImageLuma8(GrayImage::from_raw(w, h, pixels).expect(whole)),
        _ => DynamicImage::ImageRgb8(RgbImage::from_raw(w, h, pixels).expect(whole)),
    };
    image.apply_orientation(orientation);
    Picture {
        height: image.height() as usize,
        width: image.width() as usize,
        pixels: image.into_bytes(),
        channels,
    }
}

impl Picture {
    /// The image with the channels and in the size that are asked for.
    pub(super) fn read_as(self, reading: &Reading) -> Self {
        let picture = match reading.channels {
            Some(wanted) => self.with_channels(wanted),
            None => self,
        };
        match reading.size {
            Some(size) => picture.fitted(size.sides(), reading.fit, reading.interpolation),
            None => picture,
        }
    }

    /// The image with these channels.
    pub(super) fn with_channels(self, wanted: Channels) -> Self {
        let pixels = match (self.channels, wanted) {
            (1, Channels::Rgb) => {
                let mut colours = vec![[0; 3]; self.pixels.len()];
                for (colour, value) in colours.iter_mut().zip(&self.pixels) {
                    *colour = [*value; 3];
                }
                colours.into_flattened()
            }
            (3, Channels::Gray) => {
                let (colours, _) = self.pixels.as_chunks::<3>();
                let gray = |colour: &[u8; 3]| luma(colour.map(f32::from)).round() as u8;
                colours.iter().map(gray).collect()
            }
            _ => return self,
        };
        Self {
            pixels,
            channels: wanted.count(),
            ..self
        }
    }

    /// Pixels as `[channels, height, width]`.
    pub(super) fn planes(self) -> Vec<u8> {
        if self.channels == 1 {
            return self.pixels;
        }
        let mut planes = Vec::with_capacity(self.pixels.len());
        for channel in 0..self.channels {
            planes.extend(self.pixels.iter().skip(channel).step_by(self.channels));
        }
        planes
    }
}

fn too_large(path: &Path, reading: &Reading) -> Error {
    let (problem, hint) = match reading.size {
        Some(_) => (
            format!(
                "expected at most {} pixels, found more",
                reading.pixel_limit()
            ),
            "scale the image down; --set 'data.max_pixels = 400000000' lets it through, where memory suffices",
        ),
        None => (
            format!("expected at most {MAX_SIDE} pixels per side, found more"),
            "--set 'data.size = 64' scales images down: encoders here are trained on small ones",
        ),
    };
    Error::data(path.display().to_string(), problem, hint)
}

/// Whether the segments of a JPEG file are complete up to its end mark. A search for the mark alone
/// would find the one of a thumbnail inside the header.
fn jpeg_is_whole(bytes: &[u8]) -> bool {
    // After the start mark.
    let mut at = 2;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        // Anything else is image data between two marks.
        if byte != 0xff {
            continue;
        }
        match bytes.get(at) {
            Some(0xd9) => return true,
            // A fill byte; the next byte is examined again.
            Some(0xff) => {}
            // 0xff as image data, a restart mark, a mark without length.
            Some(0x00 | 0x01 | 0xd0..=0xd7) => at += 1,
            Some(_) => match bytes.get(at + 1..at + 3) {
                Some(len) => at += 1 + usize::from(u16::from_be_bytes([len[0], len[1]])),
                None => return false,
            },
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{gray_png, picture, png};
    use super::*;
    use image::ExtendedColorType::{L8, L16, La8, Rgb8, Rgb16, Rgba8};

    fn read(bytes: &[u8]) -> Result<Decoded> {
        read_as(bytes, &Reading::default())
    }

    fn read_as(bytes: &[u8], reading: &Reading) -> Result<Decoded> {
        decode(Path::new("set/x"), bytes, reading)
    }

    #[test]
    fn colour_comes_as_planes_and_gray_as_one() {
        let found = read(&png(2, 1, 10)).unwrap().picture;
        assert_eq!((found.channels, found.height, found.width), (3, 1, 2));
        assert_eq!(found.planes(), [10, 13, 11, 14, 12, 15]);
        let found = read(&gray_png(2, 1, 10)).unwrap().picture;
        assert_eq!((found.channels, found.planes()), (1, vec![10, 11]));
    }

    #[test]
    fn every_format_is_read_by_its_content() {
        use ImageFormat::{Bmp, Gif, Jpeg, Png, Tiff, WebP};
        for format in [Png, Jpeg, WebP, Bmp, Tiff, Gif] {
            let file = match format {
                // The encoder knows these two kinds only.
                WebP | Gif => picture(format, Rgba8, 9, 5, 255),
                _ => picture(format, Rgb8, 9, 5, 0),
            };
            let white = Reading {
                background: Some([255; 3]),
                ..Reading::default()
            };
            let found = read_as(&file, &white).unwrap_or_else(|e| panic!("{format:?}: {e}"));
            let picture = found.picture;
            assert_eq!((picture.height, picture.width), (5, 9), "{format:?}");
            assert_eq!(picture.pixels.len(), 3 * 45, "{format:?}");
        }
    }

    #[test]
    fn sixteen_bits_are_scaled_and_opaque_alpha_is_dropped() {
        let wide = picture(ImageFormat::Png, L16, 2, 1, 0x10);
        let found = read(&wide).unwrap();
        // The encoder takes values of this machine's own byte order.
        let values = [[0x10, 0x11], [0x12, 0x13]].map(u16::from_ne_bytes);
        let expected = values.map(|value| ((u32::from(value) + 128) / 257) as u8);
        assert!(found.scaled_down);
        assert_eq!(found.picture.pixels, expected);
        assert!(
            read(&picture(ImageFormat::Png, Rgb16, 2, 2, 0))
                .unwrap()
                .scaled_down
        );
        let mut file = std::io::Cursor::new(Vec::new());
        let pixels = [10, 20, 30, 255, 40, 50, 60, 255];
        image::write_buffer_with_format(&mut file, &pixels, 2, 1, Rgba8, ImageFormat::Png).unwrap();
        let found = read(&file.into_inner()).unwrap();
        assert_eq!(found.picture.pixels, [10, 20, 30, 40, 50, 60]);
    }

    #[test]
    fn transparency_needs_a_background() {
        let gray = picture(ImageFormat::Png, La8, 2, 2, 0);
        let error = read(&gray).unwrap_err();
        assert!(
            error.to_string().contains("4 of 4 pixels are transparent"),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("data.background"));
        let mut file = std::io::Cursor::new(Vec::new());
        let pixels = [100, 0, 100, 255];
        image::write_buffer_with_format(&mut file, &pixels, 2, 1, La8, ImageFormat::Png).unwrap();
        let white = Reading {
            background: Some([200; 3]),
            ..Reading::default()
        };
        let found = read_as(&file.into_inner(), &white).unwrap();
        assert_eq!(found.picture.pixels, [200, 100]);
    }

    #[test]
    fn channels_and_sizes_are_those_that_are_asked_for() {
        let reading = |channels, size| Reading {
            channels: Some(channels),
            size: Some(size),
            ..Reading::default()
        };
        let sides = super::super::reading::Size::Sides([4, 6]);
        let gray = read_as(&png(40, 30, 0), &reading(Channels::Gray, sides)).unwrap();
        assert_eq!((gray.found, gray.picture.pixels.len()), ([30, 40], 24));
        let colour = read_as(&gray_png(2, 2, 5), &reading(Channels::Rgb, sides)).unwrap();
        assert_eq!(
            (colour.picture.channels, colour.picture.pixels.len()),
            (3, 72)
        );
        let large = picture(ImageFormat::Png, L8, 5_000, 1, 0);
        assert!(read(&large).is_err());
        assert!(read_as(&large, &reading(Channels::Gray, sides)).is_ok());
    }

    #[test]
    fn orientation_is_applied() {
        // The start mark, an EXIF segment with orientation 6, and the rest of a file of 3 × 2 pixels.
        let whole = picture(ImageFormat::Jpeg, L8, 3, 2, 0);
        let entry = b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0";
        let exif = [&b"Exif\0\0II*\0\x08\0\0\0\x01\0"[..], entry, &[0; 4]].concat();
        let mut with = whole[..2].to_vec();
        with.extend([0xff, 0xe1]);
        with.extend((exif.len() as u16 + 2).to_be_bytes());
        with.extend(exif);
        with.extend(&whole[2..]);
        let (flat, turned) = (read(&whole).unwrap(), read(&with).unwrap());
        assert!(turned.turned && !flat.turned);
        assert_eq!((flat.found, turned.found), ([2, 3], [3, 2]));
        // Turned clockwise: the first column, from below, is the first row.
        let (a, b) = (flat.picture.pixels, turned.picture.pixels);
        assert_eq!([b[0], b[1]], [a[3], a[0]]);
    }

    #[test]
    fn an_image_cut_anywhere_is_an_error() {
        let jpeg = picture(ImageFormat::Jpeg, Rgb8, 32, 32, 3);
        for whole in [png(32, 32, 3), gray_png(5, 5, 0), jpeg] {
            assert!(read(&whole).is_ok());
            for len in 0..whole.len() {
                // A PNG's last chunk carries nothing: without it the image is still whole.
                let png_end = whole[0] == 0x89 && len >= whole.len() - 12;
                let result = read(&whole[..len]);
                assert!(
                    png_end || matches!(result, Err(Error::Format { .. } | Error::Data { .. })),
                    "{len} of {}",
                    whole.len()
                );
            }
        }
    }

    #[test]
    fn a_thumbnail_does_not_hide_a_cut() {
        let whole = picture(ImageFormat::Jpeg, L8, 16, 16, 0);
        // A segment with a whole JPEG inside, after the start mark.
        let mut with = whole[..2].to_vec();
        with.extend([0xff, 0xe1]);
        with.extend((whole.len() as u16 + 2).to_be_bytes());
        with.extend(&whole);
        with.extend(&whole[2..]);
        assert!(jpeg_is_whole(&with));
        assert!(!jpeg_is_whole(&with[..with.len() - 1]));
    }

    #[test]
    fn damaged_bytes_never_panic() {
        let jpeg = picture(ImageFormat::Jpeg, Rgb8, 16, 16, 3);
        for whole in [png(16, 16, 3), jpeg] {
            for i in 0..whole.len() {
                for value in [0, 0xff, whole[i] ^ 0x10] {
                    let mut bytes = whole.clone();
                    bytes[i] = value;
                    // Damage to the pixels of a JPEG cannot be detected; the decoder must only not panic.
                    let _ = read(&bytes);
                }
            }
        }
        let mut bytes = png(16, 16, 3);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        assert!(matches!(read(&bytes), Err(Error::Format { .. })));
    }

    #[test]
    fn other_content_and_huge_sizes_are_refused() {
        for (bytes, kind) in [
            (&b"\0\0\0\x20ftypavif...."[..], "an AVIF image"),
            (b"\0\0\0\x18ftypheic....", "a HEIC image"),
            (b"<!DOCTYPE html><html>404</html>", "an HTML page"),
            (
                b"version https://git-lfs.github.com/spec/v1\n",
                "a Git LFS pointer",
            ),
            (b"", "an empty file"),
            (b"words", "a text"),
            (&[0, 1, 2, 3], "something else"),
        ] {
            let error = read(bytes).unwrap_err();
            assert!(
                error.to_string().contains(&format!("found {kind} (")),
                "{error}"
            );
            assert!(error.hint().is_some());
        }
        let error = read(&gray_png(4097, 1, 0)).unwrap_err().to_string();
        assert!(error.contains("at most 4096 pixels"), "{error}");
        let reading = Reading {
            size: Some(super::super::Size::Square(4)),
            max_pixels: Some(99),
            ..Reading::default()
        };
        let decode = |side: u32| decode("x.png".as_ref(), &gray_png(side, 11, 0), &reading);
        assert!(decode(9).is_ok());
        let error = decode(10).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("at most 99 pixels"), "{error}");
        assert!(error.hint().unwrap().contains("data.max_pixels"));
    }

    /// A PNG file with one more chunk behind its header.
    fn with_chunk(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
        let mut checksum = flate2::Crc::new();
        checksum.update(kind);
        checksum.update(content);
        let (length, checksum) = (content.len() as u32, checksum.sum());
        let chunk = [
            &length.to_be_bytes(),
            &kind[..],
            content,
            &checksum.to_be_bytes(),
        ]
        .concat();
        let mut bytes = gray_png(2, 2, 0);
        bytes.splice(33..33, chunk);
        bytes
    }

    fn zeros_compressed(length: usize) -> Vec<u8> {
        use std::io::Write;
        let level = flate2::Compression::fast();
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
        for _ in 0..length >> 20 {
            encoder.write_all(&[0; 1 << 20]).unwrap();
        }
        encoder.finish().unwrap()
    }

    #[test]
    fn what_unpacks_to_more_than_pixels_is_refused_or_stays_packed() {
        let profile =
            |length| with_chunk(b"iCCP", &[b"x\0\0", &zeros_compressed(length)[..]].concat());
        // The decoder passes over a profile that is larger than its limit.
        assert!(read(&profile(64 << 20)).is_ok());
        let text = [b"x\0\0", &zeros_compressed(64 << 20)[..]].concat();
        assert!(read(&with_chunk(b"zTXt", &text)).is_ok());
        let text = [b"x\0\x01\0\0\0", &zeros_compressed(64 << 20)[..]].concat();
        assert!(read(&with_chunk(b"iTXt", &text)).is_ok());
        // As large as it is, and no larger than a file may be.
        let error = read(&with_chunk(b"eXIf", &vec![0; 40 << 20]));
        assert!(matches!(error, Err(Error::Format { .. })));
    }

    #[test]
    fn a_jpeg_of_many_profiles_and_declared_sizes_is_decoded() {
        let whole = picture(ImageFormat::Jpeg, L8, 16, 16, 0);
        let mut with = whole[..2].to_vec();
        let mut segment = |mark: u8, content: &[u8]| {
            with.extend([0xff, mark]);
            with.extend((content.len() as u16 + 2).to_be_bytes());
            with.extend(content);
        };
        for number in 1..=255 {
            let head = [b"ICC_PROFILE\0", &[number, 255][..]].concat();
            segment(0xe2, &[&head[..], &[7; 60_000]].concat());
        }
        // Extended XMP of four gigabytes, of which there are four bytes.
        let head = b"http://ns.adobe.com/xmp/extension/\0";
        segment(
            0xe1,
            &[&head[..], &[b'0'; 32], &[0xff; 4], &[0; 4], &[1; 4]].concat(),
        );
        with.extend(&whole[2..]);
        let pixels = |bytes: &[u8]| read(bytes).unwrap().picture.pixels;
        assert_eq!(pixels(&with), pixels(&whole));
    }

    #[test]
    fn palettes_and_interlaced_files_are_read_and_huge_headers_are_not() {
        // 1 × 1, a palette of one colour, interlaced.
        let chunk = |kind: &[u8; 4], content: &[u8]| {
            let mut checksum = flate2::Crc::new();
            checksum.update(kind);
            checksum.update(content);
            let length = (content.len() as u32).to_be_bytes();
            [&length, &kind[..], content, &checksum.sum().to_be_bytes()].concat()
        };
        let file = |side: u32, depth: u8, colour: u8, interlaced: u8| {
            let side = side.to_be_bytes();
            let header = [&side[..], &side, &[depth, colour, 0, 0, interlaced]].concat();
            let data = {
                use std::io::Write;
                let level = flate2::Compression::fast();
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
                encoder.write_all(&[0; 2]).unwrap();
                encoder.finish().unwrap()
            };
            [
                b"\x89PNG\r\n\x1a\n".to_vec(),
                chunk(b"IHDR", &header),
                chunk(b"PLTE", &[9, 8, 7]),
                chunk(b"IDAT", &data),
                chunk(b"IEND", b""),
            ]
            .concat()
        };
        for interlaced in [0, 1] {
            assert_eq!(
                read(&file(1, 1, 3, interlaced)).unwrap().picture.pixels,
                [9, 8, 7]
            );
            let error = read(&file(u32::MAX >> 1, 8, 3, interlaced)).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
            let error = read(&file(4097, 8, 2, interlaced)).unwrap_err().to_string();
            assert!(error.contains("at most 4096 pixels"), "{error}");
            // As many pixels as are allowed, of which there are none.
            let result = read(&file(4096, 8, 2, interlaced));
            assert!(matches!(result, Err(Error::Format { .. })));
        }
    }
}
