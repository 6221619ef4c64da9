//! Attention on codes against attention in f64 over the values that the codes stand for.

mod common;

use common::{Normal, naive, relative};
use kv_cache_quant::{Attend, Centre, Isa, KvSpec, LayerCache, PairLayout, RopeSpec};

struct Case {
    name: String,
    spec: KvSpec,
    heads: usize,
    context: usize,
    tokens: usize,
}

fn case(key: &str, value: &str, d: usize, kv_heads: usize, heads: usize, context: usize, tokens: usize) -> Case {
    let spec = KvSpec::new(kv_heads, d, key.parse().unwrap(), value.parse().unwrap());
    Case {
        name: format!("{key}/{value}, {heads} heads of {d} on {kv_heads}, {tokens} of {context}"),
        spec,
        heads,
        context,
        tokens,
    }
}

/// A cache of random rows, some values larger than others.
fn filled(spec: &KvSpec, context: usize, seed: u64) -> LayerCache {
    let width = spec.kv_heads * spec.head_dim;
    let mut random = Normal::new(seed);
    let (mut keys, mut values) = (random.vec(context * width), random.vec(context * width));
    for (i, (k, v)) in keys.iter_mut().zip(&mut values).enumerate() {
        *k *= if i % 7 == 3 { 2.5 } else { 0.8 };
        *v *= 0.3;
    }
    let mut cache = LayerCache::new(spec.clone()).unwrap();
    cache.append(&keys, &values, width, context).unwrap();
    cache
}

fn check(case: &Case, options: &Attend<'_>) -> Vec<String> {
    let d = case.spec.head_dim;
    let cache = filled(&case.spec, case.context, 5);
    let q = Normal::new(9).vec(case.tokens * case.heads * d);
    let expected = naive(&cache, &q, case.tokens, case.heads, options);
    let mut wrong = Vec::new();
    for isa in Isa::available() {
        let mut out = vec![f32::NAN; q.len()];
        cache.attend_with(isa, &q, case.heads * d, case.tokens, case.heads, options, &mut out).unwrap();
        let error = relative(&out, &expected);
        if error.is_nan() || error > 1e-4 {
            wrong.push(format!("{}, {}: {error:e}", case.name, isa.name()));
        }
    }
    wrong
}

fn check_all(cases: &[Case], options: impl Fn(usize) -> Attend<'static>) {
    let wrong: Vec<String> = cases.iter().flat_map(|c| check(c, &options(c.spec.head_dim))).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn causal(d: usize) -> Attend<'static> {
    Attend::causal(1.0 / (d as f32).sqrt())
}

const CODECS: [&str; 21] = [
    "f16",
    "fp8",
    "fp8-e5m2",
    "int8",
    "int8+plain",
    "r4",
    "r4g32",
    "r4g128",
    "r3",
    "r2",
    "r2g32",
    "q8_0",
    "q8_0+rot",
    "q5_1",
    "q5_0",
    "q4_1",
    "q4_0",
    "q4_0+rot64",
    "iq4_nl",
    "kivi4",
    "kivi2",
];

#[test]
fn every_key_codec_with_every_value_codec() {
    let mut cases = Vec::new();
    for (i, key) in CODECS.iter().enumerate() {
        for (j, value) in CODECS.iter().enumerate() {
            // Contexts that end in and at the end of a block and a tile.
            let context = [64, 96, 150, 129][(i + j) % 4];
            cases.push(case(key, value, 64, 1, 2, context, 1));
        }
    }
    check_all(&cases, causal);
}

#[test]
fn every_head() {
    let mut cases = Vec::new();
    for key in ["f16", "int8", "r4", "r3", "r2g32", "fp8"] {
        for d in [8, 20, 48, 64, 80, 96, 128, 256, 512] {
            cases.push(case(key, key, d, 2, 2, 100, 1));
            cases.push(case(key, "int8", d, 1, 3, 70, 2));
        }
        for (kv_heads, heads) in [(1, 1), (2, 14), (3, 12), (1, 9), (4, 4)] {
            for tokens in [1, 2, 5] {
                cases.push(case(key, key, 64, kv_heads, heads, 200, tokens));
            }
        }
    }
    for key in ["q5_1", "q8_0", "kivi2"] {
        cases.push(case(key, key, 96, 2, 4, 200, 3));
    }
    check_all(&cases, causal);
}

