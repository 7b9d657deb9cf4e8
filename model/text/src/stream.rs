//! Streaming detokenisation: the decoder's steps, each as a transducer from tokens to text.
//!
//! Whole decoding runs a list of steps over all tokens. Here every step keeps only what later
//! tokens may still change: the bytes of an unfinished character, a run of byte tokens (which
//! decodes as a whole or not at all), a trailing character that may be stripped. So the
//! concatenated output equals whole decoding at O(1) amortised a token.

use std::sync::Arc;

use serde_json::Value;
use tokenizers::{Decoder, DecoderWrapper};

use crate::tokenizer::Tokenizer;
use crate::{Result, TextError};

pub struct StreamDecoder {
    tokenizer: Arc<Tokenizer>,
    skip_special: bool,
    steps: Vec<Step>,
}

impl StreamDecoder {
    pub fn new(tokenizer: Arc<Tokenizer>, skip_special: bool) -> Result<StreamDecoder> {
        let steps = steps_of(&tokenizer.decoder_json()?)?;
        Ok(StreamDecoder { tokenizer, skip_special, steps })
    }

    pub fn push(&mut self, id: u32) -> Result<String> {
        // Ids without a token decode to nothing, as in whole decoding.
        match self.tokenizer.id_to_token(id) {
            Some(token) if !(self.skip_special && self.tokenizer.is_special(&token)) => {
                self.run(0, vec![token])
            }
            _ => Ok(String::new()),
        }
    }

    pub fn flush(&mut self) -> Result<String> {
        let mut text = String::new();
        for i in 0..self.steps.len() {
            let held = self.steps[i].finish()?;
            text += &self.run(i + 1, held)?;
        }
        Ok(text)
    }

    /// Sends `pieces` through the steps from `first` on.
    fn run(&mut self, first: usize, mut pieces: Vec<String>) -> Result<String> {
        for step in &mut self.steps[first..] {
            let mut out = Vec::new();
            for piece in pieces {
                step.push(piece, &mut out)?;
            }
            pieces = out;
        }
        Ok(pieces.concat())
    }
}

enum Step {
    /// No decoder: tokens are joined by spaces.
    Join { started: bool },
    /// Tokens spell bytes; characters leave when complete, or when they cannot be any more.
    ByteLevel { decoder: ByteAlphabet, pending: Vec<u8> },
    /// Each piece on its own; some decoders treat the first one differently.
    EachPiece { decoder: DecoderWrapper, started: bool },
    /// Each piece on its own; the last one differs, so one is held.
    AllButLast { decoder: DecoderWrapper, held: Option<String> },
    /// `<0x41>` tokens: a run of them is a string, or as many replacement characters.
    ByteFallback { run: Vec<u8> },
    /// Strip on the fused text: up to `start` of `content` at its start, `stop` at its end. `left`
    /// and `held` count them across pieces.
    Strip { content: char, start: usize, stop: usize, left: usize, held: usize },
    /// Anything else needs the whole text; it leaves at the end.
    Whole { decoder: DecoderWrapper, pieces: Vec<String> },
}

impl Step {
    fn push(&mut self, piece: String, out: &mut Vec<String>) -> Result<()> {
        match self {
            Step::Join { started } => {
                out.push(if *started { format!(" {piece}") } else { piece });
                *started = true;
            }
            Step::ByteLevel { decoder, pending } => {
                decoder.append(&piece, pending);
                out.push(take_complete(pending));
            }
            Step::EachPiece { decoder, started } => {
                let mut pieces = vec![piece];
                if *started {
                    pieces.insert(0, "-".to_string()); // stands for the pieces before this one
                }
                *started = true;
                out.extend(decode(decoder, pieces)?.pop());
            }
            Step::AllButLast { decoder, held } => {
                if let Some(before) = held.replace(piece) {
                    let mut decoded = decode(decoder, vec![before, "-".to_string()])?;
                    decoded.truncate(1);
                    out.append(&mut decoded);
                }
            }
            Step::ByteFallback { run } => match byte_of(&piece) {
                Some(byte) => run.push(byte),
                None => {
                    out.push(take_run(run));
                    out.push(piece);
                }
            },
            Step::Strip { content, stop, left, held, .. } => {
                out.push(strip(&piece, *content, left, *stop, held));
            }
            Step::Whole { pieces, .. } => pieces.push(piece),
        }
        Ok(())
    }

    /// What is still held; afterwards the step is as new.
    fn finish(&mut self) -> Result<Vec<String>> {
        match self {
            Step::Join { started } | Step::EachPiece { started, .. } => *started = false,
            Step::ByteLevel { pending, .. } => {
                return Ok(vec![String::from_utf8_lossy(&std::mem::take(pending)).into_owned()])
            }
            Step::AllButLast { decoder, held } => {
                if let Some(last) = held.take() {
                    return decode(decoder, vec![last]);
                }
            }
            Step::ByteFallback { run } => return Ok(vec![take_run(run)]),
            // What is held is exactly what the end strips.
            Step::Strip { start, left, held, .. } => {
                *left = *start;
                *held = 0;
            }
            Step::Whole { decoder, pieces } => {
                let pieces = std::mem::take(pieces);
                return if pieces.is_empty() { Ok(vec![]) } else { decode(decoder, pieces) };
            }
        }
        Ok(vec![])
    }
}

