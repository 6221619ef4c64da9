//! A whole model by GPTQ: against the reference's figures, and the same to the byte for any number of threads and after interruptions.

use gptq::{Bits, Options, Order};
use quant_runtime::calibrate::{CalibrationSet, Placement};
use quant_runtime::eval::{EvalPlan, MemoryLogits, ModelLogits, evaluate};
use quant_runtime::layerwise::{LayerwisePlan, LayerwiseReport, quantize_model};
use quant_runtime::{Checkpoint, Device, Model, Tokenizer};
use quant_tests::{bundled, shared};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

fn options(bits: u8, group_size: usize) -> Options {
    Options::new(Bits::new(bits).unwrap(), Some(group_size))
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_checkpoint(&Checkpoint::open(bundled("")).unwrap()).unwrap()
}

fn own_text() -> String {
    std::fs::read_to_string(bundled("../pocket-6m-texts/evaluation.txt")).unwrap()
}

fn run(out: &Path, plan: &LayerwisePlan, set: &CalibrationSet) -> LayerwiseReport {
    quantize_model(bundled(""), out, plan, Some(set), &mut |_| ControlFlow::Continue(())).unwrap()
}

/// Every file of a directory.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let items = std::fs::read_dir(dir).unwrap().map(|item| item.unwrap());
    items.map(|i| (i.file_name().into_string().unwrap(), std::fs::read(i.path()).unwrap())).collect()
}

/// Mean KL of every setting at most that of the reference algorithm (IST-DASLab/gptq, `shared/golden/gptq/model_results.json`) on the same tokens.
#[test]
fn costs_no_more_than_the_reference() {
    let names = ["data/wikitext2-test.txt", "data/calibration_datav3.txt", "golden/gptq/model_results.json"];
    let [Some(wiki), Some(calibration), Some(golden)] = names.map(shared) else { return };
    let golden: serde_json::Value = serde_json::from_slice(&std::fs::read(golden).unwrap()).unwrap();
    let read = |path| std::fs::read_to_string(path).unwrap().replace("\r\n", "\n");
    let tokenizer = tokenizer();
    let set = CalibrationSet::from_text(&tokenizer, &read(calibration), "", 128, 256, Placement::Start).unwrap();
    let plan = EvalPlan::from_text(&tokenizer, &read(wiki), 256, Some(48)).unwrap();
    let load = |path: &Path| Model::load(&Checkpoint::open(path).unwrap(), &Device::Cpu).unwrap();
    let mut base = MemoryLogits::collect(&plan, &mut ModelLogits::new(&load(&bundled("")))).unwrap();
    let mut failures = Vec::new();
    for (bits, group, keys) in [
        (4, 128, &["gptq:4:128:0:0", "gptq:4:128:1:0"][..]),
        (4, 64, &["gptq:4:64:0:0"]),
        (3, 64, &["gptq:3:64:1:0"]),
        (2, 32, &["gptq:2:32:0:0", "gptq:2:32:1:0"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let report = run(&out, &LayerwisePlan::gptq(options(bits, group)), &set);
        assert!(report.modules.iter().all(|m| m.fallback.is_none() && m.loss.is_some()));
        let model = load(&out);
        let ours = evaluate(&plan, &mut ModelLogits::new(&model), Some(&mut base), None, &mut |_| {}).unwrap();
        let kl = ours.base.unwrap().kl.mean;
        let theirs =
            keys.iter().map(|key| golden["results"][key]["kl_mean"].as_f64().unwrap()).fold(f64::MAX, f64::min);
        println!("{bits} bits, groups of {group}: ppl {:.3}, mean KL {kl:.5}, reference {theirs:.5}", ours.ppl);
        if kl > theirs {
            failures.push(format!("{bits} {group}: {kl} > {theirs}"));
        }
    }
    assert!(failures.is_empty(), "{failures:?}");
}

#[test]
fn the_same_for_any_number_of_threads() {
    let set = CalibrationSet::from_text(&tokenizer(), &own_text(), "", 6, 128, Placement::Spread).unwrap();
    let plan = LayerwisePlan::gptq(options(4, 64));
    let dir = tempfile::tempdir().unwrap();
    let written = [1, 2, 3].map(|threads| {
        let out = dir.path().join(threads.to_string());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(&out, &plan, &set));
        files(&out)
    });
    assert!(written[0] == written[1] && written[0] == written[2]);
}

#[test]
fn an_interrupted_run_ends_the_same() {
    let set = CalibrationSet::from_text(&tokenizer(), &own_text(), "", 6, 128, Placement::Spread).unwrap();
    let mut options = options(3, 32);
    options.order = Order::DescAct { static_groups: false };
    let plan = LayerwisePlan::gptq(options);
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    run(&whole, &plan, &set);
    let out = dir.path().join("out");
    let mut resumed = Vec::new();
    for stop in [0.1, 0.5, 0.9] {
        let mut progress = |p: quant_runtime::layerwise::Progress| {
            if p.done >= stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let error = quantize_model(bundled(""), &out, &plan, Some(&set), &mut progress).unwrap_err();
        assert!(error.to_string().contains("last finished layer"), "{error}");
        assert!(!out.exists());
    }
    let report = run(&out, &plan, &set);
    resumed.push(report.resumed_layers);
    assert_eq!(resumed, [5]);
    assert_eq!(report.modules.len(), 6 * 7);
    assert!(files(&out) == files(&whole));
    // Nothing is left beside the results.
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
}

/// Inputs of down that do not fit the memory allowed are computed twice, and the result is the same.
#[test]
fn the_same_with_little_memory() {
    let set = CalibrationSet::from_text(&tokenizer(), &own_text(), "", 4, 128, Placement::Spread).unwrap();
    let mut plan = LayerwisePlan::gptq(options(4, 128));
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    run(&a, &plan, &set);
    plan.activation_memory = 0;
    run(&b, &plan, &set);
    assert!(files(&a) == files(&b));
}

#[test]
fn what_cannot_be_is_refused_before_any_work() {
    let set = CalibrationSet::from_text(&tokenizer(), &own_text(), "", 2, 64, Placement::Spread).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let fails = |source: &Path, plan: &LayerwisePlan, set: Option<&CalibrationSet>| {
        let error = quantize_model(source, &out, plan, set, &mut |_| panic!("no work was to be done")).unwrap_err();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        error.to_string()
    };
    let plan = LayerwisePlan::gptq(options(4, 128));
    assert!(fails(&bundled(""), &plan, None).contains("calibration"));
    let error = fails(&bundled(""), &LayerwisePlan::gptq(options(4, 48)), Some(&set));
    assert!(error.contains("model.layers.0.self_attn.q_proj") && error.contains("48"), "{error}");
    let long = CalibrationSet::from_text(&tokenizer(), &own_text(), "", 1, 2000, Placement::Spread).unwrap();
    assert!(fails(&bundled(""), &plan, Some(&long)).contains("1024"));
    assert!(fails(&dir.path().join("none"), &plan, Some(&set)).contains("none"));
}
