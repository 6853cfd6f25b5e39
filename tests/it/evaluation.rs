//! Evaluation by suites of attacks: what is kept, taken up again, checked, refused.

use std::path::Path;
use std::time::{Duration, Instant};

use advcl::attack::Norm;
use advcl::evaluate::adversarial::{Adversarial, ExamplesInfo};

use crate::signals::{ended, signal, start};
use crate::{Transcript, advcl, contents, folder, folder_after, get, put};

const ROW: &str = "evaluate run --method advcl --mode slf";

/// A trained row in `run`, whose classifier predicts more than one class: one that does not is
/// robust.
fn trained() -> tempfile::TempDir {
    folder_after("run tiny.toml --run run --set finetune.slf.plan.epochs=30")
}

/// File of the adversarial examples that a suite found.
fn examples(path: &Path) -> std::path::PathBuf {
    let entries = std::fs::read_dir(path.join("run/advcl/slf")).expect("a folder");
    let mut found = entries.map(|entry| entry.expect("readable").path());
    let examples = |path: &std::path::PathBuf| {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        name.is_some_and(|name| name.starts_with("adversarial-"))
    };
    found.find(examples).expect("a file of examples")
}

/// The record of a suite without its times, and the adversarial examples.
fn suite(path: &Path) -> (serde_json::Value, Vec<u8>) {
    let file = path.join("run/advcl/slf/attack.json");
    let mut record: serde_json::Value = serde_json::from_slice(&get(file)).expect("JSON");
    let mut record = record["results"][0].take();
    for attack in record["attacks"].as_array_mut().expect("a list") {
        attack["seconds"] = 0.into();
    }
    (record, get(examples(path)))
}

#[test]
fn autoattack_is_kept_and_its_examples_can_be_checked() {
    let folder = trained();
    let path = folder.path();
    let answer = advcl(
        path,
        &format!("{ROW} --attack autoattack --save-adversarial found.safetensors"),
    )
    .expect(0);
    let mut transcript = Transcript::new(path);
    transcript.add_without_numbers(&answer);
    let (record, examples) = suite(path);
    let count = |key: &str| record[key].as_u64().expect("a count") as usize;
    let (images, clean, robust) = (count("images"), count("clean"), count("robust"));
    assert_eq!(images, 20);
    let attacks = record["attacks"].as_array().expect("a list");
    let broken: u64 = attacks.iter().filter_map(|a| a["broken"].as_u64()).sum();
    assert_eq!(clean - robust, broken as usize, "{record}");
    assert!(examples == get(path.join("found.safetensors")));
    assert!(!path.join("run/advcl/slf/attack").exists(), "left behind");

    // Not computed again, for any size of a batch.
    let before = contents(&path.join("run/advcl/slf"));
    let again = advcl(path, &format!("{ROW} --json --set evaluate.batch_size=7")).expect(0);
    let outcome = &again.json()["outcomes"][0];
    assert_eq!(outcome["attacked"]["robust"], record["robust"]);
    let after = contents(&path.join("run/advcl/slf"));
    let file = path.join("run/advcl/slf/attack.json");
    assert!(before[&file] == after[&file]);

    // Anyone can check them.
    let checked = advcl(path, "evaluate run --verify found.safetensors --json").expect(0);
    let checked = checked.json();
    assert_eq!(checked["examples"], broken);
    assert_eq!(checked["valid"], broken);
    let share = robust as f64 / images as f64;
    assert_eq!(checked["robust_accuracy"], share);
    assert!(checked["farthest"].as_f64().expect("a distance") <= 0.1 + 1e-6);
    let words = advcl(path, "evaluate run --verify found.safetensors").expect(0);
    transcript.add_without_numbers(&words);
    transcript.check("autoattack");
}

