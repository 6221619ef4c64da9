//! Statistics and shapes that calibration really gives, and input that is simply wrong.

use awq::{AwqError, Bits, Cut, Declined, Inputs, Kind, Member, Options, ScaleGroup, Scales};
use proptest::prelude::*;
use quant_core::input_stats::{Detail, InputStats};

const N: usize = 48;
const OUT: usize = 10;

fn wave(len: usize, step: f32, size: f32) -> Vec<f32> {
    (0..len).map(|i| size * ((i as f32 * step).sin() + 0.3 * (i as f32 * step * 7.3).cos())).collect()
}

fn options() -> Options {
    Options::new(Bits::new(4).unwrap(), Some(16))
}

fn stats_of(x: &[f32], n: usize) -> InputStats {
    let mut stats = InputStats::new(n, Detail::Gram);
    stats.add(x, x.len() / n, n).unwrap();
    stats
}

fn alone(weights: &[f32], out_features: usize) -> [Member<'_>; 1] {
    [Member { weights, out_features }]
}

/// Scales, clip and matrix in turn.
fn quantized(
    inputs: &Inputs,
    weights: &[f32],
    rows: usize,
    options: &Options,
) -> (Scales, awq::ClipRanges, awq::Quantized) {
    let members = alone(weights, rows);
    let scales = awq::search_scales(inputs, &ScaleGroup { members: &members, ties: None }, options).unwrap();
    let clip = awq::search_clip(inputs, weights, rows, &scales.values, options).unwrap();
    let result = awq::round(weights, rows, &scales.values, Some(&clip), Some(inputs), options).unwrap();
    (scales, clip, result)
}

#[test]
fn poor_statistics_still_give_a_matrix() {
    let weights = wave(OUT * N, 0.37, 0.1);
    let mut with_dead = wave(60 * N, 0.7, 1.0);
    with_dead.chunks_exact_mut(N).for_each(|row| row[5..9].fill(0.0));
    // name, statistics, why nothing was searched
    let cases = [
        ("plain", stats_of(&wave(60 * N, 0.7, 1.0), N), None),
        ("one row", stats_of(&wave(N, 0.7, 1.0), N), None),
        ("dead columns", stats_of(&with_dead, N), None),
        ("tiny", stats_of(&wave(60 * N, 0.7, 1e-12), N), None),
        ("large", stats_of(&wave(60 * N, 0.7, 1e12), N), None),
        ("zeros", stats_of(&vec![0.0; 3 * N], N), Some(Declined::NoInput)),
        ("no rows", InputStats::new(N, Detail::Gram), Some(Declined::NoInput)),
        ("huge", stats_of(&[1e30; N], N), Some(Declined::NonFinite)),
    ];
    for (name, stats, why) in &cases {
        for zero_point in [false, true] {
            let mut options = options();
            options.zero_point = zero_point;
            let (scales, clip, result) = quantized(&Inputs::new(stats, None).unwrap(), &weights, OUT, &options);
            if why.is_some() {
                assert_eq!((scales.declined, clip.declined), (*why, *why), "{name}");
                assert!(scales.is_identity() && clip.cuts.iter().all(|cut| *cut == Cut::NONE), "{name}");
                let plain = awq::round(&weights, OUT, &[1.0; N], None, None, &options).unwrap();
                assert_eq!(result.matrix, plain.matrix, "{name}");
            } else {
                assert!(
                    result.report.loss.unwrap() <= scales.fit.plain * (1.0 + 1e-6),
                    "{name}: {result:?} {scales:?}"
                );
                assert!(!matches!(scales.declined, Some(Declined::NoInput | Declined::NonFinite)), "{name}");
            }
            assert!(scales.values.iter().all(|s| s.is_finite() && *s >= 1.0 / 1024.0 && *s <= 1024.0), "{name}");
            assert!(result.report.nmse < 0.05, "{name}: {:?}", result.report);
        }
    }
}

#[test]
fn a_gain_that_the_kept_back_rows_deny_is_not_taken() {
    // The rows to fit to use some channels, the others other ones.
    let half = |used: std::ops::Range<usize>| {
        let mut x = wave(60 * N, 0.7, 1.0);
        x.iter_mut().enumerate().filter(|(i, _)| !used.contains(&(i % N))).for_each(|(_, x)| *x *= 1e-3);
        stats_of(&x, N)
    };
    let weights = wave(OUT * N, 0.37, 0.1);
    let (fit, check) = (half(0..8), half(8..N));
    let believed = quantized(&Inputs::new(&fit, None).unwrap(), &weights, OUT, &options());
    assert_eq!((believed.0.declined, believed.1.declined), (None, None));
    assert!(believed.0.fit.gain() > 0.1);
    let (scales, clip, result) = quantized(&Inputs::new(&fit, Some(&check)).unwrap(), &weights, OUT, &options());
    assert_eq!((scales.declined, scales.kind), (Some(Declined::NotConfirmed), believed.0.kind));
    assert!(scales.is_identity() && scales.check.unwrap().worst > 1.0);
    // The cuts of the used channels hurt nobody else much: whichever way it went, it is told.
    assert_eq!(clip.declined.is_none(), clip.check.unwrap().worst <= 0.98);
    assert!(result.report.nmse < 0.05);
    // Kept-back statistics without a row confirm nothing and deny nothing.
    let empty = InputStats::new(N, Detail::Gram);
    assert_eq!(quantized(&Inputs::new(&fit, Some(&empty)).unwrap(), &weights, OUT, &options()).0, believed.0);
}

