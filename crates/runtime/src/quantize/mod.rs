//! Whole-model quantization to GGUF, streamed tensor by tensor.
