//! NumPy's `.npy`: a header with type and shape as a Python literal, then the values.
//!
//! Source: NumPy's documentation, `numpy.lib.format`, versions 1 to 3.

use std::io::{self, Read};
use std::path::Path;

use super::super::stream::read_error;
use crate::error::{Error, Result};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Largest header in bytes; usual ones have 128.
const MAX_HEADER: usize = 1 << 14;

/// Kind of an array's values.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// Integers, also truth values.
    Integer { bytes: usize, signed: bool },
    /// Anything else, in words.
    Other(&'static str),
}

/// An array whose header was read.
#[derive(Debug)]
pub(super) struct Array<'a, R> {
    /// Archive and member, for messages.
    pub(super) path: &'a Path,
    pub(super) shape: Vec<usize>,
    pub(super) kind: Kind,
    pub(super) is_big_endian: bool,
    content: R,
    /// Most bytes that may be there.
    most: u64,
    /// Length of the header in bytes.
    start: u64,
}

impl<'a, R: Read> Array<'a, R> {
    /// Reads the header of an array that has at most `most` bytes.
    ///
    /// # Errors
    /// [`Error::Format`] for another file, for objects, and for columns that come before rows.
    pub(super) fn open(path: &'a Path, mut content: R, most: u64) -> Result<Self> {
        let mut read = |len: usize| {
            let mut bytes = Vec::new();
            let read = content.by_ref().take(len as u64).read_to_end(&mut bytes);
            read.map_err(|error| read_error(path, "header", "a NumPy array", error))?;
            if bytes.len() < len {
                let expected = "the header of a NumPy array";
                return Err(Error::format(
                    path,
                    "header",
                    expected,
                    "an end of the file",
                ));
            }
            Ok(bytes)
        };
        let first = read(8)?;
        if !first.starts_with(MAGIC) {
            return Err(Error::format(
                path,
                "byte 0",
                "a NumPy array",
                "other content",
            ));
        }
        let length = match first[6] {
            1 => read(2)?,
            _ => read(4)?,
        };
        let start = (first.len() + length.len()) as u64;
        let length = length
            .iter()
            .rev()
            .fold(0, |number, byte| number << 8 | usize::from(*byte));
        if length > MAX_HEADER {
            let expected = format!("at most {MAX_HEADER} bytes");
            return Err(Error::format(path, "header", expected, length.to_string()));
        }
        let text = read(length)?;
        let text = String::from_utf8_lossy(&text);
        let Some(header) = Header::parse(&text) else {
            let expected = "a NumPy header with descr, fortran_order and shape";
            let start: String = text.trim().chars().take(60).collect();
            return Err(Error::format(
                path,
                "header",
                expected,
                format!("{start:?}"),
            ));
        };
        let array = Self {
            path,
            kind: kind_of(&header.descr),
            is_big_endian: header.descr.starts_with('>'),
            shape: header.shape,
            content,
            most,
            start: start + length as u64,
        };
        if array.kind == Kind::Other(OBJECTS) {
            let hint = "save numbers: images as uint8, labels as int64";
            return Err(array.refused("numbers", hint));
        }
        if header.fortran_order && array.shape.len() > 1 {
            return Err(array.refused(
                "rows before columns (C order)",
                "numpy.ascontiguousarray brings it into that order",
            ));
        }
        Ok(array)
    }

    /// An error about this kind of array.
    pub(super) fn refused(&self, expected: &str, hint: &str) -> Error {
        let shape: Vec<String> = self.shape.iter().map(usize::to_string).collect();
        let kind = match &self.kind {
            Kind::Integer { bytes, signed } => {
                format!("{}int{}", if *signed { "" } else { "u" }, 8 * bytes)
            }
            Kind::Other(words) => (*words).to_owned(),
        };
        let problem = format!("expected {expected}, found {} ({kind})", shape.join(" × "));
        Error::data(self.path.display().to_string(), problem, hint)
    }

