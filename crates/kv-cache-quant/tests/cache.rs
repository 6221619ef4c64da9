//! What a cache holds does not depend on how it came to hold it.

mod common;

use common::Normal;
use kv_cache_quant::{Attend, Centre, Error, KvSpec, LayerCache, PairLayout, Pool, RopeSpec};
use proptest::prelude::*;

const HEADS: usize = 2;
const D: usize = 32;
const WIDTH: usize = HEADS * D;
const TOKENS: usize = 400;

fn spec(key: &str, value: &str) -> KvSpec {
    KvSpec { block: 32, ..KvSpec::new(HEADS, D, key.parse().unwrap(), value.parse().unwrap()) }
}

fn rows() -> (Vec<f32>, Vec<f32>) {
    let mut random = Normal::new(77);
    (random.vec(TOKENS * WIDTH), random.vec(TOKENS * WIDTH))
}

/// Appends tokens `from..to` of `rows`, at the positions of their indices.
fn append(cache: &mut LayerCache, rows: &(Vec<f32>, Vec<f32>), from: usize, to: usize) {
    let range = from * WIDTH..to * WIDTH;
    cache.append(&rows.0[range.clone()], &rows.1[range], WIDTH, to - from).unwrap();
}

/// All bytes that matter.
fn content(cache: &LayerCache) -> Vec<u8> {
    cache.export()
}

#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    Truncate(usize),
    Fork,
    Switch(usize),
    Evict(usize),
    Save,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1usize..50).prop_map(Step::Append),
        2 => (0usize..100).prop_map(Step::Truncate),
        1 => Just(Step::Fork),
        1 => (0usize..4).prop_map(Step::Switch),
        1 => (0usize..200).prop_map(Step::Evict),
        1 => Just(Step::Save),
    ]
}

/// A cache and the tokens it ought to hold, by index of `rows`.
#[derive(Clone)]
struct Track {
    cache: LayerCache,
    tokens: Vec<usize>,
    next: usize,
}

/// Runs the steps on caches whose tokens' positions are their indices; calls `check` with each cache after each step.
fn run(spec: KvSpec, pool: bool, steps: &[Step], check: impl Fn(&Track)) {
    let rows = rows();
    let cache = match pool {
        true => LayerCache::in_pool(spec, Pool::new(1 << 30, true)).unwrap(),
        false => LayerCache::new(spec).unwrap(),
    };
    let mut tracks = vec![Track { cache, tokens: Vec::new(), next: 0 }];
    let mut at = 0;
    for step in steps {
        let track = &mut tracks[at];
        match *step {
            Step::Append(n) => {
                let n = n.min(TOKENS - track.next);
                append(&mut track.cache, &rows, track.next, track.next + n);
                track.tokens.extend(track.next..track.next + n);
                track.next += n;
            }
            Step::Truncate(by) => {
                let keep = track.tokens.len().saturating_sub(by);
                track.cache.truncate(keep);
                track.tokens.truncate(keep);
                track.next = track.tokens.last().map_or(track.cache.next_position() as usize, |t| t + 1);
            }
            Step::Fork => {
                let fork = Track { cache: track.cache.fork(), ..track.clone() };
                tracks.push(fork);
            }
            Step::Switch(to) => at = to % tracks.len(),
            Step::Evict(before) => {
                let first =
                    if track.cache.spec().sinks > 0 { track.cache.spec().sinks.min(track.tokens.len()) } else { 0 };
                let n = track.cache.evict(before);
                track.tokens.drain(first..first + n);
            }
            Step::Save => track.cache = track.cache.import(&track.cache.export()).unwrap(),
        }
        tracks.iter().for_each(&check);
    }
}

/// All keys and values of a cache.
fn values(cache: &LayerCache) -> Vec<(Vec<f32>, Vec<f32>)> {
    let each = |t| {
        let (mut k, mut v) = (vec![0.0; WIDTH], vec![0.0; WIDTH]);
        for h in 0..HEADS {
            cache.dequantize(t, h, &mut k[h * D..][..D], &mut v[h * D..][..D]).unwrap();
        }
        (k, v)
    };
    (0..cache.len()).map(each).collect()
}

