//! Devices that a container may open: an eBPF program on a version 2 cgroup.
//!
//! Root in a container may create any device node, so opening it must be prevented. The filter needs a cgroup of the
//! version 2 hierarchy, but none of its controllers, so it works on version 1 and hybrid hosts as well.

use crate::sys::{BpfInstruction, DeviceProgram};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use std::fmt;

/// Operations on a device, as bits of `BPF_DEVCG_ACC_…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceAccess(u8);

impl DeviceAccess {
    const MAKE: u8 = 1;
    const READ: u8 = 2;
    const WRITE: u8 = 4;
    const ALL: DeviceAccess = DeviceAccess(7);

    fn parse(text: &str) -> Option<DeviceAccess> {
        let all = text.chars().try_fold(0, |all, letter| {
            Some(
                all | match letter {
                    'm' => DeviceAccess::MAKE,
                    'r' => DeviceAccess::READ,
                    'w' => DeviceAccess::WRITE,
                    _ => return None,
                },
            )
        })?;
        Some(if all == 0 { DeviceAccess::ALL } else { DeviceAccess(all) })
    }
}

impl fmt::Display for DeviceAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = [(DeviceAccess::READ, "r"), (DeviceAccess::WRITE, "w"), (DeviceAccess::MAKE, "m")];
        letters.iter().filter(|(bit, _)| self.0 & bit != 0).try_for_each(|(_, letter)| f.write_str(letter))
    }
}

/// A rule about devices; the last matching rule decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// True to allow, false to deny.
    pub allow: bool,
    /// `b` or `c`; `None` for both.
    pub kind: Option<char>,
    /// Major number; `None` for any.
    pub major: Option<u32>,
    /// Minor number; `None` for any.
    pub minor: Option<u32>,
    /// Operations that the rule allows or denies.
    pub access: DeviceAccess,
}

impl DeviceRule {
    const fn allow(kind: char, major: Option<u32>, minor: Option<u32>, access: DeviceAccess) -> DeviceRule {
        DeviceRule { allow: true, kind: Some(kind), major, minor, access }
    }

    /// Converts a rule of the OCI runtime specification; `None` for pipes and unknown operations.
    pub fn of(rule: &LinuxDeviceCgroup) -> Option<DeviceRule> {
        let kind = match rule.typ() {
            None | Some(LinuxDeviceType::A) => None,
            Some(LinuxDeviceType::B) => Some('b'),
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some('c'),
            Some(LinuxDeviceType::P) => return None,
        };
        let number = |value: Option<i64>| value.and_then(|value| u32::try_from(value).ok());
        let access = DeviceAccess::parse(rule.access().as_deref().unwrap_or_default())?;
        Some(DeviceRule {
            allow: rule.allow(),
            kind,
            major: number(rule.major()),
            minor: number(rule.minor()),
            access,
        })
    }

    /// File and line that set the rule on version 1.
    pub(super) fn legacy(&self) -> (&'static str, String) {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        let file = if self.allow { "devices.allow" } else { "devices.deny" };
        let kind = self.kind.unwrap_or('a');
        (file, format!("{kind} {}:{} {}", number(self.major), number(self.minor), self.access))
    }
}

/// Docker's list: all nodes may be created; null, zero, full, random, urandom, tty, console, ptmx, terminals and tun
/// may be used.
pub fn default_rules() -> Vec<DeviceRule> {
    let any = |kind| DeviceRule::allow(kind, None, None, DeviceAccess(DeviceAccess::MAKE));
    let mut rules = vec![any('c'), any('b')];
    for (major, minor) in [
        (1, Some(3)),
        (1, Some(5)),
        (1, Some(7)),
        (1, Some(8)),
        (1, Some(9)),
        (5, Some(0)),
        (5, Some(1)),
        (5, Some(2)),
        (136, None),
        (10, Some(200)),
    ] {
        rules.push(DeviceRule::allow('c', Some(major), minor, DeviceAccess::ALL));
    }
    rules
}

