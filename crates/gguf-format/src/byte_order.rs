//! Byte order: of the numbers in a header, and of those in the blocks of tensors.

use crate::{Error, GgmlType, Result};
use alloc::format;
use alloc::string::ToString;
use core::fmt;

/// The byte order of a file. It holds for header, metadata and tensor data alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ByteOrder {
    /// Least significant byte first: nearly every file.
    #[default]
    Little,
    /// Most significant byte first (files for s390x).
    Big,
}

impl ByteOrder {
    pub(crate) fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }

    pub(crate) fn u64(self, bytes: [u8; 8]) -> u64 {
        match self {
            Self::Little => u64::from_le_bytes(bytes),
            Self::Big => u64::from_be_bytes(bytes),
        }
    }

    pub(crate) fn u32_bytes(self, v: u32) -> [u8; 4] {
        match self {
            Self::Little => v.to_le_bytes(),
            Self::Big => v.to_be_bytes(),
        }
    }

    pub(crate) fn u64_bytes(self, v: u64) -> [u8; 8] {
        match self {
            Self::Little => v.to_le_bytes(),
            Self::Big => v.to_be_bytes(),
        }
    }
}

/// `little` or `big`.
impl fmt::Display for ByteOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Little => "little",
            Self::Big => "big",
        })
    }
}

/// `count` numbers of `width` bytes, one after the other, from byte `at` of a block.
struct Numbers {
    at: usize,
    width: usize,
    count: usize,
}

const fn numbers(at: usize, width: usize, count: usize) -> Numbers {
    Numbers { at, width, count }
}

/// The numbers of more than one byte in a block: every field that ggml reads in the order of the machine. Most are declared as such in
/// ggml-common.h (`ggml_half`, `uint16_t`, `int16_t`, `float`); some are bytes there, and the decoders of ggml-quants.c copy them into wider
/// integers (`qh` of Q5_0 and Q5_1, the signs of IQ3_XXS, `scales` of IQ1_M). `qs` of IQ2_XXS is declared as 16-bit integers, but of each
/// eight bytes the decoder uses four as they lie, as indices, and the other four as one integer. Q3_K's scales are copied into integers,
/// too, but every operation on them stays within a byte.
///
/// Source: ggml-common.h, ggml-quants.c (llama.cpp 0c1e57098). For F32, F16, BF16, Q4_0, Q8_0, Q4_K, Q6_K, MXFP4 and NVFP4 it is what
/// gguf-py's gguf_convert_endian does; other types that tool refuses.
fn fields(ty: GgmlType) -> Option<&'static [Numbers]> {
    Some(match ty {
        GgmlType::F16 | GgmlType::BF16 | GgmlType::I16 => const { &[numbers(0, 2, 1)] },
        GgmlType::F32 | GgmlType::I32 => const { &[numbers(0, 4, 1)] },
        GgmlType::F64 | GgmlType::I64 => const { &[numbers(0, 8, 1)] },
        GgmlType::I8 | GgmlType::MXFP4 | GgmlType::NVFP4 => &[],
        // d
        GgmlType::Q4_0
        | GgmlType::Q8_0
        | GgmlType::IQ4_NL
        | GgmlType::IQ2_S
        | GgmlType::IQ3_S
        | GgmlType::Q1_0
        | GgmlType::Q2_0 => const { &[numbers(0, 2, 1)] },
        // d and m, d and s, d and dmin, d and scales_h
        GgmlType::Q4_1 | GgmlType::Q8_1 | GgmlType::Q4_K | GgmlType::Q5_K | GgmlType::IQ4_XS => {
            const { &[numbers(0, 2, 2)] }
        }
        GgmlType::Q5_0 => const { &[numbers(0, 2, 1), numbers(2, 4, 1)] },
        GgmlType::Q5_1 => const { &[numbers(0, 2, 2), numbers(4, 4, 1)] },
        GgmlType::Q2_K => const { &[numbers(16 + 64, 2, 2)] },
        GgmlType::Q3_K => const { &[numbers(32 + 64 + 12, 2, 1)] },
        GgmlType::Q6_K => const { &[numbers(128 + 64 + 16, 2, 1)] },
        GgmlType::Q8_K => const { &[numbers(0, 4, 1), numbers(4 + 256, 2, 16)] },
        GgmlType::TQ1_0 => const { &[numbers(48 + 4, 2, 1)] },
        GgmlType::TQ2_0 => const { &[numbers(64, 2, 1)] },
        GgmlType::IQ2_XXS => {
            const {
                &[
                    numbers(0, 2, 1),
                    numbers(2 + 4, 4, 1),
                    numbers(2 + 12, 4, 1),
                    numbers(2 + 20, 4, 1),
                    numbers(2 + 28, 4, 1),
                    numbers(2 + 36, 4, 1),
                    numbers(2 + 44, 4, 1),
                    numbers(2 + 52, 4, 1),
                    numbers(2 + 60, 4, 1),
                ]
            }
        }
        GgmlType::IQ2_XS => const { &[numbers(0, 2, 1 + 32)] },
        GgmlType::IQ3_XXS => const { &[numbers(0, 2, 1), numbers(2 + 64, 4, 8)] },
        GgmlType::IQ1_S => const { &[numbers(0, 2, 1), numbers(2 + 32, 2, 8)] },
        GgmlType::IQ1_M => const { &[numbers(32 + 16, 2, 4)] },
        _ => return None,
    })
}

