//! Keys and values of one layer of one sequence.

use crate::block::Block;
use crate::centre::{Angles, ByChannel};
use crate::codec::Codec;
use crate::encode::{MAX_CHANNELS, Scratch, ggml_bytes, ggml_row_len, largest};
use crate::error::{shape, unsupported};
use crate::layout::{Region, Storage};
use crate::plan::Plan;
use crate::pool::{Pool, PrefixHash, Share};
use crate::rotate::rotate;
use crate::simd::{Isa, Op, Simd};
use crate::spec::KvSpec;
use crate::{Error, Result};
use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// The quantized keys and values of one layer of one sequence.
///
/// Keys are given *after* their rotary embedding, at the positions [`next_position`](Self::next_position) onward; what a centre before it takes away, the
/// cache computes. Queries are given after theirs.
///
/// A code once written never changes. What a token's codes are depends on its values alone (and its position, through the centre), so that
/// appending one by one or many at a time, forking and cutting give the same bytes as a straight build. With [`Centre::BlockMean`](crate::Centre), KIVI
/// and 8-bit floats without a given scale they also depend on the other tokens of the block: there, the bytes are those of a straight build as long
/// as no block of codes was cut. With [`KvSpec::recent`], tokens appended after a cut into a block of codes become codes at once.
///
/// A clone, or [`fork`](Self::fork), shares all blocks; a block is copied when one of its owners writes to it.
#[derive(Clone, Debug)]
pub struct LayerCache {
    pub(crate) plan: Arc<Plan>,
    pub(crate) blocks: VecDeque<Slot>,
    len: usize,
    next_position: i64,
    pool: Option<Arc<Pool>>,
    clipped: u64,
    /// Where the last key's centre was.
    angles: Angles,
}

/// A block in a sequence.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) block: Arc<Block>,
    /// Added to the block's positions.
    pub(crate) shift: i64,
}

/// Memory of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUse {
    /// Bytes of blocks of codes.
    pub coded: usize,
    /// Bytes of blocks in half precision: first tokens, recent tokens, and the block that is not full yet where codes need full ones.
    pub half: usize,
}

impl LayerCache {
    /// An empty cache.
    ///
    /// # Errors
    /// What [`KvSpec::validate`] finds.
    pub fn new(spec: KvSpec) -> Result<Self> {
        Self::with_plan(Plan::new(spec)?, None)
    }

    /// An empty cache whose blocks count in `pool`.
    ///
    /// # Errors
    /// What [`KvSpec::validate`] finds.
    pub fn in_pool(spec: KvSpec, pool: Arc<Pool>) -> Result<Self> {
        Self::with_plan(Plan::new(spec)?, Some(pool))
    }

    fn with_plan(plan: Plan, pool: Option<Arc<Pool>>) -> Result<Self> {
        let (blocks, angles) = (VecDeque::new(), Angles::default());
        Ok(Self { plan: Arc::new(plan), blocks, len: 0, next_position: 0, pool, clipped: 0, angles })
    }

    /// An empty cache of the same specification and pool.
    pub fn new_like(&self) -> Self {
        Self { blocks: VecDeque::new(), len: 0, next_position: 0, clipped: 0, ..self.clone() }
    }

