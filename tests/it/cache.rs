//! Files of decoded images.

use std::fs;
use std::path::Path;

use crate::{Answer, answer, folder, get, only_simclr, png, program, put};

/// 48 images of two classes in two sizes.
fn image_folder(path: &Path) {
    for i in 0..48u8 {
        let split = if i < 32 { "train" } else { "test" };
        let class = ["cat", "dog"][usize::from(i % 2)];
        let side = 12 + 4 * u32::from(i % 3 / 2);
        let pixels: Vec<u8> = (0..side * side)
            .map(|p| (u32::from(i) * 5 + p % 60) as u8)
            .collect();
        put(
            path.join(format!("{split}/{class}/{i:02}.png")),
            png(side, &pixels),
        );
    }
}

/// Runs the program with this folder of decoded images.
fn cached(path: &Path, cache: &str, args: &str) -> Answer {
    let mut command = program(path);
    command.env("ADVCL_CACHE", path.join(cache));
    answer(command.args(args.split_whitespace()))
}

fn files(path: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(path) else {
        return Vec::new();
    };
    let name = |entry: std::io::Result<fs::DirEntry>| {
        let name = entry.expect("readable").file_name();
        name.to_string_lossy().into_owned()
    };
    entries.map(name).collect()
}

#[test]
fn decoded_images_are_kept_and_change_nothing() {
    let folder = folder();
    let path = folder.path();
    let cache = path.join("cache");
    image_folder(&path.join("set"));
    // A drawing of the images.
    let drawn = |how: &str| {
        let args = "data inspect set --set data.size=12 --sheet sheet.png --replace --cache";
        cached(path, "cache", &format!("{args} {how}")).expect(0);
        get(path.join("sheet.png"))
    };
    let without = drawn("never");
    // Small sets are decoded each time.
    assert_eq!(drawn("auto"), without);
    assert_eq!(files(&cache).len(), 0);
    assert_eq!(drawn("always"), without);
    let names = files(&cache);
    assert_eq!(names.len(), 1, "{names:?}");
    let file = cache.join(&names[0]);
    let whole = get(&file);
    let written = || {
        let modified = fs::metadata(&file).and_then(|about| about.modified());
        modified.expect("a file")
    };
    let before = written();
    // Found again by whoever asks, and made again where it is damaged.
    for how in ["always", "auto"] {
        assert_eq!(drawn(how), without);
        assert_eq!(written(), before);
    }
    let mut damaged = whole.clone();
    damaged[100] ^= 1;
    put(&file, &damaged);
    assert_eq!(drawn("always"), without);
    assert_eq!(get(&file), whole);
    // Another size, another content and another label are other files.
    let args = "data inspect set --set data.size=8 --sheet small.png --cache always";
    cached(path, "cache", args).expect(0);
    put(path.join("set/train/cat/00.png"), png(12, &[200; 144]));
    assert_ne!(drawn("always"), without);
    let moved = |name: &str| path.join("set/train").join(name);
    fs::rename(moved("cat/02.png"), moved("dog/02.png")).expect("a rename");
    drawn("always");
    assert_eq!(files(&cache).len(), 4);
    let listed = cached(path, "cache", "cache list --json").expect(0).json();
    assert_eq!(listed.as_array().map(Vec::len), Some(4));
    let source = path.join("set").canonicalize().expect("a folder");
    assert_eq!(listed[0]["source"], source.to_str().expect("UTF-8"));
    let answer = cached(path, "cache", "cache clear elsewhere").expect(0);
    assert_eq!(answer.stdout, "removed 0 files, 0 B\n");
    let answer = cached(path, "cache", "cache clear set").expect(0);
    assert!(answer.stdout.starts_with("removed 4 files"), "{answer}");
    assert_eq!(files(&cache).len(), 0);
}

#[test]
fn what_cannot_be_continued_and_a_full_disk_end_no_command() {
    let folder = folder();
    let path = folder.path();
    let cache = path.join("cache");
    image_folder(&path.join("set"));
    let args = "data inspect set --set data.size=64 --sheet sheet.png --rows 1 --replace --cache";
    let drawn = |answer: Answer| {
        answer.expect(0);
        get(path.join("sheet.png"))
    };
    let draw = |how: &str| drawn(cached(path, "cache", &format!("{args} {how}")));
    let without = draw("never");
    assert!(draw("always") == without);
    let file = cache.join(&files(&cache)[0]);
    let [list, part] = ["images.list", "images.part"].map(|end| file.with_extension(end));
    // A list of an image that the set does not have.
    let image = r#"{"place":99,"found":[12,12],"channels":1,"scaled_down":false,"turned":false}"#;
    let line = format!("{{\"shape\":[1,64,64],\"images\":[{image}],\"length\":4096}}\n");
    fs::rename(&file, path.join("whole")).expect("a file");
    put(&list, line);
    put(&part, [0u8; 4096]);
    assert!(draw("always") == without);
    assert_eq!(files(&cache).len(), 1);
    assert!(get(&file) == get(path.join("whole")));
    // A file that cannot be opened.
    fs::remove_file(&file).expect("a file");
    put(&list, "");
    fs::create_dir(&part).expect("a folder");
    assert!(draw("always") == without);
    assert!(!file.exists());
    fs::remove_dir_all(&cache).expect("a folder");
    // A disk without room for 48 images of 64 × 64 pixels.
    #[cfg(target_os = "linux")]
    {
        let script = "trap '' XFSZ; ulimit -f 360; exec \"$0\" \"$@\"";
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script, env!("CARGO_BIN_EXE_advcl")]);
        command.args(format!("{args} always").split_whitespace());
        command.current_dir(path).env("ADVCL_CACHE", &cache);
        assert!(drawn(answer(&mut command)) == without);
        assert_eq!(files(&cache).len(), 0);
    }
}

#[test]
fn damaged_images_and_a_run_are_the_same_with_and_without_files() {
    let folder = folder();
    let path = folder.path();
    image_folder(&path.join("set"));
    put(path.join("set/train/cat/50.png"), b"no image");
    let recipe = only_simclr()
        .replace("\"fashion-mnist-12k\"", "\"set\"")
        .replace("train_limit = 64\n", "")
        .replace("test_limit = 20\n", "");
    put(path.join("r.toml"), recipe);
    let run = |how: &str, damaged: &str| {
        let sets = format!("--set data.size=12 --set data.damaged={damaged}");
        let args = format!("run r.toml --run {how} {sets} --cache {how} --quiet");
        cached(path, "cache", &args)
    };
    let refused = [
        run("never", "refuse").expect(2),
        run("always", "refuse").expect(2),
    ];
    assert_eq!(refused[0].stderr, refused[1].stderr);
    assert_eq!(files(&path.join("cache")).len(), 0);
    let model = |how: &str| get(path.join(how).join("simclr/slf/model.safetensors"));
    run("never", "skip").expect(0);
    run("always", "skip").expect(0);
    assert_eq!(model("never"), model("always"));
    // From the file, the images are the same too; where there is no place for a file, they are in memory.
    put(path.join("file"), "no folder");
    for (run, cache, how) in [("kept", "cache", "auto"), ("memory", "file", "always")] {
        let sets = "--set data.size=12 --set data.damaged=skip";
        let answer = cached(
            path,
            cache,
            &format!("run r.toml --run {run} {sets} --cache {how}"),
        );
        let answer = answer.expect(0);
        let said = answer.stderr.contains("are held in memory");
        assert_eq!(said, run == "memory", "{answer}");
        assert_eq!(model("never"), model(run));
    }
}
