//! What a linear layer's inputs look like: the one calibration that serves every method.
