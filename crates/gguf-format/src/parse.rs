//! A bounded cursor over untrusted bytes, and the walk over a metadata value that proves it well formed.

use crate::limits::Limits;
use crate::value::ValueType;
use crate::{Error, Result};
use std::fmt;

/// The part of the file an error is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part<'a> {
    Header,
    KeyNumber(u64),
    Key(&'a str),
    TensorNumber(u64),
    Tensor(&'a str),
    Named(&'a str),
}

impl fmt::Display for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("header"),
            Self::KeyNumber(n) => write!(f, "key number {n}"),
            Self::Key(key) => write!(f, "key `{}`", key.escape_debug()),
            Self::TensorNumber(n) => write!(f, "tensor number {n}"),
            Self::Tensor(name) => write!(f, "tensor `{}`", name.escape_debug()),
            Self::Named(name) => f.write_str(name),
        }
    }
}

impl Part<'_> {
    pub(crate) fn malformed(self, offset: usize, expected: impl Into<String>, found: impl fmt::Display) -> Error {
        Error::Malformed {
            what: self.to_string(),
            offset: offset as u64,
            expected: expected.into(),
            found: found.to_string(),
        }
    }
}

/// Reads little-endian values from front to back; every read is checked.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, pos: 0 }
    }

    pub(crate) fn pos(&self) -> usize {
        self.pos
    }

    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.pos
    }

    /// The bytes from `start` to the position.
    pub(crate) fn since(&self, start: usize) -> &'a [u8] {
        self.bytes.get(start..self.pos).unwrap_or_default()
    }

    pub(crate) fn take(&mut self, len: u64, part: Part<'_>) -> Result<&'a [u8]> {
        let short = || part.malformed(self.pos, format!("{len} bytes"), format_args!("{} left", self.left()));
        let end = usize::try_from(len).ok().and_then(|n| self.pos.checked_add(n)).ok_or_else(short)?;
        let bytes = self.bytes.get(self.pos..end).ok_or_else(short)?;
        self.pos = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, part: Part<'_>) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, part)?);
        Ok(out)
    }

    pub(crate) fn u32(&mut self, part: Part<'_>) -> Result<u32> {
        self.array(part).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, part: Part<'_>) -> Result<u64> {
        self.array(part).map(u64::from_le_bytes)
    }

    /// A count of things that take at least `each` bytes.
    pub(crate) fn count(&mut self, each: u64, limit: u64, of: &str, part: Part<'_>) -> Result<u64> {
        let at = self.pos;
        let n = self.u64(part)?;
        let room = (self.left() as u64 / each.max(1)).min(limit);
        if n > room {
            return Err(part.malformed(at, format!("at most {room} {of}"), n));
        }
        Ok(n)
    }

    /// A string: u64 length, bytes.
    pub(crate) fn string(&mut self, limit: u64, part: Part<'_>) -> Result<&'a [u8]> {
        let len = self.count(1, limit, "bytes of string", part)?;
        self.take(len, part)
    }

    /// A string that names something, so it must be UTF-8.
    pub(crate) fn name(&mut self, limit: u64, part: Part<'_>) -> Result<&'a str> {
        let at = self.pos;
        let bytes = self.string(limit, part)?;
        std::str::from_utf8(bytes)
            .map_err(|_| part.malformed(at, "a name in UTF-8", format_args!("{:?}", String::from_utf8_lossy(bytes))))
    }

    /// Walks over one value of type `ty`, checking everything in it.
    pub(crate) fn skip_value(&mut self, ty: ValueType, limits: &Limits, part: Part<'_>) -> Result<()> {
        match ty {
            ValueType::STRING => self.string(limits.string_bytes, part).map(drop),
            ValueType::ARRAY => self.skip_array(limits, limits.array_depth, part),
            _ => match ty.fixed_size() {
                Some(size) => self.take(size as u64, part).map(drop),
                None => Err(part.malformed(self.pos, "a value type from 0 to 12", ty.0)),
            },
        }
    }

    fn skip_array(&mut self, limits: &Limits, depth: u32, part: Part<'_>) -> Result<()> {
        let at = self.pos;
        if depth == 0 {
            return Err(part.malformed(at, format!("arrays nested at most {} deep", limits.array_depth), "more"));
        }
        let element = ValueType(self.u32(part)?);
        let each = match element {
            ValueType::STRING => 8,
            ValueType::ARRAY => 12,
            _ => element.fixed_size().ok_or_else(|| part.malformed(at, "an element type from 0 to 12", element.0))?
                as u64,
        };
        let count = self.count(each, limits.array_elements, "elements", part)?;
        match element {
            ValueType::STRING => (0..count).try_for_each(|_| self.string(limits.string_bytes, part).map(drop)),
            ValueType::ARRAY => (0..count).try_for_each(|_| self.skip_array(limits, depth - 1, part)),
            // The count was held against the bytes left, so the product is at most their number.
            _ => self.take(count * each, part).map(drop),
        }
    }
}

/// Checks that `bytes` are exactly one value of type `ty`.
pub(crate) fn check_value(ty: ValueType, bytes: &[u8]) -> Result<()> {
    let part = Part::Named("value");
    let mut cursor = Cursor::new(bytes);
    cursor.skip_value(ty, &Limits::default(), part)?;
    if cursor.left() > 0 {
        return Err(part.malformed(cursor.pos(), "the end of the value", format_args!("{} bytes more", cursor.left())));
    }
    Ok(())
}

/// Bytes of the array value at the start of `bytes`, which were checked before; `None` if they are not one.
pub(crate) fn array_len(bytes: &[u8]) -> Option<usize> {
    let no_limits = Limits { string_bytes: u64::MAX, array_elements: u64::MAX, array_depth: 64, ..Limits::default() };
    let mut cursor = Cursor::new(bytes);
    cursor.skip_value(ValueType::ARRAY, &no_limits, Part::Header).ok()?;
    Some(cursor.pos())
}
