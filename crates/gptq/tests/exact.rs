//! The solver beside the definition of the problem: all codes tried, and the sequential solution in f64 with explicit inverses.

use gptq::{Bits, Factor, GroupCodec, Options, Order, Passes};
use quant_core::input_stats::{Detail, InputStats};

/// The same parameters everywhere, so that only the order of rounding and the feedback can make a difference.
struct FixedGrid {
    scale: f32,
    zero: f32,
    max: f32,
}

impl GroupCodec for FixedGrid {
    type Params = ();

    fn fit(&self, _: &[f32], _: &[f32]) {}

    fn value(&self, _: &(), _slot: usize, code: u8) -> f32 {
        self.scale * (f32::from(code) - self.zero)
    }

    fn round(&self, _: &(), _slot: usize, weight: f32) -> (u8, f32) {
        let code = ((weight / self.scale).round_ties_even() + self.zero).clamp(0.0, self.max);
        (code as u8, self.scale * (code - self.zero))
    }
}

impl FixedGrid {
    fn exact(&self, code: u8) -> f64 {
        f64::from(self.scale) * (f64::from(code) - f64::from(self.zero))
    }
}

/// Uniform in -1..1, a generator of 64 bits.
fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// Inputs whose columns depend on each other.
fn inputs(rows: usize, n: usize, seed: u64) -> Vec<f32> {
    let mut x = random(rows * n, seed);
    for row in x.chunks_exact_mut(n) {
        for i in 1..n {
            row[i] = 0.5 * row[i] + 0.8 * row[i - 1];
        }
    }
    x
}

fn options(bits: u8, order: Order, damp: f64) -> Options {
    let mut options = Options::new(Bits::new(bits).unwrap(), None);
    (options.order, options.damp, options.shrink) = (order, damp, 0.0);
    options
}

/// `2/n Σ x xᵀ` in f64 with `damp` times the mean of the diagonal on it.
fn hessian(x: &[f32], n: usize, damp: f64) -> Vec<f64> {
    let mut h = vec![0.0; n * n];
    for row in x.chunks_exact(n) {
        for i in 0..n {
            for j in 0..n {
                h[i * n + j] += f64::from(row[i]) * f64::from(row[j]) * 2.0 / (x.len() / n) as f64;
            }
        }
    }
    let mean = (0..n).map(|i| h[i * n + i]).sum::<f64>() / n as f64;
    (0..n).for_each(|i| h[i * n + i] += damp * mean);
    h
}

fn quadratic(h: &[f64], error: &[f64]) -> f64 {
    let n = error.len();
    (0..n).map(|i| (0..n).map(|j| error[i] * h[i * n + j] * error[j]).sum::<f64>()).sum()
}

/// Solves `a x = b` by elimination with pivoting.
fn solve(mut a: Vec<f64>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for k in 0..n {
        let pivot = (k..n).max_by(|&i, &j| a[i * n + k].abs().total_cmp(&a[j * n + k].abs())).unwrap();
        (0..n).for_each(|j| a.swap(k * n + j, pivot * n + j));
        b.swap(k, pivot);
        for i in k + 1..n {
            let f = a[i * n + k] / a[k * n + k];
            (k..n).for_each(|j| a[i * n + j] -= f * a[k * n + j]);
            b[i] -= f * b[k];
        }
    }
    for k in (0..n).rev() {
        b[k] = (b[k] - (k + 1..n).map(|j| a[k * n + j] * b[j]).sum::<f64>()) / a[k * n + k];
    }
    b
}

/// The problem as Optimal Brain Quantization states it: round a column, then move all columns that are left to where the loss is least.
fn sequential(h: &[f64], weights: &[f32], order: &[usize], grid: &FixedGrid) -> Vec<u8> {
    let n = weights.len();
    let mut current: Vec<f64> = weights.iter().map(|&w| f64::from(w)).collect();
    let mut codes = vec![0; n];
    for (done, &column) in order.iter().enumerate() {
        let (code, _) = grid.round(&(), 0, current[column] as f32);
        codes[column] = code;
        current[column] = grid.exact(code);
        let left = &order[done + 1..];
        // H_LL (w'_L - w_L) = -H_LR (q_R - w_R)
        let a = left.iter().flat_map(|&i| left.iter().map(move |&j| h[i * n + j])).collect();
        let error = |j: usize| current[j] - f64::from(weights[j]);
        let b = left.iter().map(|&i| -order[..=done].iter().map(|&j| h[i * n + j] * error(j)).sum::<f64>()).collect();
        for (&column, moved) in left.iter().zip(solve(a, b)) {
            current[column] = f64::from(weights[column]) + moved;
        }
    }
    codes
}

