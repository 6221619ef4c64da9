//! A bounded cursor over untrusted bytes, and the walk over a metadata value that proves it well formed.

use crate::byte_order::{ByteOrder, swap_each};
use crate::limits::Limits;
use crate::value::{Value, ValueType};
use crate::{Error, Result};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

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
            Self::Key(key) => write!(f, "key `{}`", Shown(key)),
            Self::TensorNumber(n) => write!(f, "tensor number {n}"),
            Self::Tensor(name) => write!(f, "tensor `{}`", Shown(name)),
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// A name for people: control characters escaped, its end left out where it is long.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 100;
        self.0.chars().take(MOST).try_for_each(|c| write!(f, "{}", c.escape_debug()))?;
        if self.0.chars().nth(MOST).is_some() { f.write_str("...") } else { Ok(()) }
    }
}

impl Part<'_> {
    pub(crate) fn malformed(self, offset: u64, expected: impl Into<String>, found: impl fmt::Display) -> Error {
        Error::Malformed { what: self.to_string(), offset, expected: expected.into(), found: found.to_string() }
    }
}

/// How the numbers of a header are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Encoding {
    pub(crate) order: ByteOrder,
    /// Version 1: counts, lengths and dimensions are u32, not u64.
    pub(crate) narrow: bool,
}

impl Encoding {
    /// Bytes of a count or length.
    pub(crate) fn length_bytes(self) -> u64 {
        if self.narrow { 4 } else { 8 }
    }
}

/// Reads from front to back; every read is checked.
///
/// The bytes may be only the beginning of a file. What lies behind them and yet in the file gives an error, too, and [`Cursor::is_short`].
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    pos: usize,
    /// Bytes of the whole file.
    file_len: u64,
    pub(crate) encoding: Encoding,
    /// Where the header must end.
    bound: u64,
    /// Counts and lengths read so far.
    lengths: usize,
    short: bool,
}

