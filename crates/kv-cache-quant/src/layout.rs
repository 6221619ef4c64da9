//! Where the codes of a block lie.
//!
//! A block holds `tokens` (32 or 64) tokens of every head; a head's keys and values are regions of their own. Codes lie as the inner products of
//! [`attend`](crate::attend) take them: 64 bytes are four steps of the sum for each of 16 results, so that nothing is added across lanes.
//!
//! - Keys: results are tokens, steps are channels. `[tile of 16 tokens][4 channels][token][channel of the 4]`.
//! - Values: results are channels, steps are tokens. `[16 channels][4 tokens][channel][token of the 4]`.
//!
//! A *quad* is the four steps. Codes of fewer than 8 bits put several quads into the same 64 bytes, low bits first: 4-bit codes two, 2-bit codes four;
//! of 3 and 5 bits the highest bit lies apart, eight quads in 64 bytes. Scales (and minima) are `[group][token]`, half precision, little endian.
//!
//! Channels are padded to a multiple of 16.

use crate::codec::{Codec, GgmlCode};
pub(crate) use quant_core::float8::Float8;
use quant_core::lloyd_max::lloyd_max_levels;

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
    /// Channels that share a scale.
    pub(crate) group: usize,
    /// Whether there is a minimum. The number of a code is then the code less [`IntCode::middle`], so that sums of numbers are not all positive.
    pub(crate) min: bool,
    /// Whether the sign of a scale chooses between the first and the last 16 of the table.
    pub(crate) two_grids: bool,
    /// The numbers, plus 128. Unused for 8 bits, whose codes are the numbers plus 128.
    pub(crate) table: [u8; 32],
}

impl IntCode {
    fn new(bits: u8, group: usize, min: bool, numbers: impl IntoIterator<Item = i32>) -> Self {
        let mut table = [128; 32];
        table.iter_mut().zip(numbers).for_each(|(entry, n)| *entry = (n + 128) as u8);
        Self { bits, group, min, two_grids: false, table }
    }

    /// The levels of [`lloyd_max_levels`], and an even grid of about the same span.
    pub(crate) fn lloyd(bits: u8, group: usize) -> Self {
        let levels = lloyd_max_levels(bits).unwrap_or(&[]);
        let mut code = Self::new(bits, group, false, []);
        for (i, &level) in levels.iter().enumerate() {
            let (up, down) = (levels.len() + i, levels.len() - 1 - i);
            let even = even_step(bits) * (2 * i as i16 + 1);
            for (at, level) in [(0, i16::from(level)), (16, even)] {
                (code.table[at + up], code.table[at + down]) = ((128 + level) as u8, (128 - level) as u8);
            }
        }
        Self { two_grids: true, ..code }
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

/// Half a step of the even grid: levels are its odd multiples, the largest about that of the other grid.
pub(crate) const fn even_step(bits: u8) -> i16 {
    1 << (7 - bits)
}

impl Storage {
    pub(crate) fn new(codec: Codec, head_dim: usize, is_key: bool) -> Self {
        match codec {
            Codec::F16 => Self::Half,
            Codec::F8E4M3 { .. } => Self::Float8(Float8::E4M3),
            Codec::F8E5M2 { .. } => Self::Float8(Float8::E5M2),
            Codec::Int8 => Self::Int(IntCode::new(8, head_dim.next_multiple_of(16), false, [])),
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
    #[inline(always)]
    pub(crate) fn put_codes(&self, code: IntCode, bytes: &mut [u8], token: usize, codes: &[u8]) {
        match code.bits {
            8 => self.put_plane::<8>(&mut bytes[..self.high], token, codes, 0),
            4 => self.put_plane::<4>(&mut bytes[..self.high], token, codes, 0),
            2 => self.put_plane::<2>(&mut bytes[..self.high], token, codes, 0),
            3 => {
                self.put_plane::<2>(&mut bytes[..self.high], token, codes, 0);
                self.put_plane::<1>(&mut bytes[self.high..self.scales], token, codes, 2);
            }
            _ => {
                self.put_plane::<4>(&mut bytes[..self.high], token, codes, 0);
                self.put_plane::<1>(&mut bytes[self.high..self.scales], token, codes, 4);
            }
        }
    }

    /// `BITS` bits of each code, from bit `from` on.
    #[inline(always)]
    fn put_plane<const BITS: usize>(&self, plane: &mut [u8], token: usize, codes: &[u8], from: u32) {
        let per = 8 / BITS;
        let mask = ((1u32 << BITS) - 1) as u8;
        let (_, quads) = Self::outer_and_quads(self.is_key, self.tokens, self.channels);
        let stride = quads.div_ceil(per) * 64;
        if self.is_key {
            let (tile, lane) = (token / 16, token % 16 * 4);
            let wide = u32::from_ne_bytes([mask; 4]);
            let tile = &mut plane[tile * stride..][..stride];
            for (pack, codes) in tile.as_chunks_mut::<64>().0.iter_mut().zip(codes.chunks(4 * per)) {
                let mut word = 0;
                for (j, quad) in codes.as_chunks::<4>().0.iter().enumerate() {
                    word |= ((u32::from_ne_bytes(*quad) >> from) & wide) << (j * BITS);
                }
                pack[lane..lane + 4].copy_from_slice(&word.to_ne_bytes());
            }
        } else {
            let (quad, sub) = (token / 4, token % 4);
            // A lane's four bytes as a little-endian number.
            let shift = quad % per * BITS + 8 * sub;
            let mask = u32::from(mask);
            let keep = !(mask << shift);
            for (chunk, codes) in plane.chunks_exact_mut(stride).zip(codes.as_chunks::<16>().0) {
                let Some(pack) = chunk[quad / per * 64..].first_chunk_mut::<64>() else { continue };
                let fours = pack.as_chunks_mut::<4>().0;
                for i in 0..16 {
                    let code = (u32::from(codes[i]) >> from & mask) << shift;
                    fours[i] = (u32::from_le_bytes(fours[i]) & keep | code).to_le_bytes();
                }
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

    /// Where KIVI's step of a channel is, for the 32 tokens around `token`.
    pub(crate) fn step_at(&self, token: usize, channel: usize) -> usize {
        self.scales + 2 * (token / KIVI_TOKENS * self.channels + channel)
    }
}
