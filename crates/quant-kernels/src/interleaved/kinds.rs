//! What a unit of 16 rows looks like for each type.
//!
//! A unit holds the same columns of 16 rows: a head with the scales, one vector of 16 after the other, then the codes, 32 columns after the other. These
//! are vectors of 64 bytes, four bytes a row; byte i of a row holds bits of columns i, i + 4, i + 8, ... of those that the vector has:
//!
//! | bits of a code | vectors of 32 columns |
//! |---|---|
//! | 8 | 8, of 4 columns each |
//! | 4 | 4, of 8 columns: a nibble each, the low one first |
//! | 2 | 2, of 16 columns: two bits each, from the low ones on |
//! | 5, 6, 3 | those of 4, 4 and 2 bits, and with the bits above a vector of 32 columns, a bit each, or two of 16, two bits each |
//!
//! A vector with bits above stands before those that it is put on: products then read the unit from front to back, which the processor sees coming.

use crate::lanes::Lanes;
use crate::quants::{self, GRID, Quants, nibbles};
use std::marker::PhantomData;

/// Rows side by side.
pub(crate) const ROWS: usize = 16;

/// One type.
pub(crate) trait Kind {
    /// As its matrices have it, row by row.
    type Source: Quants;
    /// Columns of a unit: of a block of the type.
    const COLS: usize;
    /// Bytes of the head.
    const HEAD: usize;
    /// Bits of a stored code: 2, 3, 4, 5, 6 or 8.
    const BITS: usize;
    /// True if a stored code is a place in [`GRID`].
    const GRID: bool = false;
    /// Bytes of a unit.
    const BYTES: usize = Self::HEAD + ROWS * Self::COLS * Self::BITS / 8;

    /// Stored codes `64 j ..` of a unit of [`Kind::Source`].
    ///
    /// # Safety
    /// As [`Quants::codes`].
    #[inline(always)]
    unsafe fn stored<S: Lanes>(unit: *const u8, j: usize) -> S::B {
        // SAFETY: the caller's.
        unsafe { Self::Source::codes::<S>(unit, j) }
    }

    /// Writes what a block says of scales into its row's places of a head, which is zeros.
    fn fill_head(block: &[u8], row: usize, head: &mut [u8]);

    /// Scales and mins of sub-block `sub` ([`Quants::SUB`] columns) of 16 rows, without what is common to the unit. Mins do not count where there are
    /// none.
    ///
    /// # Safety
    /// `HEAD` bytes at `head`; the instruction set of `S`; a sub-block that is there.
    unsafe fn factors<S: Lanes>(head: *const u8, sub: usize) -> (S::F, S::F);

    /// True if there are factors common to a unit.
    const COMMON: bool = false;

    /// What scales and mins of a unit are to be multiplied by, if there is such a factor.
    ///
    /// # Safety
    /// As for `factors`.
    #[inline(always)]
    unsafe fn common<S: Lanes>(_head: *const u8) -> (S::F, S::F) {
        // SAFETY: the caller's.
        unsafe { (S::splat(1.0), S::splat(1.0)) }
    }
}

/// Scales and mins of a sub-block.
///
/// # Safety
/// As for [`Kind::factors`].
#[inline(always)]
pub(crate) unsafe fn whole_factors<S: Lanes, K: Kind>(head: *const u8, sub: usize) -> (S::F, S::F) {
    // SAFETY: the caller's.
    unsafe {
        let (scales, mins) = K::factors::<S>(head, sub);
        if !K::COMMON {
            return (scales, mins);
        }
        let (d, dmin) = K::common::<S>(head);
        (S::mul(scales, d), S::mul(mins, dmin))
    }
}

/// Bits `from ..` of each byte, moved to `to`; `mask` says which are kept there.
#[inline(always)]
unsafe fn moved<S: Lanes>(x: S::B, from: usize, to: usize, mask: u8) -> S::B {
    // SAFETY: the caller has the instruction set.
    unsafe {
        let x = match from.cmp(&to) {
            std::cmp::Ordering::Greater => S::shr_b(x, [(from - to) as u32; 4]),
            std::cmp::Ordering::Less => S::shl_b(x, (to - from) as u32),
            std::cmp::Ordering::Equal => x,
        };
        S::and_b(x, S::splat_b(mask))
    }
}

