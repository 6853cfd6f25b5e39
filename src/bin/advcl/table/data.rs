//! The content of a data set.

use std::path::{Path, PathBuf};

use advcl::data::{Fault, FoundSize, Reading, Repeats, Scan, Size};
use serde::Serialize;

use super::pairs;
use crate::format::Table;

/// Sizes that are named in text; JSON has all.
const SIZES: usize = 8;
/// Classes that are listed in text without `-v`; JSON has all.
const CLASSES: usize = 50;

/// The content of a data set.
#[derive(Serialize)]
pub struct DataSummary {
    pub name: String,
    /// Channels, height, width of the images for training; none where they have several sizes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shape: Option<[usize; 3]>,
    pub train: usize,
    pub test: usize,
    pub validation: usize,
    /// Name, training images, test images.
    pub classes: Vec<(String, usize, usize)>,
    /// Validation images of each class, where there are any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub validation_classes: Vec<usize>,
    /// Mean and standard deviation of each channel of the training images, in [0, 1].
    pub channels: Vec<(f64, f64)>,
    /// Sizes in the files, the most frequent first.
    pub sizes: Vec<FoundSize>,
    /// Value for `data.size` where the images want one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggested_size: Option<usize>,
    pub gray: usize,
    pub colour: usize,
    /// Formats of the files, the most frequent first.
    pub formats: Vec<(String, usize)>,
    /// Images of 16 bits a channel, which become 8.
    pub scaled_down: usize,
    /// Images that are turned as their EXIF orientation says.
    pub turned: usize,
    /// Images that cannot be read.
    pub damaged: Vec<Fault>,
    /// Training images that repeat another training image.
    pub within_train: Repeats,
    /// Test and validation images that repeat a training image.
    pub in_train: Repeats,
    /// Classes with too few training images to keep some for testing.
    pub too_small: Vec<String>,
    /// Images of the largest class over those of the smallest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub imbalance: Option<f64>,
    /// The largest and the smallest class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extremes: Option<[String; 2]>,
    /// Things to be said about the data set, such as files that were left out.
    pub notes: Vec<String>,
    /// The contact sheet, where one was asked for.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "advcl::files::as_optional_text"
    )]
    pub sheet: Option<PathBuf>,
    /// The sheet's columns, from the left.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub views: Vec<String>,
}

/// Summarizes a data set as `reading` brings it to one size and kind, and the contact sheet that was made of it, with the
/// names of its columns. A class needs `least` training images.
pub fn data(
    scan: Scan,
    reading: &Reading,
    least: usize,
    views: Vec<String>,
    sheet: Option<&Path>,
) -> DataSummary {
    let [gray, colour] = scan.channels;
    let sides = match (reading.size.map(Size::sides), &scan.sizes[..]) {
        (None, [only]) => Some([only.height, only.width]),
        (wanted, _) => wanted,
    };
    let channels = if colour > 0 { 3 } else { 1 };
    let suggested_size = scan.suggested_size().filter(|_| reading.size.is_none());
    let name = |class: usize| scan.classes[class].clone();
    let extremes = scan.extremes();
    let ratio = |[largest, smallest]: [usize; 2]| {
        let [most, least] = [largest, smallest].map(|class| scan.counts[class][0]);
        most as f64 / least.max(1) as f64
    };
    let classes = scan.classes.iter().zip(&scan.counts);
    let validation = scan.counts.iter().map(|counts| counts[2]);
    DataSummary {
        shape: sides.map(|[height, width]| [channels, height, width]),
        train: scan.images[0],
        test: scan.images[1],
        validation: scan.images[2],
        classes: classes
            .map(|(name, counts)| (name.clone(), counts[0], counts[1]))
            .collect(),
        validation_classes: match scan.images[2] {
            0 => Vec::new(),
            _ => validation.collect(),
        },
        suggested_size,
        gray,
        colour,
        too_small: scan.classes_below(least).into_iter().map(name).collect(),
        imbalance: extremes.map(ratio),
        extremes: extremes.map(|classes| classes.map(name)),
        name: scan.name,
        channels: scan.means,
        sizes: scan.sizes,
        formats: scan.formats,
        scaled_down: scan.scaled_down,
        turned: scan.turned,
        damaged: scan.faults,
        within_train: scan.within_train,
        in_train: scan.in_train,
        notes: scan.notes,
        sheet: sheet.map(Path::to_path_buf),
        views,
    }
}

