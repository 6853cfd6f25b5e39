//! Rows of Parquet files: labels first, then images, some rows at a time.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use parquet::basic::Encoding;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType, DataType};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::reader::{ChunkReader, FileReader, Length, SerializedFileReader};

use super::super::labels::{Label, Sample, Splits, layout, require_split, split_of};
use super::super::layout::Layout;
use super::columns::Columns;
use super::{Files, broken};
use crate::error::{Error, Result};
use crate::files;

/// Rows that are read at a time.
const ROWS: usize = 64;
/// Least bytes of a file for each of its rows: no image is smaller.
const MIN_ROW: u64 = 8;
/// Bytes of a page that need not be there, and how many others each byte may stand for. Images hardly shrink.
const PAGE: (u64, u64) = (64 << 20, 32);

/// Splits and classes of the rows of all files, sorted by class, then as they stand in the files.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for a damaged file; [`Error::Data`] where no column holds images, and where files
/// differ in their labels.
pub(in super::super) fn open(found: Files) -> Result<(Files, Layout)> {
    let source = found.source.display().to_string();
    let mut splits = Splits::new();
    let mut first: Option<Columns> = None;
    let mut names = Vec::new();
    let any = found.files.iter().any(|(name, _)| split_of(name).is_some());
    for (name, path) in &found.files {
        let table = Table::open(path)?;
        let split = require_split(&source, name, split_of(name), any)?;
        let labels = table.labels()?;
        let rows = labels.len();
        let sample = |(row, label)| Sample {
            name: row_name(name, row),
            label,
        };
        let samples = labels.into_iter().enumerate().map(sample);
        splits.entry(split).or_default().extend(samples);
        names.push(rows);
        let columns = table.columns;
        match &first {
            Some(first) => require_same(path, first, &columns)?,
            None => first = Some(columns),
        }
    }
    let first = first.ok_or_else(|| Error::data(&source, "no Parquet files", "check the path"))?;
    let mut layout = layout(&source, splits, first.names.as_deref())?;
    if !first.others.is_empty() {
        let label = first.labels.as_ref().map_or("none", |(name, _)| name);
        layout.notes.push(format!(
            "labels are those of the column {label}; not read: {}",
            first.others.join(", ")
        ));
    }
    Ok((found, layout))
}

/// Calls `each(index, image)` for every row in `wanted` (name to index), in the order of the files.
///
/// # Errors
/// Those of `each`; [`Error::Io`]; [`Error::Format`] for a damaged file.
pub(in super::super) fn read(
    found: &Files,
    wanted: &HashMap<String, usize>,
    each: &mut dyn FnMut(usize, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    for (name, path) in &found.files {
        Table::open(path)?.images(|row, image| {
            // Splits that are not used are not wanted.
            let Some(&index) = wanted.get(&row_name(name, row)) else {
                return Ok(());
            };
            match image {
                Some(mut image) => each(index, &mut image),
                None => each(index, &mut Missing),
            }
        })?;
    }
    Ok(())
}

/// Content of an image that is only named: it cannot be read, and others can.
struct Missing;

impl Read for Missing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other(
            "none: a path at most (push_to_hub and embed_table_storage of `datasets` write images into the file)",
        ))
    }
}

fn row_name(file: &str, row: usize) -> String {
    format!("{file}/row {row}")
}

/// Refuses a file whose labels are not those of the first one.
fn require_same(path: &Path, first: &Columns, other: &Columns) -> Result<()> {
    let name = |columns: &Columns| columns.labels.as_ref().map(|(name, _)| name.clone());
    let problem = match (name(first), name(other)) {
        (expected, found) if expected != found => format!(
            "expected labels in the column {}, as in the first file, found {}",
            expected.as_deref().unwrap_or("of no name"),
            found.as_deref().unwrap_or("none")
        ),
        _ if first.names != other.names => {
            "expected the class names of the first file, found others".to_owned()
        }
        _ => return Ok(()),
    };
    let hint = "give a folder with the files of one data set";
    Err(Error::data(path.display().to_string(), problem, hint))
}

/// A Parquet file.
struct Table<'a> {
    path: &'a Path,
    reader: SerializedFileReader<Source>,
    columns: Columns,
}

