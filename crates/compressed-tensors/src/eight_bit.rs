//! One linear layer of format `int-quantized` or `float-quantized`: W8A8.

use super::{
    CheckpointError, ConfigGroup, DType, Format, NumberType, PackedTensor, QuantArgs, Result, StoredTensor, Strategy,
};
use quant_core::activation::{ActivationGrid, ActivationQuantizer, ActivationScale, ActivationScales};
use quant_core::checkpoint::{expect_shape, unsupported};
use quant_core::eight_bit::{EightBitCode, EightBitMatrix, EightBitParts};

const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// How one module of one byte a weight is stored, and what becomes of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EightBitSpec {
    /// What a byte is.
    pub code: EightBitCode,
    /// A scale for each row (strategy `channel`), not one for all (`tensor`).
    pub per_row: bool,
    /// No zero points.
    pub symmetric: bool,
    /// How activations are rounded; `None` for not at all.
    pub activations: Option<ActivationSpec>,
}

/// How the input of a module is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActivationSpec {
    /// To what.
    pub grid: ActivationGrid,
    /// Where its scales come from.
    pub scales: InputScales,
}

/// Where the scales of activations come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputScales {
    /// Each token's own range (strategy `token`, dynamic).
    Token,
    /// The range of all tokens that run together (strategy `tensor`, dynamic).
    Tensor,
    /// `input_scale` of the module (strategy `tensor`, static).
    Static,
}

/// `input_scale` and `input_zero_point` of a module.
pub type StaticScales = ActivationScale;

impl EightBitSpec {
    /// A scale per row, no zero points.
    pub fn new(code: EightBitCode, activations: Option<ActivationSpec>) -> Self {
        Self { code, per_row: true, symmetric: true, activations }
    }

    /// Whether modules have an `input_scale`.
    pub fn is_static(&self) -> bool {
        self.activations.is_some_and(|a| a.scales == InputScales::Static)
    }
}

/// The format that codes of a kind are stored in.
pub(super) fn format(code: EightBitCode) -> Format {
    match code {
        EightBitCode::Int8 => Format::IntQuantized,
        EightBitCode::E4M3 => Format::FloatQuantized,
    }
}

/// What a group of the config says.
pub(super) fn spec(group: &ConfigGroup, weights: &QuantArgs, format: &Format) -> Result<EightBitSpec> {
    let key = |part: &str, key: &str| format!("config_groups: {}: {part}: {key}", group.name);
    let of_type = |args: &QuantArgs| match args.number_type {
        NumberType::Int => "int",
        NumberType::Float => "float",
    };
    let (code, needed) = match weights.number_type {
        NumberType::Int => (EightBitCode::Int8, Format::IntQuantized),
        NumberType::Float => (EightBitCode::E4M3, Format::FloatQuantized),
    };
    if *format != needed && *format != Format::NaiveQuantized {
        let expected = if needed == Format::IntQuantized { "float" } else { "int" };
        let (expected, found) = (format!("{expected}, as format {} has", format.name()), of_type(weights).into());
        return Err(CheckpointError::Config { key: key("weights", "type"), expected, found });
    }
    let eight = |part: &str, args: &QuantArgs| match args.num_bits {
        8 => Ok(()),
        bits => Err(unsupported(&key(part, "num_bits"), &bits.to_string(), "8")),
    };
    eight("weights", weights)?;
    if weights.dynamic {
        return Err(unsupported(&key("weights", "dynamic"), "true", "false"));
    }
    if code == EightBitCode::E4M3 && !weights.symmetric {
        return Err(unsupported(&key("weights", "symmetric"), "false", "true, of floats,"));
    }
    let per_row = match weights.strategy {
        Strategy::Channel => true,
        Strategy::Tensor => false,
        other => return Err(unsupported(&key("weights", "strategy"), &format!("{other:?}"), "channel or tensor")),
    };
    let activations = match &group.input_activations {
        None => None,
        Some(args) => {
            let part = "input_activations";
            eight(part, args)?;
            if args.number_type != weights.number_type {
                let supported = format!("{}, the type of the weights,", of_type(weights));
                return Err(unsupported(&key(part, "type"), of_type(args), &supported));
            }
            let grid = match (args.number_type, args.symmetric) {
                (NumberType::Int, symmetric) => ActivationGrid::Int8 { symmetric },
                (NumberType::Float, true) => ActivationGrid::E4M3,
                (NumberType::Float, false) => {
                    return Err(unsupported(&key(part, "symmetric"), "false", "true, of floats,"));
                }
            };
            let scales = match (args.dynamic, args.strategy) {
                (true, Strategy::Token) => InputScales::Token,
                (true, Strategy::Tensor) => InputScales::Tensor,
                (false, Strategy::Tensor) => InputScales::Static,
                (dynamic, other) => {
                    let found = format!("{other:?}, {}", if dynamic { "dynamic" } else { "static" });
                    return Err(unsupported(&key(part, "strategy"), &found, "token if dynamic, or tensor"));
                }
            };
            Some(ActivationSpec { grid, scales })
        }
    };
    Ok(EightBitSpec { code, per_row, symmetric: weights.symmetric, activations })
}

