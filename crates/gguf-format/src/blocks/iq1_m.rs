//! IQ1_M: 256 values in 32 points of eight values -1, 0, 1 out of the grid of IQ1_S, each with a shift of its own:
//! `x = d (2 sc + 1) (point +- 1/8)`.
//!
//! ```text
//! byte  0..32  qs: the low 8 bits of the indices
//!      32..48  qh: the nibble of point i, low ones first: |shift is negative|high bits 3|
//!      48..56  scales, four little-endian words: |d, 4 bits|scale 3|2|1|0|, 3 bits for two points;
//!              d is binary16, its lowest bits in the first word
//! ```

use super::f16::f16_to_f32;
use super::iq1_grid::IQ1;
use super::iq1_s::shifted;
use super::packing::field;

pub(super) const LEN: usize = 256;
pub(super) const BYTES: usize = 32 + 16 + 8;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let qs: &[u8; 32] = field::<0, 32, BYTES>(block);
    let qh: &[u8; 16] = field::<32, 16, BYTES>(block);
    let scales = u64::from_le_bytes(*field::<48, 8, BYTES>(block));
    let words: [u16; 4] = core::array::from_fn(|i| (scales >> (16 * i)) as u16);
    let d = f16_to_f32(words[0] >> 12 | words[1] >> 12 << 4 | words[2] >> 12 << 8 | words[3] >> 12 << 12);
    for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let high = qh[i / 2] >> (4 * (i % 2));
        let index = usize::from(qs[i]) | usize::from(high & 7) << 8;
        let dl = d * f32::from(2 * (words[i / 8] >> (3 * (i / 2 % 4)) & 7) + 1);
        shifted(dl, &IQ1[index], high & 8 != 0, out);
    }
}
