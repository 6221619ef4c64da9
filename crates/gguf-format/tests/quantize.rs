//! Quantizing against ggml: the bytes of `ggml_quantize_chunk`, for every type, with and without importance weights.
//!
//! Reference: libggml-base of llama-cpp-python 0.3.36 (llama.cpp 0c1e57098, x86-64 without FMA).

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::shared;
use gguf_format::{Error, GgmlType, Gguf, Limits, blocks};
use proptest::prelude::*;
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};

/// A matrix: values and row length.
type Matrix = (Vec<f32>, usize);

/// The types that can be written and whose bytes the reference data have.
fn types() -> impl Iterator<Item = GgmlType> {
    GgmlType::KNOWN.iter().copied().filter(|&ty| blocks::can_quantize(ty))
}

/// Importance weights of `row_len` columns, all one, where the type needs some.
fn plainest(ty: GgmlType, row_len: usize) -> Option<Vec<f32>> {
    blocks::needs_importance(ty).then(|| vec![1.0; row_len])
}

fn quantized(ty: GgmlType, (values, row_len): &Matrix, importance: Option<&[f32]>) -> Vec<u8> {
    let row_bytes = ty.bytes_for(*row_len as u64).unwrap() as usize;
    let mut bytes = vec![0xa5; values.len() / row_len * row_bytes];
    blocks::quantize(ty, values, *row_len, importance, &mut bytes).unwrap();
    bytes
}

fn floats(tensors: &SafeTensors<'_>, name: &str) -> Matrix {
    let tensor = tensors.tensor(name).unwrap();
    let values = match tensor.dtype() {
        Dtype::F32 => tensor.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
        Dtype::F16 => halves(tensor.data()).map(|bits| half::f16::from_bits(bits).to_f32()).collect(),
        Dtype::BF16 => halves(tensor.data()).map(|bits| half::bf16::from_bits(bits).to_f32()).collect(),
        other => panic!("{name} is {other:?}"),
    };
    (values, *tensor.shape().last().unwrap())
}

fn halves(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.as_chunks().0.iter().map(|&bytes| u16::from_le_bytes(bytes))
}

/// 48 rows with outliers, zeros, constants, tiny and huge values; importance with zeros. Every byte is compared.
#[test]
fn nasty_rows_have_ggmls_bytes() {
    let Some(path) = shared("golden/ggml/blocks.safetensors") else { return };
    let file = std::fs::read(path).unwrap();
    let golden = SafeTensors::deserialize(&file).unwrap();
    let input = floats(&golden, "input");
    let importance = floats(&golden, "importance").0;
    let (mut compared, mut wrong) = (0, Vec::new());
    for ty in types() {
        for (kind, importance) in [("plain", None), ("importance", Some(&importance[..]))] {
            let Ok(expected) = golden.tensor(&format!("{ty}.{kind}")) else { continue };
            let found = quantized(ty, &input, importance);
            assert_eq!(found.len(), expected.data().len(), "{ty}.{kind}");
            let block_bytes = ty.layout().unwrap().block_bytes as usize;
            let mut differing = found.chunks(block_bytes).zip(expected.data().chunks(block_bytes)).enumerate();
            let blocks = differing.by_ref().filter(|(_, (found, expected))| found != expected).map(|(i, _)| i);
            let blocks: Vec<usize> = blocks.collect();
            if !blocks.is_empty() {
                wrong.push(format!("{ty}.{kind}: {} blocks, first {:?}", blocks.len(), &blocks[..blocks.len().min(5)]));
            }
            compared += 1;
        }
    }
    assert!(wrong.is_empty(), "differ: {wrong:#?}");
    // Every type but F32, which the reference data leave out, both ways.
    assert!(compared >= 2 * 14, "only {compared} compared");
}

