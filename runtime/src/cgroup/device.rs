//! Which devices a container may open: an eBPF program on a version 2 group.
//!
//! Root in a container may make any device node; opening it is what must not work. The filter needs a group
//! of the version 2 hierarchy, but none of its controllers, so it serves version 1 and hybrid machines too.

use crate::sys::{BpfInstruction, DeviceProgram};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use std::fmt;

/// What may be done to a device, as bits of `BPF_DEVCG_ACC_…`.
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

/// A rule about devices; the last that is about a device decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// Allow or deny.
    pub allow: bool,
    /// `b` or `c`; both when there is none.
    pub kind: Option<char>,
    /// Major number; any when there is none.
    pub major: Option<u32>,
    /// Minor number; any when there is none.
    pub minor: Option<u32>,
    /// What it is about.
    pub access: DeviceAccess,
}

impl DeviceRule {
    const fn allow(kind: char, major: Option<u32>, minor: Option<u32>, access: DeviceAccess) -> DeviceRule {
        DeviceRule { allow: true, kind: Some(kind), major, minor, access }
    }

    /// A rule of the OCI runtime specification; `None` for one that says nothing known.
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

    /// The rule as version 1 files take it.
    pub(super) fn legacy(&self) -> (&'static str, String) {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        let file = if self.allow { "devices.allow" } else { "devices.deny" };
        let kind = self.kind.unwrap_or('a');
        (file, format!("{kind} {}:{} {}", number(self.major), number(self.minor), self.access))
    }
}

/// Docker's list: any node may be made; null, zero, full, random, urandom, tty, console, ptmx, terminals and tun
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

/// Restricts the devices that processes of a group may open to the harmless ones; all may be made.
pub(super) fn restrict(cgroup: BorrowedFd<'_>) -> Result<(), Errno> {
    restrict_to(cgroup, &default_rules())
}

/// Restricts the devices that processes of a group may make and open; none when no rule says so.
pub(super) fn restrict_to(cgroup: BorrowedFd<'_>, rules: &[DeviceRule]) -> Result<(), Errno> {
    DeviceProgram::load(&program(rules))?.attach(cgroup)
}

/// The context is `struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }`; the type's low
/// half is the kind of device, its high half the access.
fn program(rules: &[DeviceRule]) -> Vec<BpfInstruction> {
    const BLOCK: i32 = 1;
    const CHARACTER: i32 = 2;
    let load = |register: u8, offset: i16| instruction(0x61, register | 1 << 4, offset, 0);
    let copy = |to: u8, from: u8| instruction(0xbf, to | from << 4, 0, 0);
    let and = |register: u8, mask: i32| instruction(0x57, register, 0, mask);
    let shift_right = |register: u8, bits: i32| instruction(0x77, register, 0, bits);
    let unless_equal = |register: u8, value: i32, skip: i16| instruction(0x55, register, skip, value);
    let if_equal = |register: u8, value: i32, skip: i16| instruction(0x15, register, skip, value);
    let answer = |value: bool| [instruction(0xb7, 0, 0, i32::from(value)), instruction(0x95, 0, 0, 0)];

    // Registers: 2 kind, 3 access, 4 major, 5 minor.
    let mut program =
        vec![load(2, 0), load(4, 4), load(5, 8), copy(3, 2), and(2, 0xffff), shift_right(3, 16)];
    // The last rule that is about a device decides, so the last comes first.
    for rule in rules.iter().rev() {
        let mut tests: Vec<Box<dyn Fn(i16) -> BpfInstruction>> = Vec::new();
        if let Some(kind) = rule.kind {
            let value = if kind == 'b' { BLOCK } else { CHARACTER };
            tests.push(Box::new(move |skip| unless_equal(2, value, skip)));
        }
        for (register, number) in [(4, rule.major), (5, rule.minor)] {
            if let Some(number) = number {
                tests.push(Box::new(move |skip| unless_equal(register, number as i32, skip)));
            }
        }
        let mut access = Vec::new();
        if rule.access != DeviceAccess::ALL {
            access.extend([copy(1, 3)]);
            if rule.allow {
                // Allows when nothing else is wanted.
                access.push(and(1, i32::from(!rule.access.0 & 7)));
            } else {
                // Denies when any of it is wanted.
                access.push(and(1, i32::from(rule.access.0)));
            }
        }
        let is_partial = !access.is_empty();
        let mut rest = tests.len() + access.len() + usize::from(is_partial) + 2;
        for test in &tests {
            rest -= 1;
            program.push(test(rest as i16));
        }
        program.extend(access);
        if is_partial {
            program.push(if rule.allow { unless_equal(1, 0, 2) } else { if_equal(1, 0, 2) });
        }
        program.extend(answer(rule.allow));
        if tests.is_empty() && !is_partial {
            // It is about everything: rules before it never count, and the kernel takes nothing that is never
            // reached.
            return program;
        }
    }
    program.extend(answer(false));
    program
}

fn instruction(code: u8, registers: u8, offset: i16, immediate: i32) -> BpfInstruction {
    BpfInstruction { code, registers, offset, immediate }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would.
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
            match code {
                0x61 => registers[to] = u64::from(context[offset as usize / 4]),
                0xbf => registers[to] = registers[from],
                0x57 => registers[to] &= immediate as u64,
                0x77 => registers[to] >>= immediate,
                0xb7 => registers[to] = immediate as u64,
                0x15 if registers[to] == immediate as u64 => at += offset as usize,
                0x55 if registers[to] != immediate as u64 => at += offset as usize,
                0x15 | 0x55 => {}
                0x95 => return registers[0] == 1,
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
        assert!(!run(&[], 'c', 1, 3, "r"));
    }
}
