//! GPTQ directories as they are written: their content, resuming, and what happens to a target that is there.

use gptq::checkpoint::{DynamicRule, GptqConfig, Overrides};
use half::f16;
use quant_core::affine::{AffineMatrix, AffineParts, Bits};
use quant_runtime::checkpoint::HfDir;
use quant_runtime::hf_writer::{OwnedTensor, WriteOptions};
use quant_runtime::packed_dir::PackedDirWriter;
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn pocket() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/pocket-6m")
}

fn source() -> Arc<HfDir> {
    Arc::new(HfDir::open(pocket()).unwrap())
}

fn bits(b: u8) -> Bits {
    Bits::new(b).unwrap()
}

fn config() -> GptqConfig {
    GptqConfig::new(bits(4), Some(64), true)
}

/// Codes that differ from module to module.
fn matrix(source: &HfDir, name: &str, bits: Bits) -> AffineMatrix {
    let entry = source.entry(&format!("{name}.weight")).unwrap();
    let &[out_features, in_features] = entry.shape else { panic!("{name}") };
    let groups = in_features.div_ceil(64);
    let seed: usize = name.bytes().map(usize::from).sum();
    AffineMatrix::from_parts(AffineParts {
        out_features,
        in_features,
        bits,
        group_size: 64,
        codes: (0..out_features * in_features).map(|i| (i * 7 + i / 13 + seed) as u8 & bits.max_code()).collect(),
        scales: (0..out_features * groups).map(|i| f16::from_f32(0.01 + (i % 17) as f32 / 1000.0)).collect(),
        zeros: vec![u16::from(bits.middle()); out_features * groups],
        g_idx: None,
    })
    .unwrap()
}

const MODULES: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

fn write_layers(writer: &mut PackedDirWriter, source: &HfDir, layers: std::ops::Range<u32>) -> usize {
    let mut made = 0;
    for layer in layers {
        if writer.is_done(layer) {
            continue;
        }
        let mut part = writer.part(layer);
        for module in MODULES {
            let name = format!("model.layers.{layer}.{module}");
            part.module(&name, &matrix(source, &name, bits(4)), None).unwrap();
        }
        assert!(part.bytes() > 0);
        writer.commit(part, &format!("layer {layer}")).unwrap();
        made += 1;
    }
    made
}