/// Every tensor of two models, every type that fits its rows; the hashes of the whole tensors are compared.
#[test]
fn tensors_of_models_have_ggmls_bytes() {
    for (facts, load) in [
        ("golden/ggml/stories260K.hashes.json", stories as fn(&str) -> Option<BTreeMap<String, Matrix>>),
        ("golden/ggml/pocket-6m.hashes.json", pocket),
    ] {
        let (Some(path), Some(matrices)) = (shared(facts), load("models")) else { return };
        let facts: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let (mut compared, mut wrong) = (0, Vec::new());
        for (name, fact) in facts["tensors"].as_object().unwrap() {
            let matrix = &matrices[name];
            let bytes: Vec<u8> = matrix.0.iter().flat_map(|value| value.to_le_bytes()).collect();
            assert_eq!(hash(&bytes), fact["input_sha256"], "{name}: the input is another one");
            let importance: Vec<f32> = (0..matrix.1).map(|i| (((i + 1) as f64).sin().abs() + 0.01) as f32).collect();
            for ty in types() {
                for (kind, importance) in [("plain", None), ("importance", Some(&importance[..]))] {
                    let key = format!("{ty}.{kind}");
                    let Some(expected) = fact.get(&key) else { continue };
                    if hash(&quantized(ty, matrix, importance)) != *expected {
                        wrong.push(format!("{name}: {key}"));
                    }
                    compared += 1;
                }
            }
        }
        assert!(wrong.is_empty(), "{} of {compared} differ: {wrong:#?}", wrong.len());
        assert!(compared > 200, "only {compared} compared");
        println!("{compared} tensors compared");
    }
}

fn hash(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

fn stories(models: &str) -> Option<BTreeMap<String, Matrix>> {
    let gguf = Gguf::parse(std::fs::read(shared(&format!("{models}/stories260K.gguf"))?).unwrap(), &Limits::default())
        .unwrap();
    let matrices = gguf.tensors().iter().filter(|tensor| tensor.ggml_type() == GgmlType::F32).map(|tensor| {
        let values: Vec<f32> = gguf.data(tensor).as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        (tensor.name().to_string(), (values, tensor.row_len() as usize))
    });
    Some(matrices.collect())
}

/// The model's matrices under the names and in the row order of GGUF: rotary pairs of a head side by side.
fn pocket(models: &str) -> Option<BTreeMap<String, Matrix>> {
    let file = std::fs::read(shared(&format!("{models}/pocket-6m/model.safetensors"))?).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let matrices = tensors.names().into_iter().map(|name| {
        let (values, row_len) = floats(&tensors, name);
        let stem = Path::new(name).with_extension("").display().to_string();
        let (prefix, part) = match stem.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')) {
            Some((layer, part)) => (format!("blk.{layer}."), part.to_string()),
            None => (String::new(), stem.clone()),
        };
        let (part, heads) = match part.as_str() {
            "model.embed_tokens" => ("token_embd", 0),
            "lm_head" => ("output", 0),
            "self_attn.q_proj" => ("attn_q", 4),
            "self_attn.k_proj" => ("attn_k", 2),
            "self_attn.v_proj" => ("attn_v", 0),
            "self_attn.o_proj" => ("attn_output", 0),
            "mlp.gate_proj" => ("ffn_gate", 0),
            "mlp.up_proj" => ("ffn_up", 0),
            "mlp.down_proj" => ("ffn_down", 0),
            other => (other, 0),
        };
        let values = if heads == 0 { values } else { pair_rows(&values, row_len, heads) };
        (format!("{prefix}{part}.weight"), (values, row_len))
    });
    Some(matrices.collect())
}

/// Rows of a head of `2 n` come in the order 0, n, 1, n + 1, …
fn pair_rows(values: &[f32], row_len: usize, heads: usize) -> Vec<f32> {
    let rows: Vec<&[f32]> = values.chunks(row_len).collect();
    let head = rows.len() / heads;
    let order = (0..rows.len()).map(|row| {
        let (first, within) = (row / head * head, row % head);
        first + within % 2 * (head / 2) + within / 2
    });
    order.flat_map(|row| rows[row].iter().copied()).collect()
}

#[test]
fn cutting_a_tensor_between_rows_changes_nothing() {
    let values: Vec<f32> = (0..3 * 512).map(|i| ((i * i) as f32 * 0.37).sin()).collect();
    let importance: Vec<f32> = (0..512).map(|i| (i % 7) as f32).collect();
    for ty in types() {
        for importance in [plainest(ty, 512).as_deref(), Some(&importance[..])] {
            let whole = quantized(ty, &(values.clone(), 512), importance);
            let parts: Vec<u8> =
                values.chunks(512).flat_map(|row| quantized(ty, &(row.to_vec(), 512), importance)).collect();
            assert!(whole == parts, "{ty}");
        }
    }
}

