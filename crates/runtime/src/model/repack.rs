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
    /// slowly. On devices whose products are candle's it changes nothing. Of a directory of packed modules [`Model::load_repacked`] needs less memory.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) if there is no memory for them.
    pub fn repack(mut self) -> Result<Self> {
        // The largest first: while a part is copied it is in memory twice.
        repack([&mut self.head])?;
        self.layers.iter_mut().try_for_each(Layer::repack)?;
        Ok(self)
    }
}

impl Layer {
    pub(super) fn repack(&mut self) -> Result<()> {
        repack([&mut self.qkv, &mut self.attention_output, &mut self.gate_up, &mut self.down])
    }
}

/// Moves the weights of some linear layers to one run of memory.
pub(super) fn repack<const N: usize>(mut linears: [&mut Linear; N]) -> Result<()> {
    let mut weights: Vec<_> = linears.iter_mut().flat_map(|linear| linear.own_weights_mut()).collect();
    let sizes: Vec<Option<usize>> = weights.iter().map(|w| w.packed_bytes()).collect();
    let mut memory = WeightMemory::new(sizes.iter().flatten().map(|&n| WeightMemory::padded(n)).sum())?;
    let mut rest = memory.bytes_mut();
    let mut ranges = Vec::with_capacity(weights.len());
    let mut at = 0;
    for (weight, size) in weights.iter_mut().zip(&sizes) {
        let Some(size) = *size else { continue };
        let (part, others) = std::mem::take(&mut rest).split_at_mut(WeightMemory::padded(size));
        weight.pack(&mut part[..size])?;
        ranges.push(at..at + size);
        at += part.len();
        rest = others;
    }
    let memory = Arc::new(memory);
    let packed = weights.into_iter().zip(sizes).filter(|(_, size)| size.is_some());
    for ((weight, _), range) in packed.zip(ranges) {
        weight.set_packed(Part { memory: memory.clone(), range });
    }
    linears.into_iter().for_each(Linear::regroup);
    Ok(())
}
