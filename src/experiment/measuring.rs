//! What else is measured of classifiers: kept part by part, and not measured again while what it depends on stays.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Cell, Experiment};
use crate::error::{Error, Result};
use crate::evaluate::measures::{
    MEASURES, Measure, MeasuredClassifier, Measures, Predictions, REFERENCES, Transfer, transfer,
};
use crate::files;
use crate::finetune::features;
use crate::nn::Classifier;
use crate::probe::Known;
use crate::recipe::Part;
use crate::session::{Context, Event};

const FILE: &str = "measures.json";
const TRANSFER: &str = "transfer.json";
/// Images that are measured unless the recipe says otherwise.
const LIMIT: usize = 500;

/// `measures.json`.
#[derive(Default, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    measures: Measures,
    /// By measure, all that it depends on, as TOML.
    recipes: BTreeMap<String, String>,
}

/// `transfer.json`. Unfinished, it has fewer rows than columns.
#[derive(Serialize, Deserialize)]
struct TransferRecord {
    #[serde(flatten)]
    transfer: Transfer,
    /// By classifier, all that it depends on, as TOML.
    recipes: BTreeMap<String, String>,
}

impl Experiment {
    fn measure_text(&self, cell: &Cell, measure: Measure) -> String {
        let mode = cell.mode.as_deref();
        self.text_of(Part::Measure(&cell.method, mode, measure.keys()))
    }

    /// What is kept of a row and still holds.
    fn record(&self, cell: &Cell) -> Result<Record> {
        let path = self.file_of(cell, FILE);
        if !path.exists() {
            return Ok(Record::default());
        }
        let mut record: Record = files::read_json(&path)?;
        for (name, measure) in MEASURES {
            if record.recipes.get(name) != Some(&self.measure_text(cell, measure)) {
                record.recipes.remove(name);
                record.measures.clear(measure);
            }
        }
        Ok(record)
    }

    /// What was measured of a row, as far as it holds for this recipe.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`].
    pub fn measures(&self, cell: &Cell) -> Result<Option<Measures>> {
        let record = self.record(cell)?;
        Ok((!record.recipes.is_empty()).then_some(record.measures))
    }

    /// Which of the judged images are measured.
    fn measured_images(&self) -> Vec<usize> {
        let (judged, classes) = (&self.data.judged, self.data.target().classes.len());
        let limit = self.recipe.evaluate.measure_limit.unwrap_or(LIMIT);
        judged.limited(classes, limit.min(judged.images.len()), self.recipe.seed)
    }

