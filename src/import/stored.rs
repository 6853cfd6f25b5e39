//! Tensors of a file by name: their shapes at once, their values when they are asked for.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use zip::ZipReadOptions;
use zip::read::OwnedZipFileEntry;

use crate::error::{Error, Result};
use crate::weights::chunks;

/// How many times its own size the tensors that are taken from a file may have together: several may share
/// their values.
const MAX_SHARED: u64 = 4;

/// Kind of a tensor's values.
#[derive(Clone, Debug, PartialEq)]
pub enum Element {
    /// 16 bits, of which 5 are the exponent.
    F16,
    /// The upper half of an [`Element::F32`].
    BF16,
    /// 32 bits.
    F32,
    /// 64 bits.
    F64,
    /// No kind of weights, by its name in the file.
    Other(String),
}

impl Element {
    /// Bytes of a value; 0 where values are not read.
    pub fn size(&self) -> usize {
        match self {
            Self::F16 | Self::BF16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
            Self::Other(_) => 0,
        }
    }

    fn values(&self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F16 => chunks(bytes, |b| half(u16::from_le_bytes(b))),
            Self::BF16 => chunks(bytes, |b| {
                f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)
            }),
            Self::F32 => chunks(bytes, f32::from_le_bytes),
            Self::F64 => chunks(bytes, |b| f64::from_le_bytes(b) as f32),
            Self::Other(_) => Vec::new(),
        }
    }
}

/// Number of 16 bits as one of 32, exactly.
fn half(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    let size = match exponent {
        0 => fraction * 2f32.powi(-24),
        0x1f if fraction == 0.0 => f32::INFINITY,
        0x1f => f32::NAN,
        _ => (1024.0 + fraction) * 2f32.powi(exponent - 25),
    };
    sign * size
}

/// Where the values of a tensor are.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// In a storage, from `offset` on and `strides` apart, all in elements.
    In {
        /// Number of the storage in [`Weights`].
        storage: usize,
        /// First element.
        offset: usize,
        /// Elements from one index of a dimension to the next.
        strides: Vec<usize>,
    },
    /// Numbers of a list.
    Given(Vec<f32>),
    /// Nowhere, with the reason in words.
    Missing(String),
}

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Kind of its values.
    pub element: Element,
    /// Length of each dimension.
    pub shape: Vec<usize>,
    /// Place of its values.
    pub values: Values,
}

impl Stored {
    /// Number of its values, saturating.
    pub fn count(&self) -> usize {
        self.shape.iter().copied().fold(1, usize::saturating_mul)
    }

    /// Whether its values are of a kind that weights have.
    pub fn is_float(&self) -> bool {
        !matches!(self.element, Element::Other(_))
    }
}

/// Strides of a tensor whose values follow each other, saturating.
pub fn contiguous(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for at in (1..shape.len()).rev() {
        strides[at - 1] = strides[at].saturating_mul(shape[at].max(1));
    }
    strides
}

/// Bytes that tensors share.
pub enum Storage {
    /// In the content of the file.
    Range(Range<usize>),
    /// A member of the archive.
    Member(Box<OwnedZipFileEntry>),
}

/// All tensors of a file.
pub struct Weights {
    /// The file.
    pub path: PathBuf,
    /// Tensors by name.
    pub tensors: BTreeMap<String, Stored>,
    /// Description in the metadata, where this program wrote the file.
    pub own: BTreeMap<String, String>,
    /// Bytes of the file.
    pub length: u64,
    /// The whole content, unless the file is an archive.
    pub content: Vec<u8>,
    /// The archive.
    pub archive: Option<BufReader<File>>,
    /// Places of the values.
    pub storages: Vec<Storage>,
    /// Members of the archive that were read.
    read: HashMap<usize, Vec<u8>>,
    /// Bytes of all tensors that were read, and of all members.
    taken: u64,
    unpacked: u64,
}

