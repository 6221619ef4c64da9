//! Ordered, lossless metadata. A value keeps its bytes as they are on disk, so reading and writing it again changes nothing.

use crate::array::Array;
use crate::name_index::NameIndex;
use crate::value::{Value, ValueView, type_error};
use crate::{Error, Result};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Keys and values in file order, unique keys, lookup by name in O(1).
///
/// The typed accessors `get_*` give `Ok(None)` if the key is absent and [`Error::KeyType`] if the value has another type;
/// `need_*` give [`Error::MissingKey`] if it is absent.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    /// Behind pointers, so that the list grows by less than the entries take in a file.
    #[allow(clippy::vec_box)]
    entries: Vec<Box<Entry>>,
    index: NameIndex,
}

type Entry = (Box<str>, Value);

/// The same keys and values in the same order.
impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl Metadata {
    /// Without keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True without keys.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keys and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|entry| (&*entry.0, &entry.1))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.find(key).map(|(_, value)| value)
    }

    fn place(&self, key: &str) -> Option<usize> {
        self.index.find(key, key_at(&self.entries))
    }

    fn find(&self, key: &str) -> Option<&Entry> {
        self.entries.get(self.place(key)?).map(|entry| &**entry)
    }

    /// True if the key is there.
    pub fn contains_key(&self, key: &str) -> bool {
        self.place(key).is_some()
    }

    /// Replaces in place, or appends. `value` converts from u8..i64, f32, f64, bool, `&str`, `String`, and slices, vectors and arrays of
    /// these.
    ///
    /// ```
    /// let mut metadata = gguf_format::Metadata::new();
    /// metadata.set("general.architecture", "llama");
    /// metadata.set("llama.block_count", 2u32);
    /// metadata.set("tokenizer.ggml.tokens", ["a", "b"]);
    /// assert_eq!(metadata.need_u64("llama.block_count")?, 2);
    /// # Ok::<(), gguf_format::Error>(())
    /// ```
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        let value = value.into();
        match self.place(key).and_then(|i| self.entries.get_mut(i)) {
            Some(entry) => entry.1 = value,
            None => {
                self.index.push(key, key_at(&self.entries));
                self.entries.push(Box::new((key.into(), value)));
            }
        }
    }

    /// Removes a key; the others keep their order. Takes time in proportion to the number of keys.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let entry = self.entries.remove(self.place(key)?);
        self.index.rebuild(self.entries.iter().map(|entry| &*entry.0));
        Some(entry.1)
    }

    fn get_as<'a, T>(
        &'a self,
        key: &'a str,
        expected: &'static str,
        convert: impl FnOnce(&ValueView<'a>) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let view = value.view_of(key);
        convert(&view).map(Some).ok_or_else(|| type_error(key, expected, &view))
    }

    /// Any integer type, not negative.
    pub fn get_u64(&self, key: &str) -> Result<Option<u64>> {
        self.get_as(key, "an integer that is not negative", ValueView::as_u64)
    }

    /// Any integer type.
    pub fn get_i64(&self, key: &str) -> Result<Option<i64>> {
        self.get_as(key, "an integer below 2^63", ValueView::as_i64)
    }

    /// f32, or f64 rounded to f32.
    pub fn get_f32(&self, key: &str) -> Result<Option<f32>> {
        self.get_as(key, "f32 or f64", ValueView::as_f32)
    }

    /// A bool.
    pub fn get_bool(&self, key: &str) -> Result<Option<bool>> {
        self.get_as(key, "bool", ValueView::as_bool)
    }

    /// A string that is UTF-8.
    pub fn get_str(&self, key: &str) -> Result<Option<&str>> {
        self.get(key).map_or(Ok(None), |v| {
            let view = v.view();
            view.as_str().map(Some).ok_or_else(|| type_error(key, "string", &view))
        })
    }

    /// An array.
    pub fn get_array(&self, key: &str) -> Result<Option<Array<'_>>> {
        // The array borrows the key of the map, not the caller's.
        let Some((key, value)) = self.find(key) else { return Ok(None) };
        let view = value.view_of(key);
        view.as_array().map(Some).ok_or_else(|| type_error(key, "array", &view))
    }

    /// [`Metadata::get_u64`] of a key that must be there.
    pub fn need_u64(&self, key: &str) -> Result<u64> {
        self.get_u64(key)?.ok_or_else(|| missing(key))
    }

    /// [`Metadata::get_i64`] of a key that must be there.
    pub fn need_i64(&self, key: &str) -> Result<i64> {
        self.get_i64(key)?.ok_or_else(|| missing(key))
    }

    /// [`Metadata::get_f32`] of a key that must be there.
    pub fn need_f32(&self, key: &str) -> Result<f32> {
        self.get_f32(key)?.ok_or_else(|| missing(key))
    }

    /// [`Metadata::get_bool`] of a key that must be there.
    pub fn need_bool(&self, key: &str) -> Result<bool> {
        self.get_bool(key)?.ok_or_else(|| missing(key))
    }

    /// [`Metadata::get_str`] of a key that must be there.
    pub fn need_str(&self, key: &str) -> Result<&str> {
        self.get_str(key)?.ok_or_else(|| missing(key))
    }

    /// [`Metadata::get_array`] of a key that must be there.
    pub fn need_array(&self, key: &str) -> Result<Array<'_>> {
        self.get_array(key)?.ok_or_else(|| missing(key))
    }
}

/// The key at a place of a list.
fn key_at<'a>(entries: &'a [Box<Entry>]) -> impl Fn(usize) -> Option<&'a str> {
    |i| entries.get(i).map(|entry| &*entry.0)
}

fn missing(key: &str) -> Error {
    Error::MissingKey { key: key.into() }
}
