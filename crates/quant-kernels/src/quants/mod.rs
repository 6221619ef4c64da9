//! Packed blocks as integer codes, 64 at a time, with a scale for each 16 or 32 of them.
//!
//! The layouts are those of [`crate::codes`]; here the codes stay integers: `w = scale · (code - ZERO)`, or `scale · code - min`.

mod affine;
mod k_quants;
mod small_blocks;

pub(crate) use affine::Affine;
pub(crate) use k_quants::{Iq4Xs, Q2K, Q3K, Q4K, Q5K, Q6K};
pub(crate) use small_blocks::{GRID, Iq4Nl, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, nibbles};

use crate::lanes::Lanes;

/// One block type. A unit is a block, or two where a block has 32 columns.
pub(crate) trait Quants {
    /// Columns of a unit: a multiple of 64, at most 256.
    const LEN: usize;
    /// Bytes of a unit.
    const BYTES: usize;
    /// Columns that share a scale: 16 or 32.
    const SUB: usize;
    /// Taken from each code: a power of two; 0 where there are mins.
    const ZERO: i32;

    /// True if codes can be 128 or more.
    const WIDE: bool = false;
    /// True if there are mins.
    const MINS: bool = Self::ZERO == 0;

    /// Codes `64 j ..` of the unit, in order.
    ///
    /// # Safety
    /// `BYTES` bytes at `unit`; the instruction set of `S`; `64 j < LEN`.
    unsafe fn codes<S: Lanes>(unit: *const u8, j: usize) -> S::B;

    /// Scales and mins of the unit, one a lane; 0 in the lanes beyond. Mins do not count where there are none.
    ///
    /// # Safety
    /// `BYTES` bytes at `unit`; the instruction set of `S`.
    unsafe fn scales<S: Lanes>(unit: *const u8) -> (S::F, S::F);

    /// Codes as the products take them.
    ///
    /// # Safety
    /// The instruction set of `S`.
    #[inline(always)]
    unsafe fn factor<S: Lanes>(codes: S::B) -> S::B {
        // SAFETY: the caller's.
        if Self::WIDE { unsafe { S::centered(codes) } } else { codes }
    }

    /// What is still to be taken from each code that [`Quants::factor`] gave: a power of two, 0, or -128.
    #[inline(always)]
    fn rest<S: Lanes>() -> i32 {
        if Self::WIDE { Self::ZERO - S::OFF } else { Self::ZERO }
    }
}

/// Calls `$body` with `$Q` bound to the [`Quants`] of an encoding; `None` for one that has none.
macro_rules! for_quants {
    ($ty:expr, $Q:ident => $body:expr) => {{
        use crate::encoding::{AffineBlock, Encoding};
        use crate::quants;
        use gguf_format::GgmlType;
        macro_rules! with {
            ($T:ty) => {{
                type $Q = $T;
                Some($body)
            }};
        }
        match $ty {
            Encoding::Ggml(GgmlType::Q4_0) => with!(quants::Q4_0),
            Encoding::Ggml(GgmlType::Q4_1) => with!(quants::Q4_1),
            Encoding::Ggml(GgmlType::Q5_0) => with!(quants::Q5_0),
            Encoding::Ggml(GgmlType::Q5_1) => with!(quants::Q5_1),
            Encoding::Ggml(GgmlType::Q8_0) => with!(quants::Q8_0),
            Encoding::Ggml(GgmlType::Q2_K) => with!(quants::Q2K),
            Encoding::Ggml(GgmlType::Q3_K) => with!(quants::Q3K),
            Encoding::Ggml(GgmlType::Q4_K) => with!(quants::Q4K),
            Encoding::Ggml(GgmlType::Q5_K) => with!(quants::Q5K),
            Encoding::Ggml(GgmlType::Q6_K) => with!(quants::Q6K),
            Encoding::Ggml(GgmlType::IQ4_NL) => with!(quants::Iq4Nl),
            Encoding::Ggml(GgmlType::IQ4_XS) => with!(quants::Iq4Xs),
            Encoding::Affine(AffineBlock { bits, len }) => match (bits, len) {
                (2, 32) => with!(quants::Affine<2, 32>),
                (2, 64) => with!(quants::Affine<2, 64>),
                (2, 128) => with!(quants::Affine<2, 128>),
                (3, 32) => with!(quants::Affine<3, 32>),
                (3, 64) => with!(quants::Affine<3, 64>),
                (3, 128) => with!(quants::Affine<3, 128>),
                (4, 32) => with!(quants::Affine<4, 32>),
                (4, 64) => with!(quants::Affine<4, 64>),
                (4, 128) => with!(quants::Affine<4, 128>),
                (8, 32) => with!(quants::Affine<8, 32>),
                (8, 64) => with!(quants::Affine<8, 64>),
                (8, 128) => with!(quants::Affine<8, 128>),
                _ => None,
            },
            _ => None,
        }
    }};
}
pub(crate) use for_quants;
