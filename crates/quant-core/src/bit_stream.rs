//! Codes of 1 to 8 bits in a dense stream of 32-bit words, least significant bit first.
//!
//! Code `i` stands at the bits `i·b .. (i + 1)·b` of the stream, bit `k` of the stream at bit `k mod 32` of word `k / 32`; a code may
//! cross from one word into the next:
//! ```text
//! 3 bits   word 0: c0 c1 .. c9 and the low 2 bits of c10 | word 1: the high bit of c10, c11 .. c20, the low bit of c21 | ..
//! ```
//! GPTQ's `qweight` holds one such stream per output feature and `qzeros` one per group (2, 3, 4 and 8 bits), compressed-tensors'
//! `weight_packed` one per output feature (1 to 8 bits).

/// Codes and words that do not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BitStreamError {
    /// A code has 1 to 8 bits.
    #[error("codes of 1 to 8 bits can be packed, not of {bits}")]
    Bits {
        /// Bits asked for.
        bits: u8,
    },
    /// The words are not as many as the codes need.
    #[error("{codes} codes of {bits} bits take {expected} words, found {found}")]
    Length {
        /// Codes to be packed or unpacked.
        codes: usize,
        /// Bits of each.
        bits: u8,
        /// Words they take.
        expected: usize,
        /// Words given.
        found: usize,
    },
    /// A code does not fit its bits.
    #[error("code {code} at {index} does not fit {bits} bits")]
    Code {
        /// Which code.
        index: usize,
        /// Its value.
        code: u8,
        /// Bits of each code.
        bits: u8,
    },
}

/// Words that `codes` codes of `bits` bits take: `⌈codes · bits / 32⌉`.
pub const fn word_count(codes: usize, bits: u8) -> usize {
    // Of 32 codes at a time, so that the product cannot overflow before its quotient does.
    let bits = bits as usize;
    (codes / 32).saturating_mul(bits).saturating_add((codes % 32 * bits).div_ceil(32))
}

/// Packs `codes` into `words`; bits of the last word that no code fills are zero.
///
/// # Errors
/// [`BitStreamError`]; `words` is untouched unless a code is too large.
pub fn pack(codes: &[u8], bits: u8, words: &mut [u32]) -> Result<(), BitStreamError> {
    check(codes.len(), bits, words.len())?;
    let mut packed = words.iter_mut();
    let (mut buffer, mut filled) = (0u64, 0u32);
    for (index, &code) in codes.iter().enumerate() {
        if u32::from(code) >> bits != 0 {
            return Err(BitStreamError::Code { index, code, bits });
        }
        buffer |= u64::from(code) << filled;
        filled += u32::from(bits);
        if filled >= 32 {
            if let Some(word) = packed.next() {
                *word = buffer as u32;
            }
            buffer >>= 32;
            filled -= 32;
        }
    }
    if filled > 0
        && let Some(word) = packed.next()
    {
        *word = buffer as u32;
    }
    Ok(())
}

/// Unpacks `codes.len()` codes; what follows the last of them in its word is not looked at.
///
/// # Errors
/// [`BitStreamError::Bits`] or [`BitStreamError::Length`]; `codes` is untouched then.
pub fn unpack(words: &[u32], bits: u8, codes: &mut [u8]) -> Result<(), BitStreamError> {
    check(codes.len(), bits, words.len())?;
    match bits {
        1 => unpack_of::<1>(words, codes),
        2 => unpack_of::<2>(words, codes),
        3 => unpack_of::<3>(words, codes),
        4 => unpack_of::<4>(words, codes),
        5 => unpack_of::<5>(words, codes),
        6 => unpack_of::<6>(words, codes),
        7 => unpack_of::<7>(words, codes),
        _ => unpack_of::<8>(words, codes),
    }
    Ok(())
}

/// 32 codes of whole words at a time, with places that the compiler knows.
fn unpack_of<const BITS: usize>(words: &[u32], codes: &mut [u8]) {
    let (runs, last) = codes.as_chunks_mut::<32>();
    let (whole, rest) = words.split_at(runs.len() * BITS);
    for (codes, words) in runs.iter_mut().zip(whole.chunks_exact(BITS)) {
        if 8 % BITS == 0 {
            // No code crosses a byte.
            let per_word = 32 / BITS;
            for (codes, word) in codes.chunks_exact_mut(per_word).zip(words) {
                for (codes, byte) in codes.chunks_exact_mut(8 / BITS).zip(word.to_le_bytes()) {
                    for (j, code) in codes.iter_mut().enumerate() {
                        *code = byte >> (j * BITS) & (0xff >> (8 - BITS));
                    }
                }
            }
            continue;
        }
        // Four codes reach at most into a second word.
        for (i, codes) in codes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let bit = 4 * BITS * i;
            let next = if bit / 32 + 1 < BITS { words[bit / 32 + 1] } else { 0 };
            let bits = (u64::from(words[bit / 32]) | u64::from(next) << 32) >> (bit % 32);
            for (j, code) in codes.iter_mut().enumerate() {
                *code = (bits >> (j * BITS)) as u8 & (0xff >> (8 - BITS));
            }
        }
    }
    let mut rest = rest.iter();
    let (mut buffer, mut filled) = (0u64, 0);
    for code in last {
        if filled < BITS {
            buffer |= u64::from(*rest.next().unwrap_or(&0)) << filled;
            filled += 32;
        }
        *code = buffer as u8 & (0xff >> (8 - BITS));
        buffer >>= BITS;
        filled -= BITS;
    }
}

