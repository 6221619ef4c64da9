//! `--activations` of the commands that a model is used with.

use quant_runtime::Model;

/// What the products with packed weights read.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ProductsArg {
    /// Rounded to integers: 8 bits in blocks of 32 for a prompt, 15 bits for single tokens. The quick way.
    #[default]
    Int8,
    /// As they are.
    F32,
}

impl ProductsArg {
    pub(crate) fn apply(self, model: &mut Model) {
        model.set_integer_products(self == Self::Int8);
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::F32 => "f32",
        }
    }
}
