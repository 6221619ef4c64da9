//! What templates expect of Python: methods of strings, dictionaries and lists, and how values print.

use minijinja::value::{Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, Output, State};
use std::borrow::Cow;

/// Calls a Python method that minijinja does not have.
pub(crate) fn method(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let found = match value.kind() {
        ValueKind::String => string_method(state, value.as_str().unwrap_or_default(), name, args)?,
        ValueKind::Map => map_method(value, name, args)?,
        ValueKind::Seq => list_method(value, name, args)?,
        _ => None,
    };
    found.ok_or_else(|| Error::new(ErrorKind::UnknownMethod, format!("{} has no method named {name}", value.kind())))
}

fn string_method(state: &mut State<'_, '_>, text: &str, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    // Every method reads the text, and most make one like it.
    state.consume_fuel(1 + text.len() as u64 / 64)?;
    Ok(Some(match name {
        "upper" => no_args(args).map(|()| Value::from(text.to_uppercase()))?,
        "lower" => no_args(args).map(|()| Value::from(text.to_lowercase()))?,
        "capitalize" => no_args(args).map(|()| Value::from(capitalize(text)))?,
        "title" => no_args(args).map(|()| Value::from(title(text)))?,
        "strip" | "lstrip" | "rstrip" => {
            let (set,): (Option<&str>,) = from_args(args)?;
            let strip = |c: char| set.map_or(c.is_whitespace(), |set| set.contains(c));
            let stripped = match name {
                "strip" => text.trim_matches(strip),
                "lstrip" => text.trim_start_matches(strip),
                _ => text.trim_end_matches(strip),
            };
            Value::from(stripped)
        }
        "startswith" => Value::from(affixes(args)?.iter().any(|affix| text.starts_with(affix.as_str()))),
        "endswith" => Value::from(affixes(args)?.iter().any(|affix| text.ends_with(affix.as_str()))),
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "replace" => {
            let (old, new, count): (&str, &str, Option<i64>) = from_args(args)?;
            let count = count.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
            // Paid for before it is made.
            let matches = text.matches(old).count().min(count);
            state.consume_fuel((matches as u64).saturating_mul(new.len() as u64) / 64)?;
            Value::from(text.replacen(old, new, count))
        }
        "split" | "rsplit" => {
            let (separator, limit): (Option<&str>, Option<i64>) = from_args(args)?;
            let limit = limit.and_then(|n| usize::try_from(n).ok());
            let parts = split(text, separator, limit, name == "rsplit")?;
            state.consume_fuel(parts.len() as u64)?;
            Value::from(parts)
        }
        "splitlines" => {
            let (keep_ends,): (Option<bool>,) = from_args(args)?;
            let lines = lines(text, keep_ends.unwrap_or(false));
            state.consume_fuel(lines.len() as u64)?;
            Value::from(lines)
        }
        "join" => {
            let (items,): (&Value,) = from_args(args)?;
            let mut joined = String::new();
            for (i, item) in items.try_iter()?.enumerate() {
                if i > 0 {
                    joined.push_str(text);
                }
                let Some(item) = item.as_str() else { return Err(argument("join: every item must be a string")) };
                joined.push_str(item);
                state.consume_fuel(1 + (text.len() + item.len()) as u64 / 64)?;
            }
            Value::from(joined)
        }
        "format" => {
            let formatted = format(text, args)?;
            state.consume_fuel(formatted.len() as u64 / 64)?;
            Value::from(formatted)
        }
        "find" | "rfind" => {
            let (part,): (&str,) = from_args(args)?;
            let at = if name == "find" { text.find(part) } else { text.rfind(part) };
            // Python counts characters.
            Value::from(at.and_then(|at| text.get(..at)).map_or(-1, |before| before.chars().count() as i64))
        }
        "count" => {
            let (part,): (&str,) = from_args(args)?;
            Value::from(text.matches(part).count())
        }
        "isdigit" => is(text, args, char::is_numeric)?,
        "isalpha" => is(text, args, char::is_alphabetic)?,
        "isalnum" => is(text, args, char::is_alphanumeric)?,
        "isspace" => is(text, args, char::is_whitespace)?,
        "isupper" => no_args(args)
            .map(|()| Value::from(text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)))?,
        "islower" => no_args(args)
            .map(|()| Value::from(text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)))?,
        _ => return Ok(None),
    }))
}

