//! Recognition of this program's own output, which is never read as data.
//!
//! Commands that are run inside an image folder leave a contact sheet, a report, a model file or a
//! folder of runs there. The same commands must find the same images afterwards.

use std::collections::HashSet;
use std::path::Path;

use super::entry::Entry;
use super::filename::is_junk;
use crate::error::Result;
use crate::files;

/// Number of bytes at the beginning of a file that [`is_own`] needs.
pub(super) const HEAD: usize = 1024;

/// Length of a PNG file's signature and header chunk, which come first in every PNG file.
const PNG_HEADER: usize = 8 + 25;
/// Type, keyword and beginning of the value of the text chunk that marks our PNG files.
const PNG_MARK: &[u8] = b"tEXtSoftware\0advcl";
/// The same of adversarial images, which are data like any others.
const ADVERSARIAL_MARK: &[u8] = b"tEXtTitle\0advcl adversarial image";

/// Mark of our pages.
const PAGE_MARK: &str = "<meta name=\"generator\" content=\"advcl ";

/// Description of the machine, in every run folder (`Experiment::note_machine`).
const RUN_NOTE: &str = "run.json";
/// Files of a run folder that was interrupted before [`RUN_NOTE`] was written.
const RUN_FILES: [&str; 2] = ["recipe.toml", "metrics.jsonl"];

/// Adds a text chunk to a PNG file that names this program as the author.
pub(super) fn mark_png(png: Vec<u8>) -> Vec<u8> {
    with_text(png, PNG_MARK)
}

/// Adds a text chunk to a PNG file that calls it an adversarial image.
pub(super) fn mark_adversarial(png: Vec<u8>) -> Vec<u8> {
    with_text(png, ADVERSARIAL_MARK)
}

fn with_text(mut png: Vec<u8>, mark: &[u8]) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION").as_bytes();
    let chunk = [mark, b" ", version].concat();
    let mut checksum = flate2::Crc::new();
    checksum.update(&chunk);
    // The length of a chunk does not include its type.
    let len = (chunk.len() - 4) as u32;
    let marked = [
        &len.to_be_bytes(),
        &chunk[..],
        &checksum.sum().to_be_bytes(),
    ]
    .concat();
    png.splice(PNG_HEADER..PNG_HEADER, marked);
    png
}

/// Whether the file at `path` is a PNG file that this program wrote, whatever its name.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for anything but a regular file.
pub fn is_own_picture(path: &Path) -> Result<bool> {
    Ok(has_mark(&files::beginning(path, HEAD)?, PNG_MARK))
}

/// Whether the file at `path` is an adversarial image that this program wrote as PNG, whatever its name.
///
/// # Errors
/// As [`is_own_picture`].
pub fn is_adversarial_picture(path: &Path) -> Result<bool> {
    Ok(has_mark(&files::beginning(path, HEAD)?, ADVERSARIAL_MARK))
}

/// Whether the file at `path` is a report that this program wrote as a page, whatever its name.
///
/// # Errors
/// As [`is_own_picture`].
pub fn is_own_page(path: &Path) -> Result<bool> {
    Ok(holds(&files::beginning(path, HEAD)?, PAGE_MARK))
}

/// Whether the folder at `path` is a run folder.
pub(super) fn is_run_folder(path: &Path) -> bool {
    let noted =
        files::beginning(&path.join(RUN_NOTE), HEAD).is_ok_and(|head| is_own(RUN_NOTE, &head));
    noted || RUN_FILES.iter().all(|name| path.join(name).is_file())
}

/// Whether a file of this name can be this program's own, so that its content must be checked.
pub(super) fn may_be_own(name: &str) -> bool {
    let (file, extension) = file_and_extension(name);
    file == RUN_NOTE || matches!(extension.as_str(), "png" | "html" | "safetensors")
}