impl<'a> Cursor<'a> {
    /// Over a whole file, little endian, lengths in u64.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self::prefix(bytes, bytes.len() as u64)
    }

    /// Over the beginning of a file of `file_len` bytes.
    pub(crate) fn prefix(bytes: &'a [u8], file_len: u64) -> Self {
        Self { bytes, pos: 0, file_len, encoding: Encoding::default(), bound: u64::MAX, lengths: 0, short: false }
    }

    /// Sets the most bytes that a header may have.
    pub(crate) fn set_bound(&mut self, bound: u64) {
        self.bound = bound;
    }

    pub(crate) fn pos(&self) -> u64 {
        self.pos as u64
    }

    /// Bytes of the file that are left.
    pub(crate) fn left(&self) -> u64 {
        self.file_len.saturating_sub(self.pos as u64)
    }

    /// True once something was asked for that lies in the file but behind the bytes at hand.
    pub(crate) fn is_short(&self) -> bool {
        self.short
    }

    pub(crate) fn take(&mut self, len: u64, part: Part<'_>) -> Result<&'a [u8]> {
        let end = usize::try_from(len).ok().and_then(|n| self.pos.checked_add(n));
        if let Some(end) = end
            && let Some(bytes) = self.bytes.get(self.pos..end)
            && end as u64 <= self.bound
        {
            self.pos = end;
            return Ok(bytes);
        }
        if self.pos().saturating_add(len) > self.bound {
            return Err(part.malformed(self.pos(), format!("a header of at most {} bytes", self.bound), "more"));
        }
        self.short = len <= self.left();
        Err(part.malformed(self.pos(), format!("{len} bytes"), format_args!("{} left", self.left())))
    }

    fn array<const N: usize>(&mut self, part: Part<'_>) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, part)?);
        Ok(out)
    }

    pub(crate) fn u32(&mut self, part: Part<'_>) -> Result<u32> {
        self.array(part).map(|b| self.encoding.order.u32(b))
    }

    pub(crate) fn u64(&mut self, part: Part<'_>) -> Result<u64> {
        self.array(part).map(|b| self.encoding.order.u64(b))
    }

    /// A count, length or dimension.
    pub(crate) fn length(&mut self, part: Part<'_>) -> Result<u64> {
        self.lengths += 1;
        if self.encoding.narrow { self.u32(part).map(u64::from) } else { self.u64(part) }
    }

    /// A count of things that take at least `each` bytes.
    pub(crate) fn count(&mut self, each: u64, limit: u64, of: &str, part: Part<'_>) -> Result<u64> {
        let at = self.pos();
        let n = self.length(part)?;
        let room = (self.left() / each.max(1)).min(limit);
        if n > room {
            return Err(part.malformed(at, format!("at most {room} {of}"), n));
        }
        Ok(n)
    }

    /// A string: length, bytes.
    pub(crate) fn string(&mut self, limit: u64, part: Part<'_>) -> Result<&'a [u8]> {
        let len = self.count(1, limit, "bytes of string", part)?;
        self.take(len, part)
    }

    /// A string that names something, so it must be UTF-8.
    pub(crate) fn name(&mut self, limit: u64, part: Part<'_>) -> Result<&'a str> {
        let at = self.pos();
        let bytes = self.string(limit, part)?;
        core::str::from_utf8(bytes).map_err(|_| {
            let start = bytes.get(..64).unwrap_or(bytes);
            part.malformed(at, "a name in UTF-8", format_args!("{:?}", String::from_utf8_lossy(start)))
        })
    }

    /// Reads one value of type `ty`, checking everything in it.
    pub(crate) fn value(&mut self, ty: ValueType, limits: &Limits, part: Part<'_>) -> Result<Value> {
        let (start, lengths) = (self.pos, self.lengths);
        self.skip_value(ty, limits, part)?;
        let bytes = self.bytes.get(start..self.pos).unwrap_or_default();
        if self.encoding == Encoding::default() {
            return Ok(Value::from_checked(ty, bytes.into()));
        }
        let wider = if self.encoding.narrow { 4 * (self.lengths - lengths) } else { 0 };
        let mut out = Vec::with_capacity(bytes.len() + wider);
        recode(ty, bytes, self.encoding, ByteOrder::Little, &mut out)?;
        Ok(Value::from_checked(ty, out.into()))
    }

    /// Walks over one value of type `ty`, checking everything in it.
    fn skip_value(&mut self, ty: ValueType, limits: &Limits, part: Part<'_>) -> Result<()> {
        match ty {
            ValueType::STRING => self.string(limits.string_bytes, part).map(drop),
            ValueType::ARRAY => self.skip_array(limits, limits.array_depth.min(MAX_DEPTH), part),
            _ => match ty.fixed_size() {
                Some(size) => self.take(size as u64, part).map(drop),
                None => Err(part.malformed(self.pos(), "a value type from 0 to 12", ty.0)),
            },
        }
    }

    fn skip_array(&mut self, limits: &Limits, depth: u32, part: Part<'_>) -> Result<()> {
        let at = self.pos();
        if depth == 0 {
            let most = limits.array_depth.min(MAX_DEPTH);
            return Err(part.malformed(at, format!("arrays nested at most {most} deep"), "more"));
        }
        let element = ValueType(self.u32(part)?);
        let each = match element {
            ValueType::STRING => self.encoding.length_bytes(),
            ValueType::ARRAY => 4 + self.encoding.length_bytes(),
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

/// Arrays in arrays are walked by recursion; deeper ones are refused whatever the limits say.
const MAX_DEPTH: u32 = 64;

/// No bounds but those of the bytes: for what was checked before.
const NO_LIMITS: Limits = Limits {
    metadata: u64::MAX,
    tensors: u64::MAX,
    key_bytes: u64::MAX,
    string_bytes: u64::MAX,
    array_elements: u64::MAX,
    array_depth: MAX_DEPTH,
    header_bytes: u64::MAX,
    name_bytes: u64::MAX,
    dims: u32::MAX,
};

/// Appends a value that was checked, `from` one encoding to lengths of u64 in the byte order `to`.
pub(crate) fn recode(ty: ValueType, bytes: &[u8], from: Encoding, to: ByteOrder, out: &mut Vec<u8>) -> Result<()> {
    let mut cursor = Cursor::new(bytes);
    cursor.encoding = from;
    recode_next(ty, &mut cursor, to, out)
}

fn recode_next(ty: ValueType, cursor: &mut Cursor<'_>, to: ByteOrder, out: &mut Vec<u8>) -> Result<()> {
    let part = Part::Named("value");
    match ty {
        ValueType::STRING => recode_string(cursor, to, out),
        ValueType::ARRAY => {
            let element = ValueType(cursor.u32(part)?);
            let count = cursor.length(part)?;
            out.extend_from_slice(&to.u32_bytes(element.0));
            out.extend_from_slice(&to.u64_bytes(count));
            match element.fixed_size() {
                Some(size) => recode_numbers(count.saturating_mul(size as u64), size, cursor, to, out),
                None if element == ValueType::STRING => (0..count).try_for_each(|_| recode_string(cursor, to, out)),
                None => (0..count).try_for_each(|_| recode_next(element, cursor, to, out)),
            }
        }
        _ => {
            let size = ty.fixed_size().ok_or_else(|| part.malformed(0, "a value type from 0 to 12", ty.0))?;
            recode_numbers(size as u64, size, cursor, to, out)
        }
    }
}

fn recode_string(cursor: &mut Cursor<'_>, to: ByteOrder, out: &mut Vec<u8>) -> Result<()> {
    let string = cursor.string(u64::MAX, Part::Named("value"))?;
    out.extend_from_slice(&to.u64_bytes(string.len() as u64));
    out.extend_from_slice(string);
    Ok(())
}

fn recode_numbers(len: u64, size: usize, cursor: &mut Cursor<'_>, to: ByteOrder, out: &mut Vec<u8>) -> Result<()> {
    let start = out.len();
    out.extend_from_slice(cursor.take(len, Part::Named("value"))?);
    if cursor.encoding.order != to {
        swap_each(out.get_mut(start..).unwrap_or_default(), size);
    }
    Ok(())
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
    let mut cursor = Cursor::new(bytes);
    cursor.skip_value(ValueType::ARRAY, &NO_LIMITS, Part::Header).ok()?;
    Some(cursor.pos)
}
