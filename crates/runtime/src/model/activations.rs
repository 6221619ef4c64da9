//! How the activations of products are rounded.

/// How the activations of a product are rounded first.
///
/// [`Activations::Ggml`] reproduces the error that llama.cpp adds to that of the weights: the values that its integer products see, here multiplied in
/// f32. It is there to compare with llama.cpp and to foretell its figures, not to be quick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Activations {
    /// As the model says: not at all, but for modules whose config quantizes their input (W8A8).
    #[default]
    Model,
    /// Not at all, whatever the model says.
    F32,
    /// As ggml does before a product with weights of the type ([`ActivationGrid::of`](quant_kernels::ActivationGrid::of)); weights of other types as they
    /// are.
    Ggml,
}
