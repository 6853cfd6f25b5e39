//! Interrupted and killed runs.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use advcl::weights;

use crate::{Answer, Transcript, advcl, answer, folder, folder_after, get, program};

/// Long enough to be met at work.
const LONG: [&str; 3] = [
    "pretrain.simclr.plan.epochs = 25",
    "pretrain.advcl.plan.epochs = 15",
    "finetune.slf.plan.epochs = 5",
];

/// Starts `advcl ARGS --run RUN`, with keys of the recipe overridden.
pub fn start(folder: &Path, args: &str, run: &str, set: &[&str]) -> Child {
    let mut command = program(folder);
    command.args(args.split_whitespace()).args(["--run", run]);
    for line in set {
        command.args(["--set", line]);
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the program starts")
}

/// Lines of the run's metrics about a stage.
fn epochs(folder: &Path, stage: &str) -> usize {
    let text = std::fs::read_to_string(folder.join("run/metrics.jsonl")).unwrap_or_default();
    let about = format!(r#""epoch","stage":"{stage}""#);
    text.lines().filter(|line| line.contains(&about)).count()
}

/// An answer without its lines of progress, whose number depends on when the signal came.
pub fn without_progress(mut answer: Answer) -> Answer {
    let lines = answer.stderr.lines();
    let lines = lines.filter(|line| !line.contains(" images/s, "));
    answer.stderr = lines.map(|line| format!("{line}\n")).collect();
    answer
}

/// Waits until the program has done one more epoch of a stage.
pub fn wait_for_epoch(child: &mut Child, folder: &Path, stage: &str) {
    let (before, started) = (epochs(folder, stage), Instant::now());
    while epochs(folder, stage) == before {
        let ended = child.try_wait().expect("a child of ours");
        assert!(
            ended.is_none(),
            "ended before an epoch of {stage}: {ended:?}"
        );
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "no epoch of {stage} in a minute"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Sends a signal to the program. Where these tests are a background job, which ignores SIGINT and so makes the program
/// ignore it, SIGTERM stands in for it.
pub fn signal(child: &Child, name: &str) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    const SIGINT: u64 = 2;
    let name = match name {
        "-INT" if ignored.unwrap_or(0) >> (SIGINT - 1) & 1 == 1 => "-TERM",
        name => name,
    };
    let status = Command::new("kill")
        .args([name, &child.id().to_string()])
        .status();
    assert!(status.expect("kill exists").success(), "kill {name}");
}

pub fn ended(child: Child) -> Answer {
    let output = child.wait_with_output().expect("a child of ours");
    Answer {
        command: "advcl, interrupted".to_owned(),
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn an_interrupted_and_killed_run_ends_like_one_that_was_not() {
    let folder = folder();
    let path = folder.path();
    let mut transcript = Transcript::new(path);
    let whole = ended(start(path, "run tiny.toml", "whole", &LONG)).expect(0);
    for (name, stage) in [
        ("-INT", "simclr"),
        ("-KILL", "simclr"),
        ("-TERM", "advcl"),
        ("-KILL", "advcl"),
    ] {
        let mut child = start(path, "run tiny.toml", "run", &LONG);
        wait_for_epoch(&mut child, path, stage);
        signal(&child, name);
        let answer = ended(child);
        if name == "-KILL" {
            assert_eq!(answer.code, None, "{answer}");
            continue;
        }
        let answer = without_progress(answer.expect(1));
        transcript.note(&format!("{name} in {stage}"));
        transcript.add_without_numbers(&answer);
        assert_eq!(answer.stdout, "", "no table of half a run");
    }
    let resumed = ended(start(path, "run tiny.toml", "run", &LONG)).expect(0);
    // The same table, but for the times.
    let accuracies = |answer: &Answer| -> Vec<String> {
        let row = |line: &str| {
            line.split_whitespace()
                .take(9)
                .collect::<Vec<_>>()
                .join(" ")
        };
        answer.stdout.lines().map(row).collect()
    };
    assert_eq!(accuracies(&whole), accuracies(&resumed));
    transcript.note("The last run");
    transcript.add_without_numbers(&without_progress(resumed));
    transcript.check("interrupted_runs");
    for file in ["simclr/model", "advcl/model", "pseudo_labels"] {
        let load = |run: &str| {
            let path = path.join(run).join(format!("{file}.safetensors"));
            weights::load(&path).unwrap_or_else(|error| panic!("{error}"))
        };
        assert!(load("whole") == load("run"), "{file} differs");
    }
}

#[test]
fn a_second_signal_stops_at_once() {
    let folder = folder_after(
        "pretrain tiny.toml --run run --method simclr --set pretrain.advcl.attack_steps=9999",
    );
    let path = folder.path();
    // One step of this pretraining takes minutes: only the second signal can end it.
    let mut command = program(path);
    command
        .args(["run", "--run", "run"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let started = Instant::now();
    while !path.join("run/pseudo_labels.safetensors").exists() {
        assert!(
            child.try_wait().expect("a child of ours").is_none(),
            "ended early"
        );
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "no pseudo-labels in a minute"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    // Of two signals that come before the program looks, the system keeps one. Another kind would do, but `nohup` has it ignored.
    while child.try_wait().expect("a child of ours").is_none() {
        signal(&child, "-INT");
        std::thread::sleep(Duration::from_millis(50));
    }
    let answer = ended(child);
    let mut transcript = Transcript::new(path);
    transcript.add_without_numbers(&without_progress(answer.expect(130)));
    transcript.check("a_second_signal");
    // The folder is free again, and what was done is there.
    advcl(path, "finetune --run run --method simclr").expect(0);
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run() {
    let folder = folder();
    // Each update multiplies the weights by about -30: not too much for one epoch.
    let mut command = program(folder.path());
    command.args(["run", "tiny.toml", "--run", "run"]);
    command.args(["--set", "pretrain.simclr.plan = { epochs = 20, lr = 30.0, weight_decay = 1.0, batch_size = 16, momentum = 0.0, schedule.cosine = {} }"]);
    let first = answer(&mut command).expect(1);
    assert!(first.stderr.contains("simclr: epoch 1/20"), "{first}");
    assert!(!folder.path().join("run/simclr/model.safetensors").exists());
    let checkpoint = folder.path().join("run/simclr/checkpoint.safetensors");
    let before = get(&checkpoint);
    let (tensors, _) = weights::load(&checkpoint).expect("a checkpoint");
    for (name, (_, values)) in tensors {
        assert!(values.iter().all(|value| value.is_finite()), "{name}");
    }
    // Again: from the checkpoint to the same end.
    let again = answer(&mut command).expect(1);
    assert_eq!(before, get(&checkpoint));
    let error = |answer: &Answer| {
        let (_, error) = answer.stderr.split_once("error: ").expect("an error");
        error.to_owned()
    };
    assert_eq!(error(&first), error(&again));
    let mut transcript = Transcript::new(folder.path());
    for answer in [first, again] {
        transcript.add_without_numbers(&without_progress(answer));
    }
    transcript.check("a_loss_that_is_not_finite");
}
