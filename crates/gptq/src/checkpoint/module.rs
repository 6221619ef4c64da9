//! One linear layer between its stored tensors and an affine matrix.

use super::{CheckpointError, DType, ModuleSpec, PackedTensor, Result, StoredTensor, ZeroPoint, is_stored_width};
use half::f16;
use quant_core::affine::{AffineMatrix, AffineParts, Bits};
use quant_core::bit_stream::{self, word_count};
use quant_core::checkpoint::{expect_shape as expect, transposed};
use rayon::prelude::*;

/// Codes of a stripe: the fewest whose bits fill whole words at every width.
const STRIPE: usize = 32;
/// Output features unpacked at a time: a cache line of words.
const TILE: usize = 16;

/// The tensors of one module, borrowed from a file.
#[derive(Clone, Copy, Debug)]
pub struct StoredModule<'a> {
    /// I32 `[⌈in bits / 32⌉, out]`.
    pub qweight: StoredTensor<'a>,
    /// I32 `[⌈in / group_size⌉, ⌈out bits / 32⌉]`.
    pub qzeros: StoredTensor<'a>,
    /// F16 `[⌈in / group_size⌉, out]`; BF16 and F32 are taken where every value is one of F16.
    pub scales: StoredTensor<'a>,
    /// I32 `[in]`; without it, groups are in order.
    pub g_idx: Option<StoredTensor<'a>>,
}

/// The sizes of a module, checked against its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sizes {
    in_features: usize,
    out_features: usize,
    group_size: usize,
    groups: usize,
    bits: Bits,
}

impl<'a> StoredModule<'a> {
    /// `[out_features, in_features]` as the tensors say. Without a `g_idx` the input features are those that fill `qweight`.
    ///
    /// # Errors
    /// [`CheckpointError::Tensor`] for a type, shape or length that does not fit the others, or `spec`.
    pub fn shape(&self, spec: &ModuleSpec) -> Result<[usize; 2]> {
        self.sizes(spec).map(|s| [s.out_features, s.in_features])
    }

    fn sizes(&self, spec: &ModuleSpec) -> Result<Sizes> {
        let bits = spec.bits;
        if !is_stored_width(bits) {
            return Err(CheckpointError::NotStorable { why: format!("codes of {bits} bits (2, 3, 4 and 8 can be)") });
        }
        if spec.group_size == Some(0) {
            return Err(CheckpointError::NotStorable { why: "groups of 0 features".into() });
        }
        let [rows, out_features] = self.qweight.matrix("qweight", &[DType::I32])?;
        let in_features = match self.g_idx {
            Some(g_idx) => g_idx.vector("g_idx", &[DType::I32])?,
            None => rows.saturating_mul(32) / usize::from(bits.get()),
        };
        expect("qweight", [word_count(in_features, bits.get()), out_features], [rows, out_features])?;
        if in_features == 0 || out_features == 0 {
            let found = format!("{:?}", self.qweight.shape);
            return Err(CheckpointError::Tensor { tensor: "qweight", expected: "no dimension of 0".into(), found });
        }
        let group_size = spec.group_size.unwrap_or(in_features);
        let groups = in_features.div_ceil(group_size);
        let scales = self.scales.matrix("scales", &[DType::F16, DType::BF16, DType::F32])?;
        expect("scales", [groups, out_features], scales)?;
        let qzeros = self.qzeros.matrix("qzeros", &[DType::I32])?;
        expect("qzeros", [groups, word_count(out_features, bits.get())], qzeros)?;
        Ok(Sizes { in_features, out_features, group_size, groups, bits })
    }

    /// What the fields of `qzeros` mean: where `spec` says symmetric they tell it themselves, if all are alike, else `declared` counts. Files that
    /// declare the wrong one are about.
    ///
    /// # Errors
    /// As [`StoredModule::shape`].
    pub fn zero_point(&self, spec: &ModuleSpec, declared: ZeroPoint) -> Result<ZeroPoint> {
        let sizes = self.sizes(spec)?;
        if !spec.sym {
            return Ok(declared);
        }
        let words = self.qzeros.words();
        let row = word_count(sizes.out_features, sizes.bits.get());
        Ok(ZeroPoint::detect(words.chunks_exact(row), sizes.out_features, sizes.bits).unwrap_or(declared))
    }