/// Restricts the devices that processes of a cgroup may create and open; devices without a matching rule are denied.
pub(super) fn restrict(cgroup: BorrowedFd<'_>, rules: &[DeviceRule]) -> Result<(), Errno> {
    DeviceProgram::load(&program(rules))?.attach(cgroup)
}

/// Target of a jump: the next rule, or the end with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    Next,
    Answer(bool),
}

/// Instructions of the rules about one kind of device, with symbolic jumps.
#[derive(Debug, Default)]
struct Section {
    code: Vec<(BpfInstruction, Option<To>)>,
    /// Start of each rule; the last entry is the end.
    starts: Vec<usize>,
    /// True after a rule that matches everything: instructions behind it are unreachable, which the kernel rejects.
    is_decided: bool,
}

// Operations (Linux, `bpf_common.h`, `bpf.h`), all with a constant operand.
const LOAD: u8 = 0x61;
const COPY: u8 = 0xbf;
const AND: u8 = 0x57;
const OR_REGISTER: u8 = 0x4f;
const SHIFT_LEFT: u8 = 0x67;
const SHIFT_RIGHT: u8 = 0x77;
const SET: u8 = 0xb7;
const EXIT: u8 = 0x95;
const JUMP: u8 = 0x05;
const IF_ANY_BIT: u8 = 0x45;
const IF_EQUAL: u8 = 0x15;
const IF_EQUAL_32: u8 = 0x16;
const UNLESS_EQUAL_32: u8 = 0x56;

// Registers: kind, access, major, both numbers in one, and one to work with.
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const NUMBERS: u8 = 5;
const WORK: u8 = 1;

impl Section {
    fn new(rules: &[DeviceRule], kind: char) -> Section {
        let mut section = Section::default();
        // The last matching rule decides, so rules are tested from the last to the first.
        for rule in rules.iter().rev().filter(|rule| rule.kind.is_none_or(|own| own == kind)) {
            if section.is_decided {
                break;
            }
            section.starts.push(section.code.len());
            section.rule(rule);
        }
        section.starts.push(section.code.len());
        section
    }

    fn rule(&mut self, rule: &DeviceRule) {
        const LAST_MAJOR: u32 = 0xfff;
        const LAST_MINOR: u32 = 0xf_ffff;
        if rule.major.is_some_and(|major| major > LAST_MAJOR)
            || rule.minor.is_some_and(|minor| minor > LAST_MINOR)
        {
            // No device has such a number.
            return;
        }
        let answer = To::Answer(rule.allow);
        let everything = rule.access == DeviceAccess::ALL;
        let numbers = match (rule.major, rule.minor) {
            (Some(major), Some(minor)) => Some((NUMBERS, (major << 20 | minor) as i32)),
            (Some(major), None) => Some((MAJOR, major as i32)),
            (None, Some(minor)) => {
                self.push(COPY, WORK | NUMBERS << 4, 0, None);
                self.push(AND, WORK, LAST_MINOR as i32, None);
                Some((WORK, minor as i32))
            }
            (None, None) => None,
        };
        match numbers {
            Some((register, number)) if everything => {
                return self.push(IF_EQUAL_32, register, number, Some(answer));
            }
            Some((register, number)) => self.push(UNLESS_EQUAL_32, register, number, Some(To::Next)),
            None if everything => {
                self.is_decided = true;
                return self.push(JUMP, 0, 0, Some(answer));
            }
            None => {}
        }
        if rule.allow {
            // Allows when no other operation is requested.
            self.push(COPY, WORK | ACCESS << 4, 0, None);
            self.push(AND, WORK, i32::from(!rule.access.0 & 7), None);
            self.push(IF_EQUAL, WORK, 0, Some(answer));
        } else {
            // Denies when any of these operations is requested.
            self.push(IF_ANY_BIT, ACCESS, i32::from(rule.access.0), Some(answer));
        }
    }

    fn push(&mut self, code: u8, registers: u8, immediate: i32, to: Option<To>) {
        self.code.push((instruction(code, registers, 0, immediate), to));
    }

