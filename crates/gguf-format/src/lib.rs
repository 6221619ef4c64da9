//! GGUF files and ggml block types, without a tensor library and without a model.
//!
//! ```
//! use gguf_format::{Gguf, blocks};
//! # use gguf_format::{GgmlType, GgufWriter, Metadata, TensorSpec};
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("model.gguf");
//! # let spec = TensorSpec { name: "output.weight".into(), shape: vec![2, 32], ty: GgmlType::Q8_0 };
//! # let mut writer = GgufWriter::create(&path, &Metadata::new(), &[spec])?;
//! # let mut data = [0; 68];
//! # blocks::quantize(GgmlType::Q8_0, &[1.0; 64], 32, None, &mut data)?;
//! # writer.write(&data)?;
//! # writer.finish()?;
//! let file = Gguf::open(&path)?;
//! for tensor in file.tensors() {
//!     println!("{} {:?} {}", tensor.name(), tensor.shape(), tensor.ggml_type());
//! }
//! let tensor = file.need_tensor("output.weight")?;
//! let mut values = vec![0f32; tensor.element_count() as usize];
//! blocks::dequantize(tensor.ggml_type(), file.data(tensor), &mut values)?;
//! # assert!(values.iter().all(|v| (v - 1.0).abs() < 0.01));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Should I use this?
//!
//! Yes, to list, check, copy, edit or write GGUF files, to quantize or dequantize their tensors, and to read files that strangers send.
//! - **Reading**: versions 1, 2 and 3, little and big endian; over `&[u8]`, `Vec<u8>` or a memory map ([`Gguf`]), from any `Read + Seek` without
//!   loading tensor data ([`GgufReader`]), piece by piece ([`Header::parse_prefix`]), and the parts of a split model as one ([`GgufSplits`]).
//!   The header is checked once; then tensors are slices of the storage and access cannot fail. No bytes make it panic; memory stays in
//!   proportion to the file ([`Limits`]). Types and files that ggml would refuse are kept where that is safe, and [`Gguf::strict_check`] tells.
//! - **Metadata** ([`Metadata`]): in order and lossless. A file written by llama.cpp is the same to the byte after reading and writing.
//! - **Writing** ([`GgufWriter`], [`WritePlan`]): the strict layout that ggml's reader takes, `general.alignment` honoured, tensor by tensor so that no model
//!   need fit in memory, and atomic: the target is whole or untouched.
//! - **Editing** ([`Edit`]): keys and tensors set, renamed, removed, replaced, alignment and byte order changed, in place if you like; splitting and
//!   merging as llama.cpp's gguf-split does it, to the byte. **Comparing** ([`diff`]).
//! - **Verifying** ([`verify`]): everything that is wrong with a file, not only the first thing; which of four readers refuse it; numbers that are not finite.
//! - **Codecs** ([`blocks`]): ggml's block types to the byte; every other type is known by name and size and passes through.
//! - **Importance matrices** ([`imatrix`]): both forms of llama.cpp's files. **Mixes** ([`mix`]): what `Q4_K_M` gives each tensor.
//!
//! No, to run a model: there is no tensor, no matrix product and no graph in here.
//!
//! # Conventions
//!
//! Shapes are rows first, `[out, in]`, as in PyTorch: GGUF's order reversed. Names and keys are UTF-8; string values may be any bytes.
//!
//! # Features
//!
//! All are on by default.
//! - `std`: files, and processors with AVX2 recognized at run time. Without it the crate is `no_std` and needs `alloc`: it reads and makes
//!   files from and in bytes that you bring, with all codecs.
//! - `mmap`: memory-mapped files, [`Gguf::open`]. It brings the crate's only unsafe code that is not a call for wider vectors.
//! - `mix`: [`mix`], whose overrides are regular expressions.

#![deny(unsafe_code)]
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod array;
pub mod blocks;
mod byte_order;
#[cfg(feature = "std")]
pub mod diff;
#[cfg(feature = "std")]
pub mod edit;
mod error;
#[cfg(any(test, not(feature = "std")))]
mod float;
mod ggml_type;
mod header;
pub mod imatrix;
mod limits;
mod metadata;
#[cfg(feature = "mix")]
pub mod mix;
#[cfg(feature = "mmap")]
mod mmap;
mod name_index;
mod parse;
mod plan;
mod reader;
mod splits;
#[cfg(feature = "std")]
mod stream;
mod strict;
mod tensor_info;
mod value;
#[cfg(feature = "std")]
pub mod verify;
#[cfg(feature = "std")]
mod writer;

pub use array::Array;
pub use byte_order::{ByteOrder, can_swap_tensor_bytes, swap_tensor_bytes};
#[cfg(feature = "std")]
pub use edit::Edit;
pub use error::{Error, Result};
pub use ggml_type::{GgmlType, Layout};
pub use header::Header;
pub use limits::Limits;
pub use metadata::Metadata;
#[cfg(feature = "mmap")]
pub use mmap::Mmap;
pub use plan::{SizedTensor, TensorSpec, WritePlan};
pub use reader::Gguf;
pub use splits::GgufSplits;
#[cfg(feature = "std")]
pub use splits::split_paths;
#[cfg(feature = "std")]
pub use stream::GgufReader;
pub use strict::Departure;
pub use tensor_info::TensorInfo;
pub use value::{Value, ValueType, ValueView};
#[cfg(feature = "std")]
pub use writer::GgufWriter;

/// Compiles the program in the README.
#[cfg(all(doctest, feature = "mmap"))]
#[doc = include_str!("../README.md")]
struct Readme;