fn before_rope(spec: KvSpec) -> KvSpec {
    let mean = Normal::new(4).vec(WIDTH).iter().map(|x| 9.0 * x).collect();
    spec.with_centre(Centre::BeforeRope { mean, pairs: 4 }).with_rope(RopeSpec::plain(D, 1e4, PairLayout::Halves))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Codecs that write each token by itself: the same values whatever the history, bit for bit, and the same bytes as long as nothing was evicted.
    #[test]
    fn any_history_is_a_straight_build(steps in proptest::collection::vec(step(), 1..25), which in 0usize..10, pool: bool) {
        let spec = vec![
            spec("f16", "f16"), spec("int8", "int8"), spec("r4", "r3"), spec("r2", "q4_0+rot"), spec("q5_1", "iq4_nl"), spec("q8_0", "q5_0"),
            before_rope(spec("int8", "r4")), before_rope(spec("f16", "r2g32")), KvSpec { sinks: 5, ..spec("r4", "int8") },
            KvSpec { sinks: 32, ..before_rope(spec("r3", "q4_1")) },
        ].swap_remove(which);
        let rows = rows();
        let mut straight = LayerCache::new(spec.clone()).unwrap();
        append(&mut straight, &rows, 0, TOKENS);
        let all = values(&straight);
        run(spec.clone(), pool, &steps, |track| {
            assert_eq!(track.cache.len(), track.tokens.len());
            for (found, &t) in values(&track.cache).iter().zip(&track.tokens) {
                assert_eq!(found, &all[t], "token {t}");
            }
            if track.tokens.len() == track.next && track.tokens.first().is_none_or(|&t| t == 0) {
                let mut straight = LayerCache::new(spec.clone()).unwrap();
                append(&mut straight, &rows, 0, track.next);
                assert_eq!(content(&track.cache), content(&straight));
            }
        });
    }

    /// Codecs of whole blocks and recent tokens in half precision: the same bytes as long as no block of codes is cut.
    #[test]
    fn appending_by_any_parts_is_a_straight_build(parts in proptest::collection::vec(1usize..70, 1..12), which in 0usize..6, pool: bool) {
        let spec = vec![
            spec("kivi4", "kivi2"), spec("fp8", "fp8-e5m2"), spec("r2", "r2").with_centre(Centre::BlockMean),
            KvSpec { recent: 40, ..spec("r4", "r4") }, KvSpec { recent: 40, sinks: 4, ..before_rope(spec("int8", "r3")) },
            KvSpec { sinks: 7, recent: 1, ..spec("kivi2", "int8") },
        ].swap_remove(which);
        let rows = rows();
        let steps: Vec<Step> = parts.into_iter().map(Step::Append).chain([Step::Fork, Step::Save]).collect();
        run(spec.clone(), pool, &steps, |track| {
            let mut straight = LayerCache::new(spec.clone()).unwrap();
            append(&mut straight, &rows, 0, track.next);
            assert_eq!(content(&track.cache), content(&straight));
            let half = track.cache.memory().half / straight.bytes_of_half_block();
            assert!(half >= spec.recent.min(track.next) / 32, "recent tokens are in half precision");
        });
    }

    /// Any history of those still holds the right tokens, about: each within the error of its codec.
    #[test]
    fn any_history_of_block_codecs_is_close(steps in proptest::collection::vec(step(), 1..25), which in 0usize..4) {
        let spec = vec![
            spec("kivi4", "kivi4"), spec("fp8", "fp8"), KvSpec { recent: 40, ..spec("r4", "r4") }, spec("int8", "int8").with_centre(Centre::BlockMean),
        ].swap_remove(which);
        let rows = rows();
        run(spec, true, &steps, |track| {
            assert_eq!(track.cache.len(), track.tokens.len());
            for ((k, v), &t) in values(&track.cache).iter().zip(&track.tokens) {
                for (found, given) in [(k, &rows.0), (v, &rows.1)] {
                    let given = &given[t * WIDTH..][..WIDTH];
                    let error: f32 = found.iter().zip(given).map(|(a, b)| (a - b).powi(2)).sum();
                    let power: f32 = given.iter().map(|x| x * x).sum();
                    assert!(error < 0.05 * power, "token {t}: {}", error / power);
                }
            }
        });
    }

    /// No bytes make `import` panic, or a cache that attention panics on.
    #[test]
    fn damaged_exports_are_refused(at in 0.0f64..1.0, byte: u8, cut in 0.0f64..1.0, which in 0usize..3) {
        let spec = vec![spec("r4", "int8"), spec("kivi2", "fp8"), before_rope(spec("q5_1", "r3"))].swap_remove(which);
        let mut cache = LayerCache::new(spec).unwrap();
        append(&mut cache, &rows(), 0, 70);
        let good = cache.export();
        let mut bad = good.clone();
        let at = ((good.len() as f64 - 1.0) * at) as usize;
        bad[at] = byte;
        let damaged = cache.import(&bad);
        prop_assert_eq!(damaged.is_ok(), bad == good);
        let shorter = &good[..((good.len() as f64 - 1.0) * cut) as usize];
        let refused = matches!(cache.import(shorter), Err(Error::Malformed { .. }));
        prop_assert!(refused);
    }
}

