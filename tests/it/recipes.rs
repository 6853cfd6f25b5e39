//! Recipes of tests, and folders in which they were carried out.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use tempfile::TempDir;

use crate::files::{copy, put};
use crate::harness::advcl;

/// Both encoders in a second: no classifier to be proud of.
pub const TINY: &str = r#"
seed = 3

[data]
source = "fashion-mnist-12k"
train_limit = 64
test_limit = 20

[encoder]
depth = 10
width = 2
stem = "strided"

[threat]
norm = "linf"
radius = "0.1"

[pretrain.simclr]
temperature = 0.5
plan = { epochs = 2, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 1e-4, schedule.cosine = {} }

[cluster]
counts = [2, 5]
restarts = 1
iterations = 20

[pretrain.advcl]
temperature = 0.5
cluster_weight = 0.2
high_frequency_radius = 8.0
attack_steps = 2
attack_step_size = "0.05"
plan = { epochs = 2, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 1e-4, schedule.cosine = {} }

[finetune.slf]
plan = { epochs = 3, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 2e-4, schedule.steps = { milestones = [2] } }

[evaluate]
split = "test"
batch_size = 20
steps = 2
step_size = "0.05"
smoothing = { samples = 20, selection = 5 }
patch = { places = 2, steps = 3 }
"#;

/// What is added to [`TINY`] for the supervised reference.
pub const TINY_SUPERVISED: &str = r#"
[pretrain.adversarial-training]
attack_steps = 2
attack_step_size = "0.05"
plan = { epochs = 2, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 2e-4, schedule.cosine = {} }
"#;

/// [`TINY`] with one method.
pub fn only_simclr() -> String {
    let place = |words: &str| TINY.find(words).expect("a table of it");
    [
        &TINY[..place("[cluster]")],
        &TINY[place("[finetune.slf]")..],
    ]
    .concat()
}

/// A temporary folder with the recipes `tiny.toml`, `supervised.toml`, which has one method more,
/// and `simclr.toml`, which has one less.
pub fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_recipes(folder.path());
    folder
}

fn write_recipes(folder: &Path) {
    put(folder.join("tiny.toml"), TINY);
    put(
        folder.join("supervised.toml"),
        [TINY, TINY_SUPERVISED].concat(),
    );
    put(folder.join("simclr.toml"), only_simclr());
}

/// A temporary folder as of [`folder`], in which `advcl COMMAND` was run. The command is run once
/// for all tests that begin with it; each gets a copy.
pub fn folder_after(command: &str) -> TempDir {
    static MADE: Mutex<BTreeMap<String, Arc<OnceLock<PathBuf>>>> = Mutex::new(BTreeMap::new());
    let original = {
        let mut made = MADE.lock().expect("nothing panics while it is held");
        Arc::clone(made.entry(command.to_owned()).or_default())
    };
    let original = original.get_or_init(|| {
        let name = command.replace(|c: char| !c.is_alphanumeric(), "-");
        let folder = originals().join(name);
        write_recipes(&folder);
        advcl(&folder, command).expect(0);
        folder
    });
    let folder = tempfile::tempdir().expect("a temporary folder");
    copy(original, folder.path());
    folder
}

/// The folder of the originals, below `target/tmp`. Nothing is run at the end of all tests, so each
/// run of the tests deletes what earlier ones left; one that is still at work holds the lock in its
/// folder.
fn originals() -> &'static Path {
    static FOLDER: OnceLock<(PathBuf, File)> = OnceLock::new();
    let make = || {
        let all = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let one_at_a_time = File::create(all.join("originals.lock"))?;
        one_at_a_time.lock()?;
        for entry in fs::read_dir(all)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with("originals-") && File::open(path.join("lock"))?.try_lock().is_ok() {
                fs::remove_dir_all(&path)?;
            }
        }
        let folder = all.join(format!("originals-{}", std::process::id()));
        fs::create_dir(&folder)?;
        let lock = File::create(folder.join("lock"))?;
        lock.lock()?;
        std::io::Result::Ok((folder, lock))
    };
    &(FOLDER.get_or_init(|| make().expect("a writable target folder"))).0
}