#[test]
fn no_matrix_pays_for_another() {
    // Large outputs that want one scale, small ones that want another.
    let mut x = wave(60 * N, 0.7, 1.0);
    x.iter_mut().enumerate().filter(|(i, _)| (i % N).is_multiple_of(5)).for_each(|(_, x)| *x *= 8.0);
    let inputs = Inputs::new(&stats_of(&x, N), None).unwrap();
    let (large, small) = (wave(OUT * N, 0.37, 5.0), wave(OUT * N, 0.91, 0.01));
    let members = [Member { weights: &large, out_features: OUT }, Member { weights: &small, out_features: OUT }];
    let scales = awq::search_scales(&inputs, &ScaleGroup { members: &members, ties: None }, &options()).unwrap();
    let loss = |weights: &[f32], scales: &[f32]| {
        awq::round(weights, OUT, scales, None, Some(&inputs), &options()).unwrap().report.loss.unwrap()
    };
    for weights in [&large, &small] {
        assert!(loss(weights, &scales.values) <= loss(weights, &[1.0; N]) * (1.0 + 1e-6), "{scales:?}");
    }
}

#[test]
fn odd_weights() {
    let inputs = Inputs::new(&stats_of(&wave(60 * N, 0.7, 1.0), N), None).unwrap();
    for (size, most) in [(0.0, 0.0), (1e-3, 0.05), (1e4, 0.05), (1e-12, 1.0)] {
        for zero_point in [false, true] {
            let mut options = options();
            options.zero_point = zero_point;
            let (scales, _, result) = quantized(&inputs, &wave(OUT * N, 0.37, size), OUT, &options);
            assert!(result.report.nmse <= most, "{size} {zero_point}: {:?}", result.report);
            assert!(zero_point || result.matrix.is_symmetric());
            assert!(size != 0.0 || (scales.declined, scales.kind) == (Some(Declined::NotBetter), Kind::Identity));
        }
    }
    // A channel that no weight uses takes no part in the others' scales.
    let mut unused = wave(OUT * N, 0.37, 0.1);
    unused.chunks_exact_mut(N).for_each(|row| row[7] = 0.0);
    let (scales, ..) = quantized(&inputs, &unused, OUT, &options());
    assert!(scales.values.iter().all(|s| (1.0 / 64.0..64.0).contains(s)), "{scales:?}");
    let mut huge = wave(OUT * N, 0.37, 0.1);
    huge[3 * N + 20] = 3e6;
    let error = awq::round(&huge, OUT, &[1.0; N], None, None, &options()).unwrap_err();
    assert_eq!(error, AwqError::ScaleRange { row: 3, group: 1 });
    let (members, found) = (alone(&huge, OUT), Scales::identity(N));
    let scales = awq::search_scales(&inputs, &ScaleGroup { members: &members, ties: None }, &options());
    assert!(scales.is_ok() && awq::search_clip(&inputs, &huge, OUT, &found.values, &options()).is_ok());
}

