//! `quant bench`: prompt and decode speed.

use crate::cache_args::CacheArgs;
use crate::error::CliResult;
use crate::output::{print_json, to_stdout};
use crate::peak_memory::peak_rss_bytes;
use crate::products_arg::ProductArgs;
use crate::{progress, table};
use candle_core::Device;
use quant_runtime::eval::{SpeedOptions, SpeedResult, measure_speed};
use quant_runtime::{Checkpoint, LogitRows};
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// Measure prompt and decode speed.
///
/// Tokenization and sampling are not part of the time. Each test runs once before it is measured. Tokens per second are medians. Peak memory
/// counts file pages of memory maps; it is unknown (null) where the system has no /proc.
///
/// Weights are moved to the products' layout after the first token and before the tests; `quant run` does it between its first tokens.
///
/// Generating a token reads every weight once; "of bandwidth" compares that with how quickly the same threads can read the weights at all.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// GGUF file, or directory with safetensors.
    model: PathBuf,
    /// Tokens of the prompt, read in one pass; 0: no such test [default: 512, or what fits the model's context].
    #[arg(short, long, value_name = "N")]
    prompt: Option<usize>,
    /// Tokens to generate, one by one; 0: no such test [default: 64, or what fits the model's context].
    #[arg(short = 'n', long, value_name = "N")]
    generate: Option<usize>,
    /// Measurements of each test.
    #[arg(short, long, value_name = "N", default_value_t = 5)]
    repetitions: usize,
    /// Tokens that are in the cache already when a test starts.
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    depth: usize,
    #[command(flatten)]
    products: ProductArgs,
    #[command(flatten)]
    cache: CacheArgs,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn run(self) -> CliResult {
        let cache = self.cache.choice()?;
        let start = Instant::now();
        let model = self.products.load(&Checkpoint::open(&self.model)?, &Device::Cpu)?;
        let load_seconds = start.elapsed().as_secs_f64();
        let mut first_cache = model.new_cache_of(cache)?;
        model.forward(&[0], &mut first_cache, LogitRows::Last)?;
        let first_token_seconds = start.elapsed().as_secs_f64();
        drop(first_cache);
        let start = Instant::now();
        if self.products.repacks() {
            model.repack()?;
        }
        let repack_seconds = start.elapsed().as_secs_f64();
        let room = model.config().max_context.saturating_sub(self.depth);
        let options = SpeedOptions {
            prompt: self.prompt.unwrap_or(512.min(room)),
            generate: self.generate.unwrap_or(64.min(room)),
            repetitions: self.repetitions,
            depth: self.depth,
            cache,
        };
        let tests = [options.prompt, options.generate].iter().filter(|&&n| n > 0).count();
        let bar = progress::bar("bench", tests.saturating_mul(self.repetitions.saturating_add(1)));
        let results = measure_speed(&model, options, &mut |n| bar.set_position(n as u64))?;
        bar.finish_and_clear();
        let (threads, peak) = (rayon::current_num_threads(), peak_rss_bytes());
        let cache_bytes_per_token = model.new_cache_of(options.cache)?.bytes_per_token();
        let bandwidth = model.measure_weight_bandwidth(5);
        // What a generated token reads: all weights, and on average the cache of half the test.
        let read = model.weight_bytes_per_token() as f64
            + cache_bytes_per_token as f64 * (self.depth as f64 + options.generate as f64 / 2.0);
        let share = |r: &SpeedResult| match bandwidth {
            Some(bandwidth) if r.test.starts_with("tg") => Some(r.median() * read / bandwidth),
            _ => None,
        };
        if self.json {
            let results: Vec<_> = results
                .iter()
                .map(|r| {
                    json!({
                        "test": r.test, "depth": self.depth, "tokens_per_second": r.median(), "mean": r.mean(),
                        "stddev": r.stddev(), "samples": r.samples, "bandwidth_share": share(r),
                    })
                })
                .collect();
            return print_json(&json!({
                "threads": threads, "activations": self.products.name(), "load_seconds": load_seconds,
                "first_token_seconds": first_token_seconds, "repack_seconds": repack_seconds,
                "peak_rss_bytes": peak, "bytes_per_token": read, "bandwidth": bandwidth, "results": results,
            }));
        }
        let rows: Vec<_> = results
            .iter()
            .map(|r| {
                let mean = format!("{:.2} ± {:.2}", r.mean(), r.stddev());
                let share = share(r).map_or(String::new(), |s| format!("{:.0} %", 100.0 * s));
                vec![r.test.clone(), self.depth.to_string(), format!("{:.2}", r.median()), mean, share]
            })
            .collect();
        let peak = peak.map_or("unknown".to_owned(), |b| format!("{:.1} MB", b as f64 / 1e6));
        let bandwidth = bandwidth.map_or("unknown".to_owned(), |b| format!("{:.1} GB/s", b / 1e9));
        to_stdout(|out| {
            write!(out, "{}", table::render(&["test", "depth", "median t/s", "mean t/s", "of bandwidth"], &rows))?;
            writeln!(
                out,
                "{threads} threads, loaded in {load_seconds:.2} s, first token after {first_token_seconds:.2} s, weights moved in {repack_seconds:.2} s, peak memory {peak}"
            )?;
            writeln!(out, "a generated token reads {:.1} MB; the threads read {bandwidth}", read / 1e6)
        })
    }
}
