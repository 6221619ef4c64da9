//! Rows of values to codes. The rows are centred and rotated already, and padded with zeros to whole 16s.
//!
//! What is written depends on nothing but the row: the same operations in the same order whatever the instruction set, no product fused with a sum.

mod ggml;
mod int8;
mod kivi;
mod lloyd;

pub(crate) use ggml::{ggml_bytes, ggml_row_len};
pub(crate) use kivi::encode_channel;

use crate::codec::Codec;
use crate::layout::{Float8, Region, Storage};
use crate::simd::Simd;

/// Most channels of a head.
pub(crate) const MAX_CHANNELS: usize = 512;

/// Room for some rows' codes, scales and minima.
pub(crate) struct Scratch {
    codes: [u8; Self::VALUES],
    /// `[rows][groups]`.
    scales: [u16; Self::VALUES / 16],
    mins: [u16; Self::VALUES / 16],
}

impl Scratch {
    /// Values of the rows it takes.
    pub(crate) const VALUES: usize = 2048;

    pub(crate) fn new() -> Self {
        let scales = [0; Self::VALUES / 16];
        Self { codes: [0; Self::VALUES], scales, mins: scales }
    }

    /// How many rows of so many channels it takes.
    pub(crate) const fn rows(channels: usize) -> usize {
        Self::VALUES / channels
    }
}

/// Codes, scales and minima of some rows, for those storages that have them.
///
/// # Safety
/// The instruction set of S.
#[inline(always)]
pub(crate) unsafe fn encode_rows<S: Simd>(region: &Region, codec: Codec, rows: &[f32], scratch: &mut Scratch) {
    let Storage::Int(code) = region.storage else { return };
    let n = region.channels;
    match codec {
        // SAFETY: the caller's.
        Codec::Int8 => unsafe { int8::encode::<S>(rows, n, scratch) },
        // SAFETY: the caller's.
        Codec::Lloyd { bits: 2, .. } => unsafe { lloyd::encode::<S, 2>(&code, rows, n, scratch) },
        // SAFETY: the caller's.
        Codec::Lloyd { bits: 3, .. } => unsafe { lloyd::encode::<S, 3>(&code, rows, n, scratch) },
        // SAFETY: the caller's.
        Codec::Lloyd { .. } => unsafe { lloyd::encode::<S, 4>(&code, rows, n, scratch) },
        Codec::Ggml(_) | Codec::Kivi { .. } => {
            let groups = code.groups(n);
            for (i, row) in rows.chunks_exact(n).enumerate() {
                for (g, x) in row.chunks(code.group).enumerate() {
                    let codes = &mut scratch.codes[i * n + g * code.group..][..x.len()];
                    (scratch.scales[i * groups + g], scratch.mins[i * groups + g]) = match codec {
                        Codec::Ggml(ty) => ggml::encode(ty, x, codes),
                        Codec::Kivi { bits } => kivi::encode(bits, x.iter().copied(), codes),
                        _ => (0, 0),
                    };
                }
            }
        }
        // Their storage is not of this kind.
        Codec::F16 | Codec::F8E4M3 { .. } | Codec::F8E5M2 { .. } => {}
    }
}

/// Writes a token's row into a region: the row itself, or what [`encode_rows`] made of the scratch's row `at`. `float_scale` divides the values of 8-bit
/// floats. Gives how many of these were too large and became the largest. Not for KIVI's keys, which are written by the channel.
///
/// # Safety
/// The instruction set of S.
#[inline(always)]
pub(crate) unsafe fn put_row<S: Simd>(
    region: &Region,
    x: &[f32],
    float_scale: f32,
    scratch: &Scratch,
    at: usize,
    bytes: &mut [u8],
    token: usize,
) -> usize {
    match region.storage {
        Storage::Half => {
            let mut halves = [0u8; 32];
            for (i, x) in x.as_chunks::<16>().0.iter().enumerate() {
                // SAFETY: the caller's; 16 values, 32 bytes.
                unsafe { S::put_halves(S::load(x.as_ptr()), halves.as_mut_ptr()) };
                if region.is_key {
                    for (c, half) in halves.as_chunks::<2>().0.iter().enumerate() {
                        let at = 2 * region.element(token, 16 * i + c);
                        bytes[at..at + 2].copy_from_slice(half);
                    }
                } else {
                    bytes[2 * region.element(token, 16 * i)..][..32].copy_from_slice(&halves);
                }
            }
            0
        }
        Storage::Float8(format) => put_floats(region, format, x, float_scale, bytes, token),
        Storage::Int(code) => {
            let (n, groups) = (region.channels, code.groups(region.channels));
            // SAFETY: the caller's.
            unsafe { region.put_codes::<S>(code, bytes, token, &scratch.codes[at * n..][..n]) };
            for g in 0..groups {
                let to = region.scale_at(g, token);
                bytes[to..to + 2].copy_from_slice(&scratch.scales[at * groups + g].to_le_bytes());
                if code.min {
                    let to = to + region.mins - region.scales;
                    bytes[to..to + 2].copy_from_slice(&scratch.mins[at * groups + g].to_le_bytes());
                }
            }
            0
        }
        Storage::PerChannel { .. } => 0,
    }
}

#[inline(always)]
fn put_floats(region: &Region, format: Float8, x: &[f32], scale: f32, bytes: &mut [u8], token: usize) -> usize {
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    // Up to half a step above the largest number rounding, not clipping, gives it.
    let clips = match format {
        Float8::E4M3 => 464.0,
        Float8::E5M2 => 61440.0,
    };
    let mut clipped = 0;
    for (c, &v) in x.iter().enumerate() {
        let v = v * inverse;
        clipped += usize::from(v.abs() > clips);
        bytes[region.element(token, c)] = format.encode(v);
    }
    clipped
}

/// The largest magnitude; NaN if there is one.
#[inline(always)]
pub(crate) fn largest(x: &[f32]) -> f32 {
    // Magnitudes are in the order of their bits, NaN above all.
    f32::from_bits(x.iter().fold(0, |most, v| most.max(v.to_bits() & 0x7fff_ffff)))
}

/// The larger of `most` and the magnitudes of whole 16s of finite values, by lanes.
///
/// # Safety
/// The instruction set of S.
#[inline(always)]
unsafe fn most_of<S: Simd>(mut most: S::F, x: &[f32]) -> S::F {
    // SAFETY: the caller's; 16 values each.
    unsafe {
        for x in x.as_chunks::<16>().0 {
            most = S::max(S::abs(S::load(x.as_ptr())), most);
        }
        most
    }
}
