//! The command `quant`: arguments, progress, tables. No maths.

mod cache_args;
mod commands;
mod error;
mod input;
mod output;
mod peak_memory;
mod products_arg;
mod progress;
mod table;
mod threads;
mod usage;

use clap::Parser;
use std::process::ExitCode;

/// Language models to few bits: quantize, run, measure.
#[derive(Parser, Debug)]
#[command(name = "quant", version, about, subcommand_required = true, arg_required_else_help = false)]
struct Cli {
    /// Threads to compute with [default: the physical cores].
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    threads: Option<u16>,
    #[command(subcommand)]
    command: commands::Command,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => return usage::report(&e),
    };
    let threads = cli.threads.map_or_else(threads::physical_cores, usize::from);
    if let Err(e) = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global() {
        eprintln!("error: cannot start the threads: {e}");
        return ExitCode::from(1);
    }
    match cli.command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => e.report(),
    }
}
