//! A recipe as commented text.

use std::fmt::Write as _;

use advcl::data::Scan;
use advcl::nn::{EncoderConfig, Stem};

use super::choice::Choice;

/// How the recipe is meant to be used, and what it is expected to take.
pub struct Heading<'a> {
    /// Data set as the user named it.
    pub source: &'a str,
    /// Name of the recipe's file, for the command.
    pub file: &'a str,
    /// Time and memory that were estimated, and what the estimate is made of; empty before anything was measured.
    pub expected: String,
    pub epochs: String,
}

/// Value as TOML writes it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// The command that carries out the recipe, and its run folder.
pub fn command(choice: &Choice, file: &str) -> String {
    let stem = std::path::Path::new(file).file_stem();
    let stem = stem.map_or("mine".into(), |stem| stem.to_string_lossy());
    let verb = if choice.labeled { "run" } else { "pretrain" };
    let quoted = |text: String| match text.contains([' ', '\'', '"', '$', '&', '(', ')']) {
        true => format!("'{}'", text.replace('\'', r"'\''")),
        false => text,
    };
    let (file, run) = (quoted(file.to_owned()), quoted(format!("runs/{stem}")));
    format!("advcl {verb} {file} --run {run}")
}

/// The recipe.
pub fn recipe(scan: &Scan, choice: &Choice, heading: &Heading) -> String {
    let mut text = String::new();
    let printable = crate::output::printable(&scan.name).into_owned();
    let _ = write!(
        text,
        "# Recipe for {printable}: a standard and a robust encoder, {}.
#
#     {}
#
",
        if choice.labeled {
            "and a linear classifier on each, evaluated on clean images and under attack"
        } else {
            "without labels"
        },
        command(choice, heading.file),
    );
    if !heading.expected.is_empty() {
        let _ = writeln!(text, "# Expected on this machine: {}.", heading.expected);
    }
    text += "# `advcl recipe keys` prints every key that a recipe can have.\n\nseed = 0\n\n";
    text += &data(scan, choice, heading.source);
    text += &encoder(choice);
    text += &threat(choice);
    text += &pretraining(choice, heading);
    text += &classifier(scan, choice);
    text
}

fn data(scan: &Scan, choice: &Choice, source: &str) -> String {
    let mut text = "[data]\n".to_owned();
    let [train, test, validation] = scan.images;
    let _ = write!(text, "# Found: {train} training images");
    match scan.classes.len() {
        0 => text += " without labels",
        1 => text += " of a single class",
        count => {
            let _ = write!(text, " in {count} classes");
        }
    }
    let _ = writeln!(text, ", {test} test and {validation} validation images.");
    let _ = writeln!(text, "source = {}", quoted(source));
    if choice.labeled {
        text += "# More images, without labels, for pretraining:\n# unlabeled = [\"photos\"]\n";
    }
    let [height, width] = choice.sides;
    let _ = match (&choice.weights, choice.size) {
        (Some(_), _) => writeln!(
            text,
            "# The size of the images that the weights were made for: height, width. Other images are scaled and cropped.\nsize = [{height}, {width}]"
        ),
        (None, Some(side)) => {
            let (sizes, median) = (scan.sizes.len(), scan.median_side());
            writeln!(
                text,
                "# {sizes} size(s) were found; the median of the shorter sides is {median} pixels. A multiple of 8 near it, 64 at most so \
                 that a CPU can train.\nsize = {side}\n\
                 # Other shapes are scaled and cropped; \"pad\" and \"stretch\" keep their edges.\n# fit = \"crop\""
            )
        }
        (None, None) => writeln!(
            text,
            "# All images have {width} × {height} pixels: no size is needed."
        ),
    };
    let [gray, colour] = scan.channels;
    if choice.weights.is_some() && [gray, colour][usize::from(choice.channels == 1)] > 0 {
        let kind = if choice.channels == 1 { "gray" } else { "rgb" };
        let _ = writeln!(text, "# As the weights take them.\nchannels = \"{kind}\"");
    } else if gray > 0 && colour > 0 {
        let _ = writeln!(
            text,
            "# {gray} images are gray and {colour} in colour; \"gray\" is the other way to make them alike.\nchannels = \"rgb\""
        );
    }
    if choice.background {
        text += "# Some images are transparent: white is put behind them.\nbackground = [255, 255, 255]\n";
    }
    if !scan.faults.is_empty() {
        let _ = writeln!(
            text,
            "# Images that cannot be read (`advcl data inspect` lists them): {}. \"refuse\" stops at them.\ndamaged = \"skip\"",
            scan.faults.len()
        );
    }
    if let Some(share) = choice.test_share {
        let _ = writeln!(
            text,
            "# There are no test images: this share of each class is kept for testing ({} images).\ntest_share = {share}",
            choice.tested
        );
    }
    text + "\n"
}

