//! One linear layer of format `pack-quantized` between its stored tensors and an affine matrix.

use super::{CheckpointError, DType, ModuleSpec, PackedTensor, Result, StoredTensor};
use half::{bf16, f16};
use quant_core::affine::{AffineMatrix, AffineParts, Bits};
use quant_core::bit_stream::{self, word_count};
use quant_core::checkpoint::{expect_shape as expect, transposed};
use rayon::prelude::*;

const SCALES: [DType; 3] = [DType::F16, DType::BF16, DType::F32];

/// The tensors of one module, borrowed from a file.
#[derive(Clone, Copy, Debug)]
pub struct StoredModule<'a> {
    /// I32 `[out, ⌈in bits / 32⌉]`; of older releases (0.12), `[out, ⌈in / ⌊32 / bits⌋⌉]`, whole codes in each word.
    pub weight_packed: StoredTensor<'a>,
    /// F16, BF16 or F32 `[out, ⌈in / group_size⌉]`. Scales that F16 does not have are rounded to its nearest.
    pub weight_scale: StoredTensor<'a>,
    /// I64 or I32 `[2]`: `out`, `in`.
    pub weight_shape: StoredTensor<'a>,
    /// I32 `[⌈out bits / 32⌉, groups]`, or of older releases I8 `[out, groups]`; of asymmetric modules.
    pub weight_zero_point: Option<StoredTensor<'a>>,
    /// I32 `[in]`; without it, or if every index is -1, groups are in order.
    pub weight_g_idx: Option<StoredTensor<'a>>,
}

/// The sizes of a module, checked against its tensors.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    in_features: usize,
    out_features: usize,
    group_size: usize,
    groups: usize,
    packing: Packing,
}

/// How codes fill words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    /// A code may go on in the next word.
    Dense,
    /// Each word has whole codes alone.
    WholeCodes,
}

impl Packing {
    fn words(self, codes: usize, bits: Bits) -> usize {
        match self {
            Self::Dense => word_count(codes, bits.get()),
            Self::WholeCodes => codes.div_ceil(usize::from(32 / bits.get())),
        }
    }

    fn unpack(self, words: &[u32], bits: Bits, codes: &mut [u8]) -> Result<()> {
        if self == Self::Dense {
            return Ok(bit_stream::unpack(words, bits.get(), codes)?);
        }
        for (&word, codes) in words.iter().zip(codes.chunks_mut(usize::from(32 / bits.get()))) {
            for (at, code) in codes.iter_mut().enumerate() {
                *code = (word >> (at * usize::from(bits.get()))) as u8 & bits.max_code();
            }
        }
        Ok(())
    }
}

