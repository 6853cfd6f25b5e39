//! Predictions of a classifier, image by image.

use std::path::PathBuf;

use advcl::evaluate::probabilities;
use serde::Serialize;

use crate::format::{Table, percent};

/// The prediction for one image.
#[derive(Serialize)]
pub struct Prediction {
    pub image: PathBuf,
    /// Most probable first.
    pub classes: Vec<Ranked>,
}

/// A class, its logit and its probability.
#[derive(Serialize)]
pub struct Ranked {
    pub class: String,
    pub logit: f32,
    pub probability: f32,
}

/// Ranks the classes by probability, from one image's logits.
pub fn ranked(logits: &[f32], names: &[String]) -> Vec<Ranked> {
    let ranked = |(class, (&logit, probability)): (&String, (&f32, f32))| Ranked {
        class: class.clone(),
        logit,
        probability,
    };
    let both = logits.iter().zip(probabilities(logits));
    let mut classes: Vec<Ranked> = names.iter().zip(both).map(ranked).collect();
    classes.sort_by(|a, b| b.logit.total_cmp(&a.logit));
    classes
}

/// A line for each image: its file and its most probable classes.
pub fn predictions(predictions: &[Prediction], shown: usize) -> String {
    let cell = |r: &Ranked| format!("{} {}", r.class, percent(f64::from(r.probability)));
    let mut table = Table::new().left("").left("");
    for prediction in predictions {
        let classes: Vec<String> = prediction.classes.iter().take(shown).map(cell).collect();
        table.row([prediction.image.display().to_string(), classes.join(", ")]);
    }
    table.text()
}
