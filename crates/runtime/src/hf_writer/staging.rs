//! The folder beside the target: parts, the lock, the fingerprint; and its renaming to the target.

use super::OwnedTensor;
use crate::safetensors_io::{RawSpec, SafetensorsWriter};
use crate::{Error, Result};
use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// What the folder's layout is called; another one is not taken over.
const VERSION: &str = "quant parts 1";

/// The folder, held by this process.
#[derive(Debug)]
pub(super) struct Staging {
    folder: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

/// Whether `out` may be written.
pub(super) fn check_target(source: &Path, out: &Path, overwrite: bool) -> Result<()> {
    let usage = |why: &str| Err(Error::Usage(format!("{}: {why}", out.display())));
    let meta = match std::fs::metadata(out) {
        Ok(meta) => meta,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            // A name to be made in a folder that is there: not `x/..`, not `/`.
            return if out.file_name().is_some() { Ok(()) } else { usage("not the name of a directory to be made") };
        }
        Err(e) => return Err(Error::io(out, e)),
    };
    if !meta.is_dir() {
        return usage("is a file, not a directory");
    }
    let real = |p: &Path| std::fs::canonicalize(p).map_err(|e| Error::io(p, e));
    let (source, target) = (real(source)?, real(out)?);
    if source.starts_with(&target) {
        return usage("holds the model that is read");
    }
    if out.file_name().is_none() {
        return usage("not the name of a directory that can be replaced");
    }
    if std::fs::read_dir(out).map_err(|e| Error::io(out, e))?.next().is_none() {
        return Ok(());
    }
    match (overwrite, out.join("config.json").is_file()) {
        (true, true) => Ok(()),
        (true, false) => usage("holds other things than a model, and is not overwritten"),
        (false, _) => usage("is not empty"),
    }
}

impl Staging {
    /// Makes the folder, or takes it over: its parts stay if it is of the same `fingerprint` and `resume` is set.
    pub(super) fn open(out: &Path, fingerprint: &str, resume: bool) -> Result<Self> {
        let mut name = OsString::from(".");
        name.push(out.file_name().unwrap_or_default());
        name.push(".part");
        let folder = parent(out).join(name);
        std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        let lock_path = folder.join("lock");
        let lock = File::create(&lock_path).map_err(|e| Error::io(&lock_path, e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Usage(format!("{}: another run is writing it", out.display())));
            }
            Err(TryLockError::Error(e)) => return Err(Error::io(&lock_path, e)),
        }
        let staging = Self { folder, _lock: lock };
        // A run was cut short between the two renames of `publish`: the old target comes back.
        let replaced = staging.folder.join("replaced");
        if replaced.exists() && !out.exists() {
            std::fs::rename(&replaced, out).map_err(|e| Error::io(out, e))?;
        }
        let state = format!("{VERSION}\n{fingerprint}");
        let state_path = staging.folder.join("state");
        if !(resume && same_content(&state_path, state.as_bytes())) {
            staging.clear()?;
            write_synced(&state_path, &mut state.as_bytes())?;
        }
        Ok(staging)
    }

    /// Removes all but the lock.
    fn clear(&self) -> Result<()> {
        for item in std::fs::read_dir(&self.folder).map_err(|e| Error::io(&self.folder, e))? {
            let item = item.map_err(|e| Error::io(&self.folder, e))?;
            let path = item.path();
            if item.file_name() == "lock" {
                continue;
            }
            let is_dir = item.file_type().map_err(|e| Error::io(&path, e))?.is_dir();
            let removed = if is_dir { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.map_err(|e| Error::io(&path, e))?;
        }
        Ok(())
    }

    fn part_path(&self, index: u32) -> PathBuf {
        self.folder.join(format!("part-{index:05}.safetensors"))
    }

    /// The parts that are there.
    pub(super) fn parts(&self) -> Result<Vec<(u32, PathBuf)>> {
        let mut parts = Vec::new();
        for item in std::fs::read_dir(&self.folder).map_err(|e| Error::io(&self.folder, e))? {
            let name = item.map_err(|e| Error::io(&self.folder, e))?.file_name();
            let index = name.to_str().and_then(|n| n.strip_prefix("part-")?.strip_suffix(".safetensors")?.parse().ok());
            if let Some(index) = index {
                parts.push((index, self.part_path(index)));
            }
        }
        parts.sort_unstable();
        Ok(parts)
    }

    /// Writes a part, synced and renamed.
    pub(super) fn write_part(&self, index: u32, tensors: &[OwnedTensor], note: &str) -> Result<PathBuf> {
        let path = self.part_path(index);
        let specs = tensors.iter().map(|t| RawSpec {
            name: &t.name,
            dtype: t.dtype.to_string(),
            shape: t.shape.iter().map(|&d| d as u64).collect(),
            bytes: t.data.len() as u64,
        });
        let mut out = SafetensorsWriter::create_raw(&path, specs, &[("note".into(), note.into())])?;
        for tensor in tensors {
            out.write(&tensor.data)?;
        }
        out.finish()?;
        sync_dir(&self.folder)?;
        Ok(path)
    }

    pub(super) fn scratch(&self, name: &str) -> PathBuf {
        self.folder.join(format!("scratch-{name}"))
    }

    /// An empty folder for the finished files; what an earlier run left there goes.
    pub(super) fn fresh_output(&self) -> Result<PathBuf> {
        let folder = self.output();
        match std::fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(&folder, e)),
            _ => {}
        }
        std::fs::create_dir(&folder).map_err(|e| Error::io(&folder, e))?;
        Ok(folder)
    }

    fn output(&self) -> PathBuf {
        self.folder.join("out")
    }

    /// Renames the finished folder to the target and removes this one.
    pub(super) fn publish(self, out: &Path, overwrite: bool) -> Result<()> {
        let finished = self.output();
        sync_dir(&finished)?;
        // The target may have changed meanwhile.
        let there = out.exists();
        let empty = there && std::fs::read_dir(out).map_err(|e| Error::io(out, e))?.next().is_none();
        let replaced = self.folder.join("replaced");
        if there && !empty {
            if !overwrite {
                return Err(Error::Usage(format!("{}: is not empty", out.display())));
            }
            std::fs::rename(out, &replaced).map_err(|e| Error::io(out, e))?;
        } else if empty {
            std::fs::remove_dir(out).map_err(|e| Error::io(out, e))?;
        }
        if let Err(e) = std::fs::rename(&finished, out) {
            if there && !empty {
                // As it was.
                let _ = std::fs::rename(&replaced, out);
            }
            return Err(Error::io(out, e));
        }
        sync_dir(parent(out))?;
        let Self { folder, _lock: lock } = self;
        drop(lock);
        std::fs::remove_dir_all(&folder).map_err(|e| Error::io(&folder, e))
    }
}

/// The folder that a path lies in.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn same_content(path: &Path, expected: &[u8]) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let mut found = Vec::with_capacity(expected.len() + 1);
    file.take(expected.len() as u64 + 1).read_to_end(&mut found).is_ok() && found == expected
}

/// Writes a new file and syncs it.
pub(super) fn write_synced(path: &Path, from: &mut impl Read) -> Result<()> {
    let mut write = || {
        let mut file = File::create(path)?;
        std::io::copy(from, &mut file)?;
        file.flush()?;
        file.sync_all()
    };
    write().map_err(|e| Error::io(path, e))
}

/// Syncs the names in a folder, where the system can.
fn sync_dir(folder: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(folder).and_then(|f| f.sync_all()).map_err(|e| Error::io(folder, e))?;
    }
    Ok(())
}
