//! Against the definitions, computed in f64 with nothing of the crate.

use awq::{Bits, Inputs, Kind, Member, Options, ScaleGroup, grouped_query_ties};
use half::f16;
use quant_core::input_stats::{Detail, InputStats};

const N: usize = 24;
const GROUP: usize = 8;
const ROWS: usize = 40;

fn wave(len: usize, step: f32, size: f32) -> Vec<f32> {
    (0..len).map(|i| size * ((i as f32 * step).sin() + 0.3 * (i as f32 * step * 7.3).cos())).collect()
}

/// Inputs whose channels are of very different size.
fn activations(rows: usize, step: f32) -> Vec<f32> {
    wave(rows * N, step, 1.0).iter().enumerate().map(|(i, x)| x * [1.0, 0.1, 4.0, 0.5, 9.0][i % N % 5]).collect()
}

fn stats(x: &[f32]) -> InputStats {
    let mut stats = InputStats::new(N, Detail::Gram);
    stats.add(x, x.len() / N, N).unwrap();
    stats
}

/// What a row becomes: each group on its own grid over `share` of its range, times `gain`.
fn rounded(row: &[f64], bits: u8, zero_point: bool, cuts: &[(f64, f64)]) -> Vec<f64> {
    let max = f64::from((1u32 << bits) - 1);
    let f16_of = |v: f64| f16::from_f64(v).to_f64();
    row.chunks(GROUP)
        .zip(cuts)
        .flat_map(|(group, &(share, gain))| {
            let low = group.iter().copied().fold(0.0, f64::min) * share;
            let high = group.iter().copied().fold(0.0, f64::max) * share;
            let (scale, zero) = if zero_point {
                let scale = f16_of((high - low) / max);
                (scale, (-low / scale).round_ties_even().clamp(0.0, max))
            } else {
                let middle = (max + 1.0) / 2.0;
                (f16_of(-if -low > high { low } else { high } / middle), middle)
            };
            let kept = f16_of(scale * gain);
            let value = move |w: &f64| ((w / scale).round_ties_even() + zero).clamp(0.0, max) - zero;
            group.iter().map(move |w| kept * value(w)).collect::<Vec<_>>()
        })
        .collect()
}

/// `Σ ‖(W − W') x‖² / n`.
fn output_loss(weights: &[f32], x: &[f32], scales: &[f64], bits: u8, zero_point: bool) -> f64 {
    let whole = [(1.0, 1.0); N / GROUP];
    let of_row = |row: &[f32]| {
        let scaled: Vec<f64> = row.iter().zip(scales).map(|(w, s)| f64::from(*w) * s).collect();
        let left = rounded(&scaled, bits, zero_point, &whole);
        let error: Vec<f64> = left.iter().zip(row).zip(scales).map(|((q, w), s)| f64::from(*w) - q / s).collect();
        let output = |x: &[f32]| error.iter().zip(x).map(|(e, x)| e * f64::from(*x)).sum::<f64>().powi(2);
        x.chunks(N).map(output).sum::<f64>()
    };
    weights.chunks(N).map(of_row).sum::<f64>() / (x.len() / N) as f64
}

/// All candidates by the table of the documentation: kind, ratio, scales.
fn candidates(matrices: &[&[f32]], x: &[f32], ties: &[u32]) -> Vec<(Kind, f64, Vec<f64>)> {
    let rows: usize = matrices.iter().map(|m| m.len() / N).sum();
    let mut a: Vec<f64> = (0..N).map(|c| x.iter().skip(c).step_by(N).map(|v| f64::from(v.abs())).sum()).collect();
    a.iter_mut().for_each(|a| *a /= (x.len() / N) as f64);
    let mut w = vec![0.0; N];
    for row in matrices.iter().flat_map(|m| m.chunks(N)) {
        for (c, value) in row.iter().enumerate() {
            let group = &row[c / GROUP * GROUP..][..GROUP];
            let max = group.iter().fold(0.0f64, |max, v| max.max(f64::from(v.abs())));
            w[c] += f64::from(value.abs()) / max / rows as f64;
        }
    }
    let tied = |values: &[f64]| -> Vec<f64> {
        let mean = |tie: &u32| {
            let same: Vec<f64> = values.iter().zip(ties).filter(|(_, t)| *t == tie).map(|(v, _)| *v).collect();
            same.iter().sum::<f64>() / same.len() as f64
        };
        ties.iter().map(mean).collect()
    };
    let (a, w) = (tied(&a), tied(&w));
    let mut out = vec![(Kind::Identity, 0.0, vec![1.0; N])];
    for kind in [Kind::Plain, Kind::Duo] {
        for step in 0..=20 {
            let ratio = f64::from(step) / 20.0;
            if step == 0 && kind == Kind::Plain {
                continue;
            }
            let weight = |w: f64| if kind == Kind::Duo { w.powf(1.0 - ratio) + 1e-4 } else { 1.0 };
            let raw: Vec<f64> = a.iter().zip(&w).map(|(a, w)| a.powf(ratio) / weight(*w)).collect();
            let (max, min) =
                (raw.iter().copied().fold(0.0, f64::max), raw.iter().copied().fold(f64::INFINITY, f64::min));
            out.push((kind, ratio, raw.iter().map(|v| f64::from((v / (max * min).sqrt()) as f32)).collect()));
        }
    }
    out
}

