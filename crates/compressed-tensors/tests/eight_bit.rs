//! `int-quantized` and `float-quantized`: directories of llm-compressor, written again byte for byte, and what is refused.

use compressed_tensors::{
    ActivationSpec, CheckpointError, Config, DType, EightBitModule, EightBitSpec, InputScales, PackedTensor,
    StaticScales, Storage, StoredEightBit, StoredTensor,
};
use quant_core::activation::{ActivationGrid, ActivationQuantizer, ActivationScales};
use quant_core::eight_bit::{EightBitCode, EightBitMatrix, EightBitParts};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use std::path::Path;

const INT8: ActivationGrid = ActivationGrid::Int8 { symmetric: true };
const ASYMMETRIC: ActivationGrid = ActivationGrid::Int8 { symmetric: false };

fn stored_dtype(dtype: Dtype) -> DType {
    match dtype {
        Dtype::I8 => DType::I8,
        Dtype::F8_E4M3 => DType::F8E4M3,
        Dtype::F32 => DType::F32,
        other => panic!("{other:?}"),
    }
}

/// Of llm-compressor 0.14 on pocket-6m: the config says what it said, every tensor comes back.
#[test]
fn directories_of_the_library() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden/compressed_tensors");
    if !root.exists() {
        println!("skipped: shared/golden/compressed_tensors is not beside the workspace");
        return;
    }
    let token = |grid| Some(ActivationSpec { grid, scales: InputScales::Token });
    for (name, spec) in [
        ("ct_w8a8_int8", EightBitSpec::new(EightBitCode::Int8, token(INT8))),
        ("ct_fp8_dynamic", EightBitSpec::new(EightBitCode::E4M3, token(ActivationGrid::E4M3))),
    ] {
        let json: Value = serde_json::from_slice(&std::fs::read(root.join(name).join("config.json")).unwrap()).unwrap();
        let config = Config::from_json(&json["quantization_config"]).unwrap();
        config.check_groups().unwrap();
        assert_eq!(
            (&config.groups, &config.ignore),
            (&Config::eight_bit(&spec).groups, &Config::eight_bit(&spec).ignore)
        );
        assert_eq!(config.storage("lm_head").unwrap(), None);
        let message = config.module("model.layers.0.mlp.up_proj").unwrap_err().to_string();
        assert!(message.contains("pack-quantized is"), "{message}");
        let bytes = std::fs::read(root.join(name).join("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let views: Vec<_> = file.iter().collect();
        let modules: Vec<&str> = views.iter().filter_map(|(n, _)| n.strip_suffix(".weight_scale")).collect();
        assert_eq!(modules.len(), 42);
        for module in modules {
            assert_eq!(config.storage(module).unwrap(), Some(Storage::EightBit(spec)));
            let part = |suffix: &str| {
                let name = format!("{module}.{suffix}");
                let (_, view) = views.iter().find(|(n, _)| *n == name)?;
                Some(StoredTensor { dtype: stored_dtype(view.dtype()), shape: view.shape(), data: view.data() })
            };
            let stored = StoredEightBit {
                weight: part("weight").unwrap(),
                weight_scale: part("weight_scale").unwrap(),
                weight_zero_point: None,
                input_scale: None,
                input_zero_point: None,
            };
            let matrix = stored.unpack(&spec).unwrap();
            config.check_eight_bit(module, &matrix, None).unwrap();
            let tensors = EightBitModule::pack(&matrix, &spec, None).into_tensors();
            assert_eq!(tensors.len(), 2);
            for tensor in &tensors {
                let original = part(tensor.suffix).unwrap();
                assert_eq!((tensor.dtype, &*tensor.shape), (original.dtype, original.shape), "{name} {module}");
                assert!(tensor.data == original.data, "{name} {module}.{} differs", tensor.suffix);
            }
        }
    }
}

fn matrix(code: EightBitCode, zeros: bool) -> EightBitMatrix {
    let codes = (0..12).map(|i| (i * 21 % 120) as i8).collect();
    let zeros = zeros.then(|| vec![1, -2, 0]);
    let scales = vec![0.5, 0.25, 0.125];
    EightBitMatrix::from_parts(EightBitParts { out_features: 3, in_features: 4, code, codes, scales, zeros }).unwrap()
}

fn stored(tensors: &[PackedTensor]) -> StoredEightBit<'_> {
    let part = |suffix: &str| tensors.iter().find(|t| t.suffix == suffix).map(PackedTensor::stored);
    StoredEightBit {
        weight: part("weight").unwrap(),
        weight_scale: part("weight_scale").unwrap(),
        weight_zero_point: part("weight_zero_point"),
        input_scale: part("input_scale"),
        input_zero_point: part("input_zero_point"),
    }
}