#[test]
fn an_export_belongs_to_its_specification() {
    let mut cache = LayerCache::new(spec("r4", "int8")).unwrap();
    append(&mut cache, &rows(), 0, 40);
    let bytes = cache.export();
    for other in [
        spec("r4", "r4"),
        spec("r4g32", "int8"),
        KvSpec { sinks: 1, ..spec("r4", "int8") },
        before_rope(spec("r4", "int8")),
    ] {
        let error = LayerCache::new(other).unwrap().import(&bytes).unwrap_err();
        assert!(error.to_string().contains("specification"), "{error}");
    }
}

#[test]
fn exports_of_another_version_are_refused() {
    let mut cache = LayerCache::new(spec("r4", "r4")).unwrap();
    append(&mut cache, &rows(), 0, 40);
    let mut bytes = cache.export();
    assert_eq!(bytes[4..8], [2, 0, 0, 0]);
    bytes[4] = 1;
    let error = cache.import(&bytes).unwrap_err();
    assert!(error.to_string().contains("version"), "{error}");
}

#[test]
fn refused_rows_change_nothing() {
    for (key, value) in [("f16", "f16"), ("int8", "r4"), ("q4_1", "q8_0"), ("kivi2", "fp8")] {
        let mut cache = LayerCache::new(spec(key, value)).unwrap();
        append(&mut cache, &rows(), 0, 30);
        let before = content(&cache);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
            for side in 0..2 {
                let mut rows = rows();
                let given = if side == 0 { &mut rows.0 } else { &mut rows.1 };
                given[7 * WIDTH + D + 3] = bad;
                let error = cache.append(&rows.0, &rows.1, WIDTH, 20).unwrap_err();
                match error {
                    Error::NonFinite { side: name, token: 7, head: 1, channel: 3, .. } if !bad.is_finite() => {
                        assert_eq!(name, ["key", "value"][side]);
                    }
                    Error::Overflow { token: 7, head: 1, .. } if bad.is_finite() => {}
                    other => panic!("{key}/{value}, {bad}: {other}"),
                }
                assert_eq!(content(&cache), before, "{key}/{value}");
            }
        }
        assert!(cache.append(&[0.0; WIDTH - 1], &[0.0; WIDTH], WIDTH, 1).is_err());
        assert!(cache.append(&[0.0; 2 * WIDTH], &[0.0; 2 * WIDTH], 1, 2).is_err());
        assert!(cache.append(&[0.0; 2 * WIDTH], &[0.0; 2 * WIDTH], usize::MAX, 3).is_err());
        assert_eq!(content(&cache), before);
        // Zeros and the smallest numbers are rows like others.
        for tiny in [0.0, -0.0, 1e-45, 1e-12] {
            cache.append(&[tiny; WIDTH], &[tiny; WIDTH], WIDTH, 1).unwrap();
        }
        let mut out = [0.0; WIDTH];
        cache.attend(&[1.0; WIDTH], WIDTH, 1, HEADS, &Attend::causal(0.2), &mut out).unwrap();
        assert!(out.iter().all(|x| x.is_finite()));
    }
}

