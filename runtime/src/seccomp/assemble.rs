//! Instructions of the kernel's classic packet filter, written from the last to the first.
//!
//! Jumps only lead forward, and conditional ones at most 255 instructions. Written backwards, every target is
//! there already: one `return` serves all jumps that reach it, and code further away is reached by way of an
//! unconditional jump.

use super::rule::Action;

pub(super) const LOAD: u16 = 0x20;
pub(super) const JUMP: u16 = 0x05;
pub(super) const JUMP_EQUAL: u16 = 0x15;
pub(super) const JUMP_GREATER: u16 = 0x25;
pub(super) const JUMP_GREATER_EQUAL: u16 = 0x35;
pub(super) const JUMP_ANY_BIT: u16 = 0x45;
pub(super) const AND: u16 = 0x54;
pub(super) const RETURN: u16 = 0x06;

/// Offsets in what a filter sees: `struct seccomp_data { int nr; u32 arch; u64 ip; u64 args[6]; }`.
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCHITECTURE: u32 = 4;
pub(super) const ARGUMENTS: u32 = 16;

/// Where control goes next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    Return(Action),
    /// An instruction, counted from the end of the program.
    At(usize),
}

/// Code (16 bits), distances when true and when false (8 bits each), constant (32 bits).
fn instruction(code: u16, yes: u8, no: u8, constant: u32) -> u64 {
    u64::from(code) << 48 | u64::from(yes) << 40 | u64::from(no) << 32 | u64::from(constant)
}

/// A program in the making.
pub(super) struct Assembler {
    reversed: Vec<u64>,
    /// The newest `return` of each action.
    returns: Vec<(Action, usize)>,
}

impl Assembler {
    pub(super) fn new() -> Assembler {
        Assembler { reversed: Vec::with_capacity(1024), returns: Vec::new() }
    }

    pub(super) fn finish(mut self) -> Vec<u64> {
        self.reversed.reverse();
        self.reversed
    }

    /// Loads a word, then goes on at `next`.
    pub(super) fn load(&mut self, offset: u32, next: Target) -> Target {
        self.lead_to(next);
        self.push(instruction(LOAD, 0, 0, offset))
    }

    /// Loads a word and masks it, then goes on at `next`.
    pub(super) fn load_masked(&mut self, offset: u32, mask: u32, next: Target) -> Target {
        self.lead_to(next);
        self.push(instruction(AND, 0, 0, mask));
        self.push(instruction(LOAD, 0, 0, offset))
    }

    /// Goes on at `yes` or `no` as a test of the loaded word turns out.
    pub(super) fn jump(&mut self, code: u16, constant: u32, yes: Target, no: Target) -> Target {
        let (yes, no) = (self.reach(yes), self.reach(no));
        let here = self.reversed.len();
        let distance = |label: usize| u8::try_from(here - label - 1).expect("what `reach` gives is near");
        self.push(instruction(code, distance(yes), distance(no), constant))
    }

    /// Loads a word, then goes on as a test of it turns out. Targets that begin by loading the same word are
    /// entered behind that.
    pub(super) fn test(&mut self, offset: u32, code: u16, constant: u32, yes: Target, no: Target) -> Target {
        let (yes, no) = (self.loaded(offset, yes), self.loaded(offset, no));
        let jump = self.jump(code, constant, yes, no);
        self.load(offset, jump)
    }

    /// A target for when a word is loaded already.
    pub(super) fn loaded(&self, offset: u32, target: Target) -> Target {
        match target {
            Target::At(label) if self.reversed[label] == instruction(LOAD, 0, 0, offset) => {
                Target::At(label - 1)
            }
            other => other,
        }
    }

    fn push(&mut self, word: u64) -> Target {
        self.reversed.push(word);
        Target::At(self.reversed.len() - 1)
    }

    fn push_return(&mut self, action: Action) -> usize {
        let label = self.reversed.len();
        self.push(instruction(RETURN, 0, 0, action.value()));
        self.returns.retain(|(known, _)| *known != action);
        self.returns.push((action, label));
        label
    }

    /// A place that leads to the target and is near enough for a jump that is written next, or next but one.
    fn reach(&mut self, target: Target) -> usize {
        const NEAR: usize = 250;
        let here = self.reversed.len();
        match target {
            Target::Return(action) => match self.returns.iter().find(|(known, _)| *known == action) {
                Some((_, label)) if here - label <= NEAR => *label,
                _ => self.push_return(action),
            },
            Target::At(label) if here - label <= NEAR => label,
            Target::At(label) => {
                self.push(instruction(JUMP, 0, 0, (here - label - 1) as u32));
                here
            }
        }
    }

    /// Makes the target what comes after the instruction that is written next.
    fn lead_to(&mut self, target: Target) {
        let here = self.reversed.len();
        match target {
            Target::Return(action) => {
                self.push_return(action);
            }
            Target::At(label) if label + 1 == here => {}
            Target::At(label) => {
                self.push(instruction(JUMP, 0, 0, (here - label - 1) as u32));
            }
        }
    }
}
