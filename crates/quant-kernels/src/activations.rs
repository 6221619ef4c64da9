//! What ggml's CPU products round activations to.

use crate::{Error, Result};
use gguf_format::GgmlType;
use half::{bf16, f16};

/// The `vec_dot_type` of a weight type: the grid that ggml rounds the other factor to (`type_traits_cpu` in ggml-cpu.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActivationGrid {
    /// Not rounded: F32 weights.
    F32,
    /// f16, to nearest even: F16 weights.
    F16,
    /// bf16, to nearest even: BF16 weights.
    Bf16,
    /// Blocks of 32 values: `d = max|x| / 127` as f16, codes `x · 127 / max|x|` to nearest even. Q8_1 is the same grid with a sum beside it.
    Q8_0,
    /// Blocks of 256 values: the value of largest magnitude gets the code -127, its `d` stays f32; codes to nearest even, at most 127.
    Q8K,
}

impl ActivationGrid {
    /// The grid for weights of a type; `None` for a type that ggml multiplies with nothing.
    pub fn of(ty: GgmlType) -> Option<Self> {
        Some(match ty {
            GgmlType::F32 => Self::F32,
            GgmlType::F16 => Self::F16,
            GgmlType::BF16 => Self::Bf16,
            _ => match ty.layout()?.block_len {
                256 => Self::Q8K,
                32 | 64 | 128 => Self::Q8_0,
                _ => return None,
            },
        })
    }

    /// Rounds `x` in place: rows of `cols` values, one after the other. A block without a finite maximum stays as it is.
    ///
    /// # Errors
    /// [`Error::Shape`] if a row is not whole blocks.
    pub fn round(self, x: &mut [f32], cols: usize) -> Result<()> {
        let block = match self {
            Self::F32 => return Ok(()),
            Self::F16 => {
                x.iter_mut().for_each(|v| *v = f16::from_f32(*v).to_f32());
                return Ok(());
            }
            Self::Bf16 => {
                x.iter_mut().for_each(|v| *v = bf16::from_f32(*v).to_f32());
                return Ok(());
            }
            Self::Q8_0 => 32,
            Self::Q8K => 256,
        };
        if !cols.is_multiple_of(block) {
            return Err(Error::Shape { what: "columns", expected: format!("whole blocks of {block}"), found: cols });
        }
        for block in x.chunks_exact_mut(block) {
            match self {
                Self::Q8K => round_q8_k(block),
                _ => round_q8_0(block),
            }
        }
        Ok(())
    }
}

/// As `quantize_row_q8_0` of ggml's x86 code does it (the reference in ggml-quants.c rounds ties away from zero).
fn round_q8_0(block: &mut [f32]) {
    let max = block.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    if !max.is_finite() {
        return;
    }
    let d = f16::from_f32(max / 127.0).to_f32();
    let to_code = if max == 0.0 { 0.0 } else { 127.0 / max };
    block.iter_mut().for_each(|v| *v = d * (*v * to_code).round_ties_even());
}

/// As `quantize_row_q8_K_ref` of ggml-quants.c.
fn round_q8_k(block: &mut [f32]) {
    let max = block.iter().fold(0.0f32, |m, &v| if v.abs() > m.abs() { v } else { m });
    if max == 0.0 || !max.is_finite() {
        return;
    }
    let to_code = -127.0 / max;
    let d = 1.0 / to_code;
    block.iter_mut().for_each(|v| *v = d * (*v * to_code).round_ties_even().min(127.0));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids() {
        let mut x: Vec<f32> = (0..256).map(|i| (i as f32 * 0.7).sin() * 3.0).collect();
        x[5] = -6.35;
        let original = x.clone();
        ActivationGrid::Q8K.round(&mut x, 256).unwrap();
        assert_eq!(x[5], original[5]);
        let step = 6.35 / 127.0;
        assert!(x.iter().zip(&original).all(|(a, b)| (a - b).abs() <= step * 0.501));
        // The codes are whole numbers of steps.
        assert!(x.iter().all(|v| (v / step - (v / step).round()).abs() < 1e-3));

        let mut x = original.clone();
        ActivationGrid::Q8_0.round(&mut x, 256).unwrap();
        for (a, b) in x.chunks(32).zip(original.chunks(32)) {
            let max = b.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= max / 127.0 * 0.51 + max * 5e-4));
        }
        let mut zeros = [0.0; 32];
        ActivationGrid::Q8_0.round(&mut zeros, 32).unwrap();
        assert_eq!(zeros, [0.0; 32]);
        assert!(ActivationGrid::Q8K.round(&mut [0.0; 32], 32).is_err());
    }

    #[test]
    fn of_types() {
        for (ty, grid) in [
            (GgmlType::F32, ActivationGrid::F32),
            (GgmlType::BF16, ActivationGrid::Bf16),
            (GgmlType::Q4_1, ActivationGrid::Q8_0),
            (GgmlType::NVFP4, ActivationGrid::Q8_0),
            (GgmlType::Q6_K, ActivationGrid::Q8K),
            (GgmlType::IQ1_M, ActivationGrid::Q8K),
        ] {
            assert_eq!(ActivationGrid::of(ty), Some(grid), "{ty}");
        }
        assert_eq!(ActivationGrid::of(GgmlType::I32), None);
    }
}
