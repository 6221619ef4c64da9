//! What a header may ask for.

/// Bounds on what a header may ask for. The defaults are those of ggml's reader, or tighter where no file in use comes near.
///
/// They come on top of what is always checked: a count or a length never exceeds what the bytes left in the file can hold, so that parsing
/// needs memory in proportion to the file, not to a number in it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of the whole header: 2^30. (Those of models with a vocabulary of 256k tokens have some 10 to 20 MB.)
    pub header_bytes: u64,
    /// Keys and values: 2^20.
    pub metadata: u64,
    /// Tensors: 2^20.
    pub tensors: u64,
    /// Bytes of a key: 65,535, as the specification says.
    pub key_bytes: u64,
    /// Bytes of a string: 2^30.
    pub string_bytes: u64,
    /// Elements of an array: 2^30.
    pub array_elements: u64,
    /// Arrays in arrays: 4, never more than 64. ggml takes none (see [`Gguf::strict_check`](crate::Gguf::strict_check)).
    pub array_depth: u32,
    /// Bytes of a tensor's name: 63.
    pub name_bytes: u64,
    /// Dimensions of a tensor: 4.
    pub dims: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 1 << 30,
            metadata: 1 << 20,
            tensors: 1 << 20,
            key_bytes: 65_535,
            string_bytes: 1 << 30,
            array_elements: 1 << 30,
            array_depth: 4,
            name_bytes: 63,
            dims: 4,
        }
    }
}