/// Whether this program wrote the file called `name` that begins with `head`: a contact sheet, a
/// report, weights or adversarial examples, the note of a run folder.
pub(super) fn is_own(name: &str, head: &[u8]) -> bool {
    let (file, extension) = file_and_extension(name);
    match extension.as_str() {
        "png" => has_mark(head, PNG_MARK),
        "html" => holds(head, PAGE_MARK),
        "safetensors" => holds(head, "\"__metadata__\":{\"advcl"),
        _ => file == RUN_NOTE && holds(head, "\"advcl_version\""),
    }
}

fn holds(head: &[u8], mark: &str) -> bool {
    head.windows(mark.len()).any(|part| part == mark.as_bytes())
}

fn has_mark(head: &[u8], mark: &[u8]) -> bool {
    // The type of a chunk follows its length.
    let after = head.get(PNG_HEADER + 4..);
    head.starts_with(b"\x89PNG") && after.is_some_and(|chunk| chunk.starts_with(mark))
}

fn file_and_extension(name: &str) -> (&str, String) {
    let file = name.rsplit('/').next().unwrap_or(name);
    let extension = file.rsplit_once('.').map_or("", |(_, extension)| extension);
    (file, extension.to_lowercase())
}

/// Removes this program's own output from a listing: files, run folders, and folders that hold run
/// folders but no other images, as `runs/` does.
pub(super) fn without_own(mut entries: Vec<Entry>) -> Vec<Entry> {
    let runs = run_folders(&entries);
    let is_in = |name: &str, folders: &HashSet<String>| {
        folders.contains(name) || parents(name).any(|folder| folders.contains(folder))
    };
    let mut own: HashSet<String> = HashSet::new();
    if !runs.is_empty() {
        let image_folders: HashSet<&str> = entries
            .iter()
            .filter(|entry| entry.is_image && !entry.is_own)
            .map(|entry| entry.name.as_str())
            .filter(|name| !is_junk(name) && !is_in(name, &runs))
            .flat_map(parents)
            .collect();
        let around = runs.iter().flat_map(|run| parents(run));
        let without_images = around.filter(|folder| !image_folders.contains(folder));
        own.extend(without_images.map(str::to_owned));
        own.extend(runs);
    }
    entries.retain(|entry| !entry.is_own && !is_in(&entry.name, &own));
    entries
}

/// Names of the run folders in a listing.
fn run_folders(entries: &[Entry]) -> HashSet<String> {
    let files: HashSet<&str> = entries
        .iter()
        .filter(|entry| !entry.is_folder)
        .map(|entry| entry.name.as_str())
        .collect();
    let folder = |entry: &Entry| {
        let (folder, file) = entry.name.rsplit_once('/')?;
        let in_folder = |name: &str| files.contains(format!("{folder}/{name}").as_str());
        let noted = file == RUN_NOTE && entry.is_own;
        let begun = file == RUN_FILES[0] && RUN_FILES.into_iter().all(in_folder);
        (noted || begun).then(|| folder.to_owned())
    };
    entries.iter().filter_map(folder).collect()
}

