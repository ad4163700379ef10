//! From rules to a program.
//!
//! For each architecture the calls are sorted by number and joined to ranges of equal outcome; a tree of comparisons
//! finds the range.

use super::architecture::{self, Architecture, IPC_CALLS, SOCKET_CALLS};
use super::assemble::{
    ARCHITECTURE, ARGUMENTS, Assembler, JUMP_ANY_BIT, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_EQUAL, NUMBER,
    Target,
};
use super::numbers::NUMBERS;
use super::rule::{Action, Comparison, Condition, Filter};

/// Result of the compilation.
pub(super) struct Program<'a> {
    /// Instructions, each as one number.
    pub(super) instructions: Vec<u64>,
    /// Names in the rules that no architecture has.
    pub(super) unknown: Vec<&'a str>,
}

const ENOSYS: u16 = 38;
/// Calls of the x32 interface have this bit set.
const X32: u64 = 0x4000_0000;
/// One past the highest number.
const END: u64 = 1 << 32;

impl<'a> Filter<'a> {
    pub(super) fn compile(&'a self) -> Program<'a> {
        let (decisions, unknown) = self.decisions();
        // x32 is decided together with x86-64, of which it is a part.
        let architectures = self.architectures.iter().rev().filter(|one| **one != Architecture::X32);
        let bodies: Vec<Body<'_>> =
            architectures.map(|architecture| Body::new(self, *architecture, &decisions)).collect();
        let mut assembler = Assembler::new();
        let mut written = Vec::new();
        let mut tops = Vec::new();
        for body in &bodies {
            tops.push((body.architecture.audit(), body.write(&mut assembler, &mut written)));
        }
        let mut next = Target::Return(self.foreign);
        for (audit, top) in tops {
            next = assembler.jump(JUMP_EQUAL, audit, top, next);
        }
        assembler.load(ARCHITECTURE, next);
        Program { instructions: assembler.finish(), unknown }
    }

    /// Decisions of the rules about each call of the table, and the names that are not in it.
    fn decisions(&'a self) -> (Vec<Decision<'a>>, Vec<&'a str>) {
        let mut decisions = vec![Decision::default(); NUMBERS.len()];
        let mut unknown = Vec::new();
        for rule in &self.rules {
            for name in &rule.names {
                let Some(call) = architecture::call(name) else {
                    unknown.push(*name);
                    continue;
                };
                let decision = &mut decisions[call];
                decision.mentioned = true;
                if rule.action == self.default {
                    continue;
                }
                if rule.alternatives.iter().all(Vec::is_empty) {
                    decision.always = decision.always.or(Some(rule.action));
                }
                decision.checks.extend(rule.alternatives.iter().map(|conditions| Check {
                    multiplexed: None,
                    conditions,
                    action: rule.action,
                }));
            }
        }
        (decisions, unknown)
    }
}

/// Decision of the rules about a call.
#[derive(Clone, Debug, Default, PartialEq)]
struct Decision<'a> {
    mentioned: bool,
    /// Action of a rule without conditions; `None` when all have conditions.
    always: Option<Action>,
    /// Otherwise the first check that holds counts.
    checks: Vec<Check<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Check<'a> {
    /// First argument of `socketcall` or `ipc` for the call; conditions on that argument are then dropped.
    multiplexed: Option<u32>,
    conditions: &'a [Condition],
    action: Action,
}

/// Outcome of a range of call numbers.
#[derive(Clone, Copy, Debug)]
enum Outcome<'d> {
    Return(Action),
    /// The flag is true for 64-bit arguments; x86-64 and x32 differ in it.
    Check(&'d [Check<'d>], bool),
}

impl PartialEq for Outcome<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Outcome::Return(one), Outcome::Return(other)) => one == other,
            (Outcome::Check(one, wide), Outcome::Check(other, too)) => {
                wide == too && (std::ptr::eq(*one, *other) || one == other)
            }
            _ => false,
        }
    }
}

/// Call numbers from `start` up to the next range's start.
#[derive(Clone, Copy, Debug)]
struct Range<'d> {
    start: u64,
    outcome: Outcome<'d>,
}

/// Leaf of the tree: a range, optionally with a single number of another outcome in it.
#[derive(Clone, Copy, Debug)]
struct Leaf<'d> {
    start: u64,
    outcome: Outcome<'d>,
    exception: Option<(u32, Outcome<'d>)>,
    weight: u64,
}