#[test]
fn the_best_candidate_and_its_losses() {
    let (fit, check) = (activations(ROWS, 0.7), activations(ROWS, 0.83));
    let inputs = Inputs::new(&stats(&fit), Some(&stats(&check))).unwrap();
    let (first, second) = (wave(6 * N, 0.37, 0.1), wave(3 * N, 0.53, 4.0));
    let ties = grouped_query_ties(6, 3, 4);
    for (bits, zero_point) in [(4, true), (4, false), (3, true), (8, true)] {
        for tied in [false, true] {
            for matrices in [&[&first[..]][..], &[&first, &second]] {
                let members: Vec<Member<'_>> =
                    matrices.iter().map(|weights| Member { weights, out_features: weights.len() / N }).collect();
                let group = ScaleGroup { members: &members, ties: tied.then_some(&ties) };
                let mut options = Options::new(Bits::new(bits).unwrap(), Some(GROUP));
                (options.zero_point, options.margin) = (zero_point, 0.0);
                let got = awq::search_scales(&inputs, &group, &options).unwrap();

                let single: Vec<u32> = (0..N as u32).collect();
                let all = candidates(matrices, &fit, if tied { &ties } else { &single });
                let losses = |x: &[f32], s: &[f64]| -> Vec<f64> {
                    matrices.iter().map(|m| output_loss(m, x, s, bits, zero_point)).collect()
                };
                let plain = losses(&fit, &all[0].2);
                let worst = |found: &[f64]| found.iter().zip(&plain).map(|(a, b)| a / b).fold(0.0, f64::max);
                let least = all.iter().map(|c| worst(&losses(&fit, &c.2))).fold(f64::INFINITY, f64::min);
                let name = format!("{bits} {zero_point} {tied} {}: {got:?}, least {least}", matrices.len());
                let chosen = all.iter().find(|c| c.0 == got.kind && (c.1 - got.ratio).abs() < 1e-9).unwrap();
                let found = losses(&fit, &chosen.2);
                assert!((worst(&found) / least - 1.0).abs() < 1e-3, "{name}");
                assert!((got.fit.worst / least - 1.0).abs() < 1e-3, "{name}");
                assert!((got.fit.plain / plain.iter().sum::<f64>() - 1.0).abs() < 1e-3, "{name}");
                assert!((got.fit.best / found.iter().sum::<f64>() - 1.0).abs() < 1e-3, "{name}");
                if let Some(judged) = got.check {
                    let (plain, best) = (losses(&check, &all[0].2), losses(&check, &chosen.2));
                    assert!((judged.plain / plain.iter().sum::<f64>() - 1.0).abs() < 1e-3, "{name}");
                    assert!((judged.best / best.iter().sum::<f64>() - 1.0).abs() < 1e-3, "{name}");
                    let better = plain.iter().zip(&best).all(|(plain, best)| best < plain);
                    assert_eq!(got.declined.is_none(), better, "{name}");
                }
                if got.declined.is_none() {
                    let close = |(a, b): (&f32, &f64)| (f64::from(*a) / b - 1.0).abs() < 1e-5;
                    assert!(got.values.iter().zip(&chosen.2).all(close), "{name}");
                } else {
                    assert!(got.is_identity(), "{name}");
                }
                if tied {
                    let same = |i: usize, j: usize| ties[i] != ties[j] || got.values[i] == got.values[j];
                    assert!((0..N).all(|i| (0..N).all(|j| same(i, j))), "{name}");
                }
            }
        }
    }
}

