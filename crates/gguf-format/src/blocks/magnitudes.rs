//! Values as magnitudes and signs, for the types whose grids hold magnitudes.

use super::lanes::build;

/// 256 values without their signs.
pub(super) struct Magnitudes {
    /// Not negative, but for the values that got a sign they do not have ([`split_even`]).
    pub(super) values: [f32; 256],
    /// Bit `j` of byte `i` is set where value `8 i + j` is written as negative.
    pub(super) signs: [u8; 32],
}

/// Each value with its own sign.
#[inline(always)]
pub(super) fn split(x: &[f32; 256]) -> Magnitudes {
    let mut signs = [0; 32];
    for (signs, x) in signs.iter_mut().zip(x.as_chunks::<8>().0) {
        for (j, &x) in x.iter().enumerate() {
            *signs |= u8::from(x < 0.0) << j;
        }
    }
    Magnitudes { values: build(|i| if x[i] < 0.0 { -x[i] } else { x[i] }), signs }
}

/// An even number of negative signs in each eight: where it is odd, the value with the least `w x^2`, the first of equals, gets the
/// other sign.
#[inline(always)]
pub(super) fn split_even(x: &[f32; 256], w: &[f32; 256]) -> Magnitudes {
    let mut split = split(x);
    for (i, signs) in split.signs.iter_mut().enumerate() {
        if signs.count_ones() % 2 == 1 {
            let cost: [f32; 8] = build(|j| w[8 * i + j] * x[8 * i + j] * x[8 * i + j]);
            let mut least = 0;
            for j in 1..8 {
                least = if cost[j] < cost[least] { j } else { least };
            }
            *signs ^= 1 << least;
            split.values[8 * i + least] = -split.values[8 * i + least];
        }
    }
    split
}
