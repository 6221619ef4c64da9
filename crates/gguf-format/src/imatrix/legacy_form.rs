//! The legacy form (`.dat`): `tools/imatrix/imatrix.cpp`, `save_imatrix_legacy` (llama.cpp 0c1e57098). Little-endian i32 throughout:
//!
//! ```text
//! n_entries | per entry: name length, name, chunks, n, f32[n] = mean of x² * chunks | chunk count | dataset length, dataset
//! ```
//! The last two parts are absent in the oldest files.

use super::{Entry, Imatrix, bad_sum, floats};
use crate::parse::{Cursor, Part};
use crate::plan::refused;
use crate::{Error, Result};
use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

pub(super) fn parse(bytes: &[u8]) -> Result<Imatrix> {
    let file = Part::Named("importance matrix");
    let mut cursor = Cursor::new(bytes);
    // An entry takes four numbers, a byte of name and a value at the least.
    let room = (bytes.len() as u64).saturating_sub(4) / 17;
    let count = number(&mut cursor, 1..=room, "GGUF, or a number of entries", file)?;
    let mut entries = BTreeMap::new();
    for _ in 0..count {
        let at = cursor.pos();
        let left = cursor.left();
        let len = number(&mut cursor, 1..=left, "the length of a name", file)?;
        let name = core::str::from_utf8(cursor.take(len, file)?)
            .map_err(|e| file.malformed(at + 4, "a name in UTF-8", e))?
            .to_owned();
        let what = format!("entry `{}`", name.escape_debug());
        let part = Part::Named(&what);
        let chunks = cursor.u32(part)? as i32;
        let left = cursor.left();
        let n = number(&mut cursor, 1..=left / 4, "a number of values", part)?;
        let values_at = cursor.pos();
        let in_sum2 = floats(cursor.take(4 * n, part)?);
        // Values without a count are means already.
        let entry = Entry { in_sum2, counts: vec![u64::try_from(chunks).unwrap_or(0).max(1)] };
        if let Some(bad) = entry.first_bad_sum() {
            return Err(bad_sum(&name, values_at, bad));
        }
        if entries.insert(name, entry).is_some() {
            return Err(part.malformed(at, "a name used once", "it a second time"));
        }
    }
    let mut imatrix = Imatrix { entries, ..Imatrix::default() };
    if cursor.left() > 0 {
        imatrix.chunk_count = number(&mut cursor, 0..=i32::MAX as u64, "a number of chunks", file)? as u32;
    }
    if cursor.left() > 0 {
        let left = cursor.left();
        let len = number(&mut cursor, 0..=left, "the length of the dataset's name", file)?;
        if len > 0 {
            imatrix.datasets.push(String::from_utf8_lossy(cursor.take(len, file)?).into_owned());
        }
    }
    match cursor.left() {
        0 => Ok(imatrix),
        left => Err(file.malformed(cursor.pos(), "the end of the file", format_args!("{left} bytes more"))),
    }
}

fn number(cursor: &mut Cursor<'_>, range: core::ops::RangeInclusive<u64>, of: &str, part: Part<'_>) -> Result<u64> {
    let at = cursor.pos();
    let found = cursor.u32(part)? as i32;
    match u64::try_from(found) {
        Ok(n) if range.contains(&n) => Ok(n),
        _ => Err(part.malformed(at, format!("{of} from {} to {}", range.start(), range.end()), found)),
    }
}

pub(super) fn to_bytes(imatrix: &Imatrix) -> Result<Vec<u8>> {
    imatrix.check()?;
    let mut body = Vec::new();
    let mut stored = 0usize;
    for (name, entry) in &imatrix.entries {
        let most = entry.counts.iter().copied().max().unwrap_or(0);
        if most == 0 {
            continue;
        }
        stored += 1;
        // Rounded up, so that a part of a chunk counts.
        let chunks = most.div_ceil(u64::from(imatrix.chunk_size.max(1)));
        push_number(&mut body, name, name.len() as u64)?;
        body.extend_from_slice(name.as_bytes());
        push_number(&mut body, name, chunks)?;
        push_number(&mut body, name, entry.in_sum2.len() as u64)?;
        for mean in entry.importance().unwrap_or_default() {
            body.extend_from_slice(&(mean * chunks as f32).to_le_bytes());
        }
    }
    if stored == 0 {
        return Err(refused("importance matrix", "no entry saw a token"));
    }
    let mut out = Vec::new();
    push_number(&mut out, "number of entries", stored as u64)?;
    out.append(&mut body);
    push_number(&mut out, "number of chunks", imatrix.chunk_count.into())?;
    let dataset = imatrix.datasets.last().map_or("", String::as_str);
    push_number(&mut out, "dataset", dataset.len() as u64)?;
    out.extend_from_slice(dataset.as_bytes());
    Ok(out)
}

fn push_number(out: &mut Vec<u8>, of: &str, n: u64) -> Result<(), Error> {
    let n =
        i32::try_from(n).map_err(|_| refused(of, format!("{n} is above 2^31 - 1, the most the legacy form holds")))?;
    out.extend_from_slice(&n.to_le_bytes());
    Ok(())
}
