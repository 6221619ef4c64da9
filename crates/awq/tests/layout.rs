//! Packing against a word-by-word twin and other tools' words, and tensors that are not what they should be.

use awq::checkpoint::{DType, INTERLEAVE, Layout, ModuleSpec, PackedModule, PackedTensor, StoredModule, StoredTensor};
use half::f16;
use proptest::prelude::*;
use quant_core::affine::{AffineMatrix, AffineParts, Bits};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn bits(b: u8) -> Bits {
    Bits::new(b).unwrap()
}

fn matrix(out_features: usize, in_features: usize, b: u8, group_size: usize, seed: u64) -> AffineMatrix {
    let mut state = seed;
    let mut next = move |below: u32| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as u32) % below
    };
    let groups = in_features.div_ceil(group_size);
    AffineMatrix::from_parts(AffineParts {
        out_features,
        in_features,
        bits: bits(b),
        group_size,
        codes: (0..out_features * in_features).map(|_| next(1 << b) as u8).collect(),
        scales: (0..out_features * groups).map(|_| f16::from_bits(next(0x7c00) as u16)).collect(),
        zeros: (0..out_features * groups).map(|_| next(1 << b) as u16).collect(),
        g_idx: None,
    })
    .unwrap()
}

fn stored(tensors: &[PackedTensor; 3]) -> StoredModule<'_> {
    assert_eq!(tensors.each_ref().map(|t| t.suffix), ["qweight", "qzeros", "scales"]);
    let [qweight, qzeros, scales] = tensors.each_ref().map(PackedTensor::stored);
    StoredModule { qweight, qzeros, scales }
}

fn spec(b: u8, group_size: usize) -> ModuleSpec {
    ModuleSpec { bits: bits(b), group_size: Some(group_size), zero_point: true, layout: Layout::Gemm }
}

fn words(tensor: &PackedTensor) -> Vec<u32> {
    tensor.data.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// The words of the field's documents: codes (5 i + 3) mod 16, and 0 to 7.
#[test]
fn one_word_by_hand() {
    for (codes, word) in [([3, 8, 13, 2, 7, 12, 1, 6], 0x6c28_17d3u32), ([0, 1, 2, 3, 4, 5, 6, 7], 0x7531_6420)] {
        let parts = matrix(8, 1, 4, 1, 0).into_parts();
        let matrix = AffineMatrix::from_parts(AffineParts { codes: codes.to_vec(), ..parts }).unwrap();
        assert_eq!(words(&PackedModule::pack(&matrix).unwrap().into_tensors()[0]), [word]);
    }
}

fn golden() -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/words.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Every width as GPTQModel packs it (`tests/data/words.json`).
#[test]
fn words_of_gptqmodel() {
    let golden = golden();
    for b in 2..=8u8 {
        let facts = &golden["gemm"][b.to_string()];
        let mut parts = matrix(40, 64, b, 32, 1).into_parts();
        parts.codes =
            (0..40 * 64).map(|i| (i / 64, i % 64)).map(|(n, k)| ((7 * n + 3 * k + n * k) % (1 << b)) as u8).collect();
        parts.zeros = (0..80).map(|i| ((5 * (i / 2) + i % 2) % (1 << b)) as u16).collect();
        let matrix = AffineMatrix::from_parts(parts).unwrap();
        let tensors = PackedModule::pack(&matrix).unwrap().into_tensors();
        assert_eq!(serde_json::json!(tensors[0].shape), facts["shape"], "{b} bits");
        let hash: String = Sha256::digest(&tensors[0].data).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hash, facts["qweight_sha256"].as_str().unwrap(), "{b} bits");
        let zeros: Vec<String> = words(&tensors[1]).iter().map(|w| format!("{w:08x}")).collect();
        assert_eq!(serde_json::json!(zeros), facts["qzeros"], "{b} bits");
        assert_eq!(stored(&tensors).unpack(&spec(b, 32)).unwrap(), matrix, "{b} bits");
    }
}

