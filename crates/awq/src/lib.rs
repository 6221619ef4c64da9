//! AWQ: activation-aware weight quantization.
#![deny(unsafe_code)]
