//! Packed modules as ggml blocks with the same codes.
//!
//! Where a group is whole blocks of 32 columns, a block takes the group's scale and codes:
//!
//! | codes less their zero points | type | block |
//! |---|---|---|
//! | in −8..=7 (symmetric, up to 4 bits) | `Q4_0` | `w = d (q − 8)`: exact |
//! | else, up to 4 bits | `Q4_1` | `w = d q + m`, `m = −scale · zero` rounded to binary16, ties to even: the only rounding |
//! | in −16..=15 (symmetric, 5 bits) | `Q5_0` | exact |
//! | else, 5 bits | `Q5_1` | as `Q4_1` |
//! | in −128..=127 (symmetric, or up to 7 bits) | `Q8_0` | `w = d q`: exact |
//!
//! Everything else (groups in the order of activations, groups that are no whole blocks, asymmetric 8 bits that need more than a byte) has no block
//! with these codes, and is converted by value.

use super::RowOrder;
use crate::checkpoint::ModuleMatrix;
use gguf_format::GgmlType;
use half::f16;
use quant_core::affine::AffineMatrix;
use quant_core::error_metrics::{ErrorAccumulator, ErrorMetrics};
use rayon::prelude::*;

/// Columns of a block.
const LEN: usize = 32;

/// The type whose blocks hold the matrix's codes.
///
/// # Errors
/// Why there is none.
pub(super) fn block_type(matrix: &AffineMatrix) -> Result<GgmlType, String> {
    let (columns, group) = (matrix.in_features(), matrix.group_size());
    if matrix.g_idx().is_some() {
        return Err("groups in the order of activations".to_owned());
    }
    if !columns.is_multiple_of(LEN) || (group < columns && !group.is_multiple_of(LEN)) {
        return Err(format!("{columns} columns in groups of {group}, no whole blocks of {LEN}"));
    }
    let bits = matrix.bits().get();
    let (least, most) = (0..matrix.out_features())
        .into_par_iter()
        .map(|row| {
            groups(matrix, row).fold((0i32, 0i32), |(least, most), (codes, _, zero)| {
                let (low, high) = codes.iter().fold((u8::MAX, 0), |(l, h), &c| (l.min(c), h.max(c)));
                (least.min(i32::from(low) - i32::from(zero)), most.max(i32::from(high) - i32::from(zero)))
            })
        })
        .reduce(|| (0, 0), |a, b| (a.0.min(b.0), a.1.max(b.1)));
    // A minimum that binary16 does not reach.
    let has_minimum =
        || matrix.scales().iter().zip(matrix.zeros()).all(|(&scale, &zero)| minimum(scale, zero).is_finite());
    Ok(match bits {
        _ if least >= -8 && most <= 7 => GgmlType::Q4_0,
        ..=4 if has_minimum() => GgmlType::Q4_1,
        _ if least >= -16 && most <= 15 => GgmlType::Q5_0,
        5 if has_minimum() => GgmlType::Q5_1,
        _ if least >= -128 && most <= 127 => GgmlType::Q8_0,
        _ => return Err("codes less their zero points that fit no byte".to_owned()),
    })
}

/// Codes, scale and zero point of each group of a row.
fn groups(matrix: &AffineMatrix, row: usize) -> impl Iterator<Item = (&[u8], f16, u16)> {
    let (columns, count) = (matrix.in_features(), matrix.groups());
    let codes = matrix.codes().get(row * columns..(row + 1) * columns).unwrap_or_default();
    let scales = matrix.scales().get(row * count..(row + 1) * count).unwrap_or_default();
    let zeros = matrix.zeros().get(row * count..(row + 1) * count).unwrap_or_default();
    codes.chunks(matrix.group_size()).zip(scales).zip(zeros).map(|((codes, scale), zero)| (codes, *scale, *zero))
}

fn minimum(scale: f16, zero: u16) -> f16 {
    f16::from_f32(-(scale.to_f32() * f32::from(zero)))
}

/// Bytes of a block.
fn block_bytes(ty: GgmlType) -> usize {
    match ty {
        GgmlType::Q4_0 => 2 + 16,
        GgmlType::Q4_1 => 2 + 2 + 16,
        GgmlType::Q5_0 => 2 + 4 + 16,
        GgmlType::Q5_1 => 2 + 2 + 4 + 16,
        _ => 2 + 32,
    }
}