/// Part of a program for one architecture.
struct Body<'f> {
    filter: &'f Filter<'f>,
    architecture: Architecture,
    decisions: &'f [Decision<'f>],
    /// Decisions about `socketcall` and `ipc`, by their numbers.
    multiplexers: Vec<(u32, Decision<'f>)>,
}

/// Checks that are already written, for big-endian (true) or little-endian architectures.
type Written<'d> = Vec<(bool, Outcome<'d>, Target)>;

impl<'f> Body<'f> {
    fn new(filter: &'f Filter<'f>, architecture: Architecture, decisions: &'f [Decision<'f>]) -> Body<'f> {
        let mut body = Body { filter, architecture, decisions, multiplexers: Vec::new() };
        body.multiplexers = body.find_multiplexers();
        body
    }

    fn write<'d>(&'d self, assembler: &mut Assembler, written: &mut Written<'d>) -> Target {
        let mut ranges = self.ranges();
        ranges.dedup_by(|next, last| next.outcome == last.outcome);
        let mut tree = Tree { body: self, assembler, written };
        let root = tree.search(&leaves(&ranges));
        assembler.load(NUMBER, root)
    }

    fn find_multiplexers(&self) -> Vec<(u32, Decision<'f>)> {
        if !self.architecture.is_multiplexed() {
            return Vec::new();
        }
        let calls: [(&str, &[(&str, u32)]); 2] = [("socketcall", &SOCKET_CALLS), ("ipc", &IPC_CALLS)];
        let mut found = Vec::new();
        for (multiplexer, calls) in calls {
            let call = architecture::call(multiplexer).expect("it is in the table");
            let Some(number) = self.architecture.number(call) else { continue };
            let mut decision = self.decisions[call].clone();
            for (name, code) in calls {
                let Some(call) = architecture::call(name) else { continue };
                let inner = &self.decisions[call];
                let multiplexed = Some(*code);
                if let Some(action) = inner.always {
                    decision.checks.push(Check { multiplexed, conditions: &[], action });
                } else {
                    decision.checks.extend(inner.checks.iter().map(|check| Check { multiplexed, ..*check }));
                }
            }
            found.push((number, decision));
        }
        found
    }

    /// Ranges of all numbers from 0 to the last, in order.
    fn ranges(&self) -> Vec<Range<'_>> {
        let mut ranges = Vec::with_capacity(512);
        let unknown = self.segment(self.architecture, &self.multiplexers, 0, &mut ranges);
        if self.architecture != Architecture::X86_64 {
            return ranges;
        }
        let push = |ranges: &mut Vec<Range<'_>>, start, action| {
            ranges.push(Range { start, outcome: Outcome::Return(action) });
        };
        let default = self.filter.default;
        if self.filter.architectures.contains(&Architecture::X32) {
            let unknown_x32 = self.segment(Architecture::X32, &[], X32, &mut ranges);
            push(&mut ranges, 2 * X32, unknown);
            push(&mut ranges, 3 * X32, unknown_x32);
        } else {
            let foreign = self.filter.foreign;
            push(&mut ranges, X32, foreign);
            if unknown != default {
                push(&mut ranges, 2 * X32, unknown);
                push(&mut ranges, 3 * X32, foreign);
            }
            // -1 is the number of a call that a tracer has cancelled.
            push(&mut ranges, END - 1, default);
        }
        ranges
    }

    /// Adds the numbers of one interface, moved up by `base`. Returns the outcome of those above the last.
    fn segment<'d>(
        &'d self,
        architecture: Architecture,
        multiplexers: &'d [(u32, Decision<'f>)],
        base: u64,
        ranges: &mut Vec<Range<'d>>,
    ) -> Action {
        let default = self.filter.default;
        let wide = architecture.is_wide();
        let mut calls: Vec<(u32, Outcome<'d>)> = Vec::with_capacity(512);
        let mut last = 0;
        for (call, decision) in self.decisions.iter().enumerate() {
            let Some(number) = architecture.number(call) else { continue };
            if decision.mentioned {
                last = last.max(number);
                if !multiplexers.iter().any(|(multiplexer, _)| *multiplexer == number) {
                    calls.extend(outcome(decision, wide).map(|outcome| (number, outcome)));
                }
            }
        }
        for (number, decision) in multiplexers {
            calls.extend(outcome(decision, wide).map(|outcome| (*number, outcome)));
        }
        // A call that is newer than the filter does not exist as far as a program can tell: it falls back.
        let unknown = if default.is_permissive() || last == 0 { default } else { Action::Errno(ENOSYS) };
        if unknown != default && matches!(architecture, Architecture::S390x | Architecture::S390) {
            // The kernel reports calls unknown to it under this number there.
            calls.retain(|(number, _)| *number != 0);
            calls.push((0, Outcome::Return(unknown)));
        }
        calls.sort_unstable_by_key(|(number, _)| *number);
        let mut next = 0;
        for (number, outcome) in calls {
            if next < number {
                ranges.push(Range { start: base + u64::from(next), outcome: Outcome::Return(default) });
            }
            ranges.push(Range { start: base + u64::from(number), outcome });
            next = number + 1;
        }
        // Numbers between belong to calls that the rules name but leave to the default action.
        if next <= last {
            ranges.push(Range { start: base + u64::from(next), outcome: Outcome::Return(default) });
        }
        let start = base + u64::from(last) + u64::from(last > 0 || next > 0);
        ranges.push(Range { start, outcome: Outcome::Return(unknown) });
        unknown
    }
}

