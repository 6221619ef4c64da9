//! Few tokens, rounded: rows of packed weights meet rows of activations as integers, 64 columns at a time.
//!
//! The codes of a unit are made into bytes and multiplied with the activations, of 16 bits, four products to a lane; a lane belongs to one sub-block, and
//! its sum is multiplied with the product of both scales. Zero points are taken off the integers (`-128 · Σ x`, shifted), mins off the floats.

use crate::dispatch::IntegerOp;
use crate::lanes::Lanes;
use crate::prefetch::prefetch;
use crate::quants::Quants;
use crate::rounded::{RoundedRow, RoundedRows};
use std::marker::PhantomData;

/// `y[t * ldy + r] = w[r] . x[t]` for some rows and all tokens.
pub(crate) struct RoundedDot<'a, Q> {
    /// `rows` rows of `row_bytes` bytes, each of `cols` columns, a multiple of 32.
    pub(crate) w: *const u8,
    pub(crate) row_bytes: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) x: &'a RoundedRows,
    pub(crate) tokens: usize,
    pub(crate) y: *mut f32,
    pub(crate) ldy: usize,
    pub(crate) quants: PhantomData<Q>,
}

impl<Q: Quants> IntegerOp for RoundedDot<'_, Q> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self) {
        for r in 0..self.rows {
            for t in 0..self.tokens {
                // SAFETY: who makes this value owns what its fields describe; the instruction set is the caller's.
                unsafe { self.product::<S>(r, t) };
            }
        }
    }
}

impl<Q: Quants> RoundedDot<'_, Q> {
    /// A row with a token.
    ///
    /// # Safety
    /// The instruction set of S; a row and a token that are there.
    #[inline(always)]
    unsafe fn product<S: Lanes>(&self, r: usize, t: usize) {
        let x = self.x.row(t, Q::SUB);
        // SAFETY: whole units are within the row, half of one goes through a padded copy; `x` is padded to whole units.
        unsafe {
            let w = self.w.add(r * self.row_bytes);
            let mut acc = S::splat(0.0);
            let units = self.cols / Q::LEN;
            for u in 0..units {
                let w = w.add(u * Q::BYTES);
                prefetch(w, Q::BYTES);
                acc = unit::<S, Q>(w, u, x, acc);
            }
            if !self.cols.is_multiple_of(Q::LEN) {
                let copy = half_unit::<Q>(w.add(units * Q::BYTES));
                acc = unit::<S, Q>(copy.as_ptr(), units, x, acc);
            }
            *self.y.add(t * self.ldy + r) = S::sum(acc);
        }
    }
}

/// The last block of a row where a unit is two: with zeros for the other.
///
/// # Safety
/// Half a unit at `p`.
#[inline(always)]
pub(crate) unsafe fn half_unit<Q: Quants>(p: *const u8) -> [u8; 128] {
    let mut copy = [0; 128];
    // SAFETY: the caller's; units of two blocks have up to 72 bytes.
    unsafe { std::ptr::copy_nonoverlapping(p, copy.as_mut_ptr(), (Q::BYTES / 2).min(128)) };
    copy
}

/// `acc` plus the products of unit `u` of a row with a token.
///
/// # Safety
/// The instruction set of S; a unit at `w`; a token that has it.
#[inline(always)]
unsafe fn unit<S: Lanes, Q: Quants>(w: *const u8, u: usize, x: RoundedRow, mut acc: S::F) -> S::F {
    // SAFETY: the caller's.
    unsafe {
        let (scales, mins) = Q::scales::<S>(w);
        let first = u * (Q::LEN / Q::SUB);
        let factors = S::mul(scales, S::load(x.scales.add(first)));
        if Q::MINS {
            acc = S::fnma(mins, S::load(x.scaled_sums.add(first)), acc);
        }
        for j in 0..Q::LEN / 64 {
            let at = u * Q::LEN + 64 * j;
            let n = match Q::rest::<S>() {
                0 => S::splat_i(0),
                rest @ 1.. => S::shr_i(S::load_i(x.sums.add(at / 4)), 7 - rest.ilog2()),
                // -128.
                _ => S::sub_i(S::splat_i(0), S::load_i(x.sums.add(at / 4))),
            };
            let n = S::dot_16(n, Q::factor::<S>(Q::codes::<S>(w, j)), x.codes.add(2 * at));
            let factor = if Q::SUB == 16 { S::fours(factors, j) } else { S::eights(factors, j) };
            acc = S::fma(S::float(n), factor, acc);
        }
    }
    acc
}