impl Weights {
    /// Tensors of a file without any yet.
    pub fn new(path: &Path, length: u64) -> Self {
        Self {
            path: path.to_path_buf(),
            tensors: BTreeMap::new(),
            own: BTreeMap::new(),
            length,
            content: Vec::new(),
            archive: None,
            storages: Vec::new(),
            read: HashMap::new(),
            taken: 0,
            unpacked: 0,
        }
    }

    /// Reads the values of a tensor in the order of its dimensions, the last one fastest.
    ///
    /// # Errors
    /// [`Error::Format`] for values that are not all in the file, that are of another kind, and for more of them than a
    /// file of its size can have; [`Error::Io`].
    pub fn values(&mut self, name: &str) -> Result<Vec<f32>> {
        let tensor = self.tensors[name].clone();
        let place = format!("tensor {name}");
        let broken = |expected: String, found: String| {
            Err(Error::format(&self.path, &place, expected, found))
        };
        if let Element::Other(kind) = tensor.element {
            return broken("F16, BF16, F32 or F64".to_owned(), kind);
        }
        let bytes = (tensor.count() as u64).saturating_mul(tensor.element.size() as u64);
        let all = self.taken.saturating_add(bytes);
        if bytes > self.length || all > self.length.saturating_mul(MAX_SHARED) {
            let expected = format!("values that are in the file of {} bytes", self.length);
            return broken(
                expected,
                match bytes > self.length {
                    true => format!("{bytes} bytes"),
                    false => format!("{all} bytes with the tensors before it"),
                },
            );
        }
        let (storage, offset, strides) = match tensor.values {
            Values::Given(values) => return Ok(values),
            Values::Missing(why) => return broken("values in the file".to_owned(), why),
            Values::In {
                storage,
                offset,
                strides,
            } => (storage, offset, strides),
        };
        self.taken = all;
        let path = self.path.clone();
        let content = self.storage(storage, &place)?;
        let bytes = gather(
            content,
            tensor.element.size(),
            offset,
            &tensor.shape,
            &strides,
        );
        match bytes {
            Some(bytes) => Ok(tensor.element.values(&bytes)),
            None => {
                let expected = format!("a tensor of shape {:?}", tensor.shape);
                let found = format!(
                    "its last value behind the {} bytes of its storage",
                    content.len()
                );
                Err(Error::format(path, place, expected, found))
            }
        }
    }

    /// Whether two tensors have the same shape and the same values.
    ///
    /// # Errors
    /// As [`Weights::values`].
    pub fn are_equal(&mut self, one: &str, other: &str) -> Result<bool> {
        let (a, b) = (&self.tensors[one], &self.tensors[other]);
        if a == b {
            return Ok(true);
        }
        if a.shape != b.shape || !a.is_float() || !b.is_float() {
            return Ok(false);
        }
        let taken = self.taken;
        let equal = self.values(one)? == self.values(other)?;
        // Nothing of it is kept.
        self.taken = taken;
        Ok(equal)
    }

    fn storage(&mut self, number: usize, place: &str) -> Result<&[u8]> {
        let Some(storage) = self.storages.get(number) else {
            let expected = "a storage of the file";
            return Err(Error::format(&self.path, place, expected, "none"));
        };
        let member = match storage {
            Storage::Range(range) => {
                let content = self.content.get(range.clone());
                return Ok(content.unwrap_or_default());
            }
            Storage::Member(member) => member,
        };
        if !self.read.contains_key(&number) {
            self.unpacked = self.unpacked.saturating_add(member.size());
            let archive = self.archive.as_mut().expect("members are an archive's");
            let expected = "a whole member of the archive";
            let broken = |found: String| Error::format(&self.path, place, expected, found);
            if self.unpacked > self.length.saturating_mul(MAX_SHARED) {
                return Err(broken(format!("{} bytes", self.unpacked)));
            }
            let content = unpack(member, archive).map_err(broken)?;
            self.read.insert(number, content);
        }
        Ok(&self.read[&number])
    }
}