fn check(codes: usize, bits: u8, found: usize) -> Result<(), BitStreamError> {
    if !(1..=8).contains(&bits) {
        return Err(BitStreamError::Bits { bits });
    }
    let expected = word_count(codes, bits);
    if found != expected {
        return Err(BitStreamError::Length { codes, bits, expected, found });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packed(codes: &[u8], bits: u8) -> Vec<u32> {
        let mut words = vec![u32::MAX; word_count(codes.len(), bits)];
        pack(codes, bits, &mut words).unwrap();
        words
    }

    /// Words that the packers of AutoGPTQ (2, 3, 4, 8 bits) and compressed-tensors (5, 6, 7 bits) give for the codes `5 i + 3`.
    #[test]
    fn words_of_the_reference_packers() {
        let cases: [(u8, usize, &[u32]); 7] = [
            (2, 16, &[0x93939393]),
            (3, 32, &[0x43c67543, 0x7543c675, 0xc67543c6]),
            (4, 8, &[0x61c72d83]),
            (5, 32, &[0x79793503, 0xfd560b30, 0x77137249, 0x1bb45871, 0xf668f514]),
            (6, 32, &[0x1748d203, 0x5c2b9a17, 0x38913feb, 0x2789d613, 0x503bdb1b, 0x79950f28]),
            (7, 32, &[0x72434403, 0x2b4c84e1, 0x23f74d58, 0x6c539d26, 0xc7667c57, 0x41407bed, 0x3c64a0f1]),
            (8, 4, &[0x120d0803]),
        ];
        for (bits, n, words) in cases {
            let codes: Vec<u8> = (0..n).map(|i| ((5 * i + 3) % (1 << bits)) as u8).collect();
            assert_eq!(packed(&codes, bits), words, "{bits} bits");
        }
        // The zero points of a symmetric grid, less one and as they are.
        for (bits, less_one, as_is) in [
            (2, &[0x55555555][..], &[0xaaaaaaaa][..]),
            (3, &[0xdb6db6db, 0xb6db6db6, 0x6db6db6d], &[0x24924924, 0x49249249, 0x92492492]),
            (4, &[0x77777777], &[0x88888888]),
            (8, &[0x7f7f7f7f], &[0x80808080]),
        ] {
            let n = as_is.len() * 32 / usize::from(bits);
            assert_eq!(packed(&vec![(1u8 << (bits - 1)) - 1; n], bits), less_one, "{bits} bits");
            assert_eq!(packed(&vec![1u8 << (bits - 1); n], bits), as_is, "{bits} bits");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let mut words = [7; 2];
        assert_eq!(pack(&[0], 0, &mut words), Err(BitStreamError::Bits { bits: 0 }));
        assert_eq!(unpack(&words, 9, &mut [0]), Err(BitStreamError::Bits { bits: 9 }));
        let length = BitStreamError::Length { codes: 32, bits: 3, expected: 3, found: 2 };
        assert_eq!(pack(&[0; 32], 3, &mut words), Err(length));
        assert_eq!(unpack(&words, 3, &mut [0; 32]), Err(length));
        assert_eq!(words, [7; 2]);
        assert_eq!(pack(&[3, 8], 3, &mut words[..1]), Err(BitStreamError::Code { index: 1, code: 8, bits: 3 }));
        assert_eq!(word_count(usize::MAX, 8), usize::MAX / 32 * 8 + 8);
        assert_eq!(pack(&[], 5, &mut []), Ok(()));
    }

    proptest! {
        #[test]
        fn bit_by_bit(bits in 1u8..=8, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let codes: Vec<u8> = bytes.iter().map(|b| (u32::from(*b) % (1u32 << bits)) as u8).collect();
            let mut words = packed(&codes, bits);
            let stream = |k: usize| words.get(k / 32).map_or(0, |w| w >> (k % 32) & 1);
            for k in 0..words.len() * 32 {
                let bit = codes.get(k / usize::from(bits)).map_or(0, |c| u32::from(*c) >> (k % usize::from(bits)) & 1);
                prop_assert_eq!(stream(k), bit);
            }
            // Bits past the last code do not matter.
            let used = codes.len() * usize::from(bits);
            if let (Some(last), true) = (words.last_mut(), !used.is_multiple_of(32)) {
                *last |= u32::MAX << (used % 32);
            }
            let mut again = vec![0; codes.len()];
            unpack(&words, bits, &mut again).unwrap();
            prop_assert_eq!(again, codes);
        }
    }
}
