//! The table of file types: number (`general.file_type`), llama-quantize's name, the type most tensors get.

use crate::GgmlType;
use std::fmt;

/// What a whole file is quantized to, by its number in `general.file_type`.
///
/// Open like [`GgmlType`]: a number this crate does not know is a value that can be reported; it only has no name and no rule.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileType(u32);

macro_rules! table {
    ($($id:literal $konst:ident $name:literal $ty:ident;)*) => {
        impl FileType {
            $(#[doc = concat!("`", $name, "`: mostly ", stringify!($ty), ".")]
            pub const $konst: Self = Self($id);)*

            /// Every file type with a name and a rule, in order of number.
            pub const KNOWN: &'static [Self] = &[$(Self::$konst),*];

            const fn row(self) -> Option<(&'static str, GgmlType)> {
                match self.0 {
                    $($id => Some(($name, GgmlType::$ty)),)*
                    _ => None,
                }
            }
        }
    };
}

// `llama_ftype` in include/llama.h and `llama_ftype_get_default_type` in src/llama-quant.cpp (llama.cpp 0c1e57098).
// Five names promise another type than their rows start from: IQ2_S, IQ2_M, IQ3_XS, IQ3_M, MXFP4_MOE.
table! {
    0 F32 "F32" F32;
    1 F16 "F16" F16;
    2 Q4_0 "Q4_0" Q4_0;
    3 Q4_1 "Q4_1" Q4_1;
    7 Q8_0 "Q8_0" Q8_0;
    8 Q5_0 "Q5_0" Q5_0;
    9 Q5_1 "Q5_1" Q5_1;
    10 Q2_K "Q2_K" Q2_K;
    11 Q3_K_S "Q3_K_S" Q3_K;
    12 Q3_K_M "Q3_K_M" Q3_K;
    13 Q3_K_L "Q3_K_L" Q3_K;
    14 Q4_K_S "Q4_K_S" Q4_K;
    15 Q4_K_M "Q4_K_M" Q4_K;
    16 Q5_K_S "Q5_K_S" Q5_K;
    17 Q5_K_M "Q5_K_M" Q5_K;
    18 Q6_K "Q6_K" Q6_K;
    19 IQ2_XXS "IQ2_XXS" IQ2_XXS;
    20 IQ2_XS "IQ2_XS" IQ2_XS;
    21 Q2_K_S "Q2_K_S" Q2_K;
    22 IQ3_XS "IQ3_XS" IQ3_S;
    23 IQ3_XXS "IQ3_XXS" IQ3_XXS;
    24 IQ1_S "IQ1_S" IQ1_S;
    25 IQ4_NL "IQ4_NL" IQ4_NL;
    26 IQ3_S "IQ3_S" IQ3_S;
    27 IQ3_M "IQ3_M" IQ3_S;
    28 IQ2_S "IQ2_S" IQ2_XS;
    29 IQ2_M "IQ2_M" IQ2_S;
    30 IQ4_XS "IQ4_XS" IQ4_XS;
    31 IQ1_M "IQ1_M" IQ1_M;
    32 BF16 "BF16" BF16;
    36 TQ1_0 "TQ1_0" TQ1_0;
    37 TQ2_0 "TQ2_0" TQ2_0;
    38 MXFP4_MOE "MXFP4_MOE" MXFP4;
    40 Q1_0 "Q1_0" Q1_0;
    41 Q2_0 "Q2_0" Q2_0;
}

/// Short names llama-quantize takes for the middle mix of a family.
const ALIASES: &[(&str, FileType)] =
    &[("Q3_K", FileType::Q3_K_M), ("Q4_K", FileType::Q4_K_M), ("Q5_K", FileType::Q5_K_M)];

impl FileType {
    /// The file type with this number, known or not.
    pub const fn from_id(id: u32) -> Self {
        Self(id)
    }

    /// The number in `general.file_type`.
    pub const fn id(self) -> u32 {
        self.0
    }

    /// llama-quantize's name (`"Q4_K_M"`), if known.
    pub const fn name(self) -> Option<&'static str> {
        match self.row() {
            Some((name, _)) => Some(name),
            None => None,
        }
    }

    /// The type a tensor gets when no rule says otherwise, if known.
    pub const fn default_type(self) -> Option<GgmlType> {
        match self.row() {
            Some((_, ty)) => Some(ty),
            None => None,
        }
    }

    /// The file type of this name, ASCII case ignored; `Q3_K`, `Q4_K` and `Q5_K` mean their `_M` mixes.
    pub fn from_name(name: &str) -> Option<Self> {
        let known = Self::KNOWN.iter().copied().find(|t| t.name().is_some_and(|n| n.eq_ignore_ascii_case(name)));
        known.or_else(|| ALIASES.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|&(_, t)| t))
    }
}

impl fmt::Display for FileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "file-type-{}", self.0),
        }
    }
}

impl fmt::Debug for FileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_aliases() {
        for &t in FileType::KNOWN {
            assert_eq!(FileType::from_name(&t.to_string().to_lowercase()), Some(t));
        }
        for (name, expected) in [("q4_k", Some(15)), ("Q3_K", Some(12)), ("Q5_K", Some(17)), ("Q6_K", Some(18))] {
            assert_eq!(FileType::from_name(name).map(FileType::id), expected, "{name}");
        }
        for name in ["", "Q4", "Q4_K_L", "NVFP4", "1"] {
            assert_eq!(FileType::from_name(name), None, "{name}");
        }
        assert_eq!(FileType::from_id(999).to_string(), "file-type-999");
        assert_eq!(FileType::from_id(999).default_type(), None);
    }
}
