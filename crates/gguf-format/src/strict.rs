//! What ggml's reader takes beyond what the format says.

use crate::value::ValueType;
use crate::{Error, Gguf, Result, ValueView};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// A reason for which ggml's reader (`gguf_init_from_file` in ggml's gguf.cpp) refuses a file that [`Gguf`] takes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Departure {
    /// The key or tensor.
    pub what: String,
    /// The reason.
    pub reason: String,
}

impl core::fmt::Display for Departure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}: {}", self.what, self.reason)
    }
}

impl<S: AsRef<[u8]>> Gguf<S> {
    /// Whether ggml's reader, and so llama.cpp, would take the structure of the file.
    ///
    /// # Errors
    /// [`Error::Refused`] with the first of [`Gguf::departures`].
    pub fn strict_check(&self) -> Result<()> {
        match self.departures().into_iter().next() {
            None => Ok(()),
            Some(Departure { what, reason }) => Err(Error::Refused { what, reason }),
        }
    }

    /// Everything ggml's reader would refuse: nested arrays, unknown types, names of more than 63 bytes or with a NUL, tensors that do not
    /// follow one another exactly, padding missing at the end. Empty for a file it takes.
    pub fn departures(&self) -> Vec<Departure> {
        let mut found = Vec::new();
        for (key, value) in self.metadata().iter() {
            if let ValueView::Array(array) = value.view()
                && array.element_type() == ValueType::ARRAY
            {
                found.push(Departure { what: format!("key `{key}`"), reason: "an array of arrays".into() });
            }
        }
        // Where ggml expects the next tensor; `None` once a type without a size hides it.
        let mut expected = Some(0u64);
        for tensor in self.tensors() {
            let mut depart = |reason: String| {
                found.push(Departure { what: format!("tensor `{}`", tensor.name().escape_debug()), reason });
            };
            if tensor.name().len() > 63 {
                depart(format!("a name of {} bytes, more than 63", tensor.name().len()));
            }
            if tensor.name().contains('\0') {
                depart("a NUL in the name".into());
            }
            if tensor.shape().len() > 4 {
                depart(format!("{} dimensions, more than 4", tensor.shape().len()));
            }
            if let Some(expected) = expected
                && tensor.data_offset() != expected
            {
                depart(format!("it is at {} of the data section, not at {expected}", tensor.data_offset()));
            }
            expected = match tensor.ggml_type().layout() {
                Some(_) => tensor
                    .byte_len()
                    .checked_next_multiple_of(self.alignment())
                    .and_then(|padded| tensor.data_offset().checked_add(padded)),
                None => {
                    depart(format!("unknown type {}", tensor.ggml_type().id()));
                    None
                }
            };
        }
        if !self.tensors().is_empty()
            && let Some(data_len) = expected
        {
            let (len, needed) = (self.storage().as_ref().len() as u64, self.data_start().saturating_add(data_len));
            if len < needed {
                found.push(Departure {
                    what: "file".into(),
                    reason: format!("{len} bytes, {needed} with the padding of the last tensor"),
                });
            }
        }
        found
    }
}