/// Every scheme there is: through config and tensors and back.
#[test]
fn written_and_read() {
    let scale = StaticScales { scale: 0.75, zero: -9 };
    for (code, grids) in [(EightBitCode::Int8, &[INT8, ASYMMETRIC][..]), (EightBitCode::E4M3, &[ActivationGrid::E4M3])]
    {
        let scales = [InputScales::Token, InputScales::Tensor, InputScales::Static];
        let activations = grids.iter().flat_map(|&grid| scales.map(|scales| Some(ActivationSpec { grid, scales })));
        for activations in activations.chain([None]) {
            for symmetric in [true, code == EightBitCode::E4M3] {
                let spec = EightBitSpec { symmetric, ..EightBitSpec::new(code, activations) };
                let config = Config::from_json(&Config::eight_bit(&spec).to_json("a:1")).unwrap();
                assert_eq!(config.storage("a.b").unwrap(), Some(Storage::EightBit(spec)));
                let matrix = matrix(code, !symmetric);
                let zero = if activations.is_some_and(|a| a.grid == ASYMMETRIC) { scale.zero } else { 0 };
                let input = spec.is_static().then_some(StaticScales { zero, ..scale });
                config.check_eight_bit("a.b", &matrix, input.as_ref()).unwrap();
                let tensors = EightBitModule::pack(&matrix, &spec, input.as_ref()).into_tensors();
                let stored = stored(&tensors);
                assert_eq!(stored.unpack(&spec).unwrap(), matrix);
                let expected = activations.map(|a| ActivationQuantizer {
                    grid: a.grid,
                    scales: match a.scales {
                        InputScales::Token => ActivationScales::Token,
                        InputScales::Tensor => ActivationScales::Tensor,
                        InputScales::Static => ActivationScales::Static(input.unwrap()),
                    },
                });
                assert_eq!(stored.activations(&spec).unwrap(), expected);
            }
        }
    }
    // One scale for all rows, in any shape.
    let one = EightBitSpec { per_row: false, symmetric: false, ..EightBitSpec::new(EightBitCode::Int8, None) };
    let mut parts = matrix(EightBitCode::Int8, false).into_parts();
    (parts.scales, parts.zeros) = (vec![0.5; 3], Some(vec![7; 3]));
    let whole = EightBitMatrix::from_parts(parts).unwrap();
    let mut tensors = EightBitModule::pack(&whole, &one, None).into_tensors();
    for shape in [vec![1], vec![], vec![1, 1]] {
        tensors[1].shape.clone_from(&shape);
        tensors[2].shape = shape;
        assert_eq!(stored(&tensors).unpack(&one).unwrap(), whole);
    }
}