/// Outcome of a decision; `None` for the default action.
fn outcome<'d>(decision: &'d Decision<'_>, wide: bool) -> Option<Outcome<'d>> {
    match decision.always {
        Some(action) => Some(Outcome::Return(action)),
        None if decision.checks.is_empty() => None,
        None => Some(Outcome::Check(&decision.checks, wide)),
    }
}

/// Joins ranges where a single number interrupts an outcome.
fn leaves<'d>(ranges: &[Range<'d>]) -> Vec<Leaf<'d>> {
    let mut leaves: Vec<Leaf<'d>> = Vec::with_capacity(ranges.len());
    let mut index = 0;
    while let Some(range) = ranges.get(index) {
        let mut leaf = Leaf { start: range.start, outcome: range.outcome, exception: None, weight: 0 };
        index += 1;
        if let (Some(single), Some(after)) = (ranges.get(index), ranges.get(index + 1))
            && after.start == single.start + 1
            && after.outcome == range.outcome
            && let Ok(number) = u32::try_from(single.start)
        {
            leaf.exception = Some((number, single.outcome));
            index += 2;
        }
        // The kernel tries all its calls when it loads a filter, so frequent outcomes are decided early.
        let end = ranges.get(index).map_or(END, |next| next.start);
        leaf.weight = (end - leaf.start).min(8);
        leaves.push(leaf);
    }
    leaves
}

/// Writer of the search for a number.
struct Tree<'w, 't, 'f> {
    body: &'t Body<'f>,
    assembler: &'w mut Assembler,
    written: &'w mut Written<'t>,
}

