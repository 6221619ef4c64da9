//! A specification made ready: block layouts, rotations, centres.

use crate::Result;
use crate::centre::Centres;
use crate::codec::{Codec, Side};
use crate::layout::{Region, Storage};
use crate::spec::{Centre, KvSpec};
use quant_core::rotation::Rotation;
use sha2::{Digest, Sha256};

/// Where the heads of a block lie: `[kv_heads]` of `[keys][values][mean of keys]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockLayout {
    pub(crate) key: Region,
    pub(crate) value: Region,
    /// Offset in a head of the mean of keys, half precision, and whether there is one.
    pub(crate) mean: Option<usize>,
    /// Bytes of a head.
    pub(crate) head: usize,
    /// Bytes of a block.
    pub(crate) bytes: usize,
}

impl BlockLayout {
    fn new(key: Storage, value: Storage, mean: bool, spec: &KvSpec, channels: usize) -> Self {
        let key = Region::new(key, true, spec.block, channels);
        let value = Region::new(value, false, spec.block, channels);
        let end = key.len + value.len;
        let head = (end + if mean { 2 * channels } else { 0 }).next_multiple_of(64);
        Self { key, value, mean: mean.then_some(end), head, bytes: head * spec.kv_heads }
    }
}

/// What caches of one specification share.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) spec: KvSpec,
    /// Of a head, padded to whole 16s.
    pub(crate) channels: usize,
    /// Blocks in half precision.
    pub(crate) staged: BlockLayout,
    /// Blocks of codes.
    pub(crate) coded: BlockLayout,
    pub(crate) key_rotation: Rotation,
    pub(crate) value_rotation: Rotation,
    pub(crate) centres: Centres,
    /// True if tokens are written as codes as they come.
    pub(crate) immediate: bool,
    /// Of all that decides what bytes mean.
    pub(crate) digest: [u8; 32],
}

impl Plan {
    pub(crate) fn new(spec: KvSpec) -> Result<Self> {
        spec.validate()?;
        let channels = spec.head_dim.next_multiple_of(16);
        let storage = |side: Side, is_key| Storage::new(side.codec, spec.head_dim, is_key);
        let mean = spec.centre == Centre::BlockMean;
        let by_token = |side: Side, is_key: bool| match side.codec {
            Codec::F8E4M3 { scale } | Codec::F8E5M2 { scale } => scale.is_some(),
            Codec::Kivi { .. } => !is_key,
            _ => true,
        };
        Ok(Self {
            channels,
            staged: BlockLayout::new(Storage::Half, Storage::Half, false, &spec, channels),
            coded: BlockLayout::new(storage(spec.key, true), storage(spec.value, false), mean, &spec, channels),
            key_rotation: spec.key_rotation(),
            value_rotation: spec.value_rotation(),
            centres: Centres::new(&spec),
            immediate: by_token(spec.key, true) && by_token(spec.value, false) && !mean && spec.recent == 0,
            digest: digest(&spec),
            spec,
        })
    }

    pub(crate) fn layout(&self, coded: bool) -> &BlockLayout {
        if coded { &self.coded } else { &self.staged }
    }
}

/// SHA-256 over the specification's parts, each with its length before it.
fn digest(spec: &KvSpec) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut put = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for n in [spec.kv_heads, spec.head_dim, spec.block, spec.sinks, spec.recent] {
        put(&(n as u64).to_le_bytes());
    }
    for side in [spec.key, spec.value] {
        put(side.to_string().as_bytes());
    }
    let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    match &spec.centre {
        Centre::None => put(b"none"),
        Centre::BlockMean => put(b"block mean"),
        Centre::Constant(mean) => {
            put(b"constant");
            put(&floats(mean));
        }
        Centre::BeforeRope { mean, pairs } => {
            put(b"before rope");
            put(&(*pairs as u64).to_le_bytes());
            put(&floats(mean));
        }
    }
    if let Some(rope) = &spec.rope {
        put(format!("{:?}", rope.layout).as_bytes());
        put(&rope.frequencies.iter().chain([&rope.magnitude]).flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
    }
    hash.finalize().into()
}
