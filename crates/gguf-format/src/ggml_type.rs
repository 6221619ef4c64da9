//! The table of ggml tensor types: id, name, block length, block bytes.

use core::fmt;

/// A ggml tensor type by its number on disk.
///
/// Open by design: a number this crate does not know is still a value, it can be reported and copied, only its byte size is unknown.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GgmlType(u32);

/// How a type lays values out: `block_len` values in `block_bytes` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Values in one block.
    pub block_len: u32,
    /// Bytes of one block.
    pub block_bytes: u32,
}

macro_rules! table {
    ($($id:literal $konst:ident $name:literal $len:literal $bytes:expr;)*) => {
        impl GgmlType {
            $(#[doc = concat!("`", $name, "`, ", stringify!($len), " values in ", stringify!($bytes), " bytes.")]
            pub const $konst: Self = Self($id);)*

            /// Every type this crate knows by name and size, in order of id.
            pub const KNOWN: &'static [Self] = &[$(Self::$konst),*];

            const fn row(self) -> Option<(&'static str, Layout)> {
                match self.0 {
                    $($id => Some(($name, Layout { block_len: $len, block_bytes: $bytes })),)*
                    _ => None,
                }
            }
        }
    };
}

// Sizes are the sums of the fields of the structs in ggml-common.h: scales (2 bytes an f16), codes, signs, high bits.
table! {
    0 F32 "F32" 1 4;
    1 F16 "F16" 1 2;
    2 Q4_0 "Q4_0" 32 2 + 16;
    3 Q4_1 "Q4_1" 32 2 + 2 + 16;
    6 Q5_0 "Q5_0" 32 2 + 4 + 16;
    7 Q5_1 "Q5_1" 32 2 + 2 + 4 + 16;
    8 Q8_0 "Q8_0" 32 2 + 32;
    9 Q8_1 "Q8_1" 32 2 + 2 + 32;
    10 Q2_K "Q2_K" 256 16 + 64 + 2 + 2;
    11 Q3_K "Q3_K" 256 32 + 64 + 12 + 2;
    12 Q4_K "Q4_K" 256 2 + 2 + 12 + 128;
    13 Q5_K "Q5_K" 256 2 + 2 + 12 + 32 + 128;
    14 Q6_K "Q6_K" 256 128 + 64 + 16 + 2;
    15 Q8_K "Q8_K" 256 4 + 256 + 32;
    16 IQ2_XXS "IQ2_XXS" 256 2 + 64;
    17 IQ2_XS "IQ2_XS" 256 2 + 64 + 8;
    18 IQ3_XXS "IQ3_XXS" 256 2 + 96;
    19 IQ1_S "IQ1_S" 256 2 + 32 + 16;
    20 IQ4_NL "IQ4_NL" 32 2 + 16;
    21 IQ3_S "IQ3_S" 256 2 + 64 + 8 + 32 + 4;
    22 IQ2_S "IQ2_S" 256 2 + 64 + 8 + 8;
    23 IQ4_XS "IQ4_XS" 256 2 + 2 + 4 + 128;
    24 I8 "I8" 1 1;
    25 I16 "I16" 1 2;
    26 I32 "I32" 1 4;
    27 I64 "I64" 1 8;
    28 F64 "F64" 1 8;
    29 IQ1_M "IQ1_M" 256 32 + 16 + 8;
    30 BF16 "BF16" 1 2;
    34 TQ1_0 "TQ1_0" 256 48 + 4 + 2;
    35 TQ2_0 "TQ2_0" 256 64 + 2;
    39 MXFP4 "MXFP4" 32 1 + 16;
    40 NVFP4 "NVFP4" 64 4 + 32;
    41 Q1_0 "Q1_0" 128 2 + 16;
    42 Q2_0 "Q2_0" 64 2 + 16;
}

impl GgmlType {
    /// The type with this number on disk, known or not.
    pub const fn from_id(id: u32) -> Self {
        Self(id)
    }

    /// The number on disk.
    pub const fn id(self) -> u32 {
        self.0
    }

    /// ggml's name (`"Q4_K"`), if known.
    pub const fn name(self) -> Option<&'static str> {
        match self.row() {
            Some((name, _)) => Some(name),
            None => None,
        }
    }

    /// Block length and bytes, if known.
    pub const fn layout(self) -> Option<Layout> {
        match self.row() {
            Some((_, layout)) => Some(layout),
            None => None,
        }
    }

    /// The type of this name, ASCII case ignored.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::KNOWN.iter().copied().find(|t| t.name().is_some_and(|n| n.eq_ignore_ascii_case(name)))
    }

    /// Bytes of `n` values; `None` if the type is unknown, `n` is not a multiple of the block length, or the product overflows.
    pub fn bytes_for(self, n: u64) -> Option<u64> {
        let layout = self.layout()?;
        if !n.is_multiple_of(layout.block_len.into()) {
            return None;
        }
        (n / u64::from(layout.block_len)).checked_mul(u64::from(layout.block_bytes))
    }

    /// True for the types that group values in blocks (not F32, F16, BF16, F64 or integers).
    pub fn is_quantized(self) -> bool {
        self.layout().is_some_and(|l| l.block_len > 1)
    }

    /// Bits per value, if known.
    pub fn bits_per_weight(self) -> Option<f64> {
        self.layout().map(|l| f64::from(l.block_bytes) * 8.0 / f64::from(l.block_len))
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "type-{}", self.0),
        }
    }
}

impl fmt::Debug for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
