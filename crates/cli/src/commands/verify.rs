//! `quant verify`: structure and values of a GGUF file, and which readers would refuse it.

use crate::error::{CliError, CliResult};
use crate::output::{count, print_json, to_stdout};
use gguf_format::verify::{Finding, NonFinite, Reader, Report, checks_values, non_finite, readable, verify};
use gguf_format::{ByteOrder, Gguf, Limits, Mmap, TensorInfo};
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::io::{self, Write};
use std::path::PathBuf;

/// Check the structure and the values of a GGUF file; say which readers would refuse it, and why.
///
/// Exit 0 if the file is well formed (llama.cpp's rules, in either byte order) and its values and scales are finite numbers, else 1. What only
/// other readers refuse is said and does no harm.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// A GGUF file, whole or a part of a split.
    #[arg(value_name = "GGUF")]
    file: PathBuf,
    /// Print the SHA-256 of each tensor's data, as they are in the file.
    #[arg(long)]
    sha256: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What was seen in the data of one tensor.
struct Checked {
    non_finite: Option<NonFinite>,
    sha256: Option<String>,
}

impl Args {
    pub(crate) fn run(self) -> CliResult {
        let map = Mmap::open(&self.file)?;
        let bytes = map.as_ref();
        let report = verify(bytes);
        let refused = readable(bytes).err().map(|e| e.to_string());
        let gguf = Gguf::parse(bytes, &Limits::default()).ok();
        let checked: Vec<Checked> = match &gguf {
            Some(gguf) => gguf.tensors().par_iter().map(|t| self.check(gguf, t)).collect::<CliResult<_>>()?,
            None => Vec::new(),
        };
        let faults = report.findings.iter().filter(|f| f.rule.is_fault()).count() as u64 + report.left_out;
        let bad_tensors = checked.iter().filter(|c| c.non_finite.is_some()).count();
        let ok = faults == 0 && bad_tensors == 0 && refused.is_none();
        let tensors = || gguf.iter().flat_map(|g| g.tensors()).zip(&checked);
        match self.json {
            true => print_json(&self.to_json(&report, refused.as_deref(), tensors(), ok))?,
            false => to_stdout(|out| self.print(out, &report, refused.as_deref(), tensors(), ok))?,
        }
        if ok {
            return Ok(());
        }
        let mut wrong = Vec::new();
        if faults > 0 || refused.is_some() {
            wrong.push(format!("{} in its structure", count(faults.max(1), "fault")));
        }
        if bad_tensors > 0 {
            wrong.push(format!("{} with numbers that are not finite", count(bad_tensors as u64, "tensor")));
        }
        Err(CliError::Failed(format!("{}: {}", self.file.display(), wrong.join(", "))))
    }

    fn check(&self, gguf: &Gguf<&[u8]>, tensor: &TensorInfo) -> CliResult<Checked> {
        let non_finite = match checks_values(tensor.ggml_type()) {
            true => non_finite(tensor.ggml_type(), &gguf.data_in(ByteOrder::Little, tensor)?),
            false => None,
        };
        let hex = |data: &[u8]| Sha256::digest(data).iter().map(|b| format!("{b:02x}")).collect();
        Ok(Checked { non_finite, sha256: self.sha256.then(|| hex(gguf.data(tensor))) })
    }

    fn to_json<'a>(
        &self,
        report: &Report,
        refused: Option<&str>,
        tensors: impl Iterator<Item = (&'a TensorInfo, &'a Checked)>,
        ok: bool,
    ) -> Value {
        let finding = |f: &Finding| {
            let readers: Vec<&str> = f.rule.refused_by().iter().map(|r| r.name()).collect();
            json!({
                "rule": f.rule.code(), "what": f.what, "offset": f.offset, "message": f.message, "refused_by": readers,
                "fault": f.rule.is_fault(),
            })
        };
        let tensor = |(t, checked): (&TensorInfo, &Checked)| {
            let mut row = Map::new();
            row.insert("name".into(), t.name().into());
            row.insert("type".into(), t.ggml_type().to_string().into());
            row.insert("bytes".into(), t.byte_len().into());
            row.insert("offset".into(), t.file_offset().into());
            row.insert("values_checked".into(), checks_values(t.ggml_type()).into());
            let bad = checked.non_finite.as_ref().map(|n| {
                json!({
                    "count": n.count, "block": n.block, "offset": t.file_offset() + n.offset, "field": n.field, "kind": n.kind,
                })
            });
            row.insert("non_finite".into(), bad.into());
            if let Some(sha256) = &checked.sha256 {
                row.insert("sha256".into(), sha256.as_str().into());
            }
            Value::Object(row)
        };
        json!({
            "file": self.file.display().to_string(),
            "ok": ok,
            "version": report.version,
            "byte_order": if report.big_endian { "big" } else { "little" },
            "keys": report.keys,
            "readers": Reader::ALL.iter().map(|&r| (r.name().to_owned(), refusal(report, refused, r).into())).collect::<Map<_, _>>(),
            "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
            "findings_left_out": report.left_out,
            "tensors": tensors.map(tensor).collect::<Vec<_>>(),
        })
    }

    fn print<'a>(
        &self,
        out: &mut dyn Write,
        report: &Report,
        refused: Option<&str>,
        tensors: impl Iterator<Item = (&'a TensorInfo, &'a Checked)>,
        ok: bool,
    ) -> io::Result<()> {
        let version = report.version.map_or("no GGUF".into(), |v| format!("GGUF version {v}"));
        let order = if report.big_endian { "big" } else { "little" };
        let (keys, tensors_seen) = (count(report.keys, "key"), count(report.tensors, "tensor"));
        writeln!(out, "{}: {version}, {order} endian, {keys}, {tensors_seen}", self.file.display())?;
        for reader in Reader::ALL {
            match refusal(report, refused, reader) {
                None => writeln!(out, "{:<12} reads it", reader.name())?,
                Some(reason) => writeln!(out, "{:<12} refuses it: {reason}", reader.name())?,
            }
        }
        for finding in &report.findings {
            let kind = if finding.rule.is_fault() { "fault" } else { "note" };
            writeln!(out, "{kind}: {finding}")?;
        }
        if report.left_out > 0 {
            writeln!(out, "and {} more", report.left_out)?;
        }
        for (tensor, checked) in tensors {
            if let Some(sha256) = &checked.sha256 {
                writeln!(out, "{sha256}  {}", tensor.name().escape_debug())?;
            }
            if let Some(n) = &checked.non_finite {
                let (name, ty) = (tensor.name().escape_debug(), tensor.ggml_type());
                let at = tensor.file_offset() + n.offset;
                let numbers = count(n.count, "number");
                writeln!(
                    out,
                    "fault: tensor `{name}` ({ty}): {numbers} not finite, the first in block {} at offset {at:#x}: {} is {}",
                    n.block, n.field, n.kind
                )?;
            }
        }
        if ok {
            writeln!(out, "no fault")?;
        }
        Ok(())
    }
}

/// Why a reader refuses the file. What this crate's own reader says is taken from itself.
fn refusal(report: &Report, refused: Option<&str>, reader: Reader) -> Option<String> {
    match reader {
        Reader::GgufFormat => refused.map(str::to_owned),
        reader => report.refusal(reader).map(ToString::to_string),
    }
}
