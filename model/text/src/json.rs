//! JSON to template values, and template values to JSON as Python's `json.dumps` writes it.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

use crate::budget;
use crate::python::float_repr;
use crate::{Result, TextError};

/// Values nest at most this deep, in and out.
pub const MAX_DEPTH: usize = 128;

/// Key order is kept; integers stay integers.
pub fn parse(what: &str, text: &str) -> Result<serde_json::Value> {
    serde_json::from_str(text)
        .map_err(|error| TextError::Invalid(format!("{what}: {error}, wanted valid JSON")))
}

pub fn to_value(json: serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(b) => Value::from(b),
        serde_json::Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) => Value::from(i),
            (_, Some(u)) => Value::from(u),
            _ => Value::from(n.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(s) => Value::from(s),
        serde_json::Value::Array(items) => items.into_iter().map(to_value).collect(),
        serde_json::Value::Object(fields) => {
            fields.into_iter().map(|(key, value)| (key, to_value(value))).collect()
        }
    }
}

/// The arguments of `tojson`, which are those of `json.dumps`.
pub struct Style {
    pub indent: Option<String>,
    pub item_separator: String,
    pub key_separator: String,
    pub sort_keys: bool,
    pub ensure_ascii: bool,
}

fn not_serializable(what: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("{what} is not JSON serializable"))
}

pub fn dumps(value: &Value, style: &Style) -> std::result::Result<String, Error> {
    let mut out = String::new();
    write(&mut out, value, style, 0)?;
    Ok(out)
}

fn write(
    out: &mut String,
    value: &Value,
    style: &Style,
    depth: usize,
) -> std::result::Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(not_serializable("a value that nests too deep"));
    }
    budget::charge(1)?;
    match value.kind() {
        ValueKind::String => {
            let text = value.as_str().ok_or_else(|| not_serializable("a string of bytes"))?;
            budget::charge(text.len())?;
            quote(out, text, style.ensure_ascii);
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter()?;
            bracket(out, style, depth, ['[', ']'], items, |out, item| {
                write(out, &item, style, depth + 1)
            })?;
        }
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            if style.sort_keys {
                keys.sort();
            }
            bracket(out, style, depth, ['{', '}'], keys.into_iter(), |out, key| {
                quote(out, &key_text(&key)?, style.ensure_ascii);
                out.push_str(&style.key_separator);
                write(out, &value.get_item(&key)?, style, depth + 1)
            })?;
        }
        _ => out.push_str(&scalar(value)?),
    }
    Ok(())
}

fn bracket<I: Iterator<Item = Value>>(
    out: &mut String,
    style: &Style,
    depth: usize,
    brackets: [char; 2],
    items: I,
    mut write_item: impl FnMut(&mut String, Value) -> std::result::Result<(), Error>,
) -> std::result::Result<(), Error> {
    let new_line = |out: &mut String, depth: usize| -> std::result::Result<(), Error> {
        if let Some(indent) = &style.indent {
            budget::charge(indent.len() * depth)?;
            out.push('\n');
            out.extend(std::iter::repeat(indent.as_str()).take(depth));
        }
        Ok(())
    };
    out.push(brackets[0]);
    let mut empty = true;
    for item in items {
        if !empty {
            out.push_str(&style.item_separator);
        }
        empty = false;
        new_line(out, depth + 1)?;
        write_item(out, item)?;
    }
    if !empty {
        new_line(out, depth)?;
    }
    out.push(brackets[1]);
    Ok(())
}

fn scalar(value: &Value) -> std::result::Result<String, Error> {
    match value.kind() {
        ValueKind::None => Ok("null".to_string()),
        ValueKind::Bool => Ok(value.is_true().to_string()),
        ValueKind::Number => Ok(number(value)),
        ValueKind::Undefined => Err(not_serializable("Undefined")),
        kind => Err(not_serializable(&kind.to_string())),
    }
}

fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    match f64::try_from(value.clone()).unwrap_or(f64::NAN) {
        x if x.is_nan() => "NaN".to_string(),
        x if x.is_infinite() => if x > 0.0 { "Infinity" } else { "-Infinity" }.to_string(),
        x => float_repr(x),
    }
}

fn key_text(key: &Value) -> std::result::Result<String, Error> {
    match key.as_str() {
        Some(text) => Ok(text.to_string()),
        None => scalar(key),
    }
}

/// As Python does: control characters, quotes and backslashes are escaped, '/' and non-ASCII are
/// not.
fn quote(out: &mut String, text: &str, ensure_ascii: bool) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || (ensure_ascii && (c as u32) > 0x7e) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
