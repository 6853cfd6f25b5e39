//! What is seen of classifiers: attacked images, views, maps of features, the loss around an image.

use advcl::attack::Norm;
use advcl::report::{Example, FeatureMap, Surface};
use anyhow::Result;
use maud::{Markup, html};

use super::figures::{folder_name, norm};
use super::html::{figure, folded, legend, percent, picture};
use super::page::{Part, Report};
use super::plots::{self, Dot, Heat};
use super::{PICTURED, Pictures, Shown};

/// Those with pictures.
fn pictured<'a>(report: &'a Report) -> Vec<(&'a Shown<'a>, &'a Pictures)> {
    let with = |shown: &'a Shown<'a>| Some((shown, shown.pictures.as_ref()?));
    report.shown.iter().filter_map(with).collect()
}

fn nothing() -> (String, Option<String>) {
    ("there are too few images".to_owned(), None)
}

/// That some are not shown.
fn left_out(report: &Report) -> Markup {
    html! {
        @if report.shown.len() > PICTURED {
            p { "Shown for the first " (PICTURED) " of " (report.shown.len()) " classifiers; "
                code { "--method" } " and " code { "--mode" } " choose others." }
        }
    }
}

/// How much a perturbation is magnified so that its largest value is black or white.
fn magnification(shown: &Shown, examples: &[Example]) -> f64 {
    let threat = &shown.folder.recipe.threat;
    let largest = match threat.norm {
        Norm::Linf => threat.radius.value(),
        Norm::L2 => {
            let pairs = examples
                .iter()
                .flat_map(|e| e.attacked.iter().zip(&e.clean));
            f64::from(pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max))
        }
    };
    if largest > 0.0 { 0.5 / largest } else { 1.0 }
}

