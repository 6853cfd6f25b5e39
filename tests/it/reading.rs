//! Commands that only read a run: its folder stays as it is.

use std::fs::{self, File};

use crate::{advcl, contents, folder_after, get, put};

#[test]
fn commands_that_read_a_run_change_nothing_in_it() {
    let folder = folder_after("run tiny.toml --run run --set finetune.slf.plan.epochs=30");
    let path = folder.path();
    let run = path.join("run");
    let attack = "evaluate run --method advcl --mode slf --attack fgsm -q";
    advcl(
        path,
        &format!("{attack} --save-adversarial found.safetensors"),
    )
    .expect(0);
    // What a killed process leaves, and no lock, as in a copy.
    let mut log = get(run.join("metrics.jsonl"));
    log.extend(b"{\"event\": \"ep");
    put(run.join("metrics.jsonl"), log);
    for name in [".aB3dEf.part", "simclr/.aB3dEf.part"] {
        put(run.join(name), "x");
    }
    fs::remove_file(run.join(".lock")).expect("a lock");
    let before = contents(&run);
    for args in [
        "evaluate run --verify found.safetensors",
        "adversarial show found.safetensors --run run",
        "fork run new --tensorboard",
    ] {
        advcl(path, args).expect(0);
        assert!(before == contents(&run), "{args}");
    }
    assert!(path.join("new/advcl/slf/model.safetensors").exists());
    assert!(!path.join("new/simclr/.aB3dEf.part").exists());
    // Another process may read too, and may not change what is read.
    let lock = File::create(run.join(".lock")).expect("a writable folder");
    lock.lock_shared().expect("nobody else is at work");
    advcl(path, "fork run beside").expect(0);
    lock.unlock().expect("a lock of ours");
    lock.lock().expect("nobody else is at work");
    let refused = advcl(path, "fork run meanwhile").expect(2);
    let words = "another advcl is at work in this folder\nhint: wait for it\n";
    assert!(refused.stderr.contains(words), "{refused}");
    assert!(!path.join("meanwhile").exists());
    drop(lock);
    // One folder is copied from, and it is the one that is named.
    let refused = advcl(path, "fork run mixed --run new").expect(2);
    assert!(refused.stderr.contains("--run"), "{refused}");
    let refused = advcl(path, "fork nowhere mixed").expect(2);
    assert!(
        refused.stderr.contains("no run has begun here"),
        "{refused}"
    );
    assert!(!path.join("mixed").exists());
}
