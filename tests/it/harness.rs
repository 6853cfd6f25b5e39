//! Runs the program.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::files::contents;

/// One answer of the program.
pub struct Answer {
    /// The command line.
    pub command: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Answer {
    /// Fails unless the program ended with this code and without a panic.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "exit code of\n{self}");
        assert!(!self.stderr.contains("panicked"), "a panic in\n{self}");
        self
    }

    /// The standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in\n{self}"))
    }
}

/// The command, its standard output as it is, its standard error after `2>`, and the exit code
/// unless that is 0.
impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        writeln!(f, "$ {}", self.command)?;
        f.write_str(&self.stdout)?;
        for line in self.stderr.lines() {
            writeln!(f, "{}", format!("2> {line}").trim_end())?;
        }
        match self.code {
            Some(0) => Ok(()),
            Some(code) => writeln!(f, "exit code {code}"),
            None => writeln!(f, "ended by a signal"),
        }
    }
}

/// The program, to be run in `folder`.
pub fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_advcl"));
    command.current_dir(folder).stdin(Stdio::null());
    // Both change what is printed.
    command.env_remove("COLUMNS").env_remove("CLICOLOR_FORCE");
    command
}

/// A command line as it is typed.
pub fn command_line(command: &Command) -> String {
    let mut line = "advcl".to_owned();
    for arg in command.get_args() {
        let arg = arg.to_string_lossy();
        if arg.is_empty() || arg.contains([' ', '\'', '"']) {
            let _ = write!(line, " '{}'", arg.replace('\'', r"'\''"));
        } else {
            let _ = write!(line, " {arg}");
        }
    }
    line
}

/// Runs a prepared command to its end.
pub fn answer(command: &mut Command) -> Answer {
    let output = command.output().expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Answer {
        command: command_line(command),
        code: output.status.code(),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}

/// Runs the program in `folder` to its end; arguments as on a command line, none with a space in
/// it.
pub fn advcl(folder: &Path, args: &str) -> Answer {
    Answer {
        command: format!("advcl {args}"),
        ..answer(program(folder).args(args.split_whitespace()))
    }
}

/// What a refused command may do to its folder.
#[derive(Clone, Copy, PartialEq)]
pub enum Files {
    Untouched,
    MayBeAdded,
}

/// Runs a command that must be refused: exit code 2, nothing on standard output, an error, no
/// panic, no file changed or taken away, no temporary file left.
#[track_caller]
pub fn refused(folder: &Path, args: &str, files: Files) -> Answer {
    let before = contents(folder);
    let answer = advcl(folder, args).expect(2);
    assert!(answer.stderr.contains("error: "), "no error in\n{answer}");
    assert_eq!(answer.stdout, "", "a result of\n{answer}");
    let after = contents(folder);
    for (path, content) in &before {
        let same = after.get(path) == Some(content);
        assert!(same, "{} changed by\n{answer}", path.display());
    }
    for path in after.keys().filter(|path| !before.contains_key(*path)) {
        let temporary = path.extension().is_some_and(|e| e == "part");
        assert!(!temporary, "{} left by\n{answer}", path.display());
        let allowed = files == Files::MayBeAdded;
        assert!(allowed, "{} added by\n{answer}", path.display());
    }
    answer
}