fn decode(decoder: &DecoderWrapper, pieces: Vec<String>) -> Result<Vec<String>> {
    decoder.decode_chain(pieces).map_err(|error| TextError::Invalid(format!("decode: {error}")))
}

/// The steps of a decoder, given as tokenizer.json describes it.
fn steps_of(json: &Value) -> Result<Vec<Step>> {
    if json.is_null() {
        return Ok(vec![Step::Join { started: false }]);
    }
    let mut flat = Vec::new();
    flatten(json, &mut flat);
    let mut fused = false; // earlier steps have made one text of all tokens
    let mut steps = Vec::new();
    for description in flat {
        let kind = description["type"].as_str().unwrap_or_default();
        if kind != "Fuse" {
            steps.push(step_of(kind, description, fused)?);
        }
        fused |= matches!(kind, "Fuse" | "ByteLevel");
    }
    Ok(steps)
}

fn flatten<'a>(json: &'a Value, flat: &mut Vec<&'a Value>) {
    match json["decoders"].as_array() {
        Some(decoders) if json["type"] == "Sequence" => {
            decoders.iter().for_each(|decoder| flatten(decoder, flat));
        }
        _ => flat.push(json),
    }
}

fn step_of(kind: &str, json: &Value, fused: bool) -> Result<Step> {
    let decoder: DecoderWrapper = serde_json::from_value(json.clone())
        .map_err(|error| TextError::Invalid(format!("decoder: {error}")))?;
    let one_char = json["pattern"]["String"].as_str().is_some_and(|s| s.chars().count() == 1);
    Ok(match (kind, fused) {
        ("ByteLevel", false) => {
            Step::ByteLevel { decoder: ByteAlphabet::new(), pending: Vec::new() }
        }
        ("ByteFallback", false) => Step::ByteFallback { run: Vec::new() },
        ("Replace" | "Strip" | "Metaspace" | "WordPiece", false) => {
            Step::EachPiece { decoder, started: false }
        }
        ("BPEDecoder", false) => Step::AllButLast { decoder, held: None },
        ("Replace", true) if one_char => Step::EachPiece { decoder, started: false },
        ("Strip", true) => {
            let count = |key: &str| json[key].as_u64().unwrap_or(0) as usize;
            Step::Strip {
                content: json["content"].as_str().and_then(|s| s.chars().next()).unwrap_or(' '),
                start: count("start"),
                stop: count("stop"),
                left: count("start"),
                held: 0,
            }
        }
        _ => Step::Whole { decoder, pieces: Vec::new() },
    })
}

/// The characters with which byte-level vocabularies spell bytes (GPT-2's table).
struct ByteAlphabet(std::collections::HashMap<char, u8>);

impl ByteAlphabet {
    fn new() -> ByteAlphabet {
        let shown = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
        let mut map: std::collections::HashMap<char, u8> =
            (0..=255u8).filter(shown).map(|byte| (byte as char, byte)).collect();
        for (i, byte) in (0..=255u8).filter(|byte| !shown(byte)).enumerate() {
            map.insert(char::from_u32(256 + i as u32).expect("below the surrogates"), byte);
        }
        ByteAlphabet(map)
    }

    /// A token with any other character stands for its own UTF-8 bytes.
    fn append(&self, token: &str, bytes: &mut Vec<u8>) {
        let start = bytes.len();
        for c in token.chars() {
            match self.0.get(&c) {
                Some(byte) => bytes.push(*byte),
                None => {
                    bytes.truncate(start);
                    bytes.extend_from_slice(token.as_bytes());
                    return;
                }
            }
        }
    }
}

/// Takes what is decided of `pending`: all but an unfinished character at its end, with U+FFFD for
/// what is no UTF-8, exactly as `from_utf8_lossy` does on the whole.
fn take_complete(pending: &mut Vec<u8>) -> String {
    let mut keep = 0;
    if let Some(chunk) = pending.utf8_chunks().last() {
        let tail = chunk.invalid();
        if std::str::from_utf8(tail).is_err_and(|error| error.error_len().is_none()) {
            keep = tail.len();
        }
    }
    let tail = pending.split_off(pending.len() - keep);
    let text = String::from_utf8_lossy(pending).into_owned();
    *pending = tail;
    text
}

fn byte_of(token: &str) -> Option<u8> {
    let hex = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if hex.len() != 2 {
        return None;
    }
    u8::from_str_radix(hex, 16).ok()
}

fn take_run(run: &mut Vec<u8>) -> String {
    let run = std::mem::take(run);
    let count = run.len();
    String::from_utf8(run).unwrap_or_else(|_| "\u{FFFD}".repeat(count))
}

/// Drops up to `left` of `content` at the start of the text, and holds up to `stop` at its end:
/// `held` counts them across pieces.
fn strip(piece: &str, content: char, left: &mut usize, stop: usize, held: &mut usize) -> String {
    let mut text = piece;
    while *left > 0 && !text.is_empty() {
        match text.strip_prefix(content) {
            Some(rest) => {
                text = rest;
                *left -= 1;
            }
            None => *left = 0,
        }
    }
    let mut all = content.to_string().repeat(*held) + text;
    *held = all.chars().rev().take(stop).take_while(|c| *c == content).count();
    all.truncate(all.len() - *held * content.len_utf8());
    all
}
