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
    let mut model = Model::load_repacked(&Checkpoint::open(path).unwrap(), &Device::Cpu).unwrap();
    model.set_integer_products(true);
    // The same rounding of activations (in place without VNNI there are more single tokens), sums in another order.
    for (way, before, after) in
        [("together", &together, logits(&model, &tokens)), ("one by one", &singles, logits_one_by_one(&model, &tokens))]
    {
        let (kl, difference) = apart(&model, before, &after);
        println!("{name}, {way}: mean KL {kl:.1e}, largest difference {difference:.1e}");
        assert!(kl < 2e-6 && difference < 0.05, "{name}, {way}: {kl} {difference}");
    }
    // Moved while it runs, a layer before each token, it ends as the same.
    let mut as_it_runs = Model::load_repacking(&Checkpoint::open(path).unwrap(), &Device::Cpu).unwrap();
    as_it_runs.set_integer_products(true);
    let pieces = as_it_runs.config().num_layers + 1;
    assert_eq!(as_it_runs.pieces_to_repack(), pieces);
    let (kl, difference) = apart(&model, &singles, &logits_one_by_one(&as_it_runs, &tokens));
    assert!(kl < 2e-6 && difference < 0.05, "{name}, moving: {kl} {difference}");
    assert_eq!(as_it_runs.pieces_to_repack(), 0, "{pieces} pieces, {} tokens", tokens.len());
    assert_eq!(logits_one_by_one(&model, &tokens), logits_one_by_one(&as_it_runs, &tokens), "{name}, moved");
    let (kl, _) = apart(&model, &exact, &logits_one_by_one(&model, &tokens));
    assert!(kl < 2e-6, "{name}: {kl} from exact products");
    // Products in f32 are still there.
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
fn texts_on_several_threads_while_weights_move() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("Q4_K_M.gguf");
    quantized(&file, "Q4_K_M");
    let tokens = tokens();
    let mut model = load(&file);
    model.set_integer_products(true);
    let expected = logits_one_by_one(&model, &tokens);
    let mut moving = Model::load_repacking(&Checkpoint::open(&file).unwrap(), &Device::Cpu).unwrap();
    moving.set_integer_products(true);
    // A prompt moves nothing.
    logits(&moving, &tokens);
    assert_eq!(moving.pieces_to_repack(), moving.config().num_layers + 1);
    std::thread::scope(|scope| {
        let texts = [(); 3].map(|()| scope.spawn(|| logits_one_by_one(&moving, &tokens)));
        scope.spawn(|| moving.repack().unwrap());
        for text in texts {
            let (kl, difference) = apart(&moving, &expected, &text.join().unwrap());
            assert!(kl < 2e-6 && difference < 0.05, "{kl} {difference}");
        }
    });
    assert_eq!(moving.pieces_to_repack(), 0);
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
