//! What `gguf` and `convert` share: progress, and the report as a table or as JSON.

use crate::error::CliResult;
use crate::output::{print_json, to_stdout};
use crate::{progress, table};
use quant_runtime::quantize::{QuantizePlan, QuantizeReport, TensorReport};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::Path;

/// Steps of the progress bar.
const STEPS: u64 = 1000;

/// Runs a plan under a progress bar.
pub(super) fn run_plan(plan: QuantizePlan<'_>, out: &Path) -> CliResult<QuantizeReport> {
    let bar = progress::bar("quantize", STEPS as usize);
    let report = plan.run(out, &|p| {
        bar.set_message(p.tensor.to_owned());
        bar.set_position(((p.done as f64 / p.total.max(1) as f64) * STEPS as f64) as u64);
        ControlFlow::Continue(())
    });
    bar.finish_and_clear();
    Ok(report?)
}

/// Prints the report; `tensors`: with a line for each.
pub(super) fn print_report(report: &QuantizeReport, json: bool, tensors: bool) -> CliResult {
    if json {
        return print_json(&to_json(report));
    }
    to_stdout(|stdout| {
        if tensors {
            write!(stdout, "{}", tensor_table(report))?;
        }
        let size = format!("{} bytes, {:.2} bits per weight", report.bytes, report.bits_per_weight);
        match &report.out {
            Some(out) => writeln!(stdout, "{}: {size}, {:.1} s", out.display(), report.seconds),
            None => writeln!(stdout, "would be {size}"),
        }
    })
}

fn tensor_table(report: &QuantizeReport) -> String {
    let measured = report.tensors.iter().any(|t| t.errors.is_some());
    let weighted = report.tensors.iter().any(|t| t.errors.is_some_and(|e| e.weighted_nmse.is_some()));
    let mut header = vec!["tensor", "shape", "from", "to", "bytes"];
    header.extend(measured.then_some("NMSE"));
    header.extend(weighted.then_some("weighted"));
    header.push("why");
    let row = |t: &TensorReport| {
        let shape: Vec<_> = t.shape.iter().map(ToString::to_string).collect();
        let mut cells =
            vec![t.name.clone(), shape.join("x"), t.source.to_string(), t.ty.to_string(), t.bytes.to_string()];
        let figure = |v: Option<f64>| v.map_or_else(String::new, |v| format!("{v:.2e}"));
        if measured {
            cells.push(figure(t.errors.map(|e| e.nmse)));
        }
        if weighted {
            cells.push(figure(t.errors.and_then(|e| e.weighted_nmse)));
        }
        cells.push(t.reason.to_string());
        cells
    };
    table::render(&header, &report.tensors.iter().map(row).collect::<Vec<_>>())
}

fn to_json(report: &QuantizeReport) -> Value {
    let tensor = |t: &TensorReport| {
        json!({
            "name": t.name, "shape": t.shape, "source_type": t.source.to_string(), "type": t.ty.to_string(),
            "bytes": t.bytes, "bits_per_weight": t.bits_per_weight(), "reason": t.reason.to_string(),
            "importance": t.importance, "nmse": t.errors.map(|e| e.nmse),
            "weighted_nmse": t.errors.and_then(|e| e.weighted_nmse),
        })
    };
    json!({
        "out": report.out, "bytes": report.bytes, "bits_per_weight": report.bits_per_weight,
        "seconds": report.seconds, "without_importance": report.without_importance,
        "tensors": report.tensors.iter().map(tensor).collect::<Vec<_>>(),
    })
}
