//! Packing against a bit-by-bit twin, and tensors that are not what they should be.

use gptq::checkpoint::{DType, ModuleSpec, PackedModule, PackedTensor, StoredModule, StoredTensor, ZeroPoint};
use half::f16;
use proptest::prelude::*;
use quant_core::affine::{AffineMatrix, AffineParts, Bits};

fn matrix(out_features: usize, in_features: usize, bits: u8, group_size: usize, seed: u64) -> AffineMatrix {
    let mut state = seed;
    let mut next = move |below: u32| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as u32) % below
    };
    let groups = in_features.div_ceil(group_size);
    let g_idx = seed.is_multiple_of(2).then(|| (0..in_features).map(|_| next(groups as u32)).collect());
    AffineMatrix::from_parts(AffineParts {
        out_features,
        in_features,
        bits: Bits::new(bits).unwrap(),
        group_size,
        codes: (0..out_features * in_features).map(|_| next(1 << bits) as u8).collect(),
        scales: (0..out_features * groups).map(|_| f16::from_bits(next(0x7c00) as u16)).collect(),
        zeros: (0..out_features * groups).map(|_| next(1 << bits) as u16).collect(),
        g_idx,
    })
    .unwrap()
}

fn stored(tensors: &[PackedTensor; 4]) -> StoredModule<'_> {
    assert_eq!(tensors.each_ref().map(|t| t.suffix), ["qweight", "qzeros", "scales", "g_idx"]);
    let [qweight, qzeros, scales, g_idx] =
        tensors.each_ref().map(|t| StoredTensor { dtype: t.dtype, shape: &t.shape, data: &t.data });
    StoredModule { qweight, qzeros, scales, g_idx: Some(g_idx) }
}

fn spec(bits: u8, group_size: usize) -> ModuleSpec {
    ModuleSpec { bits: Bits::new(bits).unwrap(), group_size: Some(group_size), sym: false, desc_act: true }
}

proptest! {
    /// Every bit of `qweight` and `qzeros` by the definition, for shapes that fill no whole word or group; then back.
    #[test]
    fn bit_by_bit(
        out_features in 1usize..70, in_features in 1usize..100, bits in prop::sample::select(vec![2u8, 3, 4, 8]),
        group_size in 1usize..110, seed in any::<u64>(), as_is in any::<bool>(),
    ) {
        let matrix = matrix(out_features, in_features, bits, group_size, seed);
        let convention = if as_is { ZeroPoint::AsIs } else { ZeroPoint::MinusOne };
        let packed = PackedModule::pack(&matrix, convention).unwrap();
        let b = usize::from(bits);
        let bit = |words: &[u32], cols: usize, row: usize, col: usize| words[row * cols + col];
        for o in 0..out_features {
            for i in 0..in_features {
                for k in 0..b {
                    let at = i * b + k;
                    let stored = bit(packed.qweight(), out_features, at / 32, o) >> (at % 32) & 1;
                    prop_assert_eq!(stored, u32::from(matrix.codes()[o * in_features + i]) >> k & 1);
                }
            }
            let row = (out_features * b).div_ceil(32);
            for g in 0..matrix.groups() {
                let zero = u32::from(matrix.zeros()[o * matrix.groups() + g]);
                let field = if as_is { zero } else { zero.wrapping_sub(1) };
                for k in 0..b {
                    let at = o * b + k;
                    prop_assert_eq!(bit(packed.qzeros(), row, g, at / 32) >> (at % 32) & 1, field >> k & 1);
                }
                prop_assert_eq!(packed.scales()[g * out_features + o], matrix.scales()[o * matrix.groups() + g]);
            }
        }
        let tensors = packed.into_tensors();
        let spec = spec(bits, group_size);
        prop_assert_eq!(stored(&tensors).shape(&spec).unwrap(), [out_features, in_features]);
        prop_assert_eq!(stored(&tensors).unpack(&spec, convention).unwrap(), matrix);
    }

    /// Whatever the shapes, types and bytes: an error or a matrix.
    #[test]
    fn arbitrary_tensors(
        shapes in prop::array::uniform4(prop::collection::vec(0usize..9, 0..4)),
        bytes in prop::array::uniform4(prop::collection::vec(any::<u8>(), 0..300)),
        fit in any::<bool>(), bits in 2u8..=8, group_size in 0usize..9, sym in any::<bool>(),
    ) {
        let dtypes = [DType::I32, DType::I32, DType::F16, DType::I32];
        let tensors: Vec<(Vec<usize>, Vec<u8>)> = shapes.into_iter().zip(bytes).zip([4, 4, 2, 4]).map(|((shape, mut bytes), size)| {
            if fit { bytes.resize(shape.iter().product::<usize>() * size, 0) }
            (shape, bytes)
        }).collect();
        let view = |i: usize| StoredTensor { dtype: dtypes[i], shape: &tensors[i].0, data: &tensors[i].1 };
        let module = StoredModule { qweight: view(0), qzeros: view(1), scales: view(2), g_idx: sym.then(|| view(3)) };
        let spec = ModuleSpec { sym, ..spec(bits, group_size) };
        let _ = module.unpack(&spec, ZeroPoint::MinusOne);
    }
}

