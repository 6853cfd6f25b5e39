//! Results of a classifier as its folder keeps them: figures of several conditions, put together.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::{Cell, Evaluated, Outcome, state};
use crate::error::{Error, Result};
use crate::evaluate::measures::{Measure, Measures};
use crate::evaluate::soundness::Soundness;
use crate::evaluate::{Attacked, ByClass};
use crate::files;
use crate::recipe::{CLASSIFIER, from_text};
use crate::run::layout::ATTACK_PIECES;
use crate::run::{Layout, ModelInfo, Results};

/// Outcome of an attack suite, with where its adversarial examples are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct KeptSuite {
    /// Counts.
    #[serde(flatten)]
    pub attacked: Attacked,
    /// Tells the file of its examples from those of other suites.
    pub key: String,
    /// Examples that are outside of the ball or of [0, 1].
    pub outside: usize,
    /// Examples.
    pub examples: usize,
}

impl KeptSuite {
    /// Refuses counts that cannot be, of a file that was changed.
    ///
    /// # Errors
    /// [`Error::Format`] naming `path`.
    pub fn require_possible(&self, path: &Path) -> Result<()> {
        let Self {
            attacked,
            outside,
            examples,
            ..
        } = self;
        attacked.require_possible(path)?;
        let broken = attacked.clean - attacked.robust;
        if outside <= examples && *examples <= broken {
            return Ok(());
        }
        let expected = format!("at most {broken}, one for an image that was broken");
        let found = format!("{examples}, {outside} of them outside of the ball");
        Err(Error::format(path, "examples", expected, found))
    }
}

/// One further measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct KeptMeasure {
    /// Which one.
    pub measure: String,
    /// Measures with this one alone.
    #[serde(flatten)]
    pub value: Measures,
}

/// Dependencies of a row's classifier as its file has them; none where there is no classifier.
pub(super) fn classifier_table(layout: &Layout, cell: &Cell) -> Result<Option<Table>> {
    let info = ModelInfo::load(&layout.model(&cell.model_stage()))?;
    Ok(info.map(|info| state::recorded(&info)))
}

/// Everything that was evaluated of the classifier that a row has now, one outcome for each test set,
/// threat model and setting of PGD, oldest first. What belongs to an earlier classifier is left out.
///
/// # Errors
/// [`Error::Io`], [`Error::Format`]; [`Error::Checksum`] for a file that was damaged.
pub fn kept_outcomes(layout: &Layout, cell: &Cell) -> Result<Vec<(String, Outcome)>> {
    let Some(info) = ModelInfo::load(&layout.model(&cell.model_stage()))? else {
        return Ok(Vec::new());
    };
    let classifier = state::recorded(&info);
    let stage = cell.stage();
    let pgd: Results<Outcome> = Results::load(&layout.results(&stage))?;
    let suites: Results<KeptSuite> = Results::load(&layout.attacks(&stage))?;
    let soundness: Results<Soundness> = Results::load(&layout.soundness(&stage))?;
    let measures: Results<KeptMeasure> = Results::load(&layout.measures(&stage))?;
    let mut outcomes = Vec::new();
    let (result_file, attack_file) = (layout.results(&stage), layout.attacks(&stage));
    pgd.iter()
        .try_for_each(|kept| kept.value.require_possible(&result_file))?;
    suites
        .iter()
        .try_for_each(|kept| kept.value.require_possible(&attack_file))?;
    for kept in pgd.iter() {
        let Some(conditions) = of_classifier(&kept.depends_on, &classifier) else {
            continue;
        };
        let same = |depends_on: &str| {
            of_classifier(depends_on, &classifier)
                .is_some_and(|other| are_compatible(&conditions, &other))
        };
        kept.value
            .require_classes(info.classes.len(), &result_file)?;
        let mut outcome = kept.value.clone();
        outcome.classes.clone_from(&info.classes);
        outcome.by_class = ByClass::new(&outcome.accuracy.classes, &info.classes);
        let suites: Vec<KeptSuite> = suites
            .iter()
            .filter(|suite| same(&suite.depends_on))
            .map(|suite| suite.value.clone())
            .collect();
        outcome.soundness = soundness.get(&kept.depends_on).cloned();
        if let Some(soundness) = &mut outcome.soundness {
            for suite in &suites {
                let attacked = suite.attacked.clone().with_pgd(&outcome.accuracy);
                soundness.include_attack_results(&attacked);
                soundness.include_examples(suite.outside, suite.examples);
            }
        }
        let attacked = suites.into_iter().map(|suite| suite.attacked);
        let mut attacked: Vec<Attacked> = attacked
            .map(|attacked| attacked.with_pgd(&outcome.accuracy))
            .collect();
        outcome.attacked = attacked.pop();
        outcome.other_attacks = attacked;
        for measure in measures.iter().filter(|measure| same(&measure.depends_on)) {
            let all = outcome.measures.get_or_insert_default();
            all.images = measure.value.value.images;
            if let Some(which) = Measure::by_name(&measure.value.measure) {
                all.take(which, &measure.value.value);
            }
        }
        outcomes.push((kept.depends_on.clone(), outcome));
    }
    Ok(outcomes)
}

