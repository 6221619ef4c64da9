//! A Hugging Face directory: config.json, one or sharded safetensors (memory-mapped), tokenizer files.

use super::TensorView;
use super::shard::Shard;
use crate::{Error, Result};
use gguf_format::GgmlType;
use safetensors::Dtype;
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The longest json file read whole. `tokenizer_config.json` and the index reach a few megabytes.
const MAX_JSON: u64 = 64 << 20;

/// Shards of one model. The largest published models have some 200.
const MAX_SHARDS: usize = 4096;

/// An opened Hugging Face directory.
#[derive(Debug)]
pub struct HfDir {
    path: PathBuf,
    config: serde_json::Value,
    shards: Vec<Shard>,
    /// Name -> (shard, tensor of the shard).
    by_name: HashMap<String, (usize, usize)>,
}

/// A tensor of a directory as its safetensors header describes it, whatever its type.
#[derive(Clone, Copy, Debug)]
pub struct HfEntry<'a> {
    /// The name in the file.
    pub name: &'a str,
    /// The type, as safetensors spells it (`BF16`, `I32`, `F8_E4M3`).
    pub dtype: Dtype,
    /// Rows first.
    pub shape: &'a [usize],
    /// The bytes, little endian.
    pub data: &'a [u8],
    /// The file.
    pub file: &'a Path,
    /// Where in the file the bytes begin.
    pub offset: u64,
}

impl HfDir {
    /// Opens the directory, maps every shard, checks that every tensor of the index is there and in bounds.
    ///
    /// Weights are `model.safetensors`, else what `model.safetensors.index.json` names, else the only `*.safetensors` there.
    ///
    /// # Errors
    /// A file that is missing, cut short or not what it should be, named; a tensor that the index places in a shard that does not hold it; a
    /// tensor that two shards hold; a file name in the index that leaves the directory.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if !path.is_dir() {
            let source = std::io::Error::from(std::io::ErrorKind::NotADirectory);
            return Err(Error::io(path, source));
        }
        let config_path = path.join("config.json");
        let config = read_json(&config_path)?
            .ok_or_else(|| Error::io(&config_path, std::io::Error::from(std::io::ErrorKind::NotFound)))?;
        if !config.is_object() {
            return Err(Error::malformed(config_path, "content", "a JSON object", json_kind(&config)));
        }
        let (files, placed) = find_shards(path)?;
        let shards = files.iter().map(|f| Shard::open(&path.join(f))).collect::<Result<Vec<_>>>()?;

        let mut by_name = HashMap::new();
        for (s, shard) in shards.iter().enumerate() {
            for (t, tensor) in shard.tensors.iter().enumerate() {
                if let Some((other, _)) = by_name.insert(tensor.name.clone(), (s, t)) {
                    let found = format!("another in {}", files[other]);
                    return Err(Error::malformed(
                        &shard.path,
                        format!("tensor `{}`", tensor.name),
                        "one in all shards",
                        found,
                    ));
                }
            }
        }
        for (tensor, file) in &placed {
            let there = by_name.get(tensor).map(|&(s, _)| files[s].as_str());
            if there != Some(file) {
                let found = there.map_or("no such tensor in any shard".to_owned(), |f| format!("it in {f}"));
                return Err(Error::malformed(
                    path.join(INDEX),
                    format!("tensor `{tensor}`"),
                    format!("it in {file}"),
                    found,
                ));
            }
        }
        Ok(Self { path: path.to_path_buf(), config, shards, by_name })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// config.json.
    pub fn config_json(&self) -> &serde_json::Value {
        &self.config
    }

    /// Another json file of the directory (`tokenizer_config.json`, `generation_config.json`), `None` if absent.
    pub fn json(&self, file: &str) -> Result<Option<serde_json::Value>> {
        read_json(&self.path.join(file))
    }

    /// Names as in the files (`model.layers.0.self_attn.q_proj.weight`), in file order: shard by shard, by offset.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.shards.iter().flat_map(|s| s.tensors.iter().map(|t| t.name.as_str()))
    }

    /// Every tensor, whatever its type, in file order.
    pub fn entries(&self) -> impl Iterator<Item = HfEntry<'_>> {
        self.shards.iter().flat_map(|s| (0..s.tensors.len()).filter_map(move |t| s.entry(t)))
    }

    /// One tensor, whatever its type.
    pub fn entry(&self, hf_name: &str) -> Option<HfEntry<'_>> {
        let &(s, t) = self.by_name.get(hf_name)?;
        self.shards.get(s)?.entry(t)
    }

    /// Where a tensor is, for [`HfDir::data_at`].
    pub(crate) fn locate(&self, hf_name: &str) -> Option<(usize, usize)> {
        self.by_name.get(hf_name).copied()
    }

    /// The bytes at a place that `locate` gave.
    pub(crate) fn data_at(&self, (shard, tensor): (usize, usize)) -> &[u8] {
        self.shards.get(shard).map_or(&[], |s| s.data(tensor))
    }

    /// Lets the pages of a tensor's bytes go, or of a part of them: they are read from the file again when they are needed.
    pub(crate) fn release(&self, bytes: &[u8]) {
        self.shards.iter().for_each(|shard| shard.release(bytes));
    }

    /// A tensor by its name in the files. `None` if absent.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if its type is not F32, F16 or BF16.
    pub fn tensor(&self, hf_name: &str) -> Result<Option<TensorView<'_>>> {
        let Some(entry) = self.entry(hf_name) else { return Ok(None) };
        let ty = match entry.dtype {
            Dtype::F32 => GgmlType::F32,
            Dtype::F16 => GgmlType::F16,
            Dtype::BF16 => GgmlType::BF16,
            other => {
                let file = entry.file.display();
                return Err(Error::Unsupported(format!(
                    "{file}: tensor `{hf_name}` of type {other} (F32, F16 and BF16 are)"
                )));
            }
        };
        Ok(Some(TensorView { ty, shape: entry.shape.to_vec(), data: entry.data }))
    }
}