fn encoder(choice: &Choice) -> String {
    let EncoderConfig { depth, width, stem } = &choice.encoder;
    let (depth, name) = (usize::from(*depth), stem.name());
    if choice.weights.is_some() {
        return format!(
            "[encoder]\n# Of the weights.\ndepth = {depth}\nwidth = {width}\nstem = \"{name}\"\n\n"
        );
    }
    let why = match stem {
        Stem::Cifar => "stride 1, since the images are small",
        Stem::Strided => "stride 2, a quarter of the work",
        Stem::Imagenet => "7 × 7 at stride 2 and max pooling, since the images are large",
    };
    format!(
        "[encoder]
# Small enough for a CPU; the paper has depth 18 and width 64, on GPUs.
depth = {depth}
width = {width}
# First layer: {why}.
stem = \"{name}\"

"
    )
}

fn threat(choice: &Choice) -> String {
    format!(
        "[threat]
norm = \"linf\"
# Largest change of a pixel, in [0, 1], that the classifier is to withstand.
# {}.
# Usual: 8/255 for colour photographs, 4/255 for large ones, 0.1 for clothing, 0.3 for digits.
radius = \"{}\"

",
        choice.why_radius, choice.radius
    )
}

fn plan(choice: &Choice) -> String {
    let schedule = match choice.epochs {
        0..5 => "schedule.cosine = {}",
        _ => "schedule.cosine = { warmup_epochs = 1, warmup_from = 0.05 }",
    };
    format!(
        "plan = {{ epochs = {}, batch_size = {}, lr = {}, momentum = 0.9, weight_decay = 1e-4, {schedule} }}\n",
        choice.epochs, choice.batch, choice.lr
    )
}

fn pretraining(choice: &Choice, heading: &Heading) -> String {
    let plan = plan(choice);
    let epochs = match heading.epochs.as_str() {
        "" => String::new(),
        why => format!("# {why}\n"),
    };
    let flips = |table: &str| {
        format!(
            "# Half of the views are mirrored. Where left and right differ in meaning (digits, letters, road signs), switch that off:\n{table}"
        )
    };
    let step = match &choice.clusters[..] {
        [] => "# Too few images for pseudo-labels.\n".to_owned(),
        [_] => "# The paper's smallest number, for few images.\n".to_owned(),
        _ => format!(
            "# Those of the paper (2, 10, 50, 100, 500) with 20 or more of the {} images in a cluster.\n",
            choice.images
        ),
    };
    let clusters = choice.clusters.iter().map(usize::to_string);
    let clusters = clusters.collect::<Vec<_>>().join(", ");
    let begins = match &choice.weights {
        None => String::new(),
        Some(file) => format!(
            "# Training begins at these weights; `pull = 5.0` beside them holds it near.\ninit = {}\n",
            quoted(file)
        ),
    };
    format!(
        "[pretrain.simclr]
{begins}temperature = 0.5
{}# strong = {{ flip = 0.0 }}
{epochs}# A batch is never larger than the data ({} images for training); the learning rate is 0.5 for 128 images, in proportion.
{plan}
[cluster]
{step}counts = [{clusters}]
restarts = 3
iterations = 100

[pretrain.advcl]
{begins}temperature = 0.5
cluster_weight = 0.2
# A quarter of the images' size, as the paper's 8 for 32 pixels.
high_frequency_radius = {:.1}
attack_steps = 5
# As above:
# strong = {{ flip = 0.0 }}
# weak = {{ flip = 0.0 }}
{plan}
",
        flips(""),
        choice.images,
        choice.high_frequency_radius,
    )
}

fn classifier(scan: &Scan, choice: &Choice) -> String {
    let why = match choice.labeled {
        false => "# Needs labels, of which there are none: `advcl pretrain` leaves it alone.\n"
            .to_owned(),
        true => {
            let smallest = scan
                .extremes()
                .map_or(0, |[_, smallest]| scan.counts[smallest][0]);
            let few = choice.head_epochs > 100;
            format!(
                "# A linear classifier on the frozen encoder. The smallest class has {smallest} images{}.\n",
                if few { ": few labels, many epochs" } else { "" }
            )
        }
    };
    let [first, second] = choice.head_milestones;
    format!(
        "[finetune.slf]
{why}plan = {{ epochs = {}, batch_size = {}, lr = 0.1, momentum = 0.9, weight_decay = 2e-4, schedule.steps = {{ milestones = [{first}, {second}] }} }}

[evaluate]
split = \"test\"
batch_size = {}
# Steps of the attack (PGD); its step size is a quarter of the radius.
steps = 20
",
        choice.head_epochs, choice.head_batch, choice.evaluated_at_a_time
    )
}
