//! Model files without their run: evaluated on any images, and attacked image by image; adversarial images as PNG.

use std::path::Path;

use advcl::data::is_own_picture;
use serde_json::Value;

use crate::folder::{images, with_images};
use crate::{Transcript, advcl, contents, get, put};

const MODEL: &str = "model.safetensors";
/// Nothing that is told apart is as far from each other.
const FAR: &str = "--radius 0.6";

/// A folder with the images `set` and a model of them, whose run is gone.
fn with_model() -> tempfile::TempDir {
    let folder = with_images();
    let path = folder.path();
    let set = "--set finetune.slf.plan.epochs=30 --set finetune.slf.plan.lr=1.0";
    advcl(path, &format!("run r.toml --run run -q {set}")).expect(0);
    std::fs::rename(path.join("run/simclr/slf").join(MODEL), path.join(MODEL)).expect("a model");
    std::fs::remove_dir_all(path.join("run")).expect("a folder");
    folder
}

#[test]
fn a_model_file_is_evaluated_on_any_images() {
    let folder = with_model();
    let path = folder.path();
    let command = format!("evaluate {MODEL} --data set {FAR} --attack fgsm,apgd-ce");
    let before = contents(path);
    let mut transcript = Transcript::new(path);
    transcript.run(&command, 0);
    let answer = advcl(path, &format!("{command} --json")).expect(0);
    transcript.add_shape(&answer);
    assert!(before == contents(path), "a file was written");
    let figures = answer.json();
    let number = |value: &Value| value.as_u64().expect("a count");
    let total = &figures["accuracy"]["total"];
    assert_eq!(figures["images"], 16);
    assert_eq!(figures["split"], "test");
    assert_eq!(total["images"], 16);
    assert!(number(&total["clean"]) > 8, "{answer}");
    assert_eq!(figures["attacked"]["clean"], total["clean"]);
    assert_eq!(figures["attacked"]["robust"], 0, "{answer}");
    // As `predict` has it, image by image.
    let predicted = advcl(path, &format!("predict {MODEL} set/test --json")).expect(0);
    let predicted = predicted.json();
    let right = predicted
        .as_array()
        .expect("a list")
        .iter()
        .filter(|image| {
            let class = image["classes"][0]["class"].as_str().expect("a class");
            let file = image["image"].as_str().expect("a path");
            file.contains(&format!("/{class}/"))
        });
    assert_eq!(right.count() as u64, number(&total["clean"]));

    // A part of the images, by a model in a folder of its own.
    std::fs::create_dir(path.join("alone")).expect("a folder");
    std::fs::copy(path.join(MODEL), path.join("alone").join(MODEL)).expect("a copy");
    let limited = format!("evaluate alone --data set {FAR} --norm l2 --limit 4 --json");
    assert_eq!(advcl(path, &limited).expect(0).json()["images"], 4);
    // Images without a split, of another size.
    for (number, class) in ["b", "a"].iter().enumerate() {
        put(
            path.join(format!("other/{class}/1.png")),
            crate::png(20, &[if number == 0 { 20 } else { 200 }; 400]),
        );
    }
    let whole = advcl(path, &format!("evaluate {MODEL} --data other {FAR} --json")).expect(0);
    assert_eq!(whole.json()["split"], "all");
    assert!(
        whole.stderr.contains("no test images: all 2 are evaluated"),
        "{whole}"
    );
    transcript.check("a_model_file_on_any_images");
}

#[test]
fn what_a_model_file_cannot_be_evaluated_on_is_said() {
    let folder = with_model();
    let path = folder.path();
    images(&path.join("others"), ["a", "c"], 8);
    images(&path.join("run-like"), ["a", "b"], 4);
    put(path.join("run-like/recipe.toml"), get(path.join("r.toml")));
    put(path.join("mine.png"), crate::png(4, &[9; 16]));
    let mut transcript = Transcript::new(path);
    let on_set = format!("evaluate {MODEL} --data set");
    for args in [
        format!("evaluate {MODEL}"),
        on_set.clone(),
        format!("evaluate {MODEL} --data others {FAR}"),
        format!("evaluate run-like --data set {FAR}"),
        format!("{on_set} --radius 0"),
        format!("{on_set} --radius -1"),
        format!("{on_set} --radius nan"),
        format!("{on_set} --radius 1.5"),
        format!("{on_set} --radius 13 --norm l2"),
        format!("{on_set} {FAR} --limit 0"),
        format!("{on_set} {FAR} --attack fgsm,sqare"),
        format!("{on_set} {FAR} --save-adversarial found.safetensors"),
        format!("{on_set} {FAR} --attack fgsm --save-adversarial found.jpg"),
        format!("{on_set} {FAR} --attack fgsm --save-adversarial mine.png"),
        format!("{on_set} {FAR} --attack fgsm --save-adversarial set/"),
        format!("{on_set} {FAR} --attack fgsm --save-adversarial set/new/"),
        format!("{on_set} {FAR} --set evaluate.steps=3"),
        format!("attack {MODEL} mine.png --label d"),
        format!("attack {MODEL} mine.png --radius 1.5"),
        format!("attack {MODEL} mine.png -o mine.png"),
        format!("attack {MODEL} set -o set/pictures"),
    ] {
        transcript.refuse(&args);
    }
    transcript.check("what_a_model_file_cannot_be_evaluated_on");
}

