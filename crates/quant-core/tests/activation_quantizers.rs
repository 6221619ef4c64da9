//! Activation quantizers against compressed-tensors: scales, zero points, codes and rounded values, bit for bit.
//!
//! Golden: `data/activation_quantizers.json` from `data/activation_quantizers.py` (compressed-tensors 0.20, torch 2.15).

use quant_core::activation::{
    ActivationGrid, ActivationQuantizer, ActivationScale, ActivationScales, RangeMethod, ValueRange,
};
use serde_json::Value;

const INT8: ActivationGrid = ActivationGrid::Int8 { symmetric: true };
const INT8_ASYMMETRIC: ActivationGrid = ActivationGrid::Int8 { symmetric: false };
const GRIDS: [ActivationGrid; 3] = [INT8, INT8_ASYMMETRIC, ActivationGrid::E4M3];

fn floats(json: &Value) -> Vec<f32> {
    json.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

#[test]
fn as_compressed_tensors_rounds() {
    let golden: Value = serde_json::from_str(include_str!("data/activation_quantizers.json")).unwrap();
    let (x, columns) = (floats(&golden["x"]), golden["columns"].as_u64().unwrap() as usize);
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 9);
    for case in cases {
        let name = format!("{} {} {} {}", case["type"], case["symmetric"], case["strategy"], case["dynamic"]);
        let grid = match case["type"].as_str().unwrap() {
            "int" => ActivationGrid::Int8 { symmetric: case["symmetric"].as_bool().unwrap() },
            _ => ActivationGrid::E4M3,
        };
        let scales = match (case["strategy"].as_str().unwrap(), case.get("range")) {
            ("token", _) => ActivationScales::Token,
            (_, None) => ActivationScales::Tensor,
            (_, Some(range)) => {
                let range = floats(range);
                ActivationScales::Static(ActivationScale::spanning(grid, range[0], range[1]))
            }
        };
        let quantizer = ActivationQuantizer { grid, scales };
        let (mut codes, mut scales) = (Vec::new(), Vec::new());
        quantizer.codes(&x, columns, &mut codes, &mut scales).unwrap();
        let (their_scales, zeros) = (floats(&case["scale"]), floats(&case["zero_point"]));
        for (row, scale) in scales.iter().enumerate() {
            let at = row % their_scales.len();
            assert_eq!(scale.scale.to_bits(), their_scales[at].to_bits(), "{name} row {row}");
            assert_eq!(f32::from(scale.zero), zeros[at], "{name} row {row}");
        }
        let theirs: Vec<u64> = case["codes"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect();
        let ours: Vec<u64> = codes.iter().map(|&code| u64::from(code as u8)).collect();
        assert_eq!(ours, theirs, "{name}");
        let mut rounded = x.clone();
        quantizer.round(&mut rounded, columns).unwrap();
        // 0.0 is -0.0 here.
        assert_eq!(rounded, floats(&case["rounded"]), "{name}");
    }
}

/// Whatever the grid, and however many rows: of zeros, of a NaN, of an infinity, of an outlier.
#[test]
fn rows_of_all_kinds() {
    const COLUMNS: usize = 300;
    for rows in [1, 200] {
        let plain: Vec<f32> = (0..rows * COLUMNS).map(|i| (i as f32 * 0.37).sin()).collect();
        for grid in GRIDS {
            for (name, value) in [("zero", 0.0), ("nan", f32::NAN), ("infinite", f32::NEG_INFINITY), ("outlier", 1e6)] {
                let mut x = plain.clone();
                if name == "zero" {
                    x[..COLUMNS].fill(0.0);
                }
                x[COLUMNS / 2] = value;
                let rounded = |scales: ActivationScales| {
                    let quantizer = ActivationQuantizer { grid, scales };
                    let (mut codes, mut row_scales, mut rounded) = (Vec::new(), Vec::new(), x.clone());
                    quantizer.codes(&x, COLUMNS, &mut codes, &mut row_scales).unwrap();
                    quantizer.round(&mut rounded, COLUMNS).unwrap();
                    (rounded, codes, row_scales)
                };
                let (values, codes, scales) = rounded(ActivationScales::Token);
                let (first, others) = values.split_at(COLUMNS);
                match name {
                    "zero" => assert!(first.iter().all(|&v| v == 0.0)),
                    "outlier" => {
                        assert!((first[COLUMNS / 2] / 1e6 - 1.0).abs() < 5e-3, "{grid:?} {}", first[COLUMNS / 2]);
                        let lost = first.iter().filter(|&&v| v == 0.0).count();
                        // Whole numbers lose all the rest; floats keep what is above 2^-10 of a step.
                        assert!(
                            lost >= if grid == ActivationGrid::E4M3 { 100 } else { COLUMNS - 1 },
                            "{grid:?} {lost}"
                        );
                    }
                    _ => {
                        assert!(first.iter().all(|v| v.is_nan()) && scales[0].scale.is_nan(), "{name} {grid:?}");
                        assert!(codes[..COLUMNS].iter().all(|&code| code == 0));
                    }
                }
                // The other rows do not know.
                assert!(others.iter().zip(&plain[COLUMNS..]).all(|(a, b)| (a - b).abs() < 0.04), "{name} {grid:?}");
                let (values, _, _) = rounded(ActivationScales::Tensor);
                assert_eq!(values.iter().all(|v| v.is_nan()), !value.is_finite(), "{name} {grid:?}");
                let scale = ActivationScale::spanning(grid, -1.0, 1.0);
                let (values, _, scales) = rounded(ActivationScales::Static(scale));
                assert_eq!(values[COLUMNS / 2].is_nan(), value.is_nan(), "{name} {grid:?}");
                assert_eq!(scales[0].scale.is_nan(), !value.is_finite(), "{name} {grid:?}");
                assert!(values[0].is_finite() && values[COLUMNS..].iter().all(|v| v.is_finite()));
                if name == "outlier" {
                    assert!((values[COLUMNS / 2] - 1.0).abs() < 0.01, "it saturates");
                }
            }
        }
    }
    let quantizer = ActivationQuantizer { grid: INT8, scales: ActivationScales::Token };
    for (values, columns) in [(5, 2), (4, 0)] {
        let error = quantizer.round(&mut vec![0.0; values], columns).unwrap_err();
        assert_eq!((error.values, error.columns), (values, columns));
    }
    assert_eq!(quantizer.scales(&[], 4), Ok(vec![]));
}

#[test]
fn static_ranges() {
    // A bulk within ±1, one value in ten thousand up to 40, more of them negative.
    let values: Vec<f32> = (0..100_000)
        .map(|i| match i % 10_000 {
            0 => 40.0,
            1 | 2 => -20.0,
            _ => (i as f32 * 0.618).fract() * 2.0 - 1.0,
        })
        .collect();
    let mut range = ValueRange::new();
    values.chunks(777).for_each(|part| range.add(part).unwrap());
    let mut backwards = ValueRange::new();
    let reversed: Vec<f32> = values.iter().rev().copied().collect();
    backwards.add(&reversed).unwrap();
    assert_eq!(range, backwards);
    assert_eq!((range.count(), range.low(), range.high()), (100_000, -20.0, 40.0));
    let error = |grid: ActivationGrid, scale: ActivationScale| -> f64 {
        values.iter().map(|&x| f64::from(scale.round(grid, x) - x).powi(2)).sum::<f64>() / values.len() as f64
    };
    for grid in GRIDS {
        let max = range.scale(grid, RangeMethod::Max);
        assert_eq!(max, ActivationScale::spanning(grid, -20.0, 40.0));
        assert_eq!(max, range.scale(grid, RangeMethod::Percentile(100.0)));
        let mse = range.scale(grid, RangeMethod::Mse);
        // No range does much better by the values themselves.
        let best = (0..=160)
            .map(|i| 2f32.powf(-i as f32 / 16.0))
            .map(|s| error(grid, ActivationScale::spanning(grid, -20.0 * s, 40.0 * s)))
            .fold(f64::INFINITY, f64::min);
        assert!(error(grid, mse) <= best * 1.03, "{grid:?}: {} {best}", error(grid, mse));
    }
    // Cut: 99.9 % of the values are in the bulk.
    let cut = range.scale(INT8, RangeMethod::Percentile(99.9));
    assert!((cut.scale * 127.5 - 1.0).abs() < 0.01, "{cut:?}");
    let cut = range.scale(INT8_ASYMMETRIC, RangeMethod::Percentile(99.97));
    // 15 of 100,000 at either end: the ten of 40 are cut, the twenty of -20 are not.
    assert!((cut.scale * 255.0 - 21.0).abs() < 0.1 && cut.zero > 100, "{cut:?}");
    assert_eq!(range.add(&[1.0, f32::INFINITY]), Err((1, f32::INFINITY)));
    assert_eq!(range, backwards);
    let nothing = ValueRange::new().scale(INT8, RangeMethod::Mse);
    assert_eq!((nothing.scale, nothing.zero), (f32::EPSILON, 0));
}