    /// The groups of the columns, `None` if they are in order: what [`AffineMatrix::g_idx`] will be.
    ///
    /// # Errors
    /// As [`StoredModule::shape`]; a `g_idx` out of range.
    pub fn order(&self, spec: &ModuleSpec) -> Result<Option<Vec<u32>>> {
        let sizes = self.sizes(spec)?;
        let Some(stored) = self.g_idx else { return Ok(None) };
        let groups = group_indices(&stored.words(), sizes.groups)?;
        let in_order = groups.iter().enumerate().all(|(i, &group)| group as usize == i / sizes.group_size);
        Ok((!in_order).then_some(groups))
    }

    /// The matrix. `declared` is the config's convention, see [`StoredModule::zero_point`].
    ///
    /// # Errors
    /// As [`StoredModule::shape`]; [`CheckpointError::Tensor`] for a `g_idx` out of range or a scale that F16 does not have;
    /// [`CheckpointError::Affine`] for a scale that is not finite.
    pub fn unpack(&self, spec: &ModuleSpec, declared: ZeroPoint) -> Result<AffineMatrix> {
        let Sizes { in_features, out_features, group_size, groups, bits } = self.sizes(spec)?;
        let convention = self.zero_point(spec, declared)?;
        let codes = unpack_codes(&self.qweight, in_features, out_features, bits)?;
        let scales = transposed(&self.scales.exact_halves("scales")?, groups, out_features);

        let mut fields = vec![0u8; groups * out_features];
        let words = self.qzeros.words();
        let row = word_count(out_features, bits.get());
        for (words, fields) in words.chunks_exact(row).zip(fields.chunks_exact_mut(out_features)) {
            bit_stream::unpack(words, bits.get(), fields)?;
        }
        let zeros: Vec<u16> = fields.iter().map(|&f| convention.decode(f, bits)).collect();
        let zeros = transposed(&zeros, groups, out_features);

        let g_idx = match self.g_idx {
            None => None,
            Some(stored) => Some(group_indices(&stored.words(), groups)?),
        };
        let parts = AffineParts { out_features, in_features, bits, group_size, codes, scales, zeros, g_idx };
        Ok(AffineMatrix::from_parts(parts)?)
    }
}

fn group_indices(words: &[u32], groups: usize) -> Result<Vec<u32>> {
    if let Some((at, &word)) = words.iter().enumerate().find(|(_, word)| **word as usize >= groups) {
        let expected = format!("groups below {groups}");
        let found = format!("{} at index {at}", word as i32);
        return Err(CheckpointError::Tensor { tensor: "g_idx", expected, found });
    }
    Ok(words.to_vec())
}

/// `qweight` to `[out, in]`, one code a byte.
fn unpack_codes(qweight: &StoredTensor<'_>, in_features: usize, out_features: usize, bits: Bits) -> Result<Vec<u8>> {
    let len = in_features.checked_mul(out_features).ok_or_else(|| CheckpointError::Tensor {
        tensor: "qweight",
        expected: "a product of features that fits this machine".into(),
        found: format!("{in_features} x {out_features}"),
    })?;
    let words = qweight.data.as_chunks::<4>().0;
    let mut codes = vec![0u8; len];
    codes.par_chunks_mut(TILE * in_features).enumerate().try_for_each(|(tile, codes)| {
        for start in (0..in_features).step_by(STRIPE) {
            let count = STRIPE.min(in_features - start);
            let used = word_count(count, bits.get());
            let first = start / STRIPE * usize::from(bits.get());
            for (o, codes) in codes.chunks_exact_mut(in_features).enumerate() {
                let mut stripe = [0u32; 8];
                for (k, word) in stripe[..used].iter_mut().enumerate() {
                    *word = u32::from_le_bytes(words[(first + k) * out_features + tile * TILE + o]);
                }
                bit_stream::unpack(&stripe[..used], bits.get(), &mut codes[start..start + count])?;
            }
        }
        Ok::<(), CheckpointError>(())
    })?;
    Ok(codes)
}