fn map_method(map: &Value, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let mut pairs = Vec::new();
    if matches!(name, "items" | "values") {
        no_args(args)?;
        for key in map.try_iter()? {
            let item = map.get_item(&key)?;
            pairs.push((key, item));
        }
    }
    Ok(Some(match name {
        "items" => pairs.into_iter().map(|(key, item)| Value::from(vec![key, item])).collect(),
        "values" => pairs.into_iter().map(|(_, item)| item).collect(),
        "keys" => {
            no_args(args)?;
            map.try_iter()?.collect()
        }
        "get" => {
            let (key, default): (&Value, Option<Value>) = from_args(args)?;
            let item = map.get_item(key)?;
            if item.is_undefined() { default.unwrap_or(Value::from(())) } else { item }
        }
        _ => return Ok(None),
    }))
}

fn list_method(list: &Value, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let (item,): (&Value,) = match name {
        "index" | "count" => from_args(args)?,
        _ => return Ok(None),
    };
    let mut items = list.try_iter()?;
    if name == "count" {
        return Ok(Some(Value::from(items.filter(|other| other == item).count())));
    }
    let at = items.position(|other| other == *item);
    at.map(|at| Some(Value::from(at))).ok_or_else(|| argument("index: the item is not in the list"))
}

fn argument(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

fn no_args(args: &[Value]) -> Result<(), Error> {
    from_args(args)
}

fn is(text: &str, args: &[Value], test: fn(char) -> bool) -> Result<Value, Error> {
    no_args(args)?;
    Ok(Value::from(!text.is_empty() && text.chars().all(test)))
}

/// A string, or a tuple of strings any of which will do.
fn affixes(args: &[Value]) -> Result<Vec<String>, Error> {
    let (one,): (&Value,) = from_args(args)?;
    match one.as_str() {
        Some(text) => Ok(vec![text.to_owned()]),
        None => Ok(one.try_iter()?.map(|affix| affix.to_string()).collect()),
    }
}

fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(chars.flat_map(char::to_lowercase)).collect())
}

fn title(text: &str) -> String {
    let mut in_word = false;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if in_word {
            out.extend(c.to_lowercase())
        } else {
            out.extend(c.to_uppercase())
        }
        in_word = c.is_alphabetic();
    }
    out
}

/// `str.split`: without a separator at runs of white space; at most `limit` cuts, from the right for `rsplit`.
fn split(text: &str, separator: Option<&str>, limit: Option<usize>, from_right: bool) -> Result<Vec<String>, Error> {
    let parts = limit.map_or(usize::MAX, |limit| limit.saturating_add(1));
    let own = |parts: &mut dyn Iterator<Item = &str>| parts.map(str::to_owned).collect::<Vec<_>>();
    Ok(match (separator, from_right) {
        (Some(""), _) => return Err(argument("split: empty separator")),
        (Some(separator), false) => own(&mut text.splitn(parts, separator)),
        (Some(separator), true) => {
            let mut parts = own(&mut text.rsplitn(parts, separator));
            parts.reverse();
            parts
        }
        (None, false) => {
            let mut out = Vec::new();
            let mut rest = text.trim_start();
            while !rest.is_empty() {
                let end = rest.find(char::is_whitespace).filter(|_| out.len() + 1 < parts).unwrap_or(rest.len());
                let (part, after) = rest.split_at(end);
                out.push(part.to_owned());
                rest = after.trim_start();
            }
            out
        }
        (None, true) => {
            let mut out = Vec::new();
            let mut rest = text.trim_end();
            while !rest.is_empty() {
                let cut = rest.char_indices().rev().find(|(_, c)| c.is_whitespace()).filter(|_| out.len() + 1 < parts);
                let start = cut.map_or(0, |(at, c)| at + c.len_utf8());
                out.push(rest[start..].to_owned());
                rest = rest[..start].trim_end();
            }
            out.reverse();
            out
        }
    })
}

