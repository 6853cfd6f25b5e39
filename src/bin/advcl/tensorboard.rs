//! Event files for TensorBoard: records in TFRecord framing, each a protocol buffer `Event` with
//! scalars.
//!
//! Written by hand, since only these few fields are needed; the crate for it depends on a second
//! image library.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use advcl::session::Event;
use advcl::{Error, Result};
use crc::{CRC_32_ISCSI, Crc};

const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// Writer of one event file.
pub struct TensorBoard {
    file: BufWriter<File>,
}

impl TensorBoard {
    /// Creates a file in `folder`. TensorBoard shows it as one with the files of earlier
    /// invocations: of a training that was made again what is in this file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let name = format!(
            "events.out.tfevents.{:.6}.{}.advcl",
            now(),
            std::process::id()
        );
        let path = folder.join(name);
        let file = File::create_new(&path).map_err(Error::io("create", &path))?;
        let mut board = Self {
            file: BufWriter::new(file),
        };
        let mut event = Message::default();
        event.double(1, now()).bytes(3, b"brain.Event:2");
        board.record(&event.0).map_err(Error::io("write", &path))?;
        Ok(board)
    }

    /// Appends the scalars of an event, if it has some. Write errors are ignored: a full disk must
    /// not end the run.
    pub fn on_event(&mut self, event: &Event) {
        let _ = match event {
            Event::Step {
                stage,
                epoch,
                step,
                steps,
                loss,
                ..
            } => {
                let count = (epoch - 1) * steps + step;
                self.scalars(stage, count, &[("step_loss", f64::from(*loss))])
            }
            Event::Epoch {
                stage,
                epoch,
                losses,
                figures,
                lr,
                images_per_second,
                ..
            } => {
                let losses = losses.iter().map(|(name, value)| (name.as_str(), *value));
                let named = losses.chain(figures.iter().copied());
                let mut values: Vec<_> = named.map(|(name, v)| (name, f64::from(v))).collect();
                values.extend([("lr", *lr), ("images_per_second", *images_per_second)]);
                // Flushed once an epoch, for those who read along.
                self.scalars(stage, *epoch, &values)
                    .and_then(|()| self.file.flush())
            }
            Event::Figures { stage, figures } => self
                .scalars(stage, 0, figures)
                .and_then(|()| self.file.flush()),
            Event::Progress { .. } | Event::Seed { .. } | Event::Note { .. } => Ok(()),
        };
    }

    fn scalars(&mut self, stage: &str, step: usize, values: &[(&str, f64)]) -> std::io::Result<()> {
        let mut summary = Message::default();
        for (name, value) in values {
            let mut one = Message::default();
            one.bytes(1, format!("{stage}/{name}").as_bytes())
                .float(2, *value as f32);
            summary.bytes(1, &one.0);
        }
        let mut event = Message::default();
        event
            .double(1, now())
            .integer(2, step as u64)
            .bytes(5, &summary.0);
        self.record(&event.0)
    }

    /// Writes a record: length, checksum of the length, content, checksum of the content.
    fn record(&mut self, content: &[u8]) -> std::io::Result<()> {
        let length = (content.len() as u64).to_le_bytes();
        self.file.write_all(&length)?;
        self.file.write_all(&masked(&length))?;
        self.file.write_all(content)?;
        self.file.write_all(&masked(content))
    }
}

/// Masked CRC-32C as TFRecord defines it, which protects checksums of data that contains checksums.
fn masked(bytes: &[u8]) -> [u8; 4] {
    let sum = CRC32C.checksum(bytes);
    sum.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// Current time in seconds since 1970.
fn now() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0.0, |since| since.as_secs_f64())
}

/// Builder of a protocol buffer, field by field.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    fn key(&mut self, field: u64, kind: u64) -> &mut Self {
        self.varint(field << 3 | kind)
    }

    fn integer(&mut self, field: u64, value: u64) -> &mut Self {
        self.key(field, 0).varint(value)
    }

    fn double(&mut self, field: u64, value: f64) -> &mut Self {
        self.key(field, 1).0.extend(value.to_le_bytes());
        self
    }

    fn bytes(&mut self, field: u64, value: &[u8]) -> &mut Self {
        self.key(field, 2)
            .varint(value.len() as u64)
            .0
            .extend(value);
        self
    }

    fn float(&mut self, field: u64, value: f32) -> &mut Self {
        self.key(field, 5).0.extend(value.to_le_bytes());
        self
    }
}
