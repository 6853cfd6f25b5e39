//! Small valid files for the tests of this module.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::{Compression, write::GzEncoder};
use image::{ExtendedColorType, ImageFormat};
use zip::CompressionMethod;
use zip::write::SimpleFileOptions;

use crate::data::{Dataset, load};
use crate::error::{Error, Result};

/// Loads the data set at a path.
pub(super) fn load_path(path: &Path) -> Result<Dataset> {
    load(path.to_str().unwrap())
}

/// Returns the error of loading `path`, after checking that its message or hint contains all of
/// `words`.
pub(super) fn refused(path: &Path, words: &[&str]) -> Error {
    let error = load_path(path).unwrap_err();
    let text = format!("{error} (hint: {})", error.hint().unwrap_or_default());
    for word in words {
        assert!(text.contains(word), "expected {word:?} in: {text}");
    }
    error
}

/// Writes a file, and creates the folders above it.
pub(super) fn put(path: impl AsRef<Path>, bytes: &[u8]) {
    fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Compresses bytes as one gzip stream.
pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Builds a tar archive of `(name, bytes)` in that order; a name that ends in `/` is a folder.
pub(super) fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        // Bypasses the checks of the crate, which refuse absolute names.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(if name.ends_with('/') {
            tar::EntryType::Directory
        } else {
            tar::EntryType::Regular
        });
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Builds a zip archive of `(name, bytes)` in that order, deflated; a name that ends in `/` is a folder.
pub(super) fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (name, bytes) in members {
        if name.ends_with('/') {
            writer.add_directory(*name, options).unwrap();
        } else {
            writer.start_file(*name, options).unwrap();
            writer.write_all(bytes).unwrap();
        }
    }
    writer.finish().unwrap().into_inner()
}

/// Builds an image file whose bytes count up from `seed`.
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

/// Builds a colour PNG file.
pub(super) fn png(width: u32, height: u32, seed: u8) -> Vec<u8> {
    picture(
        ImageFormat::Png,
        ExtendedColorType::Rgb8,
        width,
        height,
        seed,
    )
}

/// Builds a gray PNG file.
pub(super) fn gray_png(width: u32, height: u32, seed: u8) -> Vec<u8> {
    picture(ImageFormat::Png, ExtendedColorType::L8, width, height, seed)
}
