//! A block: some tokens' keys and values of all heads of a layer, codes, scales and means in one run of bytes.

use crate::aligned::AlignedBytes;
use crate::codec::Codec;
use crate::encode::{Scratch, encode_channel, encode_rows, largest, put_row};
use crate::grids;
use crate::layout::{KIVI_TOKENS, Region, Storage};
use crate::plan::Plan;
use crate::pool::Share;
use crate::simd::{Isa, Op, Simd};
use half::f16;
use std::ops::Range;

/// A block. Bytes of tokens behind `len` are zero.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    /// False: half precision.
    pub(crate) coded: bool,
    /// Tokens held, and at most.
    pub(crate) len: usize,
    pub(crate) capacity: usize,
    /// Of the first token, as its key was turned.
    pub(crate) position: i64,
    pub(crate) data: AlignedBytes,
    /// Its bytes in a pool.
    pub(crate) share: Option<Share>,
    /// Hash of this and all blocks before, once it is full and in a pool that shares; and that of the block before.
    pub(crate) chain: Option<([u8; 32], Option<[u8; 32]>)>,
}

impl Block {
    pub(crate) fn new(plan: &Plan, coded: bool, capacity: usize, position: i64, share: Option<Share>) -> Self {
        let data = AlignedBytes::zeroed(plan.layout(coded).bytes);
        let mut block = Self { coded, len: 0, capacity, position, data, share, chain: None };
        let (spec, layout) = (&plan.spec, plan.layout(coded));
        for (region, codec) in [(&layout.key, spec.key.codec), (&layout.value, spec.value.codec)] {
            if let (Storage::Float8(_), Some(scale)) = (region.storage, given_scale(codec)) {
                for head in 0..spec.kv_heads {
                    let (keys, values, _) = block.head_mut(plan, head);
                    region.store_scale(if region.is_key { keys } else { values }, scale);
                }
            }
        }
        block
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len == self.capacity
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>() + self.data.allocated()
    }

    pub(crate) fn head(&self, plan: &Plan, head: usize) -> &[u8] {
        let len = plan.layout(self.coded).head;
        &self.data.bytes()[head * len..][..len]
    }

    /// Keys and values of a head, and its mean.
    #[inline(always)]
    fn head_mut(&mut self, plan: &Plan, head: usize) -> (&mut [u8], &mut [u8], &mut [u8]) {
        let layout = plan.layout(self.coded);
        let head = &mut self.data.bytes_mut()[head * layout.head..][..layout.head];
        let (keys, rest) = head.split_at_mut(layout.key.len);
        let (values, mean) = rest.split_at_mut(layout.value.len);
        (keys, values, mean)
    }

    /// Writes the rows of these heads and tokens, `[heads][tokens][channels]`: centred (but for the block's mean), rotated and padded; at most what a
    /// [`Scratch`] takes. Gives how many 8-bit floats were too large.
    ///
    /// # Safety
    /// The instruction set of S.
    #[inline(always)]
    #[allow(unsafe_code)]
    pub(crate) unsafe fn put<S: Simd>(
        &mut self,
        plan: &Plan,
        heads: Range<usize>,
        tokens: Range<usize>,
        keys: &mut [f32],
        values: &[f32],
        scratch: &mut Scratch,
    ) -> usize {
        let (n, layout) = (plan.channels, *plan.layout(self.coded));
        if layout.mean.is_some() {
            for (keys, head) in keys.chunks_exact_mut(tokens.len() * n).zip(heads.clone()) {
                let (_, _, mean) = self.head_mut(plan, head);
                for key in keys.chunks_exact_mut(n) {
                    for (x, mean) in key.iter_mut().zip(mean.as_chunks::<2>().0) {
                        *x -= f16::from_le_bytes(*mean).to_f32();
                    }
                }
            }
        }
        let mut clipped = 0;
        let sides = [(&layout.key, plan.spec.key.codec, &*keys), (&layout.value, plan.spec.value.codec, values)];
        for (region, codec, rows) in sides {
            // SAFETY: the caller's.
            unsafe { encode_rows::<S>(region, codec, rows, scratch) };
            let mut at = 0;
            for head in heads.clone() {
                let (keys, values, _) = self.head_mut(plan, head);
                let bytes = if region.is_key { keys } else { values };
                let scale = region.stored_scale(bytes);
                for token in tokens.clone() {
                    // SAFETY: the caller's.
                    clipped += unsafe { put_row::<S>(region, &rows[at * n..][..n], scale, scratch, at, bytes, token) };
                    at += 1;
                }
            }
        }
        clipped
    }

    /// Asks for the memory that a token of a head is written to.
    ///
    /// # Safety
    /// The instruction set of S.
    #[inline(always)]
    #[allow(unsafe_code)]
    pub(crate) unsafe fn fetch<S: Simd>(&self, plan: &Plan, head: usize, token: usize) {
        let layout = plan.layout(self.coded);
        let (keys, values) = self.head(plan, head).split_at(layout.key.len);
        // SAFETY: the caller's.
        unsafe {
            layout.key.fetch::<S>(keys.as_ptr(), token);
            layout.value.fetch::<S>(values.as_ptr(), token);
        }
    }

