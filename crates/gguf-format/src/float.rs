//! What `core` lacks of floating point where there is no `std`.

/// Square root, for the quantizers. The method of `std` takes precedence where it is.
pub(crate) trait SquareRoot {
    /// Rounded to nearest, as IEEE 754 defines it, so results are those of `std`.
    fn sqrt(self) -> Self;
}

impl SquareRoot for f32 {
    fn sqrt(self) -> f32 {
        if self.is_nan() || self == 0.0 || self == f32::INFINITY {
            return self;
        }
        if self < 0.0 {
            return f32::NAN;
        }
        // self = m 2^e, with 2^23 <= m < 2^25 and e odd.
        let bits = self.to_bits();
        let (mut m, mut e) = match bits >> 23 {
            0 => (bits, -149),
            exponent => (bits & 0x7f_ffff | 0x80_0000, exponent as i32 - 150),
        };
        let shift = m.leading_zeros() as i32 - 8;
        m <<= shift;
        e -= shift;
        if e & 1 == 0 {
            m <<= 1;
            e -= 1;
        }
        // The root of m 2^25 has 25 bits, one more than fit. It is odd only if inexact (its square would be odd), so half is never exact.
        let root = (u64::from(m) << 25).isqrt();
        let rounded = (root.div_ceil(2)) as u32;
        let exponent = (e - 25) / 2 + 1;
        // Rounding up to 2^24 carries into the exponent.
        f32::from_bits((((exponent + 150) as u32) << 23) + (rounded - 0x80_0000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_that_of_std() {
        let special = [0.0, -0.0, 1.0, 4.0, 2.0, f32::MAX, f32::MIN_POSITIVE, f32::from_bits(1), f32::INFINITY, 0.25];
        let many = (0..2_000_000u32).map(|i| f32::from_bits(i.wrapping_mul(2_147_483_629) >> 1));
        for v in special.into_iter().chain(many) {
            if !v.is_nan() {
                assert_eq!(SquareRoot::sqrt(v).to_bits(), f32::sqrt(v).to_bits(), "{v:e}");
            }
        }
        assert!(SquareRoot::sqrt(-1.0f32).is_nan() && SquareRoot::sqrt(f32::NAN).is_nan());
    }
}