/// The config's `weights` and `input_activations`.
pub(super) fn args(spec: &EightBitSpec) -> (QuantArgs, Option<QuantArgs>) {
    let number_type = match spec.code {
        EightBitCode::Int8 => NumberType::Int,
        EightBitCode::E4M3 => NumberType::Float,
    };
    let weights = QuantArgs {
        num_bits: 8,
        number_type,
        symmetric: spec.symmetric,
        strategy: if spec.per_row { Strategy::Channel } else { Strategy::Tensor },
        dynamic: false,
        act_order: false,
    };
    let input = spec.activations.map(|activations| QuantArgs {
        number_type: match activations.grid {
            ActivationGrid::Int8 { .. } => NumberType::Int,
            ActivationGrid::E4M3 => NumberType::Float,
        },
        symmetric: activations.grid != ActivationGrid::Int8 { symmetric: false },
        strategy: if activations.scales == InputScales::Token { Strategy::Token } else { Strategy::Tensor },
        dynamic: activations.scales != InputScales::Static,
        ..weights.clone()
    });
    (weights, input)
}

/// The tensors of one module, borrowed from a file.
#[derive(Clone, Copy, Debug)]
pub struct StoredEightBit<'a> {
    /// I8 or F8_E4M3 `[out, in]`.
    pub weight: StoredTensor<'a>,
    /// F32, F16 or BF16: `[out, 1]` or `[out]`; one value where there is one for all rows.
    pub weight_scale: StoredTensor<'a>,
    /// I8, of asymmetric modules, shaped as the scale.
    pub weight_zero_point: Option<StoredTensor<'a>>,
    /// F32, F16 or BF16, one value; of static activations.
    pub input_scale: Option<StoredTensor<'a>>,
    /// I8, one value; of static asymmetric activations.
    pub input_zero_point: Option<StoredTensor<'a>>,
}

impl StoredEightBit<'_> {
    /// `[out_features, in_features]`, after checking the tensors against each other and `spec`.
    ///
    /// # Errors
    /// [`CheckpointError::Tensor`] for a type, shape or length that does not fit.
    pub fn shape(&self, spec: &EightBitSpec) -> Result<[usize; 2]> {
        let dtype = match spec.code {
            EightBitCode::Int8 => DType::I8,
            EightBitCode::E4M3 => DType::F8E4M3,
        };
        let [rows, columns] = self.weight.matrix("weight", &[dtype])?;
        let scales = if spec.per_row { rows } else { 1 };
        one_each("weight_scale", &self.weight_scale, &FLOATS, scales)?;
        // Zeros that some releases left beside symmetric weights say nothing.
        if !spec.symmetric {
            let zeros = self.weight_zero_point.as_ref().ok_or_else(|| missing("weight_zero_point", "asymmetric"))?;
            one_each("weight_zero_point", zeros, &[DType::I8], scales)?;
        }
        self.activations(spec)?;
        Ok([rows, columns])
    }

    /// The matrix.
    ///
    /// # Errors
    /// As [`StoredEightBit::shape`]; [`CheckpointError::EightBit`] for a scale that is not finite, or a code that is NaN.
    pub fn unpack(&self, spec: &EightBitSpec) -> Result<EightBitMatrix> {
        let [out_features, in_features] = self.shape(spec)?;
        let codes = self.weight.data.iter().map(|&byte| byte as i8).collect();
        let mut scales = self.weight_scale.floats();
        let mut zeros = match &self.weight_zero_point {
            Some(zeros) if !spec.symmetric => Some(zeros.data.iter().map(|&byte| byte as i8).collect::<Vec<_>>()),
            _ => None,
        };
        if !spec.per_row {
            scales = vec![scales.first().copied().unwrap_or(f32::NAN); out_features];
            zeros = zeros.map(|zeros| vec![zeros.first().copied().unwrap_or(0); out_features]);
        }
        let parts = EightBitParts { out_features, in_features, code: spec.code, codes, scales, zeros };
        Ok(EightBitMatrix::from_parts(parts)?)
    }

    /// How the module's input is rounded.
    ///
    /// # Errors
    /// [`CheckpointError::Tensor`] for a static scale that is missing, not one positive number, or has no zero point where the config says asymmetric.
    pub fn activations(&self, spec: &EightBitSpec) -> Result<Option<ActivationQuantizer>> {
        let Some(activations) = spec.activations else { return Ok(None) };
        let scales = match activations.scales {
            InputScales::Token => ActivationScales::Token,
            InputScales::Tensor => ActivationScales::Tensor,
            InputScales::Static => {
                let stored = self.input_scale.as_ref().ok_or_else(|| missing("input_scale", "static activations"))?;
                one_each("input_scale", stored, &FLOATS, 1)?;
                let scale = stored.floats().first().copied().unwrap_or(f32::NAN);
                if !scale.is_finite() || scale <= 0.0 {
                    let (expected, found) = ("a positive number".into(), scale.to_string());
                    return Err(CheckpointError::Tensor { tensor: "input_scale", expected, found });
                }
                let mut zero = 0;
                if activations.grid == (ActivationGrid::Int8 { symmetric: false }) {
                    let tensor = "input_zero_point";
                    let stored = self.input_zero_point.as_ref();
                    let stored = stored.ok_or_else(|| missing(tensor, "static asymmetric activations"))?;
                    one_each(tensor, stored, &[DType::I8], 1)?;
                    zero = stored.data.first().map_or(0, |&byte| byte as i8);
                }
                ActivationScales::Static(ActivationScale { scale, zero })
            }
        };
        Ok(Some(ActivationQuantizer { grid: activations.grid, scales }))
    }
}

