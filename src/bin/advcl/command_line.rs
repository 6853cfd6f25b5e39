//! The command line as a whole: its help, completions for shells, and manual pages.

use std::ffi::OsString;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use advcl::{Error, files};
use anyhow::{Context as _, Result};
use clap::builder::StyledStr;
use clap::{Args, CommandFactory, FromArgMatches};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::args::{Cli, Shared};
use crate::output::{print, print_exactly, print_paths};
use crate::sides;

/// The program's name in completions.
const NAME: &str = "advcl";
/// Command whose help has the options of all commands.
const OPTIONS: &str = "options";
/// Columns of help pages.
const WIDTH: usize = 100;
/// Help of a command: as clap has it, and a line about the options that are not in it.
const PAGE: &str = "{about-with-newline}\n{usage-heading} {usage}\n\n{all-args}\n\n\
    Options that every command takes (--run, --set, --device, --json, -v, …): advcl help options{after-help}";
/// Help of [`OPTIONS`].
const PAGE_OF_OPTIONS: &str =
    "{about-with-newline}\n{usage-heading} advcl <COMMAND> [OPTIONS]{after-help}";
/// Beginning of every manual page that this program writes.
const PAGE_START: &[u8] = b".ie \\n(.g .ds Aq";

/// The command line. A command's help has its own options; those of all commands have a page of their own, or each page would be
/// mostly about them.
fn command() -> clap::Command {
    let mut command = Cli::command();
    let shared: Vec<_> = (Shared::augment_args(clap::Command::new(NAME)).get_arguments())
        .map(|arg| arg.get_id().clone())
        .collect();
    for id in shared {
        command = command.mut_arg(id, |arg| arg.hide(true));
    }
    with_page(command).mut_subcommand(OPTIONS, |options| {
        options
            .help_template(PAGE_OF_OPTIONS)
            .after_help(shared_options())
    })
}

/// The command and those below it with the line about the options of all commands.
fn with_page(command: clap::Command) -> clap::Command {
    command.help_template(PAGE).mut_subcommands(with_page)
}

/// Help of the options that every command takes.
fn shared_options() -> StyledStr {
    let shared = Shared::augment_args(clap::Command::new(NAME));
    let shared = shared.disable_help_flag(true).max_term_width(WIDTH);
    shared.help_template("{options}").render_help()
}

/// Reads the program's arguments.
///
/// # Errors
/// Arguments that are wrong; a page of help, which is printed as such an error.
pub fn parse() -> Result<Cli, clap::Error> {
    let mut command = command();
    let arguments = sides::joined(std::env::args_os().map(home_expanded));
    let matches = command.try_get_matches_from_mut(arguments)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// Prints what [`parse`] said in the place of arguments. Help that cannot be written is an error as every other result; a closed pipe
/// is none, nor are complaints that nobody reads.
pub fn print_said(said: &clap::Error) -> Result<()> {
    match said.print().and_then(|()| std::io::stdout().flush()) {
        Err(error) if !said.use_stderr() && error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        _ => Ok(()),
    }
}

/// `--output=~/x` with the home folder in it: after an equals sign a shell expands nothing.
fn home_expanded(argument: OsString) -> OsString {
    let option = argument.to_str().filter(|text| text.starts_with("--"));
    match option.and_then(|text| text.split_once("=~/")) {
        Some((name, rest)) if !name.contains('=') => {
            format!("{name}={}", files::expand_home(&format!("~/{rest}"))).into()
        }
        _ => argument,
    }
}

/// Prints the page of the options that every command takes.
pub fn options() -> Result<()> {
    let mut command = command();
    let page = command.find_subcommand_mut(OPTIONS).expect("it is there");
    print(&page.render_help().to_string())
}

/// Prints completions for a shell; of all options, also those that have a page of their own.
pub fn completions(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
    print_exactly(&String::from_utf8_lossy(&script))
}

/// Prints the program's manual page, or writes the pages of all commands to a folder.
pub fn man(folder: Option<&Path>, shared: &Shared) -> Result<()> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let Some(folder) = folder else {
        return print_exactly(&String::from_utf8_lossy(&page(&command)?));
    };
    let mut commands = vec![&command];
    let mut pages = Vec::new();
    while let Some(next) = commands.pop() {
        let name = Man::new(next.clone()).get_filename();
        pages.push((folder.join(name), page(next)?));
        commands.extend(next.get_subcommands().filter(|below| !below.is_hide_set()));
    }
    pages.sort();
    for (path, _) in &pages {
        require_page(path)?;
    }
    std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    for (path, text) in &pages {
        files::write_output(path, text)?;
    }
    let paths: Vec<PathBuf> = pages.into_iter().map(|(path, _)| path).collect();
    print_paths(&paths, shared)
}

/// The manual page of a command.
fn page(command: &clap::Command) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let page = Man::new(command.clone()).manual("advcl");
    page.render(&mut text).context("cannot write a page")?;
    Ok(text)
}

/// Refuses to replace a file that is no manual page of this kind.
fn require_page(path: &Path) -> advcl::Result<()> {
    let is_there = std::fs::symlink_metadata(path).is_ok();
    if !is_there || (path.is_file() && files::read(path)?.starts_with(PAGE_START)) {
        return Ok(());
    }
    Err(Error::Output {
        path: path.to_path_buf(),
        problem: "it exists already, and is no manual page of this program".to_owned(),
        hint: "name another folder: advcl man DIR".to_owned(),
    })
}
