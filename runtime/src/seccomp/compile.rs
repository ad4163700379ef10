//! From rules to instructions of the kernel's classic packet filter.
//!
//! Layout of what a filter sees: `struct seccomp_data { int nr; u32 arch; u64 ip; u64 args[6]; }`.

use super::numbers::NUMBERS;
use super::{EINVAL, ENOSYS};

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Allow,
    Log,
    Errno(u16),
    Trace(u16),
    Trap,
    KillThread,
    KillProcess,
}

impl Action {
    /// `SECCOMP_RET_…`.
    fn value(self) -> u32 {
        match self {
            Action::Allow => 0x7fff_0000,
            Action::Log => 0x7ffc_0000,
            Action::Trace(data) => 0x7ff0_0000 | u32::from(data),
            Action::Errno(errno) => 0x0005_0000 | u32::from(errno),
            Action::Trap => 0x0003_0000,
            Action::KillThread => 0x0000_0000,
            Action::KillProcess => 0x8000_0000,
        }
    }
}

/// How an argument is compared, as an unsigned number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal(u64),
    NotEqual(u64),
    Less(u64),
    LessOrEqual(u64),
    Greater(u64),
    GreaterOrEqual(u64),
    /// With the mask first, the value second.
    Masked(u64, u64),
}

/// What happens to a call by name, when all conditions on its arguments hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) name: String,
    pub(super) action: Action,
    pub(super) conditions: Vec<(usize, Comparison)>,
}

impl Rule {
    pub(super) fn plain(name: &str, action: Action) -> Rule {
        Rule { name: name.to_owned(), action, conditions: Vec::new() }
    }

    pub(super) fn when(name: &str, action: Action, argument: usize, comparison: Comparison) -> Rule {
        Rule { name: name.to_owned(), action, conditions: vec![(argument, comparison)] }
    }
}

/// Architectures whose calls a machine may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Architecture {
    X86_64,
    X86,
    Arm64,
}

impl Architecture {
    /// This machine's own, and those it runs besides.
    pub(super) fn native() -> Vec<Architecture> {
        if cfg!(target_arch = "aarch64") {
            vec![Architecture::Arm64]
        } else {
            vec![Architecture::X86_64, Architecture::X86]
        }
    }

    /// `AUDIT_ARCH_…`.
    fn audit(self) -> u32 {
        match self {
            Architecture::X86_64 => 0xc000_003e,
            Architecture::X86 => 0x4000_0003,
            Architecture::Arm64 => 0xc000_00b7,
        }
    }

    fn number(self, name: &str) -> Option<u32> {
        let index = NUMBERS.binary_search_by(|(known, ..)| (*known).cmp(name)).ok()?;
        let (_, x86_64, x86, arm64) = NUMBERS[index];
        let number = match self {
            Architecture::X86_64 => x86_64,
            Architecture::X86 => x86,
            Architecture::Arm64 => arm64,
        };
        u32::try_from(number).ok()
    }

    /// One past the highest call of the table.
    fn end(self) -> u32 {
        NUMBERS.iter().filter_map(|(name, ..)| self.number(name)).max().map_or(0, |highest| highest + 1)
    }
}

/// A whole filter.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    pub(super) rules: Vec<Rule>,
    pub(super) default: Action,
    pub(super) architectures: Vec<Architecture>,
}

/// What is done about a run of call numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Return(Action),
    /// Conditions in order, each with its action; none holding, the last.
    Check(Vec<(Vec<(usize, Comparison)>, Action)>, Action),
}

/// Numbers from `start` up to the next range's start.
#[derive(Clone, Debug)]
struct Range {
    start: u32,
    outcome: Outcome,
}

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;

/// Calls of the x32 interface have this bit set.
const X32: u32 = 0x4000_0000;

fn instruction(code: u16, jump_true: u8, jump_false: u8, constant: u32) -> u64 {
    u64::from(code) << 48 | u64::from(jump_true) << 40 | u64::from(jump_false) << 32 | u64::from(constant)
}