#[test]
fn schemes_that_are_refused() {
    let token = ActivationSpec { grid: INT8, scales: InputScales::Token };
    let int8 = Config::eight_bit(&EightBitSpec::new(EightBitCode::Int8, Some(token))).to_json("a:1");
    let floats = ActivationSpec { grid: ActivationGrid::E4M3, scales: InputScales::Token };
    let fp8 = Config::eight_bit(&EightBitSpec::new(EightBitCode::E4M3, Some(floats))).to_json("a:1");
    for (base, part, key, value, message) in [
        (
            &int8,
            "weights",
            "type",
            json!("float"),
            "`config_groups: group_0: weights: type`: expected int, as format int-quantized has, found float",
        ),
        (&fp8, "weights", "type", json!("int"), "expected float, as format float-quantized has, found int"),
        (
            &int8,
            "input_activations",
            "type",
            json!("float"),
            "input_activations: type` float is not supported: int, the type",
        ),
        (
            &fp8,
            "input_activations",
            "type",
            json!("int"),
            "input_activations: type` int is not supported: float, the type",
        ),
        (&int8, "weights", "num_bits", json!(4), "weights: num_bits` 4"),
        (&int8, "input_activations", "num_bits", json!(4), "input_activations: num_bits` 4"),
        (&int8, "weights", "strategy", json!("block"), "block_structure"),
        (&int8, "weights", "dynamic", json!(true), "weights: dynamic"),
        (&int8, "input_activations", "dynamic", json!(false), "strategy` Token, static is not supported"),
        (&int8, "input_activations", "strategy", json!("channel"), "strategy` Channel, dynamic"),
        (&fp8, "weights", "symmetric", json!(false), "weights: symmetric"),
        (&fp8, "input_activations", "symmetric", json!(false), "input_activations: symmetric"),
    ] {
        let mut json = base.clone();
        json["config_groups"]["group_0"][part][key] = value;
        let error = Config::from_json(&json).and_then(|config| config.check_groups()).unwrap_err().to_string();
        assert!(error.contains(message), "{error} ({message})");
    }
    let config = Config::from_json(&int8).unwrap();
    let whole = matrix(EightBitCode::Int8, false);
    let scale = StaticScales { scale: 1.0, zero: 0 };
    for (name, matrix, input, message) in [
        ("lm_head", &whole, None, "full precision"),
        ("a", &matrix(EightBitCode::E4M3, false), None, "the other"),
        ("a", &matrix(EightBitCode::Int8, true), None, "zero points"),
        ("a", &whole, Some(&scale), "does not say is static"),
    ] {
        let error = config.check_eight_bit(name, matrix, input).unwrap_err();
        assert!(matches!(&error, CheckpointError::NotStorable { why } if why.contains(message)), "{error}");
    }
}

type Change = fn(&mut Vec<PackedTensor>);

#[test]
fn tensors_that_are_refused() {
    let spec = EightBitSpec {
        symmetric: false,
        ..EightBitSpec::new(EightBitCode::Int8, Some(ActivationSpec { grid: ASYMMETRIC, scales: InputScales::Static }))
    };
    let input = StaticScales { scale: 2.0, zero: 3 };
    let good = EightBitModule::pack(&matrix(EightBitCode::Int8, true), &spec, Some(&input)).into_tensors();
    stored(&good).unpack(&spec).unwrap();
    let cases: [(&str, Change); 12] = [
        ("`weight`: expected type I8, found F8_E4M3", |t| t[0].dtype = DType::F8E4M3),
        ("`weight`: expected 2 dimensions", |t| t[0].shape = vec![12]),
        ("`weight`: expected the bytes", |t| t[0].data.truncate(11)),
        ("`weight_scale`: expected shape [4, 1], found [3, 1]", |t| t[0].shape = vec![4, 3]),
        ("`weight_scale`: expected type F32 or F16 or BF16, found I8", |t| t[1].dtype = DType::I8),
        ("scale of row 1 is NaN", |t| t[1].data[4..8].fill(0xff)),
        ("`weight_zero_point`: expected it", |t| drop(t.remove(2))),
        ("`weight_zero_point`: expected shape [3, 1], found [1, 3]", |t| t[2].shape = vec![1, 3]),
        ("`input_scale`: expected it, as the config says static activations, found nothing", |t| drop(t.remove(3))),
        ("`input_scale`: expected a positive number, found 0", |t| t[3].data.fill(0)),
        ("`input_scale`: expected shape [1, 1], found [0, 1]", |t| (t[3].shape, t[3].data) = (vec![0], vec![])),
        ("`input_zero_point`: expected it, as the config says static asymmetric", |t| drop(t.pop())),
    ];
    for (message, change) in cases {
        let mut tensors = good.clone();
        change(&mut tensors);
        let error = stored(&tensors).unpack(&spec).unwrap_err().to_string();
        assert!(error.contains(message), "{error} ({message})");
    }
    let floats = EightBitSpec::new(EightBitCode::E4M3, None);
    let mut tensors = EightBitModule::pack(&matrix(EightBitCode::E4M3, false), &floats, None).into_tensors();
    tensors[0].data[5] = 0xff;
    let error = stored(&tensors).unpack(&floats).unwrap_err().to_string();
    assert!(error.contains("code at row 1, column 1 is NaN"), "{error}");
}