#[test]
fn long_contexts_are_cut_and_joined() {
    let mut cases = Vec::new();
    for name in ["f16", "int8", "r4", "r2"] {
        cases.push(case(name, name, 64, 1, 4, 3000, 1));
        cases.push(Case {
            spec: KvSpec { block: 32, ..case(name, name, 64, 2, 4, 0, 0).spec },
            ..case(name, name, 64, 2, 4, 2100, 3)
        });
        cases.push(case(name, name, 64, 2, 8, 600, 600));
    }
    check_all(&cases, causal);
}

#[test]
fn options() {
    let sinks: Vec<f32> = (0..4).map(|h| h as f32 - 1.0).collect();
    for key in ["f16", "int8", "r4", "kivi4"] {
        for tokens in [1, 7] {
            let case = case(key, key, 64, 2, 4, 1500, tokens);
            let plain = causal(64);
            let options = [
                Attend { window: Some(100), ..plain },
                Attend { window: Some(1), ..plain },
                Attend { window: Some(130), always: 5, ..plain },
                Attend { window: Some(3), always: 1490, ..plain },
                Attend { softcap: Some(3.0), ..plain },
                Attend { sink_logits: Some(&sinks), ..plain },
                Attend { window: Some(64), always: 70, softcap: Some(20.0), sink_logits: Some(&sinks), ..plain },
            ];
            for options in &options {
                let wrong = check(&case, options);
                assert!(wrong.is_empty(), "{options:?}: {wrong:#?}");
            }
        }
    }
}

/// Keys with a mean before the rotary embedding, as a key bias makes it; `(keys after it, values, mean)`.
fn with_mean(rope: &RopeSpec, kv_heads: usize, d: usize, tokens: usize, seed: u64) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let mut random = Normal::new(seed);
    let mut mean = random.vec(kv_heads * d);
    mean.iter_mut().enumerate().for_each(|(i, m)| *m *= if i % 11 == 2 { 20.0 } else { 0.2 });
    let mut keys = random.vec(tokens * kv_heads * d);
    for (t, row) in keys.chunks_exact_mut(kv_heads * d).enumerate() {
        row.iter_mut().zip(&mean).for_each(|(k, m)| *k += m);
        row.chunks_exact_mut(d).for_each(|head| turn(rope, head, t as f64));
    }
    (keys, random.vec(tokens * kv_heads * d), mean)
}

fn turn(rope: &RopeSpec, head: &mut [f32], position: f64) {
    let n = rope.frequencies.len();
    for (i, f) in rope.frequencies.iter().enumerate() {
        let (a, b) = if rope.layout == PairLayout::Halves { (i, i + n) } else { (2 * i, 2 * i + 1) };
        let (sin, cos) = (position * f).sin_cos();
        let (x, y) = (f64::from(head[a]), f64::from(head[b]));
        head[a] = ((x * cos - y * sin) * rope.magnitude) as f32;
        head[b] = ((x * sin + y * cos) * rope.magnitude) as f32;
    }
}

