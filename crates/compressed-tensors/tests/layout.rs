//! Packing against the library's own words and directories, and tensors that are not what they should be.

use compressed_tensors::{
    Config, DType, ModuleFacts, ModuleSpec, PackedModule, PackedTensor, ScaleType, Storage, StoredModule, StoredTensor,
    loads_in,
};
use half::{bf16, f16};
use proptest::prelude::*;
use quant_core::affine::{AffineMatrix, AffineParts, Bits};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

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

fn stored(tensors: &[PackedTensor]) -> StoredModule<'_> {
    let part = |suffix: &str| tensors.iter().find(|t| t.suffix == suffix).map(PackedTensor::stored);
    StoredModule {
        weight_packed: part("weight_packed").unwrap(),
        weight_scale: part("weight_scale").unwrap(),
        weight_shape: part("weight_shape").unwrap(),
        weight_zero_point: part("weight_zero_point"),
        weight_g_idx: part("weight_g_idx"),
    }
}

fn spec(b: u8, group_size: usize) -> ModuleSpec {
    ModuleSpec { bits: bits(b), group_size: Some(group_size), symmetric: false, act_order: false }
}

fn golden() -> Value {
    data("golden.json")
}

fn data(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(file);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Every width as the library packs it (`tests/data/golden.json`), ragged both ways.
#[test]
fn words_of_the_library() {
    let golden = golden();
    for b in 2..=8u8 {
        let facts = &golden["words"][b.to_string()];
        let mut parts = matrix(5, 70, b, 35, 1).into_parts();
        let code = |n: usize, k: usize| ((7 * n + 3 * k + n * k) % (1 << b)) as u8;
        parts.codes = (0..5 * 70).map(|i| code(i / 70, i % 70)).collect();
        parts.zeros = (0..10).map(|i| ((5 * (i / 2) + i % 2) % (1 << b)) as u16).collect();
        let matrix = AffineMatrix::from_parts(parts).unwrap();
        let tensors = PackedModule::pack(&matrix, false, ScaleType::F16).unwrap().into_tensors();
        for (at, name) in [(0, "weight_packed"), (3, "weight_zero_point")] {
            let tensor = &tensors[at];
            assert_eq!((tensor.suffix, tensor.dtype), (name, DType::I32));
            assert_eq!(serde_json::json!(tensor.shape), facts["shapes"][at / 3], "{b} bits {name}");
            let words: Vec<_> = tensor
                .data
                .chunks_exact(4)
                .map(|w| format!("{:08x}", u32::from_le_bytes(w.try_into().unwrap())))
                .collect();
            assert_eq!(serde_json::json!(words), facts[name], "{b} bits {name}");
        }
        assert_eq!(stored(&tensors).unpack(&spec(b, 35)).unwrap(), matrix, "{b} bits");
    }
}

/// Widths that older releases packed otherwise (`tests/data/padded.json`): whole codes in each word.
#[test]
fn words_of_older_releases() {
    let golden = data("padded.json");
    for b in [3u8, 5, 6, 7] {
        let tensor = |name: &'static str| {
            let facts = &golden["words"][b.to_string()][name];
            let words = facts["words"].as_array().unwrap().iter();
            let words: Vec<u32> = words.map(|w| u32::from_str_radix(w.as_str().unwrap(), 16).unwrap()).collect();
            let shape = facts["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
            PackedTensor::words(name, shape, &words)
        };
        let rows = 32 / usize::from(b);
        let mut parts = matrix(rows, 320, b, 160, 1).into_parts();
        let code = |n: usize, k: usize| ((7 * n + 3 * k + n * k) % (1 << b)) as u8;
        parts.codes = (0..rows * 320).map(|i| code(i / 320, i % 320)).collect();
        parts.zeros = (0..rows * 2).map(|i| ((5 * (i / 2) + i % 2) % (1 << b)) as u16).collect();
        let matrix = AffineMatrix::from_parts(parts).unwrap();
        let spec = spec(b, 160);
        let mut tensors = PackedModule::pack(&matrix, false, ScaleType::F16).unwrap().into_tensors();
        (tensors[0], tensors[3]) = (tensor("weight_packed"), tensor("weight_zero_point"));
        assert!(stored(&tensors).unpack(&spec).unwrap() == matrix, "{b} bits");
        tensors[3] = PackedTensor::words("weight_zero_point", vec![9, 2], &[0; 18]);
        assert!(stored(&tensors).unpack(&spec).unwrap_err().to_string().contains("`weight_zero_point`"));
    }
}

fn directories() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden/compressed_tensors");
    if path.exists() {
        return Some(path);
    }
    println!("skipped: shared/golden/compressed_tensors is not beside the workspace");
    None
}

