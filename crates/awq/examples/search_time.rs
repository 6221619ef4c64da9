//! Times of the search for one matrix: inputs made ready, scales, clip, rounding.
//!
//! `cargo run --release -p awq --example search_time -- IN_FEATURES OUT_FEATURES [GROUP_SIZE [BITS [GRID_ROWS]]]` prints one JSON object, in seconds, on
//! random numbers. Threads: `RAYON_NUM_THREADS`. The keys ending in `_cpu` are processor time of all threads, on Linux.

use awq::{Bits, Inputs, Member, Options, ScaleGroup};
use quant_core::input_stats::{Detail, InputStats};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: usize| args.get(at).map_or(Ok(default), |arg| arg.parse::<usize>());
    let (n, out_features) = (number(0, 4096)?, number(1, 4096)?);
    let bits = u8::try_from(number(3, 4)?).ok().and_then(Bits::new).ok_or("BITS is 2 to 8")?;
    let mut options = Options::new(bits, Some(number(2, 128)?));
    options.grid_rows = number(4, options.grid_rows)?;
    let rows = 2 * n;
    let mut stats = InputStats::new(n, Detail::Gram);
    stats.add(&random(rows * n, 1.0), rows, n)?;
    let weights = random(out_features * n, 0.02);

    let mut lap = (Instant::now(), cpu_time());
    let mut report = |name: &str| {
        print!("\"{name}\": {:.4}, \"{name}_cpu\": {:.2}, ", lap.0.elapsed().as_secs_f64(), cpu_time() - lap.1);
        lap = (Instant::now(), cpu_time());
    };
    print!("{{");
    let inputs = Inputs::new(&stats, Some(&stats))?;
    report("inputs");
    let group = ScaleGroup { members: &[Member { weights: &weights, out_features }], ties: None };
    let scales = awq::search_scales(&inputs, &group, &options)?;
    report("scales");
    let clip = awq::search_clip(&inputs, &weights, out_features, &scales.values, &options)?;
    report("clip");
    let quantized = awq::round(&weights, out_features, &scales.values, Some(&clip), Some(&inputs), &options)?;
    report("round");
    println!("\"loss\": {:.6e}}}", quantized.report.loss.ok_or("no loss")?);
    Ok(())
}

/// Processor time of this process in seconds, from Linux's `/proc` in its hundredths; 0 elsewhere.
fn cpu_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name in parentheses: fields 14 and 15 of the line are user and system time.
    let fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Bell-shaped, and some larger than the rest.
fn random(len: usize, scale: f32) -> Vec<f32> {
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..len)
        .map(|i| scale * if i.is_multiple_of(13) { 3.0 } else { 1.0 } * (uniform() + uniform() + uniform() + uniform()))
        .collect()
}
