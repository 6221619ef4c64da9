//! Where the codes of a block lie.
//!
//! A block holds `tokens` (32 or 64) tokens of every head; a head's keys and values are regions of their own. Codes lie as the inner products of
//! [`attend`](crate::attend) take them: 64 bytes are four steps of the sum for each of 16 results, so that nothing is added across lanes.
//!
//! - Keys: results are tokens, steps are channels. `[tile of 16 tokens][4 channels][token][channel of the 4]`.
//! - Values: results are channels, steps are tokens. `[16 channels][4 tokens][channel][token of the 4]`.
//!
//! A *quad* is the four steps. Codes of fewer than 8 bits put several quads into the same 64 bytes, low bits first: 4-bit codes two, 2-bit codes four;
//! of 3 and 5 bits the highest bit lies apart, eight quads in 64 bytes. Scales (and minima) are `[group][token]`, 16 bits, little endian: half precision,
//! or what [`grids`] has for two.
//!
//! Channels are padded to a multiple of 16.

use crate::codec::{Codec, GgmlCode};
use crate::grids;
use crate::simd::Simd;
pub(crate) use quant_core::float8::Float8;

/// How the codes of one side are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Storage {
    /// f16: keys `[tile][channel][16 tokens]`, values `[16 channels][token][channel]`.
    Half,
    /// Bytes in the same places, and a scale per head.
    Float8(Float8),
    /// Codes that stand for whole numbers.
    Int(IntCode),
    /// KIVI's keys: `[tile][bytes of channels][16 tokens]`, several channels in a byte, low bits first; minimum and step per channel and 32 tokens.
    PerChannel { bits: u8 },
}

/// Codes `i` of a group that stand for `scale * number(i)`, or `scale * i + minimum`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct IntCode {
    /// 2, 3, 4, 5 or 8.
    pub(crate) bits: u8,
    /// Channels that share 16 bits of scale.
    pub(crate) group: usize,
    /// Whether there is a minimum. The number of a code is then the code less [`IntCode::middle`], so that sums of numbers are not all positive.
    pub(crate) min: bool,
    /// Whether a group is two halves of their own scales and grids ([`grids`]).
    pub(crate) paired: bool,
    /// Whether no scale is negative.
    pub(crate) positive: bool,
    /// The numbers, plus 128; those of a second grid from 16 on. Unused for 8 bits, whose codes are the numbers plus 128.
    pub(crate) table: [u8; 32],
}

impl IntCode {
    fn new(bits: u8, group: usize, min: bool, numbers: impl IntoIterator<Item = i32>) -> Self {
        let mut table = [128; 32];
        table.iter_mut().zip(numbers).for_each(|(entry, n)| *entry = (n + 128) as u8);
        Self { bits, group, min, paired: false, positive: false, table }
    }

    /// Two grids, two halves a group.
    pub(crate) fn lloyd(bits: u8, group: usize) -> Self {
        Self { paired: true, positive: true, table: grids::numbers(bits), ..Self::new(bits, group, false, []) }
    }

    /// Channels that share a scale.
    pub(crate) const fn part(self) -> usize {
        if self.paired { self.group / 2 } else { self.group }
    }

    /// What scales are multiples of.
    pub(crate) const fn unit(self) -> f32 {
        if self.paired { grids::UNIT } else { 1.0 }
    }

    /// Bits of the plane of low bits: 8, 4 or 2.
    pub(crate) const fn low_bits(self) -> usize {
        match self.bits {
            8 => 8,
            4 | 5 => 4,
            _ => 2,
        }
    }

    /// True if the highest bit lies apart.
    pub(crate) const fn has_high(self) -> bool {
        matches!(self.bits, 3 | 5)
    }

    /// Number of groups in `channels`.
    pub(crate) const fn groups(self, channels: usize) -> usize {
        channels.div_ceil(self.group)
    }

    /// What was taken off a code that has a minimum.
    #[inline(always)]
    pub(crate) const fn middle(self) -> i32 {
        1 << (self.bits - 1)
    }

