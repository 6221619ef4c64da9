//! Perplexity and divergence.