    /// What it was made from.
    pub fn spec(&self) -> &KvSpec {
        &self.plan.spec
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Position of the next token: one behind the last.
    pub fn next_position(&self) -> i64 {
        self.next_position
    }

    /// How many values were too large for the given scale of 8-bit floats, and became the largest.
    pub fn clipped(&self) -> u64 {
        self.clipped
    }

    /// Appends `tokens` rows. Row `t` of keys is `keys[t * stride..][..kv_heads * head_dim]`, of values the same of `values`.
    ///
    /// # Errors
    /// [`Error::Shape`] for slices too short, [`Error::NonFinite`], [`Error::Overflow`], [`Error::PoolFull`]. The cache then holds the tokens it held.
    pub fn append(&mut self, keys: &[f32], values: &[f32], stride: usize, tokens: usize) -> Result<()> {
        let (heads, d) = (self.plan.spec.kv_heads, self.plan.spec.head_dim);
        let need = tokens.checked_sub(1).map_or(Some(0), |rows| rows.checked_mul(stride)?.checked_add(heads * d));
        for (what, slice) in [("values of keys", keys), ("values of values", values)] {
            if need.is_none_or(|need| slice.len() < need) || (tokens > 1 && stride < heads * d) {
                return shape(what, format!("{tokens} rows of {} values, {stride} apart", heads * d), slice.len());
            }
        }
        let before = self.len;
        for t in 0..tokens {
            let range = t * stride..t * stride + heads * d;
            if let Err(e) = self.append_token(t, &keys[range.clone()], &values[range]) {
                self.truncate(before);
                return Err(e);
            }
        }
        if let Err(e) = self.encode_full_blocks() {
            self.truncate(before);
            return Err(e);
        }
        Ok(())
    }

    fn append_token(&mut self, index: usize, keys: &[f32], values: &[f32]) -> Result<()> {
        let plan = self.plan.clone();
        if self.blocks.back().is_none_or(|slot| slot.block.is_full() || self.is_apart(slot)) {
            let sinks = self.blocks.is_empty() && plan.spec.sinks > 0;
            let coded = plan.immediate && !sinks;
            let capacity = if sinks { plan.spec.sinks } else { plan.spec.block };
            let share = self.share(coded)?;
            let block = Block::new(&plan, coded, capacity, self.next_position, share);
            self.blocks.push_back(Slot { block: Arc::new(block), shift: 0 });
        }
        let Some(slot) = self.blocks.back_mut() else { return Ok(()) };
        if Arc::get_mut(&mut slot.block).is_none() {
            let bytes = slot.block.memory();
            let share = self.pool.as_ref().map(|pool| pool.take(bytes)).transpose()?;
            slot.block = Arc::new(slot.block.copy(share));
        }
        let Some(block) = Arc::get_mut(&mut slot.block) else { return Ok(()) };
        let mut space = WORKSPACE.take().unwrap_or_default();
        let (angles, space_of) = (&mut self.angles, &mut *space);
        let token = PutToken { plan: &plan, block, index, keys, values, angles, space: space_of };
        let written = Isa::best().run(token);
        WORKSPACE.set(Some(space));
        self.clipped += written? as u64;
        self.len += 1;
        self.next_position += 1;
        if self.blocks.back().is_some_and(|slot| slot.block.is_full()) {
            self.unify(self.blocks.len() - 1);
        }
        Ok(())
    }

    /// True if the next position does not follow the block's tokens.
    fn is_apart(&self, slot: &Slot) -> bool {
        slot.block.position + slot.block.len as i64 != self.next_position || slot.shift != 0
    }

    /// Bytes of a new block in the pool.
    fn share(&self, coded: bool) -> Result<Option<Share>> {
        let bytes = size_of::<Block>() + self.plan.layout(coded).bytes.next_multiple_of(64);
        self.pool.as_ref().map(|pool| pool.take(bytes)).transpose()
    }

    /// Makes codes of blocks in half precision that are full and old enough.
    fn encode_full_blocks(&mut self) -> Result<()> {
        let plan = self.plan.clone();
        let mut newer = 0;
        for i in (0..self.blocks.len()).rev() {
            let block = &self.blocks[i].block;
            let is_sink = i == 0 && plan.spec.sinks > 0 && block.capacity == plan.spec.sinks;
            if block.coded || is_sink {
                break;
            }
            if !plan.immediate && block.is_full() && newer >= plan.spec.recent {
                // The block in half precision goes when the codes are there: its room serves the codes.
                let coded = self.plan.layout(true).bytes.next_multiple_of(64) + size_of::<Block>();
                let share = self.pool.as_ref().map(|pool| pool.take(coded)).transpose()?;
                self.blocks[i].block = Arc::new(block.encode(&plan, share));
            }
            newer += self.blocks[i].block.len;
        }
        for i in 0..self.blocks.len() {
            self.unify(i);
        }
        Ok(())
    }

    /// Shares a full block that will not change with other caches of the pool.
    fn unify(&mut self, i: usize) {
        let Some(pool) = &self.pool else { return };
        let before = i.checked_sub(1).and_then(|b| self.blocks.get(b)?.block.chain);
        let sinks = i == 0 && self.plan.spec.sinks > 0;
        if let Some(slot) = self.blocks.get_mut(i)
            && slot.shift == 0
            && slot.block.is_full()
            && (slot.block.coded || sinks)
        {
            pool.unify(&self.plan, &mut slot.block, before.map(|(chain, _)| chain), i == 0);
        }
    }

    /// Another sequence with the same tokens so far: all blocks are shared.
    pub fn fork(&self) -> Self {
        self.clone()
    }

    /// Forgets all but the first `len` tokens held.
    ///
    /// A block of KIVI's that is cut goes back to half precision, with the values that its codes stood for.
    pub fn truncate(&mut self, len: usize) {
        while self.len > len {
            let Some(slot) = self.blocks.back_mut() else { return };
            let drop = self.len - len;
            if slot.block.len <= drop {
                self.len -= slot.block.len;
                self.next_position = slot.block.position + slot.shift;
                self.blocks.pop_back();
                continue;
            }
            let keep = slot.block.len - drop;
            if slot.block.coded && matches!(self.plan.coded.key.storage, Storage::PerChannel { .. }) {
                slot.block = Arc::new(slot.block.stage(&self.plan));
            }
            Arc::make_mut(&mut slot.block).truncate(&self.plan, keep);
            self.len = len;
            self.next_position = slot.block.position + slot.shift + keep as i64;
        }
        if self.blocks.is_empty() {
            self.next_position = 0;
        }
    }

    /// Forgets whole blocks that lie before token `before` of those held, but not the first tokens kept as sinks. Gives the number forgotten.
    ///
    /// Positions stay: the next token's is what it would have been.
    pub fn evict(&mut self, before: usize) -> usize {
        let first = usize::from(self.plan.spec.sinks > 0);
        let mut end: usize = self.blocks.iter().take(first).map(|slot| slot.block.len).sum();
        let mut evicted = 0;
        while let Some(slot) = self.blocks.get(first)
            && end + slot.block.len <= before
        {
            // The last block stays: the next token is written behind it.
            if self.blocks.len() == first + 1 {
                break;
            }
            end += slot.block.len;
            evicted += slot.block.len;
            self.blocks.remove(first);
        }
        self.len -= evicted;
        evicted
    }

    /// Adds `delta` to the positions of the tokens from `from` on, of those held, as if their keys had been turned so much further. Their codes stay
    /// as they are: queries are turned back when they meet them.
    ///
    /// # Errors
    /// [`Error::Unsupported`] without a rotary embedding in the specification, [`Error::Shape`] if `from` is not at the beginning of a block.
    pub fn shift(&mut self, from: usize, delta: i64) -> Result<()> {
        if self.plan.spec.rope.is_none() {
            return unsupported("a shift of positions", "the specification has no rotary embedding");
        }
        let mut start = 0;
        let mut at = None;
        for (i, slot) in self.blocks.iter().enumerate() {
            if start == from {
                at = Some(i);
            }
            start += slot.block.len;
        }
        let Some(at) = at.or((from == self.len).then_some(self.blocks.len())) else {
            return shape("first token of a shift", "the first of a block", from);
        };
        self.blocks.range_mut(at..).for_each(|slot| slot.shift += delta);
        self.next_position += delta;
        Ok(())
    }

    /// Hashes of the prefixes of full blocks, shortest first; empty if the pool does not share.
    pub fn prefixes(&self) -> Vec<PrefixHash> {
        self.blocks.iter().map_while(|slot| Some(PrefixHash(slot.block.chain?.0))).collect()
    }

    /// A cache of the same specification with this prefix, if some cache of the pool still holds it.
    pub fn with_prefix(&self, prefix: PrefixHash) -> Option<Self> {
        let blocks = self.pool.as_ref()?.prefix(prefix)?;
        let mut cache = self.new_like();
        for block in blocks {
            cache.len += block.len;
            cache.next_position = block.position + block.len as i64;
            cache.blocks.push_back(Slot { block, shift: 0 });
        }
        Some(cache)
    }

    /// Bytes that a token costs as codes, in a long sequence: blocks' bytes and what manages them.
    pub fn bytes_per_token(&self) -> f64 {
        let bytes = self.plan.coded.bytes.next_multiple_of(64) + size_of::<Block>() + size_of::<Slot>();
        bytes as f64 / self.plan.spec.block as f64
    }

    /// Bits of a key's or value's number, scales and means included: `(keys, values)`.
    pub fn bits_per_value(&self) -> (f64, f64) {
        let layout = &self.plan.coded;
        let values = (self.plan.spec.block * self.plan.spec.head_dim) as f64;
        let mean = if layout.mean.is_some() { 2 * self.plan.channels } else { 0 };
        (8.0 * (layout.key.len + mean) as f64 / values, 8.0 * layout.value.len as f64 / values)
    }

    /// Bytes of memory held; a block that other caches share counts in full.
    pub fn memory(&self) -> MemoryUse {
        let of = |coded| {
            let blocks = self.blocks.iter().filter(|slot| slot.block.coded == coded);
            blocks.map(|slot| slot.block.memory() + size_of::<Slot>()).sum()
        };
        MemoryUse { coded: of(true), half: of(false) }
    }

    /// Bytes of a block in half precision.
    pub fn bytes_of_half_block(&self) -> usize {
        self.plan.staged.bytes.next_multiple_of(64) + size_of::<Block>() + size_of::<Slot>()
    }

    /// Key and value of a token and head, `head_dim` each: what attention sees, in the space of the rows that were given (the key turned for the
    /// position it was appended at, whatever was shifted since).
    ///
    /// # Errors
    /// [`Error::Shape`] if there is no such token or head, or a slice has another length.
    pub fn dequantize(&self, token: usize, head: usize, key: &mut [f32], value: &mut [f32]) -> Result<()> {
        let (plan, d) = (&self.plan, self.plan.spec.head_dim);
        if head >= plan.spec.kv_heads {
            return shape("head", format!("less than {}", plan.spec.kv_heads), head);
        }
        for (what, len) in [("values of a key", key.len()), ("values of a value", value.len())] {
            if len != d {
                return shape(what, d.to_string(), len);
            }
        }
        let (slot, at) = self.find(token)?;
        self.read(slot, at, head, key, value);
        Ok(())
    }

    /// All keys and values held, as [`dequantize`](Self::dequantize) gives each: `[kv_heads, len, head_dim]` both.
    ///
    /// # Errors
    /// [`Error::Shape`] if a slice has another length.
    pub fn dequantize_all(&self, keys: &mut [f32], values: &mut [f32]) -> Result<()> {
        let (plan, d) = (&self.plan, self.plan.spec.head_dim);
        let need = plan.spec.kv_heads * self.len * d;
        for (what, found) in [("values of keys", keys.len()), ("values of values", values.len())] {
            if found != need {
                return shape(what, need.to_string(), found);
            }
        }
        let heads = keys.chunks_exact_mut((self.len * d).max(1)).zip(values.chunks_exact_mut((self.len * d).max(1)));
        for (head, (keys, values)) in heads.enumerate() {
            let mut rows = keys.chunks_exact_mut(d).zip(values.chunks_exact_mut(d));
            for slot in &self.blocks {
                for (at, (key, value)) in rows.by_ref().take(slot.block.len).enumerate() {
                    self.read(slot, at, head, key, value);
                }
            }
        }
        Ok(())
    }

    /// [`dequantize`](Self::dequantize) of a token of a block.
    fn read(&self, slot: &Slot, at: usize, head: usize, key: &mut [f32], value: &mut [f32]) {
        let (plan, d) = (&self.plan, self.plan.spec.head_dim);
        let (mut k, mut v) = ([0.0; MAX_CHANNELS], [0.0; MAX_CHANNELS]);
        slot.block.get(plan, head, at, &mut k[..plan.channels], &mut v[..plan.channels]);
        plan.key_rotation.apply(&mut k[..d]);
        plan.value_rotation.apply(&mut v[..d]);
        let (mut angles, mut by_channel) = (Angles::default(), ByChannel::new());
        plan.centres.turn_to(slot.block.position + at as i64, &mut angles);
        plan.centres.by_channel(&angles, &mut by_channel);
        plan.centres.subtract(head, &by_channel, -1.0, &mut k[..d]);
        key.copy_from_slice(&k[..d]);
        value.copy_from_slice(&v[..d]);
    }

    fn find(&self, token: usize) -> Result<(&Slot, usize)> {
        let mut at = token;
        for slot in &self.blocks {
            match at.checked_sub(slot.block.len) {
                Some(rest) => at = rest,
                None => return Ok((slot, at)),
            }
        }
        shape("token", format!("less than {}", self.len), token)
    }

    /// ggml's bytes of a token's keys (`values` false) or values of a head: what llama.cpp has in its cache for the same row.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for other codecs and tokens in half precision, [`Error::Shape`] if there is no such token or head.
    pub fn ggml_row(&self, token: usize, head: usize, values: bool) -> Result<Vec<u8>> {
        let plan = &self.plan;
        if head >= plan.spec.kv_heads {
            return shape("head", format!("less than {}", plan.spec.kv_heads), head);
        }
        let (slot, at) = self.find(token)?;
        let side = if values { plan.spec.value } else { plan.spec.key };
        let region: &Region = if values { &plan.coded.value } else { &plan.coded.key };
        let (Codec::Ggml(ty), Storage::Int(code), true) = (side.codec, region.storage, slot.block.coded) else {
            return unsupported(side.to_string(), "the token is not in blocks of ggml");
        };
        let head = slot.block.head(plan, head);
        let bytes = if values { &head[plan.coded.key.len..] } else { head };
        let codes: Vec<u8> = (0..plan.channels).map(|c| region.code(code, bytes, at, c)).collect();
        let halves = |from: usize| -> Vec<u16> {
            let one = |g| {
                let at = region.scale_at(g, at) - region.scales + from;
                u16::from_le_bytes([bytes[at], bytes[at + 1]])
            };
            (0..code.groups(plan.channels)).map(one).collect()
        };
        let mins = if code.min { halves(region.mins) } else { Vec::new() };
        let mut out = vec![0; ggml_row_len(ty, plan.channels)];
        ggml_bytes(ty, &codes, &halves(region.scales), &mins, &mut out);
        Ok(out)
    }

    /// For a cache read from bytes.
    pub(crate) fn push_block(&mut self, block: Block, shift: i64) {
        self.len += block.len;
        self.next_position = block.position + shift + block.len as i64;
        self.blocks.push_back(Slot { block: Arc::new(block), shift });
    }

    /// The pool's room for a block read from bytes.
    pub(crate) fn share_for(&self, coded: bool) -> Result<Option<Share>> {
        self.share(coded)
    }
}

impl Block {
    /// The same content, to be written to.
    fn copy(&self, share: Option<Share>) -> Self {
        let (coded, len, capacity, position) = (self.coded, self.len, self.capacity, self.position);
        Self { coded, len, capacity, position, data: self.data.clone(), share, chain: None }
    }
}

/// Some heads' rows of a token, `[heads][channels]`, and their codes.
struct Workspace {
    keys: [f32; Scratch::VALUES],
    values: [f32; Scratch::VALUES],
    angles: ByChannel,
    scratch: Scratch,
}

impl Default for Workspace {
    fn default() -> Self {
        let values = [0.0; Scratch::VALUES];
        Self { keys: values, values, angles: ByChannel::new(), scratch: Scratch::new() }
    }
}

thread_local! {
    /// Kept, for it is needed for each token.
    static WORKSPACE: Cell<Option<Box<Workspace>>> = const { Cell::new(None) };
}

/// A token's rows of all heads: centred, rotated, checked, written.
struct PutToken<'a> {
    plan: &'a Plan,
    block: &'a mut Block,
    /// For errors.
    index: usize,
    keys: &'a [f32],
    values: &'a [f32],
    angles: &'a mut Angles,
    space: &'a mut Workspace,
}