    /// A head's key and value of a token, as attention sees them: rotated, centred but for the block's mean.
    pub(crate) fn get(&self, plan: &Plan, head: usize, token: usize, key: &mut [f32], value: &mut [f32]) {
        let layout = plan.layout(self.coded);
        let bytes = self.head(plan, head);
        for (region, bytes, out) in
            [(&layout.key, &bytes[..layout.key.len], key), (&layout.value, &bytes[layout.key.len..], value)]
        {
            (0..out.len()).for_each(|c| out[c] = region.value(bytes, token, c));
            if let Some(at) = layout.mean.filter(|_| region.is_key) {
                let mean = self.head(plan, head)[at..].as_chunks::<2>().0;
                out.iter_mut().zip(mean).for_each(|(x, mean)| *x += f16::from_le_bytes(*mean).to_f32());
            }
        }
    }

    /// The codes of a block in half precision.
    pub(crate) fn encode(&self, plan: &Plan, share: Option<Share>) -> Self {
        let mut coded = Self::new(plan, true, self.capacity, self.position, share);
        coded.len = self.len;
        let n = plan.channels;
        let mut keys = vec![0.0; self.len * n];
        let mut values = keys.clone();
        let mut scratch = Scratch::new();
        for head in 0..plan.spec.kv_heads {
            for (t, (key, value)) in keys.chunks_exact_mut(n).zip(values.chunks_exact_mut(n)).enumerate() {
                self.get(plan, head, t, key, value);
            }
            coded.set_head_constants(plan, head, &keys, &values);
            let rows = Scratch::rows(n);
            for (i, (keys, values)) in keys.chunks_mut(rows * n).zip(values.chunks(rows * n)).enumerate() {
                let (block, scratch) = (&mut coded, &mut scratch);
                let tokens = i * rows..i * rows + keys.len() / n;
                Isa::best().run(Put { block, plan, heads: head..head + 1, tokens, keys, values, scratch });
            }
            if let Storage::PerChannel { bits } = plan.coded.key.storage {
                let (bytes, _, _) = coded.head_mut(plan, head);
                put_channels(&plan.coded.key, bits, &keys, bytes);
            }
        }
        coded
    }

    /// Mean of keys, scales of 8-bit floats, from all of a head's values.
    fn set_head_constants(&mut self, plan: &Plan, head: usize, keys: &[f32], values: &[f32]) {
        let layout = plan.layout(self.coded);
        let (spec, tokens) = (&plan.spec, self.len);
        let mut centred = keys.to_vec();
        let (key_bytes, value_bytes, mean_bytes) = self.head_mut(plan, head);
        if layout.mean.is_some() {
            for (c, bytes) in mean_bytes.as_chunks_mut::<2>().0.iter_mut().take(plan.channels).enumerate() {
                let channel = keys.iter().skip(c).step_by(plan.channels);
                let mean = f16::from_f32((channel.map(|&x| f64::from(x)).sum::<f64>() / tokens as f64) as f32);
                *bytes = mean.to_le_bytes();
                centred.iter_mut().skip(c).step_by(plan.channels).for_each(|x| *x -= mean.to_f32());
            }
        }
        let sides = [
            (&layout.key, spec.key.codec, &centred[..], key_bytes),
            (&layout.value, spec.value.codec, values, value_bytes),
        ];
        for (region, codec, x, bytes) in sides {
            if let (Storage::Float8(format), None) = (region.storage, given_scale(codec)) {
                region.store_scale(bytes, largest(x) / format.largest());
            }
        }
    }

    /// A block of codes back in half precision: the values that the codes stand for.
    pub(crate) fn stage(&self, plan: &Plan) -> Self {
        let mut staged = Self::new(plan, false, self.capacity, self.position, self.share.as_ref().map(Share::another));
        staged.len = self.len;
        let mut scratch = Scratch::new();
        let (mut key, mut value) = (vec![0.0; plan.channels], vec![0.0; plan.channels]);
        for head in 0..plan.spec.kv_heads {
            for t in 0..self.len {
                self.get(plan, head, t, &mut key, &mut value);
                let (block, keys, values, scratch) = (&mut staged, &mut key[..], &value[..], &mut scratch);
                let (heads, tokens) = (head..head + 1, t..t + 1);
                Isa::best().run(Put { block, plan, heads, tokens, keys, values, scratch });
            }
        }
        staged
    }

    /// Forgets the tokens from `len` on: their bytes become zero.
    pub(crate) fn truncate(&mut self, plan: &Plan, len: usize) {
        self.chain = None;
        (len..self.len).for_each(|token| self.clear(plan, token));
        self.len = len;
    }

