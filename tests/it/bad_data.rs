//! Bad input: data sets.

use std::path::Path;
use std::process::Command;

use crate::{Transcript, advcl, answer, folder, png, program, put};

/// 80 images in class folders, 12 × 12.
fn image_folder(path: &Path) {
    for i in 0..80u8 {
        let split = if i < 64 { "train" } else { "test" };
        let class = ["cat", "dog"][usize::from(i % 2)];
        put(
            path.join(format!("{split}/{class}/{i:02}.png")),
            png(12, &[i * 3; 144]),
        );
    }
}

/// IDX files with a byte too few of training images.
fn short_idx_files(path: &Path) {
    let idx = |name: &str, magic: u8, sizes: &[u32], bytes: usize| {
        let mut file = vec![0, 0, 8, magic];
        sizes
            .iter()
            .for_each(|size| file.extend(size.to_be_bytes()));
        file.extend(vec![1; bytes]);
        put(path.join(name), file);
    };
    idx("train-images-idx3-ubyte", 3, &[64, 12, 12], 64 * 144 - 1);
    idx("train-labels-idx1-ubyte", 1, &[64], 64);
    idx("t10k-images-idx3-ubyte", 3, &[20, 12, 12], 20 * 144);
    idx("t10k-labels-idx1-ubyte", 1, &[20], 20);
}

#[test]
fn data_sets_that_cannot_be_read() {
    let folder = folder();
    let path = folder.path();
    short_idx_files(&path.join("idx"));
    let damage = |set: &str, file: &str, content: &[u8]| {
        image_folder(&path.join(set));
        put(path.join(set).join(file), content);
    };
    let whole = png(12, &[7; 144]);
    damage("corrupt", "train/cat/00.png", &whole[..whole.len() - 20]);
    damage("text", "train/cat/00.png", b"not a picture");
    damage("mixed", "train/dog/01.png", &png(10, &[7; 100]));
    damage("gif", "train/dog/01.gif", b"GIF89a");
    damage("lonely", "train/bird/1.png", &whole);
    damage("hollow", "train/cat/00.png", &whole);
    put(path.join("plain"), "not a data set");
    for split in ["train", "test"] {
        std::fs::create_dir(path.join("hollow").join(split).join("bird"))
            .expect("a writable folder");
    }
    std::fs::create_dir(path.join("nothing")).expect("a writable folder");
    let mut transcript = Transcript::new(path);
    for source in ["nowhere", "plain", "idx", "lonely", "hollow", "nothing"] {
        transcript.refuse_all(&[
            format!("data inspect {source}"),
            format!("run tiny.toml --set data.source='{source}'"),
        ]);
    }
    // A look goes on without an image that training would refuse.
    for (source, code) in [("corrupt", 1), ("text", 1), ("gif", 1), ("mixed", 0)] {
        transcript.refuse(&format!("run tiny.toml --set data.source='{source}'"));
        transcript.run(&format!("data inspect {source}"), code);
    }
    // The folder that the damaged ones were made from is good.
    image_folder(&path.join("good"));
    transcript.run("data inspect good", 0);
    transcript.check("data_sets_that_cannot_be_read");
}

#[test]
fn images_without_labels_serve_for_pretraining_only() {
    let folder = folder();
    let path = folder.path();
    for i in 0..64u8 {
        put(
            path.join(format!("flat/{i:02}.png")),
            png(12, &[i * 4; 144]),
        );
    }
    let run = "tiny.toml --set data.source='flat' --run run";
    let mut transcript = Transcript::new(path);
    transcript.refuse_after_a_start(&format!("run {run}"));
    assert!(
        !path.join("run/simclr").exists(),
        "refused after a computation"
    );
    for method in ["simclr", "advcl"] {
        advcl(path, &format!("pretrain {run} --method {method}")).expect(0);
        let model = format!("run/{method}/model.safetensors");
        assert!(path.join(model).exists());
        if method == "simclr" {
            advcl(path, "cluster --run run").expect(0);
        }
    }
    transcript.refuse_after_a_start("finetune --run run");
    transcript.run("data inspect flat", 0);
    transcript.check("images_without_labels");
}

#[test]
fn images_of_a_single_class() {
    let folder = folder();
    let path = folder.path();
    for i in 0..84u8 {
        let split = if i < 64 { "train" } else { "test" };
        let image = png(12, &[i * 3; 144]);
        put(path.join(format!("one/{split}/cat/{i:02}.png")), image);
    }
    let run = "tiny.toml --set data.source='one' --run run";
    let mut transcript = Transcript::new(path);
    transcript.refuse_after_a_start(&format!("run {run}"));
    advcl(path, &format!("pretrain {run} --method simclr")).expect(0);
    transcript.refuse_after_a_start("finetune --run run");
    transcript.check("images_of_a_single_class");
}

/// A member of an archive: name, type, content, and target where it is a link.
type Member<'a> = (&'a str, tar::EntryType, &'a [u8], &'a str);