impl Filter {
    /// The program: first the architecture, then a search over its numbers.
    pub(super) fn compile(&self) -> Vec<u64> {
        let mut program = vec![instruction(LOAD, 0, 0, 4)];
        for architecture in &self.architectures {
            let body = self.body(*architecture);
            // Too far for a conditional jump, whose distance is a byte: jump over an unconditional one.
            program.push(instruction(JUMP_EQUAL, 1, 0, architecture.audit()));
            program.push(instruction(JUMP, 0, 0, body.len() as u32));
            program.extend(body);
        }
        program.push(instruction(RETURN, 0, 0, self.default.value()));
        program
    }

    fn body(&self, architecture: Architecture) -> Vec<u64> {
        let mut body = vec![instruction(LOAD, 0, 0, 0)];
        search(&self.ranges(architecture), &mut body);
        body
    }

    /// All numbers in runs of equal outcome.
    fn ranges(&self, architecture: Architecture) -> Vec<Range> {
        let end = architecture.end();
        let mut outcomes = vec![Outcome::Return(self.default); end as usize];
        for rule in &self.rules {
            let Some(number) = architecture.number(&rule.name) else { continue };
            let outcome = &mut outcomes[number as usize];
            *outcome = self.merged(outcome, rule);
        }
        let mut ranges: Vec<Range> = Vec::new();
        for (number, outcome) in outcomes.into_iter().enumerate() {
            if ranges.last().is_none_or(|last| last.outcome != outcome) {
                ranges.push(Range { start: number as u32, outcome });
            }
        }
        // A call that is newer than the table does not exist, as far as a program can tell: it falls back.
        let unknown = match self.default {
            Action::Errno(_) => Action::Errno(ENOSYS),
            other => other,
        };
        ranges.push(Range { start: end, outcome: Outcome::Return(unknown) });
        if architecture == Architecture::X86_64 {
            ranges.push(Range { start: X32, outcome: Outcome::Return(unknown) });
        }
        ranges.dedup_by(|next, last| next.outcome == last.outcome);
        ranges
    }

    /// A call's outcome with one more rule; a rule without conditions decides whatever came before.
    fn merged(&self, outcome: &Outcome, rule: &Rule) -> Outcome {
        if rule.conditions.is_empty() {
            return match outcome {
                Outcome::Return(action) if *action != self.default => outcome.clone(),
                Outcome::Return(_) => Outcome::Return(rule.action),
                Outcome::Check(checks, _) => Outcome::Check(checks.clone(), rule.action),
            };
        }
        let (mut checks, otherwise) = match outcome {
            Outcome::Return(action) => (Vec::new(), *action),
            Outcome::Check(checks, otherwise) => (checks.clone(), *otherwise),
        };
        if otherwise == rule.action {
            return outcome.clone();
        }
        checks.push((rule.conditions.clone(), rule.action));
        Outcome::Check(checks, otherwise)
    }
}

/// A binary search for the range that holds the loaded number.
fn search(ranges: &[Range], program: &mut Vec<u64>) {
    if let [only] = ranges {
        return conclude(&only.outcome, program);
    }
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    let mut low = Vec::new();
    search(lower, &mut low);
    match u8::try_from(low.len()) {
        Ok(distance) => program.push(instruction(JUMP_GREATER_EQUAL, distance, 0, upper[0].start)),
        Err(_) => {
            program.push(instruction(JUMP_GREATER_EQUAL, 0, 1, upper[0].start));
            program.push(instruction(JUMP, 0, 0, low.len() as u32));
        }
    }
    program.extend(low);
    search(upper, program);
}

fn conclude(outcome: &Outcome, program: &mut Vec<u64>) {
    match outcome {
        Outcome::Return(action) => program.push(instruction(RETURN, 0, 0, action.value())),
        Outcome::Check(checks, otherwise) => {
            for (conditions, action) in checks {
                let mut body = vec![instruction(RETURN, 0, 0, action.value())];
                for (argument, comparison) in conditions.iter().rev() {
                    body = guarded(*argument, *comparison, body);
                }
                program.extend(body);
            }
            program.push(instruction(RETURN, 0, 0, otherwise.value()));
        }
    }
}

