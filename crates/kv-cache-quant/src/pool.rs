//! Memory that caches share: a limit, and full blocks of the same content kept once.

use crate::block::Block;
use crate::plan::Plan;
use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

/// A bound on the bytes of any number of caches, which may also share their prefixes.
///
/// A block that becomes full is looked up by a hash of its content and of all blocks before it; caches that were fed the same tokens from the start
/// hold the same blocks, once. The blocks' bytes are compared before they are shared.
#[derive(Debug)]
pub struct Pool {
    limit: usize,
    sharing: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    full: HashMap<[u8; 32], Weak<Block>>,
    /// Size of `full` at which dead entries are swept out.
    sweep: usize,
}

/// The hash of a prefix of full blocks: what [`LayerCache::prefixes`](crate::LayerCache::prefixes) gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PrefixHash(pub [u8; 32]);

impl Pool {
    /// A pool of at most `limit` bytes of blocks.
    pub fn new(limit: usize, sharing: bool) -> Arc<Self> {
        Arc::new(Self { limit, sharing, state: Mutex::default() })
    }

    /// Bytes of blocks held by caches of this pool, shared ones once.
    pub fn used(&self) -> usize {
        self.state().used
    }

    /// Most bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves counts and a map, both whole.
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Room for a block.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Result<Share> {
        let mut state = self.state();
        let free = self.limit.saturating_sub(state.used);
        if bytes > free {
            return Err(Error::PoolFull { limit: self.limit, free, needed: bytes });
        }
        state.used += bytes;
        drop(state);
        Ok(Share { pool: self.clone(), bytes })
    }

    /// The same content in the pool, or the block itself from now on. `before`: the chain hash of the block before.
    pub(crate) fn unify(&self, plan: &Plan, block: &mut Arc<Block>, before: Option<[u8; 32]>, first: bool) {
        if !self.sharing || block.chain.is_some() || (before.is_none() && !first) {
            return;
        }
        let mut hash = Sha256::new();
        hash.update(before.unwrap_or(plan.digest));
        hash.update([u8::from(block.coded)]);
        hash.update((block.len as u64).to_le_bytes());
        hash.update(block.position.to_le_bytes());
        hash.update(block.data.bytes());
        let chain: [u8; 32] = hash.finalize().into();
        let mut state = self.state();
        let same = state.full.get(&chain).and_then(Weak::upgrade).filter(|other| other.same_content(block));
        let replaced = match same {
            Some(other) => Some(std::mem::replace(block, other)),
            None => {
                if let Some(own) = Arc::get_mut(block) {
                    own.chain = Some((chain, before));
                    state.full.insert(chain, Arc::downgrade(block));
                }
                None
            }
        };
        if state.full.len() >= state.sweep.max(64) {
            state.full.retain(|_, block| block.strong_count() > 0);
            state.sweep = 2 * state.full.len();
        }
        // Dropping a block takes the lock.
        drop(state);
        drop(replaced);
    }

    /// The blocks of a prefix, if all are still held by some cache.
    pub(crate) fn prefix(&self, hash: PrefixHash) -> Option<Vec<Arc<Block>>> {
        let state = self.state();
        let mut blocks = Vec::new();
        let mut next = Some(hash.0);
        while let Some(chain) = next {
            let block = state.full.get(&chain)?.upgrade()?;
            next = block.chain?.1;
            blocks.push(block);
        }
        drop(state);
        blocks.reverse();
        Some(blocks)
    }
}

/// A block's bytes in a pool, given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    pool: Arc<Pool>,
    bytes: usize,
}

impl Share {
    /// For a copy of the block, even beyond the limit: to cut a block that others share must not fail.
    pub(crate) fn another(&self) -> Self {
        self.pool.state().used += self.bytes;
        Self { pool: self.pool.clone(), bytes: self.bytes }
    }
}

impl Clone for Share {
    fn clone(&self) -> Self {
        self.another()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        state.used = state.used.saturating_sub(self.bytes);
    }
}

impl Block {
    fn same_content(&self, other: &Self) -> bool {
        (self.coded, self.len, self.position) == (other.coded, other.len, other.position)
            && self.data.bytes() == other.data.bytes()
    }
}
