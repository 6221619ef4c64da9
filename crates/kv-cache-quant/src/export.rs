//! A cache as bytes, and back.
//!
//! Little endian: the magic `QKVC`, a version, the digest of the specification, the number of blocks; per block whether it holds codes, tokens,
//! capacity, position, shift, bytes, each 8 bytes, and the bytes; at the end SHA-256 of all before.

use crate::block::Block;
use crate::cache::LayerCache;
use crate::{Error, Result};
use sha2::{Digest, Sha256};

const MAGIC: [u8; 4] = *b"QKVC";
/// 2: groups of two scales and grids.
const VERSION: u32 = 2;

impl LayerCache {
    /// All that the cache holds. The same content gives the same bytes.
    pub fn export(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend(self.plan.digest);
        out.extend((self.blocks.len() as u64).to_le_bytes());
        for slot in &self.blocks {
            let block = &slot.block;
            let bytes = block.data.bytes();
            for n in [u64::from(block.coded), block.len as u64, block.capacity as u64] {
                out.extend(n.to_le_bytes());
            }
            out.extend(block.position.to_le_bytes());
            out.extend(slot.shift.to_le_bytes());
            out.extend((bytes.len() as u64).to_le_bytes());
            out.extend(bytes);
        }
        let digest: [u8; 32] = Sha256::digest(&out).into();
        out.extend(digest);
        out
    }

    /// A cache of this one's specification and pool with what [`export`](Self::export) gave.
    ///
    /// # Errors
    /// [`Error::Malformed`] for bytes that are damaged or of another specification, [`Error::PoolFull`].
    pub fn import(&self, bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader { bytes, at: 0 };
        reader.equal("magic", &MAGIC)?;
        reader.equal("version", &VERSION.to_le_bytes())?;
        let Some((content, digest)) = bytes.split_last_chunk::<32>() else {
            return malformed(bytes.len(), "end", "a digest", "nothing");
        };
        if Sha256::digest(content).as_slice() != digest {
            return malformed(content.len(), "digest", "that of the bytes before", "another");
        }
        reader.bytes = content;
        reader.equal("specification", &self.plan.digest)?;
        let blocks = reader.number("blocks")?;
        let mut cache = self.new_like();
        for i in 0..blocks {
            let block = self.read_block(&mut reader, i == 0)?;
            cache.push_block(block.0, block.1);
        }
        match reader.bytes.len() - reader.at {
            0 => Ok(cache),
            rest => malformed(reader.at, "end", "nothing more", format!("{rest} bytes")),
        }
    }

    fn read_block(&self, reader: &mut Reader<'_>, first: bool) -> Result<(Block, i64)> {
        let plan = &self.plan;
        let at = reader.at;
        let coded = match reader.number("kind")? {
            0 => false,
            1 => true,
            n => return malformed(at, "kind", "0 or 1", n.to_string()),
        };
        let at = reader.at;
        let (len, capacity) = (reader.number("tokens")?, reader.number("capacity")?);
        let sinks = first && plan.spec.sinks > 0 && !coded;
        let full = if sinks { plan.spec.sinks } else { plan.spec.block } as u64;
        if capacity != full || len == 0 || len > capacity {
            return malformed(at, "tokens", format!("1 to {full} of {full}"), format!("{len} of {capacity}"));
        }
        let at = reader.at;
        let (position, shift) = (reader.signed("position")?, reader.signed("shift")?);
        // Sums of positions and shifts cannot overflow then.
        if position.unsigned_abs() > 1 << 60 || shift.unsigned_abs() > 1 << 60 {
            return malformed(at, "position", "at most 2^60", format!("{position} and {shift}"));
        }
        let mut block = Block::new(plan, coded, capacity as usize, position, self.share_for(coded)?);
        let at = reader.at;
        let bytes = reader.number("bytes")?;
        if bytes != block.data.bytes().len() as u64 {
            return malformed(at, "bytes", block.data.bytes().len().to_string(), bytes.to_string());
        }
        block.data.bytes_mut().copy_from_slice(reader.take("block", bytes as usize)?);
        block.len = len as usize;
        Ok((block, shift))
    }
}

fn malformed<T>(offset: usize, what: &'static str, expected: impl Into<String>, found: impl Into<String>) -> Result<T> {
    Err(Error::Malformed { offset, what, expected: expected.into(), found: found.into() })
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, what: &'static str, len: usize) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        match rest.get(..len) {
            Some(bytes) => {
                self.at += len;
                Ok(bytes)
            }
            None => malformed(self.at, what, format!("{len} bytes"), format!("{} bytes", rest.len())),
        }
    }

    fn equal(&mut self, what: &'static str, expected: &[u8]) -> Result<()> {
        let at = self.at;
        let found = self.take(what, expected.len())?;
        if found == expected {
            Ok(())
        } else {
            malformed(at, what, format!("{expected:02x?}"), format!("{found:02x?}"))
        }
    }

    fn number(&mut self, what: &'static str) -> Result<u64> {
        Ok(self.signed(what)? as u64)
    }

    fn signed(&mut self, what: &'static str) -> Result<i64> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.take(what, 8)?);
        Ok(i64::from_le_bytes(bytes))
    }
}