#[test]
fn what_the_centre_takes_the_logits_get_back() {
    let (kv_heads, d, tokens) = (2, 64, 300);
    for layout in [PairLayout::Halves, PairLayout::Adjacent] {
        for (dims, magnitude) in [(64, 1.0), (32, 1.3)] {
            let rope = RopeSpec { magnitude, ..RopeSpec::plain(dims, 1e4, layout) };
            let (keys, values, mean) = with_mean(&rope, kv_heads, d, tokens, 3);
            let centres = [
                Centre::None,
                Centre::Constant(mean.clone()),
                Centre::BlockMean,
                Centre::BeforeRope { mean: mean.clone(), pairs: 3 },
                Centre::BeforeRope { mean: mean.clone(), pairs: 64 },
            ];
            for key in ["f16", "int8", "r4", "q4_0"] {
                for centre in &centres {
                    let spec = KvSpec::new(kv_heads, d, key.parse().unwrap(), "f16".parse().unwrap());
                    let spec = spec.with_centre(centre.clone()).with_rope(rope.clone());
                    let mut cache = LayerCache::new(spec).unwrap();
                    cache.append(&keys, &values, kv_heads * d, tokens).unwrap();
                    let q = Normal::new(1).vec(4 * d);
                    for options in [causal(d), Attend { softcap: Some(30.0), ..causal(d) }] {
                        let expected = naive(&cache, &q, 1, 4, &options);
                        for isa in Isa::available() {
                            let mut out = vec![0.0; 4 * d];
                            cache.attend_with(isa, &q, 4 * d, 1, 4, &options, &mut out).unwrap();
                            let error = relative(&out, &expected);
                            assert!(error < 1e-4, "{key} {centre:?} {layout:?} {}: {error}", isa.name());
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn shifted_positions_are_those_of_keys_turned_further() {
    let (kv_heads, d, tokens, shift) = (1, 64, 256, -77);
    let rope = RopeSpec::plain(d, 1e4, PairLayout::Halves);
    let (keys, values, mean) = with_mean(&rope, kv_heads, d, tokens, 8);
    for centre in [Centre::None, Centre::BeforeRope { mean, pairs: 8 }] {
        let spec = KvSpec::new(kv_heads, d, "f16".parse().unwrap(), "f16".parse().unwrap());
        let spec = spec.with_centre(centre).with_rope(rope.clone());
        let mut cache = LayerCache::new(spec.clone()).unwrap();
        cache.append(&keys, &values, d, tokens).unwrap();
        cache.shift(128, shift).unwrap();
        assert_eq!(cache.next_position(), tokens as i64 + shift);
        assert!(cache.shift(100, 1).is_err());
        let q = Normal::new(2).vec(2 * d);
        let mut found = vec![0.0; 2 * d];
        cache.attend(&q, 2 * d, 1, 2, &causal(d), &mut found).unwrap();

        // The keys of the second half turned by the shift from outside, without the cache's centre.
        let mut turned = keys.clone();
        turned[128 * d..].chunks_exact_mut(d).for_each(|head| turn(&rope, head, shift as f64));
        let mut straight = LayerCache::new(KvSpec { centre: Centre::None, ..spec }).unwrap();
        straight.append(&turned, &values, d, tokens).unwrap();
        let expected = naive(&straight, &q, 1, 2, &causal(d));
        // Half precision of the keys.
        let error = relative(&found, &expected);
        assert!(error < 5e-3, "{error}");
    }
}

#[test]
fn shapes_are_checked() {
    let cache = filled(&KvSpec::new(2, 64, "int8".parse().unwrap(), "r4".parse().unwrap()), 10, 1);
    let q = vec![0.0; 4 * 64 * 11];
    let mut out = vec![0.0; 4 * 64];
    let plain = causal(64);
    assert!(cache.attend(&q, 256, 1, 4, &plain, &mut out).is_ok());
    assert!(cache.attend(&q, 256, 1, 3, &plain, &mut out).is_err());
    assert!(cache.attend(&q, 256, 1, 0, &plain, &mut out).is_err());
    assert!(cache.attend(&q, 256, 11, 4, &plain, &mut vec![0.0; 11 * 256]).is_err());
    assert!(cache.attend(&q[..255], 256, 1, 4, &plain, &mut out).is_err());
    assert!(cache.attend(&q, 10, 2, 4, &plain, &mut vec![0.0; 512]).is_err());
    assert!(cache.attend(&q, 256, 1, 4, &plain, &mut out[..255]).is_err());
    assert!(cache.attend(&q, 256, 1, 4, &Attend { sink_logits: Some(&[0.0]), ..plain }, &mut out).is_err());
    assert!(cache.attend(&q, 256, 0, 4, &plain, &mut []).is_ok());
}

#[test]
fn queries_that_are_not_finite_do_no_harm() {
    for (key, value) in [("int8", "r4"), ("q5_1", "f16"), ("f16", "kivi2")] {
        let cache = filled(&KvSpec::new(1, 64, key.parse().unwrap(), value.parse().unwrap()), 100, 1);
        for isa in Isa::available() {
            for bad in [f32::NAN, f32::INFINITY, 1e38, 1e-40, 0.0] {
                let mut q = Normal::new(3).vec(128);
                q[64..].fill(bad);
                let mut out = [0.0; 128];
                cache.attend_with(isa, &q, 128, 1, 2, &causal(64), &mut out).unwrap();
                assert!(out[..64].iter().all(|x| x.is_finite()), "{key}/{value} {bad}");
            }
        }
    }
}
