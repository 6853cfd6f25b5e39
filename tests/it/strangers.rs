//! Files and folders of strangers, damaged ones, and everything that a machine refuses: nothing hangs, nothing outside of
//! the folder changes, and what is wrong is said.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::signals::{ended, signal, wait_for_epoch};
use crate::{
    Answer, Transcript, advcl, answer, command_line, copy, folder_after, get, program, put,
    without_checksum,
};

/// A command that has to end by itself within half a minute.
#[track_caller]
fn in_time(folder: &Path, args: &str) -> Answer {
    let mut command = program(folder);
    command.args(args.split_whitespace());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let line = command_line(&command);
    let mut child = command.spawn().expect("the program starts");
    let started = Instant::now();
    while child.try_wait().expect("a child of ours").is_none() {
        if started.elapsed() > Duration::from_secs(30) {
            child.kill().expect("a child of ours");
            panic!("no end of {line}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut answer = ended(child);
    answer.command = line;
    answer
}

fn pipe(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status();
    assert!(made.expect("mkfifo exists").success());
}

#[cfg(unix)]
#[test]
fn pipes_in_a_run_folder_and_named_as_files_are_refused_at_once() {
    let folder = folder_after("run tiny.toml --run run");
    let path = folder.path();
    let mut transcript = Transcript::new(path);
    for (file, command) in [
        (".lock", "evaluate PIPED -q"),
        ("metrics.jsonl", "report PIPED -o r.html -q"),
        ("recipe.toml", "evaluate PIPED -q"),
        ("run.json", "evaluate PIPED -q"),
        ("advcl/slf/result.json", "report PIPED --format csv"),
        ("advcl/slf/model.safetensors", "evaluate PIPED -q"),
        ("summary.json", "report PIPED --format csv"),
    ] {
        let piped = path.join("piped");
        copy(&path.join("run"), &piped);
        std::fs::remove_file(piped.join(file)).expect("a file of the run");
        pipe(&piped.join(file));
        let answer = in_time(path, &command.replace("PIPED", "piped"));
        transcript.note(&format!("a pipe for {file}"));
        transcript.add(&answer.expect(2));
        std::fs::remove_dir_all(&piped).expect("a folder");
    }
    pipe(&path.join("p"));
    for command in [
        "evaluate run --verify p -q",
        "predict p run/recipe.toml",
        "import p -o o.safetensors",
        "run p --run other",
        "data inspect run --recipe p",
    ] {
        transcript.add(&in_time(path, command).expect(2));
    }
    transcript.check("pipes");
}

#[cfg(unix)]
#[test]
fn outputs_that_are_links_pipes_or_devices_stay_what_they_are() {
    let folder = folder_after("run simclr.toml --run run");
    let path = folder.path();
    // A link: the file behind it is written.
    put(path.join("page.html"), b"old");
    std::os::unix::fs::symlink("page.html", path.join("link.html")).expect("a link");
    advcl(path, "report run -o link.html -q --replace").expect(0);
    let about = std::fs::symlink_metadata(path.join("link.html")).expect("a link");
    assert!(about.is_symlink());
    assert!(get(path.join("page.html")).starts_with(b"<!DOCTYPE html>"));
    // A pipe: what is read from it is the output.
    pipe(&path.join("p"));
    let reader = std::process::Command::new("cat")
        .arg(path.join("p"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("cat exists");
    advcl(path, "report run --format csv -o p").expect(0);
    let read = reader.wait_with_output().expect("a child of ours").stdout;
    assert_eq!(
        read,
        advcl(path, "report run --format csv")
            .expect(0)
            .stdout
            .as_bytes()
    );
    // A device, by its usual names.
    advcl(path, "report run --format csv -o /dev/null").expect(0);
    let printed = advcl(path, "report run --format csv -o /dev/stdout")
        .expect(0)
        .stdout;
    assert_eq!(printed.as_bytes(), read);
    // Also where it is a file, which is the shell's: no other one takes its place.
    let redirected = std::fs::File::create(path.join("redirected.csv")).expect("a file");
    let seen = redirected.try_clone().expect("a handle");
    let mut command = program(path);
    command.args(["report", "run", "--format", "csv", "-o", "/dev/stdout"]);
    answer(command.stdout(redirected)).expect(0);
    let length = seen.metadata().expect("a file").len();
    assert_eq!(length, read.len() as u64);
    // So for every output that a user names.
    std::os::unix::fs::symlink("page.html", path.join("sheet.png")).expect("a link");
    let old = get(path.join("page.html"));
    advcl(path, "data inspect --recipe tiny.toml --sheet sheet.png").expect(2);
    assert!(old == get(path.join("page.html")));
    for command in [
        "data inspect --recipe tiny.toml --sheet sheet.png --replace",
        "import run/simclr/model.safetensors -o sheet.png --replace",
        "evaluate run --attack fgsm --save-adversarial sheet.png",
    ] {
        if command.starts_with("evaluate") {
            // What is there is no file of adversarial examples.
            advcl(path, command).expect(2);
            continue;
        }
        advcl(path, command).expect(0);
        let about = std::fs::symlink_metadata(path.join("sheet.png")).expect("a link");
        assert!(about.is_symlink(), "{command}");
    }
    assert!(get(path.join("page.html"))[8..].starts_with(b"{\"__metadata__\""));
    let null = std::fs::metadata("/dev/null").expect("a device");
    assert!(!null.is_file());
}

#[test]
fn bit_rot_is_found_and_named_and_check_says_what_to_do() {
    let folder = folder_after("run tiny.toml --run run --set evaluate.attack='fgsm'");
    let path = folder.path();
    let mut transcript = Transcript::new(path);
    transcript.note("A whole folder, and what another recipe would make stale");
    let mut check = |args: &str, code: i32| {
        let answer = advcl(path, &format!("check run{args}")).expect(code);
        transcript.add_without_numbers(&answer);
    };
    check("", 0);
    check(" --set pretrain.advcl.attack_steps=3", 0);
    let whole = crate::contents(&path.join("run"));
    // One bit in the middle of each file.
    for file in [
        "simclr/model.safetensors",
        "advcl/checkpoint.safetensors",
        "pseudo_labels.safetensors",
        "advcl/slf/result.json",
        "advcl/slf/attack.json",
        "advcl/slf/soundness.json",
    ] {
        let file = path.join("run").join(file);
        let mut bytes = get(&file);
        // In the middle of the values, or in the name of a key.
        let key = b"depends_on";
        let at = bytes.windows(key.len()).position(|part| part == key);
        let at = at.filter(|_| file.extension().is_some_and(|e| e == "json"));
        let at = at.unwrap_or(bytes.len() / 2);
        bytes[at] ^= 1;
        put(&file, bytes);
    }
    put(path.join("run/advcl/.a1B2c3.part"), b"half a model");
    let rotten = crate::contents(&path.join("run"));
    transcript.note("One bit is another in six files, and a process was killed while it wrote");
    transcript.add_without_numbers(&advcl(path, "check run").expect(1));
    assert!(
        rotten == crate::contents(&path.join("run")),
        "a check changes nothing"
    );
    transcript.note("What needs a damaged file names it");
    for command in [
        "finetune run --method simclr --set finetune.slf.plan.epochs=4",
        "evaluate run --method advcl --set finetune.slf.plan.epochs=3",
        "report run",
    ] {
        transcript.run(command, 2);
    }
    transcript.check("bit_rot");
    assert!(
        !path.join("run/advcl/.a1B2c3.part").exists(),
        "removed with the lock"
    );
    // Every file that can be made again is: the same bits.
    for file in [
        "simclr/model.safetensors",
        "advcl/slf/result.json",
        "advcl/slf/attack.json",
    ] {
        std::fs::remove_file(path.join("run").join(file)).expect("a file of the run");
    }
    for (file, content) in &whole {
        if file.ends_with("checkpoint.safetensors") || file.ends_with("pseudo_labels.safetensors") {
            put(file, content);
        }
    }
    put(
        path.join("run/advcl/slf/soundness.json"),
        &whole[&path.join("run/advcl/slf/soundness.json")],
    );
    advcl(path, "run --run run -q").expect(0);
    let model = path.join("run/simclr/model.safetensors");
    assert!(get(&model) == whole[&model]);
}

#[test]
fn counts_that_cannot_be_are_refused() {
    let folder = folder_after("run simclr.toml --run run");
    let path = folder.path();
    let file = path.join("run/simclr/slf/result.json");
    let text = String::from_utf8(get(&file)).expect("UTF-8");
    let text = without_checksum(&text);
    let changed = |from: &str, to: &str| {
        assert!(text.contains(from), "{from} in {text}");
        text.replacen(from, to, 1)
    };
    let mut transcript = Transcript::new(path);
    for (from, to) in [
        ("\"images\": 20", "\"images\": 2"),
        ("\"clean_accuracy\": 0", "\"clean_accuracy\": 7"),
        ("\"robust\": ", "\"robust\": 9"),
        ("\"robust\": ", "\"robust\": -9"),
        ("\"evaluate\": ", "\"evaluate\": -1"),
    ] {
        put(&file, changed(from, to));
        transcript.note(&format!("{from} → {to}"));
        for command in ["report run --format csv", "evaluate run"] {
            transcript.add_without_numbers(&advcl(path, command).expect(2));
        }
    }
    transcript.check("impossible_counts");
}

#[cfg(unix)]
#[test]
fn signals_that_were_ignored_stay_ignored() {
    let folder = crate::folder();
    let path = folder.path();
    let mut command = std::process::Command::new("nohup");
    command.current_dir(path).arg(env!("CARGO_BIN_EXE_advcl"));
    let long = "pretrain.simclr.plan.epochs = 100000";
    command.args(["pretrain", "simclr.toml", "--run", "run", "--set", long]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("nohup exists");
    wait_for_epoch(&mut child, path, "simclr");
    signal(&child, "-HUP");
    // It goes on: two epochs more.
    wait_for_epoch(&mut child, path, "simclr");
    wait_for_epoch(&mut child, path, "simclr");
    signal(&child, "-TERM");
    let answer = ended(child).expect(1);
    assert!(answer.stderr.contains("stopped at simclr"), "{answer}");
}

#[test]
fn precision_belongs_to_the_run_and_is_said() {
    let folder = folder_after("pretrain simclr.toml --run run --precision bf16 -q");
    let path = folder.path();
    let recipe = String::from_utf8(get(path.join("run/recipe.toml"))).expect("UTF-8");
    assert!(recipe.contains("precision = \"bf16\""), "{recipe}");
    // The run's own precision, without being told again; another one makes another encoder.
    let model = get(path.join("run/simclr/model.safetensors"));
    advcl(path, "pretrain run -q").expect(0);
    assert!(model == get(path.join("run/simclr/model.safetensors")));
    let other = advcl(path, "pretrain run --precision f32").expect(0);
    let words = "making the SimCLR encoder again: precision \"bf16\" → \"f32\"";
    assert!(other.stderr.contains("precision"), "no {words} in\n{other}");
    let about = String::from_utf8(get(path.join("run/run.json"))).expect("UTF-8");
    assert!(about.contains("\"arithmetic\": ["), "{about}");
    advcl(path, "run run -q").expect(0);
    advcl(path, "report run -o r.html -q").expect(0);
    let page = String::from_utf8(get(path.join("r.html"))).expect("UTF-8");
    assert!(
        page.contains("arithmetic") && page.contains(", f32"),
        "not in the page"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn errors_of_the_machine_have_a_code_of_their_own() {
    let folder = folder_after("run simclr.toml --run run");
    let path = folder.path();
    let mut command = program(path);
    command.args(["list", "methods"]).stdout(Stdio::from(
        std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .expect("a device"),
    ));
    let full = answer(&mut command).expect(3);
    assert!(full.stderr.contains("No space left"), "{full}");
    let full = advcl(path, "report run --format csv -o /dev/full").expect(3);
    assert!(full.stderr.contains("cannot write /dev/full"), "{full}");
    advcl(path, "predict nowhere run/recipe.toml").expect(2);
}
