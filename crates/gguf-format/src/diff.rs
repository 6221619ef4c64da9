//! What two files differ in.

use crate::{ByteOrder, Gguf, Result, TensorInfo, Value, blocks};

/// A key that the files do not have alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KeyDiff<'a> {
    /// The key.
    pub key: &'a str,
    /// Its value in the first file, if it is there.
    pub first: Option<&'a Value>,
    /// Its value in the second file, if it is there.
    pub second: Option<&'a Value>,
}

/// A tensor that the files do not have alike.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorDiff<'a> {
    /// The name.
    pub name: &'a str,
    /// Shape and type in the first file, if it is there.
    pub first: Option<&'a TensorInfo>,
    /// Shape and type in the second file, if it is there.
    pub second: Option<&'a TensorInfo>,
    /// Of two of the same type and shape, how far apart their bytes are.
    pub bytes: Option<BytesDiff>,
    /// Of two of the same shape and of types that have a decoder, how far apart their values are.
    pub values: Option<ValuesDiff>,
}

/// How far apart data of the same type and shape are, compared in little-endian order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BytesDiff {
    /// Number of bytes that differ.
    pub count: u64,
    /// Offset of the first one in the tensor.
    pub first: u64,
}

/// How far apart decoded values are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValuesDiff {
    /// Largest difference; NaN if a value is.
    pub max_abs: f64,
    /// Sum of squared differences over the sum of squares of the first file's values.
    pub nmse: f64,
}

/// What two files differ in. Content is keys with their values and tensors with shape, type and data; all else is layout.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Diff<'a> {
    /// Keys, in the order of the first file, then those that only the second has.
    pub keys: Vec<KeyDiff<'a>>,
    /// Tensors, in the same way.
    pub tensors: Vec<TensorDiff<'a>>,
    /// What else differs: version, byte order, alignment, order of keys or of tensors, size.
    pub layout: Vec<String>,
}

impl Diff<'_> {
    /// Whether both hold the same keys and tensors, in whatever order and layout.
    pub fn is_same_content(&self) -> bool {
        self.keys.is_empty() && self.tensors.is_empty()
    }
}

/// Compares two files.
///
/// ```
/// # use gguf_format::{Gguf, Limits, Metadata, WritePlan};
/// # let file = |name: &str| -> gguf_format::Result<_> {
/// #     let mut metadata = Metadata::new();
/// #     metadata.set("general.name", name);
/// #     Gguf::parse(WritePlan::new(&metadata, &[])?.to_bytes(&[])?, &Limits::default())
/// # };
/// let (a, b) = (file("a")?, file("b")?);
/// let diff = gguf_format::diff::diff(&a, &b)?;
/// assert_eq!(diff.keys[0].key, "general.name");
/// # Ok::<(), gguf_format::Error>(())
/// ```
///
/// # Errors
/// [`Error::NoCodec`](crate::Error::NoCodec) for a tensor of an unknown type in files of different byte order.
pub fn diff<'a, S: AsRef<[u8]>, T: AsRef<[u8]>>(first: &'a Gguf<S>, second: &'a Gguf<T>) -> Result<Diff<'a>> {
    let mut diff = Diff::default();
    let (a, b) = (first.metadata(), second.metadata());
    diff.keys.extend(a.iter().filter_map(|(key, value)| {
        let other = b.get(key);
        (other != Some(value)).then_some(KeyDiff { key, first: Some(value), second: other })
    }));
    let only_second = b.iter().filter(|(key, _)| !a.contains_key(key));
    diff.keys.extend(only_second.map(|(key, value)| KeyDiff { key, first: None, second: Some(value) }));
    for info in first.tensors() {
        match second.tensor(info.name()) {
            None => diff.tensors.push(TensorDiff {
                name: info.name(),
                first: Some(info),
                second: None,
                bytes: None,
                values: None,
            }),
            Some(other) => diff.tensors.extend(compare(first, info, second, other)?),
        }
    }
    let only_second = second.tensors().iter().filter(|info| first.tensor(info.name()).is_none());
    diff.tensors.extend(only_second.map(|info| TensorDiff {
        name: info.name(),
        first: None,
        second: Some(info),
        bytes: None,
        values: None,
    }));
    diff.layout = layout(first, second);
    Ok(diff)
}

