//! `KEY=TYPE:VALUE`, as it stands on the command line.

use gguf_format::Value;

/// A key and what it becomes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Assignment {
    pub(super) key: String,
    pub(super) value: Value,
}

/// `A=B`, both not empty.
pub(super) fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((a, b)) if !a.is_empty() && !b.is_empty() => Ok((a.into(), b.into())),
        _ => Err("two names with `=` between them are needed".into()),
    }
}

pub(super) fn parse_assignment(text: &str) -> Result<Assignment, String> {
    let parts = text.split_once('=').and_then(|(key, rest)| Some((key, rest.split_once(':')?)));
    match parts {
        Some((key, (ty, value))) if !key.is_empty() => {
            let element = ty.strip_prefix("array[").and_then(|rest| rest.strip_suffix(']'));
            let value = match element {
                Some(element) => list(element, value)?,
                None => scalar(ty, value)?,
            };
            Ok(Assignment { key: key.into(), value })
        }
        _ => Err("KEY=TYPE:VALUE is needed, general.name=string:Tiny for example".into()),
    }
}

macro_rules! numbers {
    ($ty:expr, $($name:literal $t:ty),*; $with:ident, $otherwise:expr) => {
        match $ty {
            $($name => $with!($name $t),)*
            ty => $otherwise(ty),
        }
    };
}

fn parse<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| format!("`{text}` is no {name}"))
}

fn unknown<T>(ty: &str) -> Result<T, String> {
    let names = "u8, i8, u16, i16, u32, i32, u64, i64, f32, f64, bool, string, and array[...] of these";
    Err(format!("`{ty}` is no type; the types are {names}"))
}

fn scalar(ty: &str, text: &str) -> Result<Value, String> {
    macro_rules! one {
        ($name:literal $t:ty) => {
            parse::<$t>($name, text).map(Value::from)
        };
    }
    match ty {
        "string" => Ok(text.into()),
        ty => {
            numbers!(ty, "u8" u8, "i8" i8, "u16" u16, "i16" i16, "u32" u32, "i32" i32, "u64" u64, "i64" i64, "f32" f32, "f64" f64,
            "bool" bool; one, unknown)
        }
    }
}

fn list(element: &str, text: &str) -> Result<Value, String> {
    let items = items(text)?;
    macro_rules! all {
        ($name:literal $t:ty) => {
            items.iter().map(|item| parse::<$t>($name, item)).collect::<Result<Vec<_>, _>>().map(Value::from)
        };
    }
    match element {
        "string" => Ok(Value::from(items)),
        ty => {
            numbers!(ty, "u8" u8, "i8" i8, "u16" u16, "i16" i16, "u32" u32, "i32" i32, "u64" u64, "i64" i64, "f32" f32, "f64" f64,
            "bool" bool; all, unknown)
        }
    }
}

/// The texts of a JSON list, or of what commas separate. Nothing is an empty list.
fn items(text: &str) -> Result<Vec<String>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    if !text.starts_with('[') {
        return Ok(text.split(',').map(str::to_owned).collect());
    }
    let values: Vec<serde_json::Value> = serde_json::from_str(text).map_err(|e| format!("no JSON list: {e}"))?;
    let item = |value| match value {
        serde_json::Value::String(s) => Ok(s),
        serde_json::Value::Number(n) => Ok(n.to_string()),
        serde_json::Value::Bool(b) => Ok(b.to_string()),
        other => Err(format!("`{other}` cannot be in an array")),
    };
    values.into_iter().map(item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type() {
        let cases: &[(&str, Value)] = &[
            ("u8:255", 255u8.into()),
            ("i8:-128", (-128i8).into()),
            ("u16:65535", u16::MAX.into()),
            ("i16:-1", (-1i16).into()),
            ("u32:4294967295", u32::MAX.into()),
            ("i32:-7", (-7i32).into()),
            ("u64:18446744073709551615", u64::MAX.into()),
            ("i64:-9223372036854775808", i64::MIN.into()),
            ("f32:1e6", 1e6f32.into()),
            ("f32:-inf", f32::NEG_INFINITY.into()),
            ("f64:0.1", 0.1f64.into()),
            ("bool:true", true.into()),
            ("string:a=b:c, d", "a=b:c, d".into()),
            ("string:", "".into()),
            ("array[i32]:1,-2, 3", [1i32, -2, 3].into()),
            ("array[u8]:", Vec::<u8>::new().into()),
            ("array[f32]:[0.1, 2]", [0.1f32, 2.0].into()),
            ("array[bool]:true,false", [true, false].into()),
            ("array[string]:a,b c", ["a", "b c"].into()),
            ("array[string]:[\"a, b\", \"\", \"c\"]", ["a, b", "", "c"].into()),
            ("array[u64]:[18446744073709551615]", [u64::MAX].into()),
        ];
        for (text, value) in cases {
            let expected = Assignment { key: "k.y".into(), value: value.clone() };
            assert_eq!(parse_assignment(&format!("k.y={text}")), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for (text, words) in [
            ("", "KEY=TYPE:VALUE"),
            ("k", "KEY=TYPE:VALUE"),
            ("k=5", "KEY=TYPE:VALUE"),
            ("=u8:1", "KEY=TYPE:VALUE"),
            ("k=u8:256", "`256` is no u8"),
            ("k=u32:-1", "`-1` is no u32"),
            ("k=bool:1", "`1` is no bool"),
            ("k=f32:x", "`x` is no f32"),
            ("k=str:x", "`str` is no type"),
            ("k=array[u8:1", "`array[u8` is no type"),
            ("k=array[]:1", "`` is no type"),
            ("k=array[array[u8]]:1", "`array[u8]` is no type"),
            ("k=array[u8]:1,,2", "`` is no u8"),
            ("k=array[u8]:[1", "no JSON list"),
            ("k=array[string]:[null]", "`null` cannot be in an array"),
        ] {
            let error = parse_assignment(text).expect_err(text);
            assert!(error.contains(words), "{text}: {error}");
        }
        for text in ["", "a", "=b", "a="] {
            assert!(parse_pair(text).is_err());
        }
        assert_eq!(parse_pair("a=b=c"), Ok(("a".into(), "b=c".into())));
    }
}