/// More heads than are written at once: those before the refused one have written already.
#[test]
fn a_late_refusal_leaves_no_trace() {
    let (heads, d) = (80, 32);
    for (key, value) in [("r4", "int8"), ("f16", "r3"), ("q5_1", "r2")] {
        let spec = KvSpec { block: 32, ..KvSpec::new(heads, d, key.parse().unwrap(), value.parse().unwrap()) };
        let rows = Normal::new(3).vec(3 * heads * d);
        let mut straight = LayerCache::new(spec.clone()).unwrap();
        straight.append(&rows, &rows, heads * d, 3).unwrap();
        let mut cache = straight.new_like();
        cache.append(&rows, &rows, heads * d, 2).unwrap();
        let before = content(&cache);
        let mut bad = Normal::new(4).vec(heads * d);
        bad[heads * d - 1] = f32::NAN;
        let error = cache.append(&bad, &bad, heads * d, 1).unwrap_err();
        assert!(matches!(error, Error::NonFinite { side: "key", head: 79, channel: 31, .. }), "{error}");
        assert_eq!(content(&cache), before, "{key}/{value}");
        cache.append(&rows[2 * heads * d..], &rows[2 * heads * d..], heads * d, 1).unwrap();
        assert_eq!(content(&cache), content(&straight), "{key}/{value}");
    }
}

/// What is kept between appends of a thread belongs to no cache.
#[test]
fn caches_filled_in_turns_are_those_filled_alone() {
    let rows = rows();
    let mean: Vec<f32> = Normal::new(4).vec(WIDTH).iter().map(|x| 9.0 * x).collect();
    let centred = |dims: usize, theta: f64, layout| {
        let centre = Centre::BeforeRope { mean: mean.clone(), pairs: 64 };
        spec("r4", "int8").with_centre(centre).with_rope(RopeSpec::plain(dims, theta, layout))
    };
    let specs = [
        centred(D, 1e4, PairLayout::Halves),
        centred(D / 2, 1e6, PairLayout::Halves),
        spec("int8", "r2").with_centre(Centre::Constant(mean.clone())),
        centred(D, 1e3, PairLayout::Adjacent),
        spec("r3", "f16"),
    ];
    let mut caches = specs.clone().map(|spec| LayerCache::new(spec).unwrap());
    for t in 0..70 {
        caches.iter_mut().for_each(|cache| append(cache, &rows, t, t + 1));
    }
    for (spec, cache) in specs.into_iter().zip(&caches) {
        let mut alone = LayerCache::new(spec).unwrap();
        append(&mut alone, &rows, 0, 70);
        assert_eq!(content(cache), content(&alone));
        // And it stands for what was given.
        for (t, (k, _)) in values(cache).iter().enumerate() {
            let given = &rows.0[t * WIDTH..][..WIDTH];
            let error: f32 = k.iter().zip(given).map(|(a, b)| (a - b).powi(2)).sum();
            assert!(error < 0.9 * WIDTH as f32, "token {t}: {error}");
        }
    }
}

