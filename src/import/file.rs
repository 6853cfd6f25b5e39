//! The file of weights: what it is, and its tensors. safetensors, and what PyTorch writes: archives since 1.6,
//! pickles followed by values before.

use std::collections::HashMap;
use std::io::{BufReader, Read};
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use zip::read::{Config, OwnedZipFileEntry};
use zip::unstable::read::ZipIterable;

use super::pickle::{Object, Pickle};
use super::stored::{Element, Storage, Stored, Values, Weights, contiguous, unpack};
use super::{strange, tree};
use crate::error::{Error, Result};
use crate::files;
use crate::weights;

/// What stands in the beginning of a pickle of PyTorch before 1.6.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

impl Weights {
    /// Finds all tensors of a file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] for a damaged file; [`Error::Model`] for a file of another kind.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = files::open(path)?;
        let length = file.metadata().map_err(Error::io("read", path))?.len();
        let mut start = Vec::new();
        (&mut file)
            .take(512)
            .read_to_end(&mut start)
            .map_err(Error::io("read", path))?;
        let found = Self::new(path, length);
        // safetensors begins with the length of its header, which is JSON: its first bytes may be those of any other kind.
        let header = start.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        let fits = header.is_some_and(|header| header <= length);
        let is_zip = start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06");
        if start.get(8) == Some(&b'{') && (fits || !(is_zip || start[0] == 0x80)) {
            return found.safetensors();
        }
        if is_zip {
            return found.archive(file);
        }
        if start.first() == Some(&0x80) {
            return found.legacy();
        }
        let (what, hint) = strange::file(&start);
        Err(Error::model(path, what, hint))
    }

    fn safetensors(mut self) -> Result<Self> {
        let content = files::read(&self.path)?;
        let broken = |error: safetensors::SafeTensorError| {
            let expected = "a complete safetensors file";
            Error::format(&self.path, "header", expected, error.to_string())
        };
        let (header, metadata) = SafeTensors::read_metadata(&content).map_err(broken)?;
        // Checks that the tensors are all there and do not overlap.
        SafeTensors::deserialize(&content).map_err(broken)?;
        weights::require_checksum(&content, &self.path)?;
        for (name, info) in metadata.tensors() {
            let element = match info.dtype {
                Dtype::F32 => Element::F32,
                Dtype::F64 => Element::F64,
                Dtype::F16 => Element::F16,
                Dtype::BF16 => Element::BF16,
                other => Element::Other(format!("{other:?}")),
            };
            let start = 8 + header;
            let (from, to) = info.data_offsets;
            let values = Values::In {
                storage: self.storages.len(),
                offset: 0,
                strides: contiguous(&info.shape),
            };
            self.storages.push(Storage::Range(start + from..start + to));
            let shape = info.shape.clone();
            self.tensors.insert(
                name,
                Stored {
                    element,
                    shape,
                    values,
                },
            );
        }
        self.own = metadata
            .metadata()
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect();
        self.content = content;
        Ok(self)
    }

    /// An archive: a pickle, and a member for every storage.
    fn archive(mut self, file: std::fs::File) -> Result<Self> {
        let path = self.path.clone();
        let broken = |place: &str, found: String| {
            Error::format(&path, place, "a whole file that PyTorch saved", found)
        };
        let whole = |error: zip::result::ZipError| broken("archive directory", error.to_string());
        let mut file = BufReader::new(file);
        let mut members: HashMap<String, OwnedZipFileEntry> = HashMap::new();
        {
            let mut archive = ZipIterable::try_new(&mut file, Config::default()).map_err(whole)?;
            for member in archive.files().map_err(whole)? {
                let member = member.map_err(whole)?;
                let name = member.name().map(std::borrow::Cow::into_owned);
                if let Ok(name) = name {
                    members
                        .entry(name)
                        .or_insert(OwnedZipFileEntry::from(member));
                }
            }
        }
        // `NAME/data.pkl`, of whatever name.
        let pickles = members.keys().filter_map(|name| {
            let folder = name.strip_suffix("data.pkl")?;
            (folder.is_empty() || folder.ends_with('/')).then_some(folder)
        });
        let Some(folder) = pickles.min_by_key(|folder| folder.len()).map(str::to_owned) else {
            let (what, hint) = strange::archive(members.keys());
            return Err(Error::model(&path, what, hint));
        };
        if members.contains_key(&format!("{folder}constants.pkl")) {
            return Err(Error::model(
                &path,
                strange::TORCHSCRIPT.0,
                strange::TORCHSCRIPT.1,
            ));
        }
        let mut read = |name: &str| -> Result<Option<Vec<u8>>> {
            let Some(member) = members.get(&format!("{folder}{name}")) else {
                return Ok(None);
            };
            if member.size() > self.length {
                return Err(broken(name, format!("{} bytes", member.size())));
            }
            let content = unpack(member, &mut file);
            content.map(Some).map_err(|problem| broken(name, problem))
        };
        if read("byteorder")?.is_some_and(|order| order != b"little") {
            return Err(broken(
                "byteorder",
                "values with the highest byte first".to_owned(),
            ));
        }
        let content = read("data.pkl")?.expect("just found");
        let data = format!("{folder}data/");
        let mut storages = HashMap::new();
        for (name, member) in members {
            if let Some(key) = name.strip_prefix(&data) {
                storages.insert(key.to_owned(), self.storages.len());
                self.storages.push(Storage::Member(Box::new(member)));
            }
        }
        let pickle = Pickle::read(&content).map_err(|problem| broken("data.pkl", problem))?;
        self.add_tensors(&pickle, &storages)?;
        self.archive = Some(file);
        Ok(self)
    }

    /// Pickles that follow each other: magic number, protocol, the writer's machine, the object, the keys of its
    /// storages; then every storage, its length before it.
    fn legacy(mut self) -> Result<Self> {
        let content = files::read(&self.path)?;
        let path = self.path.clone();
        let broken = |place: &str, found: String| {
            Error::format(&path, place, "a state dict that PyTorch saved", found)
        };
        let start = &content[..content.len().min(32)];
        if !start.windows(MAGIC.len()).any(|bytes| bytes == MAGIC) {
            let (what, hint) = strange::PICKLE;
            return Err(Error::model(&path, what, hint));
        }
        let mut at = 0;
        let mut next = |place: &str| {
            let pickle = Pickle::read(&content[at..]).map_err(|problem| broken(place, problem))?;
            at += pickle.length;
            Ok::<_, Error>(pickle)
        };
        next("magic number")?;
        next("protocol")?;
        let machine = next("description of the machine")?;
        let little = machine.entry(machine.root, "little_endian");
        if little == Some(super::pickle::Value::Bool(false)) {
            let found = "values with the highest byte first".to_owned();
            return Err(broken("description of the machine", found));
        }
        let pickle = next("object")?;
        let keys = next("list of storages")?;
        let sizes: HashMap<&str, usize> = pickle
            .objects()
            .iter()
            .enumerate()
            .filter(|(_, object)| matches!(object, Object::Persistent(_)))
            .filter_map(|(number, _)| {
                let storage = tree::storage(&pickle, super::pickle::Value::Object(number))?;
                Some((storage.key, tree::element(storage.class).1))
            })
            .collect();
        let mut storages = HashMap::new();
        for key in keys.elements(keys.root) {
            let super::pickle::Value::Text(key) = *key else {
                return Err(broken(
                    "list of storages",
                    "a key that is no text".to_owned(),
                ));
            };
            let place = format!("storage {key:.40}");
            // Of a storage that nothing uses neither the length nor what comes after it is known.
            let Some(size) = sizes.get(key) else { break };
            let rest = content.get(at..).unwrap_or_default();
            let count = rest.first_chunk().map(|count| u64::from_le_bytes(*count));
            let bytes = count.and_then(|count| {
                let bytes = usize::try_from(count).ok()?.checked_mul(*size)?;
                (bytes <= rest.len() - 8).then_some(bytes)
            });
            let Some(bytes) = bytes else {
                let found = format!("{} bytes after it, fewer than it has", rest.len());
                return Err(broken(&place, found));
            };
            storages.insert(key.to_owned(), self.storages.len());
            let start = at + 8;
            self.storages.push(Storage::Range(start..start + bytes));
            at = start + bytes;
        }
        self.add_tensors(&pickle, &storages)?;
        drop((machine, pickle, keys));
        self.content = content;
        Ok(self)
    }

    fn add_tensors(&mut self, pickle: &Pickle, storages: &HashMap<String, usize>) -> Result<()> {
        let kind = match pickle.object(pickle.root) {
            Some(Object::List(elements)) => Some(("list", elements)),
            Some(Object::Tuple(elements)) => Some(("tuple", elements)),
            _ => None,
        };
        if let Some((kind, elements)) = kind {
            let (what, hint) = strange::list(kind, elements.len());
            return Err(Error::model(&self.path, what, hint));
        }
        let found = tree::tensors(pickle, storages).map_err(|found| {
            let expected = "the tensors of a network";
            Error::format(&self.path, "object", expected, found)
        })?;
        for (name, tensor) in found {
            self.tensors.entry(name).or_insert(tensor);
        }
        if self.tensors.is_empty() {
            let (what, hint) = strange::nothing(pickle.global(pickle.root).is_some());
            return Err(Error::model(&self.path, what, hint));
        }
        Ok(())
    }
}
