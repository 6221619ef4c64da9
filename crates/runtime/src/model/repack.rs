//! Weights moved to memory of their own, in the layout of the products.

use super::ops::Linear;
use super::weight_memory::{Part, WeightMemory};
use super::{Layer, Model};
use crate::Result;
use std::sync::Arc;

impl Model {
    /// Copies the weights of the linear layers to memory of the model's own, in large pages where the system has them and, where the type has integer
    /// products, with 16 rows side by side ([`quant_kernels::Interleaved`]). The pages of the file that they came from are let go, so that there is one
    /// copy of each weight in memory.
    ///
    /// It takes as long as reading the file, and makes decoding quicker. What the model computes with integer products
    /// ([`Model::set_integer_products`]) differs by rounding of sums; without them it computes the same as before, from the file where it can, else
    /// slowly. On devices whose products are candle's it changes nothing.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) if there is no memory for them.
    pub fn repack(mut self) -> Result<Self> {
        let mut weights: Vec<_> = self.linears_mut().flat_map(Linear::own_weights_mut).collect();
        let sizes: Vec<Option<usize>> = weights.iter().map(|w| w.packed_bytes()).collect();
        let total = sizes.iter().flatten().map(|&n| WeightMemory::padded(n)).sum();
        let mut memory = WeightMemory::new(total)?;
        let mut rest = memory.bytes_mut();
        let mut parts = Vec::with_capacity(weights.len());
        let mut at = 0;
        for (weight, size) in weights.iter_mut().zip(&sizes) {
            let Some(size) = *size else { continue };
            let (part, others) = std::mem::take(&mut rest).split_at_mut(WeightMemory::padded(size));
            weight.pack(&mut part[..size])?;
            parts.push(at..at + size);
            at += part.len();
            rest = others;
        }
        let memory = Arc::new(memory);
        let packed = weights.into_iter().zip(sizes).filter(|(_, size)| size.is_some());
        for ((weight, _), range) in packed.zip(parts) {
            weight.set_packed(Part { memory: memory.clone(), range });
        }
        self.linears_mut().for_each(Linear::regroup);
        Ok(self)
    }

    fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        // The largest first: while it is copied it is in memory twice.
        [&mut self.head].into_iter().chain(self.layers.iter_mut().flat_map(Layer::linears_mut))
    }
}

impl Layer {
    fn linears_mut(&mut self) -> [&mut Linear; 4] {
        [&mut self.qkv, &mut self.attention_output, &mut self.gate_up, &mut self.down]
    }
}
