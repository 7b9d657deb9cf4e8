//! Filters, tests and functions that differ from minijinja's: Python's `str` where Jinja uses it,
//! transformers' `tojson`, and a check of the size before anything large is made.

use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};

use crate::json::{self, Style};
use crate::python::{repr_of, str_of};
use crate::rewrite::{CONCAT, MADE, MULTIPLY};
use crate::{budget, methods};

/// No template lays out text wider, nor splits a list into more parts.
const MAX_WIDTH: usize = 4096;

pub fn register(env: &mut Environment<'_>) {
    env.add_filter(MADE, made);
    env.add_filter(CONCAT, concat);
    env.add_filter(MULTIPLY, multiply);
    env.add_filter("tojson", tojson);
    env.add_filter("string", |value: Value| str_of(&value));
    env.add_filter("pprint", |value: Value| repr_of(&value));
    env.add_filter("join", join);
    env.add_filter("indent", indent);
    env.add_filter("slice", |state: &State, value: Value, count: usize, fill: Option<Value>| {
        check_width(count)?;
        minijinja::filters::slice(state, value, count, fill)
    });
    env.add_filter("batch", |state: &State, value: Value, count: usize, fill: Option<Value>| {
        check_width(count)?;
        minijinja::filters::batch(state, value, count, fill)
    });
    // Jinja applies these to str(value) through the methods of str.
    for (name, method) in [
        ("trim", "strip"),
        ("upper", "upper"),
        ("lower", "lower"),
        ("title", "title"),
        ("capitalize", "capitalize"),
        ("replace", "replace"),
        ("center", "center"),
    ] {
        env.add_filter(name, move |state: &State, value: Value, args: Rest<Value>| {
            methods::call(state, &Value::from(str_of(&value)?), method, &args)
        });
    }
    env.add_filter("format", |value: Value, args: Rest<Value>| {
        let format = str_of(&value)?;
        methods::check_format(&format)?;
        minijinja::format_filter(minijinja::FormatStyle::Printf, &format, &args)
    });
    // In Python, a string and a dict have a length and items too.
    env.add_test("sequence", |value: Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map)
    });
    env.add_test("iterable", |value: Value| {
        !matches!(value.kind(), ValueKind::None | ValueKind::Bool | ValueKind::Number)
            && (value.kind() == ValueKind::String || value.try_iter().is_ok())
    });
    env.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    // minijinja's prints internals, and could be made to print without end.
    env.add_global("debug", Value::UNDEFINED);
}

/// Accounts for a value that an expression has just made.
fn made(value: Value) -> Result<Value, Error> {
    budget::check_time()?;
    budget::charge_value(&value)?;
    Ok(value)
}

fn concat(left: Value, right: Value) -> Result<String, Error> {
    Ok(str_of(&left)? + &str_of(&right)?)
}

fn check_width(found: usize) -> Result<(), Error> {
    if found <= MAX_WIDTH {
        return Ok(());
    }
    Err(budget::exhausted(&format!("a width or count of {found}, at most {MAX_WIDTH}")))
}

fn multiply(left: Value, right: Value) -> Result<Value, Error> {
    match (left.kind(), right.kind()) {
        (ValueKind::String | ValueKind::Seq | ValueKind::Iterable, ValueKind::Number) => {
            repeat(&left, &right)
        }
        (ValueKind::Number, ValueKind::String | ValueKind::Seq | ValueKind::Iterable) => {
            repeat(&right, &left)
        }
        (ValueKind::Number | ValueKind::Bool, ValueKind::Number | ValueKind::Bool) => {
            product(&left, &right)
        }
        (left, right) => Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("cannot multiply {left} and {right}"),
        )),
    }
}

fn repeat(value: &Value, count: &Value) -> Result<Value, Error> {
    let count = usize::try_from(i64::try_from(count.clone())?.max(0)).unwrap_or(usize::MAX);
    budget::charge(budget::size_of(value).saturating_mul(count))?;
    if let Some(text) = value.as_str() {
        return Ok(Value::from(text.repeat(count)));
    }
    let items: Vec<Value> = value.try_iter()?.collect();
    Ok(items.iter().cycle().take(items.len() * count).cloned().collect())
}

