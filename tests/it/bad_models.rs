//! Bad input: the models and images of `predict`, and a disk that is full.

use std::io::Write as _;
use std::process::Stdio;

use advcl::weights;
use serde_json::{Value, json};

use crate::{Answer, Transcript, advcl, answer, contents, folder_after, get, png, program, put};

#[test]
fn models_and_images_that_predict_cannot_use() {
    let folder = folder_after("pretrain tiny.toml --method simclr --run run");
    let path = folder.path();
    let whole = png(28, &[7; 784]);
    put(path.join("good.png"), &whole);
    let mut transcript = Transcript::new(path);
    transcript.note("An encoder without a classifier.");
    transcript.refuse("predict run/simclr good.png");
    transcript.note("An encoder with a classifier beside it.");
    advcl(path, "finetune --method simclr --run run").expect(0);
    transcript.refuse("predict run/simclr good.png");
    advcl(path, "predict run/simclr/slf good.png").expect(0);

    put(path.join("cut.png"), &whole[..whole.len() - 20]);
    put(path.join("small.png"), png(12, &[7; 144]));
    put(path.join("text.png"), "not a picture");
    put(path.join("none/readme.txt"), "no pictures");
    put(path.join("text.safetensors"), "not a model");
    let cut = get(path.join("run/simclr/slf/model.safetensors"));
    put(path.join("cut.safetensors"), &cut[..cut.len() - 4]);
    for args in [
        "predict run/simclr/slf nowhere.png",
        "predict run/simclr/slf text.png",
        "predict run/simclr/slf none",
        "predict run/simclr/slf",
        "predict nowhere good.png",
        "predict run good.png",
        "predict text.safetensors good.png",
        "predict cut.safetensors good.png",
        "predict run/simclr/checkpoint.safetensors good.png",
    ] {
        transcript.refuse(args);
    }
    transcript.note("One bad file keeps no other from being answered.");
    let pair = advcl(path, "predict run/simclr/slf good.png cut.png nowhere.png").expect(1);
    assert!(pair.stdout.starts_with("good.png  "), "{pair}");
    transcript.add_without_numbers(&without_results(pair));
    transcript.note("Another size is brought to that of the model.");
    let small = advcl(path, "predict run/simclr/slf small.png").expect(0);
    transcript.add_without_numbers(&without_results(small));
    transcript.check("models_and_images_that_predict_cannot_use");
}

/// An answer without its predictions, which depend on the processor.
fn without_results(answer: Answer) -> Answer {
    Answer {
        stdout: String::new(),
        ..answer
    }
}

#[test]
fn predictions_for_programs() {
    let folder = folder_after("run simclr.toml --run run");
    let path = folder.path();
    for (name, value) in [("a", 10), ("b", 200), ("c", 90)] {
        put(
            path.join(format!("photos/{name}.png")),
            png(28, &[value; 784]),
        );
    }
    put(path.join("photos/broken.png"), "no picture");
    let model = "run/simclr/slf";
    let all = advcl(path, &format!("predict {model} photos --json"))
        .expect(1)
        .json();
    let all = all.as_array().expect("a list");
    assert_eq!(all.len(), 3);
    // A line for each file, that which cannot be read too.
    let lines = advcl(path, &format!("predict {model} photos --jsonl --top 2")).expect(1);
    let lines: Vec<Value> = lines
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect();
    assert_eq!(lines.len(), 4);
    assert!(
        lines[0]["error"]
            .as_str()
            .expect("an error")
            .contains("broken.png")
    );
    for (line, whole) in lines[1..].iter().zip(all) {
        assert_eq!(line["image"], whole["image"]);
        assert_eq!(line["classes"].as_array().map(Vec::len), Some(2));
        assert_eq!(line["classes"][1], whole["classes"][1]);
    }
    // A list on standard input.
    let mut command = program(path);
    command.args(["predict", model, "-", "--csv", "--top", "1"]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let list = b"photos/c.png\r\n\nphotos/a.png\n";
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(list)
        .expect("it reads");
    let output = child.wait_with_output().expect("a child of ours");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "image,rank,class,probability,logit");
    assert!(lines[1].starts_with("photos/c.png,1,") && lines[2].starts_with("photos/a.png,1,"));
    assert_eq!((lines.len(), output.status.code()), (3, Some(0)));
}

