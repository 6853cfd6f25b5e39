//! Files of features: NumPy arrays, CSV and Parquet, written while images are read.

use std::io::{BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use advcl::Error;
use advcl::files::{Output, write_output};
use anyhow::Result;

use super::{FeaturesFile, Origin};
use crate::format::in_csv;

/// Kind of a file of features.
#[derive(Clone, Copy)]
pub enum Kind {
    /// An array of NumPy, and a list of the images beside it.
    Npy,
    /// A row for each image, its path first.
    Csv,
    /// A row for each image, its features as a list.
    #[cfg(feature = "parquet")]
    Parquet,
}

impl Kind {
    /// The kind that a file's name asks for.
    pub fn of(path: &Path) -> Result<Self> {
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        let (problem, hint) = match extension.as_deref() {
            Some("npy") => return Ok(Self::Npy),
            Some("csv") => return Ok(Self::Csv),
            #[cfg(feature = "parquet")]
            Some("parquet") => return Ok(Self::Parquet),
            #[cfg(not(feature = "parquet"))]
            Some("parquet") => (
                "this build writes no Parquet".to_owned(),
                "build it with --features parquet, or name a .npy or .csv file",
            ),
            _ => (
                format!(
                    "expected a name that ends in .npy, .csv or .parquet, found {}",
                    path.display()
                ),
                "features.npy, say",
            ),
        };
        Err(Error::input("-o", problem, hint).into())
    }

    /// All files that are written for one of that name.
    pub fn files(self, path: &Path) -> Vec<PathBuf> {
        match self {
            Self::Npy => vec![path.to_path_buf(), list_beside(path)],
            _ => vec![path.to_path_buf()],
        }
    }

    /// Begins a file of `features` numbers an image.
    pub fn create(self, path: &Path, features: usize) -> Result<Box<dyn FeaturesFile>> {
        Ok(match self {
            Self::Npy => Box::new(Npy::create(path, features)?),
            Self::Csv => Box::new(Csv::create(path, features)?),
            #[cfg(feature = "parquet")]
            Self::Parquet => Box::new(super::parquet_file::Writer::create(path)?),
        })
    }
}

/// The list of images beside an array.
fn list_beside(path: &Path) -> PathBuf {
    path.with_extension("paths.csv")
}

/// Path, split and label of an image as the beginning of a line of CSV.
fn cells(origin: &Origin) -> String {
    [&origin.path, &origin.split, &origin.label]
        .map(|cell| in_csv(cell))
        .join(",")
}

/// Heads of [`cells`].
const HEADS: &str = "path,split,label";

/// A file written through a buffer.
struct Buffered {
    file: BufWriter<Output>,
    path: PathBuf,
}

impl Buffered {
    fn create(path: &Path) -> Result<Self> {
        Ok(Self {
            file: BufWriter::new(Output::create(path)?),
            path: path.to_path_buf(),
        })
    }

    fn write(&mut self, content: &[u8]) -> Result<()> {
        let written = self.file.write_all(content);
        Ok(written.map_err(Error::io("write", &self.path))?)
    }

    fn finish(self) -> Result<()> {
        let whole = self.file.into_inner().map_err(|error| error.into_error());
        Ok(whole.map_err(Error::io("write", &self.path))?.finish()?)
    }
}

/// An array of NumPy, and the list of its rows.
struct Npy {
    array: Buffered,
    list: String,
    rows: usize,
    features: usize,
}

impl Npy {
    fn create(path: &Path, features: usize) -> Result<Self> {
        let mut array = Buffered::create(path)?;
        array.write(&npy_header([0, features]))?;
        Ok(Self {
            array,
            list: format!("{HEADS}\n"),
            rows: 0,
            features,
        })
    }
}

impl FeaturesFile for Npy {
    fn add(&mut self, origins: &[Origin], features: &[f32]) -> Result<()> {
        for value in features {
            self.array.write(&value.to_le_bytes())?;
        }
        for origin in origins {
            self.list += &cells(origin);
            self.list.push('\n');
        }
        self.rows += origins.len();
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        let path = self.array.path.clone();
        let start = self.array.file.seek(SeekFrom::Start(0));
        start.map_err(Error::io("write", &path))?;
        self.array.write(&npy_header([self.rows, self.features]))?;
        self.array.finish()?;
        Ok(write_output(&list_beside(&path), self.list.as_bytes())?)
    }
}

/// Length of the header of a .npy file: the same for every number of images, because it is written before they are
/// counted.
const NPY_HEADER: usize = 128;

/// The header of a .npy file of f32 (NumPy's format 1.0).
fn npy_header([rows, columns]: [usize; 2]) -> Vec<u8> {
    let text =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    let width = NPY_HEADER - 11;
    let text = format!("{text:width$}\n");
    let length = (text.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], text.as_bytes()].concat()
}

/// A line for each image: path, split, label, features.
struct Csv {
    lines: Buffered,
    features: usize,
}

impl Csv {
    fn create(path: &Path, features: usize) -> Result<Self> {
        let mut lines = Buffered::create(path)?;
        let heads: String = (0..features).map(|i| format!(",f{i}")).collect();
        lines.write(format!("{HEADS}{heads}\n").as_bytes())?;
        Ok(Self { lines, features })
    }
}

impl FeaturesFile for Csv {
    fn add(&mut self, origins: &[Origin], features: &[f32]) -> Result<()> {
        for (row, origin) in features.chunks_exact(self.features).zip(origins) {
            let values: String = row.iter().map(|value| format!(",{value}")).collect();
            self.lines
                .write(format!("{}{values}\n", cells(origin)).as_bytes())?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.lines.finish()
    }
}
