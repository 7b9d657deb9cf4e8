//! The C functions. Each turns its arguments into slices, calls one function of this crate, and
//! turns the result, or a caught panic, into a status and a buffer.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Once};

use crate::chat::ChatTemplate;
use crate::stream::StreamDecoder;
use crate::tokenizer::Tokenizer;
use crate::{Result, TextError};

const OK: i32 = 0;
const INVALID: i32 = 1;
const EXHAUSTED: i32 = 2;
const INTERNAL: i32 = 3;

/// Bytes owned by this library; freed with `troupe_text_bytes_free`.
#[repr(C)]
pub struct Bytes {
    data: *mut u8,
    size: usize,
}

/// Token ids owned by this library; freed with `troupe_text_ids_free`.
#[repr(C)]
pub struct Ids {
    data: *mut u32,
    size: usize,
}

fn leak<T>(items: Vec<T>) -> (*mut T, usize) {
    let items = items.into_boxed_slice();
    let size = items.len();
    (Box::into_raw(items).cast::<T>(), size)
}

/// # Safety
/// `data` and `size` must come from `leak`.
unsafe fn unleak<T>(data: *mut T, size: usize) {
    if !data.is_null() {
        drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(data, size)));
    }
}

impl From<String> for Bytes {
    fn from(text: String) -> Bytes {
        let (data, size) = leak(text.into_bytes());
        Bytes { data, size }
    }
}

/// # Safety
/// `data` must point at `size` readable items, or `size` be 0.
unsafe fn slice<'a, T>(data: *const T, size: usize) -> &'a [T] {
    if size == 0 {
        &[]
    } else {
        std::slice::from_raw_parts(data, size)
    }
}

fn utf8<'a>(bytes: &'a [u8], what: &str) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|error| {
        TextError::Invalid(format!(
            "{what}: found a byte that is not UTF-8 at offset {}, wanted UTF-8",
            error.valid_up_to()
        ))
    })
}

/// Panics are answers here, so the hook that prints them to stderr is replaced by a silent one.
fn silence_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|_| {})));
}

pub fn panic_message(payload: Box<dyn std::any::Any + Send>) -> String {
    payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| payload.downcast_ref::<&str>().map(|s| s.to_string()))
        .unwrap_or_else(|| "unknown panic".to_string())
}

/// Runs `body`; writes its value through `out` or its message through `error`.
///
/// # Safety
/// `out` and `error` must be writable.
unsafe fn answer<T>(out: *mut T, error: *mut Bytes, body: impl FnOnce() -> Result<T>) -> i32 {
    silence_panics();
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        Err(TextError::Internal(format!("text library: {}", panic_message(payload))))
    });
    let (code, message) = match result {
        Ok(value) => {
            out.write(value);
            return OK;
        }
        Err(TextError::Invalid(message)) => (INVALID, message),
        Err(TextError::Exhausted(message)) => (EXHAUSTED, message),
        Err(TextError::Internal(message)) => (INTERNAL, message),
    };
    error.write(Bytes::from(message));
    code
}

