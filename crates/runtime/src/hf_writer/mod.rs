//! Writes a Hugging Face directory from another one, part by part: what quantized directories are made with.
//!
//! Parts (a decoder layer each, say) are written as they are done, so that memory holds one part; they lie in a folder beside the target, `.NAME.part`,
//! until [`HfDirWriter::finish`] joins them to shards, adds the tensors and files that the source has and nobody wrote, and renames the whole to the
//! target. A run that was cut short leaves the folder; the next run with the same fingerprint finds the parts done and goes on.

mod carry_over;
mod shards;
mod staging;

pub use shards::WrittenDir;

use crate::checkpoint::{HfDir, SafetensorsFile};
use crate::{Error, Result};
use safetensors::Dtype;
use serde_json::Value;
use shards::{Plan, Source};
use staging::Staging;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnedTensor {
    /// Its name in the file.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Rows first.
    pub shape: Vec<usize>,
    /// Little endian, row-major.
    pub data: Vec<u8>,
}

/// How a directory is written.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// Replace a target that holds a model (a config.json). Without it the target must be absent or empty.
    pub overwrite: bool,
    /// Everything that decides what the parts hold: method, options, calibration data. Parts of an earlier run are taken over only if it is the same;
    /// the source's files (names, sizes, times) are added by the writer.
    pub fingerprint: String,
    /// Take over the parts of an earlier run that was cut short.
    pub resume: bool,
    /// Bytes of a shard, at the most, unless one tensor is larger.
    pub max_shard_bytes: u64,
}

impl Default for WriteOptions {
    /// A target that is absent or empty, resumable, shards of 4 GB.
    fn default() -> Self {
        Self { overwrite: false, fingerprint: String::new(), resume: true, max_shard_bytes: 4_000_000_000 }
    }
}

/// A directory under way.
#[derive(Debug)]
pub struct HfDirWriter {
    source: Arc<HfDir>,
    out: PathBuf,
    overwrite: bool,
    max_shard_bytes: u64,
    staging: Staging,
    /// Parts done.
    parts: BTreeMap<u32, Part>,
    /// Which part has a tensor.
    names: HashMap<String, u32>,
}

#[derive(Debug)]
struct Part {
    file: SafetensorsFile,
    note: String,
}

impl HfDirWriter {
    /// Checks the target, makes or takes over the folder of parts.
    ///
    /// # Errors
    /// [`Error::Usage`] if the target is the source, is a file, holds something (without `overwrite`) or holds no model (with it), or if another run
    /// is writing it; [`Error::Io`].
    pub fn create(source: Arc<HfDir>, out: &Path, options: &WriteOptions) -> Result<Self> {
        staging::check_target(source.path(), out, options.overwrite)?;
        let fingerprint = format!("{}\n{}", source_identity(&source)?, options.fingerprint);
        let staging = Staging::open(out, &fingerprint, options.resume)?;
        let mut parts = BTreeMap::new();
        for (index, path) in staging.parts()? {
            // A part appears by its rename, whole; one that is not is made anew.
            match SafetensorsFile::open(&path) {
                Ok(file) => {
                    let note = file.metadata().get("note").cloned().unwrap_or_default();
                    parts.insert(index, Part { file, note });
                }
                Err(_) => std::fs::remove_file(&path).map_err(|e| Error::io(&path, e))?,
            }
        }
        let mut names = HashMap::new();
        for (&index, part) in &parts {
            names.extend(part.file.entries().map(|entry| (entry.name.to_owned(), index)));
        }
        let (overwrite, max_shard_bytes) = (options.overwrite, options.max_shard_bytes);
        Ok(Self { source, out: out.to_path_buf(), overwrite, max_shard_bytes, staging, parts, names })
    }

    /// The directory that is read.
    pub fn source(&self) -> &Arc<HfDir> {
        &self.source
    }

    /// Parts that are done, by this run or an earlier one, and the notes they were written with.
    pub fn parts(&self) -> impl Iterator<Item = (u32, &str)> {
        self.parts.iter().map(|(index, part)| (*index, part.note.as_str()))
    }

    /// The tensors of a part that is done, in its file.
    pub fn part(&self, index: u32) -> Option<&SafetensorsFile> {
        self.parts.get(&index).map(|part| &part.file)
    }

