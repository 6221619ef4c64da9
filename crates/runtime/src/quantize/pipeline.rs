//! Reading, quantizing and writing at the same time.
//!
//! One thread reads slabs of rows, the rayon pool quantizes them, one thread writes. The channels between them hold [`AHEAD`] slabs, and
//! buffers go round, so memory does not grow with the model. Slabs are read, not mapped: pages of a map would count as this process's
//! memory until the system takes them back.

use super::QuantizePlan;
use super::rows::{RowError, RowJob, first_not_finite};
use crate::convert::{ModelSource, PackedReader, Place, SourceTensor};
use crate::{Error, Result};
use gguf_format::GgufWriter;
use quant_core::error_metrics::{ErrorAccumulator, ErrorMetrics};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Stored bytes read at once, give or take a row.
const SLAB_BYTES: u64 = 8 << 20;

/// Slabs that wait between two stages.
const AHEAD: usize = 2;

/// How far a run is.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// The tensor at work.
    pub tensor: &'a str,
    /// Its place in the file.
    pub index: usize,
    /// Tensors there are.
    pub count: usize,
    /// Bytes of the source that are done.
    pub done: u64,
    /// Bytes of the source.
    pub total: u64,
}

/// A piece of a tensor as it is stored.
struct Slab {
    tensor: usize,
    first_row: u64,
    bytes: Vec<u8>,
    last: bool,
}

/// Buffers that are free to be filled again.
#[derive(Default)]
struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    fn take(&self) -> Vec<u8> {
        self.0.lock().ok().and_then(|mut free| free.pop()).unwrap_or_default()
    }

    fn give(&self, buffer: Vec<u8>) {
        if let Ok(mut free) = self.0.lock() {
            free.push(buffer);
        }
    }
}

