//! How far a quantized tensor is from its source.