#[test]
fn the_best_cut_of_each_group() {
    let x = activations(ROWS, 0.7);
    let inputs = Inputs::new(&stats(&x), None).unwrap();
    let weights = wave(6 * N, 0.37, 0.1);
    let scales: Vec<f32> = (0..N).map(|c| 0.5 + 0.1 * c as f32).collect();
    let mut found = awq::Scales::identity(N);
    found.values.clone_from(&scales);
    for (bits, least_share) in [(4u8, 0.6), (3, 0.5), (2, 0.3)] {
        let mut options = Options::new(Bits::new(bits).unwrap(), Some(GROUP));
        (options.sweeps, options.damp, options.margin) = (0, 0.0, 0.0);
        let clip = awq::search_clip(&inputs, &weights, 6, &found.values, &options).unwrap();
        assert_eq!(clip.declined, None);
        let mut cut_groups = 0;
        for (at, cut) in clip.cuts.iter().enumerate() {
            let (row, first) = (at / (N / GROUP), at % (N / GROUP) * GROUP);
            let w: Vec<f64> = (first..first + GROUP).map(|c| f64::from(weights[row * N + c])).collect();
            let s: Vec<f64> = (first..first + GROUP).map(|c| f64::from(scales[c])).collect();
            let scaled: Vec<f64> = w.iter().zip(&s).map(|(w, s)| w * s).collect();
            let value = |share, gain| -> Vec<f64> {
                rounded(&scaled, bits, true, &[(share, gain)]).iter().zip(&s).map(|(q, s)| q / s).collect()
            };
            let inner = |a: &[f64], b: &[f64]| -> f64 {
                let at = |v: &[f64], x: &[f32]| v.iter().zip(&x[first..]).map(|(v, x)| v * f64::from(*x)).sum::<f64>();
                x.chunks(N).map(|x| at(a, x) * at(b, x)).sum()
            };
            let loss = |q: &[f64]| {
                let e: Vec<f64> = w.iter().zip(q).map(|(w, q)| w - q).collect();
                inner(&e, &e)
            };
            let mut least = loss(&value(1.0, 1.0));
            for step in 0..9 {
                let share = 1.0 - (1.0 - least_share) * f64::from(step) / 8.0;
                let q = value(share, 1.0);
                let gain = inner(&w, &w) / inner(&q, &w);
                least = least.min(if (0.8..1.25).contains(&gain) { loss(&value(share, gain)) } else { loss(&q) });
            }
            let got = value(f64::from(cut.share), f64::from(cut.gain));
            let mine = loss(&got);
            // The gain's f16 is not part of the choice.
            assert!(mine <= 1.01 * least + 1e-9, "{bits} {at}: {cut:?} {mine} {least}");
            if cut.gain != 1.0 {
                // The gain of the group is that of its weights, to an f16's precision.
                assert!((inner(&got, &w) / inner(&w, &w) - 1.0).abs() < 1e-3, "{bits} {at}: {cut:?}");
            }
            cut_groups += usize::from(cut.share < 1.0);
        }
        assert!(cut_groups > 3, "{bits}: {cut_groups}");
    }
}

#[test]
fn what_is_written_is_what_was_rated() {
    let x = activations(ROWS, 0.7);
    let inputs = Inputs::new(&stats(&x), None).unwrap();
    let weights = wave(6 * N, 0.37, 0.1);
    for (bits, zero_point) in [(2, true), (4, true), (4, false), (8, true)] {
        let mut options = Options::new(Bits::new(bits).unwrap(), Some(GROUP));
        options.zero_point = zero_point;
        let group = ScaleGroup { members: &[Member { weights: &weights, out_features: 6 }], ties: None };
        let scales = awq::search_scales(&inputs, &group, &options).unwrap();
        let clip = awq::search_clip(&inputs, &weights, 6, &scales.values, &options).unwrap();
        let got = awq::round(&weights, 6, &scales.values, Some(&clip), Some(&inputs), &options).unwrap();
        let mut values = vec![0.0; weights.len()];
        got.matrix.dequantize_into(&mut values).unwrap();
        let mut error: Vec<f64> = vec![];
        for (at, (w, q)) in weights.iter().zip(&values).enumerate() {
            error.push(f64::from(*w) - f64::from(*q) / f64::from(scales.values[at % N]));
        }
        let output = |e: &[f64], x: &[f32]| e.iter().zip(x).map(|(e, x)| e * f64::from(*x)).sum::<f64>().powi(2);
        let loss: f64 = error.chunks(N).flat_map(|e| x.chunks(N).map(move |x| output(e, x))).sum::<f64>() / ROWS as f64;
        let nmse =
            error.iter().map(|e| e * e).sum::<f64>() / weights.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>();
        assert!((got.report.loss.unwrap() / loss - 1.0).abs() < 1e-3, "{bits}: {:?} {loss}", got.report);
        assert!((got.report.nmse / nmse - 1.0).abs() < 1e-3, "{bits}: {:?} {nmse}", got.report);
        if clip.declined.is_none() {
            assert!((clip.fit.best / loss - 1.0).abs() < 1e-3, "{bits}: {clip:?} {loss}");
        }
    }
}
