#![doc = include_str!("../README.md")]
//!
//! ## Where things are
//!
//! [`LayerCache`] holds one layer of one sequence, made from a [`KvSpec`] (or a [`Preset`]'s); [`Codec`] lists the ways to store rows, [`Centre`] what is
//! taken away from keys, [`Attend`] what attention can do; a [`Pool`] bounds and shares memory. Keys and queries are given after their rotary embedding.
//!
//! Unsafe code: vector instructions chosen at run time (`simd`, and what is written in them), and bytes aligned to cache lines (`aligned`).
#![deny(unsafe_code)]

mod aligned;
#[allow(unsafe_code)]
mod attend;
mod block;
mod cache;
#[cfg(feature = "candle")]
pub mod candle;
mod centre;
mod codec;
#[allow(unsafe_code)]
mod encode;
mod error;
mod export;
mod grids;
mod layout;
mod plan;
mod pool;
mod preset;
#[allow(unsafe_code)]
mod rotate;
#[allow(unsafe_code)]
mod simd;
mod spec;

pub use attend::Attend;
pub use cache::{LayerCache, MemoryUse};
pub use codec::{Codec, GgmlCode, Side};
pub use error::{Error, Result};
pub use pool::{Pool, PrefixHash};
pub use preset::Preset;
pub use simd::Isa;
pub use spec::{Centre, KvSpec, PairLayout, RopeSpec};