impl StoredModule<'_> {
    /// `[out_features, in_features]` as `weight_shape` says and the others confirm.
    ///
    /// # Errors
    /// [`CheckpointError::Tensor`] for a type, shape or length that does not fit the others, or `spec`.
    pub fn shape(&self, spec: &ModuleSpec) -> Result<[usize; 2]> {
        self.sizes(spec).map(|s| [s.out_features, s.in_features])
    }

    fn sizes(&self, spec: &ModuleSpec) -> Result<Sizes> {
        if spec.group_size == Some(0) {
            return Err(CheckpointError::NotStorable { why: "groups of 0 features".into() });
        }
        let [out_features, in_features] = self.stored_shape()?;
        let packed = self.weight_packed.matrix("weight_packed", &[DType::I32])?;
        // 2, 4 and 8 bits are the same both ways, and so are rows of few words where the counts are.
        let dense = Packing::Dense.words(in_features, spec.bits);
        let packing = match packed[1] {
            words if words != dense && words == Packing::WholeCodes.words(in_features, spec.bits) => {
                Packing::WholeCodes
            }
            _ => {
                expect("weight_packed", [out_features, dense], packed)?;
                Packing::Dense
            }
        };
        expect("weight_packed", [out_features, packed[1]], packed)?;
        let group_size = spec.group_size.unwrap_or(in_features);
        let groups = in_features.div_ceil(group_size);
        expect("weight_scale", [out_features, groups], self.weight_scale.matrix("weight_scale", &SCALES)?)?;
        let tensor = "weight_zero_point";
        match (spec.symmetric, self.weight_zero_point) {
            // Zeros that some releases left beside symmetric weights say nothing.
            (true, _) => {}
            (false, None) => {
                let expected = "it, as the config says asymmetric".into();
                return Err(CheckpointError::Tensor { tensor, expected, found: "nothing".into() });
            }
            (false, Some(zeros)) => {
                let found = zeros.matrix(tensor, &[DType::I32, DType::I8])?;
                let rows = if zeros.dtype == DType::I8 { out_features } else { packing.words(out_features, spec.bits) };
                expect(tensor, [rows, groups], found)?;
            }
        }
        if let Some(g_idx) = self.weight_g_idx {
            expect("weight_g_idx", [in_features, 1], [g_idx.vector("weight_g_idx", &[DType::I32])?, 1])?;
        }
        Ok(Sizes { in_features, out_features, group_size, groups, packing })
    }

    /// The two numbers of `weight_shape`.
    fn stored_shape(&self) -> Result<[usize; 2]> {
        let tensor = "weight_shape";
        let shape = self.weight_shape;
        expect(tensor, [2, 1], [shape.vector(tensor, &[DType::I64, DType::I32])?, 1])?;
        let numbers: Vec<i64> = match shape.dtype {
            DType::I64 => shape.data.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b)).collect(),
            _ => shape.data.as_chunks().0.iter().map(|&b| i64::from(i32::from_le_bytes(b))).collect(),
        };
        let sizes: Vec<usize> = numbers.iter().filter_map(|&n| usize::try_from(n).ok().filter(|n| *n > 0)).collect();
        match sizes.as_slice() {
            &[out_features, in_features] => Ok([out_features, in_features]),
            _ => {
                let (expected, found) = ("two positive numbers".into(), format!("{numbers:?}"));
                Err(CheckpointError::Tensor { tensor, expected, found })
            }
        }
    }

    /// The groups of the columns, `None` if they are in order: what [`AffineMatrix::g_idx`] will be.
    ///
    /// # Errors
    /// As [`StoredModule::shape`]; a `weight_g_idx` out of range.
    pub fn order(&self, spec: &ModuleSpec) -> Result<Option<Vec<u32>>> {
        let sizes = self.sizes(spec)?;
        let Some(stored) = self.weight_g_idx else { return Ok(None) };
        let groups = stored.words();
        // Made, never filled.
        if groups.iter().all(|&group| group == u32::MAX) {
            return Ok(None);
        }
        if let Some((at, &word)) = groups.iter().enumerate().find(|(_, word)| **word as usize >= sizes.groups) {
            let (expected, found) =
                (format!("groups below {}", sizes.groups), format!("{} at index {at}", word as i32));
            return Err(CheckpointError::Tensor { tensor: "weight_g_idx", expected, found });
        }
        let in_order = groups.iter().enumerate().all(|(i, &group)| group as usize == i / sizes.group_size);
        Ok((!in_order).then_some(groups))
    }

    /// How many scales F16 does not have, so that [`StoredModule::unpack`] rounds them: to the nearest, ties to even, by at most one part in 2048 above
    /// 6.1e-5. vLLM does the same when it runs in float16.
    ///
    /// # Errors
    /// As [`StoredModule::shape`].
    pub fn rounded_scales(&self, spec: &ModuleSpec) -> Result<usize> {
        self.sizes(spec)?;
        if self.weight_scale.dtype == DType::F16 {
            return Ok(0);
        }
        Ok(self.weight_scale.floats().iter().filter(|&&v| v.is_finite() && f16::from_f32(v).to_f32() != v).count())
    }

    /// The matrix.
    ///
    /// # Errors
    /// As [`StoredModule::shape`] and [`StoredModule::order`]; a zero point out of range; [`CheckpointError::Affine`] for a scale that is not finite in
    /// F16.
    pub fn unpack(&self, spec: &ModuleSpec) -> Result<AffineMatrix> {
        let Sizes { in_features, out_features, group_size, groups, packing } = self.sizes(spec)?;
        let g_idx = self.order(spec)?;
        let bits = spec.bits;
        let len = in_features.checked_mul(out_features).ok_or_else(|| CheckpointError::Tensor {
            tensor: "weight_shape",
            expected: "a product of features that fits this machine".into(),
            found: format!("{in_features} x {out_features}"),
        })?;
        let mut codes = vec![0u8; len];
        let words = self.weight_packed.words();
        let rows = codes.par_chunks_exact_mut(in_features);
        rows.zip(words.par_chunks_exact(packing.words(in_features, bits)))
            .try_for_each(|(codes, words)| packing.unpack(words, bits, codes))?;
        let scales = self.weight_scale.floats().into_iter().map(f16::from_f32).collect();
        let zeros = match (spec.symmetric, self.weight_zero_point) {
            (false, Some(stored)) => zeros(stored, out_features, groups, bits, packing)?,
            _ => vec![u16::from(bits.middle()); out_features * groups],
        };
        let parts = AffineParts { out_features, in_features, bits, group_size, codes, scales, zeros, g_idx };
        Ok(AffineMatrix::from_parts(parts)?)
    }
}

