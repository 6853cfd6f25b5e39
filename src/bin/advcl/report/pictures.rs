//! Pictures of classifiers: adversarial examples, views, maps of features, the loss around an
//! image.

use advcl::attack::Norm;
use advcl::report::{Example, FeatureMap, LossSurface, MapPoint};
use maud::{Markup, html};

use super::headline::run_name;
use super::html::{figure, folded, legend, percent, picture};
use super::model::{Missing, PICTURED, Pictures, ReportPage, SectionBody, ShownClassifier};
use super::plots::{self, Dot, Heat};
use crate::format::{Table, radius};

/// The classifiers with pictures.
fn pictured<'a>(report: &'a ReportPage) -> Vec<(&'a ShownClassifier<'a>, &'a Pictures)> {
    let with = |shown: &'a ShownClassifier<'a>| Some((shown, shown.pictures.as_ref()?));
    report.shown.iter().filter_map(with).collect()
}

fn too_few() -> Missing {
    Missing::because("there are too few images")
}

/// A note where some classifiers are not shown.
fn left_out(report: &ReportPage) -> Markup {
    html! {
        @if report.shown.len() > PICTURED {
            p { "Shown for the first " (PICTURED) " of " (report.shown.len()) " classifiers; "
                code { "--method" } " and " code { "--mode" } " choose others." }
        }
    }
}

/// Whole number by which a perturbation is magnified, so that its largest value is almost black or white.
fn magnification(shown: &ShownClassifier, examples: &[Example]) -> f64 {
    let threat = &shown.run.recipe.threat;
    let largest = match threat.norm {
        Norm::Linf => threat.radius.value(),
        Norm::L2 => {
            let pairs = examples
                .iter()
                .flat_map(|e| e.attacked.iter().zip(&e.clean));
            f64::from(pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max))
        }
    };
    match largest > 0.0 {
        true => (0.5 / largest).floor().max(1.0),
        false => 1.0,
    }
}

/// Clean and adversarial images of every classifier.
pub fn examples(report: &ReportPage) -> SectionBody {
    let all = pictured(report);
    if all.iter().all(|(_, pictures)| pictures.examples.is_empty()) {
        return Err(too_few());
    }
    Ok(html! {
        p { "Clean images that these classifiers predict correctly, of different classes where there are several, chosen at random; and the adversarial images that PGD finds. "
            "Between the two: the difference, magnified; gray is no change." }
        (left_out(report))
        @for (shown, pictures) in all {
            @let times = magnification(shown, &pictures.examples);
            h3 { (shown.label) }
            div.examples {
                @for example in &pictures.examples { (card(shown, example, times)) }
            }
            (example_table(shown, &pictures.examples))
        }
    })
}

/// The most probable class and its probability.
fn predicted(probabilities: &[f32]) -> (usize, f64) {
    let best = probabilities
        .iter()
        .enumerate()
        .max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or((0, 0.0), |(class, &share)| (class, f64::from(share)))
}

fn card(shown: &ShownClassifier, example: &Example, times: f64) -> Markup {
    let class = shown.class(example.label);
    let change: Vec<f32> = example
        .clean
        .iter()
        .zip(&example.attacked)
        .map(|(clean, attacked)| 0.5 + (attacked - clean) * times as f32)
        .collect();
    let (before, after) = (
        predicted(&example.probabilities),
        predicted(&example.probabilities_attacked),
    );
    let line = |(label, share): (usize, f64)| {
        let right = label == example.label;
        html! {
            dd class=(if right { "good" } else { "bad" }) {
                (if right { "✓ " } else { "✗ " }) (shown.class(label))
            }
            dd { (format!("{:.0}\u{a0}%", 100.0 * share)) }
        }
    };
    let alt = |what: &str| format!("{what} of image {}, {class}", example.index);
    html! {
        figure.example {
            div.trio {
                div { (picture(&example.clean, example.shape, &alt("Clean version"))) "clean" }
                div { (picture(&change, example.shape, &alt("Magnified perturbation"))) "change × " (times) }
                div { (picture(&example.attacked, example.shape, &alt("Attacked version"))) "attacked" }
            }
            figcaption {
                p { strong { (class) } ", image " (example.index) }
                dl.predicted {
                    dt { "clean" } (line(before))
                    dt { "attacked" } (line(after))
                }
            }
        }
    }
}