/// A tar archive; members with more content than `declared` bytes do not exist.
fn archive(members: &[Member], declared: Option<u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, kind, content, target) in members {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(declared.unwrap_or(content.len() as u64));
        header.set_cksum();
        bytes.extend(header.as_bytes());
        bytes.extend(*content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

#[test]
fn archives_with_links_and_of_what_does_not_fit() {
    use tar::EntryType::{GNULongName, GNUSparse, Link, Regular, Symlink, XHeader};
    let folder = folder();
    let path = folder.path();
    let mut transcript = Transcript::new(path);
    let images: Vec<(String, Vec<u8>)> = (0..80u8)
        .map(|i| {
            let split = if i < 64 { "train" } else { "test" };
            let class = ["cat", "dog"][usize::from(i % 2)];
            (
                format!("{split}/{class}/{i:02}.png"),
                png(12, &[i * 3; 144]),
            )
        })
        .collect();
    let mut members: Vec<Member> = (images.iter())
        .map(|(name, content)| (name.as_str(), Regular, &content[..], ""))
        .collect();
    members.push(("train/cat/hard.png", Link, b"", "train/cat/00.png"));
    members.push(("train/dog/soft.png", Symlink, b"", "../../test/dog/65.png"));
    members.push(("train/dog/chain.png", Symlink, b"", "soft.png"));
    transcript.note("64 training images in it and three links to images.");
    put(path.join("links.tar"), archive(&members, None));
    transcript.run("data inspect links.tar", 0);
    members.push(("train/dog/away.png", Symlink, b"", "/etc/passwd"));
    members.push(("train/dog/lost.png", Link, b"", "train/dog/none.png"));
    transcript.note("Two more, which lead outside and nowhere.");
    put(path.join("lost.tar"), archive(&members, None));
    transcript.run("data inspect lost.tar --replace", 0);
    let json = advcl(path, "data inspect lost.tar --replace --json")
        .expect(0)
        .json();
    let notes = json["notes"].as_array().expect("notes");
    let left_out = |note: &&serde_json::Value| note.to_string().contains("left out");
    assert_eq!(notes.iter().filter(left_out).count(), 1);

    put(
        path.join("name.tar"),
        archive(&[("x", GNULongName, b"", "")], Some(1 << 30)),
    );
    put(
        path.join("pax.tar"),
        archive(&[("x", XHeader, b"", "")], Some(1 << 30)),
    );
    put(
        path.join("huge.tar"),
        archive(&[("a.png", Regular, b"", "")], Some(1 << 40)),
    );
    put(
        path.join("sparse.tar"),
        archive(&[("a.png", GNUSparse, b"", "")], None),
    );
    let (large, small) = (png(2048, &vec![7; 2048 * 2048]), png(1, &[7]));
    let names: Vec<String> = (0..60).map(|i| format!("{i:02}.png")).collect();
    let first: Vec<Member> = (names.iter().enumerate())
        .map(|(i, name)| {
            let content = if i == 0 { &large } else { &small };
            (name.as_str(), Regular, &content[..], "")
        })
        .collect();
    put(path.join("first.tar"), archive(&first, None));
    for source in ["name.tar", "pax.tar", "huge.tar", "sparse.tar"] {
        transcript.refuse(&format!("data inspect {source} --sheet x.png"));
    }
    transcript.refuse("run tiny.toml --set data.source='first.tar'");
    transcript.check("archives_with_links");
}

/// The order of a folder's entries is the file system's, so nothing of the answer is kept but what it says.
#[cfg(unix)]
#[test]
fn a_folder_with_loops_and_pipes() {
    use std::os::unix::fs::symlink;
    let folder = folder();
    let path = folder.path();
    for i in 0..64u8 {
        put(
            path.join(format!("flat/{i:02}.png")),
            png(12, &[i * 4; 144]),
        );
    }
    for i in 0..20 {
        symlink(".", path.join(format!("flat/l{i:02}"))).expect("a link");
    }
    let made = std::process::Command::new("mkfifo")
        .arg(path.join("flat/pipe.png"))
        .status();
    assert!(made.expect("mkfifo").success());
    let answer = advcl(path, "data inspect flat").expect(0);
    assert!(answer.stderr.contains("21 files are left out"), "{answer}");
    assert!(answer.stdout.contains("64 training"), "{answer}");
    for source in ["flat/pipe.png", "/dev/zero"] {
        advcl(path, &format!("data inspect {source} --sheet x.png")).expect(2);
    }
}

/// Small files that want much memory: where little is there, they are refused like any other bad file.
#[cfg(target_os = "linux")]
#[test]
fn images_that_declare_more_than_they_have_are_refused_in_little_memory() {
    let folder = folder();
    let path = folder.path();
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/image");
    for name in ["declares-800-MB.png", "line.png"] {
        let seed = std::fs::read(seeds.join(name)).expect("a seed");
        put(path.join(name).join("1.png"), seed);
    }
    put(path.join("good.png"), png(12, &[7; 144]));
    advcl(path, "run tiny.toml --run run --quiet").expect(0);
    let limited = |args: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -v 600000; exec \"$0\" \"$@\""]);
        command.arg(program(path).get_program()).args(args);
        // The address space of many threads is large by itself.
        command.env("RAYON_NUM_THREADS", "2").current_dir(path);
        answer(&mut command)
    };
    for set in ["declares-800-MB.png", "line.png"] {
        let answer = limited(&["data", "inspect", set, "--set", "data.size=8"]).expect(2);
        assert!(answer.stderr.contains("1.png"), "no name in\n{answer}");
        let image = format!("{set}/1.png");
        let answer = limited(&["predict", "run/simclr/slf", "good.png", &image]).expect(1);
        assert!(answer.stdout.starts_with("good.png"), "{answer}");
        assert!(answer.stderr.contains("1.png"), "no name in\n{answer}");
    }
}