    /// Reads the bytes of all values, of which there must be as many as the header says.
    ///
    /// # Errors
    /// [`Error::Format`] where there are more or fewer; [`Error::Data`] where memory does not suffice.
    pub(super) fn bytes(self) -> Result<Vec<u8>> {
        let size = match self.kind {
            Kind::Integer { bytes, .. } => bytes,
            Kind::Other(_) => unreachable!("callers look at the kind"),
        };
        let path = self.path;
        let total = self
            .shape
            .iter()
            .try_fold(size, |total, side| total.checked_mul(*side));
        let place = || format!("values from byte {}", self.start);
        let most = self.most.saturating_sub(self.start);
        let shape: Vec<String> = self.shape.iter().map(usize::to_string).collect();
        let expected = |total: &str| format!("{total} bytes ({})", shape.join(" × "));
        let Some(total) = total.filter(|total| *total as u64 <= most) else {
            let total = total.map_or("too many".to_owned(), |total| total.to_string());
            let found = format!("{most} at most");
            return Err(Error::format(path, place(), expected(&total), found));
        };
        let mut bytes = Vec::new();
        if bytes.try_reserve_exact(total).is_err() {
            let problem = format!("expected memory for {total} bytes, found too little");
            return Err(Error::data(
                path.display().to_string(),
                problem,
                "use fewer images",
            ));
        }
        let failed = |error| read_error(path, "values", "a whole member of the archive", error);
        let mut content = self.content;
        content
            .by_ref()
            .take(total as u64)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        // The end is read too: it holds the checksum against the content.
        let rest = io::copy(&mut content.take(1 << 20), &mut io::sink()).map_err(failed)?;
        let found = bytes.len() as u64 + rest;
        if found == total as u64 {
            return Ok(bytes);
        }
        let start = self.start;
        let place = format!("values from byte {start}");
        let expected = format!("{total} bytes ({})", shape.join(" × "));
        Err(Error::format(
            path,
            place,
            expected,
            format!("{found} bytes"),
        ))
    }
}

const OBJECTS: &str = "Python objects (pickled), which are never read";

/// Kind of values by NumPy's name of a type: "|u1", "<i8".
fn kind_of(descr: &str) -> Kind {
    let name = descr.trim_start_matches(['<', '>', '|', '=']);
    let size = name.get(1..).and_then(|size| size.parse().ok());
    match (name.as_bytes().first(), size) {
        (Some(b'u'), Some(bytes @ (1 | 2 | 4 | 8))) => Kind::Integer {
            bytes,
            signed: false,
        },
        (Some(b'i'), Some(bytes @ (1 | 2 | 4 | 8))) => Kind::Integer {
            bytes,
            signed: true,
        },
        (Some(b'b'), Some(1)) => Kind::Integer {
            bytes: 1,
            signed: false,
        },
        (Some(b'f'), _) => Kind::Other("floating-point numbers"),
        (Some(b'O'), _) => Kind::Other(OBJECTS),
        (Some(b'U' | b'S'), _) => Kind::Other("texts"),
        (Some(b'['), _) => Kind::Other("records of several fields"),
        _ => Kind::Other("another type"),
    }
}

/// Entries of a header.
#[derive(Debug, PartialEq)]
struct Header {
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl Header {
    /// Reads a header, a dictionary of Python with three keys; none for anything else.
    fn parse(text: &str) -> Option<Self> {
        let mut rest = text.trim().strip_prefix('{')?.trim_start();
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        while !rest.starts_with('}') {
            let (key, after) = quoted(rest)?;
            let value = after.trim_start().strip_prefix(':')?.trim_start();
            let end;
            match key {
                "descr" if value.starts_with('[') => {
                    // Records, which are refused: what is inside does not matter.
                    end = closing(value)?;
                    descr = Some("[".to_owned());
                }
                "descr" => {
                    let (text, after) = quoted(value)?;
                    end = value.len() - after.len();
                    descr = Some(text.to_owned());
                }
                "fortran_order" => {
                    let is_fortran = value.starts_with("True");
                    end = if is_fortran { 4 } else { 5 };
                    value.strip_prefix(if is_fortran { "True" } else { "False" })?;
                    fortran_order = Some(is_fortran);
                }
                "shape" => {
                    let inside = value.strip_prefix('(')?;
                    let length = inside.find(')')?;
                    let sides = inside[..length].split(',').map(str::trim);
                    let sides = sides.filter(|side| !side.is_empty());
                    // Python 2 wrote 10L.
                    let sides = sides.map(|side| side.trim_end_matches('L').parse().ok());
                    shape = Some(sides.collect::<Option<Vec<usize>>>()?);
                    end = length + 2;
                }
                _ => return None,
            }
            rest = value.get(end..)?.trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
        }
        Some(Self {
            descr: descr?,
            fortran_order: fortran_order?,
            shape: shape?,
        })
    }
}

/// A text in quotes at the beginning, and what comes after it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let mark = text
        .chars()
        .next()
        .filter(|mark| matches!(mark, '\'' | '"'))?;
    text[1..].split_once(mark)
}

/// Length of a list with its brackets.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'[' => depth += 1,
            b']' if depth == 1 => return Some(at + 1),
            b']' => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    None
}