/// Columns `32 b + 4 k ..` of the 16 rows of a unit, four bytes a row, as the products take them.
///
/// # Safety
/// `BYTES` bytes at `unit`; the instruction set of `S`; `32 b + 4 k < COLS`, `k < 8`.
#[inline(always)]
pub(crate) unsafe fn codes<S: Lanes, K: Kind>(unit: *const u8, b: usize, k: usize) -> S::B {
    // SAFETY: the caller's; planes follow each other.
    unsafe {
        let block = unit.add(K::HEAD + BLOCK_BYTES * K::BITS * b);
        match K::BITS {
            2 => two_bits::<S>(block, k, 0),
            3 => S::or_b(two_bits::<S>(block.add(64), k, 0), moved::<S>(S::bytes(block), k, 2, 1 << 2)),
            4 if K::GRID => S::lookup(&GRID, four_bits::<S>(block, k)),
            4 => four_bits::<S>(block, k),
            5 => S::or_b(four_bits::<S>(block.add(64), k), moved::<S>(S::bytes(block), k, 4, 1 << 4)),
            6 => {
                let half = block.add(k / 4 * 3 * 64);
                S::or_b(four_bits::<S>(half.add(64), k % 4), two_bits::<S>(half, k % 4, 4))
            }
            _ => S::bytes(block.add(64 * k)),
        }
    }
}

/// Bytes of one bit of 32 columns.
const BLOCK_BYTES: usize = ROWS * 32 / 8;

// Functions, not closures: those would not all be compiled for the instruction set of their caller.

/// Of a plane of four bits.
#[inline(always)]
unsafe fn four_bits<S: Lanes>(plane: *const u8, k: usize) -> S::B {
    // SAFETY: the caller's.
    unsafe { moved::<S>(S::bytes(plane.add(64 * (k / 2))), k % 2 * 4, 0, 15) }
}

/// Of a plane of two bits, moved to bit `to`.
#[inline(always)]
unsafe fn two_bits<S: Lanes>(plane: *const u8, k: usize, to: usize) -> S::B {
    // SAFETY: the caller's.
    unsafe { moved::<S>(S::bytes(plane.add(64 * (k / 4))), k % 4 * 2, to, 3 << to) }
}

/// Puts the stored codes of columns `32 b + 4 k ..` where [`codes`] finds them; `words` has four bytes a row. The unit is zeros there.
#[inline(always)]
pub(crate) fn put_codes<K: Kind>(unit: &mut [u8], b: usize, k: usize, words: &[u32; ROWS]) {
    let block = &mut unit[K::HEAD + BLOCK_BYTES * K::BITS * b..][..BLOCK_BYTES * K::BITS];
    match K::BITS {
        8 => put(block, k, words, 0, 255, 0),
        2 => put(block, k / 4, words, 0, 3, k % 4 * 2),
        3 => {
            put(block, 0, words, 2, 1, k);
            put(block, 1 + k / 4, words, 0, 3, k % 4 * 2);
        }
        5 => {
            put(block, 0, words, 4, 1, k);
            put(block, 1 + k / 2, words, 0, 15, k % 2 * 4);
        }
        6 => {
            let half = k / 4 * 3;
            put(block, half, words, 4, 3, k % 4 * 2);
            put(block, half + 1 + k % 4 / 2, words, 0, 15, k % 2 * 4);
        }
        _ => put(block, k / 2, words, 0, 15, k % 2 * 4),
    }
}

/// Adds bits `from ..` of the bytes of `words` to a vector, at bit `to`.
#[inline(always)]
fn put(block: &mut [u8], vector: usize, words: &[u32; ROWS], from: u32, mask: u32, to: usize) {
    for (place, word) in block[64 * vector..][..64].chunks_exact_mut(4).zip(words) {
        let bits = (word >> from & (mask * 0x0101_0101)) << to;
        let mut all = [0; 4];
        all.copy_from_slice(place);
        place.copy_from_slice(&(u32::from_le_bytes(all) | bits).to_le_bytes());
    }
}