#[test]
fn wrong_arguments_are_errors() {
    let values = [1.0; 512];
    // type, values, row length, importance, bytes
    let cases: [(_, _, _, Option<usize>, _, _); 8] = [
        (GgmlType::Q4_0, 64, 48, None, 36, "Q4_0: expected rows of a multiple of 32 values, found 48"),
        (GgmlType::Q4_0, 64, 0, None, 36, "Q4_0: expected rows of a multiple of 32 values, found 0"),
        (GgmlType::Q4_0, 96, 64, None, 54, "Q4_0: expected whole rows of 64 values, found 96"),
        (GgmlType::Q4_0, 64, 64, Some(32), 36, "Q4_0: expected importance of 64 columns, found 32"),
        (GgmlType::Q4_0, 64, 32, None, 35, "Q4_0: expected 36 bytes, found 35"),
        (GgmlType::Q6_K, 512, 128, None, 420, "Q6_K: expected rows of a multiple of 256 values, found 128"),
        (GgmlType::Q8_K, 256, 256, None, 292, "Q8_K: no quantize for this type"),
        (GgmlType::from_id(77), 32, 32, None, 32, "type-77: no quantize for this type"),
    ];
    for (ty, n, row_len, weights, bytes, expected) in cases {
        let importance = weights.map(|n| &values[..n]);
        let error: Error = blocks::quantize(ty, &values[..n], row_len, importance, &mut vec![0; bytes]).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    for ty in types() {
        blocks::quantize(ty, &[], 256, plainest(ty, 256).as_deref(), &mut []).unwrap();
    }
}

#[test]
fn types_that_need_importance_say_so() {
    let need: Vec<_> = types().filter(|&ty| blocks::needs_importance(ty)).collect();
    assert_eq!(need, [GgmlType::IQ2_XXS, GgmlType::IQ2_XS, GgmlType::IQ1_S]);
    for ty in need {
        let mut bytes = vec![0xa5; ty.bytes_for(256).unwrap() as usize];
        let error = blocks::quantize(ty, &[1.0; 256], 256, None, &mut bytes).unwrap_err();
        assert_eq!(error.to_string(), format!("{ty}: needs importance weights"));
        assert!(bytes.iter().all(|&byte| byte == 0xa5), "{ty}: written to");
    }
}

/// SHA-256 of what ggml writes for the 128 x 1024 values and weights of [`sparse_importance`].
const SPARSE: &[(GgmlType, &str)] = &[
    (GgmlType::Q4_0, "c16382dd1f405b31e6a05ed48456fb595cdf2900c8ad9ff969e61d2fc80b46ff"),
    (GgmlType::Q4_1, "7c0ea6dee86b4dcddd839667549a3b9b22d61e0807c22077d37a3402171d5c8f"),
    (GgmlType::Q5_0, "f65269101a56c18a742618edb40da1186921233b67661487eb84184ab743aca4"),
    (GgmlType::Q5_1, "ece555f93b287f49d397c5b84e27052ae09e08f156260732788d7da2defa6d41"),
    (GgmlType::Q2_K, "230e1f5a9a7bf113790c0f9af445632f27081e9f4987114ced5501436e2e959c"),
    (GgmlType::Q3_K, "b7a723dd8515381ccefacc9ed8f9284f1894317535dbbb926cf28865f9508e13"),
    (GgmlType::Q4_K, "2db43a1fb1114146e1d4f99d6323ec82b39c6bb02908f537b8bcd2e38780e1f0"),
    (GgmlType::Q5_K, "bbb433bbb5b47e829c2a306f7a80363f2f38921a10bd000e36dc261edc436131"),
    (GgmlType::Q6_K, "f6030e3f41ef0f1951a1a5205e7291939a42288a5fffd3b6f4a9aaf07161194b"),
    (GgmlType::IQ1_S, "285fa69be74d3fa3006bc60977e8cbc418de1ac3e565273298658ea223353f65"),
    (GgmlType::IQ1_M, "5255d06c02fdf2b95ba7badc7b025867e3383219a4155c17f16d68ee1dc9e05d"),
    (GgmlType::IQ2_XXS, "5cc7d62d087f8be3a360ce34d080aad3b1a4b2e3f074891c5d8238bd0e61ea06"),
    (GgmlType::IQ2_XS, "54fa9c2b8876ab6116e243e183da3e75306521737904965b79f4483ab8c4edbc"),
    (GgmlType::IQ2_S, "43738f627fd34795493409ef5739a8759fdf51a451b46ea80ace7a805bee3f7d"),
    (GgmlType::IQ3_XXS, "86db9b346b465497c7ac2dcf04941473ec860c8741e5baa9404aef5fb6832bfa"),
    (GgmlType::IQ3_S, "98937b89227513395771133b9ebf039c666b21dab9c9c4ec0ce7c4b3743854ac"),
    (GgmlType::IQ4_NL, "e27231cc618fb7d971158d8cdd23a610b402f5b83caece34a288753fc6cdd2e9"),
    (GgmlType::IQ4_XS, "018e751abba6512e5346ab1659d1f746edb188c530beea81c28fa61b4a6164d2"),
];

/// Every third sub-block of 32 is zero: ggml moves the codes behind it up. The hash is that of what it writes.
#[test]
fn iq3_s_with_sub_blocks_of_zeros() {
    let value = |i: usize| if i / 32 % 3 == 1 { 0.0 } else { ((i * 37 % 101) as f32 - 50.0) / 64.0 };
    let bytes = quantized(GgmlType::IQ3_S, &((0..1024).map(value).collect(), 1024), None);
    assert_eq!(hash(&bytes), "59e190553b7a91bb3b7c5b1fc26f70340f390ba9dc29cbbd2d64082d1f4192e2");
}

/// Nine of ten values are zero. Without importance the weights of IQ1_M are squares, so zeros weigh nothing and may be read back as more
/// than ten times their block's largest value, from ggml's bytes as from ours.
#[test]
fn iq1_m_with_lone_values() {
    let values = splitmix64(3).map(|z| if z % 10 == 0 { (z >> 40) as f32 / 8_388_608.0 - 1.0 } else { 0.0 });
    let values: Vec<f32> = values.take(128 * 1024).collect();
    let bytes = quantized(GgmlType::IQ1_M, &(values.clone(), 1024), None);
    assert_eq!(hash(&bytes), "3a5ed61e83f7ce48a913bae08fa589b7a89d3118f6f31660de27999a0fe35da7");
    let mut read = vec![0.0; values.len()];
    blocks::dequantize(GgmlType::IQ1_M, &bytes, &mut read).unwrap();
    let beyond = |(x, y): (&[f32], &[f32])| {
        let largest = x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        x.iter().zip(y).any(|(&x, y)| x == 0.0 && y.abs() > 10.0 * largest)
    };
    assert!(values.chunks(256).zip(read.chunks(256)).any(beyond), "the case that this is about does not occur");
}

/// Two of three weights are zero, the values have a wide range: fits with negative scales occur, and scales that round to nothing.
#[test]
fn sparse_importance() {
    let values = splitmix64(1).map(|z| (z >> 40) as f32 / 8_388_608.0 - 1.0).map(|u| u * u * u * u * u * 64.0);
    let weights = splitmix64(2).map(|z| if z % 10 < 3 { (z >> 40) as f32 / 16_777_216.0 } else { 0.0 });
    let values = (values.take(128 * 1024).collect(), 1024);
    let weights: Vec<f32> = weights.take(1024).collect();
    for &(ty, expected) in SPARSE {
        assert_eq!(format!("{:x}", Sha256::digest(quantized(ty, &values, Some(&weights)))), expected, "{ty}");
    }
}

fn splitmix64(mut state: u64) -> impl Iterator<Item = u64> {
    std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

#[test]
fn values_that_are_not_finite_are_errors() {
    for ty in types() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut bytes = vec![0; ty.bytes_for(512).unwrap() as usize];
            let mut values = vec![0.5; 512];
            values[300] = bad;
            let error = blocks::quantize(ty, &values, 512, plainest(ty, 512).as_deref(), &mut bytes).unwrap_err();
            assert!(matches!(error, Error::NonFinite { index: 300, .. }), "{ty}: {error}");
            let error = blocks::quantize(ty, &[0.5; 512], 512, Some(&values), &mut bytes).unwrap_err();
            assert!(matches!(error, Error::NonFinite { index: 300, .. }), "{ty}: {error}");
        }
    }
}