impl<'t> Tree<'_, 't, '_> {
    fn search(&mut self, leaves: &[Leaf<'t>]) -> Target {
        if let [only] = leaves {
            return self.leaf(only);
        }
        let (lower, upper) = leaves.split_at(middle(leaves));
        let (high, low) = (self.search(upper), self.search(lower));
        let start = u32::try_from(upper[0].start).expect("the highest number has 32 bits");
        self.assembler.jump(JUMP_GREATER_EQUAL, start, high, low)
    }

    fn leaf(&mut self, leaf: &Leaf<'t>) -> Target {
        let usual = self.outcome(leaf.outcome);
        match leaf.exception {
            None => usual,
            Some((number, outcome)) => {
                let unusual = self.outcome(outcome);
                self.assembler.jump(JUMP_EQUAL, number, unusual, usual)
            }
        }
    }

    fn outcome(&mut self, outcome: Outcome<'t>) -> Target {
        let (checks, wide) = match outcome {
            Outcome::Return(action) => return Target::Return(action),
            Outcome::Check(checks, wide) => (checks, wide),
        };
        let big_endian = self.body.architecture.is_big_endian();
        let known = self.written.iter().find(|(order, known, _)| *order == big_endian && *known == outcome);
        if let Some((_, _, target)) = known {
            return *target;
        }
        let mut next = Target::Return(self.body.filter.default);
        for check in checks.iter().rev() {
            next = self.check(check, wide, next);
        }
        self.written.push((big_endian, outcome, next));
        next
    }

    fn check(&mut self, check: &Check<'_>, wide: bool, no: Target) -> Target {
        let mut yes = Target::Return(check.action);
        for condition in check.conditions.iter().rev() {
            if check.multiplexed.is_none() || condition.argument != 0 {
                yes = self.condition(condition, wide, yes, no);
            }
        }
        if let Some(code) = check.multiplexed {
            let comparison = Comparison::Equal(code.into());
            yes = self.condition(&Condition { argument: 0, comparison, narrow: true }, wide, yes, no);
        }
        yes
    }

    fn condition(&mut self, condition: &Condition, wide: bool, yes: Target, no: Target) -> Target {
        let offset = ARGUMENTS + 8 * u32::from(condition.argument);
        let (low, high) =
            if self.body.architecture.is_big_endian() { (offset + 4, offset) } else { (offset, offset + 4) };
        let wide = wide && !condition.narrow;
        let word = Word { low, high: wide.then_some(high) };
        let last = if wide { u64::MAX } else { u64::from(u32::MAX) };
        match condition.comparison {
            Comparison::Equal(value) => self.equal(&word, last, value & last, yes, no),
            Comparison::NotEqual(value) => self.equal(&word, last, value & last, no, yes),
            Comparison::Masked(mask, value) => self.equal(&word, mask & last, value & mask & last, yes, no),
            Comparison::GreaterOrEqual(value) => self.at_least(&word, value & last, yes, no),
            Comparison::Less(value) => self.at_least(&word, value & last, no, yes),
            // No number is greater than the largest.
            Comparison::Greater(value) if value & last == last => no,
            Comparison::LessOrEqual(value) if value & last == last => yes,
            Comparison::Greater(value) => self.at_least(&word, (value & last) + 1, yes, no),
            Comparison::LessOrEqual(value) => self.at_least(&word, (value & last) + 1, no, yes),
        }
    }

    fn equal(&mut self, word: &Word, mask: u64, value: u64, yes: Target, no: Target) -> Target {
        let (low, high) = (value as u32, (value >> 32) as u32);
        let Some(offset) = word.high else { return self.equal_half(word.low, mask as u32, low, yes, no) };
        // The target for inequality often begins with the same test of the high half.
        let whole = mask >> 32 == u64::from(u32::MAX);
        let known = |assembler: &Assembler, outcome| match whole {
            true => assembler.decided(offset, (JUMP_EQUAL, high), outcome, no),
            false => no,
        };
        let low_differs = known(self.assembler, true);
        let next = self.equal_half(word.low, mask as u32, low, yes, low_differs);
        let high_differs = known(self.assembler, false);
        self.equal_half(offset, (mask >> 32) as u32, high, next, high_differs)
    }

    fn equal_half(&mut self, offset: u32, mask: u32, value: u32, yes: Target, no: Target) -> Target {
        match (mask, value) {
            (0, _) => yes,
            (u32::MAX, value) => self.assembler.test(offset, JUMP_EQUAL, value, yes, no),
            (mask, 0) => self.assembler.test(offset, JUMP_ANY_BIT, mask, no, yes),
            (mask, value) => {
                let jump = self.assembler.jump(JUMP_EQUAL, value, yes, no);
                self.assembler.load_masked(offset, mask, jump)
            }
        }
    }

    fn at_least(&mut self, word: &Word, value: u64, yes: Target, no: Target) -> Target {
        let (low, high) = (value as u32, (value >> 32) as u32);
        let next = match low {
            0 => yes,
            low => self.assembler.test(word.low, JUMP_GREATER_EQUAL, low, yes, no),
        };
        match (word.high, high) {
            (None, _) => next,
            (Some(_), 0) if low == 0 => yes,
            // The high half decides unless it is equal; then the low half does.
            (Some(offset), 0) => self.assembler.test(offset, JUMP_GREATER, 0, yes, next),
            (Some(offset), high) if low == 0 => {
                self.assembler.test(offset, JUMP_GREATER_EQUAL, high, yes, no)
            }
            (Some(offset), high) => {
                let no = self.assembler.loaded(offset, no);
                let equal = self.assembler.jump(JUMP_EQUAL, high, next, no);
                self.assembler.test(offset, JUMP_GREATER, high, yes, equal)
            }
        }
    }
}

/// Offsets of an argument's halves; no high one where only the low half counts.
struct Word {
    low: u32,
    high: Option<u32>,
}

/// Index that splits the leaves into two sides of about equal weight.
fn middle(leaves: &[Leaf<'_>]) -> usize {
    let total: u64 = leaves.iter().map(|leaf| leaf.weight).sum();
    let mut lower = 0;
    for (index, leaf) in leaves.iter().enumerate() {
        // This leaf exceeds the half by more than the leaves before it fall short of it: split before it.
        if 2 * lower + leaf.weight >= total {
            return index.clamp(1, leaves.len() - 1);
        }
        lower += leaf.weight;
    }
    leaves.len() - 1
}