pub fn examples(report: &Report) -> Part {
    let all = pictured(report);
    if all.iter().all(|(_, pictures)| pictures.examples.is_empty()) {
        return Err(nothing());
    }
    Ok(html! {
        p { "Images that these classifiers get right as they are, of different classes as far as there are some, drawn by the seed; and what PGD makes of them. "
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
fn said(probabilities: &[f32]) -> (usize, f64) {
    let best = probabilities
        .iter()
        .enumerate()
        .max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or((0, 0.0), |(class, &share)| (class, f64::from(share)))
}

fn card(shown: &Shown, example: &Example, times: f64) -> Markup {
    let class = shown.class(example.label);
    let change: Vec<f32> = example
        .clean
        .iter()
        .zip(&example.attacked)
        .map(|(clean, attacked)| 0.5 + (attacked - clean) * times as f32)
        .collect();
    let (before, after) = (
        said(&example.probabilities),
        said(&example.probabilities_attacked),
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
                div { (picture(&example.clean, example.shape, &alt("Original"))) "as it is" }
                div { (picture(&change, example.shape, &alt("Magnified perturbation"))) "change × " (format!("{times:.3}").trim_end_matches('0').trim_end_matches('.')) }
                div { (picture(&example.attacked, example.shape, &alt("Attacked version"))) "attacked" }
            }
            figcaption {
                p { strong { (class) } ", image " (example.index) }
                dl.said {
                    dt { "as it is" } (line(before))
                    dt { "attacked" } (line(after))
                }
            }
        }
    }
}

fn example_table(shown: &Shown, examples: &[Example]) -> Markup {
    let head = [
        "image",
        "class",
        "said",
        "sure",
        "said under attack",
        "sure",
        "right class before",
        "after",
    ]
    .map(str::to_owned);
    let rows: Vec<Vec<String>> = examples
        .iter()
        .map(|example| {
            let (before, after) = (
                said(&example.probabilities),
                said(&example.probabilities_attacked),
            );
            let own = |all: &[f32]| percent(f64::from(all[example.label]));
            vec![
                example.index.to_string(),
                shown.class(example.label),
                shown.class(before.0),
                percent(before.1),
                shown.class(after.0),
                percent(after.1),
                own(&example.probabilities),
                own(&example.probabilities_attacked),
            ]
        })
        .collect();
    folded(&format!("predictions of {}", shown.label), &head, &rows)
}

pub fn views(report: &Report) -> Part {
    if report.views.is_empty() {
        return Err((
            "the recipe has no [pretrain.advcl], whose views they would be".to_owned(),
            None,
        ));
    }
    Ok(html! {
        p { "What pretraining compares: of each image two strong views, a weak one, its high frequencies (shifted to gray), and the weak one attacked "
            "against the contrastive loss. All of an image's views shall have the same features." }
        @for views in report.views {
            @let rows = views.columns.first().map_or(0, |(_, batch)| batch.shape[0]);
            figure {
                div.scroll tabindex="0" role="region" aria-label="Views of pretraining" {
                    table.views {
                        caption { "Training images of " (folder_name(views.folder)) " and their views" }
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

pub fn maps(report: &Report) -> Result<Part> {
    let all = pictured(report);
    let all: Vec<_> = all
        .iter()
        .filter_map(|(s, p)| Some((*s, p.map.as_ref()?)))
        .collect();
    if all.is_empty() {
        return Ok(Err(nothing()));
    }
    let mut blocks = Vec::new();
    for (shown, map) in &all {
        blocks.push(map_block(shown, map)?);
    }
    Ok(Ok(html! {
        p { "Each image's features as a point: t-SNE puts images with like features near each other, the images as they are and the attacked ones on one map. "
            "Tinted regions are those of the classes as they are. Where an attack works, points stray into other regions; "
            strong { "filled" } " points are classified correctly, " strong { "hollow" } " ones are not. Distances between far groups mean nothing." }
        (left_out(report))
        @for block in blocks { (block) }
    }))
}

fn map_block(shown: &Shown, map: &FeatureMap) -> Result<Markup> {
    let point = |at: [f32; 2]| (f64::from(at[0]), f64::from(at[1]));
    let dots = |attacked: bool| -> Vec<Dot> {
        let dot = |place: &advcl::report::Place| Dot {
            style: place.label,
            at: point(if attacked {
                place.attacked
            } else {
                place.clean
            }),
            hollow: (if attacked {
                place.said_attacked
            } else {
                place.said
            }) != place.label,
        };
        map.places.iter().map(dot).collect()
    };
    let (clean, attacked) = (dots(false), dots(true));
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
        draw("as they are", &clean)?,
        draw("under attack", &attacked)?,
    );
    let mut labels: Vec<usize> = map.places.iter().map(|place| place.label).collect();
    labels.sort_unstable();
    labels.dedup();
    let names: Vec<(usize, String)> = labels.iter().map(|&l| (l, shown.class(l))).collect();
    let head = ["class", "images", "right", "right under attack"].map(str::to_owned);
    let rows: Vec<Vec<String>> = names
        .iter()
        .map(|(label, name)| {
            let of = |dots: &[Dot]| {
                dots.iter()
                    .filter(|dot| dot.style == *label && !dot.hollow)
                    .count()
                    .to_string()
            };
            let all = clean.iter().filter(|dot| dot.style == *label).count();
            vec![name.clone(), all.to_string(), of(&clean), of(&attacked)]
        })
        .collect();
    Ok(html! {
        h3 { (shown.label) }
        div.pair {
            (figure(html! { strong { "As they are" } ": " (right(&clean)) " of " (count) " right" }, before, html! {}))
            (figure(html! { strong { "Under attack" } ": " (right(&attacked)) " of " (count) " right" }, after, html! {}))
        }
        (legend(names.iter().map(|(label, name)| (*label, name.as_str()))))
        (folded(&format!("points on the map of {}", shown.label), &head, &rows))
    })
}

pub fn surfaces(report: &Report) -> Result<Part> {
    let all = pictured(report);
    let all: Vec<_> = all
        .iter()
        .filter_map(|(s, p)| Some((*s, p.surface.as_ref()?)))
        .collect();
    if all.is_empty() {
        return Ok(Err(nothing()));
    }
    // One scale, so that they can be held against each other.
    let values = all
        .iter()
        .flat_map(|(_, surface)| surface.loss.iter().flatten());
    let most = f64::from(values.fold(0.0f32, |most, &value| most.max(value))).max(1e-3);
    let mut figures = Vec::new();
    for (shown, surface) in &all {
        figures.push(surface_figure(shown, surface, most)?);
    }
    let stops: Vec<String> = (0..=8)
        .map(|stop| {
            let [r, g, b] = plots::viridis(f64::from(stop) / 8.0);
            format!("rgb({r} {g} {b})")
        })
        .collect();
    let gradient = format!("background: linear-gradient(90deg, {})", stops.join(", "));
    let (first, surface) = all[0];
    let threat = &first.folder.recipe.threat;
    Ok(Ok(html! {
        p { "The loss of one image (" (first.class(surface.label)) ", image " (surface.index) ") as it is changed: to the right along the sign of its gradient, where attacks go, "
            "upwards along random signs. A robust classifier's is flat. The square is the radius, " (threat.radius) " (" (norm(threat.norm)) "); beyond the "
            strong { "heavy white line" } " the classifier is wrong." }
        div.scale style=(gradient) role="img" aria-label={ "Colours from a loss of 0 to one of " (format!("{most:.1}")) " nats" } {}
        div.ends { span { "0 nats" } span { (format!("{most:.1} nats")) } }
        (left_out(report))
        div.grid { @for figure in figures { (figure) } }
    }))
}

fn surface_figure(shown: &Shown, surface: &Surface, most: f64) -> Result<Markup> {
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
        radius: shown.folder.recipe.threat.radius.value(),
    };
    let svg = heat.draw(
        &alt,
        "along the gradient's sign, pixels",
        "along random signs, pixels",
    )?;
    let some: Vec<usize> = (0..side).step_by((side - 1) / 4).collect();
    let mut head = vec!["random \\ gradient".to_owned()];
    head.extend(some.iter().map(|&i| format!("{:.3}", surface.at[i])));
    let rows: Vec<Vec<String>> = some
        .iter()
        .rev()
        .map(|&row| {
            let mut cells = vec![format!("{:.3}", surface.at[row])];
            cells.extend(
                some.iter()
                    .map(|&column| format!("{:.2}", surface.loss[row][column])),
            );
            cells
        })
        .collect();
    let caption = html! { strong { (shown.label) } ": " (format!("{start:.2}")) " nats at the image, " (format!("{end:.2}")) " at the right edge" };
    Ok(figure(caption, svg, folded("loss in nats", &head, &rows)))
}