#[test]
fn what_half_precision_cannot_hold_is_an_error() {
    // The scales of the 4-bit floats are not half precision: MXFP4 has every power of two, NVFP4 cuts off.
    let others = [GgmlType::F32, GgmlType::BF16, GgmlType::MXFP4, GgmlType::NVFP4];
    for ty in types().filter(|ty| !others.contains(ty)) {
        let mut bytes = vec![0; ty.bytes_for(512).unwrap() as usize];
        let mut values = vec![0.5; 512];
        values[256] = 1e12;
        let error = blocks::quantize(ty, &values, 512, plainest(ty, 512).as_deref(), &mut bytes).unwrap_err();
        assert!(matches!(error, Error::Overflow { index: 256, .. }), "{ty}: {error}");
    }
    let mut bytes = [0; 4];
    blocks::quantize(GgmlType::F16, &[65519.0, -65504.0], 2, None, &mut bytes).unwrap();
    let error = blocks::quantize(GgmlType::F16, &[1.0, -65520.0], 2, None, &mut bytes).unwrap_err();
    assert_eq!(
        error.to_string(),
        "F16: value 1 (-65520), or the scale of the block it starts, is beyond half precision"
    );
}

/// What one code step may cost: the largest error, as a share of the block's largest magnitude, that any input can have. Generous:
/// a scale of a super-block that a larger neighbour rounds to nothing loses its whole sub-block.
fn error_bound(ty: GgmlType, weighted: bool) -> f32 {
    match ty {
        // The points reach from 1/8 of the scale, which may be the value that it was fitted to, to 9/8, and the few that are not like the
        // others count little; where the weights are squares, those near zero count for nothing and may become anything.
        GgmlType::IQ1_M if !weighted => 16.0,
        GgmlType::IQ1_M | GgmlType::IQ1_S => 4.0,
        // Sub-blocks of zeros: the codes of others move into theirs (see `iq3_s_with_sub_blocks_of_zeros`), sign and all.
        GgmlType::IQ3_S => 2.5,
        GgmlType::F32 => 0.0,
        GgmlType::F16 => 1e-3,
        GgmlType::BF16 => 4e-3,
        GgmlType::Q8_0 => 5e-3,
        GgmlType::Q5_1 | GgmlType::Q5_0 => 0.08,
        GgmlType::Q4_0 | GgmlType::Q4_1 => 0.15,
        _ => 1.2,
    }
}