impl<'a> Table<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let file = files::open(path)?;
        let length = file.metadata().map_err(Error::io("read", path))?.len();
        let reader = SerializedFileReader::new(Source { file, length });
        let reader = reader.map_err(|error| broken(path, "metadata", error))?;
        let about = reader.metadata();
        let rows = about.row_groups().iter().map(|group| group.num_rows());
        let rows = rows.fold(0u64, |sum, rows| sum.saturating_add(rows.max(0) as u64));
        if rows > length / MIN_ROW {
            return Err(Error::format(
                path,
                "metadata",
                format!("at most {} rows in {length} bytes", length / MIN_ROW),
                rows.to_string(),
            ));
        }
        for group in about.row_groups() {
            for column in group.columns() {
                let start = column.dictionary_page_offset();
                let start = start.unwrap_or(column.data_page_offset());
                let (Ok(start), Ok(size)) = (
                    u64::try_from(start.min(column.data_page_offset())),
                    u64::try_from(column.compressed_size()),
                ) else {
                    let found = "a negative place or size of a column";
                    return Err(Error::format(
                        path,
                        "metadata",
                        "a whole Parquet file",
                        found,
                    ));
                };
                if start.max(size) > length {
                    let found = "a column past the end of the file";
                    return Err(Error::format(
                        path,
                        "metadata",
                        "a whole Parquet file",
                        found,
                    ));
                }
            }
        }
        let columns = Columns::of(path, about)?;
        Ok(Self {
            path,
            reader,
            columns,
        })
    }

    /// Label of each row.
    fn labels(&self) -> Result<Vec<Option<Label>>> {
        let mut all = Vec::new();
        let Some((_, column)) = &self.columns.labels else {
            let groups = self.reader.metadata().row_groups().iter();
            let rows: usize = groups.map(|group| group.num_rows().max(0) as usize).sum();
            all.resize(rows, None);
            return Ok(all);
        };
        self.each_group(*column, |reader, optional, rows| {
            let number = |value: i64| u64::try_from(value).ok().map(Label::Number);
            let mut keep = |_: usize, label: Option<Option<Label>>| {
                all.push(label.flatten());
                Ok(Ok(()))
            };
            match reader {
                ColumnReader::Int32ColumnReader(mut values) => {
                    let number = |value: &i32| number(i64::from(*value));
                    each(&mut values, optional, rows, |i, v| keep(i, v.map(number)))
                }
                ColumnReader::Int64ColumnReader(mut values) => {
                    let number = |value: &i64| number(*value);
                    each(&mut values, optional, rows, |i, v| keep(i, v.map(number)))
                }
                ColumnReader::ByteArrayColumnReader(mut values) => {
                    let text = |value: &ByteArray| Label::parse(value.as_utf8().ok()?);
                    each(&mut values, optional, rows, |i, v| keep(i, v.map(text)))
                }
                _ => Err(ParquetError::General("labels of another type".into())),
            }
        })?;
        Ok(all)
    }

    /// Calls `each(row, bytes)` for all rows.
    fn images(&self, mut keep: impl FnMut(usize, Option<&[u8]>) -> Result<()>) -> Result<()> {
        let mut before = 0;
        self.each_group(self.columns.images, |reader, optional, rows| {
            let ColumnReader::ByteArrayColumnReader(mut values) = reader else {
                return Err(ParquetError::General("images of another type".into()));
            };
            let found = each::<ByteArrayType>(&mut values, optional, rows, |row, image| {
                Ok(keep(before + row, image.map(ByteArray::data)))
            });
            before += rows;
            found
        })
    }

    /// Calls `each` with the reader of a column in each row group, the level of its values (0 where none is missing), and the
    /// number of rows.
    fn each_group(
        &self,
        column: usize,
        mut each: impl FnMut(ColumnReader, i16, usize) -> ParquetResult<Result<()>>,
    ) -> Result<()> {
        let schema = self.reader.metadata().file_metadata().schema_descr();
        let level = schema.column(column).max_def_level();
        for (number, group) in self.reader.metadata().row_groups().iter().enumerate() {
            let rows = group.num_rows().max(0) as usize;
            let found = self.reader.get_row_group(number);
            let pages = found.and_then(|group| group.get_column_page_reader(column));
            let found = pages.map(|pages| {
                let has_dictionary = false;
                let pages = Box::new(Pages {
                    pages,
                    has_dictionary,
                });
                get_column_reader(schema.column(column), pages)
            });
            let found = found.and_then(|reader| each(reader, level, rows));
            let place = format!(
                "row group {number}, column {}",
                schema.column(column).path()
            );
            found.map_err(|error| broken(self.path, &place, error))??;
        }
        Ok(())
    }
}

