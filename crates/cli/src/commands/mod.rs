//! One file per command.

mod bench;
mod calibrate;
mod inspect;
mod perplexity;
mod run;
mod tokenize;

use crate::error::CliResult;

/// The commands.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    Inspect(inspect::Args),
    Calibrate(calibrate::Args),
    Perplexity(perplexity::Args),
    Bench(bench::Args),
    Tokenize(tokenize::Args),
    Run(Box<run::Args>),
}

impl Command {
    pub(crate) fn run(self) -> CliResult {
        match self {
            Self::Inspect(args) => args.run(),
            Self::Calibrate(args) => args.run(),
            Self::Perplexity(args) => args.run(),
            Self::Bench(args) => args.run(),
            Self::Tokenize(args) => args.run(),
            Self::Run(args) => args.run(),
        }
    }
}