#[test]
fn codes_of_the_sequential_solution_in_f64() {
    for (n, seed) in [(1, 1), (2, 2), (7, 3), (33, 4), (80, 5)] {
        let x = inputs(3 * n + 5, n, seed);
        let mut stats = InputStats::new(n, Detail::Gram);
        stats.add(&x, 3 * n + 5, n).unwrap();
        let h = hessian(&x, n, 0.01);
        let rows = 5;
        let weights = random(rows * n, seed + 100);
        let grid = FixedGrid { scale: 0.21, zero: 4.0, max: 7.0 };
        let mut by_diagonal: Vec<usize> = (0..n).collect();
        by_diagonal.sort_by(|&i, &j| h[j * n + j].total_cmp(&h[i * n + i]));
        let static_groups = true;
        for (order, columns) in [(Order::Natural, (0..n).collect()), (Order::DescAct { static_groups }, by_diagonal)] {
            let factor = Factor::new(&stats, &options(3, order, 0.01)).unwrap();
            let got = gptq::quantize_onto(&grid, &weights, rows, &factor, Passes::default()).unwrap();
            let want: Vec<u8> = weights.chunks(n).flat_map(|row| sequential(&h, row, &columns, &grid)).collect();
            let different = got.codes.iter().zip(&want).filter(|(a, b)| a != b).count();
            assert!(different == 0, "{n} columns, {order:?}: {different} codes of {}", want.len());
        }
    }
}

/// All codes of a row of five weights tried: nothing is below the best of them, the solver is near it, rounding is not.
#[test]
fn beside_every_choice_of_codes() {
    let n = 5;
    let (mut best_sum, mut solver_sum, mut rounded_sum) = (0.0, 0.0, 0.0);
    let mut optimal = 0;
    let rows = 100;
    for seed in 0..rows {
        let x = inputs(40, n, seed + 1);
        let mut stats = InputStats::new(n, Detail::Gram);
        stats.add(&x, 40, n).unwrap();
        let h = hessian(&x, n, 0.0);
        let weights = random(n, seed + 1000);
        let grid = FixedGrid { scale: 0.5, zero: 2.0, max: 3.0 };
        let loss = |codes: &[u8]| {
            let error: Vec<f64> = codes.iter().zip(&weights).map(|(&c, &w)| grid.exact(c) - f64::from(w)).collect();
            quadratic(&h, &error)
        };
        let best = (0..1u32 << (2 * n))
            .map(|all| loss(&(0..n).map(|i| (all >> (2 * i) & 3) as u8).collect::<Vec<_>>()))
            .fold(f64::INFINITY, f64::min);
        let factor = Factor::new(&stats, &options(2, Order::Natural, 0.0)).unwrap();
        let solved = loss(&gptq::quantize_onto(&grid, &weights, 1, &factor, Passes::default()).unwrap().codes);
        let rounded = loss(&weights.iter().map(|&w| grid.round(&(), 0, w).0).collect::<Vec<_>>());
        assert!(solved >= best * (1.0 - 1e-9), "seed {seed}");
        optimal += u32::from(solved <= best * (1.0 + 1e-9));
        (best_sum, solver_sum, rounded_sum) = (best_sum + best, solver_sum + solved, rounded_sum + rounded);
    }
    println!("best {best_sum:.3}, solver {solver_sum:.3}, rounded {rounded_sum:.3}; {optimal} of {rows} optimal");
    assert!(solver_sum < 1.6 * best_sum && rounded_sum > 1.5 * solver_sum && optimal > 30);
}

