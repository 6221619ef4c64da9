//! Where the tensors of a file lie: one behind the other, inside the file, none over another.

use super::Rule;
use super::scan::Scan;

/// What the header says about one tensor, as far as it goes on.
pub(super) struct Placed {
    pub(super) what: String,
    /// Where its offset is written.
    pub(super) at: usize,
    /// From the start of the data section.
    pub(super) offset: u64,
    /// `None` for a type without a size.
    pub(super) bytes: Option<u64>,
    pub(super) has_elements: bool,
}

impl Scan<'_> {
    /// Whether the tensors lie where they should.
    pub(super) fn place(&mut self, tensors: &[Placed], alignment: u64) {
        let (header, len) = (self.pos as u64, self.bytes.len() as u64);
        let start = if tensors.is_empty() { header } else { header.next_multiple_of(alignment) };
        if start > len {
            let message = format!("the data section should start at {start}, the file has {len} bytes");
            self.found(Rule::NoDataSection, "file", len, message);
        }
        // Where ggml expects the next tensor; `None` once it cannot be told.
        let mut next = Some(0u64);
        for t in tensors {
            if let Some(next) = next
                && t.offset != next
            {
                let message = format!("at {} of the data section, not at {next} behind the tensor before it", t.offset);
                self.found(Rule::OffsetNotNext, &t.what, t.at as u64, message);
            }
            next = t.bytes.and_then(|b| b.checked_next_multiple_of(alignment)).and_then(|b| t.offset.checked_add(b));
            self.bounds(t, start, len);
        }
        self.overlaps(tensors);
        let end = tensors.iter().map(|t| t.bytes.and_then(|b| start.checked_add(t.offset)?.checked_add(b)));
        let Some(end) = end.collect::<Option<Vec<u64>>>().map(|ends| ends.into_iter().max().unwrap_or(start)) else {
            return;
        };
        let padded = if tensors.is_empty() { end } else { end.checked_next_multiple_of(alignment).unwrap_or(end) };
        if end <= len && padded > len {
            let message = format!("{len} bytes, {padded} with the padding of the last tensor");
            self.found(Rule::LastPaddingMissing, "file", len, message);
        } else if len > padded {
            self.found(Rule::BytesBehind, "file", padded, format!("{} bytes behind the end of the data", len - padded));
        }
    }

    fn bounds(&mut self, t: &Placed, start: u64, len: u64) {
        let bytes = t.bytes.unwrap_or(u64::from(t.has_elements));
        let end = start.checked_add(t.offset).and_then(|at| at.checked_add(bytes));
        let (rule, bad) = match bytes {
            0 => (Rule::EmptyPastEnd, end.is_none() || t.offset > len),
            _ => (Rule::DataPastEnd, end.is_none_or(|end| end > len)),
        };
        if bad {
            let message = format!("{bytes} bytes at {start} + {}, in a file of {len}", t.offset);
            self.found(rule, &t.what, t.at as u64, message);
        }
    }

    fn overlaps(&mut self, tensors: &[Placed]) {
        let mut order: Vec<&Placed> = tensors.iter().collect();
        let has_data = |t: &Placed| t.bytes.map_or(t.has_elements, |b| b != 0);
        // Of tensors at one place, those without data come first.
        order.sort_by_key(|t| (t.offset, has_data(t)));
        for pair in order.windows(2) {
            let [t, behind] = pair else { continue };
            // The data of a type without a size reach to the next tensor, but there must be some.
            let bytes = t.bytes.unwrap_or(u64::from(t.has_elements));
            if t.offset.saturating_add(bytes) > behind.offset {
                let message = format!(
                    "{bytes} bytes at {} of the data section, where {} begins at {}",
                    t.offset, behind.what, behind.offset
                );
                let (what, at) = (t.what.clone(), t.at as u64);
                self.found(Rule::Overlap, &what, at, message);
            }
        }
    }
}
