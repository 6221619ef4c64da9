//! Scale and points of a sub-block, for IQ1_S and IQ1_M: `x = scale (t + shift)` with `t` of -1, 0, 1 and `shift` of 1/8 or -1/8.
//!
//! With the values in ascending order, every choice of `t` that can be the best is a pair of cuts: -1 up to the first, 0 up to the
//! second, 1 behind it. All pairs are tried with both shifts, from sums over the values before each place; the one whose least
//! squares scale explains most of the weighted square sum stays, the first of equals. Points that are not in the grid are then
//! replaced by the cheapest of their neighbours (`quantize_row_iq1_s_impl` and `quantize_row_iq1_m_impl` in ggml-quants.c).

use super::iq1_s::SHIFT;
use super::lanes::build;
use super::lattice::{Lattice, Place, cheapest};

/// What the digits 0, 1, 2 stand for with the shift up, and with the shift down.
pub(super) const UP: [f32; 3] = [-1.0 + SHIFT, SHIFT, 1.0 + SHIFT];
pub(super) const DOWN: [f32; 3] = [-1.0 - SHIFT, -SHIFT, 1.0 - SHIFT];

/// The levels of a shift.
#[inline(always)]
pub(super) fn levels(down: bool) -> &'static [f32; 3] {
    if down { &DOWN } else { &UP }
}

/// The best cuts so far.
pub(super) struct Cuts {
    pub(super) first: usize,
    pub(super) second: usize,
    /// Which of the shifts, or pairs of shifts, counted from zero.
    pub(super) shift: usize,
    pub(super) scale: f32,
    score: f32,
}

impl Cuts {
    /// None yet; a scale that nobody reads.
    #[inline(always)]
    pub(super) fn none() -> Self {
        Self { first: usize::MAX, second: 0, shift: 0, scale: 0.0, score: -f32::MAX }
    }

    #[inline(always)]
    pub(super) fn found(&self) -> bool {
        self.first != usize::MAX
    }

    /// Takes in eight second cuts `second..` with `SHIFTS` shifts each, of which the first `valid` cuts count: `sum(w x q)` and
    /// `sum(w q q)`.
    #[inline(always)]
    pub(super) fn offer<const SHIFTS: usize>(
        &mut self,
        first: usize,
        second: usize,
        valid: usize,
        sum_qx: &[[f32; 8]; SHIFTS],
        sum_q2: &[[f32; 8]; SHIFTS],
    ) {
        // The score only grows: what does not beat it now never will, and that is nearly all.
        let mut better = [0u32; 8];
        for k in 0..SHIFTS {
            for j in 0..8 {
                better[j] |= u32::from(self.beaten(sum_qx[k][j], sum_q2[k][j])) << k;
            }
        }
        let mut any = 0;
        for better in better {
            any |= better;
        }
        if any == 0 {
            return;
        }
        for j in 0..valid.min(8) {
            for k in 0..SHIFTS {
                let (sum_qx, sum_q2) = (sum_qx[k][j], sum_q2[k][j]);
                if better[j] >> k & 1 == 1 && self.beaten(sum_qx, sum_q2) {
                    let scale = sum_qx / sum_q2;
                    *self = Self { first, second: second + j, shift: k, scale, score: scale * sum_qx };
                }
            }
        }
    }

    #[inline(always)]
    fn beaten(&self, sum_qx: f32, sum_q2: f32) -> bool {
        (sum_q2 > 0.0) & (sum_qx * sum_qx > self.score * sum_q2)
    }

    /// The digit of each value, whose ascending order is `order`.
    #[inline(always)]
    pub(super) fn digits<const N: usize>(&self, order: &[u8; N]) -> [u8; N] {
        let mut digits = [0; N];
        for (place, &i) in order.iter().enumerate() {
            digits[usize::from(i)] = u8::from(place >= self.first) + u8::from(place >= self.second);
        }
        digits
    }
}

/// The indices of the values in ascending order, equal values in theirs.
#[inline(always)]
pub(super) fn ascending<const N: usize>(x: &[f32; N]) -> [u8; N] {
    // The sum makes -0 to 0: they are equal. Then the sign is flipped, of negative values all bits, for integers of the same order.
    let mut keys: [u64; N] = build(|i| {
        let bits = (x[i] + 0.0).to_bits();
        let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
        u64::from(ordered) << 8 | i as u64
    });
    keys.sort_unstable();
    build(|i| keys[i] as u8)
}

/// The largest magnitude.
#[inline(always)]
pub(super) fn largest(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |max, x| if x.abs() > max { x.abs() } else { max })
}

/// The codes of the points of a sub-block with these digits, all in the grid, and the scale for them.
#[inline(always)]
pub(super) fn choose_points<const N: usize, const POINTS: usize>(
    lattice: &Lattice,
    x: &[f32; N],
    w: &[f32; N],
    digits: &[u8; N],
    mut scale: f32,
    levels: &[&[f32; 3]; POINTS],
) -> (f32, [u32; POINTS]) {
    let (x, w) = (x.as_chunks::<8>().0, w.as_chunks::<8>().0);
    let mut codes = [0; POINTS];
    let mut all_in = true;
    for (k, digits) in digits.as_chunks::<8>().0.iter().enumerate() {
        let code = (0..8).fold(0, |code, i| code | u32::from(digits[i]) << (2 * i));
        codes[k] = match lattice.find(code) {
            Place::In => code,
            Place::Near(near) => {
                all_in = false;
                let off = |q, i: usize| scale * q - x[k][i];
                let cost = |q| build(|i| w[k][i] * off(q, i) * off(q, i));
                cheapest(near, &[cost(levels[k][0]), cost(levels[k][1]), cost(levels[k][2])])
            }
        };
    }
    if !all_in {
        let (mut sum_qx, mut sum_q2) = (0.0, 0.0);
        for k in 0..POINTS {
            add_sums(&x[k], &w[k], codes[k], 1.0, levels[k], &mut sum_qx, &mut sum_q2);
        }
        if sum_qx > 0.0 && sum_q2 > 0.0 {
            scale = sum_qx / sum_q2;
        }
    }
    (scale, codes)
}

/// Adds `w x q` and `w q q` of a point whose levels are taken `times`.
#[inline(always)]
pub(super) fn add_sums(
    x: &[f32; 8],
    w: &[f32; 8],
    code: u32,
    times: f32,
    levels: &[f32; 3],
    sum_qx: &mut f32,
    sum_q2: &mut f32,
) {
    for i in 0..8 {
        let q = levels[(code >> (2 * i) & 3) as usize % 3] * times;
        *sum_qx += w[i] * q * x[i];
        *sum_q2 += w[i] * q * q;
    }
}
