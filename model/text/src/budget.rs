//! What one rendering may cost: bytes produced, and time. Fuel counts a template's
//! instructions; this counts what each of them makes, so that doubling a string, or joining a long
//! list of long ones, ends as early as an endless loop does.

use std::cell::Cell;
use std::time::{Duration, Instant};

use minijinja::value::Value;
use minijinja::{Error, ErrorKind};

/// What a rendering may produce: templates build a chat piece by piece and copy it several times.
const BASE_BYTES: usize = 64 << 20;
const BYTES_PER_INPUT_BYTE: usize = 16;
pub const MAX_TIME: Duration = Duration::from_secs(10);
/// The message of every error of this module; `chat` maps it to `Exhausted`.
pub const EXHAUSTED: &str = "the template exceeds its budget";

thread_local! {
    static LEFT: Cell<usize> = const { Cell::new(BASE_BYTES) };
    static DEADLINE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A rendering of `input_bytes` of messages and variables starts on this thread.
pub fn start(input_bytes: usize) {
    LEFT.set(BASE_BYTES + BYTES_PER_INPUT_BYTE * input_bytes);
    DEADLINE.set(Instant::now().checked_add(MAX_TIME));
}

pub fn exhausted(what: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("{EXHAUSTED}: {what}"))
}

/// The bytes of a string, or of a list's or dict's own items.
pub fn size_of(value: &Value) -> usize {
    match value.as_str() {
        Some(text) => text.len(),
        None => value.len().unwrap_or(1).saturating_mul(std::mem::size_of::<Value>()),
    }
}

pub fn charge_value(value: &Value) -> Result<(), Error> {
    charge(size_of(value))
}

/// Accounts for `amount` bytes, before they are made where their number is known then.
pub fn charge(amount: usize) -> Result<(), Error> {
    match LEFT.get().checked_sub(amount) {
        Some(left) => LEFT.set(left),
        None => return Err(exhausted("it makes too much text out of its input")),
    }
    Ok(())
}

pub fn check_time() -> Result<(), Error> {
    if DEADLINE.get().is_some_and(|deadline| Instant::now() > deadline) {
        return Err(exhausted(&format!("it takes more than {} s", MAX_TIME.as_secs())));
    }
    Ok(())
}