fn missing(tensor: &'static str, what: &str) -> CheckpointError {
    let expected = format!("it, as the config says {what}");
    CheckpointError::Tensor { tensor, expected, found: "nothing".into() }
}

/// So many values: as a vector, a column, or (one) a scalar.
fn one_each(tensor: &'static str, stored: &StoredTensor<'_>, dtypes: &[DType], count: usize) -> Result<()> {
    let found = match *stored.shape {
        [] => {
            // Checks type and length alike.
            let vector = StoredTensor { shape: &[1], ..*stored };
            [vector.vector(tensor, dtypes)?, 1]
        }
        [_] => [stored.vector(tensor, dtypes)?, 1],
        _ => stored.matrix(tensor, dtypes)?,
    };
    expect_shape(tensor, [count, 1], found)
}

/// A module's tensors, owned, ready to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct EightBitModule {
    tensors: Vec<PackedTensor>,
}

impl EightBitModule {
    /// Packs a matrix that [`Config::check_eight_bit`](super::Config::check_eight_bit) has passed. Scales are stored as F32.
    pub fn pack(matrix: &EightBitMatrix, spec: &EightBitSpec, input: Option<&StaticScales>) -> Self {
        let (rows, columns) = (matrix.out_features(), matrix.in_features());
        let dtype = match matrix.code() {
            EightBitCode::Int8 => DType::I8,
            EightBitCode::E4M3 => DType::F8E4M3,
        };
        let bytes = |codes: &[i8]| codes.iter().map(|&code| code as u8).collect();
        let (scales, shape) = match spec.per_row {
            true => (matrix.scales(), vec![rows, 1]),
            false => (matrix.scales().get(..1).unwrap_or_default(), vec![1]),
        };
        let floats = |suffix, shape, values: &[f32]| {
            let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            PackedTensor { suffix, dtype: DType::F32, shape, data }
        };
        let integers =
            |suffix, shape, values: &[i8]| PackedTensor { suffix, dtype: DType::I8, shape, data: bytes(values) };
        let weight = PackedTensor { suffix: "weight", dtype, shape: vec![rows, columns], data: bytes(matrix.codes()) };
        let mut tensors = vec![weight, floats("weight_scale", shape.clone(), scales)];
        if !spec.symmetric {
            let zeros = matrix.zeros().map_or_else(|| vec![0; rows], <[i8]>::to_vec);
            tensors.push(integers("weight_zero_point", shape, zeros.get(..scales.len()).unwrap_or_default()));
        }
        if let Some(input) = input {
            tensors.push(floats("input_scale", vec![1], &[input.scale]));
            if spec.activations.is_some_and(|a| a.grid == ActivationGrid::Int8 { symmetric: false }) {
                tensors.push(integers("input_zero_point", vec![1], &[input.zero]));
            }
        }
        Self { tensors }
    }

    /// The tensors as bytes: `weight`, `weight_scale`, and where there are such `weight_zero_point`, `input_scale`, `input_zero_point`.
    pub fn into_tensors(self) -> Vec<PackedTensor> {
        self.tensors
    }
}
