//! Changes a compiled template so that it runs as in Python and within a budget: `a ~ b` joins what
//! Python's `str` gives, `a * b` checks the size of what it repeats, every instruction that can
//! make a new string or list accounts for it, and every round of a loop looks at the clock.
//!
//! It works on the instructions, because the engine's syntax tree cannot be changed from outside.
//! Instructions run in order on a value stack, so one that takes n values and leaves one can be
//! replaced by a filter of n arguments, and a filter of one argument can follow any that leaves
//! one.

use minijinja::machinery::{Instruction, Instructions};
use minijinja::value::Value;
use minijinja::Error;

use crate::budget;

/// Filters that `filters::register` defines for the rewritten instructions.
pub const CONCAT: &str = "troupe_concat";
pub const MULTIPLY: &str = "troupe_multiply";
pub const MADE: &str = "troupe_made";

/// The engine caches looked-up filters by such a number; this one means not to.
const NO_CACHE: u8 = u8::MAX;

fn apply(name: &'static str, arguments: u16) -> Instruction<'static> {
    Instruction::ApplyFilter(name, Some(arguments), NO_CACHE)
}

/// Fails when the compiler has folded constants into a value over the budget (`[0] * 10 ** 12`).
pub fn rewrite(original: &Instructions<'static>) -> Result<Instructions<'static>, Error> {
    let mut rewritten = Instructions::new(original.name(), original.source());
    let mut moved_to = Vec::with_capacity(original.len() + 1);
    for i in 0..original.len() as u32 {
        moved_to.push(rewritten.len() as u32);
        let line = original.get_line(i).unwrap_or(0) as u16;
        if let Some(Instruction::LoadConst(value)) = original.get(i) {
            budget::charge_value(value)?;
        }
        if let Some(instruction) = original.get(i) {
            for replacement in replacements(instruction) {
                rewritten.add_with_line(replacement, line);
            }
        }
    }
    moved_to.push(rewritten.len() as u32);
    for i in 0..rewritten.len() as u32 {
        if let Some(target) = rewritten.get_mut(i).and_then(jump_target) {
            if let Some(moved) = moved_to.get(*target as usize) {
                *target = *moved;
            }
        }
    }
    Ok(rewritten)
}

fn replacements(instruction: &Instruction<'static>) -> Vec<Instruction<'static>> {
    let emit = |text: &str| [Instruction::LoadConst(Value::from(text)), Instruction::Emit];
    match instruction {
        Instruction::EmitRaw(text) => emit(text).to_vec(),
        // A round that emits nothing goes through the formatter, which looks at the clock.
        Instruction::Iterate(_) => [&emit("")[..], &[instruction.clone()]].concat(),
        Instruction::StringConcat => vec![apply(CONCAT, 2)],
        Instruction::Mul => vec![apply(MULTIPLY, 2)],
        Instruction::Add
        | Instruction::Slice
        | Instruction::ApplyFilter(..)
        | Instruction::CallFunction(..)
        | Instruction::CallMethod(..)
        | Instruction::CallObject(..) => vec![instruction.clone(), apply(MADE, 1)],
        other => vec![other.clone()],
    }
}

fn jump_target<'a>(instruction: &'a mut Instruction<'static>) -> Option<&'a mut u32> {
    match instruction {
        Instruction::Iterate(target)
        | Instruction::Jump(target)
        | Instruction::JumpIfFalse(target)
        | Instruction::JumpIfFalseOrPop(target)
        | Instruction::JumpIfTrueOrPop(target)
        | Instruction::BuildMacro(_, target, _) => Some(target),
        _ => None,
    }
}