#[test]
fn a_full_pool_with_sharing() {
    let rows = rows();
    for name in ["int8", "kivi4", "r4"] {
        let make = |pool| LayerCache::in_pool(spec(name, name), pool).unwrap();
        // As much as 100 tokens take, and what it costs to make codes of them: until then all are in half precision.
        let measure = Pool::new(usize::MAX, true);
        let mut one = make(measure.clone());
        append(&mut one, &rows, 0, 100);
        let limit = measure.used() + 3 * one.bytes_of_half_block();
        let expected = values(&one);
        drop(one);
        assert_eq!(measure.used(), 0);

        let pool = Pool::new(limit, true);
        let mut a = make(pool.clone());
        append(&mut a, &rows, 0, 100);
        let used = pool.used();
        // The same tokens again cost nothing but the block that is not full, once the full ones are found to be the same.
        let mut b = a.with_prefix(*a.prefixes().last().unwrap()).unwrap();
        assert_eq!(b.len(), 96);
        assert_eq!(pool.used(), used);
        let mut c = a.fork();
        let mut failed = 0;
        for round in 0..3 * (TOKENS - 100) {
            let cache = match round % 3 {
                0 => &mut a,
                1 => &mut b,
                _ => &mut c,
            };
            let from = cache.len();
            match cache.append(&rows.0[from * WIDTH..], &rows.1[from * WIDTH..], WIDTH, 1) {
                Ok(()) => assert_eq!(cache.len(), from + 1),
                Err(Error::PoolFull { .. }) => {
                    assert_eq!(cache.len(), from);
                    failed += 1;
                }
                Err(e) => panic!("{e}"),
            }
            assert!(pool.used() <= limit, "{} of {limit}", pool.used());
        }
        assert!(failed > 0, "{name}");
        for cache in [&a, &b, &c] {
            let found = values(cache);
            let same = |n: usize| found.iter().zip(&expected).take(n).all(|(a, b)| a == b);
            assert!(same(96), "{name}: a full pool changed what is held");
        }
        drop((a, b, c));
        assert_eq!(pool.used(), 0);
    }
}

#[test]
fn equal_prefixes_are_held_once() {
    let pool = Pool::new(usize::MAX, true);
    let rows = rows();
    let mut a = LayerCache::in_pool(spec("r4", "r4"), pool.clone()).unwrap();
    append(&mut a, &rows, 0, 128);
    let used = pool.used();
    let mut b = a.new_like();
    (0..128).for_each(|t| append(&mut b, &rows, t, t + 1));
    assert_eq!(pool.used(), used);
    assert_eq!(a.prefixes(), b.prefixes());
    let mut c = a.new_like();
    append(&mut c, &rows, 1, 129);
    assert_eq!(pool.used(), 2 * used);
    assert_ne!(a.prefixes()[0], c.prefixes()[0]);
    // A shared block that is cut or written to is copied.
    b.truncate(40);
    append(&mut b, &rows, 300, 310);
    let mut straight = LayerCache::new(spec("r4", "r4")).unwrap();
    append(&mut straight, &rows, 0, 128);
    assert_eq!(values(&a), values(&straight));
}

#[test]
fn bytes_per_token_are_those_of_memory() {
    for (key, value, bits) in [
        ("f16", "f16", (16.0, 16.0)),
        ("int8", "int8", (8.125, 8.125)),
        ("r4", "r3", (4.25, 3.25)),
        ("r2g32", "r4g128", (2.5, 4.125)),
        ("q8_0", "q4_0", (8.5, 4.5)),
        ("q5_1", "q5_0", (6.0, 5.5)),
        ("q4_1", "iq4_nl", (5.0, 4.5)),
        ("fp8", "fp8-e5m2", (8.0625, 8.0625)),
        ("kivi2", "kivi2", (3.0, 3.0)),
        ("kivi4", "kivi4", (5.0, 5.0)),
    ] {
        let mut cache = LayerCache::new(KvSpec::new(8, 128, key.parse().unwrap(), value.parse().unwrap())).unwrap();
        assert_eq!(cache.bits_per_value(), bits, "{key}/{value}");
        let rows = Normal::new(1).vec(256 * 8 * 128);
        cache.append(&rows, &rows, 8 * 128, 256).unwrap();
        let memory = cache.memory();
        assert_eq!(memory.half, 0, "{key}/{value}");
        let ratio = memory.coded as f64 / (256.0 * cache.bytes_per_token());
        assert!((ratio - 1.0).abs() < 1e-9, "{key}/{value}: {ratio}");
        let formula = (bits.0 + bits.1) / 8.0 * 8.0 * 128.0;
        let ratio = cache.bytes_per_token() / formula;
        assert!((1.0..1.01).contains(&ratio), "{key}/{value}: {ratio}");
    }
}
