//! Imports go one way: between the modules of the library, and between neighbours of every folder.
//!
//! The text of the sources is read, not compiled: paths that begin with `crate`, `super` or `self`
//! are arrows from the file that has them to the module that they name. Comments, strings and
//! `#[cfg(test)]` items are skipped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The library's modules from top to bottom, as in ARCHITECTURE.md: a module imports modules of
/// lower lines only.
const LAYERS: [&str; 19] = [
    "fuzz",
    "report",
    "compare",
    "experiment",
    "preview bench",
    "recipe evaluate selftest export",
    "import pretrain",
    "probe active",
    "finetune run",
    "criterion",
    "check",
    "train",
    "session",
    "attack cluster logistic smoothing view tables",
    "data logits loss nn weights",
    "tensor interval files",
    "ranks",
    "device memory random pixels",
    "error",
];

/// Imports that the order allows and that are forbidden all the same: importer, imported, the rule.
const FORBIDDEN: [(&str, &str, &str); 5] = [
    ("attack", "nn", ATTACKS),
    ("attack", "data", ATTACKS),
    ("attack", "weights", ATTACKS),
    ("loss", "nn", LOSSES),
    ("nn", "data", "a network is given tensors"),
];
const ATTACKS: &str = "attacks know tensors and closures, no networks";
const LOSSES: &str = "losses are functions of tensors";

/// A crate's sources.
struct Crate {
    /// Folder below the package.
    root: &'static str,
    /// Folders in it that are other crates.
    without: &'static str,
}

const CRATES: [Crate; 3] = [
    Crate {
        root: "src",
        without: "src/bin",
    },
    Crate {
        root: "src/bin/advcl",
        without: "",
    },
    Crate {
        root: "kernels/src",
        without: "",
    },
];

/// One path in a source file that names another module of the crate.
#[derive(Debug)]
struct Import {
    /// "src/nn/frozen.rs:12".
    place: String,
    /// The file's module, from the crate's root: `["nn", "frozen"]`.
    from: Vec<String>,
    /// The module that is named, from the crate's root.
    to: Vec<String>,
}

impl Import {
    /// The folder in which importer and imported part, and their names there. None where one
    /// contains the other.
    fn neighbours(&self) -> Option<(&[String], &str, &str)> {
        let same = self.from.iter().zip(&self.to).take_while(|(a, b)| a == b);
        let depth = same.count();
        let (from, to) = (self.from.get(depth)?, self.to.get(depth)?);
        Some((&self.from[..depth], from, to))
    }
}

/// The text with comments, the contents of strings and `#[cfg(test)]` items made blank; lines stay
/// where they are.
fn code_of(text: &str) -> String {
    let without_comments = blank_comments_and_strings(text);
    let mut code = String::new();
    let mut rest = without_comments.as_str();
    while let Some(at) = rest.find("#[cfg(test)]") {
        let (before, item) = rest.split_at(at);
        code.push_str(before);
        // An item ends with a semicolon, or where its braces close.
        let mut depth = 0;
        let end = item.char_indices().find_map(|(at, c)| {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            (depth == 0 && matches!(c, '}' | ';')).then_some(at + 1)
        });
        let (item, after) = item.split_at(end.unwrap_or(item.len()));
        code.extend(item.chars().filter(|c| *c == '\n'));
        rest = after;
    }
    code + rest
}

fn blank_comments_and_strings(text: &str) -> String {
    let mut code = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('/', Some('/')) => while chars.next_if(|c| *c != '\n').is_some() {},
            ('"', _) => {
                while let Some(c) = chars.next() {
                    match c {
                        '\\' => {
                            code.extend(chars.next().filter(|c| *c == '\n'));
                        }
                        '"' => break,
                        '\n' => code.push('\n'),
                        _ => {}
                    }
                }
            }
            // A quotation mark or a brace as a character.
            ('\'', Some('"' | '{' | '}')) => {
                chars.next();
                chars.next();
            }
            _ => code.push(c),
        }
    }
    code
}

/// All paths that begin with `crate`, `super` or `self`, with the line of each: those of `use` with
/// their braces taken apart, and those in the code.
fn paths_of(code: &str) -> Vec<(usize, Vec<String>)> {
    let mut paths = Vec::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(start) {
            let part_of_a_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            if code[..at].ends_with(part_of_a_word) {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            let mut found = Vec::new();
            take_apart(&code[at..], &[], &mut found);
            paths.extend(found.into_iter().map(|path| (line, path)));
        }
    }
    paths
}

/// Reads a path, with a tree in braces where it has one, below `above`. How much of the text it is.
fn take_apart(text: &str, above: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let mut path = above.to_vec();
    let mut at = 0;
    loop {
        let rest = &text[at..];
        let word: String = (rest.chars())
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        if rest.starts_with('{') {
            at += 1;
            loop {
                let rest = text[at..].trim_start();
                at = text.len() - rest.len();
                if rest.is_empty() || rest.starts_with('}') {
                    return (at + 1).min(text.len());
                }
                // The path of a part, " as …" and the comma after it.
                at += take_apart(rest, &path, found);
                at += text[at..].find([',', '}']).unwrap_or(text.len() - at);
                at += usize::from(text[at..].starts_with(','));
            }
        }
        at += word.len();
        path.push(word);
        if !text[at..].starts_with("::") {
            found.push(path);
            return at;
        }
        at += 2;
    }
}

