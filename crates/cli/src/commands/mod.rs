//! One file per command.

use crate::error::CliResult;

/// The commands.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {}

impl Command {
    pub(crate) fn run(self) -> CliResult {
        match self {}
    }
}
