//! The GGUF form: `tools/imatrix/imatrix.cpp` writes it, `common/imatrix-loader.cpp` reads it (llama.cpp 0c1e57098).

use super::{Entry, Imatrix, bad_sum, floats};
use crate::{ByteOrder, Error, GgmlType, Gguf, Limits, Metadata, Result, TensorInfo, TensorSpec, Value, WritePlan};
use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

const DATASETS: &str = "imatrix.datasets";
const CHUNK_COUNT: &str = "imatrix.chunk_count";
const CHUNK_SIZE: &str = "imatrix.chunk_size";
const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";

pub(super) fn parse(bytes: &[u8]) -> Result<Imatrix> {
    let gguf = Gguf::parse(bytes, &Limits::default())?;
    let metadata = gguf.metadata();
    if let Some(kind) = metadata.get_str("general.type")?
        && kind != "imatrix"
    {
        return Err(Error::KeyType {
            key: "general.type".into(),
            expected: "\"imatrix\", an importance matrix",
            found: format!("{kind:?}"),
        });
    }
    let datasets = match metadata.get_array(DATASETS)? {
        Some(names) => names.strs()?.map(|name| String::from_utf8_lossy(name).into_owned()).collect(),
        None => Vec::new(),
    };
    let mut pairs: BTreeMap<&str, (Option<&TensorInfo>, Option<&TensorInfo>)> = BTreeMap::new();
    for tensor in gguf.tensors() {
        if let Some(name) = tensor.name().strip_suffix(SUMS) {
            pairs.entry(name).or_default().0 = Some(tensor);
        } else if let Some(name) = tensor.name().strip_suffix(COUNTS) {
            pairs.entry(name).or_default().1 = Some(tensor);
        }
    }
    if pairs.is_empty() {
        return Err(Error::Malformed {
            what: "importance matrix".into(),
            offset: 0,
            expected: format!("tensors named `*{SUMS}` and `*{COUNTS}`"),
            found: format!("none among {}", gguf.tensors().len()),
        });
    }
    let mut entries = BTreeMap::new();
    for (name, pair) in pairs {
        let (sums, counts) = match pair {
            (Some(sums), Some(counts)) => (sums, counts),
            (Some(_), None) => return Err(Error::MissingTensor { name: format!("{name}{COUNTS}") }),
            (None, _) => return Err(Error::MissingTensor { name: format!("{name}{SUMS}") }),
        };
        entries.insert(name.to_owned(), entry(&gguf, name, sums, counts)?);
    }
    Ok(Imatrix {
        datasets,
        chunk_count: number(metadata, CHUNK_COUNT)?,
        chunk_size: number(metadata, CHUNK_SIZE)?,
        entries,
    })
}

fn number(metadata: &Metadata, key: &str) -> Result<u32> {
    let value = metadata.get_u64(key)?.unwrap_or(0);
    u32::try_from(value).map_err(|_| Error::KeyType { key: key.into(), expected: "a u32", found: value.to_string() })
}

fn entry(gguf: &Gguf<&[u8]>, name: &str, sums: &TensorInfo, counts: &TensorInfo) -> Result<Entry> {
    for tensor in [sums, counts] {
        if tensor.ggml_type() != GgmlType::F32 {
            return Err(malformed(tensor, "F32", tensor.ggml_type().to_string()));
        }
    }
    let (n_sums, n_counts) = (sums.element_count(), counts.element_count());
    if n_counts == 0 {
        return Err(malformed(counts, "at least one count", "none".into()));
    }
    if n_sums == 0 || n_sums % n_counts != 0 {
        return Err(malformed(sums, "one row per count", format!("{n_sums} sums for {n_counts} counts")));
    }
    let mut whole = Vec::with_capacity(n_counts as usize);
    for count in floats(&gguf.data_in(ByteOrder::Little, counts)?) {
        // Stored as f32, meant as an integer; llama.cpp rounds to the nearest one, too.
        if !(count.is_finite() && count >= 0.0) {
            return Err(malformed(counts, "a number of tokens", count.to_string()));
        }
        whole.push((f64::from(count) + 0.5) as u64);
    }
    let entry = Entry { in_sum2: floats(&gguf.data_in(ByteOrder::Little, sums)?), counts: whole };
    match entry.first_bad_sum() {
        Some(bad) => Err(bad_sum(name, sums.file_offset(), bad)),
        None => Ok(entry),
    }
}

fn malformed(tensor: &TensorInfo, expected: &str, found: String) -> Error {
    Error::Malformed {
        what: format!("tensor `{}`", tensor.name().escape_debug()),
        offset: tensor.file_offset(),
        expected: expected.into(),
        found,
    }
}

/// The plan of the file and the data of its tensors.
pub(super) fn plan(imatrix: &Imatrix) -> Result<(WritePlan, Vec<Vec<u8>>)> {
    imatrix.check()?;
    let mut metadata = Metadata::new();
    metadata.set("general.type", "imatrix");
    metadata.set(DATASETS, Value::strings(&imatrix.datasets));
    metadata.set(CHUNK_COUNT, imatrix.chunk_count);
    metadata.set(CHUNK_SIZE, imatrix.chunk_size);
    let mut specs = Vec::new();
    let mut data = Vec::new();
    for (name, entry) in &imatrix.entries {
        let matrices = entry.counts.len() as u64;
        let columns = entry.columns().unwrap_or(0) as u64;
        // Rows first; ggml leaves out outer dimensions of 1.
        let spec = |suffix, columns| TensorSpec {
            name: format!("{name}{suffix}"),
            shape: if matrices == 1 { vec![columns] } else { vec![matrices, columns] },
            ty: GgmlType::F32,
        };
        specs.extend([spec(SUMS, columns), spec(COUNTS, 1)]);
        data.push(entry.in_sum2.iter().flat_map(|v| v.to_le_bytes()).collect());
        data.push(entry.counts.iter().flat_map(|&n| (n as f32).to_le_bytes()).collect());
    }
    Ok((WritePlan::new(&metadata, &specs)?, data))
}
