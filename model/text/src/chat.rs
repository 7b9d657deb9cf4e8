//! Chat templates, rendered as transformers renders them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use minijinja::machinery::{
    make_string_output, parse, CodeGenerator, Instructions, Vm, WhitespaceConfig,
};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};

use crate::python::str_of;
use crate::rewrite::rewrite;
use crate::tokenizer::{check_size, MAX_TEXT_BYTES};
use crate::{budget, filters, json, methods, Result, TextError};

/// The longest published templates have some 20 KB.
const MAX_TEMPLATE_BYTES: usize = 256 << 10;
/// Instructions of one rendering: ten thousand turns of the longest templates.
const FUEL: u64 = 8_000_000;
/// Compiling a long chain of operators, and dropping a value that a loop has nested as deep as fuel
/// lets it, recurse. Reserved, not used, until then.
const STACK_BYTES: usize = 1 << 30;

pub struct ChatTemplate {
    // Borrows from `_source`, so it goes first.
    compiled: Compiled,
    env: Environment<'static>,
    /// What every rendering sees: bos_token and the like.
    variables: serde_json::Map<String, serde_json::Value>,
    _source: Box<str>,
}

struct Compiled {
    instructions: Instructions<'static>,
    blocks: BTreeMap<&'static str, Instructions<'static>>,
}

impl ChatTemplate {
    pub fn new(source: &str, variables_json: &str) -> Result<ChatTemplate> {
        check_size("chat template", source.len(), MAX_TEMPLATE_BYTES, "bytes")?;
        let source = without_generation_tags(source).into_boxed_str();
        // SAFETY: the boxed text does not move, lives in the same struct as all that borrows from
        // it, and is dropped after it.
        let borrowed: &'static str = unsafe { &*std::ptr::from_ref::<str>(&source) };
        let compiled = on_large_stack(|| compile(borrowed))?;
        let variables = object("template variables", variables_json)?;
        Ok(ChatTemplate { compiled, env: environment(), variables, _source: source })
    }

    /// `now_unix_s` is what `strftime_now` reads.
    pub fn render(
        &self,
        messages: &str,
        variables: &str,
        add_generation_prompt: bool,
        now_unix_s: i64,
    ) -> Result<String> {
        check_size("messages", messages.len() + variables.len(), MAX_TEXT_BYTES, "bytes")?;
        on_large_stack(|| {
            budget::start(messages.len() + variables.len());
            let mut context: BTreeMap<String, Value> = BTreeMap::new();
            // transformers passes these two whether the caller has them or not.
            context.insert("tools".to_string(), Value::from(()));
            context.insert("documents".to_string(), Value::from(()));
            let given = object("template variables", variables)?;
            for (name, value) in self.variables.clone().into_iter().chain(given) {
                context.insert(name, json::to_value(value));
            }
            let messages = json::parse("messages", messages)?;
            if !messages.is_array() {
                return Err(TextError::Invalid("messages: wanted a JSON array".to_string()));
            }
            context.insert("messages".to_string(), json::to_value(messages));
            context.insert("add_generation_prompt".to_string(), add_generation_prompt.into());
            let strftime = move |format: &str| strftime(now_unix_s, format);
            context.insert("strftime_now".to_string(), Value::from_function(strftime));
            self.evaluate(Value::from(context))
        })
    }

    fn evaluate(&self, root: Value) -> Result<String> {
        let mut text = String::new();
        let mut output = make_string_output(&mut text);
        let Compiled { instructions, blocks } = &self.compiled;
        let result =
            Vm::new(&self.env).eval(instructions, root, blocks, &mut output, AutoEscape::None);
        result.map_err(describe)?;
        drop(output);
        check_size("rendered chat", text.len(), MAX_TEXT_BYTES, "bytes")?;
        Ok(text)
    }
}

fn compile(source: &'static str) -> Result<Compiled> {
    let whitespace =
        WhitespaceConfig { keep_trailing_newline: false, lstrip_blocks: true, trim_blocks: true };
    let tree =
        parse(source, "chat template", SyntaxConfig::default(), whitespace).map_err(describe)?;
    let mut generator = CodeGenerator::new("chat template", source);
    generator.compile_stmt(&tree);
    let (instructions, blocks) = generator.finish();
    budget::start(source.len());
    let instructions = rewrite(&instructions).map_err(describe)?;
    let blocks = blocks
        .iter()
        .map(|(name, block)| Ok((*name, rewrite(block)?)))
        .collect::<std::result::Result<_, Error>>()
        .map_err(describe)?;
    Ok(Compiled { instructions, blocks })
}

fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_fuel(Some(FUEL));
    env.set_unknown_method_callback(methods::call);
    env.set_formatter(|out, _, value| {
        budget::check_time()?;
        match value.as_str() {
            Some(text) => {
                budget::charge(text.len())?;
                out.write_str(text)
            }
            None => out.write_str(&str_of(value)?),
        }
        .map_err(Error::from)
    });
    filters::register(&mut env);
    env
}

fn object(what: &str, text: &str) -> Result<serde_json::Map<String, serde_json::Value>> {
    match json::parse(what, text)? {
        serde_json::Value::Object(fields) => Ok(fields),
        _ => Err(TextError::Invalid(format!("{what}: wanted a JSON object"))),
    }
}

/// Deep recursion must not end the process, so what may recurse runs on a thread made for it.
fn on_large_stack<T: Send>(body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("chat-template".to_string())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, body)
            .map_err(|error| TextError::Exhausted(format!("starting a thread: {error}")))?
            .join()
            .unwrap_or_else(|payload| {
                let message = crate::abi::panic_message(payload);
                Err(TextError::Internal(format!("chat template: {message}")))
            })
    })
}

fn describe(error: Error) -> TextError {
    let mut message = format!("chat template: {error}");
    let mut exhausted = error.kind() == ErrorKind::OutOfFuel;
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        message += &format!(": {inner}");
        exhausted |=
            inner.downcast_ref::<Error>().is_some_and(|error| error.kind() == ErrorKind::OutOfFuel);
        cause = inner.source();
    }
    if exhausted || message.contains(budget::EXHAUSTED) {
        TextError::Exhausted(message)
    } else {
        TextError::Invalid(message)
    }
}

fn strftime(now_unix_s: i64, format: &str) -> std::result::Result<String, Error> {
    use std::fmt::Write;
    methods::check_format(format)?;
    let wrong = |what: &str| Error::new(ErrorKind::InvalidOperation, what.to_string());
    let now: DateTime<Utc> = DateTime::from_timestamp(now_unix_s, 0)
        .ok_or_else(|| wrong("strftime_now: time out of range"))?;
    let mut text = String::new();
    write!(text, "{}", now.format(format)).map_err(|_| wrong("strftime_now: unknown format"))?;
    Ok(text)
}

/// transformers marks what an assistant said with `{% generation %}` .. `{% endgeneration %}`; for
/// rendering it is a block without effect.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        // Searched for behind the opening: in `{%}` the two share their `%`.
        let Some(inside) = rest[start + 2..].find("%}") else { break };
        let length = inside + 2;
        let (before, tag) = rest[..start + length].split_at(start);
        let name = tag[2..].trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        out.push_str(before);
        match name {
            "generation" => out.push_str(&tag.replacen(name, "if true", 1)),
            "endgeneration" => out.push_str(&tag.replacen(name, "endif", 1)),
            _ => out.push_str(tag),
        }
        rest = &rest[start + length..];
    }
    out + rest
}
