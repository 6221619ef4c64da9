//! Speed of the products by type: `cargo run --release -p quant-kernels --example matmul_speed [TYPE|int8]...`
//!
//! [4864, 1024] weights on one thread, the least processor time of several batches (elsewhere than on Linux: wall time): GB/s of packed weights for one
//! token and for four, GFLOP/s for 512, with each instruction set.

use gguf_format::GgmlType;
use quant_kernels::{Int8Activations, Int8Weights, Isa, Matrix, matmul_int8_with, matmul_with};
use std::time::Instant;

/// Nanoseconds that this thread has run, as the kernel counts them.
fn thread_time() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    stat.split(' ').next()?.parse().ok()
}

/// Seconds of a run in the quickest of five batches. The kernel counts in ticks of some milliseconds: a batch takes a tenth of a second.
fn best(mut run: impl FnMut()) -> f64 {
    let start = Instant::now();
    run();
    let runs = (0.1 / start.elapsed().as_secs_f64()).clamp(1.0, 1e5) as usize;
    let mut batch = || {
        let (start, wall) = (thread_time(), Instant::now());
        (0..runs).for_each(|_| run());
        let seconds = match (start, thread_time()) {
            (Some(start), Some(end)) => (end - start) / 1e9,
            _ => wall.elapsed().as_secs_f64(),
        };
        seconds / runs as f64
    };
    (0..5).map(|_| batch()).fold(f64::INFINITY, f64::min)
}

const ROWS: usize = 4864;
const COLS: usize = 1024;

fn line(name: &str, isa: Isa, bytes: usize, mut product: impl FnMut(usize, &[f32], &mut [f32])) {
    let mut seconds = |tokens: usize| {
        let x = vec![0.5f32; tokens * COLS];
        let mut y = vec![0.0f32; tokens * ROWS];
        best(|| product(tokens, &x, &mut y))
    };
    let (one, four, many) = (seconds(1), seconds(4), seconds(512));
    let speed = |seconds: f64| bytes as f64 / seconds / 1e9;
    let flops = 2.0 * 512.0 * (ROWS * COLS) as f64 / many / 1e9;
    println!("{name:8} {:9} {:8.2} {:8.2} {flops:10.1}", isa.name(), speed(one), speed(four));
}

fn run(chosen: &[String]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|c| c == name);
    println!("{:8} {:9} {:>8} {:>8} {:>10}", "type", "with", "1: GB/s", "4: GB/s", "512: GF/s");
    if wanted("int8") {
        let codes: Vec<i8> = (0..ROWS * COLS).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as i8).collect();
        let w = Int8Weights::pack(ROWS, COLS, &codes, &vec![0.01; ROWS])?;
        for isa in Isa::available() {
            line("int8", isa, w.bytes(), |_, x, y| {
                let done = Int8Activations::per_token(x, COLS).and_then(|x| matmul_int8_with(isa, &x, &[&w], y));
                done.unwrap_or_else(|e| println!("{e}"));
            });
        }
    }
    for ty in GgmlType::KNOWN.iter().copied().filter(|&t| quant_kernels::is_fast(t) && wanted(&t.to_string())) {
        let bytes = ty.bytes_for((ROWS * COLS) as u64).ok_or("size")? as usize;
        // Scales that are not finite cost no more than others; the products are not looked at.
        let data: Vec<u8> = (0..bytes).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 & 0x3b).collect();
        let w = [Matrix::new(ty, ROWS, COLS, &data)?];
        for isa in Isa::available() {
            line(&ty.to_string(), isa, bytes, |tokens, x, y| {
                matmul_with(isa, x, tokens, &w, y).unwrap_or_else(|e| println!("{e}"));
            });
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    // On the pool's only thread, whose time is measured.
    rayon::ThreadPoolBuilder::new().num_threads(1).build()?.install(|| run(&chosen))
}