/// The shard files of a directory, and the index's tensor -> file pairs (empty without an index).
fn find_shards(dir: &Path) -> Result<(Vec<String>, Vec<(String, String)>)> {
    if dir.join(SINGLE).exists() {
        return Ok((vec![SINGLE.to_owned()], Vec::new()));
    }
    let index_path = dir.join(INDEX);
    if let Some(index) = read_json(&index_path)? {
        return parse_index(dir, &index_path, &index);
    }
    let mut found = Vec::new();
    for item in std::fs::read_dir(dir).map_err(|e| Error::io(dir, e))? {
        let name = item.map_err(|e| Error::io(dir, e))?.file_name();
        if let Some(name) = name.to_str().filter(|n| n.ends_with(".safetensors")) {
            found.push(name.to_owned());
        }
    }
    match found.len() {
        1 => Ok((found, Vec::new())),
        0 => Err(Error::malformed(dir, "weights", format!("{SINGLE} or {INDEX}"), "no .safetensors file")),
        n => Err(Error::malformed(
            dir,
            "weights",
            format!("{SINGLE} or {INDEX}"),
            format!("{n} .safetensors files without an index"),
        )),
    }
}

type Placed = (Vec<String>, Vec<(String, String)>);

fn parse_index(dir: &Path, path: &Path, index: &serde_json::Value) -> Result<Placed> {
    let Some(map) = index.get("weight_map").and_then(|m| m.as_object()) else {
        return Err(Error::malformed(path, "`weight_map`", "an object of tensor names and files", "none"));
    };
    let mut files: Vec<String> = Vec::new();
    let mut known: HashMap<&str, ()> = HashMap::new();
    let mut placed = Vec::with_capacity(map.len());
    for (tensor, file) in map {
        let what = || format!("`weight_map` of tensor `{tensor}`");
        let Some(file) = file.as_str() else {
            return Err(Error::malformed(path, what(), "a file name", json_kind(file)));
        };
        if known.insert(file, ()).is_none() {
            if !is_plain_name(file) {
                return Err(Error::malformed(
                    path,
                    what(),
                    "the name of a file in this directory",
                    format!("`{file}`"),
                ));
            }
            if !dir.join(file).is_file() {
                return Err(Error::malformed(
                    path,
                    what(),
                    format!("the file {file} in this directory"),
                    "no such file",
                ));
            }
            if files.len() == MAX_SHARDS {
                return Err(Error::malformed(path, "`weight_map`", format!("at most {MAX_SHARDS} files"), "more"));
            }
            files.push(file.to_owned());
        }
        placed.push((tensor.clone(), file.to_owned()));
    }
    if files.is_empty() {
        return Err(Error::malformed(path, "`weight_map`", "at least one tensor", "none"));
    }
    files.sort_unstable();
    Ok((files, placed))
}

/// True for a name without folders: not `../x`, `/x`, `a/b`, `C:x`.
fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) && !name.contains(['/', '\\', '\0'])
}

fn read_json(path: &Path) -> Result<Option<serde_json::Value>> {
    let length = match std::fs::metadata(path) {
        Ok(meta) => meta.len(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(path, e)),
    };
    if length > MAX_JSON {
        return Err(Error::malformed(path, "size", format!("at most {MAX_JSON} bytes of JSON"), length.to_string()));
    }
    let text = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    match serde_json::from_slice(&text) {
        Ok(value) => Ok(Some(value)),
        Err(e) => Err(Error::malformed(path, "content", "JSON", e.to_string())),
    }
}

/// `a string`, `a number`: for error messages.
fn json_kind(value: &serde_json::Value) -> &'static str {
    use serde_json::Value;
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
