//! Models whose weights were moved into the products' layout compute what they compute from the file.

use candle_core::Device;
use gguf_format::mix::{FileType, MixOptions};
use quant_runtime::convert::ModelSource;
use quant_runtime::quantize::{QuantizeOptions, QuantizePlan};
use quant_runtime::{Checkpoint, Model};
use quant_tests::{bundled, divergences, load, logits, logits_one_by_one, mean, shared};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

fn tokens() -> Vec<u32> {
    (0..40u32).map(|i| i * 37 % 900 + 3).collect()
}

/// Mean divergence and the largest difference of logits.
fn apart(model: &Model, a: &[f32], b: &[f32]) -> (f64, f32) {
    let difference = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    (mean(&divergences(a, b, model.config().vocab_size)).0, difference)
}

fn check(name: &str, path: &Path) {
    let tokens = tokens();
    let mut model = load(path);
    let exact = logits(&model, &tokens);
    model.set_integer_products(true);
    let (together, singles) = (logits(&model, &tokens), logits_one_by_one(&model, &tokens));
    let model = model.repack().unwrap();
    // The same rounding of activations (in place without VNNI there are more single tokens), sums in another order.
    for (way, before, after) in
        [("together", &together, logits(&model, &tokens)), ("one by one", &singles, logits_one_by_one(&model, &tokens))]
    {
        let (kl, difference) = apart(&model, before, &after);
        println!("{name}, {way}: mean KL {kl:.1e}, largest difference {difference:.1e}");
        assert!(kl < 2e-6 && difference < 0.05, "{name}, {way}: {kl} {difference}");
    }
    // Layer by layer at load it is the same.
    let mut at_load = Model::load_repacked(&Checkpoint::open(path).unwrap(), &Device::Cpu).unwrap();
    at_load.set_integer_products(true);
    assert_eq!(logits_one_by_one(&model, &tokens), logits_one_by_one(&at_load, &tokens), "{name}, at load");
    let (kl, _) = apart(&model, &exact, &logits_one_by_one(&model, &tokens));
    assert!(kl < 2e-6, "{name}: {kl} from exact products");
    // Products in f32 are still there.
    let mut model = model;
    model.set_integer_products(false);
    let (kl, difference) = apart(&model, &exact, &logits(&model, &tokens));
    assert!(kl < 1e-10 && difference < 1e-4, "{name}, f32 after it: {kl} {difference}");
}

#[test]
fn levels() {
    let dir = tempfile::tempdir().unwrap();
    for level in ["F16", "Q4_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "IQ4_XS"] {
        let file = dir.path().join(format!("{level}.gguf"));
        quantized(&file, level);
        check(level, &file);
    }
}

fn quantized(file: &Path, level: &str) {
    let source = ModelSource::open(&Checkpoint::open(bundled("")).unwrap()).unwrap();
    let level = FileType::from_name(level).unwrap();
    let plan = QuantizePlan::new(&source, QuantizeOptions::new(MixOptions::new(level))).unwrap();
    plan.run(file, &|_| ControlFlow::Continue(())).unwrap();
}

#[test]
fn packed_directories() {
    for name in
        ["gptq_b2_g32_asym", "gptq_b3_g64_asym", "gptqmodel_b4_g32_sym_act", "gptq_b8_g32_sym", "autoawq_b4_g128"]
    {
        let Some(path): Option<PathBuf> = shared(&format!("golden/checkpoints/{name}")) else { return };
        check(name, &path);
    }
}
