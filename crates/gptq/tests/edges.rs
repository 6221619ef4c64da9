//! Statistics and shapes that calibration really gives, and input that is simply wrong.

use gptq::{Bits, Factor, Fallback, GptqError, Options, Order, Quantized, ScaleSearch};
use quant_core::UpperTriangle;
use quant_core::input_stats::{Detail, InputStats, InputStatsParts};

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

/// Statistics with any Gram matrix, as a file could hold them.
fn stats_with(gram: UpperTriangle) -> InputStats {
    let n = gram.dim();
    let zeros = vec![0.0; n];
    let parts = InputStatsParts {
        count: 9,
        sum_squares: zeros.clone(),
        abs_sum: zeros,
        abs_max: vec![0.0; n],
        gram: Some(gram),
    };
    InputStats::from_parts(parts).unwrap()
}

fn quantized(stats: &InputStats, weights: &[f32], options: &Options) -> Quantized {
    let factor = Factor::new(stats, options).unwrap();
    gptq::quantize(weights, OUT, &factor, options).unwrap()
}

#[test]
fn poor_statistics_still_give_a_matrix() {
    let weights = wave(OUT * N, 0.37, 0.1);
    let mut with_dead = wave(60 * N, 0.7, 1.0);
    with_dead.chunks_exact_mut(N).for_each(|row| row[5..9].fill(0.0));
    let few: Vec<f32> = wave(3 * N, 0.7, 1.0).repeat(20);
    let indefinite = {
        let mut packed = vec![5.0; UpperTriangle::packed_len(N)];
        let mut at = 0;
        (0..N).for_each(|i| (packed[at], at) = (0.5, at + N - i));
        UpperTriangle::from_packed(N, packed).unwrap()
    };
    // name, statistics, fallback, dead columns
    let cases = [
        ("plain", stats_of(&wave(60 * N, 0.7, 1.0), N), None, 0),
        ("one row", stats_of(&wave(N, 0.7, 1.0), N), None, 0),
        ("rank 3", stats_of(&few, N), None, 0),
        ("dead columns", stats_of(&with_dead, N), None, 4),
        ("tiny", stats_of(&wave(60 * N, 0.7, 1e-18), N), None, 0),
        ("large", stats_of(&wave(60 * N, 0.7, 1e15), N), None, 0),
        ("zeros", stats_of(&vec![0.0; 3 * N], N), Some(Fallback::NoInput), N),
        ("no rows", InputStats::new(N, Detail::Gram), Some(Fallback::NoInput), N),
        ("huge", stats_of(&[1e30; N], N), Some(Fallback::NonFinite { row: 0, column: 0 }), 0),
        ("indefinite", stats_with(indefinite), Some(Fallback::NotPositiveDefinite), 0),
    ];
    for (name, stats, fallback, dead) in cases {
        for order in [Order::Natural, Order::ActGroupAware, Order::DescAct { static_groups: false }] {
            let mut options = options();
            options.order = order;
            if name == "indefinite" {
                // Nine rows are believed so little that it would not stay so.
                options.shrink = 0.0;
            }
            let report = quantized(&stats, &weights, &options).report;
            assert_eq!((report.fallback, report.dead_columns), (fallback, dead), "{name}");
            assert_eq!(report.loss.is_none(), fallback.is_some(), "{name}");
            // Sixteen levels for a wave: a few per cent even where feedback moves weights.
            assert!(report.nmse < 0.05, "{name} {order:?}: {report:?}");
        }
    }
}

#[test]
fn only_shape_matters_not_scale() {
    let weights = wave(OUT * N, 0.37, 0.1);
    let x = wave(60 * N, 0.7, 1.0);
    let codes = |factor: f32| {
        let scaled: Vec<f32> = x.iter().map(|v| v * factor).collect();
        quantized(&stats_of(&scaled, N), &weights, &options()).matrix
    };
    assert_eq!(codes(1.0), codes(1024.0));
    assert_eq!(codes(1.0), codes(1.0 / 4096.0));
}

#[test]
fn weights_of_any_size() {
    let stats = stats_of(&wave(60 * N, 0.7, 1.0), N);
    for (size, least, most) in [(0.0, 0.0, 0.0), (1e-3, 1e-5, 0.05), (1e4, 1e-5, 0.05), (1e-12, 0.0, 1.0)] {
        for symmetric in [false, true] {
            for search in [ScaleSearch::MinMax, ScaleSearch::Mse, ScaleSearch::Hessian] {
                let mut options = options();
                (options.symmetric, options.search) = (symmetric, search);
                let Quantized { matrix, report } = quantized(&stats, &wave(OUT * N, 0.37, size), &options);
                assert!(report.nmse >= least && report.nmse <= most, "{size} {symmetric} {search:?}: {report:?}");
                assert!(!symmetric || matrix.is_symmetric());
                assert!(matrix.scales().iter().all(|scale| scale.to_f32() != 0.0));
            }
        }
    }
    let mut huge = wave(OUT * N, 0.37, 0.1);
    huge[3 * N + 20] = 3e6;
    let factor = Factor::new(&stats, &options()).unwrap();
    let error = gptq::quantize(&huge, OUT, &factor, &options()).unwrap_err();
    assert!(matches!(error, GptqError::ScaleRange { row: 3, .. }), "{error}");
}