/// Directories that llm-compressor 0.14 wrote: every word comes back, the weights are those that the library unpacks (its F32 scales as F16).
#[test]
fn words_and_weights_of_directories() {
    let Some(root) = directories() else { return };
    for name in ["ct_w4a16_sym", "ct_w4a16_asym"] {
        let json: Value = serde_json::from_slice(&std::fs::read(root.join(name).join("config.json")).unwrap()).unwrap();
        let config = Config::from_json(&json["quantization_config"]).unwrap();
        let bytes = std::fs::read(root.join(name).join("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let views: Vec<_> = file.iter().collect();
        let mut modules: Vec<&str> = views.iter().filter_map(|(n, _)| n.strip_suffix(".weight_packed")).collect();
        modules.sort_unstable();
        let mut hash = Sha256::new();
        let mut facts = Vec::new();
        for module in &modules {
            let part = |suffix: &str| {
                let (_, view) = views.iter().find(|(n, _)| *n == format!("{module}.{suffix}"))?;
                let dtype = match view.dtype() {
                    Dtype::I32 => DType::I32,
                    Dtype::I64 => DType::I64,
                    Dtype::F32 => DType::F32,
                    other => panic!("{module}: {other}"),
                };
                Some(StoredTensor { dtype, shape: view.shape(), data: view.data() })
            };
            let stored = StoredModule {
                weight_packed: part("weight_packed").unwrap(),
                weight_scale: part("weight_scale").unwrap(),
                weight_shape: part("weight_shape").unwrap(),
                weight_zero_point: part("weight_zero_point"),
                weight_g_idx: None,
            };
            let spec = config.module(module).unwrap().unwrap();
            let matrix = stored.unpack(&spec).unwrap();
            config.check(module, &matrix).unwrap();
            assert!(stored.rounded_scales(&spec).unwrap() > 0);
            let packed = PackedModule::pack(&matrix, spec.symmetric, ScaleType::F16).unwrap().into_tensors();
            assert_eq!(packed.len(), if spec.symmetric { 3 } else { 4 });
            for tensor in &packed {
                let original = part(tensor.suffix).unwrap();
                assert_eq!(tensor.shape, original.shape, "{name} {module}.{}", tensor.suffix);
                if tensor.suffix == "weight_scale" {
                    let rounded: Vec<u8> =
                        original.floats().iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
                    assert_eq!(tensor.data, rounded);
                } else {
                    assert_eq!(tensor.dtype, original.dtype);
                    assert!(tensor.data == original.data, "{name} {module}.{} differs", tensor.suffix);
                }
            }
            let mut weights = vec![0.0f32; matrix.codes().len()];
            matrix.dequantize_into(&mut weights).unwrap();
            weights.iter().for_each(|w| hash.update(w.to_le_bytes()));
            let (out_features, in_features) = (matrix.out_features(), matrix.in_features());
            let storage = Storage::Packed(spec);
            facts.push(ModuleFacts { name: module.to_string(), out_features, in_features, storage, g_idx: None });
        }
        let expected = &golden()["directories"][name];
        assert_eq!(modules.len() as u64, expected["modules"].as_u64().unwrap());
        let hash: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hash, expected["sha256"].as_str().unwrap(), "{name}");
        let verdicts = loads_in(&config, &facts, &[]);
        assert_eq!(verdicts.vllm.to_string(), "yes: Marlin");
        assert_eq!(verdicts.transformers.to_string().starts_with("yes"), name == "ct_w4a16_sym");
    }
}

proptest! {
    /// Every bit by the definition; then back.
    #[test]
    fn bit_by_bit(
        out_features in 1usize..70, in_features in 1usize..100, b in 2u8..=8, group_size in 1usize..110, seed in any::<u64>(),
    ) {
        let matrix = matrix(out_features, in_features, b, group_size, seed);
        let tensors = PackedModule::pack(&matrix, false, ScaleType::F16).unwrap().into_tensors();
        let words = |at: usize| tensors[at].data.chunks_exact(4).map(|w| u32::from_le_bytes(w.try_into().unwrap())).collect::<Vec<_>>();
        let (packed, zeros) = (words(0), words(3));
        let (b, row) = (usize::from(b), (in_features * usize::from(b)).div_ceil(32));
        let groups = matrix.groups();
        for o in 0..out_features {
            for at in 0..in_features * b {
                let code = matrix.codes()[o * in_features + at / b];
                prop_assert_eq!(packed[o * row + at / 32] >> (at % 32) & 1, u32::from(code) >> (at % b) & 1);
            }
            for g in 0..groups {
                for k in 0..b {
                    let at = o * b + k;
                    let zero = u32::from(matrix.zeros()[o * groups + g]);
                    prop_assert_eq!(zeros[at / 32 * groups + g] >> (at % 32) & 1, zero >> k & 1);
                }
            }
        }
        let spec = spec(b as u8, group_size);
        prop_assert_eq!(stored(&tensors).shape(&spec).unwrap(), [out_features, in_features]);
        prop_assert_eq!(stored(&tensors).unpack(&spec).unwrap(), matrix);
    }

    /// Whatever the shapes, types and bytes: an error or a matrix.
    #[test]
    fn arbitrary_tensors(
        shapes in prop::array::uniform5(prop::collection::vec(0usize..9, 0..4)),
        bytes in prop::array::uniform5(prop::collection::vec(any::<u8>(), 0..300)),
        sizes in prop::array::uniform2(-1i64..9),
        fit in any::<bool>(), b in 2u8..=8, group_size in 0usize..9, symmetric in any::<bool>(), byte_zeros in any::<bool>(),
    ) {
        let zeros = if byte_zeros { DType::I8 } else { DType::I32 };
        let dtypes = [DType::I32, DType::BF16, DType::I64, zeros, DType::I32];
        let mut tensors: Vec<(Vec<usize>, Vec<u8>)> = shapes.into_iter().zip(bytes).zip(dtypes).map(|((shape, mut bytes), dtype)| {
            if fit { bytes.resize(shape.iter().product::<usize>() * dtype.size(), 0) }
            (shape, bytes)
        }).collect();
        tensors[2] = (vec![2], sizes.iter().flat_map(|n| n.to_le_bytes()).collect());
        let view = |i: usize| StoredTensor { dtype: dtypes[i], shape: &tensors[i].0, data: &tensors[i].1 };
        let module = StoredModule {
            weight_packed: view(0), weight_scale: view(1), weight_shape: view(2),
            weight_zero_point: Some(view(3)), weight_g_idx: byte_zeros.then(|| view(4)),
        };
        let _ = module.unpack(&ModuleSpec { symmetric, ..spec(b, group_size) });
    }
}

#[test]
fn each_defect_is_named() {
    let good = PackedModule::pack(&matrix(8, 64, 4, 32, 1), false, ScaleType::F16).unwrap().into_tensors();
    let spec = spec(4, 32);
    assert!(stored(&good).unpack(&spec).is_ok());
    let change = |f: &dyn Fn(&mut Vec<PackedTensor>)| {
        let mut tensors = good.clone();
        f(&mut tensors);
        stored(&tensors).unpack(&spec).unwrap_err().to_string()
    };
    let shape = |at: usize, s: &'static [usize]| move |t: &mut Vec<PackedTensor>| t[at].shape = s.to_vec();
    let sizes = |out: i64, n: i64| {
        move |t: &mut Vec<PackedTensor>| t[2].data = [out, n].iter().flat_map(|n| n.to_le_bytes()).collect()
    };
    let g_idx = |at: usize, group: u32| {
        move |t: &mut Vec<PackedTensor>| {
            let mut words = vec![0; 64];
            words[at] = group;
            t.push(PackedTensor::words("weight_g_idx", vec![64], &words));
        }
    };
    let cases: Vec<(String, &[&str])> = vec![
        (change(&|t| t[0].data.truncate(255)), &["`weight_packed`", "255 bytes"]),
        (change(&shape(0, &[16, 4])), &["`weight_packed`", "expected shape [8, 8], found [16, 4]"]),
        (change(&shape(0, &[64])), &["`weight_packed`", "2 dimensions"]),
        (change(&shape(1, &[4, 4])), &["`weight_scale`", "expected shape [8, 2], found [4, 4]"]),
        (change(&|t| t[1].dtype = DType::I16), &["`weight_scale`", "F16 or BF16 or F32", "I16"]),
        (change(&sizes(8, 72)), &["`weight_packed`", "expected shape [8, 9], found [8, 8]"]),
        (change(&sizes(-8, 64)), &["`weight_shape`", "two positive numbers", "[-8, 64]"]),
        (change(&sizes(i64::MAX, i64::MAX)), &["`weight_packed`", "9223372036854775807"]),
        (change(&|t| t[2].shape = vec![2, 1]), &["`weight_shape`", "1 dimension"]),
        (change(&|t| drop(t.remove(3))), &["`weight_zero_point`", "the config says asymmetric", "nothing"]),
        (change(&shape(3, &[2, 1])), &["`weight_zero_point`", "expected shape [1, 2], found [2, 1]"]),
        (change(&g_idx(5, 2)), &["`weight_g_idx`", "groups below 2", "2 at index 5"]),
        (change(&g_idx(5, u32::MAX)), &["`weight_g_idx`", "-1 at index 5"]),
        (change(&|t| t.push(PackedTensor::words("weight_g_idx", vec![63], &[0; 63]))), &["`weight_g_idx`", "[64, 1]"]),
        (change(&|t| t[1].data[..2].copy_from_slice(&f16::NAN.to_le_bytes())), &["scale of row 0, group 0 is NaN"]),
    ];
    for (message, words) in cases {
        for word in words {
            assert!(message.contains(word), "{message}: {word}");
        }
    }
    // Zero points of older releases: bytes, counted from -8.
    let mut old = good.clone();
    let zeros: Vec<u8> = stored(&good).unpack(&spec).unwrap().zeros().iter().map(|&z| (z as i8 - 8) as u8).collect();
    (old[3].dtype, old[3].shape, old[3].data) = (DType::I8, vec![8, 2], zeros);
    assert_eq!(stored(&old).unpack(&spec), stored(&good).unpack(&spec));
    old[3].data[3] = 8;
    assert!(stored(&old).unpack(&spec).unwrap_err().to_string().contains("8 at index 3"));
    // An order, and one that was never filled.
    let mut ordered = good.clone();
    ordered.push(PackedTensor::words("weight_g_idx", vec![64], &(0..64).map(|i| i % 2).collect::<Vec<_>>()));
    assert_eq!(stored(&ordered).unpack(&spec).unwrap().group_of(3), 1);
    ordered[4].data.fill(0xff);
    assert_eq!(stored(&ordered).unpack(&spec), stored(&good).unpack(&spec));
}

#[test]
fn what_cannot_be_written() {
    let fails = |parts: AffineParts, symmetric, scales| {
        PackedModule::pack(&AffineMatrix::from_parts(parts).unwrap(), symmetric, scales).unwrap_err().to_string()
    };
    let parts = || matrix(8, 4, 4, 2, 1).into_parts();
    assert!(
        fails(AffineParts { zeros: vec![16; 16], ..parts() }, false, ScaleType::F16).contains("zero point 16 of row 0")
    );
    assert!(fails(parts(), true, ScaleType::F16).contains("off the middle"));
    assert!(
        fails(AffineParts { g_idx: Some(vec![1, 0, 1, 0]), ..parts() }, false, ScaleType::F16)
            .contains("another order")
    );
    let third = f16::from_f32(1.0 / 3.0);
    assert!(
        fails(AffineParts { scales: vec![third; 16], ..parts() }, false, ScaleType::Bf16).contains("row 0, group 0")
    );
    // Scales that both types have.
    let scales: Vec<f16> = (0..16).map(|i| f16::from_f32(bf16::from_f32(0.01 * (i + 1) as f32).to_f32())).collect();
    let matrix = AffineMatrix::from_parts(AffineParts { scales, ..parts() }).unwrap();
    let tensors = PackedModule::pack(&matrix, false, ScaleType::Bf16).unwrap().into_tensors();
    assert_eq!(tensors[1].dtype, DType::BF16);
    assert_eq!(stored(&tensors).unpack(&spec(4, 2)).unwrap(), matrix);
    assert_eq!(stored(&tensors).rounded_scales(&spec(4, 2)).unwrap(), 0);
    let config = Config::packed(bits(4), Some(4), false);
    assert!(config.check("m", &matrix).unwrap_err().to_string().contains("groups of 2, 4 in the config"));
    assert!(config.check("lm_head", &matrix).unwrap_err().to_string().contains("full precision"));
    let symmetric = Config::packed(bits(4), Some(2), true);
    assert!(symmetric.check("m", &matrix).unwrap_err().to_string().contains("off the middle"));
}
