//! Decoder of PNG and JPEG files.

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use image::error::LimitErrorKind;
use image::{ColorType, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use super::stream::read_error;
use crate::error::{Error, Result};

/// Largest side of an image in pixels: far above what encoders are trained on, and small enough
/// that a damaged header cannot reserve all memory.
pub const MAX_SIDE: usize = 4096;
/// Largest image file in bytes.
const MAX_FILE: u64 = 64 << 20;
/// Memory for what a PNG file holds besides its pixels, in bytes: colour profiles, texts. Each thread that
/// decodes may take as much.
const MAX_EXTRAS: u64 = 16 << 20;

/// Shape of the first image of a data set, which all others must have.
#[derive(Clone, Debug)]
pub(super) struct ImageShape {
    /// File of the image, for messages.
    pub(super) path: PathBuf,
    /// Number of channels, 1 or 3.
    pub(super) channels: usize,
    /// Height in pixels.
    pub(super) height: usize,
    /// Width in pixels.
    pub(super) width: usize,
}

/// Reads an image file; `path` is for messages.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for a damaged archive around it; [`Error::Data`] for a file above the
/// limit.
pub(super) fn read_file(path: &Path, content: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    content
        .take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| read_error(path, "image", "a whole file", error))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Error::data(
            path.display().to_string(),
            format!("expected an image file of at most {MAX_FILE} bytes, found more"),
            "is it an image?",
        ));
    }
    Ok(bytes)
}

/// Decodes an image file. Returns its shape and its pixels as `[channels, height, width]`.
///
/// `path` is for messages, and `set`, the data set's path, for messages about two files.
///
/// # Errors
/// [`Error::Format`] for a damaged file; [`Error::Data`] for an alpha channel, for 16 bits per
/// channel, or for another shape than `first`.
pub(super) fn decode(
    set: &str,
    path: &Path,
    bytes: &[u8],
    first: Option<&ImageShape>,
) -> Result<(ImageShape, Vec<u8>)> {
    let damaged = |place: &str, error: ImageError| match error {
        ImageError::Limits(error) if error.kind() == LimitErrorKind::DimensionError => {
            too_large(path)
        }
        ImageError::Limits(_) => {
            let expected = format!("at most {MAX_EXTRAS} bytes besides the pixels");
            Error::format(path, place, expected, "more: a colour profile, or texts")
        }
        error => Error::format(path, place, "a whole image", error.to_string()),
    };
    // By content: a JPEG file called .png is common and harmless.
    let format = match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg)) => format,
        _ => {
            let start = &bytes[..bytes.len().min(4)];
            let found = format!("{} bytes that start with {start:02x?}", bytes.len());
            return Err(Error::format(path, "byte 0", "PNG or JPEG", found));
        }
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE as u32);
    limits.max_image_height = Some(MAX_SIDE as u32);
    limits.max_alloc = Some(MAX_EXTRAS);
    reader.limits(limits);
    let decoder = reader
        .into_decoder()
        .map_err(|error| damaged("header", error))?;
    let (width, height) = decoder.dimensions();
    let (width, height) = (width as usize, height as usize);
    if width > MAX_SIDE || height > MAX_SIDE {
        return Err(too_large(path));
    }
    let channels = match decoder.color_type() {
        ColorType::L8 => 1,
        ColorType::Rgb8 => 3,
        other => return Err(unusable(path, other)),
    };
    let shape = ImageShape {
        path: path.into(),
        channels,
        height,
        width,
    };
    if let Some(first) = first {
        agree(set, first, &shape)?;
    }
    // The JPEG decoder fills missing data with gray and reports no error.
    if format == ImageFormat::Jpeg && !jpeg_is_whole(bytes) {
        let found = format!("{} bytes without one", bytes.len());
        return Err(Error::format(path, "image data", "an end mark", found));
    }
    let mut interleaved = vec![0; width * height * channels];
    if decoder.total_bytes() != interleaved.len() as u64 {
        let found = format!("{} bytes", decoder.total_bytes());
        return Err(Error::format(
            path,
            "header",
            format!("{} bytes", interleaved.len()),
            found,
        ));
    }
    decoder
        .read_image(&mut interleaved)
        .map_err(|error| damaged("image data", error))?;
    if channels == 1 {
        return Ok((shape, interleaved));
    }
    let mut planes = Vec::with_capacity(interleaved.len());
    for channel in 0..channels {
        planes.extend(interleaved.iter().skip(channel).step_by(channels));
    }
    Ok((shape, planes))
}

/// Refuses an image of another size or number of channels than the first one.
fn agree(set: &str, first: &ImageShape, shape: &ImageShape) -> Result<()> {
    let (a, b) = (first.path.display(), shape.path.display());
    if (first.height, first.width) != (shape.height, shape.width) {
        return Err(Error::data(
            set,
            format!(
                "expected images of one size (width × height), found {a} of {} × {} and {b} of {} × {}",
                first.width, first.height, shape.width, shape.height
            ),
            "resize them to one size",
        ));
    }
    if first.channels != shape.channels {
        let name = |channels| if channels == 1 { "gray" } else { "colour" };
        return Err(Error::data(
            set,
            format!(
                "expected all images gray or all in colour, found {a} in {} and {b} in {}",
                name(first.channels),
                name(shape.channels)
            ),
            "convert them to one kind",
        ));
    }
    Ok(())
}