/// Calls `keep(row, value)` for the values of a column in a row group; `level` is that of values that are there.
fn each<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    level: i16,
    rows: usize,
    mut keep: impl FnMut(usize, Option<&T::T>) -> ParquetResult<Result<()>>,
) -> ParquetResult<Result<()>> {
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    let mut done = 0;
    while done < rows {
        values.clear();
        levels.clear();
        let most = ROWS.min(rows - done);
        let (records, ..) = reader.read_records(most, Some(&mut levels), None, &mut values)?;
        if records == 0 {
            let problem = format!("expected {rows} rows, found {done}");
            return Err(ParquetError::General(problem));
        }
        let mut found = values.iter();
        for row in 0..records {
            let there = level == 0 || levels.get(row) == Some(&level);
            let value = if there { found.next() } else { None };
            if let Err(error) = keep(done + row, value)? {
                return Ok(Err(error));
            }
        }
        done += records;
    }
    Ok(Ok(()))
}

/// Pages of a column. A page of places in a dictionary that is not there is an error: the decoder takes it for granted.
struct Pages {
    pages: Box<dyn PageReader>,
    has_dictionary: bool,
}

impl Iterator for Pages {
    type Item = ParquetResult<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> ParquetResult<Option<Page>> {
        let page = self.pages.get_next_page()?;
        match &page {
            Some(Page::DictionaryPage { .. }) => self.has_dictionary = true,
            Some(Page::DataPage { encoding, .. } | Page::DataPageV2 { encoding, .. }) => {
                let of_dictionary = [Encoding::RLE_DICTIONARY, Encoding::PLAIN_DICTIONARY];
                if of_dictionary.contains(encoding) && !self.has_dictionary {
                    let problem = "values of a dictionary that is not there";
                    return Err(ParquetError::General(problem.into()));
                }
            }
            None => {}
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> ParquetResult<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> ParquetResult<()> {
        self.pages.skip_next_page()
    }
}

/// A file whose pages are no larger than what is there can hold.
struct Source {
    file: File,
    length: u64,
}

impl Length for Source {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Source {
    type T = BufReader<File>;

    /// Called with the place of a page's header, and of the end of the file.
    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        let mut file = BufReader::new(self.file.try_clone()?);
        file.seek(SeekFrom::Start(start))?;
        if let Some((size, stored)) = page_sizes(file.fill_buf()?) {
            let most = PAGE.0.saturating_add(stored.saturating_mul(PAGE.1));
            if size > most {
                let problem = format!("a page of {size} bytes in {stored} bytes of the file");
                return Err(ParquetError::General(problem));
            }
        }
        Ok(file)
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<bytes::Bytes> {
        if start.saturating_add(length as u64) > self.length {
            let problem = format!("{length} bytes from byte {start}, past the end of the file");
            return Err(ParquetError::EOF(problem));
        }
        self.file.get_bytes(start, length)
    }
}

/// Size of a page when decompressed and as stored, from the start of its header: the second and third field, numbers in
/// Thrift's compact form. None where it is no such header.
fn page_sizes(header: &[u8]) -> Option<(u64, u64)> {
    let mut at = 0;
    let mut field = || {
        // A field of 32 bits, next to the one before.
        if *header.get(at)? != 0x15 {
            return None;
        }
        at += 1;
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = *header.get(at)?;
            at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                // Signs alternate; the sizes are not negative.
                return Some(value >> 1);
            }
        }
        None
    };
    let (_kind, size, stored) = (field()?, field()?, field()?);
    Some((size, stored))
}
