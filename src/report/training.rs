//! Losses and probes of a run's training, read from its `metrics.jsonl`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::files;

/// One epoch in the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoggedEpoch {
    /// Number of the epoch, from 1.
    pub epoch: usize,
    /// Mean losses over the epoch, by name; none where a value was no number.
    pub losses: Vec<(String, Option<f64>)>,
    /// Figures of the model after the epoch, where it was probed.
    #[serde(default)]
    pub figures: Vec<(String, Option<f64>)>,
    /// Learning rate at the last step.
    pub lr: f64,
    /// Images a second.
    pub images_per_second: Option<f64>,
}

/// A stage of training: "advcl", "advcl/slf".
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainingStage {
    /// Its name in the log.
    pub name: String,
    /// The method's table.
    #[serde(skip)]
    pub method: String,
    /// The parts of the name after the method: the mode, or what a method calls its own stages.
    #[serde(skip)]
    pub parts: Vec<String>,
    /// Its epochs, the first one first.
    pub epochs: Vec<LoggedEpoch>,
}

/// A line of the log about an epoch.
#[derive(Deserialize)]
struct EpochEvent {
    stage: String,
    #[serde(flatten)]
    epoch: LoggedEpoch,
}

/// Reads the stages of training in the order in which they began. An epoch that comes again, after an
/// interruption or in a training that was made again, ends what was logged from it on; a line that a
/// crash cut off is skipped. There are no stages where there is no log.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io); [`Error::Format`](crate::Error::Format) for anything but a regular file.
pub fn training(log: &Path) -> Result<Vec<TrainingStage>> {
    if !log.exists() {
        return Ok(Vec::new());
    }
    let bytes = files::read(log)?;
    let mut order: Vec<String> = Vec::new();
    let mut stages: BTreeMap<String, BTreeMap<usize, LoggedEpoch>> = BTreeMap::new();
    for line in String::from_utf8_lossy(&bytes).lines() {
        let Ok(value) = serde_json::from_str::<serde_json::Value>(line) else {
            continue;
        };
        if value["event"] != "epoch" {
            continue;
        }
        let Ok(EpochEvent { stage, epoch }) = serde_json::from_value(value) else {
            continue;
        };
        if !order.contains(&stage) {
            order.push(stage.clone());
        }
        let epochs = stages.entry(stage).or_default();
        drop(epochs.split_off(&epoch.epoch));
        epochs.insert(epoch.epoch, epoch);
    }
    let stage = |name: String| {
        let mut parts = name.split('/').map(str::to_owned);
        TrainingStage {
            method: parts.next().unwrap_or_default(),
            parts: parts.collect(),
            epochs: stages
                .remove(&name)
                .unwrap_or_default()
                .into_values()
                .collect(),
            name,
        }
    };
    Ok(order.into_iter().map(stage).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Event;

    #[test]
    fn logs_are_read_and_repeated_epochs_count_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("metrics.jsonl");
        let epoch = |stage: &str, epoch: usize, loss: f32| {
            let event = Event::Epoch {
                stage: stage.to_owned(),
                epoch,
                epochs: 3,
                losses: vec![("loss".to_owned(), loss)],
                figures: Vec::new(),
                lr: 0.1,
                seconds: 1.0,
                images_per_second: 10.0,
                images: 10,
            };
            serde_json::to_string(&event).expect("plain values")
        };
        let lines = [
            epoch("simclr", 1, 3.0),
            "{\"event\": \"note\"}".to_owned(),
            epoch("simclr", 2, 2.5),
            epoch("advcl", 1, f32::NAN),
            epoch("simclr", 2, 2.0),
            "{\"event\": \"epo".to_owned(),
        ];
        std::fs::write(&path, lines.join("\n")).expect("a file");
        let stages = training(&path).expect("a log");
        let names: Vec<&str> = stages.iter().map(|stage| stage.name.as_str()).collect();
        assert_eq!(names, ["simclr", "advcl"]);
        let losses: Vec<_> = stages[0].epochs.iter().map(|e| e.losses[0].1).collect();
        assert_eq!(losses, [Some(3.0), Some(2.0)]);
        assert_eq!(stages[1].epochs[0].losses, [("loss".to_owned(), None)]);
        assert_eq!(training(&folder.path().join("none")).expect("no log"), []);
        // A training that was made again, and ended sooner.
        let again = [lines.join("\n"), epoch("simclr", 1, 9.0)];
        std::fs::write(&path, again.join("\n")).expect("a file");
        let stages = training(&path).expect("a log");
        let losses: Vec<_> = stages[0].epochs.iter().map(|e| e.losses[0].1).collect();
        assert_eq!(losses, [Some(9.0)]);
        assert_eq!(stages[1].epochs.len(), 1);
    }
}
