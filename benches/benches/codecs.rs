//! Block codecs, one thread: quantize without and with importance weights, and dequantize, for every type that can be written.
//!
//! `cargo bench -p quant-benches --bench codecs -- Q4_K`

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gguf_format::{GgmlType, blocks};

const ROW_LEN: usize = 1024;
const VALUES: usize = 16 * ROW_LEN;

fn codecs(criterion: &mut Criterion) {
    // Sums of four uniform numbers from a 64-bit congruential generator: bell-shaped, as weights are.
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let values: Vec<f32> = (0..VALUES).map(|_| 0.02 * (uniform() + uniform() + uniform() + uniform())).collect();
    let importance: Vec<f32> = (0..ROW_LEN).map(|_| uniform().abs() + 1e-3).collect();

    for &ty in GgmlType::KNOWN.iter().filter(|&&ty| blocks::can_quantize(ty)) {
        let Some(bytes) = ty.bytes_for(VALUES as u64) else { continue };
        let mut packed = vec![0; bytes as usize];
        let mut unpacked = vec![0.0; VALUES];
        let mut group = criterion.benchmark_group(ty.to_string());
        group.throughput(Throughput::Elements(VALUES as u64));
        for (name, importance) in [("quantize", None), ("quantize with importance", Some(&importance[..]))] {
            group.bench_function(name, |bencher| {
                bencher.iter(|| blocks::quantize(ty, black_box(&values), ROW_LEN, importance, &mut packed))
            });
        }
        group.bench_function("dequantize", |bencher| {
            bencher.iter(|| blocks::dequantize(ty, black_box(&packed), &mut unpacked))
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(std::time::Duration::from_secs(1));
    targets = codecs
}
criterion_main!(benches);