/// Reads a member of an archive: as many bytes as it declares.
///
/// # Errors
/// In words.
pub fn unpack(
    member: &OwnedZipFileEntry,
    archive: &mut BufReader<File>,
) -> Result<Vec<u8>, String> {
    let entry = member.as_ref();
    let file = entry.with_reader(archive, ZipReadOptions::new());
    let file = file.map_err(|error| error.to_string())?;
    let mut content = Vec::new();
    let read = file.take(member.size() + 1).read_to_end(&mut content);
    read.map_err(|error| error.to_string())?;
    match content.len() as u64 == member.size() {
        true => Ok(content),
        false => Err(format!("{} of {} bytes", content.len(), member.size())),
    }
}

/// Bytes of a tensor's values in order; none where a value lies behind the end.
fn gather(
    content: &[u8],
    size: usize,
    offset: usize,
    shape: &[usize],
    strides: &[usize],
) -> Option<Vec<u8>> {
    if shape.len() != strides.len() {
        return None;
    }
    if shape.contains(&0) {
        return Some(Vec::new());
    }
    let mut spans = shape.iter().zip(strides);
    let last = spans.try_fold(offset, |last: usize, (length, stride)| {
        last.checked_add((length - 1).checked_mul(*stride)?)
    });
    let end = last?.checked_add(1)?.checked_mul(size)?;
    if end > content.len() {
        return None;
    }
    let significant = |strides: &[usize]| -> Vec<usize> {
        let all = shape.iter().zip(strides);
        all.filter(|(length, _)| **length > 1)
            .map(|(_, stride)| *stride)
            .collect()
    };
    if significant(strides) == significant(&contiguous(shape)) {
        return Some(content[offset * size..end].to_vec());
    }
    let mut index = vec![0; shape.len()];
    let mut bytes = Vec::new();
    let mut at = offset;
    loop {
        bytes.extend_from_slice(&content[at * size..(at + 1) * size]);
        // The next index, the last dimension first.
        let mut dimension = shape.len();
        loop {
            if dimension == 0 {
                return Some(bytes);
            }
            dimension -= 1;
            index[dimension] += 1;
            at += strides[dimension];
            if index[dimension] < shape[dimension] {
                break;
            }
            at -= strides[dimension] * shape[dimension];
            index[dimension] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_16_bits_are_exact() {
        for (bits, value) in [
            (0x0000, 0.0),
            (0x0001, 2f32.powi(-24)),
            (0x03ff, 1023.0 * 2f32.powi(-24)),
            (0x0400, 2f32.powi(-14)),
            (0x3555, 0.333_251_95),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x7c00, f32::INFINITY),
        ] {
            assert_eq!(half(bits), value, "{bits:#x}");
        }
        assert!(half(0x7e00).is_nan());
        assert_eq!(
            Element::BF16.values(&[0xc0, 0x3f, 0x20, 0xc1]),
            [1.5, -10.0]
        );
    }

    #[test]
    fn values_come_in_the_order_of_their_dimensions() {
        let content: Vec<u8> = (0..24).collect();
        let order = |offset, shape: &[usize], strides: &[usize]| {
            gather(&content, 1, offset, shape, strides)
        };
        assert_eq!(order(2, &[2, 3], &[3, 1]), Some(vec![2, 3, 4, 5, 6, 7]));
        assert_eq!(order(0, &[3, 2], &[1, 3]), Some(vec![0, 3, 1, 4, 2, 5]));
        assert_eq!(order(1, &[2, 1, 2], &[0, 7, 5]), Some(vec![1, 6, 1, 6]));
        assert_eq!(order(23, &[], &[]), Some(vec![23]));
        assert_eq!(order(99, &[0, 4], &[4, 1]), Some(vec![]));
        assert_eq!(order(0, &[5, 5], &[5, 1]), None);
        assert_eq!(order(0, &[2], &[usize::MAX]), None);
        assert_eq!(order(0, &[2], &[1, 1]), None);
    }
}
