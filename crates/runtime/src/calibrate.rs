//! Calibration: one pass over a text gathers `InputStats` for every linear layer.
