//! One metadata value: its type and its bytes as on disk.

use crate::array::Array;
use crate::{Error, Result};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// A metadata value type by its number on disk (open: unknown numbers are reported, not lost).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ValueType(pub u32);

macro_rules! value_types {
    ($($id:literal $konst:ident $name:literal $bytes:expr;)*) => {
        impl ValueType {
            $(#[doc = concat!("`", $name, "`.")]
            pub const $konst: Self = Self($id);)*

            /// The name (`"u32"`, `"string"`), if known.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($id => Some($name),)*
                    _ => None,
                }
            }

            /// Bytes of one value; `None` for strings, arrays and unknown types.
            pub const fn fixed_size(self) -> Option<usize> {
                match self.0 {
                    $($id => $bytes,)*
                    _ => None,
                }
            }
        }
    };
}

// Numbers of `enum gguf_type` in ggml's gguf.h.
value_types! {
    0 U8 "u8" Some(1);
    1 I8 "i8" Some(1);
    2 U16 "u16" Some(2);
    3 I16 "i16" Some(2);
    4 U32 "u32" Some(4);
    5 I32 "i32" Some(4);
    6 F32 "f32" Some(4);
    7 BOOL "bool" Some(1);
    8 STRING "string" None;
    9 ARRAY "array" None;
    10 U64 "u64" Some(8);
    11 I64 "i64" Some(8);
    12 F64 "f64" Some(8);
}

impl ValueType {
    /// True for the integer types (not `bool`).
    pub const fn is_integer(self) -> bool {
        matches!(self, Self::U8 | Self::I8 | Self::U16 | Self::I16 | Self::U32 | Self::I32 | Self::U64 | Self::I64)
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "type-{}", self.0),
        }
    }
}

/// One value: its type and its bytes, little endian, as in the file.
///
/// Made by `From` (`Value::from(7u32)`, `Value::from("llama")`, `Value::from(&[1i32, 2][..])`), by [`Value::string`] and
/// [`Value::strings`] for bytes that need not be UTF-8, or by the reader. The bytes are always well formed.
///
/// `Display` shows it for people: strings quoted and escaped, arrays in brackets; a precision (`{:.4}`) bounds the number of elements
/// shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    ty: ValueType,
    /// What follows the type number on disk. A string: u64 length, bytes. An array: u32 element type, u64 count, elements.
    bytes: Box<[u8]>,
}

/// A decoded view of a [`Value`] or of an element of an [`Array`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum ValueView<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    /// Any byte but 0 is true.
    Bool(bool),
    /// The bytes of a string; they need not be UTF-8.
    Str(&'a [u8]),
    Array(Array<'a>),
}

impl Value {
    /// A value that was checked by the reader.
    pub(crate) fn from_checked(ty: ValueType, bytes: Box<[u8]>) -> Self {
        Self { ty, bytes }
    }

    /// A value from its type and the bytes that follow the type number on disk (little endian).
    ///
    /// # Errors
    /// [`Error::Malformed`] if the bytes are not exactly one value of the type.
    pub fn from_le_bytes(ty: ValueType, bytes: &[u8]) -> Result<Self> {
        crate::parse::check_value(ty, bytes)?;
        Ok(Self::from_checked(ty, bytes.into()))
    }

    /// A string of any bytes.
    pub fn string(bytes: impl AsRef<[u8]>) -> Self {
        let mut out = Vec::with_capacity(8 + bytes.as_ref().len());
        push_str(&mut out, bytes.as_ref());
        Self { ty: ValueType::STRING, bytes: out.into() }
    }

    /// An array of strings of any bytes.
    pub fn strings<T: AsRef<[u8]>>(items: impl IntoIterator<Item = T>) -> Self {
        let mut out = array_head(ValueType::STRING);
        let mut count = 0u64;
        for item in items {
            push_str(&mut out, item.as_ref());
            count += 1;
        }
        Self::finish_array(out, count)
    }

    fn finish_array(mut out: Vec<u8>, count: u64) -> Self {
        out[4..12].copy_from_slice(&count.to_le_bytes());
        Self { ty: ValueType::ARRAY, bytes: out.into() }
    }

    /// The type.
    pub fn value_type(&self) -> ValueType {
        self.ty
    }

    /// The bytes that follow the type number on disk.
    pub fn as_le_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The value, decoded; strings and arrays are borrowed.
    pub fn view(&self) -> ValueView<'_> {
        self.view_of("an array")
    }

    /// `key` is what errors of an array will name.
    pub(crate) fn view_of<'a>(&'a self, key: &'a str) -> ValueView<'a> {
        match self.ty {
            ValueType::STRING => ValueView::Str(self.bytes.get(8..).unwrap_or_default()),
            ValueType::ARRAY => ValueView::Array(Array::from_le_bytes(key, &self.bytes)),
            ty => ValueView::scalar(ty, &self.bytes).unwrap_or(ValueView::Str(&self.bytes)),
        }
    }
}