    /// Start of the rule behind the one that contains an instruction.
    fn next(&self, at: usize) -> usize {
        self.starts.iter().copied().find(|start| *start > at).unwrap_or(self.code.len())
    }
}

/// Creates the program: one section for block devices, one for other devices, and the two answers that they share.
///
/// The context is `struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }`; the low half of the type is
/// the kind of device, the high half the access. Programs must be short: the kernel follows every path through one when
/// it is loaded, for every container.
fn program(rules: &[DeviceRule]) -> Vec<BpfInstruction> {
    const BLOCK: i32 = 1;
    let (character, block) = (Section::new(rules, 'c'), Section::new(rules, 'b'));
    let mut code: Vec<(BpfInstruction, Option<usize>)> = Vec::new();
    let mut plain = |code_: u8, registers: u8, offset: i16, immediate: i32| {
        code.push((instruction(code_, registers, offset, immediate), None));
    };
    plain(LOAD, ACCESS | 1 << 4, 0, 0);
    plain(LOAD, MAJOR | 1 << 4, 4, 0);
    plain(LOAD, NUMBERS | 1 << 4, 8, 0);
    plain(COPY, KIND | ACCESS << 4, 0, 0);
    plain(AND, KIND, 0, 0xffff);
    plain(SHIFT_RIGHT, ACCESS, 0, 16);
    plain(COPY, WORK | MAJOR << 4, 0, 0);
    plain(SHIFT_LEFT, WORK, 0, 20);
    plain(OR_REGISTER, NUMBERS | WORK << 4, 0, 0);
    let begin = code.len() + 1;
    // Without a rule that matches everything, a section ends in a jump to the answer no.
    let length = |section: &Section| section.code.len() + usize::from(!section.is_decided);
    let (block_at, deny_at) = (begin + length(&character), begin + length(&character) + length(&block));
    let answers = |answer: bool| {
        [&character, &block].iter().any(|section| {
            section.code.iter().any(|(_, to)| *to == Some(To::Answer(answer)))
                || !answer && !section.is_decided
        })
    };
    let allow_at = deny_at + if answers(false) { 2 } else { 0 };
    code.push((instruction(IF_EQUAL, KIND, 0, BLOCK), Some(block_at)));
    for (section, at) in [(&character, begin), (&block, block_at)] {
        for (index, (instruction, to)) in section.code.iter().enumerate() {
            let target = to.map(|to| match to {
                To::Next => at + section.next(index),
                To::Answer(true) => allow_at,
                To::Answer(false) => deny_at,
            });
            code.push((*instruction, target));
        }
        if !section.is_decided {
            code.push((instruction(JUMP, 0, 0, 0), Some(deny_at)));
        }
    }
    for answer in [false, true] {
        if answers(answer) {
            code.push((instruction(SET, 0, 0, i32::from(answer)), None));
            code.push((instruction(EXIT, 0, 0, 0), None));
        }
    }
    let resolved = code.iter().enumerate().map(|(index, (instruction, target))| BpfInstruction {
        offset: target.map_or(instruction.offset, |target| (target - index - 1) as i16),
        ..*instruction
    });
    resolved.collect()
}

