//! Activations rounded to 8 bits: what the products of W8A8 models read.
//!
//! A value `x` becomes a code `q` of one byte, which stands for `(q − zero) · scale`:
//!
//! | grid | scale of a range `low..=high` | zero | code |
//! |---|---|---|---|
//! | INT8, symmetric | `max(−low, high) / 127.5` | 0 | `x / scale`, clamped to −128..=127, to the nearest, ties to even |
//! | INT8, asymmetric | `(high − low) / 255` | `−128 − low / scale`, clamped and rounded alike | `x / scale + zero`, clamped and rounded alike |
//! | FP8 E4M3 | `max(−low, high) / 448` | 0 | `x / scale`, clamped to −448..=448, to the nearest, ties to even |
//!
//! A range always holds 0, and a scale that comes out as 0 becomes 2⁻²³. All arithmetic is in f32, in this order: the numbers are those of
//! compressed-tensors (`quantization/utils/helpers.py` `calculate_qparams`, `lifecycle/forward_helpers.py`, 0.20), which run the same model in
//! transformers. vLLM's integer kernels divide by 127 instead of 127.5.
//!
//! The range is that of the row (*per token*), of all rows that run together (*per tensor*), or one that was fixed on calibration text (*static*,
//! [`ValueRange`]).
//!
//! - A row of zeros has codes 0 (`zero`, if asymmetric) and stands for zeros.
//! - A row with a NaN or an infinity gets the scale NaN and codes 0: every product with it is NaN, whatever it is multiplied with. Of a whole tensor, all
//!   rows do. A static scale does not know: there a NaN becomes NaN when rounded in place, and as a code makes its row's scale NaN.
//! - An outlier takes the whole range of its row (per token) or of all rows (per tensor): values below half a step round to 0. A static grid saturates.

mod quantizer;
mod range;
mod scale;

pub use quantizer::{ActivationError, ActivationQuantizer, ActivationScales};
pub use range::{RangeMethod, ValueRange};
pub use scale::{ActivationGrid, ActivationScale};
