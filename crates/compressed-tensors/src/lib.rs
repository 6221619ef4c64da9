//! The compressed-tensors checkpoint layout: how vLLM stores quantized linear layers.
#![deny(unsafe_code)]