/// Runs the plan; returns the writer, all data written, and each tensor's distance from its source where asked for.
pub(super) fn run(
    plan: &QuantizePlan<'_>,
    writer: GgufWriter,
    out: &Path,
    observer: &(dyn Fn(Progress<'_>) -> ControlFlow<()> + Sync),
) -> Result<(GgufWriter, Vec<Option<ErrorMetrics>>)> {
    let buffers = &Buffers::default();
    std::thread::scope(|scope| {
        let (to_compute, slabs) = sync_channel(AHEAD);
        let (to_write, pieces) = sync_channel(AHEAD);
        scope.spawn(move || read_all(plan, buffers, &to_compute));
        let writing = scope.spawn(move || write_all(writer, &pieces, buffers));
        let computed = compute_all(plan, &slabs, &to_write, buffers, observer);
        // The other threads end when their channels do.
        drop((slabs, to_write));
        let writer =
            writing.join().map_err(|_| Error::io(out, std::io::Error::other("the writing thread panicked")))?;
        // A failed write stops the computing too, and is the cause.
        let writer = writer.map_err(|e| Error::gguf(out, e))?;
        Ok((writer, computed?))
    })
}

fn read_all(plan: &QuantizePlan<'_>, buffers: &Buffers, to_compute: &SyncSender<Result<Slab>>) {
    let mut open: Option<(usize, File)> = None;
    let packed = match PackedReader::new(plan.source) {
        Ok(packed) => packed,
        Err(e) => {
            let _ = to_compute.send(Err(e));
            return;
        }
    };
    for tensor in 0..plan.source.tensors.len() {
        if let Err(e) = read_tensor(plan, tensor, &packed, &mut open, buffers, to_compute) {
            let _ = to_compute.send(Err(e));
            return;
        }
    }
}

/// Sends the slabs of one tensor; ends early, without an error, when nobody listens any more.
fn read_tensor(
    plan: &QuantizePlan<'_>,
    index: usize,
    packed: &PackedReader<'_>,
    open: &mut Option<(usize, File)>,
    buffers: &Buffers,
    to_compute: &SyncSender<Result<Slab>>,
) -> Result<()> {
    let tensor = &plan.source.tensors[index];
    let total = stored_bytes(plan.source, tensor)?;
    let rows = tensor.rows();
    let row_bytes = total.checked_div(rows).unwrap_or(0);
    // What is copied needs no whole rows.
    let copied = is_copied(plan, index);
    let rows_at_once = (SLAB_BYTES / row_bytes.max(1)).max(1).next_multiple_of(tensor.order.group());
    let slab_bytes = if copied { SLAB_BYTES } else { rows_at_once.saturating_mul(row_bytes) }.max(1);
    // One module at a time is unpacked.
    let made = match &tensor.place {
        Place::Packed { module, order, .. } => packed.bytes(tensor, module, *order)?,
        _ => Vec::new(),
    };
    let mut at = 0;
    while at < total {
        let length = slab_bytes.min(total - at);
        let mut bytes = buffers.take();
        bytes.resize(length as usize, 0);
        match &tensor.place {
            Place::Memory(all) => {
                bytes.copy_from_slice(all.get(at as usize..(at + length) as usize).unwrap_or_default())
            }
            Place::Packed { .. } => match made.get(at as usize..(at + length) as usize) {
                Some(part) => bytes.copy_from_slice(part),
                None => return Err(Error::Usage(format!("tensor `{}`: {} bytes of {total}", tensor.name, made.len()))),
            },
            Place::File { file, offset } => read_exact(plan.source, *file, offset + at, &mut bytes, open)?,
        }
        let first_row = at.checked_div(row_bytes).unwrap_or(0);
        at += length;
        let slab = Slab { tensor: index, first_row, bytes, last: at == total };
        if to_compute.send(Ok(slab)).is_err() {
            break;
        }
    }
    Ok(())
}

fn read_exact(
    source: &ModelSource,
    index: usize,
    offset: u64,
    bytes: &mut [u8],
    open: &mut Option<(usize, File)>,
) -> Result<()> {
    let path = source.files.get(index).ok_or_else(|| Error::Usage(format!("no source file {index}")))?;
    let io = |e| Error::io(path, e);
    if open.as_ref().is_none_or(|(i, _)| *i != index) {
        *open = Some((index, File::open(path).map_err(io)?));
    }
    let Some((_, file)) = open else { return Ok(()) };
    file.seek(SeekFrom::Start(offset)).map_err(io)?;
    file.read_exact(bytes).map_err(io)
}

fn write_all(mut writer: GgufWriter, pieces: &Receiver<Vec<u8>>, buffers: &Buffers) -> gguf_format::Result<GgufWriter> {
    for piece in pieces {
        writer.write(&piece)?;
        buffers.give(piece);
    }
    Ok(writer)
}

fn compute_all(
    plan: &QuantizePlan<'_>,
    slabs: &Receiver<Result<Slab>>,
    to_write: &SyncSender<Vec<u8>>,
    buffers: &Buffers,
    observer: &(dyn Fn(Progress<'_>) -> ControlFlow<()> + Sync),
) -> Result<Vec<Option<ErrorMetrics>>> {
    let source = plan.source;
    let mut errors: Vec<Option<ErrorMetrics>> = vec![None; source.tensors.len()];
    let mut of_tensor = ErrorAccumulator::new();
    let total = source.tensors.iter().try_fold(0u64, |sum, t| Ok::<_, Error>(sum + stored_bytes(source, t)?))?;
    let mut done = 0;
    for slab in slabs {
        let slab = slab?;
        let tensor = &source.tensors[slab.tensor];
        let length = slab.bytes.len() as u64;
        let piece = if is_copied(plan, slab.tensor) {
            check_finite(source, tensor, &slab)?;
            slab.bytes
        } else {
            let ty = plan.choices[slab.tensor].ty;
            let fold = plan.fold(tensor);
            let job = RowJob::new(tensor, ty, plan.importance(tensor), fold.as_ref(), plan.options.measure_errors)
                .ok_or_else(|| Error::Unsupported(format!("tensor `{}`: rows of {ty}", tensor.name)))?;
            let rows = slab.bytes.len().checked_div(job.stored_bytes).unwrap_or(0);
            let mut piece = buffers.take();
            piece.resize(rows * job.bytes, 0);
            let run = job.run(slab.first_row, &slab.bytes, &mut piece);
            of_tensor.merge(&run.map_err(|e| row_error(source, tensor, e))?);
            buffers.give(slab.bytes);
            piece
        };
        if to_write.send(piece).is_err() {
            // The writer has the error.
            return Ok(errors);
        }
        if slab.last {
            let metrics = std::mem::take(&mut of_tensor).finish();
            errors[slab.tensor] = plan.options.measure_errors.then_some(metrics);
        }
        done += length;
        let progress = Progress { tensor: &tensor.name, index: slab.tensor, count: source.tensors.len(), done, total };
        if observer(progress).is_break() {
            return Err(Error::Usage("stopped".to_owned()));
        }
    }
    Ok(errors)
}

/// The same type, the same order, no scales: bytes as they are.
fn is_copied(plan: &QuantizePlan<'_>, tensor: usize) -> bool {
    let t = &plan.source.tensors[tensor];
    t.stored == plan.choices[tensor].ty && t.order.group() == 1 && plan.fold(t).is_none()
}

fn stored_bytes(source: &ModelSource, tensor: &SourceTensor) -> Result<u64> {
    tensor.stored.bytes_for(tensor.elements()).ok_or_else(|| {
        let (path, what) = (path_of(source, tensor), format!("tensor `{}`", tensor.name));
        Error::malformed(path, what, "a type of known size that fits its shape", tensor.stored.to_string())
    })
}

/// The file that holds a tensor.
fn path_of<'a>(source: &'a ModelSource, tensor: &SourceTensor) -> &'a Path {
    match tensor.place {
        Place::File { file, .. } => source.files.get(file).unwrap_or(&source.path),
        Place::Memory(_) | Place::Packed { .. } => &source.path,
    }
}

fn check_finite(source: &ModelSource, tensor: &SourceTensor, slab: &Slab) -> Result<()> {
    match first_not_finite(tensor.stored, &slab.bytes) {
        None => Ok(()),
        Some(index) => {
            let found = format!("NaN or infinity at value {index} after row {}", slab.first_row);
            Err(Error::malformed(path_of(source, tensor), format!("tensor `{}`", tensor.name), "finite values", found))
        }
    }
}

/// Names the tensor, row and column of a value that cannot be quantized.
fn row_error(source: &ModelSource, tensor: &SourceTensor, error: RowError) -> Error {
    let place = |index: usize| {
        let row_len = tensor.row_len().max(1);
        format!("row {}, column {}", error.first_row + index as u64 / row_len, index as u64 % row_len)
    };
    let (expected, found) = match &error.source {
        gguf_format::Error::NonFinite { index, value } => {
            ("finite values".to_owned(), format!("{value} at {}", place(*index)))
        }
        gguf_format::Error::Overflow { ty, index, value } => {
            (format!("values in the range of {ty}"), format!("{value} at or near {}", place(*index)))
        }
        other => ("rows that can be quantized".to_owned(), other.to_string()),
    };
    Error::malformed(path_of(source, tensor), format!("tensor `{}`", tensor.name), expected, found)
}