    fn subject<'a>(
        &'a self,
        cell: &Cell,
        model: &Classifier,
        among: &'a [usize],
    ) -> MeasuredClassifier<'a> {
        let (images, size) = ((&self.data.judged, among), self.recipe.evaluate.batch_size);
        MeasuredClassifier::new(cell.stage(), model, images, self.attacker(), size)
    }

    /// Measures a row. Every part is kept as soon as it is done.
    ///
    /// # Errors
    /// [`Error::Run`] when there is no classifier yet; [`Error::Interrupted`]; [`Error::Logits`].
    pub fn measure(&self, cell: &Cell, wanted: &[Measure], context: &mut Context) -> Result<()> {
        let mut record = self.record(cell)?;
        let missing = |measure: &Measure| {
            *measure != Measure::Transfer && !record.recipes.contains_key(measure.name())
        };
        let wanted: Vec<Measure> = wanted.iter().copied().filter(missing).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let classifier = self.require_classifier(cell, context)?;
        let among = self.measured_images();
        let subject = self.subject(cell, &classifier, &among);
        let mut predictions = None;
        for measure in wanted {
            let (all, predictions) = (&mut record.measures, &mut predictions);
            all.images = among.len();
            let done = self.part(measure, &subject, &classifier, (all, predictions), context);
            done.map_err(|error| self.here(error))?;
            let text = self.measure_text(cell, measure);
            record.recipes.insert(measure.name().to_owned(), text);
            self.run.stage(&cell.stage())?;
            files::write_json(&self.file_of(cell, FILE), &record)?;
        }
        Ok(())
    }

    /// Computes one measure. Several need the same predictions, which are computed on first use and shared.
    fn part(
        &self,
        measure: Measure,
        subject: &MeasuredClassifier,
        classifier: &Classifier,
        (all, predictions): (&mut Measures, &mut Option<[Predictions; 2]>),
        context: &mut Context,
    ) -> Result<()> {
        let mut both = |context: &mut Context| -> Result<[Predictions; 2]> {
            if predictions.is_none() {
                let clean = subject.predictions(false, context)?;
                *predictions = Some([clean, subject.predictions(true, context)?]);
            }
            Ok(predictions.clone().expect("just computed"))
        };
        match measure {
            Measure::Radius => all.radius = subject.radius(context)?,
            Measure::Steps => all.steps = subject.steps(context)?,
            Measure::Corruptions => all.corruptions = subject.corruptions(context)?,
            Measure::Confusion => {
                let [clean, attacked] = both(context)?;
                all.set_confusion(clean.confusion(), attacked.confusion());
            }
            Measure::Calibration => {
                let [clean, attacked] = both(context)?;
                all.calibration = Some(clean.calibration());
                all.calibration_attacked = Some(attacked.calibration());
            }
            Measure::Features => {
                let [clean, attacked] = both(context)?;
                let target = self.data.target();
                let classes = target.classes.len();
                let limit = REFERENCES.min(target.train.images.len());
                let known = target.train.limit(classes, limit, self.recipe.seed);
                let (encoder, route) = (&classifier.encoder, classifier.route);
                let (stage, batch) = (&subject.name, subject.batch_size);
                let seen = features(stage, encoder, route, &known.images, batch, context)?;
                let known = Known::new(seen, &known.labels, classes);
                let neighbours = Predictions::compare_neighbours(&clean, &attacked, &known);
                all.neighbours = Some(neighbours);
            }
            Measure::Transfer => {} // Of several rows.
        }
        Ok(())
    }

    /// What `transfer.json` has and still holds, whole or not.
    fn transfer_record(&self) -> Result<Option<TransferRecord>> {
        let path = self.run.path().join(TRANSFER);
        if !path.exists() {
            return Ok(None);
        }
        let record: TransferRecord = files::read_json(&path)?;
        let mut cells = self.cells(None, None)?;
        cells.retain(|cell| record.transfer.classifiers.contains(&cell.stage()));
        let holds = self.transfer_texts(&cells) == record.recipes;
        Ok(holds.then_some(record))
    }

    fn transfer_texts(&self, cells: &[Cell]) -> BTreeMap<String, String> {
        let text = |cell: &Cell| (cell.stage(), self.measure_text(cell, Measure::Transfer));
        cells.iter().map(text).collect()
    }

    /// The transfer of adversarial examples that was measured, where it is whole and still holds.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`].
    pub fn transferred(&self) -> Result<Option<Transfer>> {
        let record = self.transfer_record()?.map(|record| record.transfer);
        Ok(record.filter(|found| found.accuracy.len() == found.classifiers.len()))
    }

    /// Measures how far adversarial examples of each of some rows fool the others. Every row's is kept as soon as it is done.
    ///
    /// # Errors
    /// [`Error::Run`] for fewer than two rows, or when one has no classifier yet; as [`Experiment::measure`].
    pub fn transfer(&self, cells: &[Cell], context: &mut Context) -> Result<()> {
        if cells.len() < 2 {
            return Err(self.one_row());
        }
        self.require_labels()?;
        let names: Vec<String> = cells.iter().map(Cell::stage).collect();
        let kept = self.transfer_record()?;
        let kept = kept.filter(|record| record.transfer.classifiers == names);
        let mut record = kept.unwrap_or_else(|| TransferRecord {
            transfer: Transfer {
                classifiers: names,
                ..Transfer::default()
            },
            recipes: self.transfer_texts(cells),
        });
        let found = &mut record.transfer;
        if found.accuracy.len() == cells.len() {
            return Ok(());
        }
        let among = self.measured_images();
        found.images = among.len();
        let subject = |cell: &Cell| {
            let classifier = self.require_classifier(cell, context)?;
            Ok(self.subject(cell, &classifier, &among))
        };
        let subjects: Vec<MeasuredClassifier> = cells.iter().map(subject).collect::<Result<_>>()?;
        let here = |error| self.here(error);
        if found.clean.is_empty() {
            found.set_clean(&transfer(None, &subjects, context).map_err(here)?);
        }
        for source in &subjects[record.transfer.accuracy.len()..] {
            let row = transfer(Some(source), &subjects, context).map_err(here)?;
            record.transfer.push(&row);
            files::write_json(&self.run.path().join(TRANSFER), &record)?;
        }
        Ok(())
    }

    /// Measures rows, and what is between them. Where there is one row and all is asked for, all but transfer.
    ///
    /// # Errors
    /// As [`Experiment::measure`] and [`Experiment::transfer`].
    pub fn measure_all(
        &self,
        cells: &[Cell],
        wanted: &[Measure],
        context: &mut Context,
    ) -> Result<()> {
        let mut transfer = wanted.contains(&Measure::Transfer);
        if let ([cell], true) = (cells, transfer) {
            if wanted.len() < MEASURES.len() {
                return Err(self.one_row());
            }
            transfer = false;
            (context.observe)(&Event::Note {
                stage: cell.stage(),
                text: "no transfer: it takes two rows".to_owned(),
            });
        }
        for cell in cells {
            self.evaluate(cell, context)?;
            self.measure(cell, wanted, context)?;
        }
        match transfer {
            true => self.transfer(cells, context),
            false => Ok(()),
        }
    }

    fn one_row(&self) -> Error {
        let problem = "transfer is between classifiers, and this is one row";
        let hint = "leave out --method and --mode where the run has more rows";
        Error::run(self.run.path(), problem, hint)
    }
}