/// Tells a suite's files from those of others: its name and a hash of what it depends on.
pub(super) fn suite_key(name: &str, text: &str) -> String {
    let hash = files::hash(text.as_bytes());
    format!("{name}-{}", hash.trim_start_matches("fnv1a-"))
}

/// Removes the batches of attack suites whose outcome is kept, which a process left that was killed between the two. Links are
/// left alone, and so is every folder that has another name than such batches get: a file may give any text as a suite's key.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn remove_finished_pieces(layout: &Layout) -> Result<()> {
    for method in folders(layout.root())? {
        for mode in folders(&method)? {
            let name = |path: &Path| path.file_name().unwrap_or_default().to_owned();
            let stage = Path::new(&name(&method)).join(name(&mode));
            let (Some(stage), all) = (stage.to_str(), mode.join(ATTACK_PIECES)) else {
                continue;
            };
            // Of the folder itself: what a link leads to may be the user's own.
            if !fs::symlink_metadata(&all).is_ok_and(|about| about.is_dir()) {
                continue;
            }
            // A file that cannot be read is named by the command that needs it.
            let Ok(suites) = Results::<KeptSuite>::load(&layout.attacks(stage)) else {
                continue;
            };
            let finished: Vec<String> = suites
                .iter()
                .map(|suite| suite_key(&suite.value.attacked.suite, &suite.depends_on))
                .collect();
            for pieces in folders(&all)? {
                if finished.iter().any(|key| **key == *name(&pieces)) {
                    fs::remove_dir_all(&pieces).map_err(Error::io("remove", &pieces))?;
                }
            }
            // Other suites may be unfinished: their pieces stay.
            let _ = fs::remove_dir(&all);
        }
    }
    Ok(())
}

/// Folders in a folder, without links to others.
fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let entry = entry.map_err(Error::io("read", folder))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Conditions of a result: its dependencies without its classifier's, where those are `classifier`'s.
pub(super) fn of_classifier(depends_on: &str, classifier: &Table) -> Option<Table> {
    let mut conditions = from_text(depends_on)?;
    match conditions.remove(CLASSIFIER) {
        Some(Value::Table(table)) if table == *classifier => Some(conditions),
        _ => None,
    }
}

/// Whether two results are of the same images, threat model and other conditions, as far as both depend on
/// them.
fn are_compatible(a: &Table, b: &Table) -> bool {
    a.iter().all(|(key, value)| match (value, b.get(key)) {
        (_, None) => true,
        (Value::Table(a), Some(Value::Table(b))) => are_compatible(a, b),
        (a, Some(b)) => a == b,
    })
}

impl Evaluated {
    /// Conditions of an outcome, for people and programs.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A suite of which one image was broken.
    fn suite() -> KeptSuite {
        let attacked = json!({
            "suite": "square", "images": 4, "clean": 3, "robust": 2,
            "attacks": [{"attack": "square", "images": 3, "broken": 1, "seconds": 1.0}],
            "key": "precious", "outside": 0, "examples": 1,
        });
        serde_json::from_value(attacked).expect("a suite")
    }

    #[test]
    fn more_examples_than_broken_images_are_refused() {
        let path = Path::new("attack.json");
        suite().require_possible(path).expect("its own counts");
        for (outside, examples) in [(0, 2), (2, 1)] {
            let changed = KeptSuite {
                outside,
                examples,
                ..suite()
            };
            let error = changed.require_possible(path).expect_err("too many");
            let words = "examples: expected at most 1, one for an image that was broken";
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn batches_of_a_kept_suite_are_removed_and_no_folder_that_a_key_or_a_link_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let (run, home) = (folder.path().join("run"), folder.path().join("home"));
        let layout = Layout::new(&run);
        let text = "seed = 3\n";
        let put = |folder: &Path| {
            fs::create_dir_all(folder).expect("a folder");
            fs::write(folder.join("file"), "x").expect("a file");
        };
        let key = suite_key("square", text);
        let unfinished = suite_key("square", "seed = 4\n");
        put(&layout.attack_pieces("advcl/slf", &key));
        for kept in ["precious", &unfinished] {
            put(&layout.attack_pieces("advcl/slf", kept));
        }
        for kept in ["precious", &key] {
            put(&home.join(kept));
        }
        fs::create_dir(run.join("advcl/alf")).expect("a folder");
        #[cfg(unix)]
        std::os::unix::fs::symlink(&home, run.join("advcl/alf/attack")).expect("a link");
        for stage in ["advcl/slf", "advcl/alf"] {
            let mut results = Results::default();
            results.put(text, suite());
            results.store(&layout.attacks(stage)).expect("a file");
        }
        remove_finished_pieces(&layout).expect("readable folders");
        assert!(!layout.attack_pieces("advcl/slf", &key).exists());
        for kept in ["precious", &unfinished] {
            let file = layout.attack_pieces("advcl/slf", kept).join("file");
            assert!(file.exists(), "{kept}");
        }
        for kept in ["precious", &key] {
            assert!(home.join(kept).join("file").exists(), "{kept}");
        }
    }
}
