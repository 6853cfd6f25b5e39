//! Predictions of a classifier, image by image.

use std::path::PathBuf;

use advcl::evaluate::probabilities;
use advcl::logits::Predicted;
use serde::Serialize;

use crate::format::{Table, in_csv, percent};

/// The prediction for one image.
#[derive(Serialize)]
pub struct Prediction {
    #[serde(serialize_with = "advcl::files::as_text")]
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
pub fn predictions(predictions: &[Prediction]) -> String {
    let cell = |r: &Ranked| with_probability(&r.class, r.probability);
    let mut table = Table::new().left("").left("");
    for prediction in predictions {
        let classes: Vec<String> = prediction.classes.iter().map(cell).collect();
        table.row([prediction.image.display().to_string(), classes.join(", ")]);
    }
    table.text()
}

/// Heads of the predictions as comma-separated values: a line for each class of an image.
pub fn prediction_heads() -> &'static str {
    "image,rank,class,probability,logit\n"
}

impl Prediction {
    /// The prediction as comma-separated values (RFC 4180).
    pub fn csv(&self) -> String {
        let image = in_csv(&self.image.to_string_lossy());
        let line = |(rank, ranked): (usize, &Ranked)| {
            let (
                class,
                Ranked {
                    probability, logit, ..
                },
            ) = (in_csv(&ranked.class), ranked);
            format!("{image},{},{class},{probability},{logit}\n", rank + 1)
        };
        self.classes.iter().enumerate().map(line).collect()
    }
}

/// A class with its probability: "cat 93.1 %".
pub fn predicted(found: Predicted, names: &[String]) -> String {
    with_probability(&names[found.class], found.probability)
}

/// As [`predicted`], by the class's name.
pub fn with_probability(class: &str, probability: f32) -> String {
    format!("{class} {}", percent(f64::from(probability)))
}
