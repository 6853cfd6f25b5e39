//! Bad input, continued: what `predict` is given, and a disk that is full.

use crate::bad_input::{Case, refused_at_the_door};
use crate::{advcl, answer, folder, get, png, put, snapshot};

#[test]
fn predictions() {
    let folder = folder();
    let path = folder.path();
    advcl(path, "pretrain tiny.toml --method simclr --run run").expect(0);
    let whole = png(28, &[7; 784]);
    put(path.join("good.png"), &whole);
    refused_at_the_door(
        path,
        "predict run/simclr good.png",
        &[
            "run/simclr/model.safetensors: an encoder alone: the model has no classifier",
            "hint: make one first: advcl finetune --run run",
        ],
    );
    advcl(path, "finetune --method simclr --run run").expect(0);
    refused_at_the_door(
        path,
        "predict run/simclr good.png",
        &[
            "run/simclr/model.safetensors: an encoder alone: the model has no classifier",
            "hint: name one: run/simclr/slf\n",
        ],
    );
    advcl(path, "predict run/simclr/slf good.png").expect(0);

    put(path.join("cut.png"), &whole[..whole.len() - 20]);
    put(path.join("small.png"), png(12, &[7; 144]));
    put(path.join("text.png"), "not a picture");
    put(path.join("none/readme.txt"), "no pictures");
    put(path.join("text.safetensors"), "not a model");
    let cut = get(path.join("run/simclr/slf/model.safetensors"));
    put(path.join("cut.safetensors"), &cut[..cut.len() - 4]);
    let cases: [Case; 11] = [
        (
            "predict run/simclr/slf nowhere.png",
            &["cannot read nowhere.png: No such file"],
        ),
        (
            "predict run/simclr/slf good.png cut.png",
            &["cut.png: image data: expected a whole image"],
        ),
        (
            "predict run/simclr/slf small.png",
            &[
                "small.png: expected 1 channels, 28 × 28 pixels",
                "found 1 channels, 12 × 12",
                "resize",
            ],
        ),
        (
            "predict run/simclr/slf text.png",
            &["text.png: byte 0: expected PNG or JPEG"],
        ),
        (
            "predict run/simclr/slf none",
            &["none: no images in this folder"],
        ),
        ("predict run/simclr/slf", &["required", "<IMAGES>"]),
        (
            "predict nowhere good.png",
            &["cannot read nowhere: No such file"],
        ),
        (
            "predict run good.png",
            &[
                "run run: a run folder",
                "hint: name one: run/simclr, run/simclr/slf\n",
            ],
        ),
        (
            "predict text.safetensors good.png",
            &["text.safetensors: header: expected a complete safetensors"],
        ),
        (
            "predict cut.safetensors good.png",
            &["cut.safetensors: header: expected a complete safetensors"],
        ),
        (
            "predict run/simclr/checkpoint.safetensors good.png",
            &["checkpoint.safetensors: no advcl metadata"],
        ),
    ];
    for (args, words) in cases {
        refused_at_the_door(path, args, words);
    }
}

/// Where files cannot grow past a limit, the run says which one and keeps what it has; then it goes on.
#[cfg(unix)]
#[test]
fn a_disk_that_is_full() {
    let folder = folder();
    let path = folder.path();
    // Without the signal that would end the process, writing past the limit fails as on a full disk.
    let limited = |blocks: usize| {
        let mut command = std::process::Command::new("bash");
        command.arg("-c").arg(format!(
            "trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" run tiny.toml --run run"
        ));
        answer(command.arg(env!("CARGO_BIN_EXE_advcl")).current_dir(path)).expect(2)
    };
    let full = limited(1);
    assert!(full.stderr.contains("error: cannot write run/"), "{full}");
    let full = limited(16);
    assert!(
        full.stderr
            .contains("error: cannot write run/simclr/checkpoint.safetensors: File too large"),
        "{full}"
    );
    let files = snapshot(&path.join("run"));
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