#[test]
fn adversarial_examples_become_pictures_that_can_be_predicted() {
    let folder = with_model();
    let path = folder.path();
    let mut transcript = Transcript::new(path);
    let attack = format!("evaluate {MODEL} --data set {FAR} --attack apgd-ce");
    for output in ["pictures/", "sheet.png", "found.safetensors"] {
        let answer = advcl(path, &format!("{attack} --save-adversarial {output}")).expect(0);
        transcript.add_without_numbers(&answer);
    }
    assert!(is_own_picture(&path.join("sheet.png")).expect("a file"));
    // A link stays one: the file behind it is written.
    #[cfg(unix)]
    {
        let (link, behind) = (path.join("link.safetensors"), path.join("behind"));
        std::fs::copy(path.join("found.safetensors"), &behind).expect("a copy");
        std::os::unix::fs::symlink("behind", &link).expect("a link");
        let few = format!("{attack} --save-adversarial link.safetensors --limit 4 -q");
        advcl(path, &few).expect(0);
        let about = std::fs::symlink_metadata(&link).expect("a link");
        assert!(about.is_symlink());
        assert!(get(behind) != get(path.join("found.safetensors")));
    }
    let with_model = format!("adversarial show found.safetensors --model {MODEL} --data set");
    let json = advcl(path, &format!("{with_model} --json"));
    transcript.add_shape(&json);
    transcript.add_without_numbers(&advcl(path, "adversarial show found.safetensors").expect(0));
    advcl(path, &format!("{with_model} -q -o again")).expect(0);
    let files =
        |folder: &str| -> Vec<Vec<u8>> { contents(&path.join(folder)).into_values().collect() };
    assert!(files("pictures") == files("again"));
    // Without the model: the images alone, which are the same.
    advcl(path, "adversarial show found.safetensors -o bare").expect(0);
    // The list agrees with what is predicted for the pictures.
    let list = String::from_utf8(get(path.join("pictures/adversarial.csv"))).expect("text");
    let mut lines = list.lines();
    let heads = lines.next().expect("heads");
    transcript.note(heads);
    let predicted = advcl(path, &format!("predict {MODEL} pictures --json")).expect(0);
    let predicted = predicted.json();
    let predicted = predicted.as_array().expect("a list");
    let lines: Vec<&str> = lines.collect();
    assert_eq!(lines.len(), predicted.len());
    assert!(!lines.is_empty());
    for (line, image) in lines.iter().zip(predicted) {
        let cells: Vec<&str> = line.split(',').collect();
        let (file, class, rounded) = (cells[0], cells[2], cells[5]);
        assert_eq!(image["image"], format!("pictures/{file}"));
        assert_eq!(image["classes"][0]["class"], rounded);
        let fools = if class == rounded { "false" } else { "true" };
        assert_eq!(cells[7], fools, "{line}");
        let index: usize = cells[1].parse().expect("an index");
        let bare = get(path.join(format!("bare/{index:05}.png")));
        assert!(bare == get(path.join("pictures").join(file)), "{line}");
    }
    // A second time they are replaced; what is not ours keeps its folder.
    advcl(
        path,
        &format!("{attack} --save-adversarial pictures --limit 4"),
    )
    .expect(0);
    let left = std::fs::read_dir(path.join("pictures")).expect("a folder");
    assert!(left.count() <= 5);
    put(path.join("pictures/mine.txt"), "mine");
    transcript.refuse(&format!("{attack} --save-adversarial pictures"));
    transcript.refuse("adversarial show found.safetensors -o alone.png");
    transcript.refuse(&format!("adversarial show {MODEL}"));
    transcript.check("adversarial_examples_as_pictures");
}

/// The values of a gray PNG.
fn gray(path: &Path) -> Vec<u8> {
    let image = image::open(path).expect("a PNG");
    assert_eq!(image.color(), image::ColorType::L8);
    image.into_luma8().into_raw()
}

