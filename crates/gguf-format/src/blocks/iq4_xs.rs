//! IQ4_XS: 256 values in 8 sub-blocks of 32, 6-bit scales around 32, indices into the grid of IQ4_NL:
//! `x = d (sc - 32) VALUES[q]`.
//!
//! ```text
//! byte  0..2    d, binary16
//!       2..4    scales_h, little-endian: bits 2 j.. are the two high bits of scale j
//!       4..8    scales_l: byte j holds the low bits of scale 2 j in its low nibble, of scale 2 j + 1 in its high nibble
//!       8..136  qs: sub-block j has 16 bytes, packed as those of IQ4_NL
//! ```

use super::iq4_nl::expand;
use super::packing::{field, scale};

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
