//! Ordered, lossless metadata. A value keeps its bytes as they are on disk, so reading and writing it again changes nothing.

use crate::Result;

/// A metadata value type by its number on disk (open: unknown numbers are reported, not lost).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ValueType(pub u32);

/// One value: its type and its bytes, little endian, as in the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {}

/// A typed view of an array value; elements are decoded on the way, strings are borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Array<'a> {
    _bytes: &'a [u8],
}

/// Keys and values in file order, unique keys, lookup by name in O(1).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {}

#[allow(unused_variables, clippy::todo)]
impl Metadata {
    pub fn new() -> Self {
        todo!()
    }
    pub fn len(&self) -> usize {
        todo!()
    }
    pub fn is_empty(&self) -> bool {
        todo!()
    }
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        std::iter::empty()
    }
    pub fn get(&self, key: &str) -> Option<&Value> {
        todo!()
    }
    /// Replaces in place, or appends. `value` converts from u8..i64, f32, f64, bool, &str, String, &[String]/&[&str]/Vec<String>, &[i32], &[f32], &[u32]...
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        todo!()
    }
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        todo!()
    }
    // Typed accessors: Ok(None) if absent, Err(KeyType) if of another type. `get_u64` takes any non-negative integer type, `get_f32` f32 or f64.
    pub fn get_u64(&self, key: &str) -> Result<Option<u64>> {
        todo!()
    }
    pub fn get_f32(&self, key: &str) -> Result<Option<f32>> {
        todo!()
    }
    pub fn get_bool(&self, key: &str) -> Result<Option<bool>> {
        todo!()
    }
    pub fn get_str(&self, key: &str) -> Result<Option<&str>> {
        todo!()
    }
    pub fn get_array(&self, key: &str) -> Result<Option<Array<'_>>> {
        todo!()
    }
    // The same, with Err(MissingKey) if absent: need_u64, need_f32, need_bool, need_str, need_array.
    pub fn need_u64(&self, key: &str) -> Result<u64> {
        todo!()
    }
    pub fn need_f32(&self, key: &str) -> Result<f32> {
        todo!()
    }
    pub fn need_str(&self, key: &str) -> Result<&str> {
        todo!()
    }
    pub fn need_array(&self, key: &str) -> Result<Array<'_>> {
        todo!()
    }
}

#[allow(unused_variables, clippy::todo)]
impl<'a> Array<'a> {
    pub fn len(&self) -> usize {
        todo!()
    }
    pub fn is_empty(&self) -> bool {
        todo!()
    }
    pub fn element_type(&self) -> ValueType {
        todo!()
    }
    /// Strings, borrowed; Err if the elements are not strings. Bytes need not be UTF-8.
    pub fn strs(&self) -> Result<impl Iterator<Item = &'a [u8]> + 'a> {
        Ok(std::iter::empty())
    }
    /// Any integer element type, widened.
    pub fn ints(&self) -> Result<impl Iterator<Item = i64> + 'a> {
        Ok(std::iter::empty())
    }
    pub fn floats(&self) -> Result<impl Iterator<Item = f32> + 'a> {
        Ok(std::iter::empty())
    }
}