#[test]
fn wrong_input_is_named() {
    let stats = stats_of(&wave(60 * N, 0.7, 1.0), N);
    let inputs = Inputs::new(&stats, None).unwrap();
    let weights = wave(OUT * N, 0.37, 0.1);
    let search = |weights: &[f32], out, options: &Options| {
        let members = alone(weights, out);
        awq::search_scales(&inputs, &ScaleGroup { members: &members, ties: None }, options).unwrap_err()
    };
    let ones = Scales::identity(N);
    let mut bad = weights.clone();
    bad[2 * N + 7] = f32::NAN;
    let length = AwqError::Length { name: "weights", expected: (OUT + 1) * N, found: OUT * N };
    // weights, rows, error
    let cases = [
        (&weights, 0, AwqError::Shape { out_features: 0, in_features: N }),
        (&weights, usize::MAX, AwqError::Shape { out_features: usize::MAX, in_features: N }),
        (&weights, OUT + 1, length),
        (&bad, OUT, AwqError::NonFiniteWeight { member: 0, row: 2, column: 7 }),
    ];
    for (weights, out, error) in cases {
        assert_eq!(search(weights, out, &options()), error);
        assert_eq!(awq::search_clip(&inputs, weights, out, &ones.values, &options()).unwrap_err(), error);
        assert_eq!(awq::round(weights, out, &ones.values, None, None, &options()).unwrap_err(), error);
    }
    let with = |change: fn(&mut Options)| {
        let mut options = options();
        change(&mut options);
        search(&weights, OUT, &options)
    };
    assert_eq!(with(|o| o.group_size = Some(0)), AwqError::GroupSize);
    assert_eq!(with(|o| o.grid = 0), AwqError::Grid);
    assert_eq!(with(|o| o.margin = 1.5), AwqError::Margin(1.5));
    assert!(matches!(with(|o| o.margin = f64::NAN), AwqError::Margin(_)));
    assert_eq!(with(|o| o.damp = -0.1), AwqError::Damp(-0.1));

    let group = |members: &[Member<'_>], ties: Option<&[u32]>| {
        awq::search_scales(&inputs, &ScaleGroup { members, ties }, &options()).unwrap_err()
    };
    let members = alone(&weights, OUT);
    assert_eq!(group(&[], None), AwqError::NoMembers);
    assert_eq!(group(&members, Some(&[0; 5])), AwqError::Length { name: "ties", expected: N, found: 5 });
    let mut ties = [0; N];
    ties[9] = N as u32;
    assert_eq!(group(&members, Some(&ties)), AwqError::Tie { channel: 9, tie: N as u32, channels: N });
    let second = Member { weights: &bad, out_features: OUT };
    let error = AwqError::NonFiniteWeight { member: 1, row: 2, column: 7 };
    assert_eq!(group(&[members[0], second], None), error);

    for value in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let mut scales = vec![1.0; N];
        scales[3] = value;
        let error = awq::round(&weights, OUT, &scales, None, None, &options()).unwrap_err();
        assert!(matches!(error, AwqError::ChannelScale { channel: 3, .. }), "{error}");
    }
    let clip = awq::search_clip(&inputs, &weights, OUT, &ones.values, &options()).unwrap();
    let half = &weights[..OUT / 2 * N];
    let error = awq::round(half, OUT / 2, &ones.values, Some(&clip), None, &options()).unwrap_err();
    assert_eq!(error, AwqError::Clip { rows: OUT / 2, groups: 3, found_rows: OUT, found_groups: 3 });
    let error = awq::round(&weights, 2 * OUT, &[1.0; N / 2], None, Some(&inputs), &options()).unwrap_err();
    assert_eq!(error, AwqError::Length { name: "inputs", expected: N / 2, found: N });

    assert_eq!(Inputs::new(&InputStats::new(N, Detail::Diagonal), None).unwrap_err(), AwqError::NoGram);
    let none = InputStats::new(0, Detail::Gram);
    assert_eq!(Inputs::new(&none, None).unwrap_err(), AwqError::Shape { out_features: 0, in_features: 0 });
    let narrow = InputStats::new(N - 1, Detail::Gram);
    let error = AwqError::Length { name: "check", expected: N, found: N - 1 };
    assert_eq!(Inputs::new(&stats, Some(&narrow)).unwrap_err(), error);
}

#[test]
fn the_same_for_any_number_of_threads() {
    let (n, out) = (200, 150);
    let stats = stats_of(&wave(300 * n, 0.7, 1.0), n);
    let check = stats_of(&wave(100 * n, 0.71, 1.0), n);
    let weights = wave(out * n, 0.37, 0.1);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| quantized(&Inputs::new(&stats, Some(&check)).unwrap(), &weights, out, &options()))
    };
    let (scales, clip, result) = run(1);
    for threads in [2, 3, 5] {
        let (s, c, r) = run(threads);
        assert_eq!((&s, &c, &r.matrix, r.report.loss), (&scales, &clip, &result.matrix, result.report.loss));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_shape_and_never_worse(
        n in 1usize..150,
        rows in 1usize..80,
        group in prop::option::of(1usize..160),
        bits in 2u8..=8,
        zero_point: bool,
        sweeps in 0usize..3,
        grid_rows in 0usize..20,
        seed in 0u32..1000,
    ) {
        let step = 0.1 + seed as f32 * 0.01;
        let inputs = Inputs::new(&stats_of(&wave(30 * n, step, 1.0), n), None).unwrap();
        let mut options = Options::new(Bits::new(bits).unwrap(), group);
        (options.zero_point, options.sweeps, options.grid_rows, options.grid) = (zero_point, sweeps, grid_rows, 4);
        let weights = wave(rows * n, 0.37, 0.1);
        let (scales, clip, result) = quantized(&inputs, &weights, rows, &options);
        prop_assert_eq!(clip.cuts.len(), rows * n.div_ceil(group.unwrap_or(n).min(n)));
        let plain = awq::round(&weights, rows, &vec![1.0; n], None, Some(&inputs), &options).unwrap();
        let (loss, before) = (result.report.loss.unwrap(), plain.report.loss.unwrap());
        // Losses of nearly nothing are noise of f32.
        let floor = 1e-9 * stats_of(&wave(30 * n, step, 1.0), n).sum_squares().iter().sum::<f64>();
        // Damping may take a little of the loss for what the text did not use.
        prop_assert!(loss <= before * (1.0 + 1e-4) + floor, "{loss} {before} {:?} {:?}", scales.fit, clip.fit);
    }
}