/// Modules of the layouts `gemv` and `gemv_fast` by GPTQModel's packers.
#[test]
fn gemv_and_gemv_fast() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/gemv.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |name: &str| file.tensor(name).unwrap();
    for (name, layout) in [("gemv", Layout::Gemv), ("gemv_fast", Layout::GemvFast)] {
        let views = ["qweight", "qzeros", "scales"].map(|t| tensor(&format!("{name}.{t}")));
        let [qweight, qzeros, scales] = views.each_ref().map(|view| StoredTensor {
            dtype: match view.dtype() {
                Dtype::I16 => DType::I16,
                Dtype::I32 => DType::I32,
                _ => DType::F16,
            },
            shape: view.shape(),
            data: view.data(),
        });
        let module = StoredModule { qweight, qzeros, scales };
        let spec = ModuleSpec { layout, ..spec(4, 64) };
        assert_eq!(module.shape(&spec).unwrap(), [8, 256]);
        let matrix = module.unpack(&spec).unwrap();
        assert_eq!(matrix.codes(), tensor("codes").data(), "{name}");
        let zeros: Vec<u8> = matrix.zeros().iter().map(|&z| z as u8).collect();
        assert_eq!(zeros, tensor("zeros").data(), "{name}");
        let halves: Vec<u8> = matrix.scales().iter().flat_map(|s| s.to_le_bytes()).collect();
        assert_eq!(halves, tensor("scales").data(), "{name}");

        let fails = |module: StoredModule<'_>, group: usize| {
            module.unpack(&ModuleSpec { group_size: Some(group), ..spec }).unwrap_err().to_string()
        };
        // Groups of 8 are more than the padded scales have room for.
        assert!(fails(module, 8).contains("room for 32 groups"), "{name}");
        let short = StoredTensor { data: &qzeros.data[..qzeros.data.len() - 1], ..qzeros };
        assert!(fails(StoredModule { qzeros: short, ..module }, 64).contains("`qzeros`"), "{name}");
        let wrong = StoredTensor { dtype: DType::F32, ..qweight };
        assert!(fails(StoredModule { qweight: wrong, ..module }, 64).contains("type I"), "{name}");
    }
}

proptest! {
    /// Every nibble of `qweight` and `qzeros` by the definition; then back.
    #[test]
    fn nibble_by_nibble(
        eighths in 1usize..40, in_features in 1usize..150, group_size in 1usize..110, seed in any::<u64>(),
    ) {
        let out_features = 8 * eighths;
        let matrix = matrix(out_features, in_features, 4, group_size, seed);
        let tensors = PackedModule::pack(&matrix).unwrap().into_tensors();
        let (qweight, qzeros) = (words(&tensors[0]), words(&tensors[1]));
        let nibble = |words: &[u32], row: usize, column: usize| {
            let place = INTERLEAVE.iter().position(|&c| c == column % 8).unwrap();
            words[row * eighths + column / 8] >> (4 * place) & 15
        };
        for o in 0..out_features {
            for i in 0..in_features {
                prop_assert_eq!(nibble(&qweight, i, o), u32::from(matrix.codes()[o * in_features + i]));
            }
            for g in 0..matrix.groups() {
                prop_assert_eq!(nibble(&qzeros, g, o), u32::from(matrix.zeros()[o * matrix.groups() + g]));
            }
        }
        prop_assert_eq!(stored(&tensors).shape(&spec(4, group_size)).unwrap(), [out_features, in_features]);
        prop_assert_eq!(stored(&tensors).unpack(&spec(4, group_size)).unwrap(), matrix);
    }

    #[test]
    fn other_widths(out_features in 1usize..300, in_features in 1usize..90, b in 2u8..=8, group_size in 1usize..110, seed in any::<u64>()) {
        let out_features = if b == 4 { out_features.next_multiple_of(8) } else { out_features };
        let matrix = matrix(out_features, in_features, b, group_size, seed);
        let tensors = PackedModule::pack(&matrix).unwrap().into_tensors();
        prop_assert_eq!(stored(&tensors).unpack(&spec(b, group_size)).unwrap(), matrix);
    }

    /// Whatever the shapes, types and bytes: an error or a matrix.
    #[test]
    fn arbitrary_tensors(
        shapes in prop::array::uniform3(prop::collection::vec(0usize..9, 0..4)),
        bytes in prop::array::uniform3(prop::collection::vec(any::<u8>(), 0..300)),
        fit in any::<bool>(), b in 2u8..=8, group_size in 0usize..9, layout in 0usize..3, wide in any::<bool>(),
    ) {
        let layout = [Layout::Gemm, Layout::Gemv, Layout::GemvFast][layout];
        let fast = layout == Layout::GemvFast;
        let dtypes = [if fast { DType::I16 } else { DType::I32 }, if fast { DType::F16 } else { DType::I32 }, DType::F16];
        let tensors: Vec<(Vec<usize>, Vec<u8>)> = shapes.into_iter().zip(bytes).zip(dtypes).map(|((mut shape, mut bytes), dtype)| {
            // Wide enough for a span.
            if wide && let Some(last) = shape.last_mut() { *last *= 64 }
            if fit { bytes.resize(shape.iter().product::<usize>() * dtype.size(), 0) }
            (shape, bytes)
        }).collect();
        let view = |i: usize| StoredTensor { dtype: dtypes[i], shape: &tensors[i].0, data: &tensors[i].1 };
        let module = StoredModule { qweight: view(0), qzeros: view(1), scales: view(2) };
        let b = if layout == Layout::Gemm { b } else { 4 };
        let _ = module.unpack(&ModuleSpec { layout, ..spec(b, group_size) });
    }
}

