//! A whole model by AWQ, and by GPTQ on AWQ's scales: what it costs beside rounding, the same to the byte whatever the threads and interruptions.

use gptq::checkpoint::DynamicRule;
use quant_runtime::calibrate::{CalibrationSet, Placement};
use quant_runtime::convert::ModelSource;
use quant_runtime::eval::{EvalPlan, MemoryLogits, ModelLogits, evaluate};
use quant_runtime::layerwise::{AwqRounding, LayerwisePlan, LayerwiseReport, Layout, Rounding};
use quant_runtime::layerwise::{quantize_model, search_awq_scales};
use quant_runtime::quantize::{QuantizeOptions, QuantizePlan, awq_options};
use quant_runtime::{Checkpoint, Device, Model, Tokenizer};
use quant_tests::{bundled, shared};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

fn options(bits: u8, group_size: usize) -> awq::Options {
    awq::Options::new(awq::Bits::new(bits).unwrap(), Some(group_size))
}

/// GPTQ, on scales that were searched first.
fn both(bits: u8, group_size: usize) -> LayerwisePlan {
    let gptq = gptq::Options::new(gptq::Bits::new(bits).unwrap(), Some(group_size));
    LayerwisePlan::gptq_on_scales(gptq)
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_checkpoint(&Checkpoint::open(bundled("")).unwrap()).unwrap()
}

fn own_text(samples: usize) -> CalibrationSet {
    let text = std::fs::read_to_string(bundled("../pocket-6m-texts/evaluation.txt")).unwrap();
    CalibrationSet::from_text(&tokenizer(), &text, "", samples, 128, Placement::Spread).unwrap()
}

fn run(out: &Path, plan: &LayerwisePlan, set: &CalibrationSet) -> LayerwiseReport {
    quantize_model(bundled(""), out, plan, Some(set), &mut |_| ControlFlow::Continue(())).unwrap()
}

/// Every file of a directory.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let items = std::fs::read_dir(dir).unwrap().map(|item| item.unwrap());
    items.map(|i| (i.file_name().into_string().unwrap(), std::fs::read(i.path()).unwrap())).collect()
}

/// KL on wikitext, calibrated on 128 x 256 tokens: the default below rounding, and scales before GPTQ no worse than GPTQ by more than the error of the
/// measurement (1.5 %).
#[test]
fn costs_less_than_rounding() {
    let names = ["data/wikitext2-test.txt", "data/calibration_datav3.txt"];
    let [Some(wiki), Some(calibration)] = names.map(shared) else { return };
    let read = |path| std::fs::read_to_string(path).unwrap().replace("\r\n", "\n");
    let tokenizer = tokenizer();
    let set = CalibrationSet::from_text(&tokenizer, &read(calibration), "", 128, 256, Placement::Start).unwrap();
    let plan = EvalPlan::from_text(&tokenizer, &read(wiki), 256, Some(48)).unwrap();
    let load = |path: &Path| Model::load(&Checkpoint::open(path).unwrap(), &Device::Cpu).unwrap();
    let mut base = MemoryLogits::collect(&plan, &mut ModelLogits::new(&load(&bundled("")))).unwrap();
    let mut kl = |quantization: &LayerwisePlan| {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        run(&out, quantization, &set);
        let model = load(&out);
        evaluate(&plan, &mut ModelLogits::new(&model), Some(&mut base), None, &mut |_| {})
            .unwrap()
            .base
            .unwrap()
            .kl
            .mean
    };
    let awq = LayerwisePlan::awq(options(4, 128));
    let mut rounded = awq.clone();
    rounded.rounding = Rounding::Awq(AwqRounding { options: options(4, 128), clip: false, clip_qk: false });
    rounded.scales = None;
    let mut gptq = both(4, 128);
    let with_scales = kl(&gptq);
    gptq.scales = None;
    let (awq, rounded, gptq) = (kl(&awq), kl(&rounded), kl(&gptq));
    println!("rounded {rounded:.5}, AWQ {awq:.5}, GPTQ {gptq:.5}, AWQ's scales and GPTQ {with_scales:.5}");
    assert!(awq < rounded * 0.92, "{awq} {rounded}");
    assert!(with_scales < gptq * 1.015, "{with_scales} {gptq}");
}

#[test]
fn the_same_for_any_number_of_threads() {
    let set = own_text(8);
    let dir = tempfile::tempdir().unwrap();
    let mut by_block = LayerwisePlan::awq(options(4, 64));
    by_block.block_loss = true;
    for (name, plan) in [("awq", LayerwisePlan::awq(options(4, 64))), ("both", both(3, 64)), ("block", by_block)] {
        let written = [1, 2, 3].map(|threads| {
            let out = dir.path().join(format!("{name}{threads}"));
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| run(&out, &plan, &set));
            files(&out)
        });
        assert!(written[0] == written[1] && written[0] == written[2], "{name}");
    }
}

