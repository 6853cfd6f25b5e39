//! Bad input: the models and images of `predict`, and a disk that is full.

use crate::{Transcript, advcl, answer, contents, folder_after, get, png, put};

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
        "predict run/simclr/slf good.png cut.png",
        "predict run/simclr/slf small.png",
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
    transcript.check("models_and_images_that_predict_cannot_use");
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
