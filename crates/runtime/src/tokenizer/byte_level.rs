//! The alphabet of byte-level BPE: every byte is one printable character.
//!
//! GPT-2's table (openai/gpt-2 `encoder.py`, `bytes_to_unicode`): printable Latin-1 bytes stand for themselves, the other 68 bytes take the
//! characters from U+0100 on, in byte order.

use std::sync::OnceLock;

fn prints_itself(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

fn characters() -> &'static [char; 256] {
    static TABLE: OnceLock<[char; 256]> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut moved = 0u8;
        std::array::from_fn(|b| {
            let byte = b as u8;
            if prints_itself(byte) {
                char::from(byte)
            } else {
                // 68 bytes move: U+0100..=U+0143.
                let c = char::from_u32(0x100 + u32::from(moved)).unwrap_or(char::REPLACEMENT_CHARACTER);
                moved += 1;
                c
            }
        })
    })
}

fn bytes() -> &'static [Option<u8>; 0x144] {
    static TABLE: OnceLock<[Option<u8>; 0x144]> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table = [None; 0x144];
        for (byte, &c) in characters().iter().enumerate() {
            if let Some(slot) = table.get_mut(c as usize) {
                *slot = Some(byte as u8);
            }
        }
        table
    })
}

/// The character that stands for a byte.
pub(crate) fn char_of(byte: u8) -> char {
    characters()[usize::from(byte)]
}

/// The byte a character stands for.
pub(crate) fn byte_of(c: char) -> Option<u8> {
    bytes().get(c as usize).copied().flatten()
}

/// The bytes a token's text stands for. Text with a character outside the alphabet stands for itself, as in `tokenizers`' ByteLevel decoder.
pub(crate) fn decode(text: &str) -> Vec<u8> {
    text.chars().map(byte_of).collect::<Option<Vec<u8>>>().unwrap_or_else(|| text.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_characters() {
        // Ġ for a space and Ċ for a newline are what everyone sees in vocabularies; U+0143 is the soft hyphen, the last of the 68.
        for (byte, c) in [(b' ', 'Ġ'), (b'\n', 'Ċ'), (b'a', 'a'), (0, 'Ā'), (0xAD, '\u{143}'), (0x7F, 'ġ'), (0xFF, 'ÿ')]
        {
            assert_eq!(char_of(byte), c, "{byte:#x}");
        }
    }

    #[test]
    fn one_to_one() {
        for byte in 0..=255 {
            assert_eq!(byte_of(char_of(byte)), Some(byte));
        }
        assert_eq!(byte_of(' '), None);
        assert_eq!(byte_of('中'), None);
    }

    #[test]
    fn text_outside_the_alphabet_stands_for_itself() {
        assert_eq!(decode("Ġa"), b" a");
        assert_eq!(decode("<｜end▁of▁sentence｜>"), "<｜end▁of▁sentence｜>".as_bytes());
    }
}
