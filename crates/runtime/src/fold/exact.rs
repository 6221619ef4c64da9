//! Scales that a norm stored in few bits can be divided by without any rounding being left.

use half::{bf16, f16};
use safetensors::Dtype;

/// Divides a norm by scales and returns the bytes that hold it, or `None` for a type that norms do not have.
///
/// The quotient is rounded as the type has it, and the scales become what it amounts to: a weight rounded to BF16 is then no longer `w / s`, but
/// exactly `w / s'`, and the columns that are multiplied by `s'` make good all of it. Where nothing would be left of a weight, its scale is 1.
pub(crate) fn divide_stored(dtype: Dtype, weight: &[f32], scales: &mut [f32]) -> Option<Vec<u8>> {
    let round: fn(f32) -> f32 = match dtype {
        Dtype::F32 => |v| v,
        Dtype::F16 => |v| f16::from_f32(v).to_f32(),
        Dtype::BF16 => |v| bf16::from_f32(v).to_f32(),
        _ => return None,
    };
    let mut bytes = Vec::new();
    for (&w, scale) in weight.iter().zip(scales) {
        let mut value = round(w / *scale);
        let exact = w / value;
        if exact.is_normal() && exact > 0.0 && exact.recip().is_normal() {
            *scale = exact;
        } else if w != 0.0 {
            (*scale, value) = (1.0, w);
        }
        match dtype {
            Dtype::F16 => bytes.extend(f16::from_f32(value).to_le_bytes()),
            Dtype::BF16 => bytes.extend(bf16::from_f32(value).to_le_bytes()),
            _ => bytes.extend(value.to_le_bytes()),
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_make_good_the_rounding() {
        let weight: Vec<f32> = (0..100).map(|i| bf16::from_f32((i as f32 * 0.37).sin() * 2.0).to_f32()).collect();
        let asked: Vec<f32> = (0..100).map(|i| 1.0 + i as f32 * 0.123).collect();
        let mut scales = asked.clone();
        let bytes = divide_stored(Dtype::BF16, &weight, &mut scales).unwrap();
        let stored = bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32());
        for (((v, s), w), asked) in stored.zip(&scales).zip(&weight).zip(&asked) {
            assert!((v * s - w).abs() <= w.abs() * 1e-7, "{v} {s} {w}");
            assert!((s / asked - 1.0).abs() < 1.0 / 128.0);
        }
    }

    #[test]
    fn weights_that_would_vanish_stay() {
        let mut scales = [1e6, 1e6, 2.0];
        let bytes = divide_stored(Dtype::F16, &[1e-3, 0.0, 1.0], &mut scales).unwrap();
        assert_eq!(scales, [1.0, 1e6, 2.0]);
        let halves: Vec<f16> = bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b)).collect();
        assert_eq!(halves, [f16::from_f32(1e-3), f16::ZERO, f16::from_f32(0.5)]);
        assert!(divide_stored(Dtype::I32, &[], &mut []).is_none());
    }
}
