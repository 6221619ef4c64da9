//! The writer: strict ggml layout, atomic.

use crate::plan::{refused, refused_tensor};
use crate::{Error, Metadata, Result, TensorSpec, WritePlan};
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use tempfile::{NamedTempFile, TempPath};

/// Writes a GGUF v3 file: the header first, from declared tensors, then the data of each in order, then an atomic rename.
///
/// Until [`GgufWriter::finish`] the target is untouched; dropping the writer removes the temporary file.
#[derive(Debug)]
pub struct GgufWriter {
    file: BufWriter<NamedTempFile>,
    target: PathBuf,
    plan: WritePlan,
    /// The tensor being written, and how many of its bytes are there.
    current: usize,
    written: u64,
    failed: bool,
}

impl GgufWriter {
    /// Checks everything ggml's strict reader checks, and writes the header to a temporary file beside `path`.
    /// The alignment is `general.alignment` of `metadata`, 32 if absent.
    ///
    /// # Errors
    /// [`Error::Refused`] for what [`WritePlan::new`] refuses and for a target that is not a regular file, [`Error::Io`].
    pub fn create(path: impl AsRef<Path>, metadata: &Metadata, tensors: &[TensorSpec]) -> Result<Self> {
        let path = path.as_ref();
        Self::from_plan(path, WritePlan::new(metadata, tensors).map_err(|e| e.in_file(path))?)
    }

    /// [`GgufWriter::create`] from a finished plan.
    pub fn from_plan(path: impl AsRef<Path>, plan: WritePlan) -> Result<Self> {
        let target = resolve_target(path.as_ref())?;
        let io = |source| io_error(&target, source);
        let folder = match target.parent() {
            Some(p) if !p.as_os_str().is_empty() => p,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix(".gguf-").suffix(".part");
        #[cfg(unix)]
        {
            // The mode the system's umask then narrows, as for any file a program creates; tempfile's own default is 0600.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let temp = builder.tempfile_in(folder).map_err(io)?;
        let file = BufWriter::with_capacity(1 << 20, temp);
        let mut writer = Self { file, target, plan, current: 0, written: 0, failed: false };
        let header = std::mem::take(&mut writer.plan.header);
        let result = writer.file.write_all(&header);
        writer.check_io(result)?;
        writer.zeros(writer.plan.header_len() - header.len() as u64)?;
        writer.pad_full()?;
        Ok(writer)
    }

    /// The data of the next tensor, whole or in pieces; pads after the last byte. Err if more than declared.
    ///
    /// A piece belongs to one tensor. After an error the writer is of no more use.
    ///
    /// # Errors
    /// [`Error::Refused`] for more bytes than declared, [`Error::Io`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.failed {
            return Err(refused("file", "an earlier write failed").in_file(&self.target));
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let Some(slot) = self.plan.slots.get(self.current) else {
            self.failed = true;
            return Err(refused("file", "more data than tensors").in_file(&self.target));
        };
        let left = slot.byte_len - self.written;
        if bytes.len() as u64 > left {
            self.failed = true;
            let reason =
                format!("{} bytes declared, {} more given than that", slot.byte_len, bytes.len() as u64 - left);
            return Err(refused_tensor(&slot.name, reason).in_file(&self.target));
        }
        let result = self.file.write_all(bytes);
        self.check_io(result)?;
        self.written += bytes.len() as u64;
        self.pad_full()
    }

    /// Checks that all data came, syncs, and renames to the target. Returns the file's size.
    ///
    /// # Errors
    /// [`Error::Refused`] if data are missing, [`Error::Io`]; the target is then as it was.
    pub fn finish(self) -> Result<u64> {
        self.complete()?.publish()
    }

    /// The first half of [`GgufWriter::finish`]: all but the rename.
    pub(crate) fn complete(self) -> Result<CompleteFile> {
        if self.failed {
            return Err(refused("file", "an earlier write failed").in_file(&self.target));
        }
        if let Some(slot) = self.plan.slots.get(self.current) {
            let reason = format!("{} bytes declared, only {} given", slot.byte_len, self.written);
            return Err(refused_tensor(&slot.name, reason).in_file(&self.target));
        }
        let target = self.target;
        let temp = self.file.into_inner().map_err(|e| io_error(&target, e.into_error()))?;
        temp.as_file().sync_all().map_err(|e| io_error(&target, e))?;
        Ok(CompleteFile { temp: temp.into_temp_path(), target, len: self.plan.file_len() })
    }

    /// Pads the current tensor if it is complete, and steps over tensors without data.
    fn pad_full(&mut self) -> Result<()> {
        while let Some(slot) = self.plan.slots.get(self.current)
            && slot.byte_len == self.written
        {
            let padding = slot.byte_len.next_multiple_of(self.plan.alignment) - slot.byte_len;
            self.zeros(padding)?;
            self.current += 1;
            self.written = 0;
        }
        Ok(())
    }

    fn zeros(&mut self, count: u64) -> Result<()> {
        let result = std::io::copy(&mut std::io::repeat(0).take(count), &mut self.file);
        self.check_io(result.map(drop))
    }

    fn check_io(&mut self, result: std::io::Result<()>) -> Result<()> {
        result.map_err(|e| {
            self.failed = true;
            io_error(&self.target, e)
        })
    }
}

/// A file that is whole and synced, but still has its temporary name; dropping it removes it. It holds no file handle.
#[derive(Debug)]
pub(crate) struct CompleteFile {
    temp: TempPath,
    target: PathBuf,
    len: u64,
}

impl CompleteFile {
    /// Gives the file its name. Returns its size.
    pub(crate) fn publish(self) -> Result<u64> {
        let target = self.target;
        self.temp.persist(&target).map_err(|e| io_error(&target, e.error))?;
        sync_folder(&target);
        Ok(self.len)
    }
}

/// The file to replace. A symbolic link stays, the file it points to is replaced; a device or folder is not a target.
fn resolve_target(path: &Path) -> Result<PathBuf> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_file() => std::fs::canonicalize(path).map_err(|e| io_error(path, e)),
        Ok(_) => Err(refused("file", "the target is there and is not a regular file").in_file(path)),
        // Not there yet, or not reachable: creating the temporary file tells.
        Err(_) => Ok(path.to_path_buf()),
    }
}

/// The new name is durable only when the folder is. The file is complete either way, so a system that cannot do it is no failure.
fn sync_folder(target: &Path) {
    if cfg!(unix) {
        let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let _ = File::open(folder).and_then(|f| f.sync_all());
    }
}

fn io_error(path: &Path, source: std::io::Error) -> Error {
    Error::Io { path: path.display().to_string(), source }
}
