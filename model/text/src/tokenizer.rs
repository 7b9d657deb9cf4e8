//! A `tokenizers` tokenizer with bounded input.

use crate::{Result, TextError};

/// Sized for prompts of a million tokens; TextLimits in ../text.h names the same numbers.
pub const MAX_TEXT_BYTES: usize = 16 << 20;
const MAX_FILE_BYTES: usize = 256 << 20;
const MAX_DECODE_TOKENS: usize = 16 << 20;

pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    vocab_size: u32,
}

fn invalid(error: impl std::fmt::Display, what: &str) -> TextError {
    TextError::Invalid(format!("{what}: {error}"))
}

pub fn check_size(what: &str, found: usize, limit: usize, unit: &str) -> Result<()> {
    if found <= limit {
        return Ok(());
    }
    Err(TextError::Exhausted(format!("{what}: found {found} {unit}, wanted at most {limit}")))
}

impl Tokenizer {
    pub fn from_json(json: &str) -> Result<Tokenizer> {
        check_size("tokenizer.json", json.len(), MAX_FILE_BYTES, "bytes")?;
        // The crate unwraps some of what it parses: its panics are malformed files too.
        let parsed = std::panic::catch_unwind(|| json.parse::<tokenizers::Tokenizer>());
        let mut inner = match parsed {
            Ok(result) => result.map_err(|error| invalid(error, "tokenizer.json"))?,
            Err(payload) => {
                return Err(invalid(crate::abi::panic_message(payload), "tokenizer.json"))
            }
        };
        // A prompt is never cut or filled up behind the caller's back.
        inner.with_truncation(None).map_err(|error| invalid(error, "tokenizer.json"))?;
        inner.with_padding(None);
        let highest = inner.get_vocab(true).into_values().max();
        Ok(Tokenizer { inner, vocab_size: highest.map_or(0, |id| id.saturating_add(1)) })
    }

    pub fn vocab_size(&self) -> u32 {
        self.vocab_size
    }

    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        check_size("text", text.len(), MAX_TEXT_BYTES, "bytes")?;
        let encoding =
            self.inner.encode_fast(text, add_special).map_err(|error| invalid(error, "encode"))?;
        Ok(encoding.get_ids().to_vec())
    }

    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        check_size("token ids", ids.len(), MAX_DECODE_TOKENS, "tokens")?;
        self.inner.decode(ids, skip_special).map_err(|error| invalid(error, "decode"))
    }

    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    pub fn is_special(&self, token: &str) -> bool {
        self.inner.get_added_vocabulary().is_special_token(token)
    }

    /// The decoder's description, as tokenizer.json spells it; null without a decoder.
    pub fn decoder_json(&self) -> Result<serde_json::Value> {
        serde_json::to_value(self.inner.get_decoder()).map_err(|error| invalid(error, "decoder"))
    }
}
