//! Importance of input channels, from our statistics or from llama.cpp's importance matrix, and back.

use super::{CalibrationSet, Detail, InputStats, SiteInfo, StatsFile};
use crate::{Error, Result};
use gguf_format::imatrix::{Entry, Imatrix};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// Reads the importance (mean x² of every input channel) by the name of the weight (`blk.0.attn_q.weight`), from a file of our statistics
/// or from llama.cpp's importance matrix in GGUF or the legacy form; the file's first bytes tell which.
///
/// # Errors
/// [`Error::Io`]; [`Error::Malformed`] or [`Error::Gguf`] if the file is none of them or has a defect.
pub fn load_importance(path: impl AsRef<Path>) -> Result<BTreeMap<String, Vec<f32>>> {
    Ok(load_importance_and_matrix(path.as_ref())?.0)
}

/// As [`load_importance`], with llama.cpp's matrix where the file is one: it names its text and chunks.
pub(crate) fn load_importance_and_matrix(path: &Path) -> Result<(BTreeMap<String, Vec<f32>>, Option<Imatrix>)> {
    if !is_safetensors(path)? {
        let imatrix = Imatrix::open(path).map_err(|e| match e {
            // The variant names the file already.
            gguf_format::Error::InFile { source, .. } => Error::gguf(path, *source),
            e => Error::gguf(path, e),
        })?;
        let entries = imatrix.entries.iter();
        let importance = entries.filter_map(|(name, e)| Some((name.clone(), e.importance()?))).collect();
        return Ok((importance, Some(imatrix)));
    }
    let mut file = StatsFile::open(path)?;
    let mut importance = BTreeMap::new();
    for (input, weights) in file.inputs().clone() {
        let values = file.stats(&input, Detail::Diagonal)?.importance();
        importance.extend(weights.into_iter().map(|w| (w, values.clone())));
    }
    Ok((importance, None))
}

/// llama.cpp's importance matrix: for every weight the sum over all tokens of the square of each input channel, and the number of tokens. A chunk
/// is a calibration sequence.
pub fn to_imatrix<'a>(
    stats: impl IntoIterator<Item = (&'a SiteInfo, &'a InputStats)>,
    set: &CalibrationSet,
) -> Imatrix {
    let mut entries = BTreeMap::new();
    for (info, stats) in stats {
        let entry =
            Entry { in_sum2: stats.sum_squares().iter().map(|&v| v as f32).collect(), counts: vec![stats.count()] };
        entries.extend(info.site.weight_names().into_iter().map(|name| (name, entry.clone())));
    }
    Imatrix {
        datasets: vec![set.text_name.clone()],
        chunk_count: u32::try_from(set.sequences.len()).unwrap_or(u32::MAX),
        chunk_size: u32::try_from(set.seq_len).unwrap_or(u32::MAX),
        entries,
    }
}

/// A safetensors file starts with the length of its header in eight bytes and a brace; a legacy matrix never has a brace there,
/// because its ninth byte is the first letter of a weight's name.
fn is_safetensors(path: &Path) -> Result<bool> {
    let mut start = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
    file.take(9).read_to_end(&mut start).map_err(|e| Error::io(path, e))?;
    Ok(start.get(8) == Some(&b'{') && !start.starts_with(b"GGUF"))
}
