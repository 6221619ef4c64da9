//! Directories that auto-round and GPTQModel wrote: every stored word comes back, and the weights are those of an independent reader.

use gptq::checkpoint::{
    DType, GptqConfig, ModuleFacts, PackedModule, StoredModule, StoredTensor, Verdict, ZeroPoint, loads_in,
};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

fn checkpoints() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden/checkpoints");
    if path.exists() {
        return Some(path);
    }
    println!("skipped: shared/golden/checkpoints is not beside the workspace");
    None
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Calls `f` with the config and the modules of a directory, by name.
fn with_modules(dir: &Path, f: impl FnOnce(&GptqConfig, &[(String, StoredModule<'_>)])) {
    let config = GptqConfig::from_json(&json(&dir.join("config.json"))["quantization_config"]).unwrap();
    let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let views: Vec<_> = file.iter().collect();
    let stored = |name: &str| {
        let (_, view) = views.iter().find(|(n, _)| *n == name)?;
        let dtype = match view.dtype() {
            Dtype::I32 => DType::I32,
            Dtype::F16 => DType::F16,
            other => panic!("{name}: {other}"),
        };
        Some(StoredTensor { dtype, shape: view.shape(), data: view.data() })
    };
    let mut names: Vec<&str> = views.iter().filter_map(|(n, _)| n.strip_suffix(".qweight")).collect();
    names.sort_unstable();
    let modules: Vec<_> = names
        .iter()
        .map(|m| {
            let part = |suffix: &str| stored(&format!("{m}.{suffix}"));
            let (qweight, qzeros, scales) = (part("qweight"), part("qzeros"), part("scales"));
            let (qweight, qzeros, scales) = (qweight.unwrap(), qzeros.unwrap(), scales.unwrap());
            (m.to_string(), StoredModule { qweight, qzeros, scales, g_idx: part("g_idx") })
        })
        .collect();
    f(&config, &modules);
}

#[test]
fn words_and_weights() {
    let Some(root) = checkpoints() else { return };
    let golden = json(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/dequantized.json"));
    let directories = golden["directories"].as_object().unwrap();
    assert_eq!(directories.len(), 7);
    let mut ordered = 0;
    for (name, facts) in directories {
        with_modules(&root.join(name), |config, modules| {
            let mut hash = Sha256::new();
            for (module, stored) in modules {
                let spec = config.module(module).unwrap();
                let matrix = stored.unpack(&spec, config.zero_point).unwrap();
                config.check(module, &matrix).unwrap();
                ordered += usize::from(matrix.g_idx().is_some());
                assert_eq!(stored.order(&spec).unwrap().as_deref(), matrix.g_idx());
                // AutoGPTQ's successors write the trivial `g_idx` too, so every byte is compared.
                let convention = stored.zero_point(&spec, config.zero_point).unwrap();
                let packed = PackedModule::pack(&matrix, convention).unwrap().into_tensors();
                let originals = [stored.qweight, stored.qzeros, stored.scales, stored.g_idx.unwrap()];
                for (tensor, original) in packed.iter().zip(originals) {
                    assert_eq!(tensor.shape, original.shape, "{name} {module}.{}", tensor.suffix);
                    assert_eq!(tensor.dtype, original.dtype);
                    assert!(tensor.data == original.data, "{name} {module}.{} differs", tensor.suffix);
                }
                let mut weights = vec![0.0f32; matrix.codes().len()];
                matrix.dequantize_into(&mut weights).unwrap();
                weights.iter().for_each(|w| hash.update(w.to_le_bytes()));
            }
            assert_eq!(modules.len() as u64, facts["modules"].as_u64().unwrap());
            let hash: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(hash, facts["sha256"].as_str().unwrap(), "{name}");
        });
    }
    assert!(ordered > 0, "one directory has groups in the order of activations");
}

#[test]
fn a_directory_that_declares_the_wrong_convention_is_read_rightly() {
    let Some(root) = checkpoints() else { return };
    for (name, asymmetric) in
        [("gptqmodel_b4_g128_sym", false), ("gptq_b8_g32_sym", false), ("gptqmodel_b3_g64_asym", true)]
    {
        with_modules(&root.join(name), |config, modules| {
            let (module, stored) = &modules[0];
            let spec = config.module(module).unwrap();
            let right = stored.unpack(&spec, config.zero_point).unwrap();
            let other = if config.zero_point == ZeroPoint::AsIs { ZeroPoint::MinusOne } else { ZeroPoint::AsIs };
            // Asymmetric fields do not tell.
            assert_eq!(stored.unpack(&spec, other).unwrap() == right, !asymmetric, "{name}");
        });
    }
}

#[test]
fn who_loads_them() {
    let Some(root) = checkpoints() else { return };
    for (name, transformers, vllm) in [
        ("gptq_b4_g128_sym", true, "Marlin"),
        ("gptq_b8_g32_sym", true, "Marlin"),
        ("gptq_b3_g64_asym", false, "exllama"),
        ("gptqmodel_b3_g64_asym", true, "exllama"),
        ("gptqmodel_b4_g128_sym", true, "Marlin"),
        ("gptqmodel_b4_g32_sym_act", true, "Marlin"),
    ] {
        with_modules(&root.join(name), |config, modules| {
            let facts: Vec<ModuleFacts> = modules
                .iter()
                .map(|(module, stored)| {
                    let spec = config.module(module).unwrap();
                    let [out_features, in_features] = stored.shape(&spec).unwrap();
                    ModuleFacts {
                        name: module.clone(),
                        out_features,
                        in_features,
                        spec,
                        zero_point: stored.zero_point(&spec, config.zero_point).unwrap(),
                        g_idx: stored.order(&spec).unwrap(),
                    }
                })
                .collect();
            let verdicts = loads_in(config, &facts, &[]);
            assert_eq!(matches!(verdicts.transformers, Verdict::Loads { .. }), transformers, "{name}: {verdicts:?}");
            let Verdict::Loads { how } = &verdicts.vllm else { panic!("{name}: {verdicts:?}") };
            assert!(how.starts_with(vllm), "{name}: {how}");
        });
    }
}
