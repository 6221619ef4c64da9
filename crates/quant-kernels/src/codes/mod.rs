//! Decoding of packed blocks, a vector at a time, into a [`Sink`].
//!
//! The layouts of the block types and their formulas are those of `gguf_format::blocks`; the arithmetic is done in the same order, so that each
//! value has the same bits.

mod affine;
mod dense;
mod k_quants;
mod small_blocks;

pub(crate) use affine::{Affine, HEADER as AFFINE_HEADER};
pub(crate) use dense::{Bf16, E4M3, F16, F32};
pub(crate) use k_quants::{Iq4Xs, Q2K, Q3K, Q4K, Q5K, Q6K};
pub(crate) use small_blocks::{Iq4Nl, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};

use crate::simd::Simd;

/// One block type.
pub(crate) trait Block {
    /// Values in a block. A multiple of 16; for the dense types 16 values are called a block here.
    const LEN: usize;
    /// Bytes of a block.
    const BYTES: usize;

    /// Decodes the block at `block`, whose value `i` is put at `at + i`, every value once.
    ///
    /// # Safety
    /// `BYTES` bytes at `block`; the instruction set of `S`; `LEN` values in the sink at `at`.
    unsafe fn decode<S: Simd>(block: *const u8, at: usize, sink: &mut impl Sink<S>);
}

/// Takes decoded values.
pub(crate) trait Sink<S: Simd> {
    /// `LANES` values, of which the first has index `at`.
    ///
    /// # Safety
    /// The instruction set of `S`; the indices within what the sink was made for.
    unsafe fn put(&mut self, at: usize, values: S::F);
}

/// Writes the values as f32.
pub(crate) struct Store(pub(crate) *mut f32);

impl<S: Simd> Sink<S> for Store {
    #[inline(always)]
    unsafe fn put(&mut self, at: usize, values: S::F) {
        // SAFETY: the caller keeps `at` within the buffer.
        unsafe { S::store(self.0.add(at), values) }
    }
}

/// A little-endian u16 at a pointer.
#[inline(always)]
pub(crate) unsafe fn u16_at(p: *const u8) -> u16 {
    // SAFETY: two bytes of a block.
    u16::from_le(unsafe { p.cast::<u16>().read_unaligned() })
}

/// A little-endian u32 at a pointer.
#[inline(always)]
pub(crate) unsafe fn u32_at(p: *const u8) -> u32 {
    // SAFETY: four bytes of a block.
    u32::from_le(unsafe { p.cast::<u32>().read_unaligned() })
}

/// Calls `$body` with `$B` bound to the block type of an encoding; `None` for one without a decoder.
macro_rules! for_block_type {
    ($ty:expr, $B:ident => $body:expr) => {{
        use crate::codes;
        use crate::encoding::{AffineBlock, Encoding};
        use gguf_format::GgmlType;
        macro_rules! with {
            ($T:ty) => {{
                type $B = $T;
                Some($body)
            }};
        }
        match $ty {
            Encoding::Ggml(GgmlType::F32) => with!(codes::F32),
            Encoding::Ggml(GgmlType::F16) => with!(codes::F16),
            Encoding::Ggml(GgmlType::BF16) => with!(codes::Bf16),
            Encoding::Ggml(GgmlType::Q4_0) => with!(codes::Q4_0),
            Encoding::Ggml(GgmlType::Q4_1) => with!(codes::Q4_1),
            Encoding::Ggml(GgmlType::Q5_0) => with!(codes::Q5_0),
            Encoding::Ggml(GgmlType::Q5_1) => with!(codes::Q5_1),
            Encoding::Ggml(GgmlType::Q8_0) => with!(codes::Q8_0),
            Encoding::Ggml(GgmlType::Q2_K) => with!(codes::Q2K),
            Encoding::Ggml(GgmlType::Q3_K) => with!(codes::Q3K),
            Encoding::Ggml(GgmlType::Q4_K) => with!(codes::Q4K),
            Encoding::Ggml(GgmlType::Q5_K) => with!(codes::Q5K),
            Encoding::Ggml(GgmlType::Q6_K) => with!(codes::Q6K),
            Encoding::Ggml(GgmlType::IQ4_NL) => with!(codes::Iq4Nl),
            Encoding::Ggml(GgmlType::IQ4_XS) => with!(codes::Iq4Xs),
            Encoding::E4M3 => with!(codes::E4M3),
            Encoding::Affine(AffineBlock { bits, len }) => match (bits, len) {
                (2, 16) => with!(codes::Affine<2, 16>),
                (2, 32) => with!(codes::Affine<2, 32>),
                (2, 64) => with!(codes::Affine<2, 64>),
                (2, 128) => with!(codes::Affine<2, 128>),
                (3, 16) => with!(codes::Affine<3, 16>),
                (3, 32) => with!(codes::Affine<3, 32>),
                (3, 64) => with!(codes::Affine<3, 64>),
                (3, 128) => with!(codes::Affine<3, 128>),
                (4, 16) => with!(codes::Affine<4, 16>),
                (4, 32) => with!(codes::Affine<4, 32>),
                (4, 64) => with!(codes::Affine<4, 64>),
                (4, 128) => with!(codes::Affine<4, 128>),
                (8, 16) => with!(codes::Affine<8, 16>),
                (8, 32) => with!(codes::Affine<8, 32>),
                (8, 64) => with!(codes::Affine<8, 64>),
                (8, 128) => with!(codes::Affine<8, 128>),
                _ => None,
            },
            _ => None,
        }
    }};
}
pub(crate) use for_block_type;
