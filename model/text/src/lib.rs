//! Tokenizers and chat templates behind a C ABI (declared in ../troupe_text.h).
//!
//! Thread model: `Tokenizer` and `ChatTemplate` handles may be used from any thread at once, a
//! `StreamDecoder` from one at a time.
//! Ownership: whoever made a handle or received a buffer frees it with the matching function.
//! Errors: every function answers a status; no panic crosses the ABI, and no input, however
//! hostile, may abort the process.

mod abi;
mod budget;
mod chat;
mod filters;
mod json;
mod methods;
mod python;
mod rewrite;
mod stream;
mod tokenizer;

/// What went wrong, in the terms of the caller's status codes.
#[derive(Debug, Clone, PartialEq)]
pub enum TextError {
    /// The input is at fault: another input may work.
    Invalid(String),
    /// A limit was reached.
    Exhausted(String),
    /// A bug of this library or of its dependencies.
    Internal(String),
}

pub type Result<T> = std::result::Result<T, TextError>;
