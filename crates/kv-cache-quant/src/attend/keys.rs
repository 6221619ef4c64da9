//! Logits of a block: rows of queries times keys.

use super::queries::Queries;
use crate::grids::GRID_BITS;
use crate::layout::{Float8, IntCode, KIVI_TOKENS, Region};
use crate::simd::Simd;

/// Tokens of a row of logits and weights.
pub(crate) const STRIDE: usize = 64;

/// Four quads of codes from quad `at` on (`at % 8 == OFFSET`), before they are looked up. `low` and `high` are the planes of an outer index.
///
/// # Safety
/// The instruction set of S; the quads are in the planes.
#[inline(always)]
pub(crate) unsafe fn four<S: Simd, const BITS: usize, const OFFSET: usize>(
    low: *const u8,
    high: *const u8,
    at: usize,
) -> [S::C; 4] {
    // SAFETY: the caller's.
    unsafe {
        let mut codes = match BITS {
            8 => {
                let p = low.add(at * 64);
                [S::codes(p), S::codes(p.add(64)), S::codes(p.add(128)), S::codes(p.add(192))]
            }
            4 | 5 => {
                let (a, b) = (S::codes(low.add(at * 32)), S::codes(low.add(at * 32 + 64)));
                [S::field(a, 0, 4, 0), S::field(a, 4, 4, 0), S::field(b, 0, 4, 0), S::field(b, 4, 4, 0)]
            }
            _ => {
                let a = S::codes(low.add(at * 16));
                [S::field(a, 0, 2, 0), S::field(a, 2, 2, 0), S::field(a, 4, 2, 0), S::field(a, 6, 2, 0)]
            }
        };
        if matches!(BITS, 3 | 5) {
            let a = S::codes(high.add(at / 8 * 64));
            for (j, code) in codes.iter_mut().enumerate() {
                *code = S::or(*code, S::field(a, (OFFSET + j) as u32, 1, BITS as u32 - 1));
            }
        }
        codes
    }
}

/// What is needed after this: the same region of the next block, fetched piece by piece meanwhile. A region is too short, and the next too far away,
/// for the processor to see by itself.
#[derive(Clone, Copy)]
pub(crate) struct Next {
    p: *const u8,
    lines: usize,
    /// Lines of a piece.
    piece: usize,
}

impl Next {
    pub(crate) fn new(bytes: Option<&[u8]>) -> Self {
        bytes.map_or(Self { p: std::ptr::null(), lines: 0, piece: 0 }, |bytes| Self {
            p: bytes.as_ptr(),
            lines: bytes.len() / 64,
            piece: 0,
        })
    }

    /// In this many pieces.
    #[inline(always)]
    pub(crate) fn cut(self, pieces: usize) -> Self {
        Self { piece: (self.lines as u32).div_ceil((pieces as u32).max(1)) as usize, ..self }
    }

    /// Asks for the next piece.
    ///
    /// # Safety
    /// The instruction set of S.
    #[inline(always)]
    pub(crate) unsafe fn fetch<S: Simd>(&mut self) {
        let count = self.piece.min(self.lines);
        for _ in 0..count {
            // SAFETY: the caller's; an address is not read by asking for it.
            unsafe { S::prefetch(self.p) };
            self.p = self.p.wrapping_add(64);
        }
        self.lines -= count;
    }
}