/// `None` if the tensors are alike.
fn compare<'a, S: AsRef<[u8]>, T: AsRef<[u8]>>(
    a: &'a Gguf<S>,
    first: &'a TensorInfo,
    b: &'a Gguf<T>,
    second: &'a TensorInfo,
) -> Result<Option<TensorDiff<'a>>> {
    let same_kind = first.shape() == second.shape() && first.ggml_type() == second.ggml_type();
    if same_kind && a.byte_order() == b.byte_order() && a.data(first) == b.data(second) {
        return Ok(None);
    }
    let mut diff =
        TensorDiff { name: first.name(), first: Some(first), second: Some(second), bytes: None, values: None };
    if first.shape() != second.shape() {
        return Ok(Some(diff));
    }
    let (x, y) = match (a.data_in(ByteOrder::Little, first), b.data_in(ByteOrder::Little, second)) {
        // Tensors of an unknown type in files of one order need no turning.
        (Err(_), Err(_)) if same_kind => (a.data(first).into(), b.data(second).into()),
        (x, y) => (x?, y?),
    };
    if same_kind {
        if x == y {
            return Ok(None);
        }
        let differing = || x.iter().zip(y.iter()).enumerate().filter(|(_, (a, b))| a != b);
        // Data of a type without a size may have different lengths: what one has more differs.
        let count = differing().count() as u64 + x.len().abs_diff(y.len()) as u64;
        let first = differing().next().map_or(x.len().min(y.len()), |(at, _)| at) as u64;
        diff.bytes = Some(BytesDiff { count, first });
    }
    diff.values = values(first, &x, second, &y);
    Ok(Some(diff))
}

/// `None` if a type has no decoder.
fn values(a: &TensorInfo, x: &[u8], b: &TensorInfo, y: &[u8]) -> Option<ValuesDiff> {
    // 256 is a whole number of blocks of every type; rows are whole blocks, so that the last piece is, too.
    const PIECE: u64 = 256 * 64;
    let (mut left, mut u, mut v) = (a.element_count(), vec![0f32; PIECE as usize], vec![0f32; PIECE as usize]);
    let (mut x, mut y) = (x, y);
    let (mut max_abs, mut error, mut total) = (0f64, 0f64, 0f64);
    while left > 0 {
        let n = left.min(PIECE);
        let (u, v) = (u.get_mut(..n as usize)?, v.get_mut(..n as usize)?);
        let (head, tail) = x.split_at_checked(usize::try_from(a.ggml_type().bytes_for(n)?).ok()?)?;
        blocks::dequantize(a.ggml_type(), head, u).ok()?;
        x = tail;
        let (head, tail) = y.split_at_checked(usize::try_from(b.ggml_type().bytes_for(n)?).ok()?)?;
        blocks::dequantize(b.ggml_type(), head, v).ok()?;
        y = tail;
        for (&u, &v) in u.iter().zip(&*v) {
            let (u, v) = (f64::from(u), f64::from(v));
            // `max` would drop a NaN; infinities of one sign are no difference.
            let d = if u == v { 0.0 } else { (u - v).abs() };
            max_abs = if d.is_nan() || d > max_abs { d } else { max_abs };
            error += d * d;
            total += u * u;
        }
        left -= n;
    }
    Some(ValuesDiff { max_abs, nmse: if error == 0.0 { 0.0 } else { error / total } })
}

fn layout<S: AsRef<[u8]>, T: AsRef<[u8]>>(a: &Gguf<S>, b: &Gguf<T>) -> Vec<String> {
    let mut found = Vec::new();
    let mut say = |what: &str, a: String, b: String| {
        if a != b {
            found.push(format!("{what}: {a}, {b}"));
        }
    };
    say("version", a.version().to_string(), b.version().to_string());
    say("byte order", a.byte_order().to_string(), b.byte_order().to_string());
    say("alignment", a.alignment().to_string(), b.alignment().to_string());
    say("bytes", a.storage().as_ref().len().to_string(), b.storage().as_ref().len().to_string());
    // Only the order of what both have: that one has more is said elsewhere.
    let common = |keys: &mut dyn Iterator<Item = &str>, other: &dyn Fn(&str) -> bool| -> Vec<String> {
        keys.filter(|k| other(k)).map(str::to_owned).collect()
    };
    let (m, n) = (a.metadata(), b.metadata());
    if common(&mut m.iter().map(|e| e.0), &|k| n.contains_key(k))
        != common(&mut n.iter().map(|e| e.0), &|k| m.contains_key(k))
    {
        found.push("the order of the keys".into());
    }
    if common(&mut a.tensors().iter().map(TensorInfo::name), &|k| b.tensor(k).is_some())
        != common(&mut b.tensors().iter().map(TensorInfo::name), &|k| a.tensor(k).is_some())
    {
        found.push("the order of the tensors".into());
    }
    found
}
