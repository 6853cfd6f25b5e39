//! `evaluate --measure`: what is measured, kept, measured anew, refused.

use std::path::Path;

use advcl::data::corrupt::KINDS;
use advcl::evaluate::measures::{Measures, Point, Transfer};
use advcl::weights;
use serde_json::Value;

use crate::{Transcript, advcl, contents, folder_after, get, put};

const ROW: &str = "evaluate run --method advcl --mode slf";

/// Two trained rows in `run`, of encoders that are hardly trained.
fn trained() -> tempfile::TempDir {
    folder_after("run tiny.toml --run run")
}

/// What was measured of AdvCL's row, each measure a result.
fn record(path: &Path) -> Vec<Value> {
    let file = path.join("run/advcl/slf/measures.json");
    let record: Value = serde_json::from_slice(&get(file)).expect("JSON");
    record["results"].as_array().expect("results").clone()
}

fn measures(value: &Value) -> Measures {
    serde_json::from_value(value.clone()).expect("measures")
}

#[test]
fn all_is_measured_kept_and_consistent() {
    let folder = trained();
    let path = folder.path();
    let answer = advcl(path, "evaluate run --measure all --measure-limit 10").expect(0);
    let mut transcript = Transcript::new(path);
    transcript.add_without_numbers(&answer);
    let before = contents(&path.join("run"));
    assert_eq!(record(path).len(), 8);
    let answer = advcl(path, "evaluate run --json").expect(0).json();
    let found = measures(&answer["outcomes"][1]["measures"]);
    assert_eq!(found.images, 10);

    // Curves fall; where nothing is attacked they agree.
    let clean = found.radius[0].points[0].accuracy;
    assert_eq!(found.radius.len(), 2);
    for (curve, farthest) in found.radius.iter().zip([0.4, 2.8]) {
        let (first, last) = (curve.points[0], curve.points[8]);
        assert_eq!((first.at, first.accuracy), (0.0, clean));
        assert!((last.at - farthest).abs() < 1e-9, "{curve:?}");
        assert!(curve.points.is_sorted_by(|a, b| a.at < b.at), "{curve:?}");
        let falls = |points: &[Point]| points.is_sorted_by(|a, b| a.accuracy >= b.accuracy);
        assert!(falls(&curve.points) && falls(&found.steps), "{found:?}");
    }
    let steps: Vec<f64> = found.steps.iter().map(|point| point.at).collect();
    assert_eq!(steps, [0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
    assert_eq!(found.steps[0].accuracy, clean);
    let kinds: Vec<&str> = found.corruptions.iter().map(|c| c.kind.as_str()).collect();
    assert_eq!(kinds, KINDS.map(|(name, _)| name));
    let shares = found.corruptions.iter().flat_map(|c| c.accuracy);
    assert!(shares.clone().all(|share| (0.0..=1.0).contains(&share)));
    assert!(
        shares.clone().any(|share| share != clean),
        "corruptions change nothing"
    );

    // A patch of √(0.05 · 784) pixels breaks some; what is certified is what the counts certify.
    let patch = found.patch.expect("measured");
    assert_eq!((patch.side, patch.places, patch.steps), (6, 2, 3));
    assert_eq!((patch.clean.share, patch.clean.images), (clean, 10));
    assert!(patch.robust.share <= clean, "{patch:?}");
    let certified = found.smoothing.as_ref().expect("measured");
    assert_eq!(certified.certificates.len(), 10);
    for one in &certified.certificates {
        assert_eq!(one.votes.iter().map(|vote| vote.1).sum::<usize>(), 5);
        assert_eq!(one.radius, certified.settings.radius(one.hits));
    }
    let fall = |a: &Point, b: &Point| a.at < b.at && a.accuracy >= b.accuracy;
    assert!(certified.points.is_sorted_by(fall), "{certified:?}");
    assert!(certified.points.len() > 1, "{certified:?}");

    // Matrices and bins hold every image once, and agree on what is right.
    let calibration = found.calibration.as_ref().expect("measured");
    let attacked = found.calibration_attacked.as_ref().expect("measured");
    for (confusion, calibration) in [
        (&found.confusion, calibration),
        (&found.confusion_attacked, attacked),
    ] {
        // One image of each class.
        assert!((0..10).all(|class| confusion.of_class(class) == 1));
        let right: usize = (0..10).map(|class| confusion.get(class, class)).sum();
        let bins = &calibration.bins;
        assert_eq!(bins.iter().map(|bin| bin.images).sum::<usize>(), 10);
        let sum: f64 = bins
            .iter()
            .map(|bin| bin.accuracy * bin.images as f64)
            .sum();
        assert!((sum - right as f64).abs() < 1e-9, "{calibration:?}");
        assert!((0.0..=1.0).contains(&calibration.error));
    }
    let right: usize = (0..10).map(|class| found.confusion.get(class, class)).sum();
    assert_eq!(right as f64 / 10.0, clean);
    let near = found.neighbours.expect("measured");
    assert_eq!(near.k, 20);
    assert!(near.attacked <= 1.0 && near.clean > 0.0, "{near:?}");

    // Rows and columns in the table's order.
    let file = get(path.join("run/transfer.json"));
    let file: Value = serde_json::from_slice(&file).expect("JSON");
    let transfer: Transfer = serde_json::from_value(file["results"][0].clone()).expect("a matrix");
    assert_eq!(transfer.classifiers, ["simclr/slf", "advcl/slf"]);
    assert_eq!(transfer.clean[1], clean);
    let attacked = &found.confusion_attacked;
    let own: usize = (0..10).map(|class| attacked.get(class, class)).sum();
    assert_eq!(transfer.accuracy[1][1], own as f64 / 10.0);

    // It is all in the JSON, and nothing is measured again.
    let answer = advcl(path, "evaluate run --measure all --measure-limit 10 --json").expect(0);
    transcript.add_shape(&answer);
    transcript.check("all_measures");
    let answer = answer.json();
    assert_eq!(measures(&answer["outcomes"][1]["measures"]), found);
    assert_eq!(
        answer["transfer"]["accuracy"],
        serde_json::json!(transfer.accuracy)
    );
    for file in [
        "advcl/slf/measures.json",
        "simclr/slf/measures.json",
        "transfer.json",
    ] {
        let file = path.join("run").join(file);
        assert!(before[&file] == get(&file), "{file:?} was written again");
    }
}

#[test]
fn what_changed_is_measured_anew_and_the_rest_is_not() {
    let folder = trained();
    let path = folder.path();
    let measure = |more: &str| {
        let answer = advcl(path, &format!("{ROW} --measure-limit 10 --json {more}"));
        measures(&answer.expect(0).json()["outcomes"][0]["measures"])
    };
    let first = measure("--measure steps,confusion");
    assert!(
        !first.steps.is_empty() && first.radius.is_empty(),
        "{first:?}"
    );
    // A part more, the others kept; batches of another size change nothing.
    let more = measure("--measure radius --set evaluate.batch_size=3");
    assert_eq!(
        (&more.steps, &more.confusion),
        (&first.steps, &first.confusion)
    );
    std::fs::remove_file(path.join("run/advcl/slf/measures.json")).expect("was written");
    let again = measure("--measure radius,steps,confusion --set evaluate.batch_size=4");
    assert_eq!(again, more);
    // PGD's steps are part of the confusion, not of the curves: what no longer holds is dropped.
    let other = measure("--measure radius --set evaluate.steps=3");
    assert_eq!((&other.steps, &other.radius), (&more.steps, &more.radius));
    assert!(other.confusion.classes() == 0, "{other:?}");
    // Their own keys are part of the patch and of smoothing.
    let both = measure("--measure patch,smoothing");
    let places = measure("--measure patch,smoothing --set evaluate.patch.places=1");
    assert_eq!(
        (&places.smoothing, &places.radius),
        (&both.smoothing, &more.radius)
    );
    assert_eq!(places.patch.map(|patch| patch.places), Some(1));
    let set = "--set evaluate.smoothing.sigma=0.5 --set evaluate.batch_size=7";
    let louder = measure(&format!("--measure patch,smoothing {set}"));
    assert_eq!(louder.patch, both.patch);
    assert_ne!(louder.smoothing, both.smoothing);
    // What was measured before is shown again, in the place of what was measured since.
    let again = measure("--measure patch");
    assert_eq!(
        (again.patch, &again.smoothing),
        (both.patch, &louder.smoothing)
    );
    // Fewer images: the curve of more stays, with its own number of images.
    let fewer = advcl(
        path,
        &format!("{ROW} --measure steps --measure-limit 5 --json"),
    );
    let fewer = measures(&fewer.expect(0).json()["outcomes"][0]["measures"]);
    assert_eq!(fewer.images, 5);
    assert_eq!(fewer.radius, more.radius);
    assert!(
        fewer.steps.iter().all(|point| point.images == 5),
        "{fewer:?}"
    );
    assert!(
        fewer.radius[0]
            .points
            .iter()
            .all(|point| point.images == 10)
    );
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let folder = trained();
    let path = folder.path();
    let mut transcript = Transcript::new(path);
    for args in [
        "--measure raduis",
        "--measure=",
        "--measure steps --measure-limit 0",
        "--measure-limit 5",
        "--measure steps --verify x",
    ] {
        transcript.refuse(&format!("{ROW} {args}"));
    }
    transcript.refuse_after_a_start(&format!("{ROW} --measure transfer"));
    transcript.note("One of all measures: it is left out, with a message.");
    let answer = advcl(path, &format!("{ROW} --measure all --measure-limit 5")).expect(0);
    transcript.add_without_numbers(&answer);
    assert!(!path.join("run/transfer.json").exists());

    let file = path.join("run/advcl/slf/measures.json");
    let whole = get(&file);
    put(&file, &whole[..whole.len() / 2]);
    transcript.note("The first half of measures.json.");
    transcript.refuse_after_a_start(&format!("{ROW} --measure steps"));
    std::fs::remove_file(&file).expect("was written");

    // Weights whose logits are beyond all numbers.
    let model = path.join("run/advcl/slf/model.safetensors");
    let (mut tensors, metadata) = weights::load(&model).expect("a model");
    let (_, values) = tensors.get_mut("linear.weight").expect("a classifier");
    values.fill(f32::MAX);
    let metadata: Vec<(&str, String)> = metadata
        .iter()
        .map(|(key, text)| (key.as_str(), text.clone()))
        .collect();
    weights::save(&model, &tensors, &metadata).expect("a file");
    for measure in [
        "radius",
        "steps",
        "corruptions",
        "patch",
        "smoothing",
        "confusion",
    ] {
        transcript.run(&format!("{ROW} --measure {measure}"), 1);
    }
    transcript.check("impossible_measures");
}

#[cfg(unix)]
#[test]
fn an_interrupted_measurement_goes_on_where_it_was() {
    use crate::signals::{ended, signal, start};
    use std::time::{Duration, Instant};

    let folder = trained();
    let path = folder.path();
    let args = "evaluate --method advcl --mode slf --measure all";
    ended(start(path, args, "run", &[])).expect(0);
    let whole = record(path);
    let file = path.join("run/advcl/slf/measures.json");
    std::fs::remove_file(&file).expect("was written");
    let mut child = start(path, args, "run", &[]);
    let started = Instant::now();
    while !file.exists() && child.try_wait().expect("ours").is_none() {
        assert!(started.elapsed() < Duration::from_secs(60), "no part");
        std::thread::sleep(Duration::from_millis(1));
    }
    signal(&child, "-INT");
    let stopped = ended(child).expect(1);
    assert!(
        stopped.stderr.contains("stopped at advcl/slf/"),
        "{stopped}"
    );
    let part = record(path);
    assert!((1..8).contains(&part.len()), "{part:?}");
    ended(start(path, args, "run", &[])).expect(0);
    assert!(
        record(path) == whole,
        "another result than without the stop"
    );
}