/// Two bytes of a vector of 16 numbers of two bytes.
fn set_half(head: &mut [u8], vector: usize, row: usize, bits: u16) {
    head[32 * vector + 2 * row..][..2].copy_from_slice(&bits.to_le_bytes());
}

fn half_of(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

/// Types in blocks of 32. Head: d, and -m where there are mins.
pub(crate) struct Small<Q, const BITS: usize>(PhantomData<Q>);

impl<Q: Quants, const BITS: usize> Kind for Small<Q, BITS> {
    type Source = Q;
    const COLS: usize = 32;
    const HEAD: usize = if Q::MINS { 64 } else { 32 };
    const BITS: usize = BITS;

    fn fill_head(block: &[u8], row: usize, head: &mut [u8]) {
        set_half(head, 0, row, half_of(block, 0));
        if Q::MINS {
            set_half(head, 1, row, half_of(block, 2) ^ 0x8000);
        }
    }
    #[inline(always)]
    unsafe fn factors<S: Lanes>(head: *const u8, _: usize) -> (S::F, S::F) {
        // SAFETY: within the head.
        unsafe { (S::halves(head), if Q::MINS { S::halves(head.add(32)) } else { S::splat(0.0) }) }
    }
}

/// Head: d.
pub(crate) struct Iq4Nl;

impl Kind for Iq4Nl {
    type Source = quants::Iq4Nl;
    const COLS: usize = 32;
    const HEAD: usize = 32;
    const BITS: usize = 4;
    const GRID: bool = true;

    #[inline(always)]
    unsafe fn stored<S: Lanes>(unit: *const u8, _: usize) -> S::B {
        // SAFETY: within the unit.
        unsafe { nibbles::<S>(unit.add(2), unit.add(20)) }
    }
    fn fill_head(block: &[u8], row: usize, head: &mut [u8]) {
        set_half(head, 0, row, half_of(block, 0));
    }
    #[inline(always)]
    unsafe fn factors<S: Lanes>(head: *const u8, _: usize) -> (S::F, S::F) {
        // SAFETY: within the head.
        unsafe { (S::halves(head), S::splat(0.0)) }
    }
}

/// Head: scales, zero points, both binary16, which has every zero point.
pub(crate) struct Affine<const BITS: usize, const BLOCK: usize>;

impl<const BITS: usize, const BLOCK: usize> Kind for Affine<BITS, BLOCK> {
    type Source = quants::Affine<BITS, BLOCK>;
    const COLS: usize = BLOCK;
    const HEAD: usize = 64;
    const BITS: usize = BITS;

    fn fill_head(block: &[u8], row: usize, head: &mut [u8]) {
        set_half(head, 0, row, half_of(block, 0));
        set_half(head, 1, row, half::f16::from_f32(f32::from(half_of(block, 2))).to_bits());
    }
    #[inline(always)]
    unsafe fn factors<S: Lanes>(head: *const u8, _: usize) -> (S::F, S::F) {
        // SAFETY: within the head.
        unsafe {
            let scales = S::halves(head);
            (scales, S::mul(scales, S::halves(head.add(32))))
        }
    }
}

/// Q4_K and Q5_K. Head: d, dmin, eight times 16 scales, eight times 16 mins, a byte each.
pub(crate) struct SixBits<Q, const BITS: usize>(PhantomData<Q>);

impl<Q: Quants, const BITS: usize> Kind for SixBits<Q, BITS> {
    type Source = Q;
    const COLS: usize = 256;
    const HEAD: usize = 64 + 2 * 8 * ROWS;
    const BITS: usize = BITS;

    fn fill_head(block: &[u8], row: usize, head: &mut [u8]) {
        set_half(head, 0, row, half_of(block, 0));
        set_half(head, 1, row, half_of(block, 2));
        let packed = &block[4..16];
        for j in 0..4 {
            let (scale, min, rest) = (packed[j], packed[j + 4], packed[j + 8]);
            let mut put = |j: usize, scale: u8, min: u8| {
                head[64 + ROWS * j + row] = scale;
                head[64 + ROWS * (8 + j) + row] = min;
            };
            put(j, scale & 63, min & 63);
            put(j + 4, rest & 15 | scale >> 6 << 4, rest >> 4 | min >> 6 << 4);
        }
    }
    const COMMON: bool = true;

    #[inline(always)]
    unsafe fn factors<S: Lanes>(head: *const u8, sub: usize) -> (S::F, S::F) {
        // SAFETY: within the head.
        unsafe { (S::unsigned_at(head.add(64 + ROWS * sub)), S::unsigned_at(head.add(64 + ROWS * (8 + sub)))) }
    }
    #[inline(always)]
    unsafe fn common<S: Lanes>(head: *const u8) -> (S::F, S::F) {
        // SAFETY: within the head.
        unsafe { (S::halves(head), S::halves(head.add(32))) }
    }
}

/// Head: d, dmin, 16 times 16 bytes with a scale and above it a min.
pub(crate) struct Q2K;

impl Kind for Q2K {
    type Source = quants::Q2K;
    const COLS: usize = 256;
    const HEAD: usize = 64 + 16 * ROWS;
    const BITS: usize = 2;

    fn fill_head(block: &[u8], row: usize, head: &mut [u8]) {
        set_half(head, 0, row, half_of(block, 80));
        set_half(head, 1, row, half_of(block, 82));
        for (j, &both) in block[..16].iter().enumerate() {
            head[64 + ROWS * j + row] = both;
        }
    }
    const COMMON: bool = true;

    #[inline(always)]
    unsafe fn factors<S: Lanes>(head: *const u8, sub: usize) -> (S::F, S::F) {
        // SAFETY: within the head.
        unsafe { S::nibbles_at(head.add(64 + ROWS * sub)) }
    }
    #[inline(always)]
    unsafe fn common<S: Lanes>(head: *const u8) -> (S::F, S::F) {
        // SAFETY: within the head.
        unsafe { (S::halves(head), S::halves(head.add(32))) }
    }
}

/// Head: d, then for each sub-block 16 signed scales.
pub(crate) struct Signed<Q, const BITS: usize>(PhantomData<Q>);

/// The scales of a type whose scales are signed.
pub(crate) trait SignedScales: Quants {
    /// Where d is.
    const D: usize;
    /// True if codes are places in [`GRID`].
    const GRID: bool = false;
    /// Scale `j` of a block.
    fn scale(block: &[u8], j: usize) -> i8;
    /// As [`Kind::stored`].
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn stored<S: Lanes>(unit: *const u8, j: usize) -> S::B {
        // SAFETY: the caller's.
        unsafe { Self::codes::<S>(unit, j) }
    }
}

impl SignedScales for quants::Q6K {
    const D: usize = 208;
    fn scale(block: &[u8], j: usize) -> i8 {
        block[192 + j] as i8
    }
}

impl SignedScales for quants::Q3K {
    const D: usize = 108;
    fn scale(block: &[u8], j: usize) -> i8 {
        let packed = &block[96..108];
        let low = packed[j % 8] >> (j / 8 * 4) & 15;
        let high = packed[8 + j % 4] >> (j / 4 * 2) & 3;
        (low | high << 4) as i8 - 32
    }
}

impl SignedScales for quants::Iq4Xs {
    const D: usize = 0;
    const GRID: bool = true;
    fn scale(block: &[u8], j: usize) -> i8 {
        let low = block[4 + j / 2] >> (j % 2 * 4) & 15;
        let high = half_of(block, 2) >> (2 * j) & 3;
        (low | (high as u8) << 4) as i8 - 32
    }
    #[inline(always)]
    unsafe fn stored<S: Lanes>(unit: *const u8, j: usize) -> S::B {
        // SAFETY: within the unit.
        unsafe { nibbles::<S>(unit.add(8 + 32 * j), unit.add(24 + 32 * j)) }
    }
}

impl<Q: SignedScales, const BITS: usize> Kind for Signed<Q, BITS> {
    type Source = Q;
    const COLS: usize = 256;
    const HEAD: usize = 32 + 256 / Q::SUB * ROWS;
    const BITS: usize = BITS;
    const GRID: bool = Q::GRID;

    #[inline(always)]
    unsafe fn stored<S: Lanes>(unit: *const u8, j: usize) -> S::B {
        // SAFETY: the caller's.
        unsafe { Q::stored::<S>(unit, j) }
    }
    fn fill_head(block: &[u8], row: usize, head: &mut [u8]) {
        set_half(head, 0, row, half_of(block, Q::D));
        for j in 0..256 / Q::SUB {
            head[32 + ROWS * j + row] = Q::scale(block, j) as u8;
        }
    }
    const COMMON: bool = true;

    #[inline(always)]
    unsafe fn factors<S: Lanes>(head: *const u8, sub: usize) -> (S::F, S::F) {
        // SAFETY: within the head.
        unsafe { (S::signed(head.add(32 + ROWS * sub)), S::splat(0.0)) }
    }
    #[inline(always)]
    unsafe fn common<S: Lanes>(head: *const u8) -> (S::F, S::F) {
        // SAFETY: within the head.
        unsafe { (S::halves(head), S::splat(0.0)) }
    }
}

/// Calls `$body` with `$K` bound to the [`Kind`] of an encoding; `None` for one that has none.
macro_rules! for_kind {
    ($ty:expr, $K:ident => $body:expr) => {{
        use crate::encoding::{AffineBlock, Encoding};
        use crate::interleaved::kinds;
        use crate::quants;
        use gguf_format::GgmlType;
        macro_rules! with {
            ($T:ty) => {{
                type $K = $T;
                Some($body)
            }};
        }
        match $ty {
            Encoding::Ggml(GgmlType::Q4_0) => with!(kinds::Small<quants::Q4_0, 4>),
            Encoding::Ggml(GgmlType::Q4_1) => with!(kinds::Small<quants::Q4_1, 4>),
            Encoding::Ggml(GgmlType::Q5_0) => with!(kinds::Small<quants::Q5_0, 5>),
            Encoding::Ggml(GgmlType::Q5_1) => with!(kinds::Small<quants::Q5_1, 5>),
            Encoding::Ggml(GgmlType::Q8_0) => with!(kinds::Small<quants::Q8_0, 8>),
            Encoding::Ggml(GgmlType::Q2_K) => with!(kinds::Q2K),
            Encoding::Ggml(GgmlType::Q3_K) => with!(kinds::Signed<quants::Q3K, 3>),
            Encoding::Ggml(GgmlType::Q4_K) => with!(kinds::SixBits<quants::Q4K, 4>),
            Encoding::Ggml(GgmlType::Q5_K) => with!(kinds::SixBits<quants::Q5K, 5>),
            Encoding::Ggml(GgmlType::Q6_K) => with!(kinds::Signed<quants::Q6K, 6>),
            Encoding::Ggml(GgmlType::IQ4_NL) => with!(kinds::Iq4Nl),
            Encoding::Ggml(GgmlType::IQ4_XS) => with!(kinds::Signed<quants::Iq4Xs, 4>),
            Encoding::Affine(AffineBlock { bits, len }) => match (bits, len) {
                (2, 32) => with!(kinds::Affine<2, 32>),
                (2, 64) => with!(kinds::Affine<2, 64>),
                (2, 128) => with!(kinds::Affine<2, 128>),
                (3, 32) => with!(kinds::Affine<3, 32>),
                (3, 64) => with!(kinds::Affine<3, 64>),
                (3, 128) => with!(kinds::Affine<3, 128>),
                (4, 32) => with!(kinds::Affine<4, 32>),
                (4, 64) => with!(kinds::Affine<4, 64>),
                (4, 128) => with!(kinds::Affine<4, 128>),
                (8, 32) => with!(kinds::Affine<8, 32>),
                (8, 64) => with!(kinds::Affine<8, 64>),
                (8, 128) => with!(kinds::Affine<8, 128>),
                _ => None,
            },
            _ => None,
        }
    }};
}
pub(crate) use for_kind;
