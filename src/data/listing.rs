//! What every listing of files needs: a look at a file, clean names, and a note of what is left out.

use std::io::Read;
use std::path::Path;

use super::decode::format_of;
use super::entry::Entry;
use super::filename::{is_image, is_junk};
use super::own_output::{HEAD, is_own, may_be_own};
use super::stream::read_error;
use crate::error::Result;

/// Largest member of an archive in bytes: in a compressed one, passing over it takes as long as reading it.
pub(super) const MAX_MEMBER: u64 = 2 << 30;

/// Files that are left out, a few of them by name and with the reason.
#[derive(Default)]
pub(super) struct LeftOut {
    named: Vec<String>,
    count: usize,
}

impl LeftOut {
    /// Number of files that are named.
    const NAMED: usize = 4;

    /// Notes a file and why it is left out.
    pub(super) fn add(&mut self, name: &str, reason: &str) {
        self.count += 1;
        if self.named.len() < Self::NAMED {
            self.named.push(format!("{name} ({reason})"));
        }
    }

    /// The clean name of an archive's member; none for one that leads outside, which is noted.
    pub(super) fn clean(&mut self, name: &str) -> Option<String> {
        let clean = clean(name);
        // The archive's own folder, "./", is nothing to speak of.
        if clean.is_none() && !name.split('/').all(|part| matches!(part, "" | ".")) {
            self.add(name, "a name that leads outside");
        }
        clean
    }

    /// The files in a sentence; none if there are none.
    pub(super) fn note(&self) -> Option<String> {
        let named = self.named.join(", ");
        match (self.count, self.count - self.named.len()) {
            (0, _) => None,
            (1, _) => Some(format!("1 file is left out of the data set: {named}")),
            (count, 0) => Some(format!(
                "{count} files are left out of the data set: {named}"
            )),
            (count, more) => Some(format!(
                "{count} files are left out of the data set: {named} and {more} more"
            )),
        }
    }
}

/// What the name and the beginning of a file say.
#[derive(Clone, Copy, Default)]
pub(super) struct Look {
    pub(super) is_own: bool,
    pub(super) is_image: bool,
}

impl Look {
    /// Looks at a file. Opens it only where its name does not say all, and reads only its beginning.
    pub(super) fn at<R: Read>(
        name: &str,
        path: &Path,
        open: impl FnOnce() -> Result<R>,
    ) -> Result<Self> {
        let named = is_image(name);
        let mut head = Vec::new();
        if !named && !is_junk(name) || may_be_own(name) {
            open()?
                .take(HEAD as u64)
                .read_to_end(&mut head)
                .map_err(|error| read_error(path, "beginning", "a readable file", error))?;
        }
        Ok(Self {
            is_own: is_own(name, &head),
            is_image: named || format_of(&head).is_some(),
        })
    }

    /// The entry of a file or folder of this name.
    pub(super) fn entry(self, name: String, is_folder: bool) -> Entry {
        Entry {
            name,
            is_folder,
            is_own: self.is_own,
            is_image: self.is_image,
        }
    }
}

/// Removes empty and `.` parts from a name; none if it is absolute or leads out of the archive.
pub(super) fn clean(name: &str) -> Option<String> {
    let parts: Vec<&str> = name
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    let usable = !name.starts_with('/') && !parts.is_empty() && !parts.contains(&"..");
    usable.then(|| parts.join("/"))
}
