//! Files and folders whose names are not UTF-8: commands work with them, and never panic.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::Answer;
use crate::{answer, copy, folder, folder_after, get, only_simclr, png, program, put};

/// A name in which each `?` is a byte that is in no UTF-8.
fn odd(name: &str) -> OsString {
    let byte = |byte| if byte == b'?' { 0xff } else { byte };
    OsString::from_vec(name.bytes().map(byte).collect())
}

/// Runs the program with arguments of such names, its folder of decoded images below `path`.
fn advcl(path: &Path, args: &str) -> Answer {
    let mut command = program(path);
    command.env("ADVCL_CACHE", path.join(odd("cache?")));
    answer(command.args(args.split_whitespace().map(odd)))
}

#[test]
fn json_has_names_that_are_no_utf_8_as_text() {
    let folder = folder_after("run simclr.toml --run run");
    let path = folder.path();
    fs::rename(path.join("run"), path.join(odd("r?"))).expect("a rename");
    copy(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/import"),
        &path.join("theirs"),
    );
    let pixels: Vec<u8> = (0..=255).cycle().take(28 * 28).collect();
    put(path.join(odd("p?.png")), png(28, &pixels));
    for name in ["a/1?", "a/2?", "a/3", "b/1?", "b/2?", "b/3"] {
        put(path.join(odd(&format!("set/{name}.png"))), png(28, &pixels));
    }
    put(path.join(odd("set/a/damaged?.png")), "no image");
    crate::folder::images(&path.join("plain"), ["a", "b"], 8);
    let inspect = "--cache always --json --sheet";
    let import = "import theirs/bare.pt --image-size 16";
    for args in [
        "pretrain --run r? --json",
        "finetune --run r? --json",
        "report r? --format json",
        "report r? --json",
        "fork r? f? --json",
        "export r?/simclr/slf --format onnx -o x?.onnx --json",
        &format!("{import} -o m?.safetensors --json"),
        "embed r?/simclr p?.png -o e?.npy --json",
        "attack r?/simclr/slf p?.png --radius 0.5 -o o? --json",
        &format!("data inspect set --set data.damaged='skip' {inspect} s?.png"),
        &format!("data inspect plain {inspect} t?.png"),
        "cache list --json",
    ] {
        let answer = advcl(path, args).expect(0);
        let found = answer.json().to_string();
        assert!(found.contains('\u{fffd}'), "{answer}");
    }
    advcl(path, "data inspect set --json").expect(1).json();
    // A file of decoded images keeps no name that is not UTF-8: that of the other set is the only one.
    let cached = advcl(path, "cache list --json").expect(0).json();
    assert_eq!(cached.as_array().map(Vec::len), Some(1), "{cached}");
    assert!(path.join(odd("f?/simclr/model.safetensors")).exists());
}

#[test]
fn a_working_folder_may_have_such_a_name() {
    let folder = folder();
    let path = folder.path().join(odd("w?"));
    crate::folder::images(&path.join("set"), ["cat", "dog"], 16);
    let recipe = only_simclr()
        .replace("\"fashion-mnist-12k\"", "\"set\"")
        .replace("train_limit = 64\n", "")
        .replace("test_limit = 20\n", "");
    put(path.join("r.toml"), recipe);
    advcl(&path, "run r.toml --run run --cache always").expect(0);
    // The same recipe again, from the folder alone.
    advcl(&path, "run --run run --cache always").expect(0);
    advcl(&path, "check run").expect(0);
    let kept = fs::read_dir(path.join(odd("cache?"))).map_or(0, Iterator::count);
    assert_eq!(kept, 0, "files of the cache");
    // Moved there with its images: from elsewhere no recipe can name them.
    let about = path.join("run/run.json");
    let mut moved: Value = serde_json::from_slice(&get(&about)).expect("JSON");
    moved["places"] = json!({"set": {"absolute": "/nowhere/set", "relative": "../set"}});
    put(&about, moved.to_string());
    let refused = advcl(folder.path(), "fork w?/run new").expect(2);
    let words = "a recipe names no path that is not UTF-8";
    assert!(refused.stderr.contains(words), "{refused}");
    advcl(&path, "fork run new").expect(0);
}

#[test]
fn a_check_goes_on_after_folders_of_other_names_and_unreadable_ones() {
    let folder = folder_after("run simclr.toml --run run");
    let path = folder.path();
    let before = advcl(path, "check run").expect(0);
    for name in ["run/m?/d?/x", "run/simclr/slf/attack/s?/x", "run/?"] {
        put(path.join(odd(name)), "x");
    }
    let model = path.join("run/simclr/model.safetensors");
    put(
        path.join(odd("run/m?/model.safetensors")),
        fs::read(model).expect("a model"),
    );
    let after = advcl(path, "check run").expect(0);
    for line in before
        .stdout
        .lines()
        .filter(|line| line.contains("  holds"))
    {
        let file = line.split(' ').next().expect("a name");
        assert!(after.stdout.contains(file), "{file} in\n{after}");
    }
    assert!(
        after.stdout.contains("m\u{fffd}/model.safetensors"),
        "{after}"
    );
    // A folder that nobody may read is a line of its own.
    let locked = path.join("run/locked");
    fs::create_dir(&locked).expect("a folder");
    let mode = |mode| fs::set_permissions(&locked, fs::Permissions::from_mode(mode));
    mode(0o000).expect("a folder of ours");
    // Root reads it all the same.
    if fs::read_dir(&locked).is_err() {
        let answer = advcl(path, "check run").expect(1);
        assert!(answer.stdout.contains("\nlocked "), "{answer}");
        assert!(
            answer.stdout.contains("simclr/slf/model.safetensors"),
            "{answer}"
        );
    }
    mode(0o700).expect("a folder of ours");
}
