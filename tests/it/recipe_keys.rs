//! `advcl recipe keys`, and the text of `advcl recipe show`.

#[cfg(unix)]
use std::process::Command;

use advcl::recipe::{SHIPPED, keys};

use crate::{advcl, folder, put};

#[test]
fn keys_are_printed_with_type_default_and_meaning() {
    let folder = folder();
    let path = folder.path();
    let all = keys::all();
    let text = advcl(path, "recipe keys").expect(0).stdout;
    assert_eq!(
        text.lines().count(),
        2 * all.len(),
        "two lines for each key"
    );
    for line in [
        "seed: whole number, required",
        "data.holdout: number, default 0.0",
        "data.train_limit: whole number, optional",
        "encoder.depth: 10, 18, 34 or 50, required",
        "threat.norm: \"linf\" or \"l2\", required",
        "threat.radius: distance in pixels, required",
        "pretrain.simclr.strong.scale: list of 2 numbers, default [0.2, 1.0]",
        "pretrain.deacl.teacher: text, default \"simclr\"",
        "pretrain.advcl.plan.schedule: { cosine = … } or { steps = … }, required",
        "pretrain.advcl.plan.schedule.cosine.warmup_epochs: whole number, default 0",
        "finetune.slf.trains: \"head\" or \"everything\", default \"head\"",
        "finetune.aff.loss: \"standard\", { pgd = … } or { trades = … }, \
         default { trades = { beta = 6.0, steps = 10 } }",
        "evaluate.soundness: true or false, default true",
        "evaluate.attack[square].queries: whole number, default 5000",
    ] {
        assert!(text.lines().any(|other| other == line), "{line}:\n{text}");
    }
    let json = advcl(path, "recipe keys --json").expect(0).json();
    assert_eq!(json, serde_json::json!(all));
    let some = advcl(path, "recipe keys evaluate").expect(0).stdout;
    assert!(some.starts_with("evaluate: table, required\n"), "{some}");
    assert!(text.contains(&some), "a part of the whole:\n{some}");
    let refused = advcl(path, "recipe keys evaluate.stps").expect(2);
    assert!(
        refused.stderr.contains("hint: did you mean \"steps\"?"),
        "{refused}"
    );
}

#[cfg(unix)]
#[test]
fn the_books_page_of_keys_is_what_the_program_says() {
    let checked = Command::new("docs/book/make_keys.sh")
        .arg("--check")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("ADVCL", env!("CARGO_BIN_EXE_advcl"))
        .output()
        .expect("the script starts");
    assert!(
        checked.status.success(),
        "{}{}",
        String::from_utf8_lossy(&checked.stdout),
        String::from_utf8_lossy(&checked.stderr)
    );
}

#[test]
fn a_recipe_is_shown_as_it_is_written() {
    let folder = folder();
    let path = folder.path();
    for (name, _, text) in SHIPPED {
        assert_eq!(
            advcl(path, &format!("recipe show {name}")).expect(0).stdout,
            text
        );
    }
    let (_, _, smoke) = SHIPPED[1];
    let own = format!("# Mine.\n{smoke}");
    put(path.join("own/recipe.toml"), &own);
    assert_eq!(advcl(path, "recipe show own").expect(0).stdout, own);
    assert_eq!(advcl(path, "recipe show --run own").expect(0).stdout, own);
    assert_eq!(
        advcl(path, "recipe show own --set seed=7").expect(0).stdout,
        own.replace("seed = 0", "seed = 7")
    );
}
