//! Directories that AutoAWQ 0.2.9 and auto-round 0.16.1 wrote: every stored word comes back, and the weights are those of an independent reader.

use awq::checkpoint::{AwqConfig, DType, ModuleFacts, PackedModule, StoredModule, StoredTensor, Verdict, loads_in};
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
fn with_modules(dir: &Path, f: impl FnOnce(&AwqConfig, &[(String, StoredModule<'_>)])) {
    let config = AwqConfig::from_json(&json(&dir.join("config.json"))["quantization_config"]).unwrap();
    let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let views: Vec<_> = file.iter().collect();
    let stored = |name: String| {
        let (_, view) = views.iter().find(|(n, _)| *n == name).unwrap();
        let dtype = match view.dtype() {
            Dtype::I32 => DType::I32,
            Dtype::F16 => DType::F16,
            other => panic!("{name}: {other}"),
        };
        StoredTensor { dtype, shape: view.shape(), data: view.data() }
    };
    let mut names: Vec<&str> = views.iter().filter_map(|(n, _)| n.strip_suffix(".qweight")).collect();
    names.sort_unstable();
    let modules: Vec<_> = names
        .iter()
        .map(|m| {
            let [qweight, qzeros, scales] =
                ["qweight", "qzeros", "scales"].map(|suffix| stored(format!("{m}.{suffix}")));
            (m.to_string(), StoredModule { qweight, qzeros, scales })
        })
        .collect();
    f(&config, &modules);
}

#[test]
fn words_and_weights() {
    let Some(root) = checkpoints() else { return };
    let golden = json(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/dequantized.json"));
    let directories = golden["directories"].as_object().unwrap();
    assert_eq!(directories.len(), 3);
    for (name, facts) in directories {
        with_modules(&root.join(name), |config, modules| {
            let mut hash = Sha256::new();
            for (module, stored) in modules {
                let spec = config.module(module).unwrap();
                let matrix = stored.unpack(&spec).unwrap();
                config.check(module, &matrix).unwrap();
                let packed = PackedModule::pack(&matrix).unwrap().into_tensors();
                for (tensor, original) in packed.iter().zip([stored.qweight, stored.qzeros, stored.scales]) {
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
}

#[test]
fn who_loads_them() {
    let Some(root) = checkpoints() else { return };
    for (name, vllm) in
        [("autoawq_b4_g128", "Marlin"), ("awq_b4_g128_asym", "Marlin"), ("awq_b4_g64_sym", "its plain AWQ kernel")]
    {
        with_modules(&root.join(name), |config, modules| {
            let facts = |(name, stored): &(String, StoredModule<'_>)| {
                let [out_features, in_features] = stored.shape(&config.module(name).unwrap()).unwrap();
                ModuleFacts { name: name.clone(), out_features, in_features }
            };
            let verdicts = loads_in(config, &modules.iter().map(facts).collect::<Vec<_>>(), &[]);
            assert!(matches!(verdicts.transformers, Verdict::Loads { .. }), "{name}: {verdicts:?}");
            let Verdict::Loads { how } = &verdicts.vllm else { panic!("{name}: {verdicts:?}") };
            assert!(how.starts_with(vllm), "{name}: {how}");
        });
    }
}