/// The rows as blocks of `ty`, which [`block_type`] gave, in GGUF's order.
pub(super) fn to_blocks(matrix: &AffineMatrix, ty: GgmlType, order: RowOrder) -> Vec<u8> {
    let row_bytes = matrix.in_features() / LEN * block_bytes(ty);
    let mut bytes = vec![0u8; row_bytes * matrix.out_features()];
    bytes.par_chunks_exact_mut(row_bytes.max(1)).enumerate().for_each(|(row, bytes)| {
        let mut blocks = bytes.chunks_exact_mut(block_bytes(ty));
        for (codes, scale, zero) in groups(matrix, order.stored_row(row as u64) as usize) {
            for (codes, block) in codes.as_chunks::<LEN>().0.iter().zip(&mut blocks) {
                fill(block, ty, codes, scale, zero);
            }
        }
    });
    bytes
}

fn fill(block: &mut [u8], ty: GgmlType, codes: &[u8; LEN], scale: f16, zero: u16) {
    let mut put = |from: usize, bytes: &[u8]| {
        if let Some(part) = block.get_mut(from..from + bytes.len()) {
            part.copy_from_slice(bytes);
        }
    };
    // Codes around another middle than their own; where there is a minimum they stay.
    let moved = |middle: i32| codes.map(|c| (i32::from(c) - i32::from(zero) + middle) as u8);
    let nibbles = |codes: &[u8; LEN]| std::array::from_fn::<u8, 16, _>(|j| (codes[j] & 15) | codes[j + 16] << 4);
    let fifths = |codes: &[u8; LEN]| {
        codes.iter().enumerate().fold(0u32, |bits, (j, c)| bits | u32::from(c >> 4 & 1) << j).to_le_bytes()
    };
    put(0, &scale.to_le_bytes());
    match ty {
        GgmlType::Q4_0 => put(2, &nibbles(&moved(8))),
        GgmlType::Q4_1 => {
            put(2, &minimum(scale, zero).to_le_bytes());
            put(4, &nibbles(codes));
        }
        GgmlType::Q5_0 => {
            let codes = moved(16);
            put(2, &fifths(&codes));
            put(6, &nibbles(&codes));
        }
        GgmlType::Q5_1 => {
            put(2, &minimum(scale, zero).to_le_bytes());
            put(4, &fifths(codes));
            put(8, &nibbles(codes));
        }
        _ => put(2, &moved(0)),
    }
}

/// How far the blocks of `ty` are from the matrix: nothing, but for the minimum.
pub(super) fn rounding(matrix: &AffineMatrix, ty: GgmlType) -> ErrorMetrics {
    let columns = matrix.in_features();
    let has_minimum = matches!(ty, GgmlType::Q4_1 | GgmlType::Q5_1);
    let sums = (0..matrix.out_features()).into_par_iter().map(|row| {
        let mut sums = ErrorAccumulator::new();
        let (mut exact, mut rounded) = (Vec::with_capacity(columns), Vec::with_capacity(columns));
        for (codes, scale, zero) in groups(matrix, row) {
            let (d, m) = (scale.to_f32(), minimum(scale, zero).to_f32());
            exact.extend(codes.iter().map(|&c| d * (f32::from(c) - f32::from(zero))));
            if has_minimum {
                rounded.extend(codes.iter().map(|&c| d * f32::from(c) + m));
            }
        }
        // The lengths are equal by construction.
        let _ = sums.add(&exact, if has_minimum { &rounded } else { &exact });
        sums
    });
    // In order, so that the sum is the same for any number of threads.
    let rows: Vec<ErrorAccumulator> = sums.collect();
    let mut all = ErrorAccumulator::new();
    rows.iter().for_each(|row| all.merge(row));
    all.finish()
}