#[cfg(unix)]
#[test]
fn folders_of_attacks_that_are_links_are_refused_and_left_alone() {
    use std::os::unix::fs::symlink;
    let folder = trained();
    let path = folder.path();
    let attack = format!("{ROW} --attack fgsm -q");
    advcl(path, &attack).expect(0);
    let file = path.join("run/advcl/slf/attack.json");
    let text = String::from_utf8(get(&file)).expect("UTF-8");
    let record: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let key = record["results"][0]["key"].as_str().expect("a text");
    let home = path.join("home");
    for name in ["precious", key] {
        put(home.join(name).join("file"), "x");
    }
    let before = contents(&home);
    // Any text may stand there.
    put(
        &file,
        crate::without_checksum(&text.replace(key, "precious")),
    );
    let pieces = path.join("run/advcl/slf/attack");
    symlink("../../../home", &pieces).expect("a link");
    advcl(path, &format!("{ROW} -q")).expect(0);
    let refused = advcl(path, &attack).expect(2);
    assert!(
        refused.stderr.contains("outside of the run folder"),
        "{refused}"
    );
    // The folder of the suite itself, whose name anyone can compute.
    std::fs::remove_file(&pieces).expect("a link");
    std::fs::remove_file(&file).expect("a file");
    std::fs::create_dir(&pieces).expect("a folder");
    symlink("../../../../home", pieces.join(key)).expect("a link");
    let refused = advcl(path, &attack).expect(2);
    assert!(
        refused.stderr.contains("outside of the run folder"),
        "{refused}"
    );
    assert!(before == contents(&home));
}

#[test]
fn an_interrupted_attack_goes_on_where_it_was() {
    let folder = trained();
    let path = folder.path();
    let keys = [
        "evaluate.attack = [{ kind = \"square\", queries = 300 }, { kind = \"apgd-ce\" }]",
        "evaluate.batch_size = 2",
    ];
    let args = "evaluate --method advcl --mode slf";
    ended(start(path, args, "run", &keys)).expect(0);
    let whole = suite(path);
    for file in [path.join("run/advcl/slf/attack.json"), examples(path)] {
        std::fs::remove_file(file).expect("was written");
    }
    for name in ["-INT", "-KILL"] {
        let pieces = || {
            let folders = std::fs::read_dir(path.join("run/advcl/slf/attack"));
            let folders = folders.into_iter().flatten().flatten();
            let files = folders.flat_map(|folder| std::fs::read_dir(folder.path()).ok());
            files.flatten().count()
        };
        let (before, started) = (pieces(), Instant::now());
        let mut child = start(path, args, "run", &keys);
        while pieces() <= before && child.try_wait().expect("ours").is_none() {
            assert!(started.elapsed() < Duration::from_secs(60), "no batch");
            std::thread::sleep(Duration::from_millis(1));
        }
        signal(&child, name);
        ended(child);
    }
    ended(start(path, args, "run", &keys)).expect(0);
    assert!(whole == suite(path), "another result than without the stop");
}

