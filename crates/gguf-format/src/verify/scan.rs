//! The walk over a file that goes on where a reader would stop.

use super::place::Placed;
use super::{Finding, Report, Rule};
use crate::tensor_info::element_count;
use crate::value::ValueType;
use crate::{GgmlType, Limits};
use std::collections::HashSet;

pub(super) fn scan(file: &[u8]) -> Report {
    let mut scan = Scan { bytes: file, pos: 0, big: false, short: false, report: Report::default() };
    // `None` where nothing behind can be told any more; what is wrong there is in the report.
    let _ = scan.file();
    scan.report
}

pub(super) struct Scan<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) pos: usize,
    /// Big-endian numbers.
    big: bool,
    /// Lengths of 32 bits, as in version 1.
    short: bool,
    report: Report,
}

impl<'a> Scan<'a> {
    pub(super) fn found(&mut self, rule: Rule, what: &str, offset: u64, message: impl Into<String>) {
        self.report.add(Finding { rule, what: what.into(), offset, message: message.into() });
    }

    fn left(&self) -> u64 {
        (self.bytes.len() - self.pos) as u64
    }

    fn take(&mut self, len: u64, what: &str) -> Option<&'a [u8]> {
        let end = usize::try_from(len).ok().and_then(|len| self.pos.checked_add(len));
        match end.and_then(|end| self.bytes.get(self.pos..end)) {
            Some(bytes) => {
                self.pos += bytes.len();
                Some(bytes)
            }
            None => {
                let message = format!("{len} bytes wanted, {} left", self.left());
                self.found(Rule::EndsEarly, what, self.pos as u64, message);
                None
            }
        }
    }

    fn u32(&mut self, what: &str) -> Option<u32> {
        let bytes = *self.take(4, what)?.first_chunk()?;
        Some(if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn u64(&mut self, what: &str) -> Option<u64> {
        let bytes = *self.take(8, what)?.first_chunk()?;
        Some(if self.big { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) })
    }

    /// Lengths, counts and dimensions: 32 bits in version 1.
    fn length(&mut self, what: &str) -> Option<u64> {
        if self.short { self.u32(what).map(u64::from) } else { self.u64(what) }
    }

    /// A number of things that take at least `each` bytes.
    fn count(&mut self, each: u64, of: &str, what: &str) -> Option<u64> {
        let at = self.pos as u64;
        let count = self.length(what)?;
        let room = self.left() / each;
        if count > room {
            self.found(
                Rule::EndsEarly,
                what,
                at,
                format!("{count} {of}, but the file has room for {room} at the most"),
            );
            return None;
        }
        Some(count)
    }

    fn string(&mut self, what: &str) -> Option<&'a [u8]> {
        let len = self.count(1, "bytes of string", what)?;
        self.take(len, what)
    }

    fn file(&mut self) -> Option<()> {
        let magic = self.take(4, "header")?;
        if magic != b"GGUF" {
            let found = String::from_utf8_lossy(magic).into_owned();
            self.found(Rule::BadMagic, "header", 0, format!("{found:?} in place of the magic bytes \"GGUF\""));
            return None;
        }
        let version = self.u32("header")?;
        self.big = version & 0xffff == 0 && version != 0;
        let version = if self.big { version.swap_bytes() } else { version };
        self.report.version = Some(version);
        self.report.big_endian = self.big;
        if !(1..=3).contains(&version) {
            self.found(Rule::BadVersion, "header", 4, format!("version {version}; there are 1, 2 and 3"));
            return None;
        }
        if self.big {
            self.found(Rule::BigEndian, "header", 4, "big-endian numbers");
        }
        self.short = version == 1;
        if self.short {
            self.found(Rule::Version1, "header", 4, "version 1");
        }
        let prefix = if self.short { 4 } else { 8 };
        let at = self.pos as u64;
        let tensors = self.count(prefix + 16, "tensors", "header")?;
        let keys = self.count(prefix + 5, "keys", "header")?;
        let limits = Limits::default();
        for (count, limit, of) in [(tensors, limits.tensors, "tensors"), (keys, limits.metadata, "keys")] {
            if count > limit {
                self.found(Rule::BeyondLimits, "header", at, format!("{count} {of}, more than {limit}"));
            }
        }
        let alignment = self.keys(keys)?;
        let placed = self.tensor_infos(tensors, alignment)?;
        if self.pos as u64 > limits.header_bytes {
            let message = format!("a header of {} bytes, more than {}", self.pos, limits.header_bytes);
            self.found(Rule::BeyondLimits, "header", self.pos as u64, message);
        }
        self.place(&placed, alignment?);
        Some(())
    }

    /// Walks over the keys. The alignment, or `None` inside if it is none.
    fn keys(&mut self, count: u64) -> Option<Option<u64>> {
        let mut alignment = Some(32);
        let mut seen = HashSet::new();
        for number in 0..count {
            let at = self.pos as u64;
            let key = self.string(&format!("key number {number}"))?;
            let what = format!("key `{}`", String::from_utf8_lossy(key).escape_debug());
            if key.is_empty() {
                self.found(Rule::KeyEmpty, &format!("key number {number}"), at, "an empty key");
            }
            if key.len() as u64 > Limits::default().key_bytes {
                self.found(Rule::KeyTooLong, &format!("key number {number}"), at, format!("{} bytes long", key.len()));
            }
            if std::str::from_utf8(key).is_err() {
                self.found(Rule::KeyNotUtf8, &what, at, "not UTF-8");
            }
            if matches!(key, b"GGUF.version" | b"GGUF.tensor_count" | b"GGUF.kv_count") {
                self.found(Rule::KeyReserved, &what, at, "a name that gguf-py uses for the header itself");
            }
            if !seen.insert(key) {
                self.found(Rule::DuplicateKey, &what, at, "the key a second time");
            }
            let type_at = self.pos as u64;
            let ty = ValueType(self.u32(&what)?);
            let start = self.pos;
            self.value(ty, &what, type_at, 0)?;
            if key == crate::header::ALIGNMENT_KEY.as_bytes() {
                let value = self.bytes.get(start..self.pos).and_then(|b| b.first_chunk().copied());
                let value = value.map(|b| if self.big { u32::from_be_bytes(b) } else { u32::from_le_bytes(b) });
                alignment = self.alignment(ty, value, type_at);
            }
            self.report.keys += 1;
        }
        Some(alignment)
    }

    fn alignment(&mut self, ty: ValueType, value: Option<u32>, at: u64) -> Option<u64> {
        let what = "key `general.alignment`";
        match value {
            Some(value) if ty == ValueType::U32 => {
                if value == 0 {
                    self.found(Rule::AlignmentZero, what, at, "an alignment of 0");
                } else if !value.is_power_of_two() {
                    self.found(Rule::AlignmentNotPower, what, at, format!("{value} is not a power of two"));
                }
                value.is_power_of_two().then_some(value.into())
            }
            _ => {
                self.found(Rule::AlignmentType, what, at, format!("{ty} in place of u32"));
                None
            }
        }
    }

    /// Walks over a value of type `ty`, whose number is at `at`, in `depth` arrays.
    fn value(&mut self, ty: ValueType, what: &str, at: u64, depth: u32) -> Option<()> {
        match ty {
            ValueType::STRING => self.string(what).map(drop),
            ValueType::ARRAY => self.array(what, depth + 1),
            ValueType::BOOL => {
                let value = self.take(1, what)?;
                self.bools(value, what);
                Some(())
            }
            _ => match ty.fixed_size() {
                Some(size) => self.take(size as u64, what).map(drop),
                None => {
                    self.found(Rule::BadValueType, what, at, format!("value type {}, which is none", ty.0));
                    None
                }
            },
        }
    }

    fn bools(&mut self, values: &[u8], what: &str) {
        let start = (self.pos - values.len()) as u64;
        if let Some(i) = values.iter().position(|&b| b > 1) {
            let message = format!("a boolean of {}", values.get(i).copied().unwrap_or_default());
            self.found(Rule::BoolNotBit, what, start + i as u64, message);
        }
    }

    fn array(&mut self, what: &str, depth: u32) -> Option<()> {
        let at = self.pos as u64;
        match depth {
            // Said once a level, not once an array, would need another walk; the report has a limit.
            65.. => {
                self.found(Rule::TooDeepArray, what, at, "arrays nested more than 64 deep");
                return None;
            }
            5 => self.found(Rule::DeepArray, what, at, "arrays nested more than 4 deep"),
            2 => self.found(Rule::NestedArray, what, at, "an array of arrays"),
            _ => {}
        }
        let element = ValueType(self.u32(what)?);
        let prefix = if self.short { 4 } else { 8 };
        let each = match element {
            ValueType::STRING => prefix,
            ValueType::ARRAY => 4 + prefix,
            _ => element.fixed_size().unwrap_or(1) as u64,
        };
        let count = self.count(each, "elements", what)?;
        match element {
            ValueType::STRING => (0..count).try_for_each(|_| self.string(what).map(drop)),
            ValueType::ARRAY => {
                if count == 0 && depth == 1 {
                    self.found(Rule::NestedArray, what, at, "an array of arrays");
                }
                (0..count).try_for_each(|_| self.array(what, depth + 1))
            }
            ValueType::BOOL => {
                let values = self.take(count, what)?;
                self.bools(values, what);
                Some(())
            }
            _ if element.fixed_size().is_none() => self.value(element, what, at, depth),
            _ => self.take(count * each, what).map(drop),
        }
    }

    fn tensor_infos(&mut self, count: u64, alignment: Option<u64>) -> Option<Vec<Placed>> {
        let mut placed = Vec::new();
        let mut seen = HashSet::new();
        for number in 0..count {
            let at = self.pos as u64;
            let name = self.string(&format!("tensor number {number}"))?;
            let what = format!("tensor `{}`", String::from_utf8_lossy(name).escape_debug());
            if name.len() > 63 {
                self.found(Rule::NameTooLong, &what, at, format!("a name of {} bytes, more than 63", name.len()));
            }
            if std::str::from_utf8(name).is_err() {
                self.found(Rule::NameNotUtf8, &what, at, "a name that is not UTF-8");
            }
            if name.contains(&0) {
                self.found(Rule::NameNul, &what, at, "a NUL in the name, where ggml's name ends");
            }
            if !seen.insert(name) {
                self.found(Rule::DuplicateTensor, &what, at, "the name a second time");
            }
            placed.push(self.tensor_info(what, alignment)?);
            self.report.tensors += 1;
        }
        Some(placed)
    }

    /// Dimensions, type and offset.
    fn tensor_info(&mut self, what: String, alignment: Option<u64>) -> Option<Placed> {
        let at = self.pos as u64;
        let dims = self.u32(&what)?;
        if dims > 4 {
            self.found(Rule::TooManyDims, &what, at, format!("{dims} dimensions, more than 4"));
        }
        if dims == 0 {
            self.found(Rule::ScalarTensor, &what, at, "no dimensions, which candle does not take");
        }
        let each = if self.short { 4 } else { 8 };
        if u64::from(dims) > self.left() / each {
            self.found(Rule::EndsEarly, &what, at, format!("{dims} dimensions, {} bytes left", self.left()));
            return None;
        }
        let mut shape = Vec::new();
        for _ in 0..dims {
            shape.push(self.length(&what)?);
        }
        shape.reverse();
        let type_at = self.pos as u64;
        let ty = GgmlType::from_id(self.u32(&what)?);
        let offset_at = self.pos;
        let offset = self.u64(&what)?;
        if let Some(alignment) = alignment
            && !offset.is_multiple_of(alignment)
        {
            let message = format!("offset {offset}, which is not a multiple of {alignment}");
            self.found(Rule::OffsetNotAligned, &what, offset_at as u64, message);
        }
        let elements = element_count(&shape);
        if elements.is_none() {
            let message = format!("the product of {shape:?} is above 2^63 - 1");
            self.found(Rule::TooLarge, &what, at, message);
        }
        let bytes = self.type_and_size(ty, &shape, elements, &what, type_at);
        Some(Placed { what, at: offset_at, offset, bytes, has_elements: elements != Some(0) })
    }

    fn type_and_size(
        &mut self,
        ty: GgmlType,
        shape: &[u64],
        elements: Option<u64>,
        what: &str,
        at: u64,
    ) -> Option<u64> {
        let Some(layout) = ty.layout() else {
            self.found(Rule::UnknownTensorType, what, at, format!("tensor type {}, which ggml does not have", ty.id()));
            return None;
        };
        if ty == GgmlType::Q2_0 {
            self.found(Rule::NotInGgufPy, what, at, format!("{ty}, which gguf-py does not know"));
        }
        if !in_candle(ty) {
            self.found(Rule::NotInCandle, what, at, format!("{ty}, which candle does not know"));
        }
        let (row, block) = (shape.last().copied().unwrap_or(1), u64::from(layout.block_len));
        let elements = elements?;
        if !row.is_multiple_of(block) {
            self.found(
                Rule::PartialRow,
                what,
                at,
                format!("rows of {row} values, which are not whole blocks of {block} for {ty}"),
            );
            return None;
        }
        let bytes = ty.bytes_for(elements);
        if bytes.is_none() {
            self.found(Rule::TooLarge, what, at, format!("{shape:?} of {ty} are more than 2^64 bytes"));
        }
        bytes
    }
}

/// The types that candle-core 0.11 reads.
fn in_candle(ty: GgmlType) -> bool {
    matches!(
        ty,
        GgmlType::F32
            | GgmlType::F16
            | GgmlType::BF16
            | GgmlType::Q4_0
            | GgmlType::Q4_1
            | GgmlType::Q5_0
            | GgmlType::Q5_1
            | GgmlType::Q8_0
            | GgmlType::Q2_K
            | GgmlType::Q3_K
            | GgmlType::Q4_K
            | GgmlType::Q5_K
            | GgmlType::Q6_K
    )
}
