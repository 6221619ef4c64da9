//! GPTQ of one layer: the Gram matrix of its inputs, the factor, the matrix with each way to find scales. All threads.
//!
//! `cargo bench -p quant-benches --bench gptq -- gram`

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gptq::{Bits, Factor, Options, ScaleSearch};
use quant_core::input_stats::{Detail, InputStats};

const ROWS: usize = 2048;
const IN_FEATURES: usize = 2048;
const OUT_FEATURES: usize = 1024;

fn layer(criterion: &mut Criterion) {
    // Sums of four uniform numbers from a 64-bit congruential generator: bell-shaped, as weights are.
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let mut values =
        |len: usize| -> Vec<f32> { (0..len).map(|_| uniform() + uniform() + uniform() + uniform()).collect() };
    let inputs = values(ROWS * IN_FEATURES);
    let weights = values(OUT_FEATURES * IN_FEATURES);
    let mut stats = InputStats::new(IN_FEATURES, Detail::Gram);
    let (Ok(()), Some(bits)) = (stats.add(&inputs, ROWS, IN_FEATURES), Bits::new(4)) else { return };
    let mut options = Options::new(bits, Some(128));
    let Ok(factor) = Factor::new(&stats, &options) else { return };

    let mut group = criterion.benchmark_group("gptq");
    group.sample_size(10);
    group.throughput(Throughput::Elements((ROWS * IN_FEATURES * (IN_FEATURES + 1) / 2) as u64));
    group.bench_function("gram", |bencher| {
        bencher.iter(|| {
            let mut stats = InputStats::new(IN_FEATURES, Detail::Gram);
            stats.add(black_box(&inputs), ROWS, IN_FEATURES).map(|()| stats)
        })
    });
    group.throughput(Throughput::Elements((IN_FEATURES * IN_FEATURES) as u64));
    group.bench_function("factor", |bencher| bencher.iter(|| Factor::new(black_box(&stats), &options)));
    group.throughput(Throughput::Elements((OUT_FEATURES * IN_FEATURES) as u64));
    for (search, refine) in
        [(ScaleSearch::MinMax, 0), (ScaleSearch::Mse, 0), (ScaleSearch::Hessian, 0), (ScaleSearch::Hessian, 1)]
    {
        (options.search, options.refine) = (search, refine);
        group.bench_function(format!("quantize, {search:?}, {refine} sweeps"), |bencher| {
            bencher.iter(|| gptq::quantize(black_box(&weights), OUT_FEATURES, &factor, &options))
        });
    }
    group.finish();
}

criterion_group!(benches, layer);
criterion_main!(benches);
