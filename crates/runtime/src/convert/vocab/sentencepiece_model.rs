//! The few fields of a SentencePiece `tokenizer.model` that a vocabulary needs, read from its protocol-buffer form.
//!
//! Fields as in sentencepiece_model.proto: `ModelProto { repeated SentencePiece pieces = 1; TrainerSpec trainer_spec = 2;
//! NormalizerSpec normalizer_spec = 3; }`. Wire format: protobuf.dev/programming-guides/encoding.

use std::ops::Range;

/// A piece, its score, and its type by number: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) text: Vec<u8>,
    pub(super) score: f32,
    pub(super) kind: i32,
}

/// What is read of the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SentencePieceModel {
    pub(super) pieces: Vec<Piece>,
    /// True for BPE, false for another model (unigram, word, char).
    pub(super) is_bpe: bool,
    /// A space is put before the text.
    pub(super) add_dummy_prefix: bool,
}

/// A field of a message: a number, or where its bytes are.
enum Field {
    Number(u64),
    Fixed32([u8; 4]),
    Bytes(Range<usize>),
    Skipped,
}

/// Reads the fields of one message.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Fields<'_> {
    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte =
                *self.bytes.get(self.at).ok_or_else(|| format!("a number cut short at offset {:#x}", self.at))?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(format!("a number of more than 64 bits before offset {:#x}", self.at))
    }

    fn take(&mut self, length: u64) -> Result<Range<usize>, String> {
        let left = self.bytes.len() - self.at;
        match usize::try_from(length) {
            Ok(length) if length <= left => {
                let range = self.at..self.at + length;
                self.at = range.end;
                Ok(range)
            }
            _ => Err(format!("{length} bytes at offset {:#x}, where {left} are left", self.at)),
        }
    }

    /// Field number and content; `None` at the end.
    fn next(&mut self) -> Result<Option<(u64, Field)>, String> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let start = self.at;
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Number(self.varint()?),
            1 => {
                self.take(8)?;
                Field::Skipped
            }
            2 => {
                let length = self.varint()?;
                Field::Bytes(self.take(length)?)
            }
            5 => {
                let range = self.take(4)?;
                Field::Fixed32(self.bytes[range].try_into().unwrap_or_default())
            }
            other => return Err(format!("wire type {other} at offset {start:#x}")),
        };
        Ok(Some((tag >> 3, field)))
    }
}

impl SentencePieceModel {
    /// Reads the bytes of a `tokenizer.model`. The error says what is wrong where.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        // Defaults of the proto: unigram (1), a dummy prefix.
        let mut model = Self { pieces: Vec::new(), is_bpe: false, add_dummy_prefix: true };
        let mut fields = Fields { bytes, at: 0 };
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (1, Field::Bytes(range)) => model.pieces.push(parse_piece(&bytes[range])?),
                (2, Field::Bytes(range)) => model.is_bpe = number_in(&bytes[range], 3)? == Some(2),
                (3, Field::Bytes(range)) => model.add_dummy_prefix = number_in(&bytes[range], 3)? != Some(0),
                _ => {}
            }
        }
        match model.pieces.is_empty() {
            true => Err("no pieces".to_owned()),
            false => Ok(model),
        }
    }
}

fn parse_piece(bytes: &[u8]) -> Result<Piece, String> {
    let mut piece = Piece { text: Vec::new(), score: 0.0, kind: 1 };
    let mut fields = Fields { bytes, at: 0 };
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Bytes(range)) => piece.text = bytes[range].to_vec(),
            (2, Field::Fixed32(raw)) => piece.score = f32::from_le_bytes(raw),
            (3, Field::Number(n)) => {
                piece.kind =
                    i32::try_from(n).ok().filter(|k| (1..=6).contains(k)).ok_or_else(|| format!("piece type {n}"))?;
            }
            _ => {}
        }
    }
    match piece.score.is_finite() {
        true => Ok(piece),
        false => Err(format!("a piece of score {}", piece.score)),
    }
}

/// The last value of a numeric field of a message.
fn number_in(bytes: &[u8], wanted: u64) -> Result<Option<u64>, String> {
    let mut found = None;
    let mut fields = Fields { bytes, at: 0 };
    while let Some((number, field)) = fields.next()? {
        if let (true, Field::Number(n)) = (number == wanted, field) {
            found = Some(n);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `<unk>` (unknown, score 0), `▁a` (score -1.5), trainer model_type BPE, normalizer add_dummy_prefix false: bytes of protoc.
    const SMALL: &[u8] =
        b"\x0a\x0e\x0a\x05<unk>\x15\x00\x00\x00\x00\x18\x02\x0a\x0b\x0a\x04\xe2\x96\x81a\x15\x00\x00\xc0\xbf\x12\x02\x18\x02\x1a\x02\x18\x00";

    #[test]
    fn reads_pieces_scores_types() {
        let model = SentencePieceModel::parse(SMALL).unwrap();
        assert_eq!(model.pieces[0], Piece { text: b"<unk>".to_vec(), score: 0.0, kind: 2 });
        assert_eq!(model.pieces[1], Piece { text: "▁a".as_bytes().to_vec(), score: -1.5, kind: 1 });
        assert!(model.is_bpe && !model.add_dummy_prefix);
    }

    #[test]
    fn refuses_every_cut() {
        for n in 0..SMALL.len() {
            // A cut between fields gives a shorter valid message, or no pieces; never a panic.
            let _ = SentencePieceModel::parse(&SMALL[..n]);
        }
        assert!(SentencePieceModel::parse(b"IQ== 0\n").is_err());
        assert!(SentencePieceModel::parse(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_give_a_model_or_an_error(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..256)) {
            let _ = SentencePieceModel::parse(&bytes);
        }

        #[test]
        fn any_change_gives_a_model_or_an_error(at in 0..SMALL.len(), value in proptest::num::u8::ANY) {
            let mut bytes = SMALL.to_vec();
            bytes[at] = value;
            let _ = SentencePieceModel::parse(&bytes);
        }
    }
}
