//! Typed, borrowing iteration over an array value.

use crate::value::{ValueType, ValueView};
use crate::{Error, Result};
use alloc::format;
use alloc::string::ToString;
use core::fmt;

/// A typed view of an array value; elements are decoded on the way, strings are borrowed.
///
/// Copying it copies a few words, whatever the length of the array.
#[derive(Clone, Copy, Debug)]
pub struct Array<'a> {
    key: &'a str,
    element: ValueType,
    count: usize,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// From the bytes of an array value that were checked: u32 element type, u64 count, elements.
    pub(crate) fn from_le_bytes(key: &'a str, bytes: &'a [u8]) -> Self {
        let mut rest = bytes;
        let element = ValueType(take::<4>(&mut rest).map_or(0, u32::from_le_bytes));
        let count = take::<8>(&mut rest).map_or(0, u64::from_le_bytes) as usize;
        Self { key, element, count, bytes: rest }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.count
    }

    /// True without elements.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Type of the elements.
    pub fn element_type(&self) -> ValueType {
        self.element
    }

    /// Elements of any type, one after the other.
    pub fn values(&self) -> impl Iterator<Item = ValueView<'a>> + use<'a> {
        let (key, element, mut rest) = (self.key, self.element, self.bytes);
        (0..self.count).map_while(move |_| next_value(key, element, &mut rest))
    }

    /// Strings, borrowed; Err if the elements are not strings. Bytes need not be UTF-8.
    ///
    /// # Errors
    /// [`Error::KeyType`].
    pub fn strs(&self) -> Result<impl Iterator<Item = &'a [u8]> + use<'a>> {
        if self.element != ValueType::STRING {
            return Err(self.type_error("array of strings"));
        }
        let mut rest = self.bytes;
        Ok((0..self.count).map_while(move |_| take_str(&mut rest)))
    }

    /// Any integer element type, widened.
    ///
    /// # Errors
    /// [`Error::KeyType`] if the elements are not integers, or a u64 is above `i64::MAX`.
    pub fn ints(&self) -> Result<impl Iterator<Item = i64> + use<'a>> {
        if !self.element.is_integer() {
            return Err(self.type_error("array of integers"));
        }
        if self.element == ValueType::U64
            && let Some(big) = self.values().find(|v| v.as_i64().is_none())
        {
            return Err(Error::KeyType {
                key: self.key.into(),
                expected: "array of integers up to 2^63 - 1",
                found: big.to_string(),
            });
        }
        Ok(self.values().filter_map(|v| v.as_i64()))
    }

    /// f32 elements, or f64 rounded to f32.
    ///
    /// # Errors
    /// [`Error::KeyType`].
    pub fn floats(&self) -> Result<impl Iterator<Item = f32> + use<'a>> {
        if !matches!(self.element, ValueType::F32 | ValueType::F64) {
            return Err(self.type_error("array of floats"));
        }
        Ok(self.values().filter_map(|v| v.as_f32()))
    }

    /// Booleans.
    ///
    /// # Errors
    /// [`Error::KeyType`].
    pub fn bools(&self) -> Result<impl Iterator<Item = bool> + use<'a>> {
        if self.element != ValueType::BOOL {
            return Err(self.type_error("array of booleans"));
        }
        Ok(self.bytes.iter().map(|&b| b != 0))
    }

    fn type_error(&self, expected: &'static str) -> Error {
        Error::KeyType { key: self.key.into(), expected, found: format!("array of {}", self.element) }
    }
}

/// `{:.8}` shows eight elements and the number of those left out.
impl fmt::Display for Array<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = f.precision().unwrap_or(usize::MAX);
        f.write_str("[")?;
        for (i, value) in self.values().take(shown).enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            fmt::Display::fmt(&value, f)?;
        }
        if self.count > shown {
            write!(f, "{}... {} more", if shown > 0 { ", " } else { "" }, self.count - shown)?;
        }
        f.write_str("]")
    }
}

fn next_value<'a>(key: &'a str, ty: ValueType, rest: &mut &'a [u8]) -> Option<ValueView<'a>> {
    match ty {
        ValueType::STRING => take_str(rest).map(ValueView::Str),
        ValueType::ARRAY => {
            // How long a nested array is, is known only after walking it.
            let len = crate::parse::array_len(rest)?;
            let (array, tail) = rest.split_at_checked(len)?;
            *rest = tail;
            Some(ValueView::Array(Array::from_le_bytes(key, array)))
        }
        ty => {
            let (value, tail) = rest.split_at_checked(ty.fixed_size()?)?;
            *rest = tail;
            ValueView::scalar(ty, value)
        }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

fn take_str<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(u64::from_le_bytes(take::<8>(rest)?)).ok()?;
    let (head, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    Some(head)
}
