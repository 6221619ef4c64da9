//! Times of one layer: its Gram matrix, the factor, and the matrix itself with each way to find scales.
//!
//! `cargo run --release -p gptq --example layer_time -- IN_FEATURES OUT_FEATURES ROWS [GROUP_SIZE [BITS]]` prints one JSON object, in
//! seconds. Threads: `RAYON_NUM_THREADS`. With `INPUTS WEIGHTS` after that, raw f32 files are read instead of random numbers.
//! `benches/side_by_side/gptq_layer.py` runs it beside torch. The keys ending in `_cpu` are processor time of all threads, on Linux.

use gptq::{Bits, Factor, Options, ScaleSearch};
use quant_core::input_stats::{Detail, InputStats};
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: usize| args.get(at).map_or(Ok(default), |arg| arg.parse::<usize>());
    let (n, out, rows) = (number(0, 4096)?, number(1, 4096)?, number(2, 16384)?);
    let bits = u8::try_from(number(4, 4)?).ok().and_then(Bits::new).ok_or("BITS is 2 to 8")?;
    let read = |at: usize, scale: f32, len: usize| match args.get(at) {
        Some(path) => std::fs::read(path)
            .map(|bytes| bytes.as_chunks::<4>().0.iter().take(len).map(|b| f32::from_le_bytes(*b)).collect()),
        None => Ok(random(len, scale)),
    };
    let inputs: Vec<f32> = read(5, 1.0, rows * n)?;
    let weights: Vec<f32> = read(6, 0.02, out * n)?;

    let start = (Instant::now(), cpu_time());
    let mut stats = InputStats::new(n, Detail::Gram);
    stats.add(&inputs, rows, n)?;
    print!("{{");
    report("gram", start.0.elapsed(), start.1);
    drop(inputs);

    let mut options = Options::new(bits, Some(number(3, 128)?));
    let start = (Instant::now(), cpu_time());
    let factor = Factor::new(&stats, &options)?;
    print!(", ");
    report("factor", start.0.elapsed(), start.1);
    let (min_max, mse, hessian) = (ScaleSearch::MinMax, ScaleSearch::Mse, ScaleSearch::Hessian);
    for (name, search, refine) in
        [("min_max", min_max, 0), ("mse", mse, 0), ("hessian", hessian, 0), ("refined", hessian, 1)]
    {
        (options.search, options.refine) = (search, refine);
        let before = cpu_time();
        let result = gptq::quantize(&weights, out, &factor, &options)?.report;
        let loss = result.loss.ok_or("the factor is a fallback")?;
        print!(", \"{name}_loss\": {loss:.6e}, ");
        report(name, result.time, before);
    }
    println!("}}");
    Ok(())
}

fn report(name: &str, time: Duration, cpu_before: f64) {
    print!("\"{name}\": {:.4}, \"{name}_cpu\": {:.2}", time.as_secs_f64(), cpu_time() - cpu_before);
}

/// Processor time of this process in seconds, from Linux's `/proc` in its hundredths; 0 elsewhere.
fn cpu_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name in parentheses: fields 14 and 15 of the line are user and system time.
    let fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Bell-shaped, and a few columns larger than the rest, as layers' inputs are.
fn random(len: usize, scale: f32) -> Vec<f32> {
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..len).map(|_| scale * (uniform() + uniform() + uniform() + uniform())).collect()
}
