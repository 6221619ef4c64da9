//! Float to integer as the reference does it on x86-64, for every input.

/// Adding it to |v| < 2^22 leaves v's nearest integer (ties to even) in the low mantissa bits.
const MAGIC: f32 = 12_582_912.0;

/// `nearest_int` of ggml-quants.c: the nearest integer, ties to even, if |v| < 2^22.
///
/// Beyond that the mantissa wraps around, and NaN gives 0: meaningless numbers, but ggml writes them (a sub-block whose scale is
/// minute beside its neighbours' minimum gets there), so do we.
#[inline(always)]
pub(super) fn nearest_int(v: f32) -> i32 {
    ((v + MAGIC).to_bits() & 0x007f_ffff) as i32 - 0x0040_0000
}

/// The nearest integer as a float, ties to even, for |v| < 2^22.
#[inline(always)]
pub(super) fn round_small(v: f32) -> f32 {
    (v + MAGIC) - MAGIC
}

/// `v` within `low..=high`; NaN gives `low`. Two instructions, unlike [`f32::clamp`].
#[inline(always)]
pub(super) fn clamp(v: f32, low: f32, high: f32) -> f32 {
    let v = if v > low { v } else { low };
    if v < high { v } else { high }
}

/// C's conversion to `int` as x86 does it: toward zero; `i32::MIN` where the value does not fit or is NaN.
#[inline(always)]
pub(super) fn truncate(v: f32) -> i32 {
    if v.abs() < 2_147_483_648.0 { v as i32 } else { i32::MIN }
}

/// The nearest integer, ties away from zero, for |v| < 2^22 (`roundf`), then as [`truncate`].
#[inline(always)]
pub(super) fn round_half_away(v: f32) -> i32 {
    // The largest float below one half: a value a hair below a tie must not reach the next integer.
    const BELOW_HALF: f32 = 0.499_999_97;
    truncate(v + BELOW_HALF.copysign(v))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_and_their_neighbours() {
        for k in -400..=400 {
            let tie = k as f32 / 2.0;
            for v in [tie.next_down(), tie, tie.next_up()] {
                assert_eq!(nearest_int(v), v.round_ties_even() as i32, "{v}");
                assert_eq!(round_small(v), v.round_ties_even(), "{v}");
                assert_eq!(round_half_away(v), v.round() as i32, "{v}");
                assert_eq!(truncate(v), v as i32, "{v}");
            }
        }
    }

    #[test]
    fn out_of_range_as_x86() {
        for v in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 3e9, -3e9] {
            assert_eq!(truncate(v), i32::MIN);
        }
        assert_eq!(nearest_int(f32::NAN), 0);
        assert_eq!(nearest_int(f32::INFINITY), -0x0040_0000);
        assert_eq!(clamp(f32::NAN, 0.0, 15.0), 0.0);
    }
}
