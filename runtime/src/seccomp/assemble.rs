//! Instructions of the kernel's classic packet filter, written from the last to the first.
//!
//! Jumps only lead forward, and conditional ones at most 255 instructions. When written backwards, every target exists
//! already: one `return` serves all jumps that reach it, and code further away is reached by an unconditional jump.

use super::rule::Action;

pub(super) const LOAD: u16 = 0x20;
pub(super) const JUMP: u16 = 0x05;
pub(super) const JUMP_EQUAL: u16 = 0x15;
pub(super) const JUMP_GREATER: u16 = 0x25;
pub(super) const JUMP_GREATER_EQUAL: u16 = 0x35;
pub(super) const JUMP_ANY_BIT: u16 = 0x45;
pub(super) const AND: u16 = 0x54;
pub(super) const RETURN: u16 = 0x06;

/// Offsets in the filter's input: `struct seccomp_data { int nr; u32 arch; u64 ip; u64 args[6]; }`.
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCHITECTURE: u32 = 4;
pub(super) const ARGUMENTS: u32 = 16;

/// Target of a jump.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    Return(Action),
    /// An instruction, counted from the end of the program.
    At(usize),
}

/// Encodes code (16 bits), distances when true and when false (8 bits each), constant (32 bits).
fn instruction(code: u16, yes: u8, no: u8, constant: u32) -> u64 {
    u64::from(code) << 48 | u64::from(yes) << 40 | u64::from(no) << 32 | u64::from(constant)
}

/// Distances of a conditional jump when true and when false.
fn branches(word: u64) -> [usize; 2] {
    [(word >> 40) as u8, (word >> 32) as u8].map(usize::from)
}

/// Possible successors of the instruction at `here`, as indices from the beginning.
fn followers(here: usize, word: u64) -> Vec<usize> {
    match (word >> 48) as u16 {
        RETURN => Vec::new(),
        JUMP => vec![here + 1 + word as u32 as usize],
        JUMP_EQUAL | JUMP_GREATER | JUMP_GREATER_EQUAL | JUMP_ANY_BIT => {
            branches(word).map(|distance| here + 1 + distance).to_vec()
        }
        _ => vec![here + 1],
    }
}

/// A program that is being written.
pub(super) struct Assembler {
    reversed: Vec<u64>,
    /// Newest `return` of each action.
    returns: Vec<(Action, usize)>,
}

impl Assembler {
    pub(super) fn new() -> Assembler {
        Assembler { reversed: Vec::with_capacity(1024), returns: Vec::new() }
    }

    /// Returns the program without unreachable instructions, which the kernel would translate as well.
    pub(super) fn finish(mut self) -> Vec<u64> {
        self.reversed.reverse();
        let program = self.reversed;
        let mut reached = vec![false; program.len()];
        if let Some(first) = reached.first_mut() {
            *first = true;
        }
        // Jumps only lead forward.
        for here in 0..program.len() {
            if reached[here] {
                for next in followers(here, program[here]) {
                    reached[next] = true;
                }
            }
        }
        let mut places = Vec::with_capacity(program.len());
        let mut place = 0;
        for reached in &reached {
            places.push(place);
            place += usize::from(*reached);
        }
        let near = |here: usize, next: usize| (places[next] - places[here] - 1) as u8;
        let kept = program.iter().enumerate().filter(|(here, _)| reached[*here]);
        let moved = kept.map(|(here, word)| {
            let (code, constant) = ((word >> 48) as u16, *word as u32);
            match code {
                JUMP => {
                    let next = here + 1 + constant as usize;
                    instruction(JUMP, 0, 0, (places[next] - places[here] - 1) as u32)
                }
                JUMP_EQUAL | JUMP_GREATER | JUMP_GREATER_EQUAL | JUMP_ANY_BIT => {
                    let [yes, no] = branches(*word).map(|distance| near(here, here + 1 + distance));
                    instruction(code, yes, no, constant)
                }
                _ => *word,
            }
        });
        moved.collect()
    }

    /// Loads a word, then continues at `next`.
    pub(super) fn load(&mut self, offset: u32, next: Target) -> Target {
        self.lead_to(next);
        self.push(instruction(LOAD, 0, 0, offset))
    }

    /// Loads a word and masks it, then continues at `next`.
    pub(super) fn load_masked(&mut self, offset: u32, mask: u32, next: Target) -> Target {
        self.lead_to(next);
        self.push(instruction(AND, 0, 0, mask));
        self.push(instruction(LOAD, 0, 0, offset))
    }

    /// Continues at `yes` or `no`, depending on a test of the loaded word.
    pub(super) fn jump(&mut self, code: u16, constant: u32, yes: Target, no: Target) -> Target {
        let (yes, no) = (self.reach(yes), self.reach(no));
        let here = self.reversed.len();
        let distance = |label: usize| u8::try_from(here - label - 1).expect("what `reach` gives is near");
        self.push(instruction(code, distance(yes), distance(no), constant))
    }

    /// Loads a word, then continues depending on a test of it. Targets that begin by loading the same word are entered
    /// behind that load.
    pub(super) fn test(&mut self, offset: u32, code: u16, constant: u32, yes: Target, no: Target) -> Target {
        let (yes, no) = (self.loaded(offset, yes), self.loaded(offset, no));
        let jump = self.jump(code, constant, yes, no);
        self.load(offset, jump)
    }

    /// Target for a word that is already loaded.
    pub(super) fn loaded(&self, offset: u32, target: Target) -> Target {
        match target {
            Target::At(label) if self.reversed[label] == instruction(LOAD, 0, 0, offset) => {
                Target::At(label - 1)
            }
            other => other,
        }
    }

    /// Target for a known result of the test with which it begins.
    pub(super) fn decided(
        &self,
        offset: u32,
        (code, constant): (u16, u32),
        outcome: bool,
        target: Target,
    ) -> Target {
        let Target::At(label) = self.loaded(offset, target) else { return target };
        let is_loaded = matches!(target, Target::At(before) if before != label);
        let word = self.reversed[label];
        if !is_loaded || word & !(0xffff << 32) != instruction(code, 0, 0, constant) {
            return target;
        }
        let [yes, no] = branches(word);
        Target::At(label - 1 - if outcome { yes } else { no })
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

    /// Position that leads to the target and is near enough for a jump in the next two instructions.
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

    /// Makes the target the successor of the next instruction.
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