#[test]
fn images_are_attacked_one_by_one_and_a_bad_one_stops_no_other() {
    let folder = with_model();
    let path = folder.path();
    for (number, class) in ["a", "b"].iter().enumerate() {
        let file = get(path.join(format!("set/test/{class}/003.png")));
        put(path.join(format!("{number}/x.png")), file);
    }
    put(path.join("bad.png"), "no image");
    let mut transcript = Transcript::new(path);
    let command = format!("attack {MODEL} 0/x.png bad.png 1/x.png {FAR}");
    transcript.add_without_numbers(&advcl(path, &command).expect(1));
    let answer = advcl(path, &format!("{command} -o out --json")).expect(1);
    transcript.add_shape(&answer);
    let found = answer.json();
    let found = found.as_array().expect("a list");
    assert_eq!(found.len(), 2);
    for (number, image) in found.iter().enumerate() {
        let radius = |key: &str| image[key].as_f64().expect("a radius");
        let step = 0.6 / 64.0 + 1e-9;
        assert!(
            radius("falls") > 0.0 && radius("falls") - radius("holds") <= step,
            "{answer}"
        );
        let adversarial = &image["adversarial"];
        assert_eq!(adversarial["within_radius"], true);
        assert_ne!(adversarial["predicted"]["class"], image["label"]);
        let name = ["x", "x-2"][number];
        let picture = path.join(format!("out/{name}-adversarial.png"));
        let original = gray(&path.join(format!("{number}/x.png")));
        let far = gray(&picture)
            .into_iter()
            .zip(&original)
            .map(|(a, b)| a.abs_diff(*b));
        let far = f64::from(far.max().expect("pixels")) / 255.0;
        let said = adversarial["distance_rounded"]
            .as_f64()
            .expect("a distance");
        assert!((far - said).abs() < 1e-6, "{far}, {said}");
        let change = gray(&path.join(format!("out/{name}-change.png")));
        assert!(change.contains(&0) || change.contains(&255));
        let again = advcl(
            path,
            &format!("predict {MODEL} out/{name}-adversarial.png --json"),
        );
        let class = &again.json()[0]["classes"][0]["class"];
        assert_eq!(*class, adversarial["rounded"]["class"]);
        // The smallest radius is one at which it falls, by another way.
        let falls = radius("falls");
        let once = format!("attack {MODEL} {number}/x.png --radius {falls} --json");
        let once = advcl(path, &once).expect(0);
        assert!(
            once.json()[0]["adversarial"]["within_radius"] == true,
            "{once}"
        );
    }
    transcript
        .note("Files that are there, another class, a class that is wrong anyway, one bad file");
    transcript.refuse(&format!("attack {MODEL} 0/x.png {FAR} -o out"));
    advcl(
        path,
        &format!("attack {MODEL} 0/x.png {FAR} -o out --replace"),
    )
    .expect(0);
    let predicted = found[0]["clean"]["class"].as_str().expect("a class");
    let wrong = if predicted == "a" { "b" } else { "a" };
    let labeled = format!("attack {MODEL} 0/x.png {FAR} --label {wrong} --json");
    let labeled = advcl(path, &labeled).expect(0).json();
    assert_eq!(labeled[0]["falls"], 0.0);
    assert_eq!(labeled[0]["adversarial"], Value::Null);
    transcript.refuse(&format!("attack {MODEL} bad.png"));
    transcript.check("attacked_images");
}

#[test]
fn radii_above_1_are_those_of_l2() {
    let folder = with_images();
    let path = folder.path();
    let l2 = |radius: &str| {
        let radius = format!("norm=\"l2\",radius=\"{radius}\"");
        format!("--set threat={{{radius}}}")
    };
    let mut transcript = Transcript::new(path);
    let set = "--set evaluate.step_size=\"1.25\"";
    advcl(
        path,
        &format!("run r.toml --run run -q {} {set}", l2("1.5")),
    )
    .expect(0);
    let measured = format!("evaluate run {} --measure radius --json", l2("2.5"));
    let measured = advcl(path, &measured).expect(0);
    assert_eq!(measured.json()["outcomes"][0]["threat"]["radius"], "2.5");
    advcl(path, "report run -o page.html").expect(0);
    let page = String::from_utf8(get(path.join("page.html"))).expect("text");
    assert!(
        page.contains("1.5 (L2)") || page.contains("1.5 (L₂)"),
        "no radius"
    );
    for args in [
        // Images of 12 × 12 values are 12 apart at most.
        format!("run r.toml --run far {}", l2("12.5")),
        format!(
            "run r.toml --run far {} --set evaluate.step_size=\"13\"",
            l2("1.5")
        ),
        format!("run r.toml --run far {}", l2("-1")),
        format!("run r.toml --run far {}", l2("inf")),
        "run r.toml --run far --set threat.radius=\"1.5\"".to_owned(),
        "run r.toml --run far --set evaluate.step_size=\"0\"".to_owned(),
    ] {
        transcript.refuse_after_a_start(&args);
    }
    transcript.check("radii_within_l2");
}
