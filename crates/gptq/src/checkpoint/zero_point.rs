//! What a field of `qzeros` means, and telling it from the fields.

use quant_core::affine::Bits;
use quant_core::bit_stream;

/// What a field of `qzeros` means on disk.
///
/// AutoGPTQ stored the zero point less one, and its kernels add one; GPTQModel's `gptq_v2` stores it as it is. With the wrong convention every
/// weight is off by one step and the model speaks gibberish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroPoint {
    /// The zero point less one, modulo `2^bits`: `"checkpoint_format": "gptq"`, or none.
    MinusOne,
    /// The zero point: `"checkpoint_format": "gptq_v2"`.
    AsIs,
}

impl ZeroPoint {
    /// As `checkpoint_format` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::MinusOne => "gptq",
            Self::AsIs => "gptq_v2",
        }
    }

    /// The zero point that a field stands for. The largest field less one stands for 0: a quantizer's zero points are 0 to `2^bits - 1`, and
    /// GPTQModel wraps so too.
    pub fn decode(self, field: u8, bits: Bits) -> u16 {
        match self {
            Self::MinusOne if field >= bits.max_code() => 0,
            Self::MinusOne => u16::from(field) + 1,
            Self::AsIs => u16::from(field),
        }
    }

    /// The field of a zero point, `None` for `2^bits`, which no field stands for.
    pub fn encode(self, zero: u16, bits: Bits) -> Option<u8> {
        let zero = u8::try_from(zero).ok().filter(|zero| *zero <= bits.max_code())?;
        match self {
            Self::MinusOne => Some(zero.wrapping_sub(1) & bits.max_code()),
            Self::AsIs => Some(zero),
        }
    }

    /// The convention of a symmetric module, whatever its config says: every zero point of a symmetric grid is `2^(bits - 1)`. `rows` are those of
    /// `qzeros`, `out_features` fields each. `None` if the fields are anything else.
    pub(super) fn detect<'a>(rows: impl Iterator<Item = &'a [u32]>, out_features: usize, bits: Bits) -> Option<Self> {
        let words = bit_stream::word_count(out_features, bits.get());
        let fields = |field: u8| {
            let mut packed = vec![0; words];
            bit_stream::pack(&vec![field; out_features], bits.get(), &mut packed).ok()?;
            Some(packed)
        };
        let mut left = [(Self::AsIs, fields(bits.middle())?), (Self::MinusOne, fields(bits.middle() - 1)?)].to_vec();
        // Bits behind the last field of a row say nothing.
        let used = (out_features % 32 * usize::from(bits.get())) % 32;
        let mask = if used == 0 { u32::MAX } else { u32::MAX >> (32 - used) };
        for row in rows {
            left.retain(|(_, expected)| match (expected.split_last(), row.split_last()) {
                (Some((e_last, e)), Some((r_last, r))) => e == r && *e_last == r_last & mask,
                _ => false,
            });
        }
        match left.as_slice() {
            [(convention, _)] => Some(*convention),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_by_hand() {
        let bits = Bits::new(3).unwrap();
        let pairs = |z: ZeroPoint| (0..8).map(|field| z.decode(field, bits)).collect::<Vec<_>>();
        assert_eq!(pairs(ZeroPoint::MinusOne), [1, 2, 3, 4, 5, 6, 7, 0]);
        assert_eq!(pairs(ZeroPoint::AsIs), [0, 1, 2, 3, 4, 5, 6, 7]);
        for bits in [2, 3, 4, 8].map(|b| Bits::new(b).unwrap()) {
            for convention in [ZeroPoint::MinusOne, ZeroPoint::AsIs] {
                for zero in 0..1 << bits.get() {
                    let field = convention.encode(zero, bits).unwrap();
                    assert_eq!(convention.decode(field, bits), zero, "{bits} bits, {convention:?}");
                }
                assert_eq!(convention.encode(1 << bits.get(), bits), None);
            }
        }
    }

    #[test]
    fn a_symmetric_module_shows_its_convention() {
        let four = Bits::new(4).unwrap();
        let detect = |rows: &[&[u32]], n| ZeroPoint::detect(rows.iter().copied(), n, four);
        assert_eq!(detect(&[&[0x7777_7777], &[0x7777_7777]], 8), Some(ZeroPoint::MinusOne));
        assert_eq!(detect(&[&[0x8888_8888], &[0x8888_8888]], 8), Some(ZeroPoint::AsIs));
        assert_eq!(detect(&[&[0x8888_8888], &[0x7777_7777]], 8), None);
        assert_eq!(detect(&[&[0x8888_8878]], 8), None);
        // Three fields: what follows them in the word does not count.
        assert_eq!(detect(&[&[0xffff_f888]], 3), Some(ZeroPoint::AsIs));
        assert_eq!(detect(&[&[0xffff_f887]], 3), None);
        assert_eq!(detect(&[], 8), None);
        let three = Bits::new(3).unwrap();
        let rows = [[0x2492_4924u32, 0x4924_9249, 0x9249_2492]];
        assert_eq!(ZeroPoint::detect(rows.iter().map(|r| &r[..]), 32, three), Some(ZeroPoint::AsIs));
    }
}
