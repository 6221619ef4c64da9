//! `--activations` and `--no-repack` of the commands that a model is used with.

use candle_core::Device;
use quant_runtime::{Checkpoint, Model};

/// What the products with packed weights read.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ProductsArg {
    /// Rounded to integers: 8 bits in blocks of 32 for a prompt, 15 bits for single tokens (binary16 for weights that are floats). The quick way.
    #[default]
    Int8,
    /// As they are.
    F32,
}

/// How a model computes on the CPU.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct ProductArgs {
    /// Activations of the products with packed weights, on the CPU.
    #[arg(long, value_enum, default_value = "int8")]
    activations: ProductsArg,
    /// Use the weights where they are in the file's map: otherwise they are moved, a layer before each of the first tokens that are generated, to an order and to pages that
    /// are quicker to read. Several processes share the map's memory. With --activations f32 it is always so.
    #[arg(long)]
    no_repack: bool,
}

impl ProductArgs {
    pub(crate) fn load(self, checkpoint: &Checkpoint, device: &Device) -> quant_runtime::Result<Model> {
        let mut model = match self.repacks() {
            true => Model::load_repacking(checkpoint, device)?,
            false => Model::load(checkpoint, device)?,
        };
        model.set_integer_products(self.integers());
        Ok(model)
    }

    fn integers(self) -> bool {
        self.activations == ProductsArg::Int8
    }

    /// True if the model is to move its weights.
    pub(crate) fn repacks(self) -> bool {
        self.integers() && !self.no_repack
    }

    pub(crate) fn name(self) -> &'static str {
        match self.activations {
            ProductsArg::Int8 => "int8",
            ProductsArg::F32 => "f32",
        }
    }
}
