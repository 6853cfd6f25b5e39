//! Bad input: recipes and arguments. Each is refused with exit code 2 and one clear message that
//! says where, and no file is touched ([`Transcript::refuse`]).

use crate::{TINY, Transcript, folder, put};

#[test]
fn wrong_lines_of_a_recipe() {
    let folder = folder();
    let path = folder.path();
    let mut transcript = Transcript::new(path);
    for (line, wrong) in [
        ("width = 2", "widht = 2"),
        ("width = 2", "width = \"two\""),
        ("width = 2", "width = 0"),
        ("width = 2", ""),
        ("depth = 10", "depth = 11"),
        ("radius = \"0.1\"", "radius = 1.5"),
        ("radius = \"0.1\"", "radius = -0.1"),
        ("radius = \"0.1\"", "radius = \"8/0\""),
        ("norm = \"linf\"", "norm = \"l1\""),
        ("counts = [2, 5]", "counts = [1]"),
        ("[finetune.slf]", "[finetune.slf"),
        ("[finetune.slf]", "[finetune.semi-supervized]"),
        ("[pretrain.simclr]", "[pretrain.simcrl]"),
        ("[pretrain.simclr]", "[pretrain.\"simclr-a b\"]"),
        ("split = \"test\"", "split = \"holdout\""),
    ] {
        assert_eq!(TINY.matches(line).count(), 1, "{line}");
        put(path.join("wrong.toml"), TINY.replace(line, wrong));
        let number = TINY.lines().take_while(|other| *other != line).count() + 1;
        transcript.note(&format!("line {number}: {line} → {wrong}"));
        transcript.refuse_all(&["recipe check wrong.toml".into(), "run wrong.toml".into()]);
    }
    transcript.check("wrong_lines_of_a_recipe");
}

#[test]
fn wrong_overrides() {
    let folder = folder();
    let mut transcript = Transcript::new(folder.path());
    for change in [
        "data.colour=1",
        "seed",
        "seed=",
        "seed=-1",
        "finetune.slf.plan.epochs=0",
        "finetune.slf.plan.lr=nan",
        "finetune.slff.plan.epochs=1",
        "pretrain.advlc.plan.epochs=1",
        "finetune.slf.loss={pgd={steps=0}}",
        "pretrain.simclr.plan.batch_size=65",
        "pretrain.simclr.plan.batch_size=1",
        "cluster.counts=[2,65]",
        "data.train_limit=0",
        "data.test_limit=5",
        "data.test_limit=9",
        "pretrain.advcl.high_frequency_radius=20",
        "pretrain.advcl.attack_steps=0",
        "evaluate.steps=0",
        "cluster.restarts=0",
        "finetune.slf.plan.schedule={cosine={warmup_from=nan}}",
        "data.holdout=1.5",
        "data.source='nowhere'",
    ] {
        let command = |name: &str| format!("{name} tiny.toml --set {change}");
        transcript.refuse_all(&["recipe check", "run"].map(command));
    }
    transcript.check("wrong_overrides");
}

#[test]
fn wrong_arguments() {
    let folder = folder();
    let path = folder.path();
    put(path.join("latin.toml"), b"seed = 1 # \xe9");
    put(path.join("empty.toml"), "");
    let mut transcript = Transcript::new(path);
    for args in [
        "run nowhere.toml",
        "run quickstrat",
        "recipe show xyz",
        "run .",
        "run latin.toml",
        "run empty.toml",
        "run tiny.toml --device quantum",
        "run tiny.toml --device cuda:x",
        "run tiny.toml --device cpu:1",
        "selftest --device tpu",
        "pretrain tiny.toml --method simcrl",
        "evaluate tiny.toml --method moco",
        "pretrain tiny.toml --method trades",
        "finetune tiny.toml --mode semi-supervized",
        "evaluate tiny.toml --mode probe",
        "evaluate tiny.toml --mode aff",
        "pretrain tiny.toml --mode slf",
        "info --precision f16",
        "list metods",
        "run tiny.toml --run tiny.toml/run",
        "run tiny.toml --run tiny.toml",
        "bench step --width 0",
        "bench step --batch 1",
        "bench kernels --size 7",
        "bench kernels --width 1024 --batch 65536 --size 1024",
        "bench evaluate --channels 2 --json",
        "bench evaluate --batch 0",
        "bench kernels --runs 0",
        "bench kernels --device quantum",
        "bench step --width wide",
        "frobnicate",
        "data inspect --rows 0 --sheet s.png",
    ] {
        transcript.refuse(args);
    }
    transcript.check("wrong_arguments");
}

#[cfg(not(feature = "wgpu"))]
#[test]
fn a_device_that_is_not_compiled_in() {
    let folder = folder();
    let mut transcript = Transcript::new(folder.path());
    transcript.refuse("run tiny.toml --device vulkan");
    transcript.refuse("run tiny.toml --device gpu");
    transcript.check("a_device_that_is_not_compiled_in");
}
