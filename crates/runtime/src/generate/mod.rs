//! Generation: sampling, stop strings, streaming.