impl<'a> ValueView<'a> {
    /// Decodes a scalar; `None` if `ty` is none or `bytes` has another length.
    pub(crate) fn scalar(ty: ValueType, bytes: &[u8]) -> Option<ValueView<'static>> {
        macro_rules! le {
            ($variant:ident $t:ty) => {
                Some(ValueView::$variant(<$t>::from_le_bytes(bytes.try_into().ok()?)))
            };
        }
        match ty {
            ValueType::U8 => le!(U8 u8),
            ValueType::I8 => le!(I8 i8),
            ValueType::U16 => le!(U16 u16),
            ValueType::I16 => le!(I16 i16),
            ValueType::U32 => le!(U32 u32),
            ValueType::I32 => le!(I32 i32),
            ValueType::U64 => le!(U64 u64),
            ValueType::I64 => le!(I64 i64),
            ValueType::F32 => le!(F32 f32),
            ValueType::F64 => le!(F64 f64),
            ValueType::BOOL => Some(ValueView::Bool(*bytes.first()? != 0)),
            _ => None,
        }
    }

    /// The type.
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::U8(_) => ValueType::U8,
            Self::I8(_) => ValueType::I8,
            Self::U16(_) => ValueType::U16,
            Self::I16(_) => ValueType::I16,
            Self::U32(_) => ValueType::U32,
            Self::I32(_) => ValueType::I32,
            Self::U64(_) => ValueType::U64,
            Self::I64(_) => ValueType::I64,
            Self::F32(_) => ValueType::F32,
            Self::F64(_) => ValueType::F64,
            Self::Bool(_) => ValueType::BOOL,
            Self::Str(_) => ValueType::STRING,
            Self::Array(_) => ValueType::ARRAY,
        }
    }

    /// Any integer type, if not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U64(v) => Some(v),
            _ => u64::try_from(self.as_i64()?).ok(),
        }
    }

    /// Any integer type, if it fits.
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Self::U8(v) => Some(v.into()),
            Self::I8(v) => Some(v.into()),
            Self::U16(v) => Some(v.into()),
            Self::I16(v) => Some(v.into()),
            Self::U32(v) => Some(v.into()),
            Self::I32(v) => Some(v.into()),
            Self::U64(v) => i64::try_from(v).ok(),
            Self::I64(v) => Some(v),
            _ => None,
        }
    }

    /// f32, or f64 rounded to f32.
    pub fn as_f32(&self) -> Option<f32> {
        match *self {
            Self::F32(v) => Some(v),
            Self::F64(v) => Some(v as f32),
            _ => None,
        }
    }

    /// A bool.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(v) => Some(v),
            _ => None,
        }
    }

    /// A string that is UTF-8.
    pub fn as_str(&self) -> Option<&'a str> {
        core::str::from_utf8(self.as_bytes()?).ok()
    }

    /// The bytes of a string.
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        match *self {
            Self::Str(v) => Some(v),
            _ => None,
        }
    }

    /// An array.
    pub fn as_array(&self) -> Option<Array<'a>> {
        match *self {
            Self::Array(v) => Some(v),
            _ => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view().fmt(f)
    }
}

