//! Profiles in the format of the OCI runtime specification.

use super::architecture::Architecture;
use super::rule::{Action, Comparison, Condition, Filter, Rule};
use super::{Checked, Compiled, DEFAULT_FLAGS, Listener, MAX_INSTRUCTIONS, SeccompError};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
    LinuxSyscall,
};

const EPERM: u32 = 1;
/// Number of arguments of a call.
pub(super) const ARGUMENTS: usize = 6;

const TSYNC: u32 = 1 << 0;
const LOG: u32 = 1 << 1;
const SPEC_ALLOW: u32 = 1 << 2;
const WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// Compiles a profile for a host of the given architecture.
pub(super) fn compile(profile: &LinuxSeccomp, native: Architecture) -> Result<Compiled, SeccompError> {
    let filter = filter(profile, native)?;
    let listener = listener(profile)?;
    let flags = flags(profile, listener.is_some());
    let program = filter.compile();
    let unknown = program.unknown.into_iter().map(str::to_owned).collect();
    let program = program.instructions;
    if program.len() > MAX_INSTRUCTIONS {
        return Err(SeccompError::TooLong(program.len()));
    }
    Ok(Compiled { program, flags, listener, unknown })
}

pub(super) fn check(profile: &LinuxSeccomp, native: Architecture) -> Result<Checked, SeccompError> {
    filter(profile, native)?;
    let listens = listener(profile)?.is_some();
    Ok(Checked { flags: flags(profile, listens), listens })
}

/// Converts a profile to a filter for a host of the given architecture.
pub(super) fn filter(profile: &LinuxSeccomp, native: Architecture) -> Result<Filter<'_>, SeccompError> {
    let default = action(profile.default_action(), profile.default_errno_ret(), "defaultAction")?;
    if default == Action::Notify {
        return Err(SeccompError::NotifyByDefault);
    }
    let groups = profile.syscalls().iter().flatten();
    let rules = groups.map(rule).collect::<Result<Vec<Rule<'_>>, SeccompError>>()?;
    let mut architectures = vec![native];
    for arch in profile.architectures().iter().flatten() {
        if let Some(architecture) = architecture(*arch)
            && native.secondary().contains(&architecture)
            && !architectures.contains(&architecture)
        {
            architectures.push(architecture);
        }
    }
    // libseccomp's default, on which runc relies.
    Ok(Filter { rules, default, architectures, foreign: Action::KillThread })
}

fn rule(group: &LinuxSyscall) -> Result<Rule<'_>, SeccompError> {
    let names: Vec<&str> = group.names().iter().map(String::as_str).collect();
    if names.contains(&"") {
        return Err(SeccompError::EmptyName);
    }
    let first = names.first().copied().unwrap_or_default();
    let action = action(group.action(), group.errno_ret(), first)?;
    if action == Action::Notify && names.contains(&"write") {
        return Err(SeccompError::NotifyWrite);
    }
    let arguments = group.args().iter().flatten();
    let conditions = arguments
        .map(|argument| condition(argument, first))
        .collect::<Result<Vec<Condition>, SeccompError>>()?;
    Ok(Rule { names, action, alternatives: alternatives(conditions) })
}

/// All conditions together; each as a separate alternative if two are about the same argument.
fn alternatives(conditions: Vec<Condition>) -> Vec<Vec<Condition>> {
    let mut seen = [false; ARGUMENTS];
    let repeats = conditions
        .iter()
        .any(|condition| std::mem::replace(&mut seen[usize::from(condition.argument)], true));
    match conditions.len() {
        0 => Vec::new(),
        _ if repeats => conditions.into_iter().map(|condition| vec![condition]).collect(),
        _ => vec![conditions],
    }
}

