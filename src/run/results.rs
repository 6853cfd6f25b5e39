//! Results in a file, each with all that it depends on: figures of several conditions side by side.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::FORMAT;
use crate::error::{Error, Result};
use crate::files;

/// One result and what it depends on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bound<T> {
    /// Everything that the result depends on, as TOML.
    pub depends_on: String,
    /// The result.
    #[serde(flatten)]
    pub value: T,
}

/// All results of one kind of one classifier, oldest first.
///
/// A result is never removed because another was computed: what belongs to a classifier that is no
/// longer there is passed over by those who read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results<T> {
    format: usize,
    results: Vec<Bound<T>>,
}

impl<T> Default for Results<T> {
    fn default() -> Self {
        Self {
            format: FORMAT,
            results: Vec::new(),
        }
    }
}

/// Key of the checksum of everything else in the file; not in files of earlier versions.
const CHECKSUM: &str = "checksum";

/// Checksum of a results file without its own.
fn sum(whole: Map<String, Value>) -> String {
    files::checksum([files::canonical(&Value::Object(whole)).as_bytes()])
}

/// Just the format of a results file: older files have none.
#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    format: Option<usize>,
}

impl<T: Clone + Serialize + DeserializeOwned> Results<T> {
    /// Reads a results file; empty where there is none, and where an earlier version wrote it, whose
    /// figures are computed again.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] with line and column; [`Error::Checksum`] for a file that was damaged.
    pub fn load(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        Self::parse(&files::read_text(path)?, path)
    }

    /// Reads the content of a file as [`Results::load`] does; `path` is for messages.
    ///
    /// # Errors
    /// As [`Results::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        match files::parse_json::<Header>(text, path)?.format {
            None => Ok(Self::default()),
            Some(format) if format <= FORMAT => {
                let mut whole: Map<String, Value> = files::parse_json(text, path)?;
                if let Some(expected) = whole.shift_remove(CHECKSUM) {
                    let (expected, found) = (expected.as_str().unwrap_or("none"), sum(whole));
                    files::require_checksum(expected, &found, path)?;
                }
                files::parse_json(text, path)
            }
            Some(format) => {
                let expected = format!("format {FORMAT} or less");
                Err(Error::format(path, "format", expected, format.to_string()))
            }
        }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn store(&self, path: &Path) -> Result<()> {
        let Ok(Value::Object(whole)) = serde_json::to_value(self) else {
            unreachable!("a struct of plain values")
        };
        let mut summed = Map::from_iter([(CHECKSUM.to_owned(), sum(whole.clone()).into())]);
        summed.extend(whole);
        files::write_json(path, &summed)
    }

    /// The result that depends on exactly this.
    pub fn get(&self, depends_on: &str) -> Option<&T> {
        let same = self.results.iter().find(|one| one.depends_on == depends_on);
        same.map(|one| &one.value)
    }

    /// Adds a result; one that depends on the same is replaced.
    pub fn put(&mut self, depends_on: &str, value: T) {
        self.results.retain(|one| one.depends_on != depends_on);
        self.results.push(Bound {
            depends_on: depends_on.to_owned(),
            value,
        });
    }

    /// All results, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Bound<T>> {
        self.results.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Figure {
        share: f64,
    }

    #[test]
    fn results_of_several_conditions_stand_side_by_side() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("result.json");
        let mut results = Results::load(&path).expect("no file yet");
        results.put("steps = 20", Figure { share: 0.5 });
        results.put("steps = 50", Figure { share: 0.4 });
        results.put("steps = 20", Figure { share: 0.3 });
        results.store(&path).expect("a file");
        let results: Results<Figure> = Results::load(&path).expect("a file");
        assert_eq!(results.get("steps = 20"), Some(&Figure { share: 0.3 }));
        assert_eq!(results.get("steps = 50"), Some(&Figure { share: 0.4 }));
        assert_eq!(results.get("steps = 9"), None);
        assert_eq!(results.iter().count(), 2);
        // A digit that changed is found.
        let text = std::fs::read_to_string(&path).expect("a file");
        std::fs::write(&path, text.replace("0.3", "0.9")).expect("a file");
        let error = Results::<Figure>::load(&path).expect_err("damaged");
        assert!(matches!(error, Error::Checksum { .. }), "{error}");
        // A file of before there were formats holds nothing that can be compared; one of tomorrow is refused.
        std::fs::write(&path, "{\"recipe\": \"steps = 20\", \"share\": 1.0}").expect("a file");
        let old: Results<Figure> = Results::load(&path).expect("an old file");
        assert_eq!(old, Results::default());
        std::fs::write(&path, "{\"format\": 99}").expect("a file");
        let error = Results::<Figure>::load(&path).expect_err("a newer file");
        assert!(
            error.to_string().contains("format 2 or less, found 99"),
            "{error}"
        );
    }
}