impl fmt::Display for ValueView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::U8(v) => write!(f, "{v}"),
            Self::I8(v) => write!(f, "{v}"),
            Self::U16(v) => write!(f, "{v}"),
            Self::I16(v) => write!(f, "{v}"),
            Self::U32(v) => write!(f, "{v}"),
            Self::I32(v) => write!(f, "{v}"),
            Self::U64(v) => write!(f, "{v}"),
            Self::I64(v) => write!(f, "{v}"),
            // Debug of a float is the shortest text that reads back as the same value, with an exponent where that is shorter.
            Self::F32(v) => write!(f, "{v:?}"),
            Self::F64(v) => write!(f, "{v:?}"),
            Self::Bool(v) => write!(f, "{v}"),
            Self::Str(v) => write!(f, "{:?}", String::from_utf8_lossy(v)),
            Self::Array(v) => v.fmt(f),
        }
    }
}

/// How an error names the value found.
pub(crate) fn found(view: &ValueView<'_>) -> String {
    match view {
        ValueView::Str(v) if core::str::from_utf8(v).is_err() => {
            format!("string that is not UTF-8, {}", ValueView::Str(v.get(..64).unwrap_or(v)))
        }
        ValueView::Str(_) => "string".into(),
        ValueView::Array(a) => format!("array of {} {}", a.len(), a.element_type()),
        v => format!("{} {v}", v.value_type()),
    }
}

fn push_str(out: &mut Vec<u8>, s: &[u8]) {
    out.extend_from_slice(&(s.len() as u64).to_le_bytes());
    out.extend_from_slice(s);
}

fn array_head(element: ValueType) -> Vec<u8> {
    let mut out = element.0.to_le_bytes().to_vec();
    out.extend_from_slice(&[0; 8]);
    out
}

macro_rules! from_list {
    ($t:ty) => {
        impl From<Vec<$t>> for Value {
            fn from(items: Vec<$t>) -> Self {
                Self::from(items.as_slice())
            }
        }
        impl From<&Vec<$t>> for Value {
            fn from(items: &Vec<$t>) -> Self {
                Self::from(items.as_slice())
            }
        }
        impl<const N: usize> From<[$t; N]> for Value {
            fn from(items: [$t; N]) -> Self {
                Self::from(items.as_slice())
            }
        }
    };
}
macro_rules! from_scalar {
    ($($t:ty, $konst:ident;)*) => {$(
        impl From<$t> for Value {
            fn from(v: $t) -> Self {
                Self { ty: ValueType::$konst, bytes: Box::new(v.to_le_bytes()) }
            }
        }
        impl From<&[$t]> for Value {
            fn from(items: &[$t]) -> Self {
                let mut out = array_head(ValueType::$konst);
                for &v in items {
                    out.extend_from_slice(&v.to_le_bytes());
                }
                Self::finish_array(out, items.len() as u64)
            }
        }
        from_list!($t);
    )*};
}
macro_rules! from_strings {
    ($($t:ty)*) => {$(
        impl From<&[$t]> for Value {
            fn from(items: &[$t]) -> Self {
                Self::strings(items)
            }
        }
        from_list!($t);
    )*};
}

from_scalar! {
    u8, U8;
    i8, I8;
    u16, U16;
    i16, I16;
    u32, U32;
    i32, I32;
    u64, U64;
    i64, I64;
    f32, F32;
    f64, F64;
}
impl From<bool> for Value {
    fn from(v: bool) -> Self {
        Self { ty: ValueType::BOOL, bytes: Box::new([u8::from(v)]) }
    }
}
impl From<&[bool]> for Value {
    fn from(items: &[bool]) -> Self {
        let mut out = array_head(ValueType::BOOL);
        out.extend(items.iter().map(|&b| u8::from(b)));
        Self::finish_array(out, items.len() as u64)
    }
}
from_list!(bool);
from_strings!(&str String);

impl From<&str> for Value {
    fn from(v: &str) -> Self {
        Self::string(v)
    }
}
impl From<String> for Value {
    fn from(v: String) -> Self {
        Self::string(v)
    }
}
impl From<&String> for Value {
    fn from(v: &String) -> Self {
        Self::string(v)
    }
}

/// The error of a value that is not what was asked for.
pub(crate) fn type_error(key: &str, expected: &'static str, view: &ValueView<'_>) -> Error {
    Error::KeyType { key: key.into(), expected, found: found(view) }
}