fn instruction(code: u8, registers: u8, offset: i16, immediate: i32) -> BpfInstruction {
    BpfInstruction { code, registers, offset, immediate }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel does.
    fn run(rules: &[DeviceRule], kind: char, major: u32, minor: u32, access: &str) -> bool {
        let access = u32::from(DeviceAccess::parse(access).unwrap().0);
        let context = [if kind == 'b' { 1 } else { 2 } | access << 16, major, minor];
        let program = program(rules);
        let mut registers = [0u64; 11];
        let mut at = 0usize;
        loop {
            let BpfInstruction { code, registers: pair, offset, immediate } = program[at];
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            at += 1;
            let equal = registers[to] == immediate as u64;
            let equal_32 = registers[to] as u32 == immediate as u32;
            let jumps = match code {
                JUMP => true,
                IF_EQUAL => equal,
                IF_EQUAL_32 => equal_32,
                UNLESS_EQUAL_32 => !equal_32,
                IF_ANY_BIT => registers[to] & immediate as u64 != 0,
                _ => false,
            };
            match code {
                LOAD => registers[to] = u64::from(context[offset as usize / 4]),
                COPY => registers[to] = registers[from],
                AND => registers[to] &= immediate as u64,
                OR_REGISTER => registers[to] |= registers[from],
                SHIFT_LEFT => registers[to] <<= immediate,
                SHIFT_RIGHT => registers[to] >>= immediate,
                SET => registers[to] = immediate as u64,
                EXIT => return registers[0] == 1,
                _ if jumps => at += offset as usize,
                JUMP | IF_EQUAL | IF_EQUAL_32 | UNLESS_EQUAL_32 | IF_ANY_BIT => {}
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    fn rule(text: &str) -> DeviceRule {
        let fields: Vec<&str> = text.split(' ').collect();
        let number = |text: &str| text.parse().ok();
        let (major, minor) = fields[2].split_once(':').unwrap();
        DeviceRule {
            allow: fields[0] == "allow",
            kind: fields[1].chars().next().filter(|kind| *kind != 'a'),
            major: number(major),
            minor: number(minor),
            access: DeviceAccess::parse(fields[3]).unwrap(),
        }
    }

    #[test]
    fn every_instruction_can_be_reached() {
        for rules in [default_rules(), vec![], vec![rule("allow a *:* rwm")], vec![rule("deny a *:* rwm")], {
            let mut rules = vec![rule("deny a *:* rwm")];
            rules.extend(default_rules());
            rules
        }] {
            let program = program(&rules);
            let mut reached = vec![false; program.len()];
            let mut open = vec![0usize];
            while let Some(at) = open.pop() {
                if std::mem::replace(&mut reached[at], true) {
                    continue;
                }
                let jump = at + 1 + program[at].offset as usize;
                match program[at].code {
                    EXIT => {}
                    JUMP => open.push(jump),
                    IF_EQUAL | IF_EQUAL_32 | UNLESS_EQUAL_32 | IF_ANY_BIT => open.extend([jump, at + 1]),
                    _ => open.push(at + 1),
                }
            }
            assert!(reached.iter().all(|reached| *reached), "{rules:?}: {reached:?}");
        }
        assert!(program(&default_rules()).len() < 36, "{}", program(&default_rules()).len());
    }

    #[test]
    fn harmless_devices_may_be_used_and_all_made() {
        let rules = default_rules();
        assert!(
            run(&rules, 'c', 1, 3, "rwm") && run(&rules, 'c', 136, 77, "rw") && run(&rules, 'b', 8, 0, "m")
        );
        assert!(
            !run(&rules, 'b', 8, 0, "r") && !run(&rules, 'c', 1, 1, "r") && !run(&rules, 'c', 8, 0, "mr")
        );
    }

    #[test]
    fn the_last_rule_that_matches_decides() {
        let rules = ["deny a *:* rwm", "allow b 8:* rw", "deny b 8:1 w"].map(rule);
        assert!(run(&rules, 'b', 8, 0, "rw") && run(&rules, 'b', 8, 1, "r"));
        assert!(
            !run(&rules, 'b', 8, 1, "w") && !run(&rules, 'b', 8, 1, "rw") && !run(&rules, 'b', 8, 0, "rwm")
        );
        assert!(!run(&rules, 'c', 8, 0, "r"));
        assert!(run(&[rule("allow a *:* rwm")], 'c', 10, 1, "rwm"));
        let partial = ["allow c *:7 r", "allow b 9:1 rm", "deny b *:* m"].map(rule);
        assert!(run(&partial, 'c', 3, 7, "r") && run(&partial, 'b', 9, 1, "r"));
        assert!(
            !run(&partial, 'c', 3, 7, "w")
                && !run(&partial, 'b', 9, 1, "m")
                && !run(&partial, 'c', 3, 8, "r")
        );
        assert!(!run(&[], 'c', 1, 3, "r"));
    }
}