/// Names of the folders around a file or folder: `a/b` and `a` for `a/b/c`.
pub(super) fn parents(name: &str) -> impl Iterator<Item = &str> {
    name.rmatch_indices('/').map(|(end, _)| &name[..end])
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::fixtures::{gray_png, gzip, load_path, png, put, refused, tar};
    use super::*;

    #[test]
    fn a_marked_png_is_whole_and_recognized() {
        let plain = png(3, 2, 9);
        let marked = mark_png(plain.clone());
        let pixels = |bytes: &[u8]| image::load_from_memory(bytes).unwrap().into_rgb8();
        assert_eq!(pixels(&plain), pixels(&marked));
        assert!(is_own("x.PNG", &marked) && !is_own("x.PNG", &plain));
        for len in 0..PNG_HEADER + 4 + PNG_MARK.len() {
            assert!(!is_own("x.png", &marked[..len]), "{len}");
        }
    }

    /// Files that this program leaves in its working directory.
    fn output() -> Vec<(&'static str, Vec<u8>)> {
        let note = b"{\n  \"advcl_version\": \"0.1.0\",\n  \"device\": \"cpu\"\n}\n".to_vec();
        let page =
            b"<!DOCTYPE html><head><meta name=\"generator\" content=\"advcl 0.1.0\">".to_vec();
        let weights = b"\x40\0\0\0\0\0\0\0{\"__metadata__\":{\"advcl\":\"{}\"}}".to_vec();
        vec![
            ("views.png", mark_png(png(9, 9, 0))),
            ("report.html", page),
            ("imported.safetensors", weights),
            ("runs/r/run.json", note.clone()),
            ("runs/r/recipe.toml", b"seed = 1".to_vec()),
            ("runs/r/simclr/model.safetensors", b"weights".to_vec()),
            // A comparison has its tables beside its runs; the last run was interrupted early.
            ("runs/c/comparison.md", b"| method |".to_vec()),
            ("runs/c/seed-1/run.json", note),
            ("runs/stopped/recipe.toml", b"seed = 1".to_vec()),
            ("runs/stopped/metrics.jsonl", Vec::new()),
        ]
    }

    #[test]
    fn images_are_the_same_with_our_output_among_them() {
        let flat = vec![("a.png", gray_png(2, 2, 0)), ("b.png", gray_png(2, 2, 7))];
        let labeled = vec![
            ("train/cat/a.png", gray_png(2, 2, 0)),
            ("train/dog/b.png", gray_png(2, 2, 7)),
            ("test/cat/a.png", gray_png(2, 2, 8)),
            ("test/dog/b.png", gray_png(2, 2, 9)),
        ];
        for images in [flat, labeled] {
            let dir = tempfile::tempdir().unwrap();
            let (folder, archive) = (dir.path().join("set"), dir.path().join("set.tar.gz"));
            for (name, bytes) in &images {
                put(folder.join(name), bytes);
            }
            let before = load_path(&folder).unwrap();
            let all = [images, output()].concat();
            for (name, bytes) in &all {
                put(folder.join(name), bytes);
            }
            assert_eq!(load_path(&folder).unwrap(), before);
            let members: Vec<(&str, &[u8])> = all.iter().map(|(n, b)| (*n, &b[..])).collect();
            put(&archive, &gzip(&tar(&members)));
            assert_eq!(load_path(&archive).unwrap(), before);
        }
    }

    #[test]
    fn images_beside_a_run_folder_are_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in output() {
            put(dir.path().join(name), &bytes);
        }
        refused(dir.path(), &["expected images (PNG, ", "found none"]);
        put(dir.path().join("a.png"), &gray_png(2, 2, 0));
        assert_eq!(load_path(dir.path()).unwrap().train.images.len(), 1);
        // An image beside the run folders is not skipped.
        put(dir.path().join("runs/b.png"), &gray_png(2, 2, 0));
        assert_eq!(load_path(dir.path()).unwrap().train.images.len(), 2);
    }

    #[test]
    fn other_programs_files_are_not_ours() {
        for (name, bytes) in [
            ("x/run.json", &b"{}"[..]),
            ("page.html", b"<meta name=\"generator\" content=\"Hugo\">"),
            (
                "x.safetensors",
                b"\x40\0\0\0\0\0\0\0{\"__metadata__\":{\"format\":\"pt\"}}",
            ),
        ] {
            let dir = tempfile::tempdir().unwrap();
            put(dir.path().join("a.png"), &gray_png(2, 2, 0));
            put(dir.path().join(name), bytes);
            let notes = load_path(dir.path()).unwrap().notes;
            assert!(notes.iter().any(|note| note.contains(name)), "{notes:?}");
            fs::remove_file(dir.path().join(name)).unwrap();
            assert_eq!(load_path(dir.path()).unwrap().notes, [""; 0]);
        }
    }
}
