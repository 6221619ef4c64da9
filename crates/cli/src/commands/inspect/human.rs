//! Tables for people. Names and strings of the file are escaped: they must not steer a terminal.

use super::summary::Total;
use super::{Keys, Report};
use gguf_format::ValueView;
use std::io::{self, Write};

/// Elements of an array that are shown.
const ELEMENTS: usize = 6;
/// Characters of a string that are shown.
const CHARACTERS: usize = 72;

pub(super) fn print(out: &mut dyn Write, report: &Report<'_>) -> io::Result<()> {
    write!(out, "{}: {}", report.path.display(), report.format)?;
    if let Some((version, alignment, _)) = &report.gguf {
        write!(out, " version {version}, alignment {alignment}")?;
    }
    let architecture = report.architecture.as_deref().unwrap_or("no architecture named");
    writeln!(out, ", {}, {}", report.kind.escape_debug(), architecture.escape_debug())?;

    let rows: Vec<[String; 3]> = match &report.metadata {
        Keys::Gguf(metadata) => metadata
            .iter()
            .map(|(key, value)| {
                let view = value.view();
                let ty = match view.as_array() {
                    Some(array) => format!("{}[{}]", array.element_type(), array.len()),
                    None => value.value_type().to_string(),
                };
                [key.escape_debug().to_string(), ty, short_value(view)]
            })
            .collect(),
        Keys::Json(map) => map
            .iter()
            .flat_map(|map| map.iter())
            .map(|(key, value)| [key.escape_debug().to_string(), String::new(), short_text(&value.to_string())])
            .collect(),
    };
    if !rows.is_empty() {
        writeln!(out, "\nmetadata")?;
        let widths = [0, 1].map(|c| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0).min(48));
        for [key, ty, value] in &rows {
            match widths[1] {
                0 => writeln!(out, "  {key:<0$}  {value}", widths[0])?,
                _ => writeln!(out, "  {key:<0$}  {ty:<1$}  {value}", widths[0], widths[1])?,
            }
        }
    }

    if !report.tensors.is_empty() {
        writeln!(out, "\ntensors (rows first)")?;
        let rows: Vec<[String; 4]> = report
            .tensors
            .iter()
            .map(|t| [t.name.escape_debug().to_string(), t.ty.clone(), shape(&t.shape), grouped(t.bytes)])
            .collect();
        let widths = [0, 1, 2, 3].map(|c| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0));
        for [name, ty, shape, bytes] in &rows {
            writeln!(
                out,
                "  {name:<0$}  {ty:<1$}  {shape:>2$}  {bytes:>3$}",
                widths[0], widths[1], widths[2], widths[3]
            )?;
        }
    }

    writeln!(out)?;
    for (ty, total) in &report.summary.by_type {
        total_line(out, ty, total)?;
    }
    total_line(out, "total", &report.summary.total)?;
    if let Some(packed) = &report.packed {
        packed.print(out)?;
    }
    if let Some((_, _, departures)) = &report.gguf {
        for departure in departures {
            writeln!(out, "ggml's reader would refuse the file: {departure}")?;
        }
    }
    Ok(())
}

fn total_line(out: &mut dyn Write, name: &str, total: &Total) -> io::Result<()> {
    let (tensors, bytes) = (total.tensors, grouped(total.bytes));
    write!(out, "{name:<8} {tensors:>6} tensors {:>18} values {bytes:>18} bytes", grouped(total.elements))?;
    match total.bits_per_weight {
        Some(bits) => writeln!(out, "  {bits:>7.3} bits per weight"),
        None => writeln!(out),
    }
}

/// `2048 x 256`; a scalar is `1`.
fn shape(dims: &[u64]) -> String {
    match dims {
        [] => "1".into(),
        dims => dims.iter().map(u64::to_string).collect::<Vec<_>>().join(" x "),
    }
}

/// `3,572,512`.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A value in a few words, whatever its length.
pub(in crate::commands) fn short_value(view: ValueView<'_>) -> String {
    match view {
        ValueView::Str(bytes) => {
            // Four bytes a character at the most: what lies behind cannot be shown.
            let start = &bytes[..bytes.len().min(4 * CHARACTERS + 4)];
            let text = String::from_utf8_lossy(start);
            match text.chars().count() > CHARACTERS || start.len() < bytes.len() {
                false => format!("{text:?}"),
                true => {
                    let shown: String = text.chars().take(CHARACTERS).collect();
                    format!("{shown:?}... {} bytes", grouped(bytes.len() as u64))
                }
            }
        }
        ValueView::Array(array) => {
            let mut parts: Vec<String> = array.values().take(ELEMENTS).map(short_value).collect();
            if array.len() > ELEMENTS {
                parts.push(format!("... {} more", grouped((array.len() - ELEMENTS) as u64)));
            }
            format!("[{}]", parts.join(", "))
        }
        scalar => scalar.to_string(),
    }
}

/// JSON text is escaped already.
fn short_text(text: &str) -> String {
    match text.char_indices().nth(CHARACTERS) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}... {} bytes", &text[..at], grouped(text.len() as u64)),
    }
}