/// Whether [`swap_tensor_bytes`] knows the fields of this type: every type of known size.
pub fn can_swap_tensor_bytes(ty: GgmlType) -> bool {
    fields(ty).is_some()
}

/// Turns whole blocks of a tensor from one byte order to the other, in place. Twice is as before.
///
/// Each number of a block that ggml reads in the order of the machine is reversed; codes of a byte or less stay.
///
/// ```
/// use gguf_format::{GgmlType, swap_tensor_bytes};
/// let mut block = [0; 18];
/// block[..3].copy_from_slice(&[0x00, 0x3c, 0x7f]); // the scale 1.0, two codes
/// swap_tensor_bytes(GgmlType::Q4_0, &mut block)?;
/// assert_eq!(block[..3], [0x3c, 0x00, 0x7f]);
/// # Ok::<(), gguf_format::Error>(())
/// ```
///
/// # Errors
/// [`Error::NoCodec`] for a type whose fields are not known, [`Error::Length`] if `data` is not whole blocks; `data` is then unchanged.
pub fn swap_tensor_bytes(ty: GgmlType, data: &mut [u8]) -> Result<()> {
    let unknown = || Error::NoCodec { ty, direction: "byte order" };
    let fields = fields(ty).ok_or_else(unknown)?;
    let bytes = ty.layout().ok_or_else(unknown)?.block_bytes as usize;
    if !data.len().is_multiple_of(bytes) {
        let expected = format!("a multiple of {bytes} bytes");
        return Err(Error::Length { ty, expected, found: data.len().to_string() });
    }
    match fields {
        [] => {}
        // Plain numbers, and one loop over them.
        [one] if one.width == bytes => swap_each(data, one.width),
        fields => {
            for block in data.chunks_exact_mut(bytes) {
                for f in fields {
                    if let Some(numbers) = block.get_mut(f.at..f.at + f.width * f.count) {
                        swap_each(numbers, f.width);
                    }
                }
            }
        }
    }
    Ok(())
}

/// Reverses each `width` bytes.
pub(crate) fn swap_each(data: &mut [u8], width: usize) {
    fn all<const N: usize>(data: &mut [u8]) {
        data.as_chunks_mut::<N>().0.iter_mut().for_each(|v| v.reverse());
    }
    match width {
        2 => all::<2>(data),
        4 => all::<4>(data),
        8 => all::<8>(data),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_in_the_block_and_do_not_overlap() {
        for &ty in GgmlType::KNOWN {
            let size = ty.layout().map_or(0, |l| l.block_bytes as usize);
            let mut end = 0;
            for f in fields(ty).unwrap_or_else(|| panic!("{ty}")) {
                assert!(f.at >= end && [2, 4, 8].contains(&f.width), "{ty}");
                end = f.at + f.width * f.count;
            }
            assert!(end <= size, "{ty}");
        }
        assert!(!can_swap_tensor_bytes(GgmlType::from_id(99)));
    }

    #[test]
    fn twice_is_as_before() {
        for &ty in GgmlType::KNOWN {
            let size = ty.layout().map_or(0, |l| l.block_bytes as usize);
            let before: alloc::vec::Vec<u8> = (0..3 * size).map(|i| i as u8).collect();
            let mut data = before.clone();
            swap_tensor_bytes(ty, &mut data).unwrap();
            let still = matches!(ty, GgmlType::I8 | GgmlType::MXFP4 | GgmlType::NVFP4);
            assert_eq!(data == before, still, "{ty}");
            swap_tensor_bytes(ty, &mut data).unwrap();
            assert_eq!(data, before, "{ty}");
            if size > 1 {
                assert!(swap_tensor_bytes(ty, &mut data[1..]).is_err());
            }
        }
    }
}
