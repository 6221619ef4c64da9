//! The JSON object, written as it is walked: an array of the file is never unfolded in memory.

use super::{Keys, Report};
use gguf_format::ValueView;
use serde::ser::{Serialize, SerializeMap, Serializer};

pub(super) struct ReportJson<'a>(pub(super) &'a Report<'a>);

impl Serialize for ReportJson<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let report = self.0;
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("format", report.format)?;
        map.serialize_entry("kind", &report.kind)?;
        map.serialize_entry("architecture", &report.architecture)?;
        if let Some((version, alignment, departures)) = &report.gguf {
            map.serialize_entry("version", version)?;
            map.serialize_entry("alignment", alignment)?;
            map.serialize_entry("refused_by_ggml", departures)?;
        }
        if let Some(packed) = &report.packed {
            map.serialize_entry(packed.key(), &packed.content)?;
        }
        map.serialize_entry("metadata", &report.metadata)?;
        map.serialize_entry("tensors", &report.tensors)?;
        map.serialize_entry("total", &report.summary.total)?;
        map.serialize_entry("by_type", &report.summary.by_type)?;
        map.end()
    }
}

impl Serialize for Keys<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Gguf(metadata) => to.collect_map(metadata.iter().map(|(key, value)| (key, ValueJson(value.view())))),
            Self::Json(Some(map)) => map.serialize(to),
            Self::Json(None) => to.collect_map::<&str, &str, _>([]),
        }
    }
}

/// A value of any type; NaN and infinities as text.
pub(in crate::commands) struct ValueJson<'a>(pub(in crate::commands) ValueView<'a>);

impl Serialize for ValueJson<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            ValueView::U64(v) => to.serialize_u64(v),
            ValueView::Bool(v) => to.serialize_bool(v),
            // The shortest decimal that reads back as the f32: 1e-5, not 9.999999747378752e-6.
            ValueView::F32(v) if v.is_finite() => to.serialize_f32(v),
            ValueView::F64(v) if v.is_finite() => to.serialize_f64(v),
            // JSON has no number for these.
            ValueView::F32(v) => to.collect_str(&v),
            ValueView::F64(v) => to.collect_str(&v),
            ValueView::Str(v) => to.serialize_str(&String::from_utf8_lossy(v)),
            ValueView::Array(array) => to.collect_seq(array.values().map(ValueJson)),
            other => match other.as_i64() {
                Some(v) => to.serialize_i64(v),
                None => to.collect_str(&other),
            },
        }
    }
}