/// Where files cannot grow past a limit, a run names the file that it could not write and keeps
/// those that it has; with space again it goes on.
#[cfg(unix)]
#[test]
fn a_full_disk_stops_a_run_that_can_go_on_later() {
    let folder = crate::folder();
    let path = folder.path();
    let mut transcript = Transcript::new(path);
    // Without the signal that would end the process, writing past the limit fails as on a full
    // disk.
    for blocks in [1, 16] {
        let mut command = std::process::Command::new("bash");
        command.arg("-c").arg(format!(
            "trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" run tiny.toml --run run --quiet"
        ));
        let mut full = answer(command.arg(env!("CARGO_BIN_EXE_advcl")).current_dir(path)).expect(3);
        full.command =
            format!("advcl run tiny.toml --run run --quiet, files of {blocks} blocks at most");
        transcript.add(&full);
    }
    transcript.check("a_full_disk");
    let files = contents(&path.join("run"));
    let names: Vec<_> = files
        .keys()
        .filter_map(|path| path.file_name()?.to_str())
        .collect();
    assert!(names.contains(&"recipe.toml"), "{names:?}");
    assert!(
        !names
            .iter()
            .any(|name| name.ends_with(".part") || name.ends_with(".safetensors")),
        "{names:?}"
    );
    advcl(path, "run tiny.toml --run run").expect(0);
}

#[test]
fn models_that_are_not_what_they_say() {
    let folder = folder_after("run tiny.toml --run run");
    let path = folder.path();
    put(path.join("good.png"), png(28, &[7; 784]));
    let model = path.join("run/advcl/slf/model.safetensors");
    let (whole, metadata) = weights::load(&model).expect("a model");
    let about: Value = serde_json::from_str(&metadata["advcl"]).expect("JSON");
    let save = |name: &str, tensors: &weights::Tensors, about: &Value| {
        let metadata = [("advcl", about.to_string())];
        weights::save(&path.join(name), tensors, &metadata).expect("a writable folder");
    };
    let mut transcript = Transcript::new(path);
    for (name, key, value) in [
        ("narrow", "width", json!(0)),
        ("wide", "width", json!(1_000_000)),
        ("heads", "clusters", json!([2, 10_000_000_000_000u64])),
        (
            "means",
            "normalize",
            json!({"mean": [0.5, 0.5], "std": [1, 1]}),
        ),
        ("channels", "channels", json!(1_000_000_000)),
        ("side", "image_size", json!([0, 28])),
        ("routes", "routes", json!(["pgd"])),
        ("later", "format", json!(99)),
    ] {
        let mut about = about.clone();
        about[key] = value;
        let file = format!("{name}.safetensors");
        save(&file, &whole, &about);
        transcript.refuse(&format!("predict {file} good.png"));
    }
    for (name, tensor, value) in [
        ("nan", "conv1.weight", f32::NAN),
        ("inf", "linear.weight", f32::INFINITY),
        ("variance", "bn1.bn_list.1.running_var", -1.0),
    ] {
        let mut tensors = whole.clone();
        tensors.get_mut(tensor).expect("a tensor").1.fill(value);
        let file = format!("{name}.safetensors");
        save(&file, &tensors, &about);
        transcript.refuse(&format!("predict {file} good.png"));
    }
    // Finite weights, whose logits are not: that is known once they are used.
    let mut tensors = whole.clone();
    tensors
        .get_mut("linear.weight")
        .expect("a tensor")
        .1
        .fill(f32::MAX);
    save("beyond.safetensors", &tensors, &about);
    transcript.run("predict beyond.safetensors good.png", 1);
    transcript.note("Weights that are not numbers, in the run's own folder.");
    std::fs::copy(path.join("nan.safetensors"), &model).expect("a writable folder");
    transcript.refuse_after_a_start("evaluate --run run --method advcl --measure steps");
    transcript.check("models_that_are_not_what_they_say");
}

/// Images are named once, whatever links lead to their folder; a pipe is not waited for.
#[cfg(unix)]
#[test]
fn folders_of_links_and_pipes_end() {
    use std::os::unix::fs::symlink;
    let folder = folder_after("pretrain tiny.toml --method simclr --run run");
    let path = folder.path();
    advcl(path, "finetune --method simclr --run run").expect(0);
    put(path.join("set/1.png"), png(28, &[7; 784]));
    for link in ["set/l1", "set/l2"] {
        symlink(".", path.join(link)).expect("a link");
    }
    let model = "run/simclr/slf";
    let answer = advcl(path, &format!("predict {model} set")).expect(0);
    assert_eq!(answer.stdout.lines().count(), 1, "{answer}");
    for name in ["pipe.png", "pipe.safetensors"] {
        let made = std::process::Command::new("mkfifo")
            .arg(path.join(name))
            .status();
        assert!(made.expect("mkfifo").success());
    }
    for args in [
        format!("predict {model} pipe.png"),
        format!("predict {model} /dev/zero"),
        "predict pipe.safetensors set".to_owned(),
        "predict /dev/zero set".to_owned(),
        "import pipe.safetensors -o x.safetensors".to_owned(),
        "import /dev/zero -o x.safetensors".to_owned(),
    ] {
        let answer = advcl(path, &args).expect(2);
        assert!(
            answer.stderr.contains("expected a regular file"),
            "{answer}"
        );
    }
}
