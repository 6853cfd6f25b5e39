//! Files that the program writes: they are no data afterwards, and they replace no other file.

use std::fs;
use std::path::Path;

use crate::{Transcript, advcl, contents, copy, folder, get, png, put};

/// Patches of four gray values, different for each `i`.
fn picture(i: u8) -> Vec<u8> {
    let value = |p: usize| (p / 36 * 3 + p % 12 / 4 + usize::from(i) * 7) % 11 * 25;
    png(12, &(0..144).map(|p| value(p) as u8).collect::<Vec<_>>())
}

fn flat(folder: &Path) {
    (0..64).for_each(|i| put(folder.join(format!("{i:02}.png")), picture(i)));
}

fn labeled(folder: &Path) {
    for i in 0..104 {
        let split = if i < 64 { "train" } else { "test" };
        let class = ["cat", "dog"][usize::from(i % 2)];
        put(
            folder.join(format!("{split}/{class}/{i:03}.png")),
            picture(i),
        );
    }
}

#[test]
fn commands_inside_the_data_folder_work_again() {
    let folder = folder();
    let run = "../simclr.toml --quiet --set data.source='.'";
    for (name, fill) in [("flat", flat as fn(&Path)), ("labeled", labeled)] {
        let path = folder.path().join(name);
        fill(&path);
        // Flat images are unlabeled: there is an encoder, and no classifier to report on.
        let command = match name {
            "flat" => format!("pretrain {run}"),
            _ => format!("run {run}"),
        };
        let first = advcl(&path, &command).expect(0).stdout;
        if name == "labeled" {
            advcl(&path, "report runs/simclr --quiet").expect(0);
        }
        advcl(&path, "import runs/simclr/simclr/model.safetensors").expect(0);
        let json = |args: &str| {
            let mut json = advcl(&path, &format!("data inspect . --json {args}"))
                .expect(0)
                .json();
            json["sheet"].take();
            json
        };
        let before = json("--sheet views.png");
        assert_eq!(json("--sheet ../other.png"), before, "{name}");
        assert_eq!(
            json("--sheet views.png"),
            before,
            "{name}: the same command again"
        );
        // The same images: nothing in the run folder is computed again.
        let files = contents(&path.join("runs"));
        assert_eq!(advcl(&path, &command).expect(0).stdout, first);
        assert!(
            contents(&path.join("runs")) == files,
            "{name}: a finished run changed"
        );
        // The same images as of a folder without all that.
        fill(&folder.path().join("clean"));
        let mut clean = advcl(folder.path(), "data inspect clean --json --sheet clean.png")
            .expect(0)
            .json();
        for key in ["name", "sheet"] {
            clean[key] = before[key].clone();
        }
        assert_eq!(before, clean);
        fs::remove_dir_all(folder.path().join("clean")).expect("just made");
        fs::remove_file(folder.path().join("clean.png")).expect("just made");
    }
}

#[test]
fn our_pictures_are_not_predicted() {
    let folder = folder();
    let path = folder.path();
    labeled(&path.join("set"));
    advcl(
        path,
        "run simclr.toml --quiet --run run --set data.source='set'",
    )
    .expect(0);
    let images = path.join("images");
    put(images.join("b.png"), picture(1));
    put(images.join("a/c.png"), picture(2));
    put(images.join("a.png"), picture(3));
    put(images.join(".hidden.png"), "not an image");
    advcl(&images, "data inspect ../set --sheet views.png").expect(0);
    copy(&path.join("run"), &images.join("runs/run"));
    put(images.join("runs/run/picture.png"), picture(4));
    let json = advcl(path, "predict run/simclr/slf images --json")
        .expect(0)
        .json();
    let predictions = json.as_array().expect("a list");
    let files: Vec<_> = predictions.iter().map(|p| p["image"].as_str()).collect();
    let expected = ["images/a/c.png", "images/a.png", "images/b.png"];
    assert_eq!(files, expected.map(Some));
}

#[test]
fn a_contact_sheet_replaces_a_contact_sheet_only() {
    let folder = folder();
    let path = folder.path();
    flat(&path.join("flat"));
    put(path.join("tiny.tar"), "not read");
    put(path.join("views.png"), picture(1));
    put(path.join("notes.txt"), "mine");
    let mut transcript = Transcript::new(path);
    for sheet in [
        "--sheet views.png",
        "--sheet notes.txt",
        "--sheet flat/00.png",
    ] {
        transcript.refuse(&format!("data inspect flat {sheet}"));
    }
    for sheet in ["flat/00.png", "flat/../flat/00.png", "./flat/00.png"] {
        transcript.refuse(&format!("data inspect flat --replace --sheet {sheet}"));
    }
    transcript.refuse("data inspect flat --replace --recipe tiny.toml --sheet tiny.toml");
    transcript.refuse("data inspect --replace --sheet flat");
    transcript.check("contact_sheets");
    // The hint works, and after that no option is needed.
    let sheet = |args: &str| {
        advcl(path, &format!("data inspect flat {args}")).expect(0);
        get(path.join("views.png"))
    };
    let ten = sheet("--sheet views.png --replace");
    assert!(sheet("--sheet views.png --rows 3") != ten);
    assert_eq!(sheet("--sheet views.png"), ten);
    // None unless it is asked for.
    std::fs::remove_file(path.join("views.png")).expect("a sheet");
    advcl(path, "data inspect flat").expect(0);
    assert!(!path.join("views.png").exists());
}

#[test]
fn import_replaces_nothing_unless_told_and_never_its_input() {
    let folder = folder();
    let path = folder.path();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/import");
    copy(&golden, &path.join("theirs"));
    put(path.join("mine.safetensors"), "mine");
    let import = "import theirs/bare.pt --image-size 16";
    let mut transcript = Transcript::new(path);
    transcript.refuse(&format!("{import} -o mine.safetensors"));
    advcl(path, import).expect(0);
    let made = get(path.join("imported.safetensors"));
    // An earlier import can be made again, unless someone has changed it since.
    let again = advcl(path, import).expect(0);
    assert!(
        again
            .stderr
            .contains("was an earlier import, and is replaced"),
        "{again}"
    );
    let mut changed = made.clone();
    *changed.last_mut().expect("a value") ^= 1;
    put(path.join("imported.safetensors"), changed);
    transcript.refuse(import);
    advcl(path, &format!("{import} -o mine.safetensors --replace")).expect(0);
    assert!(get(path.join("mine.safetensors")) == made);
    let mut spellings = vec!["theirs/bare.pt", "./theirs/../theirs/bare.pt"];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("theirs/bare.pt", path.join("link.pt")).expect("a link");
        std::os::unix::fs::symlink("theirs", path.join("folder")).expect("a link");
        spellings.extend(["link.pt", "folder/bare.pt"]);
    }
    for output in spellings {
        for input in ["theirs/bare.pt", output] {
            let command = format!("import {input} --image-size 16 -o {output} --replace");
            transcript.refuse(&command);
        }
    }
    transcript.check("outputs_of_import");
}
