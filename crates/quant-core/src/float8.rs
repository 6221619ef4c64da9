//! 8-bit floats: E4M3 (FN: no infinity, largest 448) and E5M2 (largest finite 57344).
//!
//! Formats: "FP8 formats for deep learning", arXiv 2209.05433, table 1. Rounding is to nearest, ties to even; what lies beyond the largest number
//! becomes that.

/// The two formats of 8-bit floats.
///
/// ```
/// use quant_core::float8::Float8;
/// let code = Float8::E4M3.encode(0.3);
/// assert_eq!(Float8::E4M3.decode(code), 0.3125);
/// assert_eq!(Float8::E4M3.decode(Float8::E4M3.encode(1e9)), 448.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Float8 {
    /// Four bits of exponent, three of mantissa; codes 0x7f and 0xff are NaN.
    E4M3,
    /// Five bits of exponent, two of mantissa; infinities and NaN as in binary16.
    E5M2,
}

impl Float8 {
    /// The largest number.
    pub const fn largest(self) -> f32 {
        match self {
            Self::E4M3 => 448.0,
            Self::E5M2 => 57344.0,
        }
    }

    /// What a code read as a half-precision number by [`Float8::half_bits`] is to be multiplied by: the exponents' biases differ.
    pub const fn half_factor(self) -> f32 {
        match self {
            Self::E4M3 => 256.0,
            Self::E5M2 => 1.0,
        }
    }

    /// The code as a half-precision number. The NaN of E4M3 become the numbers that would follow the largest.
    pub const fn half_bits(self, code: u8) -> u16 {
        match self {
            Self::E4M3 => (code as u16 & 0x80) << 8 | (code as u16 & 0x7f) << 7,
            Self::E5M2 => (code as u16) << 8,
        }
    }

    /// The number of a code; NaN for those that are none.
    pub fn decode(self, code: u8) -> f32 {
        if self == Self::E4M3 && code & 0x7f == 0x7f {
            return f32::NAN;
        }
        half::f16::from_bits(self.half_bits(code)).to_f32() * self.half_factor()
    }

    /// The code nearest to a number; what lies beyond the largest, infinity and NaN give the largest.
    #[inline(always)]
    pub fn encode(self, x: f32) -> u8 {
        match self {
            Self::E4M3 => encode::<3, 7>(x, 448.0),
            Self::E5M2 => encode::<2, 15>(x, 57344.0),
        }
    }
}

#[inline(always)]
fn encode<const MANTISSA: u32, const BIAS: u32>(x: f32, largest: f32) -> u8 {
    let sign = (x.to_bits() >> 31) as u8;
    let x = x.abs();
    let x = if x < largest { x } else { largest };
    // Normal numbers: to nearest even in the mantissa's last kept bit; a carry goes into the exponent as it should.
    let cut = 23 - MANTISSA;
    let bits = x.to_bits();
    let rounded = bits.wrapping_add((1 << (cut - 1)) - 1 + (bits >> cut & 1)) >> cut;
    let normal = rounded.wrapping_sub((127 - BIAS) << MANTISSA);
    // Below 2^(1 - BIAS) the step is fixed; adding this number makes it the last bit of an f32.
    let shift = f32::from_bits((23 + 127 - (BIAS - 1 + MANTISSA)) << 23);
    let subnormal = (x + shift).to_bits() & 0x1f;
    let code = if x < f32::from_bits((128 - BIAS) << 23) { subnormal } else { normal };
    code as u8 | sign << 7
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition, in f64.
    fn value(format: Float8, code: u8) -> f64 {
        let (mantissa_bits, bias) = match format {
            Float8::E4M3 => (3, 7),
            Float8::E5M2 => (2, 15),
        };
        let sign = if code & 0x80 != 0 { -1.0 } else { 1.0 };
        let exponent = i32::from((code & 0x7f) >> mantissa_bits);
        let mantissa = f64::from(code & ((1 << mantissa_bits) - 1)) / f64::from(1 << mantissa_bits);
        let scaled = |m: f64, e: i32| sign * m * 2f64.powi(e - bias);
        if exponent == 0 { scaled(mantissa, 1) } else { scaled(1.0 + mantissa, exponent) }
    }

    #[test]
    fn every_code_and_every_middle() {
        for (format, largest) in [(Float8::E4M3, 0x7e), (Float8::E5M2, 0x7b)] {
            for code in (0..=largest).chain(0x80..=0x80 | largest) {
                let exact = value(format, code) as f32;
                assert_eq!(format.decode(code), exact, "{format:?} {code:#x}");
                assert_eq!(format.encode(exact), code, "{format:?} {code:#x}");
            }
            for code in 0..largest {
                let (low, high) = (value(format, code) as f32, value(format, code + 1) as f32);
                let middle = (low + high) / 2.0;
                let even = if code % 2 == 0 { code } else { code + 1 };
                assert_eq!(format.encode(middle), even, "{format:?} above {code:#x}");
                assert_eq!(format.encode(middle.next_down()), code, "{format:?} above {code:#x}");
                assert_eq!(format.encode(middle.next_up()), code + 1, "{format:?} above {code:#x}");
                assert_eq!(format.encode(-middle), even | 0x80, "{format:?} above {code:#x}");
            }
            for beyond in [format.largest(), format.largest() * 1.01, 1e30, f32::MAX] {
                assert_eq!((format.encode(beyond), format.encode(-beyond)), (largest, largest | 0x80), "{beyond}");
            }
        }
    }
}
