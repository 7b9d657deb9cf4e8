//! Methods of Python's values: minijinja-contrib's, with those it lacks, and with a check of the
//! size where a method can make a long string out of short ones.

use minijinja::value::{from_args, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

use crate::budget;
use crate::filters::join_items;

/// Digits of a width or precision in a format string: no template lays out text wider.
const MAX_WIDTH_DIGITS: usize = 4;
const MAX_WIDTH: usize = 4096;

pub fn call(state: &State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => match value.as_str() {
            Some(text) => string_method(state, value, text, method, args),
            None => Err(Error::from(ErrorKind::UnknownMethod)),
        },
        ValueKind::Seq if method == "index" => {
            let (wanted,): (Value,) = from_args(args)?;
            value
                .try_iter()?
                .position(|item| item == wanted)
                .map(Value::from)
                .ok_or_else(|| failed("index: no such item in the list"))
        }
        ValueKind::Map if method == "copy" => Ok(value.clone()),
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
    }
}

fn failed(message: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.to_string())
}

fn string_method(
    state: &State,
    value: &Value,
    text: &str,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    match method {
        "join" => {
            let (items,): (Value,) = from_args(args)?;
            join_items(items.try_iter()?.map(Ok), text).map(Value::from)
        }
        "replace" => {
            let (old, new, _count): (&str, &str, Option<Value>) = from_args(args)?;
            let hits = if old.is_empty() { text.len() + 1 } else { text.matches(old).count() };
            budget::charge(hits.saturating_mul(new.len()))?;
            contrib(state, value, method, args)
        }
        "format" => {
            check_format(text)?;
            contrib(state, value, method, args)
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        "partition" => {
            let (separator,): (&str,) = from_args(args)?;
            Ok(parts(text.split_once(separator), separator, [text, "", ""]))
        }
        "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            Ok(parts(text.rsplit_once(separator), separator, ["", "", text]))
        }
        "rsplit" => rsplit(text, args),
        "index" | "rindex" => {
            let find = if method == "index" { "find" } else { "rfind" };
            let found = contrib(state, value, find, args)?;
            if found == Value::from(-1) {
                return Err(failed("index: no such substring"));
            }
            Ok(found)
        }
        "swapcase" => Ok(text.chars().map(swap_case).collect::<String>().into()),
        "ljust" | "rjust" | "center" | "zfill" => pad(text, method, args),
        _ => contrib(state, value, method, args),
    }
}

fn contrib(state: &State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}

fn parts(found: Option<(&str, &str)>, separator: &str, otherwise: [&str; 3]) -> Value {
    let parts = found.map_or(otherwise, |(before, after)| [before, separator, after]);
    parts.into_iter().map(Value::from).collect()
}

fn rsplit(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (separator, count): (Option<&str>, Option<i64>) = from_args(args)?;
    let most = count.filter(|count| *count >= 0).map_or(usize::MAX, |count| count as usize + 1);
    let mut pieces: Vec<&str> = match separator {
        Some("") => return Err(failed("rsplit: empty separator")),
        Some(separator) => text.rsplitn(most, separator).collect(),
        None if most == usize::MAX => text.split_whitespace().rev().collect(),
        None => text.trim_end().rsplitn(most, char::is_whitespace).collect(),
    };
    pieces.reverse();
    Ok(pieces.into_iter().map(Value::from).collect())
}

fn swap_case(c: char) -> String {
    if c.is_uppercase() {
        c.to_lowercase().collect()
    } else {
        c.to_uppercase().collect()
    }
}

fn pad(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (width, fill): (usize, Option<&str>) = from_args(args)?;
    if width > MAX_WIDTH {
        return Err(budget::exhausted(&format!("a width of {width}, at most {MAX_WIDTH}")));
    }
    let fill = fill.unwrap_or(if method == "zfill" { "0" } else { " " });
    let missing = width.saturating_sub(text.chars().count());
    let left = match method {
        "ljust" => 0,
        "center" => missing / 2 + (missing & width & 1),
        _ => missing,
    };
    let (sign, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) if method == "zfill" => text.split_at(text.len() - digits.len()),
        _ => ("", text),
    };
    let before = fill.repeat(left);
    Ok(Value::from(format!("{sign}{before}{digits}{}", fill.repeat(missing - left))))
}

/// Refuses widths and precisions that would make a short format string a huge one.
pub fn check_format(format: &str) -> Result<(), Error> {
    let mut digits = 0;
    for c in format.chars() {
        digits = if c.is_ascii_digit() { digits + 1 } else { 0 };
        if digits > MAX_WIDTH_DIGITS {
            return Err(budget::exhausted("a width of more than 4 digits in a format string"));
        }
    }
    Ok(())
}
