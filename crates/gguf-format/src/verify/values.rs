//! Numbers that are not finite in the values, or in the scales of the blocks, of a tensor.

use crate::GgmlType;

/// Where the numbers of a block are that must be finite.
#[derive(Clone, Copy)]
enum Field {
    F16(usize, &'static str),
    BF16(usize, &'static str),
    F32(usize, &'static str),
    F64(usize, &'static str),
    /// A power of two in a byte; 255 is not a number.
    E8M0(usize, &'static str),
    /// The f16 that IQ1_M spreads over the upper four bits of four 16-bit numbers.
    Iq1M(usize, &'static str),
}

/// The scales of every type; `None` if there is nothing to check (integers, and NVFP4, whose every scale byte is a number) or the type is not known.
///
/// Offsets are those of the structs in ggml-common.h; what is checked is what `ggml_validate_row_data` in ggml-quants.c checks
/// (llama.cpp 0c1e57098), and both scales of Q8_1, a type that it does not take. It rounds F64 to f32 first, so that it calls large ones
/// infinite; here they are what they are.
fn fields(ty: GgmlType) -> Option<&'static [Field]> {
    use Field::{BF16, E8M0, F16, F32, F64, Iq1M};
    Some(match ty {
        GgmlType::F32 => &[F32(0, "value")],
        GgmlType::F16 => &[F16(0, "value")],
        GgmlType::BF16 => &[BF16(0, "value")],
        GgmlType::F64 => &[F64(0, "value")],
        GgmlType::Q4_0
        | GgmlType::Q5_0
        | GgmlType::Q8_0
        | GgmlType::IQ4_NL
        | GgmlType::IQ4_XS
        | GgmlType::IQ3_XXS
        | GgmlType::IQ3_S
        | GgmlType::IQ2_XXS
        | GgmlType::IQ2_XS
        | GgmlType::IQ2_S
        | GgmlType::IQ1_S
        | GgmlType::Q1_0
        | GgmlType::Q2_0 => &[F16(0, "scale d")],
        GgmlType::Q4_1 | GgmlType::Q5_1 => &[F16(0, "scale d"), F16(2, "minimum m")],
        GgmlType::Q8_1 => &[F16(0, "scale d"), F16(2, "sum s")],
        GgmlType::Q4_K | GgmlType::Q5_K => &[F16(0, "scale d"), F16(2, "scale dmin")],
        GgmlType::Q2_K => &[F16(16 + 64, "scale d"), F16(16 + 64 + 2, "scale dmin")],
        GgmlType::Q3_K => &[F16(32 + 64 + 12, "scale d")],
        GgmlType::Q6_K => &[F16(128 + 64 + 16, "scale d")],
        GgmlType::Q8_K => &[F32(0, "scale d")],
        GgmlType::TQ1_0 => &[F16(48 + 4, "scale d")],
        GgmlType::TQ2_0 => &[F16(64, "scale d")],
        GgmlType::IQ1_M => &[Iq1M(32 + 16, "scale d")],
        GgmlType::MXFP4 => &[E8M0(0, "exponent e")],
        _ => return None,
    })
}

/// What was found in the data of one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NonFinite {
    /// Number of numbers that are not finite.
    pub count: u64,
    /// Block of the first one (of plain types: its index), counted from 0.
    pub block: u64,
    /// Its offset in the data of the tensor.
    pub offset: u64,
    /// What it is: `scale d`, `value`, ...
    pub field: &'static str,
    /// `NaN`, `infinity` or `-infinity`.
    pub kind: &'static str,
}

/// Whether [`non_finite`] looks at anything in a tensor of this type: all but integers, NVFP4 (every byte is a scale) and unknown types.
pub fn checks_values(ty: GgmlType) -> bool {
    fields(ty).is_some()
}

/// Looks for numbers that are not finite in whole blocks of `ty`, little endian: in the values of plain types, in the scales of quantized ones.
/// A piece of a block at the end is not looked at.
///
/// ```
/// use gguf_format::{GgmlType, verify::non_finite};
/// let found = non_finite(GgmlType::F16, &[0x00, 0x3c, 0x00, 0x7e]).unwrap();
/// assert_eq!((found.block, found.offset, found.kind), (1, 2, "NaN"));
/// ```
pub fn non_finite(ty: GgmlType, data: &[u8]) -> Option<NonFinite> {
    let (fields, layout) = (fields(ty)?, ty.layout()?);
    let mut found: Option<NonFinite> = None;
    let mut add = |block: usize, field: Field| {
        let bytes = layout.block_bytes as usize;
        let kind = data.get(block * bytes..(block + 1) * bytes).and_then(|b| field.kind(b));
        let (Some(kind), (at, name)) = (kind, field.place()) else { return };
        found
            .get_or_insert(NonFinite {
                count: 0,
                block: block as u64,
                offset: (block * bytes + at) as u64,
                field: name,
                kind,
            })
            .count += 1;
    };
    // Many blocks at a time with one test, which the compiler makes wide for plain types; only where it hits, one by one.
    const CHUNK: usize = 256;
    for (chunk_index, chunk) in data.chunks(layout.block_bytes as usize * CHUNK).enumerate() {
        let blocks = || chunk.chunks_exact(layout.block_bytes as usize);
        let suspicious = match fields {
            [Field::F32(0, _)] if layout.block_len == 1 => {
                chunk.as_chunks().0.iter().fold(false, |any, &b| any | f32_hits(b))
            }
            [Field::F16(0, _)] if layout.block_len == 1 => {
                chunk.as_chunks().0.iter().fold(false, |any, &b| any | f16_hits(b))
            }
            [Field::BF16(0, _)] => chunk.as_chunks().0.iter().fold(false, |any, &b| any | bf16_hits(b)),
            fields => blocks().any(|b| fields.iter().any(|f| f.kind(b).is_some())),
        };
        if suspicious {
            for block in 0..blocks().len() {
                fields.iter().for_each(|&field| add(chunk_index * CHUNK + block, field));
            }
        }
    }
    found
}

fn f32_hits(b: [u8; 4]) -> bool {
    u32::from_le_bytes(b) & 0x7f80_0000 == 0x7f80_0000
}

fn f16_hits(b: [u8; 2]) -> bool {
    u16::from_le_bytes(b) & 0x7c00 == 0x7c00
}

fn bf16_hits(b: [u8; 2]) -> bool {
    u16::from_le_bytes(b) & 0x7f80 == 0x7f80
}

impl Field {
    fn place(self) -> (usize, &'static str) {
        match self {
            Self::F16(at, name)
            | Self::BF16(at, name)
            | Self::F32(at, name)
            | Self::F64(at, name)
            | Self::E8M0(at, name)
            | Self::Iq1M(at, name) => (at, name),
        }
    }

    /// What is wrong with the number; `None` if it is finite.
    fn kind(self, block: &[u8]) -> Option<&'static str> {
        let (at, _) = self.place();
        let value = match self {
            Self::F16(..) => half::f16::from_le_bytes(bytes(block, at)?).to_f64(),
            Self::BF16(..) => half::bf16::from_le_bytes(bytes(block, at)?).to_f64(),
            Self::F32(..) => f32::from_le_bytes(bytes(block, at)?).into(),
            Self::F64(..) => f64::from_le_bytes(bytes(block, at)?),
            Self::E8M0(..) => return (*block.get(at)? == 0xff).then_some("NaN"),
            Self::Iq1M(..) => {
                let nibble = |i: usize| Some(u16::from_le_bytes(bytes(block, at + 2 * i)?) >> 12);
                half::f16::from_bits(nibble(0)? | nibble(1)? << 4 | nibble(2)? << 8 | nibble(3)? << 12).to_f64()
            }
        };
        match value {
            v if v.is_finite() => None,
            v if v.is_nan() => Some("NaN"),
            v => Some(if v > 0.0 { "infinity" } else { "-infinity" }),
        }
    }
}

fn bytes<const N: usize>(block: &[u8], at: usize) -> Option<[u8; N]> {
    block.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every field of every type, made NaN and infinite in the second of three blocks, is found where it is.
    #[test]
    fn every_field_is_found() {
        for &ty in GgmlType::KNOWN {
            let size = ty.layout().unwrap().block_bytes as usize;
            let clean = vec![0u8; 3 * size];
            assert_eq!(non_finite(ty, &clean), None, "{ty}");
            for &field in fields(ty).unwrap_or_default() {
                let (at, name) = field.place();
                let put = |values: &[u8]| {
                    let mut data = clean.clone();
                    data[size + at..][..values.len()].copy_from_slice(values);
                    non_finite(ty, &data).map(|f| (f.count, f.block, f.offset, f.field, f.kind))
                };
                let found = |kind| Some((1, 1, (size + at) as u64, name, kind));
                let cases: &[(&[u8], &str)] = match field {
                    Field::F16(..) => {
                        &[(&[0x00, 0x7e], "NaN"), (&[0x00, 0x7c], "infinity"), (&[0x00, 0xfc], "-infinity")]
                    }
                    Field::BF16(..) => &[(&[0xc0, 0x7f], "NaN"), (&[0x80, 0xff], "-infinity")],
                    Field::F32(..) => &[(&[0, 0, 0xc0, 0xff], "NaN"), (&[0, 0, 0x80, 0x7f], "infinity")],
                    Field::F64(..) => {
                        &[(&[0, 0, 0, 0, 0, 0, 0xf8, 0x7f], "NaN"), (&[0, 0, 0, 0, 0, 0, 0xf0, 0xff], "-infinity")]
                    }
                    Field::E8M0(..) => &[(&[0xff], "NaN")],
                    // 0x7e00 and 0xfc00, a nibble in the upper bits of each 16-bit number.
                    Field::Iq1M(..) => {
                        &[(&[0, 0, 0, 0, 0, 0xe0, 0, 0x70], "NaN"), (&[0, 0, 0, 0, 0, 0xc0, 0, 0xf0], "-infinity")]
                    }
                };
                // The decoder takes the field from the same place: what it makes of the block is not finite, either.
                if let [(values, _), ..] = cases
                    && crate::blocks::can_dequantize(ty)
                    // The sum of Q8_1 is not decoded; the exponent of MXFP4 is a power of two to the decoder, whatever it is.
                    && name != "sum s"
                    && !matches!(field, Field::E8M0(..))
                {
                    let mut data = clean.clone();
                    data[size + at..][..values.len()].copy_from_slice(values);
                    let mut decoded = vec![0f32; 3 * ty.layout().unwrap().block_len as usize];
                    crate::blocks::dequantize(ty, &data, &mut decoded).unwrap();
                    assert!(decoded.iter().any(|v| !v.is_finite()), "{ty} {name}");
                }
                for (values, kind) in cases {
                    assert_eq!(put(values), found(*kind), "{ty} {name}");
                }
            }
        }
    }

    #[test]
    fn all_are_counted_and_the_first_is_named() {
        let mut data = vec![0u8; 4 * 1000];
        for i in [300, 301, 999] {
            data[4 * i..][..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
        }
        let found = non_finite(GgmlType::F32, &data).unwrap();
        assert_eq!((found.count, found.block, found.offset), (3, 300, 1200));
        assert_eq!(non_finite(GgmlType::from_id(99), &data), None);
        assert_eq!(non_finite(GgmlType::F32, &data[..1203]), None);
    }
}