#[test]
fn an_interrupted_run_ends_the_same() {
    let set = own_text(8);
    let dir = tempfile::tempdir().unwrap();
    for (name, plan) in [("awq", LayerwisePlan::awq(options(4, 64))), ("both", both(3, 64))] {
        let (whole, out) = (dir.path().join(format!("{name}-whole")), dir.path().join(name));
        let scaled = run(&whole, &plan, &set);
        assert_eq!(scaled.modules.len(), 6 * 7);
        for stop in [0.1, 0.5, 0.9] {
            let mut progress = |p: quant_runtime::layerwise::Progress| {
                if p.done >= stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let error = quantize_model(bundled(""), &out, &plan, Some(&set), &mut progress).unwrap_err();
            assert!(error.to_string().contains("last finished layer"), "{error}");
        }
        assert_eq!(run(&out, &plan, &set).resumed_layers, 5, "{name}");
        assert!(files(&out) == files(&whole), "{name}");
    }
    // Nothing is left beside the results.
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 4);
}

/// The norms that are written are divided by the scales, and whatever the norm's type leaves of that is in the weights: with 8 bits hardly anything is lost.
#[test]
fn scales_are_folded_without_loss() {
    let set = own_text(8);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mut plan = LayerwisePlan::awq(options(8, 32));
    // Scales even where they do not pay.
    if let Some(scales) = &mut plan.scales {
        scales.bits = awq::Bits::new(2).unwrap();
        scales.margin = 0.0;
    }
    run(&out, &plan, &set);
    let (before, after) = (Checkpoint::open(bundled("")).unwrap(), Checkpoint::open(&out).unwrap());
    let norm = |c: &Checkpoint| c.tensor("blk.0.attn_norm.weight").unwrap().unwrap().data.to_vec();
    assert_ne!(norm(&before), norm(&after), "no scale was folded");
    let plan = EvalPlan::from_text(&tokenizer(), &"A cat sat on the mat. ".repeat(200), 128, Some(4)).unwrap();
    let load = |checkpoint: &Checkpoint| Model::load(checkpoint, &Device::Cpu).unwrap();
    let mut base = MemoryLogits::collect(&plan, &mut ModelLogits::new(&load(&before))).unwrap();
    let model = load(&after);
    let result = evaluate(&plan, &mut ModelLogits::new(&model), Some(&mut base), None, &mut |_| {}).unwrap();
    let kl = result.base.unwrap().kl.mean;
    assert!(kl < 1e-4, "{kl}");
}

/// The same model in GGUF, its scales folded in before anything is rounded.
#[test]
fn scales_go_into_gguf() {
    use gguf_format::mix::{FileType, MixOptions};
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open(bundled("")).unwrap();
    let source = ModelSource::open(&checkpoint).unwrap();
    let grid = |name: &str| (!name.contains("ffn_down")).then(|| awq_options(gguf_format::GgmlType::Q2_K).unwrap());
    let mut folds = search_awq_scales(&checkpoint, &grid, &own_text(8), &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(folds.sites().all(|site| !matches!(site, quant_runtime::model::LinearSite::FfnDown(_))));
    if folds.is_empty() {
        // Whether a scale pays is not what is tested.
        let config = checkpoint.config().unwrap();
        let scales = (0..config.hidden_size).map(|i| 1.0 + i as f32 / 100.0).collect();
        folds.insert(&config, quant_runtime::model::LinearSite::FfnInput(0), scales).unwrap();
    }
    let out = dir.path().join("x.gguf");
    let mut options = QuantizeOptions::new(MixOptions::new(FileType::F32));
    options.folds = folds;
    QuantizePlan::new(&source, options).unwrap().run(&out, &|_| ControlFlow::Continue(())).unwrap();
    let folded = Checkpoint::open(&out).unwrap();
    let plan = EvalPlan::from_text(&tokenizer(), &"A cat sat on the mat. ".repeat(200), 128, Some(4)).unwrap();
    let load = |checkpoint: &Checkpoint| Model::load(checkpoint, &Device::Cpu).unwrap();
    let mut base = MemoryLogits::collect(&plan, &mut ModelLogits::new(&load(&checkpoint))).unwrap();
    let model = load(&folded);
    let result = evaluate(&plan, &mut ModelLogits::new(&model), Some(&mut base), None, &mut |_| {}).unwrap();
    assert!(result.base.unwrap().kl.mean < 1e-8);
}

#[test]
fn what_cannot_be_is_refused_before_any_work() {
    let set = own_text(4);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let fails = |plan: &LayerwisePlan, set: Option<&CalibrationSet>| {
        let error =
            quantize_model(bundled(""), &out, plan, set, &mut |_| panic!("no work was to be done")).unwrap_err();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        error.to_string()
    };
    let plan = LayerwisePlan::awq(options(4, 128));
    assert!(fails(&plan, None).contains("calibration"));
    let mut three_bits = LayerwisePlan::awq(options(3, 128));
    assert_eq!(three_bits.layout, Layout::Gptq(None));
    three_bits.layout = Layout::Awq;
    assert!(fails(&three_bits, Some(&set)).contains("4 bits, not 3"));
    let mut mixed = plan.clone();
    let eight = gptq::checkpoint::Overrides { bits: awq::Bits::new(8), group_size: None, sym: None, desc_act: None };
    mixed.rules = vec![DynamicRule::overriding(".*down_proj", eight).unwrap()];
    assert!(fails(&mixed, Some(&set)).contains("one setting for all modules"));
}