fn condition(argument: &LinuxSeccompArg, name: &str) -> Result<Condition, SeccompError> {
    let index = argument.index();
    if index >= ARGUMENTS {
        return Err(SeccompError::Argument { name: name.to_owned(), index });
    }
    let value = argument.value();
    let comparison = match argument.op() {
        LinuxSeccompOperator::ScmpCmpNe => Comparison::NotEqual(value),
        LinuxSeccompOperator::ScmpCmpLt => Comparison::Less(value),
        LinuxSeccompOperator::ScmpCmpLe => Comparison::LessOrEqual(value),
        LinuxSeccompOperator::ScmpCmpEq => Comparison::Equal(value),
        LinuxSeccompOperator::ScmpCmpGe => Comparison::GreaterOrEqual(value),
        LinuxSeccompOperator::ScmpCmpGt => Comparison::Greater(value),
        LinuxSeccompOperator::ScmpCmpMaskedEq => Comparison::Masked(value, argument.value_two().unwrap_or(0)),
    };
    Ok(Condition { argument: index as u8, comparison, narrow: false })
}

fn action(action: LinuxSeccompAction, errno: Option<u32>, name: &str) -> Result<Action, SeccompError> {
    let errno = errno.unwrap_or(EPERM);
    let data = || u16::try_from(errno).map_err(|_| SeccompError::Errno { name: name.to_owned(), errno });
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => Action::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => Action::KillProcess,
        LinuxSeccompAction::ScmpActTrap => Action::Trap,
        LinuxSeccompAction::ScmpActErrno => Action::Errno(data()?),
        LinuxSeccompAction::ScmpActTrace => Action::Trace(data()?),
        LinuxSeccompAction::ScmpActAllow => Action::Allow,
        LinuxSeccompAction::ScmpActLog => Action::Log,
        LinuxSeccompAction::ScmpActNotify => Action::Notify,
    })
}

/// Architecture of the profile; `None` for those without a table, and for the native one, which is always included.
fn architecture(arch: Arch) -> Option<Architecture> {
    Some(match arch {
        Arch::ScmpArchX86_64 => Architecture::X86_64,
        Arch::ScmpArchX86 => Architecture::X86,
        Arch::ScmpArchX32 => Architecture::X32,
        Arch::ScmpArchAarch64 => Architecture::Arm64,
        Arch::ScmpArchArm => Architecture::Arm,
        Arch::ScmpArchRiscv64 => Architecture::Riscv64,
        Arch::ScmpArchLoongarch64 => Architecture::Loongarch64,
        Arch::ScmpArchPpc64le => Architecture::Ppc64le,
        Arch::ScmpArchS390x => Architecture::S390x,
        Arch::ScmpArchS390 => Architecture::S390,
        _ => return None,
    })
}

/// Listener of the profile; `None` when no rule needs one: its path is then ignored.
fn listener(profile: &LinuxSeccomp) -> Result<Option<Listener>, SeccompError> {
    let path = profile.listener_path().as_ref().filter(|path| !path.as_os_str().is_empty());
    let metadata = profile.listener_metadata().as_ref().filter(|metadata| !metadata.is_empty());
    if metadata.is_some() && path.is_none() {
        return Err(SeccompError::Metadata);
    }
    let asks = |group: &LinuxSyscall| {
        group.action() == LinuxSeccompAction::ScmpActNotify && !group.names().is_empty()
    };
    if !profile.syscalls().iter().flatten().any(asks) {
        return Ok(None);
    }
    let path = path.ok_or(SeccompError::NoListener)?;
    Ok(Some(Listener { path: path.clone(), metadata: metadata.cloned() }))
}

/// Flags that the kernel accepts: with a listener not TSYNC, without one not WAIT_KILLABLE_RECV. Neither has an effect
/// there: the filter is loaded by a process with one thread, and no call waits for an answer.
fn flags(profile: &LinuxSeccomp, listener: bool) -> u32 {
    let Some(flags) = profile.flags() else { return DEFAULT_FLAGS };
    let bits = flags.iter().map(|flag| match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync if listener => 0,
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => TSYNC,
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => LOG,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => SPEC_ALLOW,
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if listener => WAIT_KILLABLE_RECV,
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
    });
    bits.fold(0, |all, bit| all | bit)
}
