//! Speed of the products by type: `cargo run --release -p quant-kernels --example matmul_speed [TYPE|W8A8|-ISA]...`
//!
//! Weights of 1024 columns on one thread, the least processor time of several batches (elsewhere than on Linux: wall time): GB/s of packed weights for one
//! token and for four, from memory, and in brackets for one from the second-level cache; GFLOP/s for 512; with each instruction set but those that are left
//! out.

use gguf_format::GgmlType;
use memmap2::MmapMut;
use quant_kernels::{
    Int8Activations, Int8Weights, Interleaved, Isa, Matrix, matmul_int8_with, matmul_interleaved_with,
    matmul_rounded_with, matmul_with,
};
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

const COLS: usize = 1024;
/// Rows for many tokens; for few so many that the weights are no longer in a cache.
const ROWS: usize = 4864;
const BYTES: usize = 128 << 20;
/// What stays in the cache.
const CACHED: usize = 512 << 10;

/// Whole panels of interleaved rows.
fn whole(rows: usize) -> usize {
    rows / Interleaved::ROWS * Interleaved::ROWS
}

/// `product` of so many rows with so many tokens.
fn line(name: &str, isa: Isa, row_bytes: usize, mut product: impl FnMut(usize, usize, &[f32], &mut [f32])) {
    let mut seconds = |rows: usize, tokens: usize| {
        let x = vec![0.5f32; tokens * COLS];
        let mut y = vec![0.0f32; tokens * rows];
        best(|| product(rows, tokens, &x, &mut y))
    };
    let (rows, few) = (whole(BYTES / row_bytes), whole(CACHED / row_bytes));
    let (one, cached, four, many) = (seconds(rows, 1), seconds(few, 1), seconds(rows, 4), seconds(ROWS, 512));
    let speed = |rows: usize, seconds: f64| (rows * row_bytes) as f64 / seconds / 1e9;
    let flops = 2.0 * 512.0 * (ROWS * COLS) as f64 / many / 1e9;
    let (one, cached, four) = (speed(rows, one), speed(few, cached), speed(rows, four));
    println!("{name:12} {:9} {one:8.2} ({cached:6.2}) {four:8.2} {flops:10.1}", isa.name());
}

fn run(chosen: &[String]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let wanted = |name: &str| chosen.iter().all(|c| c.starts_with('-')) || chosen.iter().any(|c| c == name);
    let isas = || Isa::available().into_iter().filter(|isa| !chosen.iter().any(|c| c == &format!("-{}", isa.name())));
    println!("{:12} {:9} {:>8} {:>8} {:>8} {:>10}", "type", "with", "1: GB/s", "(cache)", "4: GB/s", "512: GF/s");
    let noise = |i: usize| (i.wrapping_mul(2_654_435_761) >> 13) as u8;
    if wanted("W8A8") {
        let codes: Vec<i8> = (0..BYTES).map(|i| noise(i) as i8).collect();
        let of = |rows: usize| Int8Weights::pack(rows, COLS, &codes[..rows * COLS], &vec![0.01; rows]);
        let weights = [BYTES, CACHED].map(|bytes| whole(bytes / COLS)).into_iter().chain([ROWS]);
        let weights = weights.map(of).collect::<Result<Vec<_>, _>>()?;
        for isa in isas() {
            line("W8A8", isa, COLS, |rows, _, x, y| {
                let Some(w) = weights.iter().find(|w| w.rows() == rows) else { return };
                let done = Int8Activations::per_token(x, COLS).and_then(|x| matmul_int8_with(isa, &x, &[w], y));
                done.unwrap_or_else(|e| println!("{e}"));
            });
        }
    }
    // Scales that are not finite cost no more than others; the products are not looked at.
    let data: Vec<u8> = (0..BYTES).map(|i| noise(i) & 0x3b).collect();
    for ty in GgmlType::KNOWN.iter().copied().filter(|&t| quant_kernels::is_fast(t) && wanted(&t.to_string())) {
        let row_bytes = ty.bytes_for(COLS as u64).ok_or("size")? as usize;
        let matrix = |rows: usize| Matrix { ty: ty.into(), rows, cols: COLS, data: &data[..rows * row_bytes] };
        for isa in isas() {
            line(&format!("{ty} f32"), isa, row_bytes, |rows, tokens, x, y| {
                matmul_with(isa, x, tokens, &[matrix(rows)], y).unwrap_or_else(|e| println!("{e}"));
            });
            line(&format!("{ty} int"), isa, row_bytes, |rows, tokens, x, y| {
                matmul_rounded_with(isa, x, tokens, &[matrix(rows)], y).unwrap_or_else(|e| println!("{e}"));
            });
            // A prefix of the panels is a matrix of fewer rows.
            if let Some(bytes) = Interleaved::bytes(ty, whole(BYTES / row_bytes), COLS) {
                let mut packed = MmapMut::map_anon(bytes)?;
                #[cfg(target_os = "linux")]
                packed.advise(memmap2::Advice::HugePage)?;
                Interleaved::pack(&matrix(whole(BYTES / row_bytes)), &mut packed)?;
                line(&format!("{ty} packed"), isa, row_bytes, |rows, tokens, x, y| {
                    let packed = Interleaved::bytes(ty, rows, COLS).map_or(&[][..], |bytes| &packed[..bytes]);
                    let done = Interleaved::new(ty, rows, COLS, packed)
                        .and_then(|w| matmul_interleaved_with(isa, x, tokens, &[w], y));
                    done.unwrap_or_else(|e| println!("{e}"));
                });
            }
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    // On the pool's only thread, whose time is measured.
    rayon::ThreadPoolBuilder::new().num_threads(1).build()?.install(|| run(&chosen))
}
