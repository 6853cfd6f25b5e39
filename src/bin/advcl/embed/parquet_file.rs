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

use super::Origin;
use super::features_file::FeaturesFile;

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
