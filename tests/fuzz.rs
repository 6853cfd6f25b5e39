//! Every file of the fuzz targets' corpus, given to the parser of its target: no panic, little memory, at
//! once. Inputs that once were too much for a parser are in the corpus too.

#[path = "../fuzz/src/memory.rs"]
mod memory;

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use advcl::fuzz::TARGETS;

/// Far more than any input takes, also where other programs are at work.
const AT_MOST: Duration = Duration::from_secs(20);

fn fuzz_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|e| e.expect("readable").path()).collect();
    paths.sort();
    paths
}

/// One test, because memory is counted for the whole process.
#[test]
fn no_input_of_the_corpus_is_too_much_for_its_parser() {
    let corpus = fuzz_folder().join("corpus");
    let mut wrong = Vec::new();
    for (target, body) in TARGETS {
        let inputs = files_in(&corpus.join(target));
        assert!(!inputs.is_empty(), "{target} has no corpus");
        for path in inputs {
            let input = fs::read(&path).expect("readable");
            let start = Instant::now();
            let mut panicked = false;
            let bytes = memory::bytes_of(|| {
                panicked = catch_unwind(AssertUnwindSafe(|| body(&input))).is_err();
            });
            let name = path.strip_prefix(&corpus).expect("below it").display();
            let allowed = memory::allowed(&input);
            if panicked {
                wrong.push(format!("{name}: a panic, see above"));
            }
            if bytes > allowed {
                wrong.push(format!(
                    "{name}: {bytes} bytes at a time, more than {allowed}"
                ));
            }
            if start.elapsed() > AT_MOST {
                wrong.push(format!("{name}: {:?}", start.elapsed()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_parser_has_a_target_and_a_corpus() {
    let named = |folder: &str| -> BTreeSet<String> {
        let paths = files_in(&fuzz_folder().join(folder));
        let name = |path: &PathBuf| {
            path.file_stem()
                .expect("a name")
                .to_str()
                .expect("UTF-8")
                .to_owned()
        };
        paths.iter().map(name).collect()
    };
    let listed: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(named("fuzz_targets"), listed);
    assert_eq!(named("corpus"), listed);
    let manifest = fs::read_to_string(fuzz_folder().join("Cargo.toml")).expect("readable");
    for name in &listed {
        assert!(
            manifest.contains(&format!("name = \"{name}\"")),
            "{name} in fuzz/Cargo.toml"
        );
    }
}
