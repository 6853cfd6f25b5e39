//! `advcl report`: a page that is whole, says what is missing, and leaves the run alone.

use std::path::Path;

use advcl::evaluate::measures::{Bin, Calibration, Corrupted, Curve, Measures, Neighbours, Point};
use advcl::evaluate::soundness::{CheckName, Finding, Soundness, Verdict};
use serde_json::{Value, json};

use crate::bad_input::refused_at_the_door;
use crate::{advcl, folder, get, only_simclr, put, snapshot};

/// Both rows of the tiny recipe, evaluated.
fn trained() -> tempfile::TempDir {
    let folder = folder();
    advcl(folder.path(), "run tiny.toml --run run").expect(0);
    folder
}

fn text(path: &Path) -> String {
    String::from_utf8(get(path)).expect("UTF-8")
}

/// A file's content with what its figures depend on, as the program writes it.
fn with_recipe(value: impl serde::Serialize) -> Vec<u8> {
    let mut value = serde_json::to_value(value).expect("plain values");
    value["recipe"] = json!("made up");
    serde_json::to_vec(&value).expect("plain values")
}

/// All that can be measured of a row, made up: 20 images of 10 classes.
fn measures() -> Measures {
    let point = |at: f64, correct: usize| Point::new(at, correct, 20);
    let curve = |norm| Curve {
        norm,
        points: vec![point(0.0, 16), point(0.1, 8), point(0.5, 0)],
    };
    let calibration = || Calibration {
        images: 20,
        error: 0.123,
        bins: vec![Bin::new(0, 0.0, 0), Bin::new(20, 0.7, 12)],
    };
    let confusion: Vec<Vec<usize>> = (0..10)
        .map(|class| (0..10).map(|said| usize::from(class == said) * 2).collect())
        .collect();
    let kind = |kind: &str| Corrupted::new(kind, [14, 12, 10, 8, 6], 20);
    let mut measures = Measures {
        images: 20,
        radius: vec![
            curve(advcl::attack::Norm::Linf),
            curve(advcl::attack::Norm::L2),
        ],
        steps: vec![point(1.0, 10), point(100.0, 6)],
        corruptions: vec![kind("gaussian_noise"), kind("jpeg_compression")],
        neighbours: Some(Neighbours::new(20, 14, 4, 20)),
        calibration: Some(calibration()),
        calibration_attacked: Some(calibration()),
        ..Measures::default()
    };
    measures.set_confusion(confusion.clone(), confusion);
    measures
}

/// Values of an attribute, in order.
fn attributes<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    let begin = format!(" {name}=\"");
    let rest = page.split(begin.as_str()).skip(1);
    rest.filter_map(|rest| rest.split('"').next()).collect()
}

/// Holds a page to what every one must be.
#[track_caller]
fn whole(page: &str) {
    assert!(page.len() < 5_000_000, "{} bytes", page.len());
    assert!(page.starts_with("<!DOCTYPE html><html lang=\"en\">"));
    for outside in [
        "http://", "https://", "<script", "@import", "url(", "<iframe", "NaN",
    ] {
        assert!(!page.contains(outside), "{outside} in the page");
    }
    let ids = attributes(page, "id");
    for link in attributes(page, "href") {
        let inside = link.strip_prefix('#').is_some_and(|id| ids.contains(&id));
        assert!(inside || link == "data:,", "a link to {link}");
    }
    for source in attributes(page, "src") {
        assert!(source.starts_with("data:image/png;base64,"), "{source:.40}");
    }
    let mut once = ids.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), ids.len(), "an id twice in {ids:?}");
    // Headings go one level down at a time, and there is one title.
    let levels: Vec<usize> = page
        .match_indices("<h")
        .filter_map(|(at, _)| page[at + 2..].chars().next()?.to_digit(10))
        .map(|level| level as usize)
        .collect();
    assert_eq!(levels.iter().filter(|level| **level == 1).count(), 1);
    assert!(
        levels.windows(2).all(|pair| pair[1] <= pair[0] + 1),
        "{levels:?}"
    );
    // What is seen is said, too.
    let count = |words: &str| page.matches(words).count();
    assert_eq!(count("<img "), attributes(page, "alt").len());
    let hidden = count("aria-hidden=\"true\"");
    let named = count("role=\"img\" aria-label=\"");
    assert!(count("<svg ") <= hidden + named, "an <svg> without words");
    assert_eq!(count("<table"), count("<caption>"));
    assert_eq!(count("<th scope="), count("<th") - count("<thead"));
}