/// A module's tensors, owned, ready to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedModule {
    in_features: usize,
    out_features: usize,
    groups: usize,
    qweight: Vec<u32>,
    qzeros: Vec<u32>,
    scales: Vec<f16>,
    g_idx: Vec<u32>,
}

impl PackedModule {
    /// Packs a matrix. The codes are stored as they are, bit for bit.
    ///
    /// # Errors
    /// [`CheckpointError::NotStorable`] for 5, 6 or 7 bits, and for a zero point of `2^bits`, which no field stands for.
    pub fn pack(matrix: &AffineMatrix, convention: ZeroPoint) -> Result<Self> {
        let (bits, groups) = (matrix.bits(), matrix.groups());
        let (in_features, out_features) = (matrix.in_features(), matrix.out_features());
        let not_storable = |why: String| CheckpointError::NotStorable { why };
        if !is_stored_width(bits) {
            return Err(not_storable(format!("codes of {bits} bits (2, 3, 4 and 8 can be)")));
        }
        let mut qweight = vec![0u32; word_count(in_features, bits.get()) * out_features];
        let stripes = qweight.par_chunks_mut(usize::from(bits.get()) * out_features).enumerate();
        stripes.try_for_each(|(stripe, words)| {
            let start = stripe * STRIPE;
            let count = STRIPE.min(in_features - start);
            let used = words.len() / out_features;
            for (o, codes) in matrix.codes().chunks_exact(in_features).enumerate() {
                let mut packed = [0u32; 8];
                bit_stream::pack(&codes[start..start + count], bits.get(), &mut packed[..used])?;
                for (k, word) in packed[..used].iter().enumerate() {
                    words[k * out_features + o] = *word;
                }
            }
            Ok::<(), CheckpointError>(())
        })?;

        let zeros = transposed(matrix.zeros(), out_features, groups);
        let fields = zeros.iter().enumerate().map(|(at, &zero)| {
            convention.encode(zero, bits).ok_or_else(|| {
                let (group, row) = (at / out_features, at % out_features);
                not_storable(format!("zero point {zero} of row {row}, group {group}, with codes of {bits} bits"))
            })
        });
        let fields = fields.collect::<Result<Vec<u8>>>()?;
        let row = word_count(out_features, bits.get());
        let mut qzeros = vec![0u32; groups * row];
        for (words, fields) in qzeros.chunks_exact_mut(row).zip(fields.chunks_exact(out_features)) {
            bit_stream::pack(fields, bits.get(), words)?;
        }
        let scales = transposed(matrix.scales(), out_features, groups);
        let g_idx = (0..in_features).map(|i| matrix.group_of(i) as u32).collect();
        Ok(Self { in_features, out_features, groups, qweight, qzeros, scales, g_idx })
    }

    /// `[⌈in bits / 32⌉, out]`.
    pub fn qweight(&self) -> &[u32] {
        &self.qweight
    }

    /// `[groups, ⌈out bits / 32⌉]`.
    pub fn qzeros(&self) -> &[u32] {
        &self.qzeros
    }

    /// `[groups, out]`.
    pub fn scales(&self) -> &[f16] {
        &self.scales
    }

    /// `[in]`.
    pub fn g_idx(&self) -> &[u32] {
        &self.g_idx
    }

    /// The four tensors as bytes: `qweight`, `qzeros`, `scales`, `g_idx`.
    pub fn into_tensors(self) -> [PackedTensor; 4] {
        let shape = |len: usize, cols: usize| vec![len / cols, cols];
        [
            PackedTensor::words("qweight", shape(self.qweight.len(), self.out_features), &self.qweight),
            PackedTensor::words("qzeros", vec![self.groups, self.qzeros.len() / self.groups], &self.qzeros),
            PackedTensor::halves("scales", vec![self.groups, self.out_features], &self.scales),
            PackedTensor::words("g_idx", vec![self.in_features], &self.g_idx),
        ]
    }
}