/// Logits of the first `16 tiles` tokens, `[R][STRIDE]`, without what the centre adds.
///
/// # Safety
/// The instruction set of S; `bytes` is such a region; `q` has R rows; `logits` has room.
#[inline(always)]
pub(crate) unsafe fn int_keys<S: Simd, const R: usize, const BITS: usize, const GRIDS: bool>(
    region: &Region,
    code: &IntCode,
    bytes: &[u8],
    tiles: usize,
    q: &Queries,
    next: Next,
    logits: *mut f32,
) {
    let quads = region.channels / 4;
    let groups = code.groups(region.channels);
    let (low_stride, high_stride) = region.strides(*code);
    // SAFETY: the caller's.
    unsafe {
        let table = S::table(code.table.map(|n| n ^ S::OFF as u8).as_ptr());
        let p = bytes.as_ptr();
        let part = code.part() / 4;
        let mut next = next.cut(tiles * groups);
        for tile in 0..tiles {
            let (low, high) = (p.add(tile * low_stride), p.add(region.high + tile * high_stride));
            let mut out = [S::splat(0.0); R];
            for g in 0..groups {
                next.fetch::<S>();
                let scales = p.add(region.scale_at(g, 16 * tile));
                let scale = if GRIDS { S::paired(scales) } else { [S::halves(scales); 2] };
                for (half, &scale) in scale.iter().enumerate().take(if GRIDS { 2 } else { 1 }) {
                    let unit = if GRIDS { 2 * g + half } else { g };
                    let (mut at, end) = (unit * part, ((unit + 1) * part).min(quads));
                    if at >= end {
                        break;
                    }
                    let grid = if half == 0 {
                        S::grids::<{ GRID_BITS[0] }>(scales)
                    } else {
                        S::grids::<{ GRID_BITS[1] }>(scales)
                    };
                    let sums_of = |r: usize| *q.sums.get_unchecked(r * q.parts + unit);
                    let mut sums: [S::A; R] = std::array::from_fn(|r| S::sums(sums_of(r).wrapping_mul(S::OFF - 128)));
                    macro_rules! add_four {
                        ($offset:expr) => {
                            let codes = four::<S, BITS, $offset>(low, high, at);
                            for (j, mut c) in codes.into_iter().enumerate() {
                                if GRIDS {
                                    c = S::or(c, grid);
                                }
                                // A table has its numbers centered.
                                c = if BITS == 8 { S::centered(c) } else { S::lookup(table, c) };
                                for (r, sum) in sums.iter_mut().enumerate() {
                                    *sum = S::dot(*sum, c, q.factors.as_ptr().add(r * quads + at + j));
                                }
                            }
                            at += 4;
                        };
                    }
                    // Only the plane of highest bits depends on where in eight quads this is.
                    if matches!(BITS, 3 | 5) && at % 8 != 0 {
                        add_four!(4);
                    }
                    while at < end {
                        add_four!(0);
                        if at < end {
                            add_four!(4);
                        }
                    }
                    for r in 0..R {
                        out[r] = S::fma(S::totals(sums[r]), scale, out[r]);
                    }
                    if code.min {
                        let min = S::halves(scales.add(region.mins - region.scales));
                        let min = S::fma(scale, S::splat(code.middle() as f32), min);
                        for (r, out) in out.iter_mut().enumerate() {
                            *out = S::fma(min, S::splat(sums_of(r) as f32), *out);
                        }
                    }
                }
            }
            for (r, out) in out.iter().enumerate() {
                S::store(logits.add(r * STRIDE + 16 * tile), S::mul(*out, S::splat(q.unit[r] * code.unit())));
            }
        }
    }
}

/// How a channel of 16 tokens, or 16 channels of a token, are read as f32.
pub(crate) trait Floats {
    /// Bytes of 16.
    const BYTES: usize;
    /// What all are to be multiplied by.
    const FACTOR: f32;
    /// 16 numbers.
    ///
    /// # Safety
    /// The instruction set of S, `BYTES` bytes.
    unsafe fn read<S: Simd>(p: *const u8) -> S::F;
}

/// Half precision.
pub(crate) struct Half;
/// 8-bit floats.
pub(crate) struct E4M3;
/// 8-bit floats.
pub(crate) struct E5M2;

impl Floats for Half {
    const BYTES: usize = 32;
    const FACTOR: f32 = 1.0;
    #[inline(always)]
    unsafe fn read<S: Simd>(p: *const u8) -> S::F {
        // SAFETY: the caller's.
        unsafe { S::halves(p) }
    }
}

