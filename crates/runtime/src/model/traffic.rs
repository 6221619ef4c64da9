//! The bytes that the weights of a token move, and how quickly the machine moves them.

use super::ops::Linear;
use super::{Layer, Model};
use rayon::prelude::*;
use std::time::Instant;

/// Bytes that one thread reads at a time.
const CHUNK: usize = 256 << 10;

impl Model {
    /// Bytes of the weights that every token reads: those of all linear layers, and a row of the embedding. None are counted on devices with kernels of
    /// their own.
    pub fn weight_bytes_per_token(&self) -> u64 {
        let linears: usize = self.linears().flat_map(Linear::own_weights).map(|w| w.bytes().len()).sum();
        (linears + self.embedding.bytes().len() / self.embedding.rows.max(1)) as u64
    }

    /// Bytes a second, at best of `times`, at which all threads together read the weights of the linear layers and do next to nothing with them: the
    /// roof of what decoding can reach. `None` if there is nothing to read, or no time passes.
    pub fn measure_weight_bandwidth(&self, times: usize) -> Option<f64> {
        let chunks: Vec<&[u8]> =
            self.linears().flat_map(Linear::own_weights).flat_map(|w| w.bytes().chunks(CHUNK)).collect();
        let bytes: usize = chunks.iter().map(|c| c.len()).sum();
        let read = || {
            let start = Instant::now();
            let sum = chunks.par_iter().map(|c| sum_of_words(c)).reduce(|| 0, u64::wrapping_add);
            std::hint::black_box(sum);
            start.elapsed().as_secs_f64()
        };
        let best = (0..times).map(|_| read()).fold(f64::INFINITY, f64::min);
        (bytes > 0 && best > 0.0 && best.is_finite()).then(|| bytes as f64 / best)
    }

    fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.layers.iter().flat_map(Layer::linears).chain([&self.head])
    }
}

impl Layer {
    pub(super) fn linears(&self) -> [&Linear; 4] {
        [&self.qkv, &self.attention_output, &self.gate_up, &self.down]
    }
}

/// In eight sums, which become vectors.
fn sum_of_words(bytes: &[u8]) -> u64 {
    let mut sums = [0u64; 8];
    for block in bytes.chunks_exact(64) {
        for (sum, word) in sums.iter_mut().zip(block.chunks_exact(8)) {
            *sum = sum.wrapping_add(word.try_into().map_or(0, u64::from_le_bytes));
        }
    }
    sums.iter().fold(0, |a, &b| a.wrapping_add(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums() {
        let bytes: Vec<u8> = (0..200).collect();
        let words = bytes[..192].chunks(8).map(|w| u64::from_le_bytes(w.try_into().unwrap()));
        assert_eq!(sum_of_words(&bytes), words.fold(0, u64::wrapping_add));
        assert_eq!(sum_of_words(&bytes[..63]), 0);
    }
}
