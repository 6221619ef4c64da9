//! Weights moved to memory of their own, in the layout of the products.

use super::ops::Linear;
use super::weight_memory::{Part, WeightMemory};
use super::weights::Weight;
use super::{Layer, Model};
use crate::Result;
use std::sync::{Arc, Mutex, PoisonError};

/// When the weights of a model's file are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repacking {
    /// Only when [`Model::repack`] is called.
    OnRequest,
    /// While the model is loaded.
    AtLoad,
    /// Between the tokens of a generation.
    AsItRuns,
}

/// How far the weights are moved.
#[derive(Debug)]
pub(super) struct Progress {
    as_it_runs: bool,
    /// Of the pieces of [`Model::piece`], how many are done. Held while one is moved.
    done: Mutex<usize>,
}

impl Progress {
    pub(super) fn new(repacking: Repacking) -> Self {
        Self { as_it_runs: repacking == Repacking::AsItRuns, done: Mutex::new(0) }
    }
}

impl Model {
    /// Copies the weights of the linear layers to memory of the model's own, in large pages where the system has them and, where the type has integer
    /// products, with 16 rows side by side ([`quant_kernels::Interleaved`]). The pages of the file that they came from are let go, so that there is one
    /// copy of each weight in memory. What is moved already is not moved again.
    ///
    /// It takes as long as reading the file, and makes decoding quicker. What the model computes with integer products
    /// ([`Model::set_integer_products`]) differs by rounding of sums; without them it computes the same as before, from the file where it can, else
    /// slowly. On devices whose products are candle's it changes nothing. The quantized modules of a directory, which are not used from the file, stay
    /// as [`Model::load`] has made them: [`Model::load_repacked`] moves those, too.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) if there is no memory for them. Those that were not moved are used where they are.
    pub fn repack(&self) -> Result<()> {
        let mut done = self.progress.done.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(piece) = self.piece(*done) {
            move_weights(&piece, |w| !w.is_made())?;
            *done += 1;
        }
        Ok(())
    }

    /// How many pieces (layers, and the head) are still used from the file; each is moved as one.
    pub fn pieces_to_repack(&self) -> usize {
        let done = *self.progress.done.lock().unwrap_or_else(PoisonError::into_inner);
        (0..).skip(done).take_while(|&i| self.piece(i).is_some()).count()
    }

    /// Moves the next piece if this model moves weights as it runs, and nobody else does so now.
    pub(super) fn repack_a_piece(&self) {
        if !self.progress.as_it_runs {
            return;
        }
        let Ok(mut done) = self.progress.done.try_lock() else { return };
        if let Some(piece) = self.piece(*done) {
            // Without memory for it the piece is used where it is.
            let _ = move_weights(&piece, |w| !w.is_made());
            *done += 1;
        }
    }

    /// The layers in order, then the head.
    fn piece(&self, i: usize) -> Option<Vec<&Linear>> {
        match self.layers.get(i) {
            Some(layer) => Some(layer.linears().to_vec()),
            None => (i == self.layers.len()).then(|| vec![&self.head]),
        }
    }
}

impl Layer {
    /// As [`move_at_load`].
    pub(super) fn move_at_load(&mut self, repacking: Repacking) -> Result<()> {
        move_at_load([&mut self.qkv, &mut self.attention_output, &mut self.gate_up, &mut self.down], repacking)
    }
}

/// Moves what is to be moved while a model is loaded: everything, or with [`Repacking::AsItRuns`] what is not used from a file, and so has no quick start to
/// lose.
pub(super) fn move_at_load<const N: usize>(linears: [&mut Linear; N], repacking: Repacking) -> Result<()> {
    let chosen: fn(&Weight) -> bool = match repacking {
        Repacking::OnRequest => return Ok(()),
        Repacking::AtLoad => |_| true,
        Repacking::AsItRuns => Weight::is_made,
    };
    move_weights(&linears.each_ref().map(|linear| &**linear), chosen)?;
    linears.into_iter().flat_map(Linear::own_weights_mut).for_each(Weight::drop_source);
    Ok(())
}

/// Moves the chosen weights of some linear layers to one run of memory.
fn move_weights(linears: &[&Linear], chosen: impl Fn(&Weight) -> bool) -> Result<()> {
    let weights = linears.iter().flat_map(|linear| linear.own_weights()).filter(|w| chosen(w));
    let weights: Vec<(&Weight, usize)> = weights.filter_map(|w| Some((w, w.packed_bytes()?))).collect();
    if weights.is_empty() {
        return Ok(());
    }
    let mut memory = WeightMemory::new(weights.iter().map(|&(_, n)| WeightMemory::padded(n)).sum())?;
    let mut rest = memory.bytes_mut();
    for &(weight, size) in &weights {
        let (part, others) = std::mem::take(&mut rest).split_at_mut(WeightMemory::padded(size));
        weight.pack(&mut part[..size])?;
        rest = others;
    }
    let memory = Arc::new(memory);
    let mut at = 0;
    for (weight, size) in weights {
        weight.set_packed(Part { memory: memory.clone(), range: at..at + size });
        at += WeightMemory::padded(size);
    }
    Ok(())
}