fn example_table(shown: &ShownClassifier, examples: &[Example]) -> Markup {
    let mut table = Table::new()
        .left("image")
        .left("class")
        .left("predicted")
        .right("probability")
        .left("predicted under attack")
        .right("probability")
        .right("of the true class before")
        .right("after");
    for example in examples {
        let (before, after) = (
            predicted(&example.probabilities),
            predicted(&example.probabilities_attacked),
        );
        let own = |all: &[f32]| percent(f64::from(all[example.label]));
        table.row([
            example.index.to_string(),
            shown.class(example.label),
            shown.class(before.0),
            percent(before.1),
            shown.class(after.0),
            percent(after.1),
            own(&example.probabilities),
            own(&example.probabilities_attacked),
        ]);
    }
    folded(&format!("predictions of {}", shown.label), &table)
}

/// The views that AdvCL's pretraining compares.
pub fn views(report: &ReportPage) -> SectionBody {
    if report.views.is_empty() {
        let why = "views are those of AdvCL, and the recipe has no [pretrain.advcl]";
        return Err(Missing::because(why));
    }
    Ok(html! {
        p { "Pretraining compares views of each image: two strong ones, a weak one, its high frequencies (shifted to gray), and the weak one attacked "
            "through the contrastive loss. It brings the features of an image's views together." }
        @for views in report.views {
            @let rows = views.columns.first().map_or(0, |(_, batch)| batch.shape[0]);
            figure {
                figcaption { "Training images of " (run_name(views.run)) " and their views" }
                div.scroll tabindex="0" role="region" aria-label="Views of pretraining" {
                    table.views aria-label="Views of pretraining" {
                        thead { tr { @for (name, _) in &views.columns { th scope="col" { (name) } } } }
                        tbody {
                            @for row in 0..rows {
                                tr {
                                    @for (name, batch) in &views.columns {
                                        @let [_, c, h, w] = batch.shape;
                                        @let size = c * h * w;
                                        @let alt = format!("Training image {}, {name}", row + 1);
                                        td { (picture(&batch.data[row * size..][..size], [c, h, w], &alt)) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    })
}

/// Maps of the features of clean and adversarial images.
pub fn maps(report: &ReportPage) -> SectionBody {
    let all = pictured(report);
    let all: Vec<_> = all
        .iter()
        .filter_map(|(s, p)| Some((*s, p.map.as_ref()?)))
        .collect();
    if all.is_empty() {
        return Err(too_few());
    }
    Ok(html! {
        p { "Each image's features as a point: t-SNE puts images with similar features near each other, clean and adversarial images on one map. "
            "Tinted regions belong to the class of the nearest clean images. Where an attack works, points move into other regions; "
            strong { "filled" } " points are classified correctly, " strong { "hollow" } " ones are not. Distances between separate groups have no meaning." }
        (left_out(report))
        @for (shown, map) in &all { (map_block(shown, map)) }
    })
}

fn map_block(shown: &ShownClassifier, map: &FeatureMap) -> Markup {
    let dot = |label: usize, at: [f32; 2], predicted: usize| Dot {
        style: label,
        at: (f64::from(at[0]), f64::from(at[1])),
        hollow: predicted != label,
    };
    let clean_dot = |point: &MapPoint| dot(point.label, point.clean, point.predicted);
    let attacked_dot =
        |point: &MapPoint| dot(point.label, point.attacked, point.predicted_attacked);
    let clean: Vec<Dot> = map.points.iter().map(clean_dot).collect();
    let attacked: Vec<Dot> = map.points.iter().map(attacked_dot).collect();
    let ends = |axis: fn(&Dot) -> f64| {
        let all = clean.iter().chain(&attacked).map(axis);
        let (low, high) = all.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
            (low.min(v), high.max(v))
        });
        let edge = 0.04 * (high - low).max(1e-6);
        (low - edge, high + edge)
    };
    let square = (ends(|dot| dot.at.0), ends(|dot| dot.at.1));
    let right = |dots: &[Dot]| dots.iter().filter(|dot| !dot.hollow).count();
    let count = clean.len();
    let alt = |what: &str, dots: &[Dot]| {
        format!(
            "Map of the features of {count} images {what}, {}: {} are classified correctly. The table below counts them by class.",
            shown.label,
            right(dots)
        )
    };
    let draw = |what: &str, dots: &[Dot]| plots::map(&alt(what, dots), &clean, dots, square);
    let (before, after) = (
        draw("without attack", &clean),
        draw("under attack", &attacked),
    );
    let mut labels: Vec<usize> = map.points.iter().map(|point| point.label).collect();
    labels.sort_unstable();
    labels.dedup();
    let names: Vec<(usize, String)> = labels.iter().map(|&l| (l, shown.class(l))).collect();
    let mut table = Table::new()
        .left("class")
        .right("images")
        .right("correct")
        .right("correct under attack");
    for (label, name) in &names {
        let of_class = |dots: &'_ [Dot], correct: bool| {
            let counted = |dot: &&Dot| dot.style == *label && !(correct && dot.hollow);
            dots.iter().filter(counted).count().to_string()
        };
        table.row([
            name.clone(),
            of_class(&clean, false),
            of_class(&clean, true),
            of_class(&attacked, true),
        ]);
    }
    html! {
        h3 { (shown.label) }
        div.pair {
            (figure(html! { strong { "Clean" } ": " (right(&clean)) " of " (count) " correct" }, before, html! {}))
            (figure(html! { strong { "Under attack" } ": " (right(&attacked)) " of " (count) " correct" }, after, html! {}))
        }
        (legend(names.iter().map(|(label, name)| (*label, name.as_str()))))
        (folded(&format!("points on the map of {}", shown.label), &table))
    }
}

/// The loss around an image, for every classifier.
pub fn surfaces(report: &ReportPage) -> SectionBody {
    let all = pictured(report);
    let all: Vec<_> = all
        .iter()
        .filter_map(|(s, p)| Some((*s, p.surface.as_ref()?)))
        .collect();
    if all.is_empty() {
        return Err(too_few());
    }
    // One scale, so that they can be compared.
    let values = all
        .iter()
        .flat_map(|(_, surface)| surface.loss.iter().flatten());
    let most = f64::from(values.fold(0.0f32, |most, &value| most.max(value))).max(1e-3);
    let stops: Vec<String> = (0..=8)
        .map(|stop| {
            let [r, g, b] = plots::viridis(f64::from(stop) / 8.0);
            format!("rgb({r} {g} {b})")
        })
        .collect();
    let gradient = format!("background: linear-gradient(90deg, {})", stops.join(", "));
    let (first, surface) = all[0];
    let threat = &first.run.recipe.threat;
    Ok(html! {
        p { "The loss of one image (" (first.class(surface.label)) ", image " (surface.index) ") as it is changed: to the right along the sign of its gradient, as attacks change it, "
            "upwards along random signs. A robust classifier's loss is flat. The square is the radius, " (radius(threat)) "; beyond the "
            strong { "heavy white line" } " the prediction is wrong." }
        div.scale style=(gradient) role="img" aria-label={ "Colours from a loss of 0 to one of " (format!("{most:.1}")) " nats" } {}
        div.ends { span { "0 nats" } span { (format!("{most:.1} nats")) } }
        (left_out(report))
        div.grid { @for (shown, surface) in &all { (surface_figure(shown, surface, most)) } }
    })
}

fn surface_figure(shown: &ShownClassifier, surface: &LossSurface, most: f64) -> Markup {
    let side = surface.at.len();
    let middle = side / 2;
    let (start, end) = (surface.loss[middle][middle], surface.loss[middle][side - 1]);
    let far = surface.at.last().copied().unwrap_or(0.0);
    let alt = format!(
        "Loss of {} around the image: {start:.2} nats at the image, {end:.2} nats {far} pixels along the sign of its gradient.",
        shown.label
    );
    let heat = Heat {
        at: &surface.at,
        values: &surface.loss,
        most,
        border: &surface.margin,
        radius: surface.edge,
    };
    let svg = heat.draw(
        &alt,
        "along the gradient's sign, pixels",
        "along random signs, pixels",
    );
    let some: Vec<usize> = (0..side).step_by((side - 1) / 4).collect();
    let mut table = Table::new().right("random \\ gradient");
    for &column in &some {
        table = table.right(format!("{:.3}", surface.at[column]));
    }
    for &row in some.iter().rev() {
        let losses = some.iter().map(|&column| surface.loss[row][column]);
        let losses = losses.map(|loss| format!("{loss:.2}"));
        table.row(std::iter::once(format!("{:.3}", surface.at[row])).chain(losses));
    }
    let caption = html! { strong { (shown.label) } ": " (format!("{start:.2}")) " nats at the image, " (format!("{end:.2}")) " at the right edge" };
    figure(caption, svg, folded("loss in nats", &table))
}
