//! The quantized KV cache: attention of one new token over a context, and what it costs to append one.
//!
//! 8 key/value heads of 128, 4 query heads each: a layer of Llama 3.1 8B. All codecs in one run, so that ratios mean something on a busy machine.
//! Layers take turns, as in a model, so that no cache is still in the processor's from the step before: with one layer alone half precision at 8k
//! (32 MiB) would be read from the third level, which no model's step does.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kv_cache_quant::{Attend, Centre, KvSpec, LayerCache, PairLayout, Preset, RopeSpec};

const KV_HEADS: usize = 8;
const HEADS: usize = 32;
const D: usize = 128;
const WIDTH: usize = KV_HEADS * D;

/// In all layers that take turns: 128 MiB of half precision, more than third-level caches hold.
const TOKENS: usize = 32768;

/// About normal, the same in every run.
fn values(n: usize) -> Vec<f32> {
    let one = |i: u32| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32 - 0.5;
    (0..n as u32).map(|i| (0..4).map(|j| one(4 * i + j)).sum::<f32>() * 1.7).collect()
}

/// With the largest channel pairs centred before the rotary embedding.
fn centred(spec: KvSpec, pairs: usize) -> KvSpec {
    let mean = values(WIDTH).iter().map(|x| x * 5.0).collect();
    spec.with_centre(Centre::BeforeRope { mean, pairs }).with_rope(RopeSpec::plain(D, 5e5, PairLayout::Halves))
}

fn specs() -> Vec<(String, KvSpec)> {
    let mut specs: Vec<(String, KvSpec)> =
        [Preset::F16, Preset::Int8, Preset::K8v4, Preset::R4, Preset::R3, Preset::R2, Preset::Fp8]
            .map(|p| (p.to_string(), KvSpec { sinks: 0, recent: 0, ..p.spec(KV_HEADS, D, 5, 32, Centre::None) }))
            .into();
    for name in ["q8_0+rot", "q4_0+rot", "q5_1", "kivi4"] {
        let side = name.parse().expect("a cache type");
        specs.push((name.into(), KvSpec::new(KV_HEADS, D, side, side)));
    }
    for (preset, pairs) in [(Preset::Int8, 8), (Preset::R4, 8), (Preset::Int8, 32), (Preset::R4, 32)] {
        let spec = KvSpec { sinks: 0, ..preset.spec(KV_HEADS, D, 5, 32, Centre::None) };
        specs.push((format!("{preset}, {pairs} pairs centred"), centred(spec, pairs)));
    }
    specs
}

fn decode(c: &mut Criterion) {
    let q = values(HEADS * D);
    let mut out = vec![0.0; HEADS * D];
    let options = Attend::causal(1.0 / (D as f32).sqrt());
    for context in [1024, 8192, TOKENS] {
        let mut group = c.benchmark_group(format!("kv decode, {context} tokens"));
        group.sample_size(10).throughput(Throughput::Elements(context as u64));
        for (name, spec) in specs() {
            let rows = values(1024 * WIDTH);
            let layers: Vec<LayerCache> = (0..TOKENS / context)
                .map(|_| {
                    let mut cache = LayerCache::new(spec.clone()).expect("a cache");
                    for _ in 0..context / 1024 {
                        cache.append(&rows, &rows, WIDTH, 1024).expect("appended");
                    }
                    cache
                })
                .collect();
            let mut turns = layers.iter().cycle();
            group.bench_function(BenchmarkId::from_parameter(name), |b| {
                b.iter(|| {
                    let cache = turns.next().expect("a layer");
                    cache.attend(&q, HEADS * D, 1, HEADS, &options, &mut out).expect("attention");
                });
            });
        }
    }
}

/// One token into the caches of 32 layers: 512 vectors of 128. One thread.
fn append(c: &mut Criterion) {
    let rows = values(64 * WIDTH);
    let mut group = c.benchmark_group("kv append, 32 layers");
    group.sample_size(10);
    for (name, spec) in specs() {
        let layers = vec![LayerCache::new(spec).expect("a cache"); 32];
        let mut caches = layers.clone();
        let mut t = 0;
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| {
                if t % 1024 == 0 {
                    caches.clone_from(&layers);
                }
                let row = &rows[t % 64 * WIDTH..][..WIDTH];
                caches.iter_mut().for_each(|cache| cache.append(row, row, WIDTH, 1).expect("appended"));
                t += 1;
            });
        });
    }
}

criterion_group!(benches, decode, append);
criterion_main!(benches);
