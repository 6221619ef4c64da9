//! GPTQ directories that are not what they should be: each single defect gives an error that names it.

use gptq::checkpoint::GptqConfig;
use half::f16;
use quant_core::affine::{AffineMatrix, AffineParts, Bits};
use quant_runtime::checkpoint::HfDir;
use quant_runtime::hf_writer::WriteOptions;
use quant_runtime::packed_dir::PackedDirWriter;
use quant_runtime::{Checkpoint, Device, LogitRows, Model};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn pocket() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/pocket-6m")
}

const MODULE: &str = "model.layers.0.mlp.down_proj";

/// A directory with one quantized module.
fn good(out: &Path) {
    let source = Arc::new(HfDir::open(pocket()).unwrap());
    let bits = Bits::new(4).unwrap();
    let config = GptqConfig::new(bits, Some(128), true);
    let mut writer = PackedDirWriter::create(source, out, config, &WriteOptions::default()).unwrap();
    let matrix = AffineMatrix::from_parts(AffineParts {
        out_features: 256,
        in_features: 768,
        bits,
        group_size: 128,
        codes: (0..256 * 768).map(|i| (i * 7 % 16) as u8).collect(),
        scales: vec![f16::from_f32(0.01); 256 * 6],
        zeros: vec![8; 256 * 6],
        g_idx: None,
    });
    let mut part = writer.part(0);
    part.module(MODULE, &matrix.unwrap(), None).unwrap();
    writer.commit(part, "").unwrap();
    writer.finish().unwrap();
}

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// Copies a directory, its config and its tensors changed.
fn changed(from: &Path, to: &Path, change: impl FnOnce(&mut Value, &mut Tensors)) {
    std::fs::create_dir(to).unwrap();
    let bytes = std::fs::read(from.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Tensors =
        file.iter().map(|(n, t)| (n.to_owned(), (t.dtype(), t.shape().to_vec(), t.data().to_vec()))).collect();
    let mut config: Value = serde_json::from_slice(&std::fs::read(from.join("config.json")).unwrap()).unwrap();
    change(&mut config, &mut tensors);
    std::fs::write(to.join("config.json"), config.to_string()).unwrap();
    let views = tensors.iter().map(|(n, (d, s, b))| (n.clone(), TensorView::new(*d, s.clone(), b).unwrap()));
    safetensors::serialize_to_file(views, None, &to.join("model.safetensors")).unwrap();
}

fn load(path: &Path) -> quant_runtime::Result<Model> {
    Model::load(&Checkpoint::open(path)?, &Device::Cpu)
}

fn logits(path: &Path) -> Vec<f32> {
    let model = load(path).unwrap();
    let rows = model.forward(&[1, 5, 9], &mut model.new_cache(), LogitRows::All).unwrap();
    rows.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn each_defect_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let good_dir = dir.path().join("good");
    good(&good_dir);
    let name = |suffix: &str| format!("{MODULE}.{suffix}");
    let cases: Vec<(&str, Box<dyn FnOnce(&mut Value, &mut Tensors)>, &[&str])> = vec![
        (
            "bits",
            Box::new(|c, _| c["quantization_config"]["bits"] = json!(8)),
            &["model.safetensors", MODULE, "`qweight`", "[192, 256]", "[96, 256]"],
        ),
        ("no_bits", Box::new(|c, _| c["quantization_config"]["bits"] = Value::Null), &["config.json", "`bits`"]),
        (
            "group_size",
            Box::new(|c, _| c["quantization_config"]["group_size"] = json!(64)),
            &[MODULE, "`scales`", "[12, 256]", "[6, 256]"],
        ),
        (
            "other_method",
            Box::new(|c, _| c["quantization_config"]["quant_method"] = json!("aqlm")),
            &["config.json", "`aqlm`"],
        ),
        (
            "skipped",
            Box::new(|c, _| c["quantization_config"]["dynamic"] = json!({"-:.*down_proj": {}})),
            &[MODULE, "full precision"],
        ),
        ("no_zeros", Box::new(|_, t| drop(t.remove(&name("qzeros")))), &["down_proj.qzeros", "nothing"]),
        (
            "both",
            Box::new(|_, t| drop(t.insert(name("weight"), (Dtype::F16, vec![1], vec![0; 2])))),
            &["down_proj.weight", "none beside `qweight`"],
        ),
        (
            "words",
            Box::new(|_, t| t.get_mut(&name("qweight")).unwrap().0 = Dtype::U32),
            &["down_proj.qweight", "I32", "found U32"],
        ),
        (
            "order",
            Box::new(|_, t| t.get_mut(&name("g_idx")).unwrap().2[3] = 0x80),
            &[MODULE, "`g_idx`", "groups below 6", "index 0"],
        ),
        (
            "scale",
            Box::new(|_, t| t.get_mut(&name("scales")).unwrap().2[1] = 0x7c),
            &[MODULE, "scale of row 0, group 0"],
        ),
        (
            "narrow",
            Box::new(|_, t| {
                let words = t.get_mut(&name("qweight")).unwrap();
                (words.1, words.2) = (vec![95, 256], vec![0; 95 * 256 * 4]);
            }),
            &[MODULE, "`qweight`", "[96, 256]", "[95, 256]"],
        ),
        ("other_shape", Box::new(|c, _| c["intermediate_size"] = json!(1024)), &["mlp.", "1024"]),
    ];
    for (case, change, words) in cases {
        let path = dir.path().join(case);
        changed(&good_dir, &path, change);
        let message = load(&path).unwrap_err().to_string();
        for word in words {
            assert!(message.contains(word), "{case}: {message}: {word}");
        }
    }
    // Cut short at any place of the header or the data.
    let bytes = std::fs::read(good_dir.join("model.safetensors")).unwrap();
    for cut in [0, 7, 100, bytes.len() / 2, bytes.len() - 1] {
        let path = dir.path().join(format!("cut{cut}"));
        changed(&good_dir, &path, |_, _| {});
        std::fs::write(path.join("model.safetensors"), &bytes[..cut]).unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("model.safetensors"));
    }
}

