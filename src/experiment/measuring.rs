//! Further measures of classifiers, kept part by part.

use toml::Table;

use super::evaluation::Subject as Evaluand;
use super::kept::{KeptMeasure, classifier_table};
use super::{Cell, Experiment};
use crate::error::{Error, Result};
use crate::evaluate::measures::{
    MEASURES, Measure, MeasuredClassifier, Measures, Predictions, REFERENCES, Transfer, transfer,
};
use crate::finetune::features;
use crate::nn::Classifier;
use crate::probe::Known;
use crate::recipe::{Artifact, CLASSIFIER, to_text};
use crate::run::Results;
use crate::session::Context;

/// Images that are measured unless the recipe says otherwise.
const LIMIT: usize = 500;

impl Experiment {
    fn measure_text(&self, subject: &Evaluand, measure: Measure) -> Result<String> {
        let upstream = [(CLASSIFIER, subject.table().clone())];
        let mut table = self.dependencies(Artifact::Measure(measure.keys()), &upstream)?;
        table.insert("measure".to_owned(), measure.name().into());
        Ok(to_text(&table))
    }

    /// Places of the images that are measured.
    fn measured_images(&self) -> Vec<usize> {
        let (judged, classes) = (&self.data.judged, self.data.target().classes.len());
        let limit = self.recipe.evaluate.measure_limit.unwrap_or(LIMIT);
        judged.limited(classes, limit.min(judged.images.len()), self.recipe.seed)
    }