/// With a cross statistic the goal is the output of other inputs: `‖q x − w x'‖²` is less than without it, and least at full strength.
#[test]
fn a_cross_statistic_sets_the_goal() {
    let (n, rows, out) = (24, 200, 16);
    let x = inputs(rows, n, 7);
    let noise = random(rows * n, 8);
    let full: Vec<f32> = x.iter().zip(&noise).map(|(x, e)| x + 0.2 * e).collect();
    let mut stats = InputStats::new(n, Detail::Gram);
    stats.add(&x, rows, n).unwrap();
    let mut cross = vec![0.0f32; n * n];
    for (x, full) in x.chunks(n).zip(full.chunks(n)) {
        for i in 0..n {
            (0..n).for_each(|j| cross[i * n + j] += (full[i] - x[i]) * x[j]);
        }
    }
    let weights = random(out * n, 9);
    for order in [Order::Natural, Order::ActGroupAware] {
        let mut options = Options::new(Bits::new(4).unwrap(), Some(8));
        (options.order, options.damp, options.shrink) = (order, 1e-4, 0.0);
        let distance = |strength: f32| {
            let factor = Factor::new(&stats, &options).unwrap().with_cross(&cross, strength).unwrap();
            let matrix = gptq::quantize(&weights, out, &factor, &options).unwrap().matrix;
            let mut values = vec![0.0; out * n];
            matrix.dequantize_into(&mut values).unwrap();
            let mut sum = 0.0;
            for (w, q) in weights.chunks(n).zip(values.chunks(n)) {
                for (x, full) in x.chunks(n).zip(full.chunks(n)) {
                    let d: f32 = (0..n).map(|i| q[i] * x[i] - w[i] * full[i]).sum();
                    sum += f64::from(d * d);
                }
            }
            sum
        };
        let (without, half, whole) = (distance(0.0), distance(0.5), distance(1.0));
        println!("{order:?}: {without:.3} {half:.3} {whole:.3}");
        assert!(whole < half && half < without);
    }
}

/// With hardly more rows than columns, what is fitted to the rows' correlations costs on other rows of the same kind; shrunk, less.
#[test]
fn shrinkage_helps_on_rows_that_were_not_seen() {
    let (n, out, rows) = (64, 32, 96);
    let mut sums = [0.0; 2];
    for seed in 1..6 {
        let (seen, unseen) = (inputs(rows, n, seed), inputs(4000, n, seed + 100));
        let stats_of = |x: &[f32]| {
            let mut stats = InputStats::new(n, Detail::Gram);
            stats.add(x, x.len() / n, n).unwrap();
            stats
        };
        let (seen, unseen) = (stats_of(&seen), stats_of(&unseen));
        let weights = random(out * n, seed + 200);
        for (sum, shrink) in sums.iter_mut().zip([0.0, 1.0]) {
            let mut options = Options::new(Bits::new(3).unwrap(), Some(32));
            options.shrink = shrink;
            let factor = Factor::new(&seen, &options).unwrap();
            let matrix = gptq::quantize(&weights, out, &factor, &options).unwrap().matrix;
            let mut values = vec![0.0; out * n];
            matrix.dequantize_into(&mut values).unwrap();
            *sum += gptq::loss(&weights, &values, unseen.gram().unwrap(), unseen.count()).unwrap();
        }
    }
    println!("{sums:?}");
    assert!(sums[1] < 0.95 * sums[0], "{sums:?}");
}

/// Least squares leaves a row's output too small; with its gain kept it is as large as it was, whatever damping and shrinkage.
#[test]
fn a_rows_output_is_as_large_as_it_was() {
    let (n, out, rows) = (64, 16, 400);
    let x = inputs(rows, n, 3);
    let mut stats = InputStats::new(n, Detail::Gram);
    stats.add(&x, rows, n).unwrap();
    let weights = random(out * n, 4);
    // `q G wᵀ / w G wᵀ` of each row.
    let gains = |keep_gain: bool| -> Vec<f64> {
        let mut options = Options::new(Bits::new(2).unwrap(), Some(32));
        options.keep_gain = keep_gain;
        let factor = Factor::new(&stats, &options).unwrap();
        let matrix = gptq::quantize(&weights, out, &factor, &options).unwrap().matrix;
        let mut values = vec![0.0; out * n];
        matrix.dequantize_into(&mut values).unwrap();
        let gain = |(w, q): (&[f32], &[f32])| {
            let outputs = x.chunks(n).map(|x| {
                let dot = |w: &[f32]| w.iter().zip(x).map(|(w, x)| f64::from(w * x)).sum::<f64>();
                (dot(w), dot(q))
            });
            let (own, both) = outputs.fold((0.0, 0.0), |sum, (w, q)| (sum.0 + w * w, sum.1 + w * q));
            both / own
        };
        weights.chunks(n).zip(values.chunks(n)).map(gain).collect()
    };
    let mean = |gains: &[f64]| gains.iter().sum::<f64>() / gains.len() as f64;
    let (without, with) = (gains(false), gains(true));
    println!("{:.4} {:.4}", mean(&without), mean(&with));
    assert!(mean(&without) < 0.99, "{without:?}");
    // What is left is the rounding of scales to f16.
    assert!(with.iter().all(|gain| (gain - 1.0).abs() < 1e-3), "{with:?}");
}
