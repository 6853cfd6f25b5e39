//! `advcl check`: whether the files of a run folder are whole, and what of them holds.

use advcl::experiment::{CheckedFile, FileState, check as check_folder};
use advcl::{Error, device};
use anyhow::Result;

use crate::args::{self, Shared};
use crate::format::Table;
use crate::output::{print, print_json};

/// Checks a run folder. Fails where a file is damaged.
pub fn check(what: &args::Check, shared: &Shared) -> Result<()> {
    let device = device::open(&shared.device)?;
    let Some(folder) = what.folder.as_ref().or(shared.run.as_ref()) else {
        let hint = "name one: advcl check runs/quickstart";
        return Err(Error::run("(none named)", "a check is of a run folder", hint).into());
    };
    let files = check_folder(folder, &shared.set, &device)?;
    if shared.json {
        print_json(&files)?;
    } else {
        print(&text(&files, shared.verbose))?;
    }
    let damaged = files.iter().filter(|file| file.state == FileState::Damaged);
    match damaged.count() {
        0 => Ok(()),
        damaged => Err(Error::Damaged {
            path: folder.clone(),
            damaged,
            files: files.len(),
        }
        .into()),
    }
}

fn name(state: FileState) -> &'static str {
    match state {
        FileState::Holds => "holds",
        FileState::Unfinished => "unfinished",
        FileState::Stale => "stale",
        FileState::Damaged => "damaged",
    }
}

/// A line for each file, what to do about those that do not hold, and how many there are of each state.
fn text(files: &[CheckedFile], verbose: bool) -> String {
    let mut table = Table::new().left("file").left("state").left("found");
    for file in files {
        table.row([
            file.file.display().to_string(),
            name(file.state).to_owned(),
            file.found.clone(),
        ]);
    }
    let mut text = table.text();
    let advice = files.iter().filter(|file| !file.hint.is_empty());
    let advice = advice.filter(|file| verbose || file.state >= FileState::Stale);
    let advice: String = advice
        .map(|file| format!("{}: {}\n", file.file.display(), file.hint))
        .collect();
    if !advice.is_empty() {
        text += &format!("\nwhat to do\n{advice}");
    }
    let all = [
        FileState::Holds,
        FileState::Unfinished,
        FileState::Stale,
        FileState::Damaged,
    ];
    let counts = all.into_iter().filter_map(|state| {
        let count = files.iter().filter(|file| file.state == state).count();
        (count > 0).then(|| format!("{count} {}", name(state)))
    });
    let counts: Vec<String> = counts.collect();
    text + &format!("\n{} files: {}\n", files.len(), counts.join(", "))
}