    /// Zero bytes for a token.
    pub(crate) fn clear(&mut self, plan: &Plan, token: usize) {
        for head in 0..plan.spec.kv_heads {
            let layout = plan.layout(self.coded);
            let (keys, values, _) = self.head_mut(plan, head);
            layout.key.clear(keys, token);
            layout.value.clear(values, token);
        }
    }
}

/// [`Block::put`] by itself.
struct Put<'a> {
    block: &'a mut Block,
    plan: &'a Plan,
    heads: Range<usize>,
    tokens: Range<usize>,
    keys: &'a mut [f32],
    values: &'a [f32],
    scratch: &'a mut Scratch,
}

impl Op for Put<'_> {
    type Output = usize;

    #[inline(always)]
    #[allow(unsafe_code)]
    fn run<S: Simd>(self) -> usize {
        let Self { block, plan, heads, tokens, keys, values, scratch } = self;
        // SAFETY: `Isa::run` has the instruction set.
        unsafe { block.put::<S>(plan, heads, tokens, keys, values, scratch) }
    }
}

fn given_scale(codec: Codec) -> Option<f32> {
    match codec {
        Codec::F8E4M3 { scale } | Codec::F8E5M2 { scale } => scale,
        _ => None,
    }
}

/// KIVI's keys, `[tokens][channels]`, into a region; tokens are whole 32s.
fn put_channels(region: &Region, bits: u8, keys: &[f32], bytes: &mut [u8]) {
    let (n, per) = (region.channels, usize::from(8 / bits));
    let mut codes = [0; KIVI_TOKENS];
    for (g, keys) in keys.chunks_exact(KIVI_TOKENS * n).enumerate() {
        for c in 0..n {
            let channel: Vec<f32> = keys.iter().skip(c).step_by(n).copied().collect();
            let (step, min) = encode_channel(bits, &channel, &mut codes);
            let at = region.step_at(g * KIVI_TOKENS, c);
            bytes[at..at + 2].copy_from_slice(&step.to_le_bytes());
            let at = at + region.mins - region.scales;
            bytes[at..at + 2].copy_from_slice(&min.to_le_bytes());
            for (t, code) in codes.iter().enumerate() {
                let token = g * KIVI_TOKENS + t;
                let at = (token / 16 * (n / per) + c / per) * 16 + token % 16;
                bytes[at] |= code << (c % per * usize::from(bits));
            }
        }
    }
}

impl Region {
    /// The scale of 8-bit floats; 1 for other codecs.
    #[inline(always)]
    pub(crate) fn stored_scale(&self, bytes: &[u8]) -> f32 {
        match self.storage {
            Storage::Float8(_) => f32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[self.scales + i])),
            _ => 1.0,
        }
    }

    fn store_scale(&self, bytes: &mut [u8], scale: f32) {
        bytes[self.scales..][..4].copy_from_slice(&scale.to_le_bytes());
    }

    /// The number that the codes of a token and channel stand for. One by one: what attention is tested against.
    pub(crate) fn value(&self, bytes: &[u8], token: usize, channel: usize) -> f32 {
        let half = |at: usize| f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32();
        match self.storage {
            Storage::Half => half(2 * self.element(token, channel)),
            Storage::Float8(format) => format.decode(bytes[self.element(token, channel)]) * self.stored_scale(bytes),
            Storage::Int(code) => {
                let at = self.scale_at(channel / code.group, token);
                let (scale, second_grid) = match code.paired {
                    true => grids::unpack(
                        u16::from_le_bytes([bytes[at], bytes[at + 1]]),
                        channel % code.group / code.part(),
                    ),
                    false => (half(at), false),
                };
                let number = code.number(self.code(code, bytes, token, channel), second_grid);
                match code.min {
                    true => scale * (number + code.middle()) as f32 + half(at + self.mins - self.scales),
                    false => scale * number as f32,
                }
            }
            Storage::PerChannel { bits } => {
                let per = usize::from(8 / bits);
                let byte = bytes[(token / 16 * (self.channels / per) + channel / per) * 16 + token % 16];
                let code = byte >> (channel % per * usize::from(bits)) & ((1u32 << bits) - 1) as u8;
                let at = self.step_at(token, channel);
                half(at) * f32::from(code) + half(at + self.mins - self.scales)
            }
        }
    }

    /// Zero bytes for a token.
    fn clear(&self, bytes: &mut [u8], token: usize) {
        match self.storage {
            Storage::Half => (0..self.channels).for_each(|c| bytes[2 * self.element(token, c)..][..2].fill(0)),
            Storage::Float8(_) => (0..self.channels).for_each(|c| bytes[self.element(token, c)] = 0),
            Storage::Int(code) => {
                self.clear_codes(code, bytes, token);
                for g in 0..code.groups(self.channels) {
                    let at = self.scale_at(g, token);
                    bytes[at..at + 2].fill(0);
                    if code.min {
                        bytes[at + self.mins - self.scales..][..2].fill(0);
                    }
                }
            }
            // Blocks of KIVI are staged before they are cut.
            Storage::PerChannel { .. } => {}
        }
    }
}
