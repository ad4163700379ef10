//! System call filters: from a profile to a program for the kernel.
//!
//! The kernel runs the program at every call, and at load time once for every call number, so its length
//! counts. Calls with the same outcome form ranges of numbers, and a binary search over the ranges decides
//! in a handful of instructions where a list would need hundreds.

mod compile;
mod numbers;
mod profile;

use crate::capability;
use compile::{Action, Architecture, Comparison, Filter, Rule};
use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompOperator};

/// Why a profile cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeccompError {
    /// An action that this runtime does not carry out.
    #[error("seccomp action {0} is not supported")]
    Action(String),
    /// An architecture without a table of calls.
    #[error("seccomp architecture {0} is not supported")]
    Architecture(String),
    /// More instructions than the kernel takes.
    #[error("the seccomp profile compiles to {0} instructions, more than the kernel takes (4096)")]
    TooLong(usize),
}

const EPERM: u16 = 1;
const ENOSYS: u16 = 38;
const EINVAL: u16 = 22;
/// Longest program that the kernel takes (`BPF_MAXINSNS`).
const MAX_INSTRUCTIONS: usize = 4096;

/// The default profile for a container with the given capabilities (bit mask), as a program.
pub fn default_program(capabilities: u64) -> Vec<u64> {
    let has = |name: &str| capability::bit(name).is_some_and(|bit| capabilities & (1 << bit) != 0);
    let mut rules: Vec<Rule> = profile::ALWAYS.iter().map(|name| Rule::plain(name, Action::Allow)).collect();
    for (capability, names) in profile::WITH_CAPABILITY {
        if has(capability) {
            rules.extend(names.iter().map(|name| Rule::plain(name, Action::Allow)));
        }
    }
    // Everything but the kernel's crypto interface and virtual machine sockets: neither knows namespaces.
    const AF_ALG: u64 = 38;
    const AF_VSOCK: u64 = 40;
    rules.push(Rule::when("socket", Action::Allow, 0, Comparison::Less(AF_ALG)));
    rules.push(Rule::when("socket", Action::Allow, 0, Comparison::Equal(AF_ALG + 1)));
    rules.push(Rule::when("socket", Action::Allow, 0, Comparison::Greater(AF_VSOCK)));
    // Linux, uname26 and 32-bit personalities, and asking which one it is.
    for personality in [0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        rules.push(Rule::when("personality", Action::Allow, 0, Comparison::Equal(personality)));
    }
    if !has("CAP_SYS_ADMIN") {
        // A new process, but in no new namespace. The flags of clone3 are out of sight, so programs must
        // fall back to clone, which they do for ENOSYS.
        const NAMESPACES: u64 = 0x7e02_0000;
        rules.push(Rule::when("clone", Action::Allow, 0, Comparison::Masked(NAMESPACES, 0)));
        rules.push(Rule::plain("clone3", Action::Errno(ENOSYS)));
    }
    let filter = Filter { rules, default: Action::Errno(EPERM), architectures: Architecture::native() };
    filter.compile()
}

/// Compiles a profile in the OCI runtime specification's form.
pub fn compile_profile(profile: &LinuxSeccomp) -> Result<Vec<u64>, SeccompError> {
    let errno = |value: Option<u32>| value.map_or(EPERM, |value| value as u16);
    let default = action(profile.default_action(), errno(profile.default_errno_ret()))?;
    let mut rules = Vec::new();
    for group in profile.syscalls().iter().flatten() {
        let action = action(group.action(), errno(group.errno_ret()))?;
        let mut conditions = Vec::new();
        for argument in group.args().iter().flatten() {
            let value = argument.value();
            let comparison = match argument.op() {
                LinuxSeccompOperator::ScmpCmpNe => Comparison::NotEqual(value),
                LinuxSeccompOperator::ScmpCmpLt => Comparison::Less(value),
                LinuxSeccompOperator::ScmpCmpLe => Comparison::LessOrEqual(value),
                LinuxSeccompOperator::ScmpCmpEq => Comparison::Equal(value),
                LinuxSeccompOperator::ScmpCmpGe => Comparison::GreaterOrEqual(value),
                LinuxSeccompOperator::ScmpCmpGt => Comparison::Greater(value),
                LinuxSeccompOperator::ScmpCmpMaskedEq => {
                    Comparison::Masked(value, argument.value_two().unwrap_or(0))
                }
            };
            conditions.push((argument.index(), comparison));
        }
        for name in group.names() {
            rules.push(Rule { name: name.clone(), action, conditions: conditions.clone() });
        }
    }
    let architectures = match profile.architectures() {
        Some(list) if !list.is_empty() => {
            let mut found = Vec::new();
            for arch in list {
                found.extend(architecture(*arch)?);
            }
            found
        }
        _ => Architecture::native(),
    };
    let program = Filter { rules, default, architectures }.compile();
    if program.len() > MAX_INSTRUCTIONS {
        return Err(SeccompError::TooLong(program.len()));
    }
    Ok(program)
}

fn action(action: LinuxSeccompAction, errno: u16) -> Result<Action, SeccompError> {
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => Action::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => Action::KillProcess,
        LinuxSeccompAction::ScmpActTrap => Action::Trap,
        LinuxSeccompAction::ScmpActErrno => Action::Errno(errno),
        LinuxSeccompAction::ScmpActTrace => Action::Trace(errno),
        LinuxSeccompAction::ScmpActAllow => Action::Allow,
        LinuxSeccompAction::ScmpActLog => Action::Log,
        other => return Err(SeccompError::Action(format!("{other:?}"))),
    })
}

/// `None` inside for architectures that this machine cannot run anyway.
fn architecture(arch: Arch) -> Result<Option<Architecture>, SeccompError> {
    Ok(match arch {
        Arch::ScmpArchNative => Architecture::native().into_iter().next(),
        Arch::ScmpArchX86_64 => Some(Architecture::X86_64),
        Arch::ScmpArchX86 => Some(Architecture::X86),
        Arch::ScmpArchAarch64 => Some(Architecture::Arm64),
        // Their calls come in under numbers that no table holds, and are refused.
        _ => None,
    })
}

#[cfg(test)]
mod tests;