/// Every file of a directory.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let items = std::fs::read_dir(dir).unwrap().map(|item| item.unwrap());
    items.map(|i| (i.file_name().into_string().unwrap(), std::fs::read(i.path()).unwrap())).collect()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|i| i.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn one_file_or_shards() {
    let dir = tempfile::tempdir().unwrap();
    let source = source();
    let mut all = Vec::new();
    for (name, max_shard_bytes, shards) in [("one", 1 << 30, 1), ("many", 1 << 20, 6)] {
        let out = dir.path().join(name);
        let options = WriteOptions { max_shard_bytes, ..WriteOptions::default() };
        let mut writer = PackedDirWriter::create(source.clone(), &out, config(), &options).unwrap();
        write_layers(&mut writer, &source, 0..6);
        let written = writer.finish().unwrap();
        assert_eq!((written.shards, written.path.as_path()), (shards, out.as_path()));
        let bytes: u64 = files(&out).iter().filter(|f| f.0.ends_with(".safetensors")).map(|f| f.1.len() as u64).sum();
        assert_eq!(written.bytes, bytes);

        let hf = HfDir::open(&out).unwrap();
        assert_eq!(hf.entries().count(), written.tensors);
        let mut tensors = BTreeMap::new();
        for entry in hf.entries() {
            // Python's readers view the bytes as numbers where they lie.
            assert!(entry.offset.is_multiple_of(entry.dtype.bitsize() as u64 / 8), "{}", entry.name);
            tensors.insert(entry.name.to_owned(), (entry.dtype, entry.shape.to_vec(), entry.data.to_vec()));
        }
        all.push(tensors);
        let here = files(&out);
        let quantization: serde_json::Value = serde_json::from_slice(&here["quantize_config.json"]).unwrap();
        assert_eq!(hf.config_json()["quantization_config"], quantization);
        assert_eq!(
            GptqConfig::from_json(&quantization).unwrap().quantizer,
            [format!("quant:{}", env!("CARGO_PKG_VERSION"))]
        );
        assert_eq!(quantization.get("dynamic"), None, "every linear is quantized");
        assert_eq!(here["tokenizer.json"], std::fs::read(pocket().join("tokenizer.json")).unwrap());
        // The rest of config.json is the source's, in its order.
        let mut config = hf.config_json().clone();
        config.as_object_mut().unwrap().shift_remove("quantization_config");
        assert_eq!(config.to_string(), source.config_json().to_string());
    }
    assert_eq!(names(dir.path()), ["many", "one"], "no folder of parts stays");
    assert_eq!(all[0], all[1]);
    let many = files(&dir.path().join("many"));
    assert!(many.contains_key("model-00006-of-00006.safetensors") && !many.contains_key("model.safetensors"));
    let index: serde_json::Value = serde_json::from_slice(&many["model.safetensors.index.json"]).unwrap();
    assert_eq!(index["weight_map"].as_object().unwrap().len(), all[0].len());
    assert_eq!(index["metadata"]["total_size"], all[0].values().map(|t| t.2.len()).sum::<usize>());
    let header = &files(&dir.path().join("one"))["model.safetensors"];
    assert!(String::from_utf8_lossy(&header[8..100]).starts_with(r#"{"__metadata__":{"format":"pt"}"#));

    // Quantized modules in place of their weights, the others as they were.
    let tensors = &all[0];
    for entry in source.entries() {
        let module = entry.name.strip_suffix(".weight").unwrap();
        let quantized = tensors.contains_key(&format!("{module}.qweight"));
        assert_eq!(quantized, entry.name.contains("_proj"), "{module}");
        assert_eq!(tensors.contains_key(entry.name), !quantized, "{module}");
        if !quantized {
            assert_eq!(tensors[entry.name].2, entry.data);
        }
    }
    assert_eq!(tensors["model.layers.3.mlp.down_proj.qweight"].1, [768 * 4 / 32, 256]);
    let zeros = &tensors["model.layers.3.mlp.down_proj.qzeros"];
    assert!(zeros.0 == Dtype::I32 && zeros.2.iter().all(|b| *b == 0x77));
}

#[test]
fn a_run_that_was_cut_short_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let source = source();
    let write = |out: &Path, options: &WriteOptions, layers: std::ops::Range<u32>, finish: bool| {
        let mut writer = PackedDirWriter::create(source.clone(), out, config(), options).unwrap();
        let made = write_layers(&mut writer, &source, layers);
        let notes: Vec<String> = writer.parts().map(|(i, note)| format!("{i}: {note}")).collect();
        let scratch = writer.scratch("activations");
        let kept = std::fs::read(&scratch).ok();
        std::fs::write(&scratch, b"x").unwrap();
        if finish {
            writer.finish().unwrap();
        }
        (made, notes.len(), notes.last().cloned(), kept)
    };
    let options = |fingerprint: &str| WriteOptions { fingerprint: fingerprint.into(), ..WriteOptions::default() };
    let (whole, out) = (dir.path().join("whole"), dir.path().join("out"));
    write(&whole, &options("a"), 0..6, true);

    assert_eq!(write(&out, &options("a"), 0..2, false), (2, 2, Some("1: layer 1".into()), None));
    let parts = dir.path().join(".out.part");
    assert!(!out.exists() && parts.exists());
    // Cut short while a part and the finished files were being written.
    std::fs::write(parts.join(".quant-abc.part"), b"half").unwrap();
    std::fs::create_dir(parts.join("out")).unwrap();
    std::fs::write(parts.join("out/model.safetensors"), b"half").unwrap();
    assert_eq!(write(&out, &options("a"), 0..3, false), (1, 3, Some("2: layer 2".into()), Some(b"x".to_vec())));
    // A part that is damaged is made anew.
    std::fs::write(parts.join("part-00001.safetensors"), b"damaged").unwrap();
    assert_eq!(write(&out, &options("a"), 0..6, true).0, 4);
    assert_eq!(files(&out), files(&whole), "byte by byte");
    assert_eq!(names(dir.path()), ["out", "whole"]);

    // Parts of another fingerprint, config or wish are not taken over.
    let other = dir.path().join("other");
    write(&other, &options("a"), 0..2, false);
    assert_eq!(write(&other, &options("b"), 0..2, false).0, 2);
    assert_eq!(write(&other, &options("b"), 0..2, false).0, 0);
    assert_eq!(write(&other, &WriteOptions { resume: false, ..options("b") }, 0..2, false).0, 2);
    let mut changed = config();
    changed.true_sequential = false;
    let writer = PackedDirWriter::create(source.clone(), &other, changed, &options("b")).unwrap();
    assert_eq!(writer.parts().count(), 0);
}

#[test]
fn targets_that_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let source = source();
    let path = |name: &str| dir.path().join(name);
    let create = |out: &Path, overwrite: bool| {
        PackedDirWriter::create(source.clone(), out, config(), &WriteOptions { overwrite, ..WriteOptions::default() })
    };
    std::fs::write(path("file"), b"x").unwrap();
    std::fs::create_dir_all(path("full/sub")).unwrap();
    std::fs::create_dir(path("empty")).unwrap();
    std::fs::create_dir(path("model")).unwrap();
    std::fs::write(path("model/config.json"), b"{}").unwrap();
    for (out, overwrite, words) in [
        (path("file"), true, "is a file"),
        (path("full"), false, "is not empty"),
        (path("full"), true, "other things than a model"),
        (path("model"), false, "is not empty"),
        (pocket(), true, "holds the model that is read"),
        (pocket().join(".."), true, "holds the model that is read"),
        (path("x/.."), false, "not the name"),
    ] {
        let message = create(&out, overwrite).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
    for (name, overwrite) in [("empty", false), ("model", true)] {
        let out = path(name);
        let before = names(&out);
        let mut writer = create(&out, overwrite).unwrap();
        let busy = create(&out, overwrite).unwrap_err().to_string();
        assert!(busy.contains("another run is writing"), "{busy}");
        write_layers(&mut writer, &source, 0..6);
        assert_eq!(names(&out), before, "untouched until all is done");
        writer.finish().unwrap();
        assert!(HfDir::open(&out).unwrap().entry("model.layers.0.mlp.up_proj.qweight").is_some());
    }
    assert_eq!(names(dir.path()), ["empty", "file", "full", "model"]);

    // Cut short between the two renames that replace a model: the old one comes back.
    drop(create(&path("model"), true).unwrap());
    std::fs::rename(path("model"), path(".model.part/replaced")).unwrap();
    drop(create(&path("model"), true).unwrap());
    assert!(path("model/config.json").exists());
    // Quantized already.
    let quantized = Arc::new(HfDir::open(path("model")).unwrap());
    let message = PackedDirWriter::create(quantized, &path("again"), config(), &WriteOptions::default()).unwrap_err();
    assert!(message.to_string().contains("quantized already"), "{message}");
}

#[test]
fn what_stays_dense_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let source = source();
    let mut config = config();
    let eight = Overrides { bits: Some(bits(8)), ..Overrides::default() };
    config.dynamic = vec![
        DynamicRule::overriding(r".*\.0\.mlp\.down_proj", eight).unwrap(),
        DynamicRule::skip(r".*\.[1-5]\.").unwrap(),
    ];
    let out = dir.path().join("out");
    let mut writer = PackedDirWriter::create(source.clone(), &out, config, &WriteOptions::default()).unwrap();
    let mut part = writer.part(0);
    let up = "model.layers.0.mlp.up_proj";
    let down = "model.layers.0.mlp.down_proj";
    let (four, of_down) = (matrix(&source, up, bits(4)), matrix(&source, down, bits(8)));
    part.module(down, &of_down, Some(&[0.5; 256])).unwrap();
    part.module(up, &four, Some(&vec![1e9; 768])).unwrap();
    for (name, matrix, bias, words) in [
        (down, &matrix(&source, down, bits(4)), None, "4 bits, 8 in the config"),
        ("model.layers.1.mlp.up_proj", &four, None, "full precision"),
        ("model.layers.9.mlp.up_proj", &four, None, "no such module"),
        ("model.layers.0.mlp.down_proj", &four, None, "shape [768, 256]"),
        (up, &four, Some(&[0.0f32; 3][..]), "3 values for the 768"),
    ] {
        let message = part.module(name, matrix, bias).unwrap_err().to_string();
        assert!(message.contains(words) && message.contains("pocket-6m"), "{message}");
    }
    let norm =
        OwnedTensor { name: "model.norm.weight".into(), dtype: Dtype::F32, shape: vec![256], data: vec![0; 1024] };
    part.dense(norm.clone());
    writer.commit(part, "").unwrap();

    // A tensor twice, and one of the wrong length.
    let mut again = writer.part(1);
    again.dense(norm.clone());
    assert!(writer.commit(again, "").unwrap_err().to_string().contains("`model.norm.weight` is written twice"));
    let mut short = writer.part(1);
    short.dense(OwnedTensor { name: "x".into(), data: vec![0; 1023], ..norm });
    assert!(writer.commit(short, "").unwrap_err().to_string().contains("1023 bytes"));

    writer.finish().unwrap();
    let hf = HfDir::open(&out).unwrap();
    let bias = hf.entry("model.layers.0.mlp.down_proj.bias").unwrap();
    assert_eq!((bias.dtype, bias.data), (Dtype::F16, f16::from_f32(0.5).to_le_bytes().repeat(256).as_slice()));
    assert_eq!(hf.entry("model.layers.0.mlp.up_proj.bias").unwrap().dtype, Dtype::F32, "F16 has no 1e9");
    assert_eq!(hf.entry("model.norm.weight").unwrap().dtype, Dtype::F32);
    let config = GptqConfig::from_json(&hf.config_json()["quantization_config"]).unwrap();
    for layer in 0..6 {
        for module in MODULES {
            let name = format!("model.layers.{layer}.{module}");
            assert_eq!(config.module(&name).is_some(), [up, down].contains(&name.as_str()), "{name}");
        }
    }
    assert_eq!(config.dynamic.len(), 2 + 5, "five of layer 0 by name, the others by the rule that was there");
}
