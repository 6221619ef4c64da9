//! One byte a weight: grids against exhaustive search, the solver against rounding.

use gptq::{Bits, EightBitGrid, Factor, GroupCodec, Options, ScaleSearch, quantize_eight_bit};
use quant_core::eight_bit::EightBitCode;
use quant_core::float8::Float8;
use quant_core::input_stats::{Detail, InputStats};

fn options(search: ScaleSearch) -> Options {
    let mut options = Options::new(Bits::new(8).unwrap(), None);
    options.search = search;
    options
}

fn weights(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 0.7).sin() * (1.0 + (i as f32 * 0.013).cos().powi(8) * 3.0)).collect()
}

/// By compressed-tensors' rule where only the range counts; the nearest code always.
#[test]
fn codes_and_scales() {
    let weights = weights(300);
    let largest = weights.iter().fold(0.0f32, |m, w| m.max(w.abs()));
    for (code, levels) in [(EightBitCode::Int8, 127.5), (EightBitCode::E4M3, 448.0)] {
        let grid = EightBitGrid::new(code, &options(ScaleSearch::MinMax));
        let scale = grid.fit(&weights, &vec![1.0; 300]);
        assert_eq!(scale, largest / levels);
        let value = |byte: u8| match code {
            EightBitCode::Int8 => scale * f32::from(byte as i8),
            EightBitCode::E4M3 => scale * Float8::E4M3.decode(byte),
        };
        for &w in &weights {
            let (byte, rounded) = grid.round(&scale, 0, w);
            assert_eq!((rounded, grid.value(&scale, 0, byte)), (value(byte), value(byte)), "{code:?}");
            let nearest = (0..=255).map(|b| (value(b) - w).abs()).filter(|d| !d.is_nan()).fold(f32::INFINITY, f32::min);
            assert!((rounded - w).abs() <= nearest * 1.0001 + 1e-7, "{code:?} {w} {rounded}");
        }
        // A searched scale is no worse.
        let error = |scale: f32| weights.iter().map(|&w| (grid.round(&scale, 0, w).1 - w).powi(2)).sum::<f32>();
        let searched = EightBitGrid::new(code, &options(ScaleSearch::Mse)).fit(&weights, &[]);
        assert!(error(searched) < error(scale), "{code:?} {} {}", error(searched), error(scale));
        for (w, expected) in [([0.0; 4], 1.0), ([1e-42; 4], f32::MIN_POSITIVE)] {
            assert_eq!(grid.fit(&w, &[1.0; 4]), expected);
        }
        let whole = grid.fit(&[f32::MAX, -f32::MAX], &[1.0; 2]);
        assert!(whole.is_finite() && grid.round(&whole, 0, f32::MAX).1.is_finite());
    }
}

#[test]
fn errors_fed_back_save_loss() {
    let (inputs, outputs, rows) = (96, 70, 400);
    let weights = weights(inputs * outputs);
    // Correlated inputs.
    let x: Vec<f32> = (0..rows * inputs)
        .map(|i| {
            let (row, column) = (i / inputs, i % inputs);
            ((row * 31 + column / 4) as f32 * 0.37).sin() + 0.3 * ((row * 7 + column * 13) as f32 * 0.11).cos()
        })
        .collect();
    let mut stats = InputStats::new(inputs, Detail::Gram);
    stats.add(&x, rows, inputs).unwrap();
    for code in [EightBitCode::Int8, EightBitCode::E4M3] {
        let options = options(ScaleSearch::Hessian);
        let factor = Factor::new(&stats, &options).unwrap();
        let (matrix, report) = quantize_eight_bit(&weights, outputs, &factor, code, &options).unwrap();
        let plain = Factor::round_to_nearest(inputs, &options).unwrap();
        let (rounded, plain) = quantize_eight_bit(&weights, outputs, &plain, code, &options).unwrap();
        let values = |matrix: &quant_core::eight_bit::EightBitMatrix| {
            let mut values = vec![0.0; weights.len()];
            matrix.dequantize_into(&mut values).unwrap();
            values
        };
        let gram = stats.gram().unwrap();
        let loss = |values: &[f32]| gptq::loss(&weights, values, gram, rows as u64).unwrap();
        let (fed_back, nearest) = (loss(&values(&matrix)), loss(&values(&rounded)));
        println!("{code:?}: {fed_back:.3e} {nearest:.3e}");
        assert!(fed_back < 0.6 * nearest, "{code:?}: {fed_back} {nearest}");
        assert!((report.loss.unwrap() / fed_back - 1.0).abs() < 0.05, "{:?} {fed_back}", report.loss);
        assert!(plain.loss.is_none() && plain.fallback.is_some() && plain.nmse < 1e-3 && report.nmse < 2e-3);
        assert_eq!((matrix.out_features(), matrix.in_features(), matrix.code()), (outputs, inputs, code));
    }
}
