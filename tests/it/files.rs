//! Files and folders of tests.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Writes a file, and the folders above it.
pub fn put(path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
    let path = path.as_ref();
    let write = || {
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        fs::write(path, content)
    };
    write().unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}

/// Reads a file.
#[track_caller]
pub fn get(path: impl AsRef<Path>) -> Vec<u8> {
    let path = path.as_ref();
    fs::read(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// Every file below `folder`, with its content.
pub fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files = BTreeMap::new();
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            let content = get(&path);
            files.insert(path, content);
        }
    }
    files
}

/// Copies every file below `from` to `to`.
pub fn copy(from: &Path, to: &Path) {
    for (path, content) in contents(from) {
        put(
            to.join(path.strip_prefix(from).expect("a path below")),
            content,
        );
    }
}

/// A gray PNG of `side` × `side` pixels.
pub fn png(side: u32, pixels: &[u8]) -> Vec<u8> {
    use image::{ExtendedColorType, ImageFormat};
    let mut file = std::io::Cursor::new(Vec::new());
    let kind = ExtendedColorType::L8;
    image::write_buffer_with_format(&mut file, pixels, side, side, kind, ImageFormat::Png)
        .expect("as many pixels as the sides say");
    file.into_inner()
}

/// A results file without its checksum, as an editor may leave it: what is changed in it counts.
pub fn without_checksum(text: &str) -> String {
    let lines = text
        .lines()
        .filter(|line| !line.contains("\"checksum\": \"crc32:"));
    lines.map(|line| format!("{line}\n")).collect()
}