fn unusable(path: &Path, kind: ColorType) -> Error {
    let (found, hint) = if kind.has_alpha() {
        (
            "an alpha channel",
            "remove the alpha channel: the colour behind the image is not known",
        )
    } else {
        ("16 bits or more", "convert it to 8 bits per channel")
    };
    Error::data(
        path.display().to_string(),
        format!("expected 8 bits of gray or of red, green and blue, found {found}"),
        hint,
    )
}

fn too_large(path: &Path) -> Error {
    Error::data(
        path.display().to_string(),
        format!("expected at most {MAX_SIDE} pixels per side, found more"),
        "resize the images: encoders here are trained on small ones",
    )
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
    use image::ExtendedColorType::{self, L8, L16, La8, Rgb8, Rgb16, Rgba8};

    fn read(bytes: &[u8], first: Option<&ImageShape>) -> Result<(ImageShape, Vec<u8>)> {
        decode("set", Path::new("set/x"), bytes, first)
    }

    #[test]
    fn colour_comes_as_planes_and_gray_as_one() {
        let (shape, pixels) = read(&png(2, 1, 10), None).unwrap();
        assert_eq!((shape.channels, shape.height, shape.width), (3, 1, 2));
        assert_eq!(pixels, [10, 13, 11, 14, 12, 15]);
        let (shape, pixels) = read(&gray_png(2, 1, 10), None).unwrap();
        assert_eq!((shape.channels, pixels), (1, vec![10, 11]));
    }

    #[test]
    fn jpeg_gray_and_colour() {
        for (kind, channels) in [(L8, 1), (Rgb8, 3)] {
            let (shape, pixels) = read(&picture(ImageFormat::Jpeg, kind, 9, 5, 0), None).unwrap();
            assert_eq!(
                (shape.channels, shape.height, shape.width),
                (channels, 5, 9)
            );
            assert_eq!(pixels.len(), channels * 45);
        }
    }

    #[test]
    fn alpha_and_16_bits_are_refused_with_a_hint() {
        let cases: [(ExtendedColorType, &str); 4] = [
            (Rgba8, "alpha"),
            (La8, "alpha"),
            (L16, "8 bits"),
            (Rgb16, "8 bits"),
        ];
        for (kind, hint) in cases {
            let error = read(&picture(ImageFormat::Png, kind, 2, 2, 0), None).unwrap_err();
            assert!(matches!(error, Error::Data { .. }), "{error}");
            assert!(error.hint().unwrap().contains(hint), "{error}");
        }
    }

    #[test]
    fn an_image_cut_anywhere_is_an_error() {
        let jpeg = picture(ImageFormat::Jpeg, Rgb8, 32, 32, 3);
        for whole in [png(32, 32, 3), gray_png(5, 5, 0), jpeg] {
            assert!(read(&whole, None).is_ok());
            for len in 0..whole.len() {
                // A PNG's last chunk carries nothing: without it the image is still whole.
                let png_end = whole[0] == 0x89 && len >= whole.len() - 12;
                let result = read(&whole[..len], None);
                assert!(
                    png_end || matches!(result, Err(Error::Format { .. })),
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
                    let _ = read(&bytes, None);
                }
            }
        }
        let mut bytes = png(16, 16, 3);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        assert!(matches!(read(&bytes, None), Err(Error::Format { .. })));
    }

    #[test]
    fn other_content_and_huge_sizes_are_refused() {
        let error = read(b"GIF89a...", None).unwrap_err().to_string();
        assert!(
            error.contains("expected PNG or JPEG, found 9 bytes"),
            "{error}"
        );
        let error = read(&gray_png(4097, 1, 0), None).unwrap_err().to_string();
        assert!(error.contains("at most 4096 pixels"), "{error}");
    }

    #[test]
    fn an_image_unlike_the_first_names_both() {
        let (first, _) = decode("set", Path::new("set/a.png"), &png(4, 3, 0), None).unwrap();
        let error = read(&png(3, 4, 0), Some(&first)).unwrap_err().to_string();
        assert!(
            error.contains("set/a.png of 4 × 3 and set/x of 3 × 4"),
            "{error}"
        );
        let error = read(&gray_png(4, 3, 0), Some(&first))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("set/a.png in colour and set/x in gray"),
            "{error}"
        );
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
        assert!(read(&profile(1 << 20), None).is_ok());
        // The decoder passes over a profile that is larger than its limit.
        assert!(read(&profile(64 << 20), None).is_ok());
        let text = [b"x\0\0", &zeros_compressed(64 << 20)[..]].concat();
        assert!(read(&with_chunk(b"zTXt", &text), None).is_ok());
        let text = [b"x\0\x01\0\0\0", &zeros_compressed(64 << 20)[..]].concat();
        assert!(read(&with_chunk(b"iTXt", &text), None).is_ok());
        // As large as it is, and no larger than a file may be.
        let error = read(&with_chunk(b"eXIf", &vec![0; 40 << 20]), None);
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
        assert_eq!(read(&with, None).unwrap().1, read(&whole, None).unwrap().1);
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
            assert_eq!(read(&file(1, 1, 3, interlaced), None).unwrap().1, [9, 8, 7]);
            let error = read(&file(u32::MAX >> 1, 8, 3, interlaced), None).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
            let error = read(&file(4097, 8, 2, interlaced), None)
                .unwrap_err()
                .to_string();
            assert!(error.contains("at most 4096 pixels"), "{error}");
            // As many pixels as are allowed, of which there are none.
            let result = read(&file(4096, 8, 2, interlaced), None);
            assert!(matches!(result, Err(Error::Format { .. })));
        }
    }
}