#[test]
fn each_defect_is_named() {
    let good = PackedModule::pack(&matrix(16, 64, 4, 32, 1)).unwrap().into_tensors();
    let spec = spec(4, 32);
    assert!(stored(&good).unpack(&spec).is_ok());
    let change = |f: &dyn Fn(&mut [PackedTensor; 3])| {
        let mut tensors = good.clone();
        f(&mut tensors);
        stored(&tensors).unpack(&spec).unwrap_err().to_string()
    };
    let cut = |at: usize| move |t: &mut [PackedTensor; 3]| t[at].data.truncate(t[at].data.len() - 1);
    let shape = |at: usize, s: &'static [usize]| move |t: &mut [PackedTensor; 3]| t[at].shape = s.to_vec();
    let cases: Vec<(String, &[&str])> = vec![
        (change(&cut(0)), &["`qweight`", "511 bytes"]),
        (change(&cut(1)), &["`qzeros`", "15 bytes"]),
        (change(&cut(2)), &["`scales`", "63 bytes"]),
        (change(&shape(0, &[32, 4])), &["`scales`", "expected shape [1, 16], found [2, 16]"]),
        (change(&shape(0, &[128])), &["`qweight`", "2 dimensions"]),
        (change(&shape(1, &[1, 4])), &["`qzeros`", "expected shape [2, 2], found [1, 4]"]),
        (change(&shape(2, &[4, 8])), &["`scales`", "expected shape [2, 8], found [4, 8]"]),
        (change(&shape(2, &[1, 32])), &["`scales`", "expected shape [2, 16], found [1, 32]"]),
        (change(&|t| t[0].dtype = DType::F32), &["`qweight`", "type I32", "F32"]),
        (change(&|t| t[2].dtype = DType::I16), &["`scales`", "F16 or BF16 or F32", "I16"]),
        (change(&|t| t[2].data[..2].copy_from_slice(&f16::NAN.to_le_bytes())), &["scale of row 0, group 0 is NaN"]),
    ];
    for (message, words) in cases {
        for word in words {
            assert!(message.contains(word), "{message}: {word}");
        }
    }
    let fails =
        |parts: AffineParts| PackedModule::pack(&AffineMatrix::from_parts(parts).unwrap()).unwrap_err().to_string();
    let parts = || matrix(8, 4, 4, 2, 1).into_parts();
    assert!(fails(AffineParts { zeros: vec![16; 16], ..parts() }).contains("zero point 16 of row 0"));
    assert!(fails(AffineParts { g_idx: Some(vec![1, 0, 1, 0]), ..parts() }).contains("another order"));
    assert!(fails(matrix(12, 4, 4, 2, 1).into_parts()).contains("12 output features"));
}