    /// The number of a code.
    pub(crate) fn number(self, code: u8, second_grid: bool) -> i32 {
        match self.bits {
            8 => i32::from(code) - 128,
            _ => i32::from(self.table[usize::from(code) + if second_grid { 16 } else { 0 }]) - 128,
        }
    }
}

impl Storage {
    pub(crate) fn new(codec: Codec, head_dim: usize, is_key: bool) -> Self {
        match codec {
            Codec::F16 => Self::Half,
            Codec::F8E4M3 { .. } => Self::Float8(Float8::E4M3),
            Codec::F8E5M2 { .. } => Self::Float8(Float8::E5M2),
            Codec::Int8 => {
                Self::Int(IntCode { positive: true, ..IntCode::new(8, head_dim.next_multiple_of(16), false, []) })
            }
            Codec::Lloyd { bits, group } => Self::Int(IntCode::lloyd(bits, group)),
            Codec::Kivi { bits } if is_key => Self::PerChannel { bits },
            Codec::Kivi { bits } => Self::Int(IntCode::new(bits, 32, true, -(1 << (bits - 1))..1 << (bits - 1))),
            Codec::Ggml(code) => Self::Int(match code {
                GgmlCode::Q8_0 => IntCode::new(8, 32, false, []),
                GgmlCode::Q5_1 => IntCode::new(5, 32, true, -16..16),
                GgmlCode::Q5_0 => IntCode::new(5, 32, false, -16..16),
                GgmlCode::Q4_1 => IntCode::new(4, 32, true, -8..8),
                GgmlCode::Q4_0 => IntCode::new(4, 32, false, -8..8),
                // ggml-common.h, kvalues_iq4nl.
                GgmlCode::Iq4Nl => IntCode::new(
                    4,
                    32,
                    false,
                    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113],
                ),
            }),
        }
    }
}

/// Offsets in the region of a head's keys or values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Region {
    pub(crate) storage: Storage,
    pub(crate) is_key: bool,
    /// Tokens of the block.
    pub(crate) tokens: usize,
    /// Padded channels.
    pub(crate) channels: usize,
    /// Of the plane of highest bits; the low ones begin at 0.
    pub(crate) high: usize,
    pub(crate) scales: usize,
    pub(crate) mins: usize,
    /// Bytes in all.
    pub(crate) len: usize,
}

/// Tokens that share a channel's step in KIVI's keys.
pub(crate) const KIVI_TOKENS: usize = 32;

impl Region {
    pub(crate) fn new(storage: Storage, is_key: bool, tokens: usize, channels: usize) -> Self {
        let region = |low: usize, high: usize, scales: usize, mins: usize| Self {
            storage,
            is_key,
            tokens,
            channels,
            high: low,
            scales: low + high,
            mins: low + high + scales,
            len: low + high + scales + mins,
        };
        let values = tokens * channels;
        match storage {
            Storage::Half => region(2 * values, 0, 0, 0),
            // One f32, on a line of its own.
            Storage::Float8(_) => region(values, 0, 64, 0),
            Storage::Int(code) => {
                let (outer, quads) = Self::outer_and_quads(is_key, tokens, channels);
                let low = outer * quads.div_ceil(8 / code.low_bits()) * 64;
                let high = if code.has_high() { outer * quads.div_ceil(8) * 64 } else { 0 };
                let scales = 2 * code.groups(channels) * tokens;
                region(low, high, scales, if code.min { scales } else { 0 })
            }
            Storage::PerChannel { bits } => {
                let steps = 2 * channels * (tokens / KIVI_TOKENS);
                region(values * usize::from(bits) / 8, 0, steps, steps)
            }
        }
    }

    fn outer_and_quads(is_key: bool, tokens: usize, channels: usize) -> (usize, usize) {
        if is_key { (tokens / 16, channels / 4) } else { (channels / 16, tokens / 4) }
    }

    /// Bytes of low bits, of highest bits, of one outer index.
    pub(crate) fn strides(&self, code: IntCode) -> (usize, usize) {
        let (_, quads) = Self::outer_and_quads(self.is_key, self.tokens, self.channels);
        (quads.div_ceil(8 / code.low_bits()) * 64, quads.div_ceil(8) * 64)
    }