#[test]
fn a_page_has_everything_that_was_measured() {
    let folder = trained();
    let path = folder.path();
    let row = path.join("run/advcl/slf");
    put(row.join("measures.json"), with_recipe(measures()));
    let finding = |check, verdict| Finding {
        check,
        verdict,
        found: "a figure < 3".to_owned(),
        meaning: "attacks are <blind> here".to_owned(),
    };
    let soundness = Soundness {
        findings: vec![
            finding(CheckName::Deterministic, Verdict::Holds),
            finding(CheckName::Gradients, Verdict::Warns),
        ],
    };
    put(row.join("soundness.json"), with_recipe(soundness));
    put(
        row.join("attack.json"),
        with_recipe(json!({
            "suite": "autoattack", "images": 20, "clean": 12, "robust": 3,
            "attacks": [{"attack": "apgd-ce", "images": 12, "broken": 9, "seconds": 61.0}],
        })),
    );
    put(
        path.join("run/transfer.json"),
        with_recipe(json!({
            "images": 20, "classifiers": ["simclr/slf", "advcl/slf"],
            "clean": [0.5, 0.6], "accuracy": [[0.1, 0.55], [0.4, 0.2]],
        })),
    );
    // Without a summary, the rows' files are read.
    std::fs::remove_file(path.join("run/summary.json")).expect("was there");
    let before = snapshot(&path.join("run"));
    let answer = advcl(path, "report run").expect(0);
    assert_eq!(answer.stdout, "", "{answer}");
    assert!(answer.stderr.contains("report: report.html ("), "{answer}");
    assert!(before == snapshot(&path.join("run")), "the run was changed");
    let page = text(&path.join("report.html"));
    whole(&page);
    for id in [
        "accuracy",
        "soundness",
        "attacks",
        "curves",
        "examples",
        "views",
        "map",
        "surface",
        "classes",
        "corruptions",
        "calibration",
        "transfer",
        "training",
        "repeat",
    ] {
        assert!(
            page.contains(&format!("<h2 id=\"h-{id}\">")),
            "no section {id}"
        );
        assert!(page.contains(&format!("href=\"#{id}\"")), "no link to {id}");
    }
    assert!(!page.contains("id=\"missing\""));
    // 6 images by 2 classifiers, three pictures each; 6 images by 6 views.
    assert_eq!(page.matches("<img ").count(), 36 + 36);
    for words in [
        "attacks are &lt;blind&gt; here",
        "Read this first",
        "1 of 2 checks do not hold",
        "AutoAttack",
        "expected calibration error as they are 12.3\u{a0}%",
        "jpeg compression",
        "[pretrain.advcl]",
        "advcl run recipe.toml --run run",
        "made on \\ shown to",
    ] {
        assert!(page.contains(words), "{words:?} is not in the page");
    }
    // The same again, to the bit; a name that was told is replaced, the usual one is not.
    refused_at_the_door(
        path,
        "report run",
        &["report.html", "-o report.html replaces it"],
    );
    advcl(path, "report run -o report.html --quiet").expect(0);
    assert!(text(&path.join("report.html")) == page, "another page");
}

#[test]
fn what_is_missing_is_said_with_the_command_that_makes_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    put(path.join("tiny.toml"), only_simclr());
    let run = "run&amp;<b>";
    advcl(path, &format!("run tiny.toml --run {run}")).expect(0);
    advcl(path, &format!("report {run} -o page.html")).expect(0);
    let page = text(&path.join("page.html"));
    whole(&page);
    assert!(
        page.contains("<h1>run&amp;amp;&lt;b&gt;</h1>"),
        "a name is text"
    );
    let missing = page.split("id=\"missing\"").nth(1).expect("a list");
    for words in [
        "--attack autoattack</code> makes it",
        "--measure radius,steps</code> makes it",
        "--measure corruptions</code> makes it",
        "no [pretrain.advcl]",
    ] {
        assert!(missing.contains(words), "{words:?} in {missing}");
    }
    assert!(page.contains("An upper bound."));
    for id in ["examples", "map", "surface", "training"] {
        assert!(
            page.contains(&format!("<h2 id=\"h-{id}\">")),
            "no section {id}"
        );
    }
}

#[test]
fn runs_and_seeds_side_by_side() {
    let folder = trained();
    let path = folder.path();
    let seeds = "compare.seeds=[1,2]";
    advcl(path, &format!("compare tiny.toml --run both --set {seeds}")).expect(0);
    advcl(path, "report run both -o page.html --mode slf").expect(0);
    let page = text(&path.join("page.html"));
    whole(&page);
    for words in [
        "run: AdvCL · SLF",
        "both: AdvCL · SLF",
        "<span class=\"range\"> ± ",
    ] {
        assert!(page.contains(words), "{words:?} is not in the page");
    }
    let json = advcl(path, "report run both --json").expect(0).json();
    let lines = json["lines"].as_array().expect("a list");
    let counts: Vec<&Value> = lines.iter().map(|line| &line["seeds"]).collect();
    assert_eq!(counts, [1, 1, 2, 2]);
    assert_eq!(json["runs"].as_array().map(Vec::len), Some(3));
    let right = &json["runs"][0]["rows"][0];
    let share = right["outcome"]["clean_accuracy"]
        .as_f64()
        .expect("a share");
    let interval = &right["clean"];
    let end = |key: &str| interval[key].as_f64().expect("a share");
    assert!(
        end("low") < share && share < end("high") && end("share") == share,
        "{interval}"
    );

    let csv = advcl(path, "report both --format csv").expect(0).stdout;
    let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(lines.len(), 3, "{csv}");
    assert!(
        lines.iter().all(|line| line.len() == lines[0].len()),
        "{csv}"
    );
    let markdown = advcl(path, "report both --format md --method advcl")
        .expect(0)
        .stdout;
    assert!(
        markdown.contains("| AdvCL · SLF | ") && markdown.contains(" ± "),
        "{markdown}"
    );
    assert!(!markdown.contains("SimCLR"), "{markdown}");
    advcl(path, "report both --format md -o table.md").expect(0);
    assert!(text(&path.join("table.md")).starts_with("# Robustness report"));
}

