//! Conversion between f32, IEEE binary16 and bfloat16 by integer arithmetic: exact, branch-free, so that loops over it vectorize.

/// The value of binary16 bits. Exact; infinities and NaN keep their kind and payload.
#[inline(always)]
pub(super) fn f16_to_f32(bits: u16) -> f32 {
    let magnitude = u32::from(bits & 0x7fff);
    // Exponent and mantissa move to their fields; the exponent is then 112 too small, where it was all ones 224.
    let lift = if magnitude >= 0x7c00 { 224 << 23 } else { 112 << 23 };
    let normal = (magnitude << 13) + lift;
    // Subnormal: units of 2^-24, as the last mantissa bit of 0.5 is. Never a subnormal f32, which processors are slow with.
    let subnormal = (f32::from_bits(0x3f00_0000 | magnitude) - 0.5).to_bits();
    let value = if magnitude < 0x400 { subnormal } else { normal };
    f32::from_bits(value | u32::from(bits & 0x8000) << 16)
}

/// The binary16 nearest to `value`, ties to even; overflow gives an infinity.
#[inline(always)]
pub(super) fn f32_to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    let nonsign = if magnitude >= 0x4780_0000 {
        // 65536 and above: infinity, or a quiet NaN
        if magnitude > 0x7f80_0000 { 0x7e00 } else { 0x7c00 }
    } else if magnitude < 0x3880_0000 {
        // Below 2^-14 the result is subnormal. Adding 0.5 moves the unit of 2^-24 to the last mantissa bit and rounds there.
        let aligned = f32::from_bits(magnitude) + 0.5;
        aligned.to_bits() - 0x3f00_0000
    } else {
        // Drop 13 mantissa bits: half a unit less one, plus the last bit kept, is ties to even; a carry may reach the exponent.
        let odd = (magnitude >> 13) & 1;
        (magnitude - (112 << 23) + 0xfff + odd) >> 13
    };
    sign | nonsign as u16
}

/// The value of bfloat16 bits. Exact.
#[inline(always)]
pub(super) fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The bfloat16 nearest to `value`, ties to even; NaN becomes quiet.
#[inline(always)]
pub(super) fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if bits & 0x7fff_ffff > 0x7f80_0000 {
        return (bits >> 16) as u16 | 64;
    }
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_has_the_value_that_the_half_crate_gives() {
        for bits in 0..=u16::MAX {
            let expected = half::f16::from_bits(bits).to_f32();
            let found = f16_to_f32(bits);
            if expected.is_nan() {
                assert!(found.is_nan());
            } else {
                assert_eq!(found.to_bits(), expected.to_bits(), "{bits:#06x}");
                assert_eq!(f32_to_f16(expected), bits);
            }
        }
    }

    #[test]
    fn rounding_agrees_with_the_half_crate_around_every_half() {
        for bits in 0..=u16::MAX {
            let wide = f16_to_f32(bits).to_bits();
            // the neighbours of the value itself, and of the midpoint to the next half
            for center in [wide, wide.wrapping_add(1 << 12)] {
                for delta in [-1i32, 0, 1] {
                    let value = f32::from_bits(center.wrapping_add_signed(delta));
                    if value.is_nan() {
                        continue;
                    }
                    assert_eq!(f32_to_f16(value), half::f16::from_f32(value).to_bits(), "{value:e}");
                    assert_eq!(f32_to_bf16(value), half::bf16::from_f32(value).to_bits(), "{value:e}");
                }
            }
        }
    }
}
