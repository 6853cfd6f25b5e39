//! The training curves of a run, from its `metrics.jsonl`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// One epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Counted from 1.
    pub epoch: usize,
    /// By name, means over the epoch; none where the value was no number.
    pub losses: Vec<(String, Option<f64>)>,
    /// Of the model after it, where it was probed.
    #[serde(default)]
    pub figures: Vec<(String, Option<f64>)>,
    /// At its last step.
    pub lr: f64,
    /// Rate.
    pub images_per_second: Option<f64>,
}

/// A stage of the run: "advcl", "advcl/slf".
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stage {
    /// Its name in the log.
    pub name: String,
    /// By rising epoch.
    pub epochs: Vec<Epoch>,
}

/// A line of the log that is about an epoch.
#[derive(Deserialize)]
struct Line {
    stage: String,
    #[serde(flatten)]
    epoch: Epoch,
}

/// The stages of training in the order in which they began. An epoch that was repeated after a stop counts once, as it was
/// the last time; a line that is cut off, as a crash leaves it, is passed over. Nothing where there is no log.
///
/// # Errors
/// [`Error::Io`].
pub fn training(log: &Path) -> Result<Vec<Stage>> {
    if !log.exists() {
        return Ok(Vec::new());
    }
    let bytes = std::fs::read(log).map_err(Error::io("read", log))?;
    let mut order: Vec<String> = Vec::new();
    let mut stages: BTreeMap<String, BTreeMap<usize, Epoch>> = BTreeMap::new();
    for line in String::from_utf8_lossy(&bytes).lines() {
        let Ok(value) = serde_json::from_str::<serde_json::Value>(line) else {
            continue;
        };
        if value["event"] != "epoch" {
            continue;
        }
        let Ok(Line { stage, epoch }) = serde_json::from_value(value) else {
            continue;
        };
        if !order.contains(&stage) {
            order.push(stage.clone());
        }
        stages.entry(stage).or_default().insert(epoch.epoch, epoch);
    }
    let stage = |name: String| Stage {
        epochs: stages
            .remove(&name)
            .unwrap_or_default()
            .into_values()
            .collect(),
        name,
    };
    Ok(order.into_iter().map(stage).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Event;

    #[test]
    fn a_log_is_read_as_it_was_written_and_repeated_epochs_count_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("metrics.jsonl");
        let epoch = |stage: &str, epoch: usize, loss: f32| {
            let event = Event::Epoch {
                stage: stage.to_owned(),
                epoch,
                epochs: 3,
                losses: vec![("loss", loss)],
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
    }
}