impl Op for PutToken<'_> {
    type Output = Result<usize>;

    #[inline(always)]
    #[allow(unsafe_code)]
    fn run<S: Simd>(self) -> Result<usize> {
        let Self { plan, block, index, keys, values, angles, space } = self;
        let (d, n, kv_heads) = (plan.spec.head_dim, plan.channels, plan.spec.kv_heads);
        let token = block.len;
        plan.centres.turn_to(block.position + token as i64, angles);
        plan.centres.by_channel(angles, &mut space.angles);
        let (mut clipped, mut from) = (0, 0);
        while from < kv_heads {
            let heads = from..(from + Scratch::rows(n)).min(kv_heads);
            from = heads.end;
            let len = heads.len() * n;
            let rows = space.keys[..len].chunks_exact_mut(n).zip(space.values[..len].chunks_exact_mut(n));
            for (head, (key, value)) in heads.clone().zip(rows) {
                key[..d].copy_from_slice(&keys[head * d..][..d]);
                value[..d].copy_from_slice(&values[head * d..][..d]);
                key[d..].fill(0.0);
                value[d..].fill(0.0);
                plan.centres.subtract(head, &space.angles, 1.0, &mut key[..d]);
                // SAFETY: `Isa::run` has the instruction set.
                unsafe {
                    block.fetch::<S>(plan, head, token);
                    rotate::<S>(&plan.key_rotation, &mut key[..d]);
                    rotate::<S>(&plan.value_rotation, &mut value[..d]);
                }
            }
            let (key_rows, value_rows) = (&mut space.keys[..len], &space.values[..len]);
            // SAFETY: as above; whole 16s.
            let small = unsafe { are_small::<S>(key_rows) && are_small::<S>(value_rows) };
            if !small && let Some(e) = refusal(index, heads.clone(), d, [(keys, key_rows), (values, value_rows)]) {
                // What other heads have written already.
                block.clear(plan, token);
                return Err(e);
            }
            // SAFETY: as above.
            clipped +=
                unsafe { block.put::<S>(plan, heads, token..token + 1, key_rows, value_rows, &mut space.scratch) };
        }
        block.len += 1;
        Ok(clipped)
    }
}