#[test]
fn wrong_input_is_named() {
    let stats = stats_of(&wave(60 * N, 0.7, 1.0), N);
    let factor = Factor::new(&stats, &options()).unwrap();
    let weights = wave(OUT * N, 0.37, 0.1);
    let run = |weights: &[f32], out, options: &Options| gptq::quantize(weights, out, &factor, options).unwrap_err();
    assert_eq!(run(&weights, 0, &options()), GptqError::Shape { out_features: 0, in_features: N });
    assert_eq!(run(&weights, usize::MAX, &options()), GptqError::Shape { out_features: usize::MAX, in_features: N });
    let length = GptqError::Length { name: "weights", expected: (OUT + 1) * N, found: OUT * N };
    assert_eq!(run(&weights, OUT + 1, &options()), length);
    for bad in [f32::NAN, f32::INFINITY] {
        let mut weights = weights.clone();
        weights[2 * N + 7] = bad;
        assert_eq!(run(&weights, OUT, &options()), GptqError::NonFiniteWeight { row: 2, column: 7 });
    }
    let mut other = options();
    other.group_size = Some(24);
    assert_eq!(run(&weights, OUT, &other), GptqError::OtherOptions);
    let mut other = options();
    other.order = Order::Natural;
    assert_eq!(run(&weights, OUT, &other), GptqError::OtherOptions);

    let make = |stats: &InputStats, change: fn(&mut Options)| {
        let mut options = options();
        change(&mut options);
        Factor::new(stats, &options).unwrap_err()
    };
    assert_eq!(make(&InputStats::new(N, Detail::Diagonal), |_| {}), GptqError::NoGram);
    assert_eq!(make(&stats, |o| o.group_size = Some(0)), GptqError::GroupSize);
    assert_eq!(make(&stats, |o| o.damp = -0.1), GptqError::Damp(-0.1));
    assert!(matches!(make(&stats, |o| o.damp = f64::NAN), GptqError::Damp(_)));
    assert_eq!(make(&stats, |o| o.shrink = -1.0), GptqError::Shrink(-1.0));
    assert!(matches!(make(&stats, |o| o.shrink = f64::INFINITY), GptqError::Shrink(_)));
    assert_eq!(make(&InputStats::new(0, Detail::Gram), |_| {}), GptqError::Shape { out_features: 0, in_features: 0 });
    let cross = |values: &[f32]| factor.clone().with_cross(values, 1.0).unwrap_err();
    assert_eq!(cross(&[0.0; 5]), GptqError::Length { name: "cross", expected: N * N, found: 5 });
    let mut bad = vec![0.0; N * N];
    bad[N + 2] = f32::NAN;
    assert_eq!(cross(&bad), GptqError::NonFiniteCross { row: 1, column: 2 });
}

/// Groups that do not divide the columns, are larger than a block of the solver, or larger than the row.
#[test]
fn groups_of_any_size() {
    for n in [1, 5, 130, 300] {
        let stats = stats_of(&wave((2 * n + 3) * n, 0.7, 1.0), n);
        let weights = wave(3 * n, 0.37, 0.1);
        for group_size in [None, Some(1), Some(7), Some(16), Some(128), Some(200), Some(1 << 40)] {
            for order in [
                Order::Natural,
                Order::ActGroupAware,
                Order::DescAct { static_groups: false },
                Order::DescAct { static_groups: true },
            ] {
                for bits in [2, 3, 4, 5, 8] {
                    let mut options = Options::new(Bits::new(bits).unwrap(), group_size);
                    options.order = order;
                    let factor = Factor::new(&stats, &options).unwrap();
                    let got = gptq::quantize(&weights, 3, &factor, &options).unwrap();
                    let mut values = vec![0.0; 3 * n];
                    got.matrix.dequantize_into(&mut values).unwrap();
                    let loss = gptq::loss(&weights, &values, stats.gram().unwrap(), stats.count()).unwrap();
                    let reported = got.report.loss.unwrap();
                    assert!(
                        (loss - reported).abs() <= 1e-3 * loss + 1e-9,
                        "{n} {group_size:?} {order:?}: {loss} {reported}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_same_for_any_number_of_threads() {
    let n = 700;
    let x = wave(900 * n, 0.7, 1.0);
    let weights = wave(200 * n, 0.37, 0.1);
    let cross = wave(n * n, 0.11, 1.0);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let stats = stats_of(&x, n);
            let mut options = options();
            options.group_size = Some(128);
            let factor = Factor::new(&stats, &options).unwrap().with_cross(&cross, 0.1).unwrap();
            let got = gptq::quantize(&weights, 200, &factor, &options).unwrap();
            (got.matrix, got.report.loss.unwrap().to_bits(), got.report.nmse.to_bits())
        })
    };
    let one = run(1);
    for threads in [2, 3, 5] {
        assert!(run(threads) == one, "{threads} threads");
    }
}

/// Rounding alone, through the same call.
#[test]
fn rounding_to_nearest() {
    let weights = wave(OUT * N, 0.37, 0.1);
    let got = gptq::round_to_nearest(&weights, OUT, N, &options()).unwrap();
    assert_eq!((got.report.fallback, got.report.loss), (Some(Fallback::Asked), None));
    let mut values = vec![0.0; OUT * N];
    got.matrix.dequantize_into(&mut values).unwrap();
    for (at, (w, q)) in weights.iter().zip(&values).enumerate() {
        let group = got.matrix.group_of(at % N) + at / N * got.matrix.groups();
        let (scale, zero) = (got.matrix.scales()[group].to_f32(), got.matrix.zeros()[group]);
        let code = got.matrix.codes()[at];
        let on_the_edge = code == 0 || code == 15;
        assert!(on_the_edge || (w - q).abs() <= 0.501 * scale.abs(), "{at}: {w} {q} {scale} {zero}");
    }
    let stats = stats_of(&wave(60 * N, 0.7, 1.0), N);
    let with = quantized(&stats, &weights, &options()).report.loss.unwrap();
    let without = gptq::loss(&weights, &values, stats.gram().unwrap(), stats.count()).unwrap();
    assert!(with < 0.7 * without, "{with} {without}");
}
