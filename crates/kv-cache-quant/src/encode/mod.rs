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
use crate::layout::{Float8, IntCode, Region, Storage};
use crate::simd::Simd;

/// Most channels of a head.
pub(crate) const MAX_CHANNELS: usize = 512;
/// Most groups of a row: of 32 channels.
const MAX_GROUPS: usize = MAX_CHANNELS / 32;

/// A row's codes, scales and minima, in half precision's bits.
pub(crate) struct Row {
    pub(crate) codes: [u8; MAX_CHANNELS],
    pub(crate) scales: [u16; MAX_GROUPS],
    pub(crate) mins: [u16; MAX_GROUPS],
}

impl Row {
    pub(crate) fn new() -> Self {
        Self { codes: [0; MAX_CHANNELS], scales: [0; MAX_GROUPS], mins: [0; MAX_GROUPS] }
    }
}

/// Writes a token's row into a region. `float_scale` divides the values of 8-bit floats. Gives how many of these were too large and became the
/// largest. Not for KIVI's keys, which are written by the channel.
///
/// # Safety
/// The instruction set of S.
#[inline(always)]
pub(crate) unsafe fn put_row<S: Simd>(
    region: &Region,
    codec: Codec,
    x: &[f32],
    float_scale: f32,
    row: &mut Row,
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
            // SAFETY: the caller's.
            unsafe { encode::<S>(codec, code, x, row) };
            region.put_codes(code, bytes, token, &row.codes[..x.len()]);
            for g in 0..code.groups(x.len()) {
                let at = region.scale_at(g, token);
                bytes[at..at + 2].copy_from_slice(&row.scales[g].to_le_bytes());
                if code.min {
                    let at = at + region.mins - region.scales;
                    bytes[at..at + 2].copy_from_slice(&row.mins[g].to_le_bytes());
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

/// A row's codes, scales and minima.
///
/// # Safety
/// The instruction set of S.
#[inline(always)]
unsafe fn encode<S: Simd>(codec: Codec, code: IntCode, x: &[f32], row: &mut Row) {
    // A loop, not an iterator's method: only what is inlined is compiled for the caller's instruction set.
    for (g, x) in x.chunks(code.group).enumerate() {
        let codes = &mut row.codes[g * code.group..][..x.len()];
        (row.scales[g], row.mins[g]) = match codec {
            // SAFETY: the caller's; a group is whole 16s.
            Codec::Int8 => (unsafe { int8::encode::<S>(x, codes) }, 0),
            // SAFETY: as above.
            Codec::Lloyd { bits: 2, .. } => (unsafe { lloyd::encode::<S, 2, 5>(x, codes) }, 0),
            // SAFETY: as above.
            Codec::Lloyd { bits: 3, .. } => (unsafe { lloyd::encode::<S, 3, 5>(x, codes) }, 0),
            // SAFETY: as above.
            Codec::Lloyd { .. } => (unsafe { lloyd::encode::<S, 4, 4>(x, codes) }, 0),
            Codec::Ggml(ty) => ggml::encode(ty, x, codes),
            Codec::Kivi { bits } => kivi::encode(bits, x.iter().copied(), codes),
            // Their storage is not of this kind.
            Codec::F16 | Codec::F8E4M3 { .. } | Codec::F8E5M2 { .. } => (0, 0),
        };
    }
}

/// The largest magnitude; NaN if there is one.
#[inline(always)]
pub(crate) fn largest(x: &[f32]) -> f32 {
    // Magnitudes are in the order of their bits, NaN above all.
    let mut lanes = [0u32; 16];
    for v in x.as_chunks::<16>().0 {
        for i in 0..16 {
            lanes[i] = lanes[i].max(v[i].to_bits() & 0x7fff_ffff);
        }
    }
    f32::from_bits(lanes.into_iter().fold(0, u32::max))
}

/// The largest magnitude of finite values.
///
/// # Safety
/// The instruction set of S.
#[inline(always)]
unsafe fn largest_finite<S: Simd>(x: &[f32]) -> f32 {
    // SAFETY: the caller's; 16 values each.
    unsafe {
        let mut most = S::splat(0.0);
        for x in x.as_chunks::<16>().0 {
            most = S::max(S::abs(S::load(x.as_ptr())), most);
        }
        S::largest(most)
    }
}

/// As [`largest`]; NaN also if there is an infinity.
///
/// # Safety
/// The instruction set of S.
#[inline(always)]
pub(crate) unsafe fn largest_of<S: Simd>(x: &[f32]) -> f32 {
    // SAFETY: the caller's; 16 values each.
    unsafe {
        let (mut most, mut zero) = (S::splat(0.0), S::splat(0.0));
        for x in x.as_chunks::<16>().0 {
            let x = S::load(x.as_ptr());
            most = S::max(S::abs(x), most);
            zero = S::add(zero, S::mul(x, S::splat(0.0)));
        }
        if S::sum(zero) == 0.0 { S::largest(most) } else { f32::NAN }
    }
}

/// The sums of the lanes of up to 8 vectors each of `a` and `b`, eight of `a` and eight of `b`: by halves, in the same order everywhere, all at once.
///
/// # Safety
/// The instruction set of S.
#[inline(always)]
unsafe fn totals<S: Simd, const COUNT: usize>(a: &[S::F; COUNT], b: &[S::F; COUNT]) -> [f32; 16] {
    let mut lanes = [0.0f32; 16];
    // SAFETY: the caller's; 16 values.
    unsafe { S::store(lanes.as_mut_ptr(), S::fold::<1>(halved::<S, COUNT>(a), halved::<S, COUNT>(b))) };
    lanes
}

/// Two lanes for each of up to 8 vectors, which are to be added. In the place of a vector that is not there is another.
///
/// # Safety
/// The instruction set of S.
#[inline(always)]
unsafe fn halved<S: Simd, const COUNT: usize>(x: &[S::F; COUNT]) -> S::F {
    let mut eighths = [x[0]; 4];
    // SAFETY: the caller's.
    unsafe {
        for i in 0..COUNT.div_ceil(2) {
            eighths[i] = S::fold::<8>(x[2 * i], x[if 2 * i + 1 < COUNT { 2 * i + 1 } else { 2 * i }]);
        }
        let low = S::fold::<4>(eighths[0], eighths[1]);
        let high = if COUNT > 4 { S::fold::<4>(eighths[2], eighths[3]) } else { low };
        S::fold::<2>(low, high)
    }
}
