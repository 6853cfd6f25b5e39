//! The content of a data set.

use std::path::{Path, PathBuf};

use advcl::data::{Dataset, Split};
use serde::Serialize;

use super::pairs;
use crate::format::Table;

/// The content of a data set.
#[derive(Serialize)]
pub struct DataSummary {
    pub name: String,
    /// Channels, height, width.
    pub shape: [usize; 3],
    pub train: usize,
    pub test: usize,
    /// Name, training images, test images.
    pub classes: Vec<(String, usize, usize)>,
    /// Mean and standard deviation of each channel of the training images, in [0, 1].
    pub channels: Vec<(f64, f64)>,
    /// Things to be said about the data set, such as files that were left out.
    pub notes: Vec<String>,
    /// The contact sheet, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sheet: Option<PathBuf>,
    /// The sheet's columns, from the left.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub views: Vec<String>,
}

/// Summarizes a data set and the contact sheet that was made of it, with the names of its columns.
pub fn data(data: &Dataset, views: Vec<String>, sheet: Option<&Path>) -> DataSummary {
    let images = &data.train.images;
    let counts = |split: &Split| split.counts(data.classes.len());
    let (train, test) = (counts(&data.train), counts(&data.test));
    let class = |(index, name): (usize, &String)| (name.clone(), train[index], test[index]);
    DataSummary {
        name: data.name.clone(),
        shape: [images.channels, images.height, images.width],
        train: images.len(),
        test: data.test.images.len(),
        classes: data.classes.iter().enumerate().map(class).collect(),
        channels: images.channel_means(),
        notes: data.notes.clone(),
        sheet: sheet.map(Path::to_path_buf),
        views,
    }
}

/// Formats the summary, with the number of images of each class.
pub fn data_text(data: &DataSummary) -> String {
    let [channels, height, width] = data.shape;
    let mut about = vec![
        ("data set".to_owned(), data.name.clone()),
        (
            "images".to_owned(),
            format!("{} training, {} test", data.train, data.test),
        ),
        (
            "size".to_owned(),
            format!("{height} × {width}, {channels} channel(s)"),
        ),
    ];
    for (index, (mean, deviation)) in data.channels.iter().enumerate() {
        let text = format!("mean {mean:.4}, deviation {deviation:.4}");
        about.push((format!("channel {index}"), text));
    }
    if let Some(sheet) = &data.sheet {
        about.push(("contact sheet".to_owned(), sheet.display().to_string()));
        about.push(("its columns".to_owned(), data.views.join(", ")));
    }
    let mut text = pairs(&about);
    if !data.classes.is_empty() {
        let mut table = Table::new().left("class").right("train").right("test");
        for (name, train, test) in &data.classes {
            table.row([name.clone(), train.to_string(), test.to_string()]);
        }
        text += &format!("\n{}", table.text());
    }
    text
}