    /// Outer index, quad, byte of the 64.
    #[inline(always)]
    fn place(&self, token: usize, channel: usize) -> (usize, usize, usize) {
        if self.is_key {
            (token / 16, channel / 4, token % 16 * 4 + channel % 4)
        } else {
            (channel / 16, token / 4, channel % 16 * 4 + token % 4)
        }
    }

    /// Of an f16 or a byte.
    #[inline(always)]
    pub(crate) fn element(&self, token: usize, channel: usize) -> usize {
        if self.is_key {
            (token / 16 * self.channels + channel) * 16 + token % 16
        } else {
            (channel / 16 * self.tokens + token) * 16 + channel % 16
        }
    }

    /// Writes a token's codes, one per channel, over what is there.
    ///
    /// # Safety
    /// The instruction set of S.
    #[inline(always)]
    #[allow(unsafe_code)]
    pub(crate) unsafe fn put_codes<S: Simd>(&self, code: IntCode, bytes: &mut [u8], token: usize, codes: &[u8]) {
        let (low, high) = bytes.split_at_mut(self.high);
        let high = &mut high[..self.scales - self.high];
        // SAFETY: the caller's.
        unsafe {
            match code.bits {
                8 => self.put_plane::<S, 8>(low, token, codes, 0),
                4 => self.put_plane::<S, 4>(low, token, codes, 0),
                2 => self.put_plane::<S, 2>(low, token, codes, 0),
                3 => {
                    self.put_plane::<S, 2>(low, token, codes, 0);
                    self.put_plane::<S, 1>(high, token, codes, 2);
                }
                _ => {
                    self.put_plane::<S, 4>(low, token, codes, 0);
                    self.put_plane::<S, 1>(high, token, codes, 4);
                }
            }
        }
    }

    /// `BITS` bits of each code, from bit `from` on.
    ///
    /// # Safety
    /// The instruction set of S.
    #[inline(always)]
    #[allow(unsafe_code)]
    unsafe fn put_plane<S: Simd, const BITS: usize>(&self, plane: &mut [u8], token: usize, codes: &[u8], from: u32) {
        let per = 8 / BITS;
        let mask = ((1u32 << BITS) - 1) as u8;
        let (_, quads) = Self::outer_and_quads(self.is_key, self.tokens, self.channels);
        let stride = quads.div_ceil(per) * 64;
        if self.is_key {
            let (tile, lane) = (token / 16, token % 16 * 4);
            let packs = plane[tile * stride..][..stride].as_chunks_mut::<64>().0;
            // Two quads of 8 codes, the second behind the first.
            let wide = u64::from_le_bytes([mask; 8]);
            let two = |codes: &[u8; 8]| {
                let x = (u64::from_le_bytes(*codes) >> from) & wide;
                (x | x >> (32 - BITS)) as u32
            };
            let put = |pack: &mut [u8; 64], word: u32| {
                if let Some(four) = pack[lane..].first_chunk_mut() {
                    *four = word.to_le_bytes();
                }
            };
            // Loops of known length, which become a few instructions a word.
            match BITS {
                8 => {
                    for (pack, quad) in packs.iter_mut().zip(codes.as_chunks::<4>().0) {
                        put(pack, u32::from_le_bytes(*quad));
                    }
                }
                4 => {
                    for (pack, codes) in packs.iter_mut().zip(codes.as_chunks::<8>().0) {
                        put(pack, two(codes));
                    }
                }
                2 => {
                    for (pack, codes) in packs.iter_mut().zip(codes.as_chunks::<16>().0) {
                        let eights = codes.as_chunks::<8>().0;
                        put(pack, two(&eights[0]) | two(&eights[1]) << 4);
                    }
                }
                _ => {
                    for (pack, codes) in packs.iter_mut().zip(codes.chunks(32)) {
                        let eights = codes.as_chunks::<8>().0.iter().enumerate();
                        put(pack, eights.fold(0, |word, (i, codes)| word | two(codes) << (2 * i)));
                    }
                }
            }
        } else {
            let (quad, sub) = (token / 4, token % 4);
            // A lane's four bytes as a little-endian number.
            let to = (quad % per * BITS + 8 * sub) as u32;
            for (chunk, codes) in plane.chunks_exact_mut(stride).zip(codes.as_chunks::<16>().0) {
                let Some(pack) = chunk[quad / per * 64..].first_chunk_mut::<64>() else { continue };
                // SAFETY: the caller's; 64 bytes, 16 codes.
                unsafe { S::put_fields(pack.as_mut_ptr(), codes.as_ptr(), from, BITS as u32, to) };
            }
        }
    }

