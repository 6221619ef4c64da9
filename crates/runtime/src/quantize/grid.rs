//! The affine grid that a ggml type comes closest to: what AWQ's scales are searched for.

use awq::{Bits, Options};
use gguf_format::GgmlType;

/// Bits, weights that share a scale, and whether they share a minimum too. `None` for types that hold plain numbers, or that AWQ has no use for.
pub fn awq_options(ty: GgmlType) -> Option<Options> {
    let (bits, group, zero_point) = match ty {
        GgmlType::Q2_K => (2, 16, true),
        GgmlType::Q3_K => (3, 16, false),
        GgmlType::Q4_0 | GgmlType::IQ4_NL | GgmlType::IQ4_XS => (4, 32, false),
        GgmlType::Q4_1 | GgmlType::Q4_K => (4, 32, true),
        GgmlType::Q5_0 => (5, 32, false),
        GgmlType::Q5_1 | GgmlType::Q5_K => (5, 32, true),
        GgmlType::Q6_K => (6, 16, false),
        GgmlType::Q8_0 => (8, 32, false),
        GgmlType::IQ3_XXS | GgmlType::IQ3_S => (3, 32, false),
        GgmlType::IQ2_XXS | GgmlType::IQ2_XS | GgmlType::IQ2_S => (2, 32, false),
        _ => return None,
    };
    let mut options = Options::new(Bits::new(bits)?, Some(group));
    options.zero_point = zero_point;
    Some(options)
}
