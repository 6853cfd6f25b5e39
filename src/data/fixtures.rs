//! Small real files for the tests of this module.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::{Compression, write::GzEncoder};
use image::{ExtendedColorType, ImageFormat};

use crate::data::{Dataset, load};
use crate::error::{Error, Result};

/// [`load`] for a path.
pub(super) fn load_path(path: &Path) -> Result<Dataset> {
    load(path.to_str().unwrap())
}

/// The error of loading `path`, after a check that it says all of `words` in its line or hint.
pub(super) fn refused(path: &Path, words: &[&str]) -> Error {
    let error = load_path(path).unwrap_err();
    let text = format!("{error} (hint: {})", error.hint().unwrap_or_default());
    for word in words {
        assert!(text.contains(word), "expected {word:?} in: {text}");
    }
    error
}

/// Writes `bytes`, with the folders above.
pub(super) fn put(path: impl AsRef<Path>, bytes: &[u8]) {
    fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// One gzip stream.
pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A tar archive of `(name, bytes)`, in that order; a name that ends in `/` is a folder.
pub(super) fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        // Written past the crate's own checks, which refuse absolute names.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(match name.ends_with('/') {
            true => tar::EntryType::Directory,
            false => tar::EntryType::Regular,
        });
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

/// An image file of `width` × `height` pixels whose bytes count up from `seed`.
pub(super) fn picture(
    format: ImageFormat,
    kind: ExtendedColorType,
    width: u32,
    height: u32,
    seed: u8,
) -> Vec<u8> {
    let len = width as usize * height as usize * kind.bits_per_pixel() as usize / 8;
    let pixels: Vec<u8> = (0..len).map(|i| seed.wrapping_add(i as u8)).collect();
    let mut file = std::io::Cursor::new(Vec::new());
    image::write_buffer_with_format(&mut file, &pixels, width, height, kind, format).unwrap();
    file.into_inner()
}

/// A colour PNG.
pub(super) fn png(width: u32, height: u32, seed: u8) -> Vec<u8> {
    picture(
        ImageFormat::Png,
        ExtendedColorType::Rgb8,
        width,
        height,
        seed,
    )
}

/// A gray PNG.
pub(super) fn gray_png(width: u32, height: u32, seed: u8) -> Vec<u8> {
    picture(ImageFormat::Png, ExtendedColorType::L8, width, height, seed)
}