    /// Makes a token's codes zero.
    pub(crate) fn clear_codes(&self, code: IntCode, bytes: &mut [u8], token: usize) {
        let (low_stride, high_stride) = self.strides(code);
        let bits = code.low_bits();
        let per = 8 / bits;
        for channel in 0..self.channels {
            let (outer, quad, at) = self.place(token, channel);
            let mask = (((1u32 << bits) - 1) << (quad % per * bits)) as u8;
            bytes[outer * low_stride + quad / per * 64 + at] &= !mask;
            if code.has_high() {
                bytes[self.high + outer * high_stride + quad / 8 * 64 + at] &= !(1 << (quad % 8));
            }
        }
    }

    /// A token's code of a channel.
    pub(crate) fn code(&self, code: IntCode, bytes: &[u8], token: usize, channel: usize) -> u8 {
        let (outer, quad, at) = self.place(token, channel);
        let (low_stride, high_stride) = self.strides(code);
        let per = 8 / code.low_bits();
        let low = bytes[outer * low_stride + quad / per * 64 + at] >> (quad % per * code.low_bits());
        let low = low & ((1u32 << code.low_bits()) - 1) as u8;
        match code.has_high() {
            true => {
                low | (bytes[self.high + outer * high_stride + quad / 8 * 64 + at] >> (quad % 8) & 1) << code.low_bits()
            }
            false => low,
        }
    }

    /// Where the scale of a token and group is; the minimum as far behind `mins`.
    #[inline(always)]
    pub(crate) fn scale_at(&self, group: usize, token: usize) -> usize {
        self.scales + 2 * (group * self.tokens + token)
    }

    /// Asks for the memory that a token's row is written to.
    ///
    /// # Safety
    /// The instruction set of S.
    #[inline(always)]
    #[allow(unsafe_code)]
    pub(crate) unsafe fn fetch<S: Simd>(&self, bytes: *const u8, token: usize) {
        let lines = |from: usize, count: usize, stride: usize| {
            for i in 0..count {
                // SAFETY: the caller's; an address is not read by asking for it.
                unsafe { S::prefetch_near(bytes.wrapping_add(from + i * stride)) };
            }
        };
        match self.storage {
            Storage::Half | Storage::Float8(_) => {
                let size = if self.storage == Storage::Half { 2 } else { 1 };
                let (from, run) = (size * self.element(token, 0), 16 * size);
                match self.is_key {
                    true => lines(from, self.channels * run / 64, 64),
                    false => lines(from, self.channels / 16, self.tokens * run),
                }
            }
            Storage::Int(code) => {
                let (low, high) = self.strides(code);
                let high = if code.has_high() { high } else { 0 };
                if self.is_key {
                    lines(token / 16 * low, low / 64, 64);
                    lines(self.high + token / 16 * high, high / 64, 64);
                } else {
                    let per = 8 / code.low_bits();
                    lines(token / 4 / per * 64, self.channels / 16, low);
                    lines(self.high + token / 32 * 64, if high > 0 { self.channels / 16 } else { 0 }, high);
                }
                lines(self.scale_at(0, token), code.groups(self.channels), 2 * self.tokens);
            }
            Storage::PerChannel { .. } => {}
        }
    }

    /// Where KIVI's step of a channel is, for the 32 tokens around `token`.
    pub(crate) fn step_at(&self, token: usize, channel: usize) -> usize {
        self.scales + 2 * (token / KIVI_TOKENS * self.channels + channel)
    }
}
