//! Importance matrices, in the GGUF and the legacy form.
