//! F32, F16, BF16, E4M3: 16 values are called a block. A row's rest of fewer than 16 is decoded from a copy padded with zeros.

use super::{Block, Sink};
use crate::simd::Simd;

/// Values in a "block" of a dense type.
const LEN: usize = 16;

macro_rules! dense {
    ($name:ident, $bytes:literal, $load:expr) => {
        #[doc = concat!(stringify!($name), ", ", stringify!($bytes), " bytes a value.")]
        pub(crate) struct $name;

        impl Block for $name {
            const LEN: usize = LEN;
            const BYTES: usize = LEN * $bytes;

            #[inline(always)]
            unsafe fn decode<S: Simd>(block: *const u8, at: usize, sink: &mut impl Sink<S>) {
                // SAFETY: the caller owns `BYTES` bytes and `LEN` places; `LANES` divides `LEN`.
                unsafe {
                    for v in 0..LEN / S::LANES {
                        let load: unsafe fn(*const u8) -> S::F = $load;
                        sink.put(at + v * S::LANES, load(block.add(v * S::LANES * $bytes)));
                    }
                }
            }
        }
    };
}

dense!(F32, 4, S::floats);
dense!(F16, 2, S::halves);
dense!(Bf16, 2, S::bfloats);

/// FP8 of 4 bits of exponent and 3 of mantissa, a byte a value. The codes of NaN become the numbers that would follow the largest.
pub(crate) struct E4M3;

impl Block for E4M3 {
    const LEN: usize = LEN;
    const BYTES: usize = LEN;

    #[inline(always)]
    unsafe fn decode<S: Simd>(block: *const u8, at: usize, sink: &mut impl Sink<S>) {
        // 2^(127 - 7): the biases of the exponents differ.
        const FACTOR: f32 = f32::from_bits((127 + 120) << 23);
        // SAFETY: as for the other dense types.
        unsafe {
            let (sign, number) = (S::splat_i(0x80), S::splat_i(0x7f));
            for v in 0..LEN / S::LANES {
                let codes = S::bytes(block.add(v * S::LANES));
                let bits = S::or(S::shl(S::and(codes, sign), 24), S::shl(S::and(codes, number), 20));
                sink.put(at + v * S::LANES, S::mul(S::from_bits(bits), S::splat(FACTOR)));
            }
        }
    }
}
