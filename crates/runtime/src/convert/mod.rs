//! Hugging Face directory to GGUF: names, q/k permutation, metadata, tokenizer.
