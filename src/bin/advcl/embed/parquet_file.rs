//! Features as a Parquet file: a row for each image, with a list of numbers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use advcl::files::Output;
use advcl::{Error, Result as AdvclResult};
use anyhow::Result;
use parquet::data_type::{ByteArray, ByteArrayType, FloatType};
use parquet::errors::ParquetError;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::{FeaturesFile, Origin};

const SCHEMA: &str = "message images {
    required binary path (UTF8);
    required binary split (UTF8);
    required binary label (UTF8);
    required group features (LIST) { repeated group list { required float element; } }
}";
/// Images of a row group.
const ROWS: usize = 4096;

/// A file that is being written.
pub struct Writer {
    writer: SerializedFileWriter<Output>,
    path: PathBuf,
    origins: Vec<Origin>,
    features: Vec<f32>,
}

impl Writer {
    pub fn create(path: &Path) -> AdvclResult<Self> {
        let schema = Arc::new(parse_message_type(SCHEMA).expect("a schema"));
        let output = Output::create(path)?;
        let writer = SerializedFileWriter::new(output, schema, Default::default());
        Ok(Self {
            writer: writer.map_err(|error| failed(path, error))?,
            path: path.to_path_buf(),
            origins: Vec::new(),
            features: Vec::new(),
        })
    }

    fn write_group(&mut self) -> std::result::Result<(), ParquetError> {
        let (origins, features) = (
            std::mem::take(&mut self.origins),
            std::mem::take(&mut self.features),
        );
        let mut group = self.writer.next_row_group()?;
        let texts: [fn(&Origin) -> &str; 3] = [|o| &o.path, |o| &o.split, |o| &o.label];
        for text in texts {
            let values: Vec<ByteArray> = origins
                .iter()
                .map(|origin| ByteArray::from(text(origin)))
                .collect();
            let mut column = group.next_column()?.expect("a column of the schema");
            column
                .typed::<ByteArrayType>()
                .write_batch(&values, None, None)?;
            column.close()?;
        }
        let length = features.len() / origins.len();
        let definitions = vec![1; features.len()];
        // A list begins where the level is 0.
        let repetitions: Vec<i16> = (0..features.len())
            .map(|i| i16::from(i % length > 0))
            .collect();
        let mut column = group.next_column()?.expect("a column of the schema");
        column.typed::<FloatType>().write_batch(
            &features,
            Some(&definitions),
            Some(&repetitions),
        )?;
        column.close()?;
        group.close().map(drop)
    }
}

impl FeaturesFile for Writer {
    fn add(&mut self, origins: &[Origin], features: &[f32]) -> Result<()> {
        self.origins.extend_from_slice(origins);
        self.features.extend_from_slice(features);
        if self.origins.len() >= ROWS {
            self.write_group()
                .map_err(|error| failed(&self.path, error))?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        let written = match self.origins.is_empty() {
            true => Ok(()),
            false => self.write_group(),
        };
        let Self { writer, path, .. } = *self;
        let whole = written.and_then(|()| writer.into_inner());
        Ok(whole.map_err(|error| failed(&path, error))?.finish()?)
    }
}

fn failed(path: &Path, error: ParquetError) -> Error {
    Error::io("write", path)(std::io::Error::other(error))
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::{Field, RowAccessor};

    use super::*;

    #[test]
    fn rows_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("features.parquet");
        let origin = |number: usize| Origin {
            path: format!("{number}.png"),
            split: "train".to_owned(),
            label: if number.is_multiple_of(2) { "é" } else { "" }.to_owned(),
        };
        let features = |number: usize| [number as f32, -0.5, f32::MIN_POSITIVE];
        let count = ROWS + 1500;
        let mut writer = Writer::create(&path).expect("a file");
        let numbers: Vec<usize> = (0..count).collect();
        for some in numbers.chunks(1000) {
            let origins: Vec<Origin> = some.iter().map(|number| origin(*number)).collect();
            let values: Vec<f32> = some.iter().flat_map(|number| features(*number)).collect();
            writer.add(&origins, &values).expect("room on the disk");
        }
        Box::new(writer).finish().expect("room on the disk");

        let file = std::fs::File::open(&path).expect("just written");
        let reader = SerializedFileReader::new(file).expect("a Parquet file");
        assert_eq!(reader.metadata().num_row_groups(), 2);
        let rows = reader.get_row_iter(None).expect("rows");
        let mut found = 0;
        for (number, row) in rows.enumerate() {
            let (row, expected) = (row.expect("a row"), origin(number));
            let texts = [0, 1, 2].map(|column| row.get_string(column).expect("a text").as_str());
            assert_eq!(texts, [&expected.path, &expected.split, &expected.label]);
            let list = row.get_list(3).expect("a list");
            assert_eq!(list.elements(), features(number).map(Field::Float));
            found += 1;
        }
        assert_eq!(found, count);
    }

    #[test]
    fn no_images_are_a_file_without_rows() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("features.parquet");
        let writer = Writer::create(&path).expect("a file");
        Box::new(writer).finish().expect("room on the disk");
        let file = std::fs::File::open(&path).expect("just written");
        let reader = SerializedFileReader::new(file).expect("a Parquet file");
        assert_eq!(reader.metadata().file_metadata().num_rows(), 0);
    }
}