    /// Where the caller may keep files of its own until the directory is finished, which removes them; an earlier run's are there after a resume.
    /// `name` is a plain file name.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.staging.scratch(name)
    }

    /// Writes a part, in place of an earlier one of this index: after this returns it outlives a crash. `note` comes back from [`HfDirWriter::parts`].
    ///
    /// # Errors
    /// [`Error::Usage`] for a name given twice, here or in another part, or data of another length than type and shape say; [`Error::Io`].
    pub fn write_part(&mut self, index: u32, tensors: &[OwnedTensor], note: &str) -> Result<()> {
        let mut names = BTreeSet::new();
        for tensor in tensors {
            check_length(tensor)?;
            let elsewhere = self.names.get(&tensor.name).is_some_and(|part| *part != index);
            if !names.insert(tensor.name.as_str()) || elsewhere {
                return Err(Error::Usage(format!("{}: tensor `{}` is written twice", self.out.display(), tensor.name)));
            }
        }
        let path = self.staging.write_part(index, tensors, note)?;
        let file = SafetensorsFile::open(&path)?;
        self.names.retain(|_, part| *part != index);
        self.names.extend(tensors.iter().map(|t| (t.name.clone(), index)));
        self.parts.insert(index, Part { file, note: note.to_owned() });
        Ok(())
    }

    /// The tensors of all parts.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// Whether some part has a tensor of this name.
    pub fn has_tensor(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// Joins the parts, adds what the source has and `replaced` does not name, writes `config` as config.json and `files` beside it, copies the other
    /// files of the source (tokenizer, licence; no weights of other formats), and renames the whole to the target.
    ///
    /// `replaced` is asked for every tensor of the source that no part has.
    ///
    /// # Errors
    /// [`Error::Io`]; the target is as it was then, and the parts stay for the next run.
    pub fn finish(
        self,
        config: &Value,
        files: &[(&str, Value)],
        replaced: impl Fn(&str) -> bool,
    ) -> Result<WrittenDir> {
        let mut plan = Plan::default();
        for part in self.parts.values() {
            part.file.entries().for_each(|entry| plan.add(Source::from(entry)));
        }
        for entry in self.source.entries() {
            if !self.has_tensor(entry.name) && !replaced(entry.name) {
                plan.add(Source::from(entry));
            }
        }
        let folder = self.staging.fresh_output()?;
        let mut written = plan.write(&folder, self.max_shard_bytes)?;
        drop(plan);
        let own: BTreeSet<&str> = files.iter().map(|(name, _)| *name).collect();
        carry_over::copy_files(self.source.path(), &folder, &own)?;
        write_json(&folder.join("config.json"), config)?;
        for (name, value) in files {
            write_json(&folder.join(name), value)?;
        }
        let Self { parts, staging, out, overwrite, .. } = self;
        // Their maps, before the files go.
        drop(parts);
        staging.publish(&out, overwrite)?;
        written.path = out;
        Ok(written)
    }
}

fn check_length(tensor: &OwnedTensor) -> Result<()> {
    let elements = tensor.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let need = elements.and_then(|n| n.checked_mul(tensor.dtype.bitsize())).map(|bits| bits / 8);
    if need == Some(tensor.data.len()) {
        return Ok(());
    }
    let (name, dtype, shape, found) = (&tensor.name, tensor.dtype, &tensor.shape, tensor.data.len());
    Err(Error::Usage(format!("tensor `{name}` of {dtype} {shape:?}: {found} bytes")))
}

/// Names, sizes and times of the source's weights.
fn source_identity(source: &HfDir) -> Result<String> {
    let files: BTreeSet<&Path> = source.entries().map(|e| e.file).collect();
    let mut text = String::new();
    for file in files {
        let meta = std::fs::metadata(file).map_err(|e| Error::io(file, e))?;
        let time = meta.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok()).unwrap_or_default();
        text += &format!("{} {} {}\n", file.display(), meta.len(), time.as_nanos());
    }
    Ok(text + &source.config_json().to_string())
}

/// Pretty, as the Python tools write it, and synced.
fn write_json(path: &Path, value: &Value) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|e| Error::io(path, e.into()))?;
    text.push(b'\n');
    staging::write_synced(path, &mut text.as_slice())
}
