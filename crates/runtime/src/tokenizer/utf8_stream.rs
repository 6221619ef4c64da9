//! Bytes that come in pieces, given on as whole characters.

/// Holds back the bytes of a character until it is complete.
///
/// Bytes that can never become a character come out as U+FFFD, one for each maximal run that could have begun one, as in
/// [`String::from_utf8_lossy`]: the pieces together give the same text as the bytes at once.
#[derive(Clone, Debug, Default)]
pub struct Utf8Stream {
    /// Less than one character.
    held: Vec<u8>,
}

impl Utf8Stream {
    /// A stream that holds nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The characters that `bytes` completes.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.held.len());
        let mut used = 0;
        for chunk in self.held.utf8_chunks() {
            text.push_str(chunk.valid());
            used += chunk.valid().len();
            let invalid = chunk.invalid();
            let unfinished = used + invalid.len() == self.held.len() && may_continue(invalid);
            if !invalid.is_empty() && !unfinished {
                text.push(char::REPLACEMENT_CHARACTER);
                used += invalid.len();
            }
        }
        self.held.drain(..used);
        text
    }

    /// What is left at the end: U+FFFD for an unfinished character, or nothing.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned()
    }
}

/// True if more bytes can make this the beginning of a character.
fn may_continue(bytes: &[u8]) -> bool {
    // `error_len` is `None` exactly where the input ended too early.
    std::str::from_utf8(bytes).is_err_and(|e| e.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn whole_characters_only() {
        let mut stream = Utf8Stream::new();
        let crab = "🦀".as_bytes();
        let pushed: Vec<String> = crab.iter().map(|&b| stream.push(&[b])).collect();
        assert_eq!(pushed, ["", "", "", "🦀"]);
        assert_eq!(stream.push(&[b'a', 0xE2, 0x82]), "a");
        assert_eq!(stream.push(b"b"), "\u{fffd}b");
        assert_eq!(stream.push(&crab[..3]), "");
        assert_eq!(stream.finish(), "\u{fffd}");
        assert_eq!(stream.finish(), "");
    }

    proptest! {
        #[test]
        fn pieces_equal_the_whole(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..6), 0..12)) {
            let mut stream = Utf8Stream::new();
            let mut text: String = pieces.iter().map(|p| stream.push(p)).collect();
            text.push_str(&stream.finish());
            let whole = pieces.concat();
            prop_assert_eq!(text, String::from_utf8_lossy(&whole));
        }
    }
}