impl Floats for E4M3 {
    const BYTES: usize = 16;
    const FACTOR: f32 = Float8::E4M3.half_factor();
    #[inline(always)]
    unsafe fn read<S: Simd>(p: *const u8) -> S::F {
        // SAFETY: the caller's.
        unsafe { S::floats8(Float8::E4M3, p) }
    }
}

impl Floats for E5M2 {
    const BYTES: usize = 16;
    const FACTOR: f32 = Float8::E5M2.half_factor();
    #[inline(always)]
    unsafe fn read<S: Simd>(p: *const u8) -> S::F {
        // SAFETY: the caller's.
        unsafe { S::floats8(Float8::E5M2, p) }
    }
}

/// As [`int_keys`], for floats.
///
/// # Safety
/// As for [`int_keys`].
#[inline(always)]
pub(crate) unsafe fn float_keys<S: Simd, const R: usize, F: Floats>(
    region: &Region,
    bytes: &[u8],
    tiles: usize,
    q: &Queries,
    next: Next,
    logits: *mut f32,
) {
    let n = region.channels;
    let factor = F::FACTOR * region.stored_scale(bytes);
    let mut next = next.cut(tiles);
    // SAFETY: the caller's.
    unsafe {
        for tile in 0..tiles {
            let p = bytes.as_ptr().add(tile * n * F::BYTES);
            next.fetch::<S>();
            // Two sums, so that an addition need not wait for the one before.
            let mut out = [[S::splat(0.0); R]; 2];
            for c in (0..n).step_by(2) {
                for (half, out) in out.iter_mut().enumerate() {
                    let x = F::read::<S>(p.add((c + half) * F::BYTES));
                    for (r, out) in out.iter_mut().enumerate() {
                        *out = S::fma(x, S::splat(*q.whole.get_unchecked(r * n + c + half)), *out);
                    }
                }
            }
            let [even, odd] = out;
            for (r, (even, odd)) in even.into_iter().zip(odd).enumerate() {
                S::store(logits.add(r * STRIDE + 16 * tile), S::mul(S::add(even, odd), S::splat(factor)));
            }
        }
    }
}

/// As [`int_keys`], for KIVI's keys.
///
/// # Safety
/// As for [`int_keys`].
#[inline(always)]
pub(crate) unsafe fn channel_keys<S: Simd, const R: usize>(
    region: &Region,
    bits: u8,
    bytes: &[u8],
    tiles: usize,
    q: &Queries,
    next: Next,
    logits: *mut f32,
) {
    let (n, bits, per) = (region.channels, u32::from(bits), usize::from(8 / bits));
    let half = |at: usize| half::f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32();
    // SAFETY: the caller's.
    unsafe {
        let mut steps = Vec::new();
        let mut next = next.cut(tiles);
        for tile in 0..tiles {
            if 16 * tile % KIVI_TOKENS == 0 {
                steps.clear();
                steps.extend((0..n).map(|c| {
                    let at = region.step_at(16 * tile, c);
                    (half(at), half(at + region.mins - region.scales))
                }));
            }
            let p = bytes.as_ptr().add(tile * (n / per) * 16);
            next.fetch::<S>();
            let mut out = [S::splat(0.0); R];
            for (c, &(step, min)) in steps.iter().enumerate() {
                let code = S::small(p.add(c / per * 16), (c % per) as u32 * bits, bits);
                let x = S::fma(code, S::splat(step), S::splat(min));
                for (r, out) in out.iter_mut().enumerate() {
                    *out = S::fma(x, S::splat(*q.whole.get_unchecked(r * n + c)), *out);
                }
            }
            for (r, out) in out.iter().enumerate() {
                S::store(logits.add(r * STRIDE + 16 * tile), *out);
            }
        }
    }
}
