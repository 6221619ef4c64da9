//! llama-quantize's named mixes: which type each tensor of a model gets.