/// Instructions that run `body` when a comparison holds and skip it when not.
fn guarded(argument: usize, comparison: Comparison, body: Vec<u64>) -> Vec<u64> {
    if argument >= 6 {
        return vec![instruction(RETURN, 0, 0, Action::Errno(EINVAL).value())];
    }
    let low = 16 + 8 * argument as u32;
    let (load_low, load_high) = (instruction(LOAD, 0, 0, low), instruction(LOAD, 0, 0, low + 4));
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    let skip = body.len() as u8;
    let mut code = match comparison {
        Comparison::Equal(value) => {
            let (high, low) = halves(value);
            vec![
                load_high,
                instruction(JUMP_EQUAL, 0, skip + 2, high),
                load_low,
                instruction(JUMP_EQUAL, 0, skip, low),
            ]
        }
        Comparison::NotEqual(value) => {
            let (high, low) = halves(value);
            vec![
                load_high,
                instruction(JUMP_EQUAL, 0, 2, high),
                load_low,
                instruction(JUMP_EQUAL, skip, 0, low),
            ]
        }
        Comparison::Masked(mask, value) => {
            let ((mask_high, mask_low), (high, low)) = (halves(mask), halves(value));
            vec![
                load_high,
                instruction(AND, 0, 0, mask_high),
                instruction(JUMP_EQUAL, 0, skip + 3, high),
                load_low,
                instruction(AND, 0, 0, mask_low),
                instruction(JUMP_EQUAL, 0, skip, low),
            ]
        }
        Comparison::Greater(value) => ordered(load_high, load_low, halves(value), JUMP_GREATER, true, skip),
        Comparison::GreaterOrEqual(value) => {
            ordered(load_high, load_low, halves(value), JUMP_GREATER_EQUAL, true, skip)
        }
        Comparison::Less(value) => {
            ordered(load_high, load_low, halves(value), JUMP_GREATER_EQUAL, false, skip)
        }
        Comparison::LessOrEqual(value) => {
            ordered(load_high, load_low, halves(value), JUMP_GREATER, false, skip)
        }
    };
    code.extend(body);
    code
}

/// `above`: the body runs when the argument is greater (or equal, by `jump`); else when it is not.
fn ordered(
    load_high: u64,
    load_low: u64,
    (high, low): (u32, u32),
    jump: u16,
    above: bool,
    skip: u8,
) -> Vec<u64> {
    // The high half decides unless it is equal; then the low half does.
    let (to_body, past_body) = (3, skip + 3);
    let (when_above, when_below) = if above { (to_body, past_body) } else { (past_body, to_body) };
    let low_test = if above { instruction(jump, 0, skip, low) } else { instruction(jump, skip, 0, low) };
    vec![
        load_high,
        instruction(JUMP_GREATER, when_above, 0, high),
        instruction(JUMP_EQUAL, 0, when_below - 1, high),
        load_low,
        low_test,
    ]
}

/// Runs a program as the kernel would; for tests.
#[cfg(test)]
pub(super) fn run(program: &[u64], audit: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = [0u8; 64];
    data[0..4].copy_from_slice(&number.to_le_bytes());
    data[4..8].copy_from_slice(&audit.to_le_bytes());
    for (index, argument) in arguments.iter().enumerate() {
        data[16 + 8 * index..24 + 8 * index].copy_from_slice(&argument.to_le_bytes());
    }
    let (mut at, mut accumulator) = (0usize, 0u32);
    loop {
        let word = program[at];
        let (code, yes, no, k) = ((word >> 48) as u16, (word >> 40) as u8, (word >> 32) as u8, word as u32);
        at += 1;
        let test = match code {
            LOAD => {
                let offset = k as usize;
                accumulator = u32::from_le_bytes(data[offset..offset + 4].try_into().expect("four bytes"));
                continue;
            }
            AND => {
                accumulator &= k;
                continue;
            }
            JUMP => {
                at += k as usize;
                continue;
            }
            RETURN => return k,
            JUMP_EQUAL => accumulator == k,
            JUMP_GREATER => accumulator > k,
            JUMP_GREATER_EQUAL => accumulator >= k,
            other => panic!("unknown instruction {other:#x}"),
        };
        at += usize::from(if test { yes } else { no });
    }
}
