//! The readers that a file may meet, and what each of them refuses.

use std::fmt;

/// A reader of GGUF files, as of a version whose rules are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reader {
    /// llama.cpp 0c1e57098: `gguf_init_from_file` without data, and the bounds check of its model loader. Little endian.
    LlamaCpp,
    /// gguf-py 0.19: `GGUFReader`.
    GgufPy,
    /// candle-core 0.11: `gguf_file::Content::read`, and `tensor` of each.
    Candle,
    /// This crate: [`Gguf::parse`](crate::Gguf::parse) with the default limits.
    GgufFormat,
}

impl Reader {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::LlamaCpp, Self::GgufPy, Self::Candle, Self::GgufFormat];

    /// `llama.cpp`, `gguf-py`, `candle`, `gguf-format`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LlamaCpp => "llama.cpp",
            Self::GgufPy => "gguf-py",
            Self::Candle => "candle",
            Self::GgufFormat => "gguf-format",
        }
    }
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

macro_rules! rules {
    ($($variant:ident $code:literal $readers:expr, $doc:literal;)*) => {
        /// What can be found in a file. Which readers refuse it: [`Rule::refused_by`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Rule {
            $(#[doc = $doc] $variant,)*
        }

        impl Rule {
            /// Every rule.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// A short name for programs: `duplicate_key`.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// Whether a well-formed file does not have it: llama.cpp or this crate refuses it, whatever the byte order of the machine.
            pub fn is_fault(self) -> bool {
                let refused_by = |reader: Reader| self.refused_by().contains(&reader);
                self != Self::BigEndian && (refused_by(Reader::LlamaCpp) || refused_by(Reader::GgufFormat))
            }

            /// The readers that refuse a file for it. None: it is only said.
            pub const fn refused_by(self) -> &'static [Reader] {
                match self { $(Self::$variant => $readers,)* }
            }
        }
    };
}

const L: Reader = Reader::LlamaCpp;
const P: Reader = Reader::GgufPy;
const C: Reader = Reader::Candle;
const Q: Reader = Reader::GgufFormat;

// From gguf.cpp and llama-model-loader.cpp, gguf_reader.py, gguf_file.rs, and this crate's parser. gguf-py reads past the end without an error
// in a few places (a last string that is cut short); such a file is damaged all the same and counted as refused.
rules! {
    BadMagic "bad_magic" &[L, P, C, Q], "The file does not begin with `GGUF`.";
    BadVersion "bad_version" &[L, P, C, Q], "No version from 1 to 3 in either byte order.";
    Version1 "version_1" &[L, P], "Version 1, whose lengths have 32 bits.";
    BigEndian "big_endian" &[L, C], "Big-endian numbers.";
    EndsEarly "ends_early" &[L, P, C, Q], "The file ends in the header, or a count or length is more than it can hold.";
    BeyondLimits "beyond_limits" &[Q], "More than this crate's limits: 2^20 keys or tensors, a header of 2^30 bytes.";
    KeyEmpty "key_empty" &[L, Q], "A key without a name.";
    KeyTooLong "key_too_long" &[Q], "A key of more than 65,535 bytes, the specification's limit.";
    KeyNotUtf8 "key_not_utf8" &[P, Q], "A key that is not UTF-8.";
    KeyReserved "key_reserved" &[P], "A key that gguf-py uses for the header: `GGUF.version`, `GGUF.tensor_count`, `GGUF.kv_count`.";
    DuplicateKey "duplicate_key" &[L, P, Q], "A key a second time. candle keeps the last.";
    BadValueType "bad_value_type" &[L, P, C, Q], "A value type that is none.";
    NestedArray "nested_array" &[L], "An array of arrays.";
    DeepArray "deep_array" &[L, Q], "Arrays nested more than 4 deep.";
    TooDeepArray "too_deep_array" &[L, P, C, Q], "Arrays nested more than 64 deep.";
    BoolNotBit "bool_not_bit" &[C], "A boolean that is neither 0 nor 1.";
    AlignmentType "alignment_type" &[L, P, Q], "`general.alignment` is not an u32.";
    AlignmentNotPower "alignment_not_power" &[L, P, Q], "`general.alignment` is not a power of two.";
    AlignmentZero "alignment_zero" &[L, P, C, Q], "`general.alignment` is 0; candle divides by it.";
    NameTooLong "name_too_long" &[L, Q], "A tensor's name of more than 63 bytes.";
    NameNotUtf8 "name_not_utf8" &[P, Q], "A tensor's name that is not UTF-8.";
    NameNul "name_nul" &[], "A NUL in a tensor's name, where ggml's name ends.";
    DuplicateTensor "duplicate_tensor" &[L, P, Q], "A tensor's name a second time. candle keeps the last.";
    TooManyDims "too_many_dims" &[L, C, Q], "More than 4 dimensions.";
    TooLarge "too_large" &[L, P, C, Q], "Dimensions or bytes that no reader can count.";
    UnknownTensorType "unknown_tensor_type" &[L, P, C], "A tensor type that ggml does not have, or no longer has.";
    NotInGgufPy "type_not_in_gguf_py" &[P], "A tensor type that gguf-py does not know.";
    NotInCandle "type_not_in_candle" &[C], "A tensor type that candle does not know.";
    PartialRow "partial_row" &[L, P, C, Q], "Rows that are not whole blocks.";
    ScalarTensor "scalar_tensor" &[C], "A tensor without dimensions.";
    OffsetNotAligned "offset_not_aligned" &[L, Q], "A tensor that is not at a multiple of the alignment.";
    OffsetNotNext "offset_not_next" &[L], "A tensor that does not follow the one before it: another order, or a gap.";
    Overlap "overlap" &[L, Q], "Tensors that lie over each other.";
    DataPastEnd "data_past_end" &[L, P, C, Q], "The data of a tensor reach past the end of the file.";
    EmptyPastEnd "empty_past_end" &[Q], "A tensor without data past the end of the file.";
    NoDataSection "no_data_section" &[L], "The file ends before its data section starts.";
    LastPaddingMissing "last_padding_missing" &[], "The padding of the last tensor is missing. ggml refuses it where it reads the data with the header; llama.cpp maps them.";
    BytesBehind "bytes_behind" &[], "More bytes behind the last tensor, which no reader looks at.";
}