/// The source files of a crate, below the package: module, place, text.
fn files_of(sources: &Crate) -> Vec<(Vec<String>, String, String)> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![package.join(sources.root)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        for entry in entries {
            let path = entry.expect("a readable folder").path();
            let below = |root: &str| {
                let path = path.strip_prefix(package.join(root)).ok()?;
                Some(path.to_str().expect("UTF-8").replace('\\', "/"))
            };
            if path.is_dir() {
                if sources.without.is_empty() || below(sources.without).is_none() {
                    folders.push(path);
                }
                continue;
            }
            let name = below(sources.root).expect("below the root");
            let Some(name) = name.strip_suffix(".rs") else {
                continue;
            };
            let mut module: Vec<String> = name.split('/').map(str::to_owned).collect();
            if module.last().is_some_and(|name| name == "mod") || name == "lib" || name == "main" {
                module.pop();
            }
            let text = fs::read_to_string(&path).expect("UTF-8");
            files.push((module, format!("{}/{name}.rs", sources.root), text));
        }
    }
    files.sort();
    files
}

/// All imports between modules of a crate.
fn imports_of(sources: &Crate) -> Vec<Import> {
    let files = files_of(sources);
    let modules: BTreeSet<&[String]> = files.iter().map(|(module, ..)| &module[..]).collect();
    let mut imports = Vec::new();
    for (module, place, text) in &files {
        for (line, path) in paths_of(&code_of(text)) {
            let mut to = Vec::new();
            for (index, part) in path.iter().enumerate() {
                match part.as_str() {
                    "crate" => {}
                    "self" if index > 0 => {}
                    "self" => to.clone_from(module),
                    "super" if index == 0 => to = module[..module.len().max(1) - 1].to_vec(),
                    "super" => drop(to.pop()),
                    part => to.push(part.to_owned()),
                }
            }
            // What is no module is an item of the one before.
            while !modules.contains(&to[..]) && !to.is_empty() {
                to.pop();
            }
            imports.push(Import {
                place: format!("{place}:{line}"),
                from: module.clone(),
                to,
            });
        }
    }
    imports
}

#[test]
fn modules_import_only_what_is_below_them() {
    let layer = |module: &str| {
        let has = |layer: &&str| layer.split(' ').any(|name| name == module);
        LAYERS.iter().position(has)
    };
    let mut wrong = BTreeSet::new();
    let files = files_of(&CRATES[0]);
    let there: BTreeMap<&str, &str> = (files.iter())
        .filter_map(|(module, place, _)| Some((module.first()?.as_str(), place.as_str())))
        .collect();
    for (module, place) in &there {
        if layer(module).is_none() {
            wrong.insert(format!(
                "{place}: `{module}` is in no line of LAYERS: add it to one"
            ));
        }
    }
    for module in LAYERS.iter().flat_map(|layer| layer.split(' ')) {
        if !there.contains_key(module) {
            wrong.insert(format!(
                "LAYERS: there is no module `{module}`: take it out"
            ));
        }
    }
    for import in imports_of(&CRATES[0]) {
        let Some(([], from, to)) = import.neighbours() else {
            continue;
        };
        let place = &import.place;
        if let Some((.., rule)) = (FORBIDDEN.iter()).find(|rule| (rule.0, rule.1) == (from, to)) {
            wrong.insert(format!("{place}: {from} → {to}: {rule}"));
        } else if layer(from) >= layer(to) {
            wrong.insert(format!(
                "{place}: {from} → {to}: `{to}` is not in a lower line of LAYERS than `{from}`"
            ));
        }
    }
    let wrong: Vec<String> = wrong.into_iter().collect();
    assert!(wrong.is_empty(), "forbidden imports\n{}", wrong.join("\n"));
}

#[test]
fn neighbours_do_not_import_each_other_in_a_circle() {
    let mut wrong = Vec::new();
    for sources in &CRATES {
        // In each folder: who imports whom, and where.
        let mut folders: BTreeMap<String, BTreeMap<(String, String), String>> = BTreeMap::new();
        for import in imports_of(sources) {
            if let Some((folder, from, to)) = import.neighbours() {
                let folder = [&[sources.root.to_owned()], folder].concat().join("/");
                let arrows = folders.entry(folder).or_default();
                let arrow = (from.to_owned(), to.to_owned());
                arrows.entry(arrow).or_insert(import.place);
            }
        }
        for (folder, arrows) in &folders {
            for ((from, to), place) in arrows {
                if reaches(arrows, to, from) {
                    let circle = format!("{place}: {from} → {to} closes a circle in {folder}");
                    wrong.push(circle);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "circles of imports\n{}", wrong.join("\n"));
}

/// Whether arrows lead from one name to another.
fn reaches(arrows: &BTreeMap<(String, String), String>, from: &str, to: &str) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(name) = next.pop() {
        if name == to {
            return true;
        }
        if seen.insert(name) {
            let on = arrows.keys().filter(|(from, _)| from == name);
            next.extend(on.map(|(_, to)| to.as_str()));
        }
    }
    false
}

#[test]
fn paths_are_found_where_they_are_and_nowhere_else() {
    let text = r#"
//! crate::comment::A
use super::{a::B, c::{self, D as E}, f};
use crate::g::*;
fn h() { crate::i::j(&"crate::text", '"', '{'); }
#[cfg(test)]
mod tests { use crate::k; }
#[cfg(test)]
use crate::l;
use self::m;
"#;
    let found: Vec<String> = paths_of(&code_of(text))
        .into_iter()
        .map(|(line, path)| format!("{line} {}", path.join("::")))
        .collect();
    let expected = [
        "4 crate::g::",
        "5 crate::i::j",
        "3 super::a::B",
        "3 super::c::self",
        "3 super::c::D",
        "3 super::f",
        "10 self::m",
    ];
    assert_eq!(found, expected);
}
