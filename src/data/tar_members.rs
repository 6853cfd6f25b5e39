//! Members of a tar archive as files: what links lead to, and what is left out.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Read;
use std::path::Path;

use super::entry::Entry;
use super::filename::is_junk;
use super::listing::{LeftOut, Look, clean};
use super::own_output::parents;
use super::stream::{read_at_most, read_error};
use super::tarball::{self, Kind};
use crate::error::{Error, Result};

/// Memory for the list of an archive's members in bytes, besides the length of the archive itself: in a
/// few bytes of gzip there are thousands of names.
const MAX_LIST: u64 = 64 << 20;
/// Memory for an entry of the list besides its name, in bytes.
const ENTRY: u64 = 64;
/// Links in a row that are followed, as by Linux.
const MAX_LINKS: usize = 40;
/// Largest file that has several names in an archive, in bytes.
const MAX_LINKED: u64 = 256 << 20;

/// Links inside an archive: the file that each of them leads to.
pub(super) type Links = HashMap<String, String>;

/// Lists the members of a tar archive, and which file each link leads to.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for a damaged archive; [`Error::Data`] for a sparse file, and where there are
/// too many names.
pub(super) fn list(path: &Path, left_out: &mut LeftOut) -> Result<(Vec<Entry>, Links)> {
    let length = fs::metadata(path).map_err(Error::io("read", path))?;
    let most = MAX_LIST.saturating_add(length.len());
    let (mut entries, mut links) = (Vec::new(), Vec::new());
    let mut listed = 0;
    tarball::visit(path, &mut |member, content| {
        let Some(name) = left_out.clean(&member.name) else {
            return Ok(());
        };
        listed += name.len() as u64 + ENTRY;
        let is_folder = matches!(member.kind, Kind::Folder);
        match member.kind {
            Kind::File | Kind::Folder => {
                let found = match is_folder {
                    true => Look::default(),
                    false => Look::at(&name, &path.join(&name), || Ok(content))?,
                };
                entries.push(found.entry(name, is_folder));
            }
            Kind::HardLink(target) => {
                listed += target.len() as u64;
                links.push((name, clean(&target)));
            }
            Kind::SymbolicLink(target) => {
                listed += (name.len() + target.len()) as u64;
                let target = target_of(&name, &target);
                links.push((name, target));
            }
            Kind::Other => {}
            _ if is_junk(&name) => {}
            Kind::Sparse => {
                return Err(Error::data(
                    path.join(&name).display().to_string(),
                    "expected a whole file, found a sparse one, of which only parts are stored",
                    "create the archive again, without --sparse",
                ));
            }
            Kind::Special => left_out.add(&name, "a pipe or a device"),
        }
        if listed > most {
            return Err(Error::data(
                path.display().to_string(),
                format!("expected names of members that fit in {most} bytes, found more"),
                "is it an archive of images?",
            ));
        }
        Ok(())
    })?;
    let links = follow(links, &mut entries, left_out);
    Ok((entries, links))
}

/// Adds the links of an archive (name, and target if it is inside) to its entries.
fn follow(
    links: Vec<(String, Option<String>)>,
    entries: &mut Vec<Entry>,
    left_out: &mut LeftOut,
) -> Links {
    let mut followed = Links::new();
    let mut files: HashMap<&str, Look> = HashMap::new();
    // The archive's own folder has no name.
    let mut folders: HashSet<&str> = HashSet::from([""]);
    for entry in entries.iter() {
        if entry.is_folder {
            folders.insert(&entry.name);
        } else {
            let (is_own, is_image) = (entry.is_own, entry.is_image);
            files.insert(&entry.name, Look { is_own, is_image });
        }
        folders.extend(parents(&entry.name));
    }
    let targets: HashMap<&str, Option<&str>> = links
        .iter()
        .map(|(name, target)| (name.as_str(), target.as_deref()))
        .collect();
    let mut linked = Vec::new();
    for (name, _) in &links {
        let mut at = Some(name.as_str());
        for _ in 0..MAX_LINKS {
            match at.and_then(|name| targets.get(name)) {
                Some(target) => at = *target,
                None => break,
            }
        }
        let reason = match at.map(|at| (at, files.get(at))) {
            Some((file, Some(&look))) => {
                followed.insert(name.clone(), file.to_owned());
                linked.push(look.entry(name.clone(), false));
                continue;
            }
            Some((at, None)) if folders.contains(at) => "a link to a folder",
            Some(_) => "a link that leads nowhere",
            None => "a link that leads outside",
        };
        if !is_junk(name) {
            left_out.add(name, reason);
        }
    }
    entries.extend(linked);
    followed
}

/// Calls `each(index, content)` for every file in `wanted` (name to index), in the archive's order.
///
/// # Errors
/// Those of `each`, [`Error::Io`], and [`Error::Format`] for a damaged archive.
pub(super) fn read(
    path: &Path,
    links: &Links,
    wanted: &HashMap<String, usize>,
    each: &mut dyn FnMut(usize, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    let mut files: HashMap<&str, Vec<usize>> = HashMap::new();
    for (name, &index) in wanted {
        let file = links.get(name).unwrap_or(name);
        files.entry(file).or_default().push(index);
    }
    files
        .values_mut()
        .for_each(|indices| indices.sort_unstable());
    tarball::visit(path, &mut |member, content| {
        let name = clean(&member.name).filter(|_| matches!(member.kind, Kind::File));
        let indices = name.as_ref().and_then(|name| files.get(name.as_str()));
        let (Some(name), Some(indices)) = (&name, indices) else {
            return Ok(());
        };
        if let [index] = indices[..] {
            return each(index, content);
        }
        let path = path.join(name);
        let bytes = read_at_most(content, MAX_LINKED)
            .map_err(|error| read_error(&path, "content", "a whole file", error))?;
        let Some(bytes) = bytes else {
            let problem = format!(
                "expected at most {MAX_LINKED} bytes in a file with links to it, found more"
            );
            let hint = "put copies into the archive instead of links";
            return Err(Error::data(path.display().to_string(), problem, hint));
        };
        let mut indices = indices.iter();
        indices.try_for_each(|&index| each(index, &mut bytes.as_slice()))
    })
}

/// Name that a symbolic link in an archive leads to; none if that is outside.
fn target_of(link: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = link.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}
