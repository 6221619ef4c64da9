//! Speed of the products by type: `cargo run --release -p quant-kernels --example speed [TYPE]...`
//!
//! [4864, 896] weights on one thread, the best of several runs: GB/s of packed weights for one token, GFLOP/s for 512, and the same in plain Rust.

use gguf_format::GgmlType;
use quant_kernels::{Isa, Matrix, matmul_with};
use std::time::Instant;

/// Seconds of the quickest of some runs.
fn best(runs: usize, mut run: impl FnMut()) -> f64 {
    let timed = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    (0..runs).map(|_| timed(&mut run)).fold(f64::INFINITY, f64::min)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    let chosen: Vec<GgmlType> = std::env::args().skip(1).filter_map(|a| GgmlType::from_name(&a)).collect();
    let types = GgmlType::KNOWN.iter().copied().filter(|&t| quant_kernels::is_fast(t));
    let (rows, cols) = (4864, 896 + 128);
    println!("{:8} {:9} {:>8} {:>8} {:>10}", "type", "with", "1: GB/s", "4: GB/s", "512: GF/s");
    for ty in types.filter(|t| chosen.is_empty() || chosen.contains(t)) {
        let bytes = ty.bytes_for((rows * cols) as u64).ok_or("size")? as usize;
        // Scales that are not finite cost no more than others; the products are not looked at.
        let data: Vec<u8> = (0..bytes).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 & 0x3b).collect();
        let w = [Matrix::new(ty, rows, cols, &data)?];
        for isa in Isa::available() {
            let seconds = |tokens: usize, runs: usize| {
                let x = vec![0.5f32; tokens * cols];
                let mut y = vec![0.0f32; tokens * rows];
                pool.install(|| best(runs, || matmul_with(isa, &x, tokens, &w, &mut y).unwrap_or(())))
            };
            let speed = |tokens: usize| bytes as f64 / seconds(tokens, 20) / 1e9;
            let flops = 2.0 * 512.0 * (rows * cols) as f64;
            let (one, four, many) = (speed(1), speed(4), flops / seconds(512, 4) / 1e9);
            println!("{:8} {:9} {one:8.2} {four:8.2} {many:10.1}", ty.to_string(), isa.name());
        }
    }
    Ok(())
}