/// Formats the summary, with the number of images of each class: of all with `verbose`, else of the first.
pub fn data_text(data: &DataSummary, verbose: bool) -> String {
    let mut about = vec![("data set".to_owned(), data.name.clone())];
    let mut add = |name: &str, text: String| about.push((name.to_owned(), text));
    add("images", images_text(data));
    add("size", size_text(data));
    if data.sizes.len() > 1 {
        add("sizes found", sizes_text(&data.sizes));
    }
    if !data.formats.is_empty() {
        let formats = data.formats.iter();
        let formats: Vec<String> = formats
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        add("formats", formats.join(", "));
    }
    let converted = converted_text(data);
    if !converted.is_empty() {
        add("converted", converted);
    }
    for (index, (mean, deviation)) in data.channels.iter().enumerate() {
        let text = format!("mean {mean:.4}, deviation {deviation:.4}");
        add(&format!("channel {index}"), text);
    }
    if let (Some([largest, smallest]), Some(ratio)) = (&data.extremes, data.imbalance) {
        let count = data.classes.len();
        let text = match ratio == 1.0 {
            true => format!("{count}, all of one size"),
            false => format!(
                "{count}, the largest ({largest}) {ratio:.1} times the smallest ({smallest})"
            ),
        };
        add("classes", text);
    }
    if !data.too_small.is_empty() {
        add("too small", too_small_text(&data.too_small));
    }
    for (name, repeats, of) in [
        ("repeated", &data.within_train, "within the training images"),
        (
            "leaked",
            &data.in_train,
            "of training images among the test images",
        ),
    ] {
        if repeats.exact + repeats.near > 0 {
            add(name, repeats_text(repeats, of));
        }
    }
    if let Some(sheet) = &data.sheet {
        add("contact sheet", sheet.display().to_string());
        add("its columns", data.views.join(", "));
    }
    let mut text = pairs(&about);
    if !data.classes.is_empty() {
        text += &format!("\n{}", classes_text(data, verbose));
    }
    let named = data.within_train.named.iter().chain(&data.in_train.named);
    let mut table = Table::new()
        .left("image")
        .left("repeats")
        .left("as")
        .left("classes");
    for repeat in named {
        let [image, original] = repeat.images.clone();
        let kind = if repeat.exact { "a copy" } else { "nearly" };
        let classes = repeat.classes.as_ref();
        let classes = classes.map_or(String::new(), |[a, b]| format!("{a} and {b}"));
        table.row([image, original, kind.to_owned(), classes]);
    }
    if !table.is_empty() {
        text += &format!("\n{}", table.text());
    }
    let mut table = Table::new().left("cannot be read").left("because");
    for fault in &data.damaged {
        table.row([fault.image.display().to_string(), fault.reason.clone()]);
    }
    if !table.is_empty() {
        text += &format!("\n{}", table.text());
    }
    text
}

fn images_text(data: &DataSummary) -> String {
    let mut text = format!("{} training, {} test", data.train, data.test);
    if data.validation > 0 {
        text += &format!(", {} validation", data.validation);
    }
    if !data.damaged.is_empty() {
        text += &format!("; {} cannot be read", data.damaged.len());
    }
    text
}

fn size_text(data: &DataSummary) -> String {
    let channels = if data.colour > 0 { 3 } else { 1 };
    let size = match data.shape {
        Some([_, height, width]) => format!("{width} × {height}"),
        None => "several".to_owned(),
    };
    let hint = data.suggested_size.map_or(String::new(), |side| {
        format!("; to train: --set 'data.size = {side}'")
    });
    format!("{size}, {channels} channel(s){hint}")
}

fn sizes_text(sizes: &[FoundSize]) -> String {
    let named = sizes.iter().take(SIZES).map(|size| {
        let FoundSize {
            height,
            width,
            images,
        } = size;
        format!("{images} of {width} × {height}")
    });
    let mut named: Vec<String> = named.collect();
    if sizes.len() > named.len() {
        let rest: usize = sizes[named.len()..].iter().map(|size| size.images).sum();
        let others = sizes.len() - named.len();
        named.push(format!("{rest} of {others} other sizes"));
    }
    format!("{} (width × height): {}", sizes.len(), named.join(", "))
}

fn converted_text(data: &DataSummary) -> String {
    let mut parts = Vec::new();
    if data.gray > 0 && data.colour > 0 {
        let (gray, colour) = (data.gray, data.colour);
        parts.push(format!("{gray} gray among {colour} in colour become RGB"));
    }
    if data.scaled_down > 0 {
        let count = data.scaled_down;
        parts.push(format!("{count} with 16 bits a channel become 8"));
    }
    if data.turned > 0 {
        let count = data.turned;
        parts.push(format!("{count} are turned as their EXIF orientation says"));
    }
    parts.join("; ")
}

fn too_small_text(classes: &[String]) -> String {
    let mut named = classes[..classes.len().min(SIZES)].join(", ");
    if classes.len() > SIZES {
        named += &format!(" and {} more", classes.len() - SIZES);
    }
    format!("{named}: too few images to keep one for testing")
}

fn repeats_text(repeats: &Repeats, of: &str) -> String {
    let Repeats {
        exact,
        near,
        other_class,
        ..
    } = repeats;
    let mut text = format!("{exact} exact and {near} near duplicates {of}");
    if *other_class > 0 {
        text += &format!("; {other_class} of another class");
    }
    text
}

fn classes_text(data: &DataSummary, verbose: bool) -> String {
    let mut table = Table::new().left("class").right("train").right("test");
    if data.validation > 0 {
        table = table.right("validation");
    }
    let most = if verbose { usize::MAX } else { CLASSES };
    for (index, (name, train, test)) in data.classes.iter().enumerate().take(most) {
        let validation = data.validation_classes.get(index);
        let counts = [train, test].into_iter().chain(validation);
        let cells = std::iter::once(name.clone()).chain(counts.map(usize::to_string));
        table.row(cells);
    }
    let mut text = table.text();
    if data.classes.len() > most {
        text += &format!("and {} more (-v, --json)\n", data.classes.len() - most);
    }
    text
}
