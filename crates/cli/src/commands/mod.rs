//! One file per command.

mod activations;
mod awq;
mod bench;
mod calibrate;
mod convert;
mod diff;
mod edit;
mod gguf;
mod gptq;
mod inspect;
mod layerwise;
mod merge;
mod perplexity;
mod quantized;
mod quickstart;
mod run;
mod split;
mod tokenize;
mod verify;
mod w8a8;

use crate::error::CliResult;

/// The commands.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    Quickstart(quickstart::Args),
    Inspect(inspect::Args),
    Tokenize(tokenize::Args),
    Convert(convert::Args),
    Calibrate(calibrate::Args),
    Gguf(Box<gguf::Args>),
    Gptq(Box<gptq::Args>),
    Awq(Box<awq::Args>),
    W8a8(Box<w8a8::Args>),
    Activations(activations::Args),
    Perplexity(perplexity::Args),
    Run(Box<run::Args>),
    Bench(bench::Args),
    Verify(verify::Args),
    Edit(Box<edit::Args>),
    Split(split::Args),
    Merge(merge::Args),
    Diff(diff::Args),
}

impl Command {
    pub(crate) fn run(self) -> CliResult {
        match self {
            Self::Quickstart(args) => args.run(),
            Self::Inspect(args) => args.run(),
            Self::Tokenize(args) => args.run(),
            Self::Convert(args) => args.run(),
            Self::Calibrate(args) => args.run(),
            Self::Gguf(args) => args.run(),
            Self::Gptq(args) => args.run(),
            Self::Awq(args) => args.run(),
            Self::W8a8(args) => args.run(),
            Self::Activations(args) => args.run(),
            Self::Perplexity(args) => args.run(),
            Self::Run(args) => args.run(),
            Self::Bench(args) => args.run(),
            Self::Verify(args) => args.run(),
            Self::Edit(args) => args.run(),
            Self::Split(args) => args.run(),
            Self::Merge(args) => args.run(),
            Self::Diff(args) => args.run(),
        }
    }
}