/// `str.splitlines`: at `\n`, `\r`, `\r\n`, and Unicode's other line ends.
fn lines(text: &str, keep_ends: bool) -> Vec<String> {
    const ENDS: [char; 10] =
        ['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];
    let mut out = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some(at) = rest.find(ENDS) else {
            out.push(rest.to_owned());
            break;
        };
        let end = if rest[at..].starts_with("\r\n") { 2 } else { rest[at..].chars().next().map_or(1, char::len_utf8) };
        out.push(rest[..if keep_ends { at + end } else { at }].to_owned());
        rest = &rest[at + end..];
    }
    out
}

/// `str.format` with `{}` or `{0}`, and `{{` for a brace.
fn format(text: &str, args: &[Value]) -> Result<String, Error> {
    let mut out = String::with_capacity(text.len());
    let (mut next, mut numbered) = (0, false);
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, brace) = rest.split_at(at);
        out.push_str(before);
        if brace.starts_with("{{") || brace.starts_with("}}") {
            out.push_str(&brace[..1]);
            rest = &brace[2..];
            continue;
        }
        let field = brace.strip_prefix('{').and_then(|field| field.split_once('}'));
        let Some((field, after)) = field else { return Err(argument("format: a brace without its other half")) };
        let index = if field.is_empty() {
            next += 1;
            next - 1
        } else {
            numbered = true;
            field.parse().map_err(|_| argument("format: only `{}` and `{0}` are known"))?
        };
        if next > 0 && numbered {
            return Err(argument("format: `{}` and `{0}` together"));
        }
        let Some(value) = args.get(index) else { return Err(argument("format: not enough arguments")) };
        out.push_str(&text_of(value));
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// The test `iterable`: in Python, unlike minijinja, `none` is not.
pub(crate) fn is_iterable(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable | ValueKind::String)
}

/// A value as Python prints it.
fn text_of(value: &Value) -> Cow<'static, str> {
    match value.kind() {
        ValueKind::Bool => Cow::Borrowed(if value.is_true() { "True" } else { "False" }),
        ValueKind::None => Cow::Borrowed("None"),
        ValueKind::Undefined => Cow::Borrowed(""),
        _ => Cow::Owned(value.to_string()),
    }
}

/// Prints as Python does: `True`, `None`; nothing for what is undefined.
pub(crate) fn print(out: &mut Output<'_>, _: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    let written = match value.as_str() {
        Some(text) => out.write_str(text),
        None => out.write_str(&text_of(value)),
    };
    written.map_err(|_| Error::from(ErrorKind::WriteFailure))
}

#[cfg(test)]
mod tests {
    use super::*;

    // By Python 3.12.
    #[test]
    fn splits() {
        type Case = (&'static str, Option<&'static str>, Option<usize>, bool, &'static [&'static str]);
        let none: Option<&str> = None;
        let cases: &[Case] = &[
            (" a  b c ", none, None, false, &["a", "b", "c"]),
            (" a  b c ", none, Some(1), false, &["a", "b c "]),
            (" a  b c ", none, Some(1), true, &[" a  b", "c"]),
            ("", none, None, false, &[]),
            ("", Some(","), None, false, &[""]),
            ("a,b,,c", Some(","), None, false, &["a", "b", "", "c"]),
            ("a,b,,c", Some(","), Some(1), true, &["a,b,", "c"]),
            ("a,b,,c", Some(","), Some(0), false, &["a,b,,c"]),
        ];
        for (text, separator, limit, right, expected) in cases {
            assert_eq!(split(text, *separator, *limit, *right).expect("splits"), *expected, "{text:?}");
        }
        assert!(split("a", Some(""), None, false).is_err());
    }

    #[test]
    fn lines_and_cases() {
        assert_eq!(lines("a\r\nb\n\nc", false), ["a", "b", "", "c"]);
        assert_eq!(lines("a\nb\n", true), ["a\n", "b\n"]);
        assert_eq!(capitalize("éTÉ x"), "Été x");
        assert_eq!(title("they're bill's"), "They'Re Bill'S");
    }
}