/// The largest number in half precision.
const HALF_MAX: f32 = 65504.0;

/// True if the length of all values together is within half precision, and with it every one. False for NaN.
///
/// # Safety
/// The instruction set of S; whole 16s.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn are_small<S: Simd>(x: &[f32]) -> bool {
    // SAFETY: the caller's; 16 values each.
    unsafe {
        // Several sums, so that an addition need not wait for the one before.
        let mut sums = [S::splat(0.0); 4];
        for x in x.as_chunks::<64>().0 {
            for (i, sum) in sums.iter_mut().enumerate() {
                let x = S::load(x.as_ptr().add(16 * i));
                *sum = S::fma(x, x, *sum);
            }
        }
        for x in x.as_chunks::<64>().1.as_chunks::<16>().0 {
            let x = S::load(x.as_ptr());
            sums[0] = S::fma(x, x, sums[0]);
        }
        S::sum(S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3]))) <= HALF_MAX * HALF_MAX
    }
}

/// The first row of a head that cannot be stored: of keys and of values, what was given for all heads, and the padded rows of these heads.
#[cold]
#[inline(never)]
fn refusal(token: usize, heads: Range<usize>, d: usize, sides: [(&[f32], &[f32]); 2]) -> Option<Error> {
    let n = sides[0].1.len() / heads.len();
    for (i, head) in heads.enumerate() {
        for (side, (given, rows)) in ["key", "value"].into_iter().zip(sides) {
            let given = &given[head * d..][..d];
            if let Some(channel) = given.iter().position(|v| !v.is_finite()) {
                return Some(Error::NonFinite { side, token, head, channel, value: given[channel] });
            }
            let value = largest(&rows[i * n..][..n]);
            if value.is_nan() || value > HALF_MAX {
                return Some(Error::Overflow { side, token, head, value });
            }
        }
    }
    None
}