#[test]
fn what_is_no_run_is_refused() {
    let folder = trained();
    let path = folder.path();
    std::fs::create_dir(path.join("empty")).expect("a folder");
    put(
        path.join("begun/recipe.toml"),
        get(path.join("run/recipe.toml")),
    );
    for (args, words) in [
        ("report", "a report is of a run folder"),
        ("report nowhere", "run nowhere: no such folder"),
        ("report tiny.toml", "run tiny.toml: a file, not a folder"),
        ("report empty", "run empty: no run: it has no recipe.toml"),
        ("report begun", "run begun: nothing was evaluated yet"),
        ("report begun", "hint: go on with it: advcl run begun"),
        ("report run begun", "run begun: nothing was evaluated yet"),
        ("report run --method advlc", "did you mean \"advcl\"?"),
        ("report run --mode aff", "nothing of it was evaluated"),
        (
            "report run --set seed=9",
            "a report shows a run as it was made",
        ),
        ("report run --device gpu", "no such device"),
        ("report run -o empty", "cannot write empty"),
        (
            "report run -o nowhere/page.html",
            "cannot write nowhere/page.html",
        ),
    ] {
        refused_at_the_door(path, args, &[words]);
    }
    let copy = |name: &str| {
        crate::copy(&path.join("run"), &path.join(name));
        path.join(name)
    };
    // Files that another version wrote, or that were changed.
    let old = copy("old");
    put(
        old.join("advcl/slf/result.json"),
        "{\"recipe\": \"\", \"accuracy\": 0.5}",
    );
    refused_at_the_door(path, "report old", &["old/advcl/slf/result.json", "found"]);
    let note = String::from_utf8(get(old.join("run.json"))).expect("UTF-8");
    put(
        old.join("run.json"),
        note.replace(env!("CARGO_PKG_VERSION"), "0.0.1"),
    );
    refused_at_the_door(path, "report old", &["written by advcl 0.0.1, this is"]);
    let cut = copy("cut");
    std::fs::remove_file(cut.join("summary.json")).expect("was there");
    put(cut.join("advcl/slf/measures.json"), "{\"images\": 3");
    refused_at_the_door(path, "report cut", &["measures.json: line 1, column 12"]);
    let without = copy("without");
    std::fs::remove_file(without.join("advcl/slf/model.safetensors")).expect("was there");
    refused_at_the_door(
        path,
        "report without",
        &["model.safetensors", "cannot read"],
    );
    // Its figures need no model.
    advcl(path, "report without --format md").expect(0);
}

#[test]
fn images_may_have_moved_but_must_be_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    for split in ["train", "test"] {
        for image in 0..24u8 {
            let class = if image % 2 == 0 { "dark" } else { "light" };
            let value = |i: usize| image % 2 * 120 + (i as u8 % 7) * 9 + image * 2;
            let pixels: Vec<u8> = (0..144).map(value).collect();
            let file = format!("images/{split}/{class}/{image}.png");
            put(path.join(file), crate::png(12, &pixels));
        }
    }
    let recipe = only_simclr()
        .replace("\"fashion-mnist-12k\"", "\"images\"")
        .replace("train_limit = 64\ntest_limit = 20\n", "");
    put(path.join("tiny.toml"), recipe);
    advcl(path, "run tiny.toml --run run").expect(0);
    advcl(path, "report run -o page.html").expect(0);
    std::fs::rename(path.join("images"), path.join("moved")).expect("a folder");
    refused_at_the_door(path, "report run -o new.html", &["images"]);
    advcl(path, "report run -o moved.html --set data.source=\"moved\"").expect(0);
    assert!(get(path.join("moved.html")) == get(path.join("page.html")));
    put(
        path.join("moved/train/dark/0.png"),
        crate::png(12, &[200; 144]),
    );
    refused_at_the_door(
        path,
        "report run -o new.html --set data.source=\"moved\"",
        &["of other images", "pixels"],
    );
}
