//! What a filter says, before it is a program.

use super::architecture::Architecture;

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Allow,
    Log,
    /// Ask a tracer, which gets the number.
    Trace(u16),
    /// Ask whoever holds the listener.
    Notify,
    Errno(u16),
    Trap,
    KillThread,
    KillProcess,
}

impl Action {
    /// `SECCOMP_RET_…`.
    pub(super) fn value(self) -> u32 {
        match self {
            Action::Allow => 0x7fff_0000,
            Action::Log => 0x7ffc_0000,
            Action::Trace(data) => 0x7ff0_0000 | u32::from(data),
            Action::Notify => 0x7fc0_0000,
            Action::Errno(errno) => 0x0005_0000 | u32::from(errno),
            Action::Trap => 0x0003_0000,
            Action::KillThread => 0x0000_0000,
            Action::KillProcess => 0x8000_0000,
        }
    }

    /// The call is made, or a tracer decides, who is to know new calls himself.
    pub(super) fn is_permissive(self) -> bool {
        matches!(self, Action::Allow | Action::Log | Action::Trace(_))
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
    /// With the mask first, the value second; bits of the value outside the mask do not count.
    Masked(u64, u64),
}

/// What one argument must be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// 0 to 5.
    pub(super) argument: u8,
    pub(super) comparison: Comparison,
    /// Only the low 32 bits count, as where the kernel takes an `int`. So it is for all arguments on
    /// architectures of 32 bits.
    pub(super) narrow: bool,
}

/// What happens to calls by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule<'a> {
    pub(super) names: Vec<&'a str>,
    pub(super) action: Action,
    /// When it applies: if all conditions of one of these hold; always, if there is none.
    pub(super) alternatives: Vec<Vec<Condition>>,
}

/// A whole filter.
///
/// A rule without conditions beats all that have some; of several without, the first counts. Of those with
/// conditions, the first whose conditions hold counts. A rule whose action is the default one says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter<'a> {
    pub(super) rules: Vec<Rule<'a>>,
    pub(super) default: Action,
    /// Without doubles.
    pub(super) architectures: Vec<Architecture>,
    /// What happens to calls of others.
    pub(super) foreign: Action,
}
