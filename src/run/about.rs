//! `run.json`: the folder's format, the machine that wrote it, and where the recipe's files were.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Layout;
use crate::error::{Error, Result};
use crate::{device, files};

/// Format of the folders that this version writes. Version 1, of before there was a number, is read as
/// far as its results can be told apart.
pub const FORMAT: usize = 2;

/// What a run folder says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// Format of the folder.
    #[serde(default = "first_format")]
    pub format: usize,
    /// One run, or a comparison of several.
    #[serde(default)]
    pub kind: FolderKind,
    /// Program that began the folder.
    pub advcl_version: String,
    /// Device that it was begun on.
    pub device: String,
    /// Ways in which encoders and classifiers were computed so far, as far as they change the last bits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arithmetic: Vec<String>,
    /// Devices that the program was built for.
    #[serde(default)]
    pub devices_compiled_in: Vec<String>,
    /// Cores of the machine.
    pub cores: usize,
    /// Operating system.
    pub os: String,
    /// Architecture of the processor.
    pub architecture: String,
    /// Seed of the recipe.
    pub seed: u64,
    /// Weights that trainings of encoders began at, by the method's table; random ones where it is not here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub starts: BTreeMap<String, String>,
    /// Hash of the recipe file as the program wrote it; a file of another content is the user's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe_hash: Option<String>,
    /// Files and folders that the recipe names, by their names there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub places: BTreeMap<String, Place>,
}

fn first_format() -> usize {
    1
}

/// What a folder holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FolderKind {
    /// One run of a recipe.
    #[default]
    Run,
    /// Runs of several seeds, each in a folder of its own.
    Comparison,
}

/// Where a file was when it was last used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Absolute path.
    pub absolute: PathBuf,
    /// Path relative to the run folder; none where there is no such path, as between drives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative: Option<PathBuf>,
}

impl About {
    /// Description of a new folder, on this machine.
    pub fn new(kind: FolderKind, device: &str, seed: u64) -> Self {
        Self {
            format: FORMAT,
            kind,
            advcl_version: env!("CARGO_PKG_VERSION").to_owned(),
            device: device.to_owned(),
            arithmetic: Vec::new(),
            devices_compiled_in: device::compiled_in()
                .iter()
                .map(|d| (*d).to_owned())
                .collect(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            os: std::env::consts::OS.to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            seed,
            starts: BTreeMap::new(),
            recipe_hash: None,
            places: BTreeMap::new(),
        }
    }

    /// Reads a folder's description; none where there is none.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`]; [`Error::Run`] for a folder of a later version.
    pub fn load(layout: &Layout) -> Result<Option<Self>> {
        let path = layout.about();
        if !path.exists() {
            return Ok(None);
        }
        let about: Self = files::read_json(&path)?;
        if about.format > FORMAT {
            let problem = format!(
                "expected a folder of format {FORMAT} or less, found {}: written by advcl {}",
                about.format, about.advcl_version
            );
            let hint = "use that version or a later one";
            return Err(Error::run(layout.root(), problem, hint));
        }
        Ok(Some(about))
    }

    /// Refuses a folder that holds something else.
    ///
    /// # Errors
    /// [`Error::Run`].
    pub fn require(layout: &Layout, kind: FolderKind) -> Result<Option<Self>> {
        let about = Self::load(layout)?;
        let root = layout.root();
        match about.as_ref().map(|about| about.kind) {
            Some(found) if found != kind => {
                let (problem, hint) = match found {
                    FolderKind::Run => (
                        "expected a comparison's folder or a new one, found a run",
                        "name another folder with --run",
                    ),
                    FolderKind::Comparison => (
                        "expected a run folder or a new one, found a comparison",
                        "name one of its runs, as its seed-0, or another folder with --run",
                    ),
                };
                Err(Error::run(root, problem, hint))
            }
            _ => Ok(about),
        }
    }

    /// Writes the description.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn store(&self, layout: &Layout) -> Result<()> {
        files::write_json(&layout.about(), self)
    }
}

impl Place {
    /// Place of `path`, which is relative to the working directory; none where nothing is there, and where the name is no UTF-8:
    /// neither `run.json` nor a recipe can keep that, and another name would lead elsewhere.
    pub fn of(path: &Path, folder: &Path) -> Option<Self> {
        let absolute = path.canonicalize().ok()?;
        absolute.to_str()?;
        let relative = folder
            .canonicalize()
            .ok()
            .and_then(|folder| relative(&absolute, &folder));
        Some(Self { absolute, relative })
    }

    /// Candidates for where the file is now, for a run folder that is now at `folder`: moved together
    /// with it, or where it was.
    pub fn candidates(&self, folder: &Path) -> Vec<PathBuf> {
        let moved = self.relative.as_ref().map(|path| folder.join(path));
        moved.into_iter().chain([self.absolute.clone()]).collect()
    }
}

/// Path from `folder` to `path`, both absolute.
fn relative(path: &Path, folder: &Path) -> Option<PathBuf> {
    let (path, folder): (Vec<_>, Vec<_>) =
        (path.components().collect(), folder.components().collect());
    let same = path.iter().zip(&folder).take_while(|(a, b)| a == b).count();
    // Nothing in common: another drive.
    if same == 0 {
        return None;
    }
    let up = std::iter::repeat_n(PathBuf::from(".."), folder.len() - same);
    let down = path[same..]
        .iter()
        .map(|part| PathBuf::from(part.as_os_str()));
    Some(up.chain(down).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_place_whose_name_is_no_utf_8_is_not_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let odd: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"caf\xe9");
        let (plain, odd) = (folder.path().join("set"), folder.path().join(odd));
        let run = odd.join("run");
        for path in [&plain, &run] {
            std::fs::create_dir_all(path).expect("a folder");
        }
        assert_eq!(Place::of(&odd, &run), None);
        // The folder's own name is in none of the two paths.
        let place = Place::of(&plain, &run).expect("a place");
        assert_eq!(place.relative.as_deref(), Some(Path::new("../../set")));
        let mut about = About::new(FolderKind::Run, "cpu", 0);
        about.places.insert("set".to_owned(), place);
        let layout = Layout::new(&run);
        about.store(&layout).expect("a disk");
        assert_eq!(About::load(&layout).expect("a file"), Some(about));
    }

    #[test]
    fn relative_paths_lead_from_the_folder_to_the_file() {
        for (path, folder, expected) in [
            ("/a/set", "/a/runs/mine", "../../set"),
            ("/a/runs/mine/set", "/a/runs/mine", "set"),
            ("/b", "/a", "../b"),
        ] {
            let found = relative(Path::new(path), Path::new(folder));
            assert_eq!(found.as_deref(), Some(Path::new(expected)), "{path}");
        }
    }
}
