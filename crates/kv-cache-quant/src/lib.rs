//! Quantized key and value blocks, and attention over them.
#![deny(unsafe_code)]
