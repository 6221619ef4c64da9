//! `quant diff`: what two GGUF files differ in.

use super::inspect::{ValueJson, short_value};
use crate::error::{CliError, CliResult};
use crate::output::{count, print_json, to_stdout};
use gguf_format::diff::{Diff, KeyDiff, TensorDiff, diff};
use gguf_format::{Gguf, TensorInfo, Value};
use serde_json::json;
use std::io::{self, Write};
use std::path::PathBuf;

/// Compare two GGUF files: keys and values, tensors and their data.
///
/// Exit 0 if they hold the same, 1 if they differ. Order, alignment, version and byte order are layout: said, but no difference.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// One file.
    #[arg(value_name = "GGUF")]
    first: PathBuf,
    /// The other.
    #[arg(value_name = "GGUF")]
    second: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn run(self) -> CliResult {
        let (first, second) = (Gguf::open(&self.first)?, Gguf::open(&self.second)?);
        let found = diff(&first, &second)?;
        let identical = first.storage().as_ref() == second.storage().as_ref();
        match self.json {
            true => print_json(&to_json(&found, identical)?)?,
            false => to_stdout(|out| print(out, &found, identical))?,
        }
        match found.is_same_content() {
            true => Ok(()),
            false => Err(CliError::Different),
        }
    }
}

fn to_json(found: &Diff<'_>, identical: bool) -> CliResult<serde_json::Value> {
    let value = |value: Option<&Value>| -> CliResult<Option<serde_json::Value>> {
        let shown = value.map(|v| serde_json::to_value(ValueJson(v.view()))).transpose();
        let shown = shown.map_err(|e| CliError::Failed(e.to_string()))?;
        Ok(value.map(|v| json!({ "type": type_name(v), "value": shown })))
    };
    let key = |k: &KeyDiff<'_>| -> CliResult<serde_json::Value> {
        Ok(json!({ "key": k.key, "first": value(k.first)?, "second": value(k.second)? }))
    };
    let info = |t: Option<&TensorInfo>| {
        t.map(|t| json!({ "type": t.ggml_type().to_string(), "shape": t.shape(), "bytes": t.byte_len() }))
    };
    let tensor = |t: &TensorDiff<'_>| {
        json!({
            "name": t.name,
            "first": info(t.first),
            "second": info(t.second),
            "bytes_that_differ": t.bytes.map(|b| b.count),
            "first_byte_that_differs": t.bytes.map(|b| b.first),
            "max_abs": t.values.map(|v| v.max_abs),
            "nmse": t.values.map(|v| v.nmse),
        })
    };
    Ok(json!({
        "equal": found.is_same_content(),
        "identical": identical,
        "keys": found.keys.iter().map(key).collect::<CliResult<Vec<_>>>()?,
        "tensors": found.tensors.iter().map(tensor).collect::<Vec<_>>(),
        "layout": found.layout,
    }))
}

/// As `quant edit --set` takes it: `u32`, `array[string]`.
fn type_name(value: &Value) -> String {
    match value.view().as_array() {
        Some(array) => format!("array[{}]", array.element_type()),
        None => value.value_type().to_string(),
    }
}

/// `-` only in the first, `+` only in the second, `~` in both, but not alike.
fn print(out: &mut dyn Write, found: &Diff<'_>, identical: bool) -> io::Result<()> {
    let mark = |first: bool, second: bool| match (first, second) {
        (true, true) => '~',
        (true, false) => '-',
        _ => '+',
    };
    let value = |v: Option<&Value>| v.map(|v| format!("{} {}", type_name(v), short_value(v.view())));
    for k in &found.keys {
        let sides: Vec<String> = [value(k.first), value(k.second)].into_iter().flatten().collect();
        let mark = mark(k.first.is_some(), k.second.is_some());
        writeln!(out, "{mark} key `{}`: {}", k.key.escape_debug(), sides.join(" -> "))?;
    }
    let info = |t: Option<&TensorInfo>| t.map(|t| format!("{} {:?}", t.ggml_type(), t.shape()));
    for t in &found.tensors {
        let mut sides: Vec<String> = [info(t.first), info(t.second)].into_iter().flatten().collect();
        sides.dedup();
        write!(
            out,
            "{} tensor `{}`: {}",
            mark(t.first.is_some(), t.second.is_some()),
            t.name.escape_debug(),
            sides.join(" -> ")
        )?;
        if let Some(bytes) = t.bytes {
            write!(out, ", {} bytes differ, the first at {}", bytes.count, bytes.first)?;
        }
        if let Some(values) = t.values {
            write!(out, ", largest difference {:.6}, nmse {:.3e}", values.max_abs, values.nmse)?;
        }
        writeln!(out)?;
    }
    for line in &found.layout {
        writeln!(out, "layout: {line}")?;
    }
    match (identical, found.is_same_content()) {
        (true, _) => writeln!(out, "identical"),
        (false, true) => writeln!(out, "the same keys and tensors"),
        (false, false) => {
            let (keys, tensors) = (found.keys.len() as u64, found.tensors.len() as u64);
            writeln!(out, "different: {} and {}", count(keys, "key"), count(tensors, "tensor"))
        }
    }
}