/// The values as F32, in GGUF's order.
pub(super) fn to_values(matrix: &ModuleMatrix, order: RowOrder) -> crate::Result<Vec<u8>> {
    let [rows, columns] = matrix.shape();
    let mut bytes = vec![0u8; rows * columns * 4];
    bytes.par_chunks_exact_mut(columns * 4).enumerate().try_for_each(|(row, bytes)| {
        let mut values = vec![0.0f32; columns];
        let stored = order.stored_row(row as u64) as usize;
        if stored < rows {
            matrix.dequantize_row_into(stored, &mut values)?;
        }
        for (bytes, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(values) {
            *bytes = value.to_le_bytes();
        }
        Ok::<(), crate::Error>(())
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gguf_format::blocks;
    use quant_core::affine::{AffineParts, Bits};

    fn matrix(bits: u8, group_size: usize, zeros: impl Fn(usize) -> u16, columns: usize) -> AffineMatrix {
        let bits = Bits::new(bits).unwrap();
        let groups = columns.div_ceil(group_size);
        AffineMatrix::from_parts(AffineParts {
            out_features: 4,
            in_features: columns,
            bits,
            group_size,
            codes: (0..4 * columns).map(|i| (i * 7 + i / 5) as u8 & bits.max_code()).collect(),
            scales: (0..4 * groups).map(|i| f16::from_f32(0.013 * (i + 1) as f32 - 0.05)).collect(),
            zeros: (0..4 * groups).map(zeros).collect(),
            g_idx: None,
        })
        .unwrap()
    }

    /// Every type: the values of its blocks, by ggml's own formulas, are the matrix's, in the rows that GGUF wants.
    #[test]
    fn blocks_hold_the_values() {
        let middle = |bits: u8| move |_: usize| 1u16 << (bits - 1);
        let cases = [
            (matrix(4, 32, middle(4), 64), GgmlType::Q4_0),
            (matrix(4, 128, middle(4), 64), GgmlType::Q4_0),
            (matrix(3, 64, middle(3), 64), GgmlType::Q4_0),
            (matrix(2, 32, middle(2), 64), GgmlType::Q4_0),
            (matrix(3, 32, |i| (i % 8) as u16, 64), GgmlType::Q4_0),
            (matrix(4, 32, |i| (i % 16) as u16, 64), GgmlType::Q4_1),
            (matrix(4, 32, |_| 16, 64), GgmlType::Q4_1),
            (matrix(5, 32, middle(5), 64), GgmlType::Q5_0),
            (matrix(5, 32, |i| (3 * i % 32) as u16, 64), GgmlType::Q5_1),
            (matrix(6, 32, middle(6), 64), GgmlType::Q8_0),
            (matrix(7, 32, |i| (31 * i % 128) as u16, 64), GgmlType::Q8_0),
            (matrix(8, 64, middle(8), 64), GgmlType::Q8_0),
        ];
        for (matrix, ty) in cases {
            let bits = matrix.bits();
            assert_eq!(block_type(&matrix), Ok(ty), "{bits} bits");
            let mut expected = vec![0.0; 256];
            matrix.dequantize_into(&mut expected).unwrap();
            let rounding = rounding(&matrix, ty);
            for order in [RowOrder::AsStored, RowOrder::Halves { head_dim: 4 }] {
                let bytes = to_blocks(&matrix, ty, order);
                assert_eq!(Some(bytes.len() as u64), ty.bytes_for(256), "{bits} bits");
                let mut values = vec![0.0; 256];
                blocks::dequantize(ty, &bytes, &mut values).unwrap();
                let exact = !matches!(ty, GgmlType::Q4_1 | GgmlType::Q5_1);
                let mut largest = 0.0f32;
                for (row, values) in values.chunks_exact(64).enumerate() {
                    let stored = order.stored_row(row as u64) as usize;
                    for (value, expected) in values.iter().zip(&expected[stored * 64..]) {
                        // A minimum of at most 16 scales of 0.06, rounded by 2^-12 of it.
                        assert!(
                            (value - expected).abs() <= if exact { 0.0 } else { 32.0 * 0.06 / 4096.0 },
                            "{bits} {ty}"
                        );
                        largest = largest.max((value - expected).abs());
                    }
                }
                assert!((rounding.max_abs - f64::from(largest)).abs() < 1e-6, "{} {largest}", rounding.max_abs);
                let mut raw = vec![0.0; 256];
                blocks::dequantize(GgmlType::F32, &to_values(&matrix.clone().into(), order).unwrap(), &mut raw)
                    .unwrap();
                let row = order.stored_row(1) as usize;
                assert_eq!(raw[64..128], expected[row * 64..][..64]);
            }
        }
    }

    #[test]
    fn what_no_block_holds() {
        let fails = |matrix: &AffineMatrix, words: &str| {
            let why = block_type(matrix).unwrap_err();
            assert!(why.contains(words), "{why}");
        };
        fails(&matrix(4, 16, |_| 8, 64), "groups of 16");
        fails(&matrix(4, 48, |_| 8, 96), "groups of 48");
        fails(&matrix(4, 80, |_| 8, 80), "80 columns");
        fails(&matrix(8, 32, |i| if i == 3 { 0 } else { 128 }, 64), "no byte");
        let parts = matrix(4, 32, |_| 8, 64).into_parts();
        let ordered = AffineParts { g_idx: Some((0..64).map(|i| i % 2).collect()), ..parts };
        fails(&AffineMatrix::from_parts(ordered).unwrap(), "order of activations");
        // A minimum beyond binary16: by the bytes instead.
        let mut parts = matrix(4, 32, |_| 15, 64).into_parts();
        parts.scales = vec![f16::from_f32(5000.0); 8];
        assert_eq!(block_type(&AffineMatrix::from_parts(parts).unwrap()), Ok(GgmlType::Q5_0));
    }
}