#[test]
fn wrong_adversarial_examples_are_found_or_refused() {
    let folder = trained();
    let path = folder.path();
    advcl(
        path,
        &format!("{ROW} --attack pgd --save-adversarial found.safetensors"),
    )
    .expect(0);
    let file = path.join("found.safetensors");
    let (found, about) = Adversarial::load(&file).expect("just written");
    let save = |name: &str, change: &dyn Fn(&mut Adversarial, &mut ExamplesInfo)| {
        let (mut examples, mut about) = (found.clone(), about.clone());
        change(&mut examples, &mut about);
        examples.save(&path.join(name), &about).expect("a file");
    };
    let size = 28 * 28;
    assert!(
        !found.indices.is_empty(),
        "PGD breaks a classifier of little training"
    );
    // Files that are whole, with examples that are none.
    save("far", &|e, _| e.images[..size].fill(1.0));
    save("outside", &|e, _| e.images[3] = -0.01);
    save("nan", &|e, _| e.images[3] = f32::NAN);
    let mut transcript = Transcript::new(path);
    for name in ["far", "outside", "nan"] {
        let answer = advcl(path, &format!("evaluate run --verify {name}")).expect(1);
        transcript.add_without_numbers(&answer);
        let words = format!("{name}: 1 of {} ", found.indices.len());
        assert!(answer.stderr.contains(&words), "{answer}");
    }
    // Files that are of something else, or none.
    save("other", &|_, about| {
        about.classifier = "advcl/alf".to_owned()
    });
    save("beyond", &|e, _| e.indices[0] = 20);
    save("shape", &|e, _| e.shape = [1, 14, 56]);
    save("twice", &|e, _| {
        e.indices.push(e.indices[0]);
        e.images.extend_from_within(..size);
    });
    put(path.join("cut"), &get(&file)[..400]);
    for name in [
        "other",
        "beyond",
        "shape",
        "twice",
        "cut",
        "run/advcl/model.safetensors",
        "nowhere",
    ] {
        transcript.refuse_after_a_start(&format!("evaluate run --verify {name}"));
    }
    // Whole and valid, of fewer or more images than the recipe attacks; the hint is what helps.
    let few = "--set evaluate.attack_limit=10";
    advcl(
        path,
        &format!("{ROW} --attack pgd {few} --save-adversarial few.safetensors"),
    )
    .expect(0);
    for (name, other, same) in [("found", few, ""), ("few", "", few)] {
        let verify = format!("evaluate run --verify {name}.safetensors");
        let refused = transcript.refuse_after_a_start(&format!("{verify} {other}"));
        let images = if same.is_empty() { 20 } else { 10 };
        let hint = format!("--set 'evaluate.attack_limit = {images}'");
        assert!(refused.stderr.contains(&hint), "{refused}");
        advcl(path, &format!("{verify} {same}")).expect(0);
        let hinted = format!("{verify} --set evaluate.attack_limit={images}");
        advcl(path, &hinted).expect(0);
    }
    transcript.check("wrong_adversarial_examples");
    assert_eq!(about.norm, Norm::Linf);
}

#[test]
fn impossible_attacks_are_refused() {
    let folder = trained();
    let path = folder.path();
    let mut transcript = Transcript::new(path);
    for args in [
        &format!("{ROW} --attack autoatack"),
        "evaluate run --attack fgsm --save-adversarial all.safetensors",
        &format!("{ROW} --save-adversarial none.safetensors"),
    ] {
        transcript.refuse_after_a_start(args);
    }
    transcript.check("impossible_attacks");
}

#[test]
fn nothing_breaks_at_radius_0_and_everything_at_radius_1() {
    let folder = folder();
    let path = folder.path();
    for radius in ["0", "1"] {
        let run = format!("run-{radius}");
        let made = advcl(
            path,
            &format!("run tiny.toml --run {run} --set threat.radius=\"{radius}\""),
        )
        .expect(0);
        // The recipe's steps are for a radius of 0.1.
        let words = "recipe: evaluate.step_size: 2 steps of 0.05 do not reach the radius of 1; ";
        assert_eq!(made.stderr.contains(words), radius == "1", "{made}");
        let answer = advcl(
            path,
            &format!("evaluate {run} --method advcl --attack apgd-ce --json"),
        )
        .expect(0);
        let attacked = &answer.json()["outcomes"][0]["attacked"];
        let (clean, robust) = (attacked["clean"].as_u64(), attacked["robust"].as_u64());
        let expected = if radius == "0" { clean } else { Some(0) };
        assert_eq!(robust, expected, "radius {radius}: {answer}");
    }
    // What is advised in the place of `--radius` brings a step size along.
    let refused = advcl(path, "evaluate run-0 --radius 0.5").expect(2);
    let advised = "--set 'evaluate.step_size = \"0.125\"'";
    assert!(refused.stderr.contains(advised), "{refused}");
}