#[test]
fn each_defect_is_named() {
    let good = PackedModule::pack(&matrix(8, 64, 4, 32, 1), ZeroPoint::AsIs).unwrap().into_tensors();
    let spec = spec(4, 32);
    assert!(stored(&good).unpack(&spec, ZeroPoint::AsIs).is_ok());
    let change = |f: &dyn Fn(&mut [PackedTensor; 4])| {
        let mut tensors = good.clone();
        f(&mut tensors);
        stored(&tensors).unpack(&spec, ZeroPoint::AsIs).unwrap_err().to_string()
    };
    let cut = |at: usize| move |t: &mut [PackedTensor; 4]| t[at].data.truncate(t[at].data.len() - 1);
    let shape = |at: usize, s: &'static [usize]| move |t: &mut [PackedTensor; 4]| t[at].shape = s.to_vec();
    let cases: Vec<(String, &[&str])> = vec![
        (change(&cut(0)), &["`qweight`", "255 bytes"]),
        (change(&cut(1)), &["`qzeros`", "7 bytes"]),
        (change(&cut(2)), &["`scales`", "31 bytes"]),
        (change(&cut(3)), &["`g_idx`", "255 bytes"]),
        (change(&shape(0, &[16, 4])), &["`qweight`", "expected shape [8, 4], found [16, 4]"]),
        (change(&shape(0, &[64])), &["`qweight`", "2 dimensions"]),
        (change(&shape(1, &[1, 2])), &["`qzeros`", "expected shape [2, 1], found [1, 2]"]),
        (change(&shape(2, &[4, 4])), &["`scales`", "expected shape [2, 8], found [4, 4]"]),
        (change(&shape(3, &[64, 1])), &["`g_idx`", "1 dimension"]),
        (change(&|t| t[0].dtype = DType::F32), &["`qweight`", "type I32", "F32"]),
        (change(&|t| t[2].dtype = DType::I32), &["`scales`", "F16 or BF16 or F32", "I32"]),
        (change(&|t| t[3].data[20] = 2), &["`g_idx`", "groups below 2", "2 at index 5"]),
        (change(&|t| t[3].data[20..24].fill(0xff)), &["`g_idx`", "-1 at index 5"]),
        (change(&|t| t[2].data[..2].copy_from_slice(&f16::NAN.to_le_bytes())), &["scale of row 0, group 0 is NaN"]),
    ];
    for (message, words) in cases {
        for word in words {
            assert!(message.contains(word), "{message}: {word}");
        }
    }
    // Scales of other types are taken where F16 has their values.
    let mut wide = good.clone();
    wide[2].dtype = DType::F32;
    let halves: Vec<f16> = wide[2].data.chunks(2).map(|b| f16::from_le_bytes([b[0], b[1]])).collect();
    wide[2].data = halves.iter().flat_map(|h| h.to_f32().to_le_bytes()).collect();
    assert_eq!(stored(&wide).unpack(&spec, ZeroPoint::AsIs), stored(&good).unpack(&spec, ZeroPoint::AsIs));
    wide[2].data[..4].copy_from_slice(&0.1f32.to_le_bytes());
    let message = stored(&wide).unpack(&spec, ZeroPoint::AsIs).unwrap_err().to_string();
    assert!(message.contains("`scales`") && message.contains("0.1 at index 0"), "{message}");

    let five = matrix(1, 1, 5, 1, 1);
    assert!(PackedModule::pack(&five, ZeroPoint::AsIs).unwrap_err().to_string().contains("codes of 5 bits"));
    let mut parts = matrix(1, 1, 4, 1, 1).into_parts();
    parts.zeros = vec![16];
    let past = AffineMatrix::from_parts(parts).unwrap();
    for convention in [ZeroPoint::AsIs, ZeroPoint::MinusOne] {
        assert!(PackedModule::pack(&past, convention).unwrap_err().to_string().contains("zero point 16 of row 0"));
    }
}
