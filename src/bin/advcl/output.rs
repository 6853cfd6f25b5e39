//! Results on standard output: text, or JSON for programs.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use advcl::ranks;
use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::args::Shared;

/// Whether a terminal obeys a character, and does not show it.
fn is_obeyed(c: char) -> bool {
    // Beside controls, the marks that change the direction of the text around them.
    let turns =
        matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}');
    turns || c.is_control()
}

fn escaped(text: &str, escape: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&escape) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if escape(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Text on one line, without characters that a terminal would obey: names come from strangers' files.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, is_obeyed)
}

/// As [`printable`], for text of several lines: line breaks and tabs stay.
pub fn harmless(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_obeyed(c) && !matches!(c, '\n' | '\t'))
}

/// Longest message and longest cell of a table in characters.
const LONGEST: usize = 4_000;

/// A message or a cell whose middle is left out where it is longer than anyone reads: a name may be of any length.
pub fn shortened(text: &str) -> Cow<'_, str> {
    let Some((cut, _)) = text.char_indices().nth(LONGEST) else {
        return Cow::Borrowed(text);
    };
    let (start, rest) = text.split_at(cut);
    let left = rest.chars().count();
    let end: Vec<char> = rest.chars().rev().take(LONGEST / 4).collect();
    let end: String = end.into_iter().rev().collect();
    let left = left.saturating_sub(LONGEST / 4);
    Cow::Owned(format!("{start} … ({left} characters left out) … {end}"))
}

/// Colours of words on a terminal. What they say is said by the words too.
#[derive(Clone, Copy)]
pub enum Colour {
    Red,
    Green,
}

impl Colour {
    /// End of every style.
    pub const END: &str = "\u{1b}[0m";
    /// Bold, in the terminal's own colour.
    const BOLD: &str = "\u{1b}[1m";

    /// Beginning of bold words of this colour.
    pub fn start(self) -> &'static str {
        match self {
            Self::Red => "\u{1b}[1;31m",
            Self::Green => "\u{1b}[1;32m",
        }
    }
}

/// Whether a stream is a terminal that shows colours, and the user wants them: see no-color.org. Windows' old console shows the codes
/// instead; its successor names itself.
pub fn has_colours(stream: &impl IsTerminal) -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let able = set("TERM").is_none_or(|name| name != "dumb");
    let able = able && (!cfg!(windows) || set("WT_SESSION").is_some());
    able && set("NO_COLOR").is_none() && stream.is_terminal()
}

/// Marks around words that are bold on a terminal; [`printable`] escapes them where they come from others.
const BOLD: [char; 2] = ['\u{2}', '\u{3}'];

/// A line that is bold where standard output shows that.
pub fn bold(line: &str) -> Cow<'_, str> {
    match has_colours(&std::io::stdout()) {
        true => Cow::Owned(format!("{}{line}{}", BOLD[0], BOLD[1])),
        false => Cow::Borrowed(line),
    }
}

/// Text for a terminal with the marks of [`bold`] as what it obeys, and nothing else that it would.
fn styled(text: &str) -> String {
    let text = escaped(text, |c| {
        is_obeyed(c) && !matches!(c, '\n' | '\t') && !BOLD.contains(&c)
    });
    text.replace(BOLD[0], Colour::BOLD)
        .replace(BOLD[1], Colour::END)
}

/// Writes text for people to standard output; a closed pipe is no error.
pub fn print(text: &str) -> Result<()> {
    match has_colours(&std::io::stdout()) {
        true => write(&styled(text)),
        false => write(&harmless(text)),
    }
}

/// Writes text for programs to standard output: every byte of it to a file or a pipe, where names must be those of the files, and to
/// a terminal without what it would obey. A closed pipe is no error.
pub fn print_exactly(text: &str) -> Result<()> {
    write(&for_programs(text, std::io::stdout().is_terminal()))
}

fn for_programs(text: &str, in_terminal: bool) -> Cow<'_, str> {
    match in_terminal {
        true => harmless(text),
        false => Cow::Borrowed(text),
    }
}

fn write(text: &str) -> Result<()> {
    if !ranks::speaks() {
        return Ok(());
    }
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        _ => Ok(()),
    }
}

/// Writes a value as JSON. Paths in it are text by then ([`advcl::files::as_text`]): serde refuses names that are no UTF-8, when all
/// work is done.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    print_exactly(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Writes the files that a command made, a line each.
pub fn print_paths(paths: &[PathBuf], shared: &Shared) -> Result<()> {
    if shared.json {
        let paths: Vec<_> = paths.iter().map(|path| path.to_string_lossy()).collect();
        return print_json(&paths);
    }
    let line = |path: &PathBuf| format!("{}\n", path.display());
    print(&paths.iter().map(line).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_told_nothing_by_names() {
        assert_eq!(harmless("a\tb\nü"), "a\tb\nü");
        assert_eq!(
            harmless("dog\u{1b}]0;owned\u{7}\r"),
            "dog\\u{1b}]0;owned\\u{7}\\r"
        );
        assert_eq!(printable("a\nb"), "a\\nb");
        assert_eq!(harmless("\u{202e}gnp.exe\u{9b}"), "\\u{202e}gnp.exe\\u{9b}");
    }

    #[test]
    fn text_for_programs_is_exact_but_in_a_terminal() {
        let text = "image,class\n\"a\u{1b}[31m\",\u{9b}1m\r\n";
        assert_eq!(for_programs(text, false), text);
        let shown = "image,class\n\"a\\u{1b}[31m\",\\u{9b}1m\\r\n";
        assert_eq!(for_programs(text, true), shown);
    }

    #[test]
    fn heads_are_bold_and_nothing_else_is_obeyed() {
        let [on, off] = BOLD;
        assert_eq!(
            styled(&format!("{on}name  n{off}\na\u{1b}[31m  1\n")),
            "\u{1b}[1mname  n\u{1b}[0m\na\\u{1b}[31m  1\n"
        );
        // Not in a terminal: as any other character.
        assert_eq!(harmless(&on.to_string()), "\\u{2}");
        assert_eq!(printable(&off.to_string()), "\\u{3}");
    }

    #[test]
    fn messages_have_an_end() {
        let name = "ü".repeat(1_000_000);
        let text = format!("before {name} after");
        let short = shortened(&text);
        assert!(short.chars().count() < 6_000 && short.starts_with("before ü"));
        assert!(short.ends_with("ü after") && short.contains("left out"));
        assert_eq!(shortened("before after"), "before after");
    }
}