#[test]
fn what_may_differ_does_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    let good_dir = dir.path().join("good");
    good(&good_dir);
    let expected = logits(&good_dir);
    let name = |suffix: &str| format!("{MODULE}.{suffix}");
    let cases: Vec<(&str, Box<dyn FnOnce(&mut Value, &mut Tensors)>)> = vec![
        ("no_order", Box::new(|_, t| drop(t.remove(&name("g_idx"))))),
        // Declared as v2, stored as v1, and the other way round.
        ("says_v2", Box::new(|c, _| c["quantization_config"]["checkpoint_format"] = json!("gptq_v2"))),
        ("is_v2", Box::new(|_, t| t.get_mut(&name("qzeros")).unwrap().2.fill(0x88))),
        (
            "wide_scales",
            Box::new(|_, t| {
                let scales = t.get_mut(&name("scales")).unwrap();
                let wide = scales.2.chunks(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32());
                (scales.0, scales.2) = (Dtype::F32, wide.flat_map(f32::to_le_bytes).collect());
            }),
        ),
    ];
    for (case, change) in cases {
        let path = dir.path().join(case);
        changed(&good_dir, &path, change);
        assert_eq!(logits(&path), expected, "{case}");
    }
    // The config in a file of its own, as AutoGPTQ keeps it.
    let path = dir.path().join("own_file");
    changed(&good_dir, &path, |config, _| {
        let config = config.as_object_mut().unwrap().remove("quantization_config").unwrap();
        std::fs::write(path.join("quantize_config.json"), config.to_string()).unwrap();
    });
    assert_eq!(logits(&path), expected);
    assert_ne!(logits(&pocket()), expected);
}