/// 512 values, from a few to all of which are not zero.
fn sometimes_sparse() -> impl Strategy<Value = Vec<f32>> {
    (0.05f64..0.999).prop_flat_map(|share| {
        prop::collection::vec(
            prop::option::weighted(share * share, -1.0f32..1.0).prop_map(Option::unwrap_or_default),
            512,
        )
    })
}

proptest! {
    #[test]
    fn any_finite_values_quantize(
        ty in prop::sample::select(types().collect::<Vec<_>>()),
        values in prop::collection::vec(any::<f32>().prop_filter("finite", |x| x.is_finite()), 512),
        weights in prop::option::of(prop::collection::vec(0.0f32..1e30, 512)),
    ) {
        let mut bytes = vec![0; ty.bytes_for(512).unwrap() as usize];
        match blocks::quantize(ty, &values, 512, weights.as_deref(), &mut bytes) {
            Ok(()) | Err(Error::Overflow { .. }) => {}
            Err(Error::NoImportance { .. }) => assert!(weights.is_none() && blocks::needs_importance(ty)),
            Err(other) => panic!("{ty}: {other}"),
        }
    }

    #[test]
    fn the_error_is_bounded(
        ty in prop::sample::select(types().collect::<Vec<_>>()),
        values in sometimes_sparse(),
        exponent in 0i32..4,
        shift in prop_oneof![Just(0.0f32), -1.0f32..1.0],
        weighted: bool,
    ) {
        let values: Vec<f32> = values.iter().map(|x| (x + shift) * 10f32.powi(exponent)).collect();
        let weights = if weighted { Some(vec![1.0; 512]) } else { plainest(ty, 512) };
        let bytes = quantized(ty, &(values.clone(), 512), weights.as_deref());
        let mut read = vec![0.0; 512];
        blocks::dequantize(ty, &bytes, &mut read).unwrap();
        let largest = values.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        for (x, y) in values.iter().zip(&read) {
            prop_assert!((x - y).abs() <= error_bound(ty, weighted) * largest + 1e-5, "{ty}: {x} became {y}, largest {largest}");
        }
    }
}
