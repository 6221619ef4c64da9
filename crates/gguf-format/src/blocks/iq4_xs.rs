//! IQ4_XS: 256 values in 8 sub-blocks of 32, 6-bit scales around 32, indices into the grid of IQ4_NL:
//! `x = d (sc - 32) VALUES[q]`.
//!
//! ```text
//! byte  0..2    d, binary16
//!       2..4    scales_h, little-endian: bits 2 j.. are the two high bits of scale j
//!       4..8    scales_l: byte j holds the low bits of scale 2 j in its low nibble, of scale 2 j + 1 in its high nibble
//!       8..136  qs: sub-block j has 16 bytes, packed as those of IQ4_NL
//! ```

use super::grid_search::grid_search;
use super::iq4_nl::{expand, index};
use super::lanes::{Lanes, each, sum_of_squares, transpose, zip};
use super::packing::{field, field_mut, scale, write_scale};
use super::q4_0::pack;
use super::rounding::nearest_int;
#[cfg(not(feature = "std"))]
use crate::float::SquareRoot as _;

pub(super) const LEN: usize = 256;
pub(super) const BYTES: usize = 2 + 2 + 4 + 128;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = scale::<0, BYTES>(block);
    let scales_h = u16::from_le_bytes(*field::<2, 2, BYTES>(block));
    let scales_l: &[u8; 4] = field::<4, 4, BYTES>(block);
    let qs: &[u8; 128] = field::<8, 128, BYTES>(block);
    for (j, (out, qs)) in out.as_chunks_mut::<32>().0.iter_mut().zip(qs.as_chunks::<16>().0).enumerate() {
        let low = i32::from(scales_l[j / 2] >> (4 * (j % 2)) & 15);
        let high = i32::from(scales_h >> (2 * j) & 3);
        expand(d * ((low | high << 4) - 32) as f32, qs, out);
    }
}

/// The search of IQ4_NL per sub-block, then the sub-blocks' scales to 6 bits (`quantize_row_iq4_nl_impl`).
#[inline(always)]
pub(super) fn quantize(x: &[f32; LEN], importance: Option<&[f32; LEN]>, block: &mut [u8; BYTES]) {
    let lanes: Lanes<8, 32> = transpose(x);
    let w = match importance {
        Some(importance) => {
            let sigma2 = sum_of_squares(x) * (2.0 / 256.0);
            zip(&lanes, &transpose(importance), |x, importance| importance * (sigma2 + x * x).sqrt())
        }
        None => zip(&lanes, &lanes, |x, _| x * x),
    };
    let scales = grid_search(&lanes, &w);
    let (mut amax, mut max) = (0.0, 0.0);
    for scale in scales {
        if scale.abs() > amax {
            (amax, max) = (scale.abs(), scale);
        }
    }
    let d = -max / 32.0;
    let inverse = if d != 0.0 { 1.0 / d } else { 0.0 };
    write_scale::<0, BYTES>(block, d);
    let (mut high, mut low) = (0u16, [0u8; 4]);
    // Here ggml chooses the codes for the scale before it is rounded to half precision.
    for (j, (x, qs)) in
        x.as_chunks::<32>().0.iter().zip(field_mut::<8, 128, BYTES>(block).as_chunks_mut().0).enumerate()
    {
        let l = nearest_int(inverse * scales[j]).clamp(-32, 31);
        let scale = d * l as f32;
        let inverse = if scale != 0.0 { 1.0 / scale } else { 0.0 };
        pack(&each(x, |x| index(inverse * x)), qs);
        let l = (l + 32) as u8;
        low[j / 2] |= (l & 15) << (4 * (j % 2));
        high |= u16::from(l >> 4) << (2 * j);
    }
    *field_mut::<2, 2, BYTES>(block) = high.to_le_bytes();
    *field_mut::<4, 4, BYTES>(block) = low;
}
