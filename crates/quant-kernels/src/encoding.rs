//! How weights are encoded: a ggml type, or affine blocks.

use crate::codes::{AFFINE_HEADER, Block, for_block_type};
use crate::dispatch::Isa;
use crate::quants::{Quants, for_quants};
use gguf_format::{GgmlType, blocks};

/// How the weights of a matrix are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As GGUF files have them.
    Ggml(GgmlType),
    /// Blocks made by [`crate::AffineWeights::pack`].
    Affine(AffineBlock),
    /// FP8 numbers of 4 bits of exponent and 3 of mantissa, a byte each, without a scale.
    E4M3,
}

/// Blocks of affine codes: bits of a code, and how many share a scale and a zero point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AffineBlock {
    pub(crate) bits: u8,
    pub(crate) len: u8,
}

impl AffineBlock {
    /// The lengths that there are, longest first.
    pub(crate) const LENGTHS: [u8; 4] = [128, 64, 32, 16];

    /// Bits of a code: 2, 3, 4 or 8.
    pub fn bits(self) -> u8 {
        self.bits
    }

    /// Codes of a block: 16, 32, 64 or 128.
    pub fn len(self) -> usize {
        usize::from(self.len)
    }

    /// Never.
    pub fn is_empty(self) -> bool {
        false
    }

    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        AFFINE_HEADER + self.len() * usize::from(self.bits) / 8
    }
}

impl From<GgmlType> for Encoding {
    fn from(ty: GgmlType) -> Self {
        Self::Ggml(ty)
    }
}

impl std::fmt::Display for Encoding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ggml(ty) => ty.fmt(f),
            Self::E4M3 => f.write_str("E4M3"),
            Self::Affine(block) => write!(f, "{} bits in blocks of {}", block.bits, block.len),
        }
    }
}

impl Encoding {
    /// Bytes of `n` values; `None` if they are not whole blocks.
    pub fn bytes_for(self, n: usize) -> Option<usize> {
        match self {
            Self::Ggml(ty) => ty.bytes_for(n as u64).and_then(|bytes| usize::try_from(bytes).ok()),
            Self::E4M3 => Some(n),
            Self::Affine(block) => {
                n.is_multiple_of(block.len()).then(|| (n / block.len()).checked_mul(block.bytes()))?
            }
        }
    }
}

/// True if the products take this encoding: affine blocks, E4M3, and every type that `gguf_format::blocks` can dequantize. Those without a decoder here
/// ([`is_fast`]) are dequantized by that crate, row by row, on each use.
pub fn is_supported(encoding: impl Into<Encoding>) -> bool {
    let encoding = encoding.into();
    is_fast(encoding) || matches!(encoding, Encoding::Ggml(ty) if blocks::can_dequantize(ty))
}

/// True if weights of this encoding are decoded in registers: affine blocks, E4M3, F32, F16, BF16, Q4_0 to Q8_0, Q2_K to Q6_K, IQ4_NL and IQ4_XS.
pub fn is_fast(encoding: impl Into<Encoding>) -> bool {
    for_block_type!(encoding.into(), B => B::LEN).is_some()
}

/// True if weights of this encoding have integer kernels, for rounded activations ([`crate::matmul_rounded`]): Q4_0 to Q8_0, Q2_K to Q6_K, IQ4_NL, IQ4_XS,
/// and affine blocks of 32 or more codes.
pub fn is_integer(encoding: impl Into<Encoding>) -> bool {
    for_quants!(encoding.into(), Q => Q::LEN).is_some()
}

/// True if products of integers are quicker than those in f32 on this machine: with AVX2 or more, or NEON with dotprod. [`matmul_rounded`](crate::matmul_rounded)
/// looks itself; who chooses a layout ([`Interleaved`](crate::Interleaved)) asks here.
///
/// On x86-64 that is measured. On aarch64 it is reasoned from the instructions that a product takes: `sdot` makes 16 products of bytes where `fmla` makes 4
/// of f32, and NEON alone needs as many for either.
pub fn integers_are_quicker() -> bool {
    match Isa::best() {
        Isa::Portable => false,
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => false,
        _ => true,
    }
}
