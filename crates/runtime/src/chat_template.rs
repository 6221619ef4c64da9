//! Chat templates: Hugging Face Jinja templates through minijinja.