fn product(left: &Value, right: &Value) -> Result<Value, Error> {
    if left.is_integer() && right.is_integer() {
        return i128::try_from(left.clone())?
            .checked_mul(i128::try_from(right.clone())?)
            .map(Value::from)
            .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "product out of range"));
    }
    let number = |value: &Value| match value.kind() {
        ValueKind::Bool => Ok(f64::from(u8::from(value.is_true()))),
        _ => f64::try_from(value.clone()),
    };
    let product = number(left)? * number(right)?;
    // True * 2 is an integer in Python.
    if left.kind() == ValueKind::Bool || right.kind() == ValueKind::Bool {
        let whole = left.kind() == right.kind() || left.is_integer() || right.is_integer();
        if whole {
            return Ok(Value::from(product as i64));
        }
    }
    Ok(Value::from(product))
}

fn join(value: Value, separator: Option<Value>, kwargs: Kwargs) -> Result<String, Error> {
    let attribute: Option<String> = kwargs.get("attribute")?;
    let separator = match separator {
        Some(separator) => str_of(&separator)?,
        None => kwargs.get::<Option<String>>("d")?.unwrap_or_default(),
    };
    kwargs.assert_all_used()?;
    let items = value.try_iter()?.map(|item| match &attribute {
        Some(name) => item.get_attr(name),
        None => Ok(item),
    });
    join_items(items, &separator)
}

pub fn join_items(
    items: impl Iterator<Item = Result<Value, Error>>,
    separator: &str,
) -> Result<String, Error> {
    let mut out = String::new();
    for (i, item) in items.enumerate() {
        budget::charge(1)?;
        if i > 0 {
            budget::charge(separator.len())?;
            out.push_str(separator);
        }
        out.push_str(&str_of(&item?)?);
    }
    Ok(out)
}

/// Jinja's: indents by a number of spaces or by a string, all lines but the first and blank ones.
fn indent(value: Value, args: Rest<Value>, kwargs: Kwargs) -> Result<String, Error> {
    let argument = |i: usize, name: &str| -> Result<Option<Value>, Error> {
        match args.get(i) {
            Some(value) => Ok(Some(value.clone())),
            None => kwargs.get::<Option<Value>>(name),
        }
    };
    let width = argument(0, "width")?.unwrap_or_else(|| Value::from(4));
    let first = argument(1, "first")?.is_some_and(|value| value.is_true());
    let blank = argument(2, "blank")?.is_some_and(|value| value.is_true());
    kwargs.assert_all_used()?;
    let prefix = match width.as_str() {
        Some(text) => text.to_string(),
        None => {
            let count = usize::try_from(width)?;
            check_width(count)?;
            " ".repeat(count)
        }
    };
    let text = str_of(&value)?;
    budget::charge(prefix.len().saturating_mul(text.matches('\n').count() + 1))?;
    let mut out = String::new();
    for (i, line) in text.split('\n').enumerate() {
        out.push_str(if i > 0 { "\n" } else { "" });
        if (i > 0 || first) && (blank || !line.is_empty()) {
            out.push_str(&prefix);
        }
        out.push_str(line);
    }
    Ok(out)
}

fn tojson(value: Value, args: Rest<Value>, kwargs: Kwargs) -> Result<String, Error> {
    // transformers: tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False)
    let argument = |i: usize, name: &str| -> Result<Option<Value>, Error> {
        let value = match args.get(i) {
            Some(value) => Some(value.clone()),
            None => kwargs.get::<Option<Value>>(name)?,
        };
        Ok(value.filter(|value| !value.is_none()))
    };
    let ensure_ascii = argument(0, "ensure_ascii")?.is_some_and(|value| value.is_true());
    let indent = match argument(1, "indent")? {
        None => None,
        Some(text) if text.as_str().is_some() => text.as_str().map(str::to_string),
        Some(count) => {
            let count = usize::try_from(i64::try_from(count)?.max(0)).unwrap_or(usize::MAX);
            check_width(count)?;
            Some(" ".repeat(count))
        }
    };
    let separators = argument(2, "separators")?;
    let sort_keys = argument(3, "sort_keys")?.is_some_and(|value| value.is_true());
    kwargs.assert_all_used()?;
    let (item_separator, key_separator) = match separators {
        Some(pair) => (str_of(&pair.get_item_by_index(0)?)?, str_of(&pair.get_item_by_index(1)?)?),
        None if indent.is_some() => (",".to_string(), ": ".to_string()),
        None => (", ".to_string(), ": ".to_string()),
    };
    json::dumps(&value, &Style { indent, item_separator, key_separator, sort_keys, ensure_ascii })
}
