//! The command line.

mod args;
mod commands;
mod progress;
mod table;

use std::process::ExitCode;

use clap::Parser;
use progress::talk;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    match commands::dispatch(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            let ours = error.downcast_ref::<advcl::Error>();
            ExitCode::from(ours.map_or(2, advcl::Error::exit_code))
        }
    }
}

/// The headline, its causes, and what to do about it.
fn report(error: &anyhow::Error) {
    talk(&format!("error: {error}"));
    let mut said = error.to_string();
    for cause in error.chain().skip(1) {
        // Some of our messages end with their cause's already.
        let cause = cause.to_string();
        if !said.contains(&cause) {
            talk(&format!("caused by: {cause}"));
            said = cause;
        }
    }
    if let Some(hint) = error
        .downcast_ref::<advcl::Error>()
        .and_then(advcl::Error::hint)
    {
        talk(&format!("hint: {hint}"));
    }
}