fn quietly(body: impl FnOnce()) {
    // A destructor that panics has nothing to tell the caller.
    let _ = catch_unwind(AssertUnwindSafe(body));
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_bytes_free(bytes: Bytes) {
    unleak(bytes.data, bytes.size);
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_ids_free(ids: Ids) {
    unleak(ids.data, ids.size);
}

// --- Tokenizer ---------------------------------------------------------------------------------

#[no_mangle]
pub unsafe extern "C" fn troupe_text_tokenizer_new(
    json: *const u8,
    json_size: usize,
    out: *mut *const Tokenizer,
    error: *mut Bytes,
) -> i32 {
    answer(out, error, || {
        let json = utf8(slice(json, json_size), "tokenizer.json")?;
        Ok(Arc::into_raw(Arc::new(Tokenizer::from_json(json)?)))
    })
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_tokenizer_free(tokenizer: *const Tokenizer) {
    quietly(|| drop(Arc::from_raw(tokenizer)));
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_tokenizer_vocab_size(tokenizer: *const Tokenizer) -> u32 {
    (*tokenizer).vocab_size()
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_encode(
    tokenizer: *const Tokenizer,
    text: *const u8,
    text_size: usize,
    add_special: bool,
    out: *mut Ids,
    error: *mut Bytes,
) -> i32 {
    answer(out, error, || {
        let text = utf8(slice(text, text_size), "text")?;
        let (data, size) = leak((*tokenizer).encode(text, add_special)?);
        Ok(Ids { data, size })
    })
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_decode(
    tokenizer: *const Tokenizer,
    ids: *const u32,
    ids_size: usize,
    skip_special: bool,
    out: *mut Bytes,
    error: *mut Bytes,
) -> i32 {
    answer(out, error, || Ok(Bytes::from((*tokenizer).decode(slice(ids, ids_size), skip_special)?)))
}

/// The id goes to `out`; -1 when there is no such token.
#[no_mangle]
pub unsafe extern "C" fn troupe_text_token_to_id(
    tokenizer: *const Tokenizer,
    token: *const u8,
    token_size: usize,
    out: *mut i64,
    error: *mut Bytes,
) -> i32 {
    answer(out, error, || {
        let token = utf8(slice(token, token_size), "token")?;
        Ok((*tokenizer).token_to_id(token).map_or(-1, i64::from))
    })
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_id_to_token(
    tokenizer: *const Tokenizer,
    id: u32,
    out: *mut Bytes,
    error: *mut Bytes,
) -> i32 {
    answer(out, error, || {
        (*tokenizer).id_to_token(id).map(Bytes::from).ok_or_else(|| {
            TextError::Invalid(format!("token id: found {id}, wanted one of the vocabulary"))
        })
    })
}

// --- Streaming ---------------------------------------------------------------------------------

#[no_mangle]
pub unsafe extern "C" fn troupe_text_stream_new(
    tokenizer: *const Tokenizer,
    skip_special: bool,
    out: *mut *mut StreamDecoder,
    error: *mut Bytes,
) -> i32 {
    answer(out, error, || {
        Arc::increment_strong_count(tokenizer);
        let tokenizer = Arc::from_raw(tokenizer);
        Ok(Box::into_raw(Box::new(StreamDecoder::new(tokenizer, skip_special)?)))
    })
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_stream_free(stream: *mut StreamDecoder) {
    quietly(|| drop(Box::from_raw(stream)));
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_stream_push(
    stream: *mut StreamDecoder,
    id: u32,
    out: *mut Bytes,
    error: *mut Bytes,
) -> i32 {
    answer(out, error, || Ok(Bytes::from((*stream).push(id)?)))
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_stream_flush(
    stream: *mut StreamDecoder,
    out: *mut Bytes,
    error: *mut Bytes,
) -> i32 {
    answer(out, error, || Ok(Bytes::from((*stream).flush()?)))
}

// --- Chat templates ----------------------------------------------------------------------------

#[no_mangle]
pub unsafe extern "C" fn troupe_text_template_new(
    source: *const u8,
    source_size: usize,
    variables: *const u8,
    variables_size: usize,
    out: *mut *const ChatTemplate,
    error: *mut Bytes,
) -> i32 {
    answer(out, error, || {
        let source = utf8(slice(source, source_size), "chat template")?;
        let variables = utf8(slice(variables, variables_size), "template variables")?;
        Ok(Box::into_raw(Box::new(ChatTemplate::new(source, variables)?)).cast_const())
    })
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_template_free(template: *const ChatTemplate) {
    quietly(|| drop(Box::from_raw(template.cast_mut())));
}

#[no_mangle]
pub unsafe extern "C" fn troupe_text_template_render(
    template: *const ChatTemplate,
    messages: *const u8,
    messages_size: usize,
    variables: *const u8,
    variables_size: usize,
    add_generation_prompt: bool,
    now_unix_s: i64,
    out: *mut Bytes,
    error: *mut Bytes,
) -> i32 {
    answer(out, error, || {
        let messages = utf8(slice(messages, messages_size), "messages")?;
        let variables = utf8(slice(variables, variables_size), "template variables")?;
        (*template).render(messages, variables, add_generation_prompt, now_unix_s).map(Bytes::from)
    })
}