/// Zero points `[out, groups]`.
fn zeros(
    stored: StoredTensor<'_>,
    out_features: usize,
    groups: usize,
    bits: Bits,
    packing: Packing,
) -> Result<Vec<u16>> {
    let middle = bits.middle();
    if stored.dtype == DType::I8 {
        let zero = |(at, &byte): (usize, &u8)| {
            let zero = i16::from(byte as i8) + i16::from(middle);
            u16::try_from(zero).ok().filter(|z| *z <= u16::from(bits.max_code())).ok_or_else(|| {
                let (expected, found) = (format!("integers of {bits} bits"), format!("{} at index {at}", byte as i8));
                CheckpointError::Tensor { tensor: "weight_zero_point", expected, found }
            })
        };
        return stored.data.iter().enumerate().map(zero).collect();
    }
    let rows = packing.words(out_features, bits);
    let columns = transposed(&stored.words(), rows, groups);
    let mut fields = vec![0u8; out_features * groups];
    for (words, fields) in columns.chunks_exact(rows).zip(fields.chunks_exact_mut(out_features)) {
        packing.unpack(words, bits, fields)?;
    }
    Ok(transposed(&fields, groups, out_features).into_iter().map(u16::from).collect())
}

/// The type that scales are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleType {
    /// F16, which is what a matrix holds.
    F16,
    /// BF16, where it has all of them.
    Bf16,
}

/// A module's tensors, owned, ready to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedModule {
    tensors: Vec<PackedTensor>,
}

impl PackedModule {
    /// Packs a matrix. The codes are stored as they are, bit for bit; zero points too, unless `symmetric` says that the config says so.
    ///
    /// # Errors
    /// [`CheckpointError::NotStorable`] for groups in another order than the columns (recent releases of the library no longer read them), zero points off
    /// the middle where `symmetric`, one of `2^bits`, and a scale that BF16 does not have where that is asked for.
    pub fn pack(matrix: &AffineMatrix, symmetric: bool, scales: ScaleType) -> Result<Self> {
        let (bits, groups) = (matrix.bits(), matrix.groups());
        let (in_features, out_features) = (matrix.in_features(), matrix.out_features());
        let no = |why: String| Err(CheckpointError::NotStorable { why });
        if matrix.g_idx().is_some() {
            return no("groups in another order than the columns, which compressed-tensors no longer reads".into());
        }
        if symmetric && !matrix.is_symmetric() {
            return no("zero points off the middle".into());
        }
        let row = word_count(in_features, bits.get());
        let mut words = vec![0u32; row * out_features];
        words
            .par_chunks_exact_mut(row)
            .zip(matrix.codes().par_chunks_exact(in_features))
            .try_for_each(|(words, codes)| bit_stream::pack(codes, bits.get(), words))?;
        let mut tensors = vec![PackedTensor::words("weight_packed", vec![out_features, row], &words)];
        tensors.push(match scales {
            ScaleType::F16 => PackedTensor::halves("weight_scale", vec![out_features, groups], matrix.scales()),
            ScaleType::Bf16 => {
                let mut data = Vec::with_capacity(2 * matrix.scales().len());
                for (at, scale) in matrix.scales().iter().enumerate() {
                    let stored = bf16::from_f32(scale.to_f32());
                    if stored.to_f32() != scale.to_f32() {
                        return no(format!(
                            "BF16 does not have the scale {scale} of row {}, group {}",
                            at / groups,
                            at % groups
                        ));
                    }
                    data.extend(stored.to_le_bytes());
                }
                PackedTensor { suffix: "weight_scale", dtype: DType::BF16, shape: vec![out_features, groups], data }
            }
        });
        let shape = [out_features, in_features].iter().flat_map(|&n| (n as u64).to_le_bytes()).collect();
        tensors.push(PackedTensor { suffix: "weight_shape", dtype: DType::I64, shape: vec![2], data: shape });
        if !symmetric {
            let mut fields = Vec::with_capacity(groups * out_features);
            for (at, zero) in transposed(matrix.zeros(), out_features, groups).into_iter().enumerate() {
                match u8::try_from(zero).ok().filter(|zero| *zero <= bits.max_code()) {
                    Some(zero) => fields.push(zero),
                    None => {
                        let (group, row) = (at / out_features, at % out_features);
                        return no(format!("zero point {zero} of row {row}, group {group}, with codes of {bits} bits"));
                    }
                }
            }
            let rows = word_count(out_features, bits.get());
            let mut columns = vec![0u32; groups * rows];
            for (fields, words) in fields.chunks_exact(out_features).zip(columns.chunks_exact_mut(rows)) {
                bit_stream::pack(fields, bits.get(), words)?;
            }
            let zeros = transposed(&columns, groups, rows);
            tensors.push(PackedTensor::words("weight_zero_point", vec![rows, groups], &zeros));
        }
        Ok(Self { tensors })
    }

    /// The tensors as bytes: `weight_packed`, `weight_scale`, `weight_shape`, and of asymmetric modules `weight_zero_point`.
    pub fn into_tensors(self) -> Vec<PackedTensor> {
        self.tensors
    }
}