    fn measured<'a>(
        &'a self,
        subject: &'a Evaluand,
        model: &Classifier,
        among: &'a [usize],
    ) -> MeasuredClassifier<'a> {
        let (images, size) = ((&*subject.split, among), self.recipe.evaluate.batch_size);
        MeasuredClassifier::new(subject.cell.stage(), model, images, self.attacker(), size)
    }

    /// Measures a row. Every part is kept as soon as it is done.
    fn measure_row(&self, cell: &Cell, wanted: &[Measure], context: &mut Context) -> Result<()> {
        let evaluand = self.subject(cell)?;
        let path = self.layout().measures(&cell.stage());
        let mut results: Results<KeptMeasure> = Results::load(&path)?;
        let (mut missing, mut moved) = (Vec::new(), false);
        for &measure in wanted.iter().filter(|one| **one != Measure::Transfer) {
            let text = self.measure_text(&evaluand, measure)?;
            let Some(kept) = results.get(&text).cloned() else {
                missing.push((measure, text));
                continue;
            };
            // Of several settings the newest is shown: that is to be the one that is asked for.
            let alike = results
                .iter()
                .filter(|one| one.value.measure == measure.name());
            if alike.last().is_some_and(|newest| newest.depends_on != text) {
                results.put(&text, kept);
                moved = true;
            }
        }
        if moved {
            results.store(&path)?;
        }
        if missing.is_empty() {
            return Ok(());
        }
        let classifier = self.load_classifier(&evaluand, context)?;
        let among = self.measured_images();
        let subject = self.measured(&evaluand, &classifier, &among);
        let mut predictions = None;
        for (measure, text) in missing {
            let mut value = Measures {
                images: among.len(),
                ..Measures::default()
            };
            let parts = (&mut value, &mut predictions);
            let of = (&classifier, evaluand.info.classes.as_slice());
            self.part(measure, &subject, of, parts, context)?;
            let measure = measure.name().to_owned();
            results.put(&text, KeptMeasure { measure, value });
            self.run.stage(&cell.stage())?;
            results.store(&path)?;
        }
        Ok(())
    }

    /// Computes one measure of a classifier with the names of its classes. Several need the same predictions, which are computed
    /// on first use and shared.
    fn part(
        &self,
        measure: Measure,
        subject: &MeasuredClassifier,
        (classifier, classes): (&Classifier, &[String]),
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
            Measure::Patch => {
                all.patch = Some(subject.patch(&self.recipe.evaluate.patch, context)?);
            }
            Measure::Smoothing => {
                let settings = &self.recipe.evaluate.smoothing;
                all.smoothing = Some(subject.smoothing(settings, context)?);
            }
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
                let limit = REFERENCES.min(target.train.images.len());
                let seed = self.recipe.seed;
                let known = target.train.limit(target.classes.len(), limit, seed);
                // As the images that are classified, whose classes it has.
                let known = known.labeled_by(&target.classes, classes);
                let known = known.expect("classes of the classifier");
                let (encoder, route) = (&classifier.encoder, classifier.route);
                let (stage, batch) = (&subject.name, subject.batch_size);
                let seen = features(stage, encoder, route, &known.images, batch, context)?;
                let known = Known::new(seen, &known.labels, classes.len());
                let neighbours = Predictions::compare_neighbours(&clean, &attacked, &known);
                all.neighbours = Some(neighbours);
            }
            Measure::Transfer => {} // Of several rows.
        }
        Ok(())
    }

    /// Everything that the transfer between some rows depends on.
    fn transfer_text(&self, cells: &[Cell]) -> Result<Option<String>> {
        let mut upstream = Vec::new();
        for cell in cells {
            match classifier_table(self.layout(), cell)? {
                Some(table) => upstream.push((cell.stage(), table)),
                None => return Ok(None),
            }
        }
        let upstream: Vec<(&str, Table)> = upstream
            .iter()
            .map(|(stage, table)| (stage.as_str(), table.clone()))
            .collect();
        let keys = Measure::Transfer.keys();
        let table = self.dependencies(Artifact::Measure(keys), &upstream)?;
        Ok(Some(to_text(&table)))
    }

    /// Transfer between rows of the recipe that was measured, where it is whole and still holds.
    pub(super) fn kept_transfer(&self) -> Result<Option<Transfer>> {
        let results: Results<Transfer> = Results::load(&self.layout().transfer())?;
        let cells = self.cells(None, None)?;
        let mut found = None;
        for kept in results.iter() {
            let named = |cell: &&Cell| kept.value.classifiers.contains(&cell.stage());
            let of: Vec<Cell> = cells.iter().filter(named).cloned().collect();
            let whole = kept.value.accuracy.len() == kept.value.classifiers.len();
            if whole && self.transfer_text(&of)?.as_ref() == Some(&kept.depends_on) {
                found = Some(kept.value.clone());
            }
        }
        Ok(found)
    }

    /// Measures how far adversarial examples of each of some rows fool the others. Every row's is kept as soon
    /// as it is done.
    fn measure_transfer(&self, cells: &[Cell], context: &mut Context) -> Result<()> {
        if cells.len() < 2 {
            return Err(self.one_row());
        }
        let evaluands: Vec<Evaluand> = cells
            .iter()
            .map(|cell| self.subject(cell))
            .collect::<Result<_>>()?;
        let text = self.transfer_text(cells)?.expect("all have classifiers");
        let path = self.layout().transfer();
        let mut results: Results<Transfer> = Results::load(&path)?;
        let mut found = results.get(&text).cloned().unwrap_or_else(|| Transfer {
            classifiers: cells.iter().map(Cell::stage).collect(),
            ..Transfer::default()
        });
        if found.accuracy.len() == cells.len() {
            return Ok(());
        }
        let among = self.measured_images();
        found.images = among.len();
        let subject = |evaluand| {
            let classifier = self.load_classifier(evaluand, context)?;
            Ok(self.measured(evaluand, &classifier, &among))
        };
        let subjects: Vec<MeasuredClassifier> =
            evaluands.iter().map(subject).collect::<Result<_>>()?;
        if found.clean.is_empty() {
            found.set_clean(&transfer(None, &subjects, context)?);
        }
        for source in &subjects[found.accuracy.len()..] {
            let row = transfer(Some(source), &subjects, context)?;
            found.push(&row);
            results.put(&text, found.clone());
            results.store(&path)?;
        }
        Ok(())
    }

    /// Measures rows, and transfer between them. Where there is one row and all is asked for, all but
    /// transfer.
    ///
    /// # Errors
    /// [`Error::Run`] when there is no classifier yet, and for transfer of one row alone;
    /// [`Error::Interrupted`]; [`Error::Logits`].
    pub fn measure(&self, cells: &[Cell], wanted: &[Measure], context: &mut Context) -> Result<()> {
        let mut transfer = wanted.contains(&Measure::Transfer);
        if cells.len() == 1 && transfer {
            if wanted.len() < MEASURES.len() {
                return Err(self.one_row());
            }
            transfer = false;
            context.note(cells[0].stage(), "no transfer: it takes two rows");
        }
        self.data.target().require_labels()?;
        self.enter(context, |context| {
            let measured = self.each_row(cells, context, |cell, context| {
                self.evaluate_row(cell, context)?;
                self.measure_row(cell, wanted, context)?;
                Ok(cell.clone())
            })?;
            if transfer && measured.len() > 1 {
                self.measure_transfer(&measured, context)?;
            }
            Ok(())
        })
    }

    fn one_row(&self) -> Error {
        let problem = "transfer is between classifiers, and this is one row";
        let hint = "leave out --method and --mode where the run has more rows";
        Error::run(self.run.path(), problem, hint)
    }
}
