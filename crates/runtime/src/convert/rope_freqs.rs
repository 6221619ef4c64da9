//! `rope_freqs.weight`: Llama 3.1's long-context rule as one divisor for each frequency.

use crate::ModelConfig;
use crate::model::RopeScaling;

/// The divisors, one for each pair of rotated channels; `None` for other scaling rules.
///
/// Long waves are stretched by `factor`, short ones kept, those between blended (`_compute_llama3_parameters` in transformers'
/// modeling_rope_utils.py). All in f32, as llama.cpp's converter computes them.
pub(super) fn divisors(config: &ModelConfig) -> Option<Vec<f32>> {
    let RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } = config.rope.scaling
    else {
        return None;
    };
    let context = original_context as f32;
    let dim = config.rope.dim as f32;
    let divisor = |pair: usize| {
        let frequency = 1.0 / config.rope.theta.powf((2 * pair) as f32 / dim);
        let wave = std::f32::consts::TAU / frequency;
        if wave < context / high_freq_factor {
            1.0
        } else if wave > context / low_freq_factor {
            factor
        } else {
            let smooth = (context / wave - low_freq_factor) / (high_freq_factor - low_freq_factor);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    Some((0..config.rope.dim / 2).map(divisor).collect())
}
