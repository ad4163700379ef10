//! Rules of a filter, before they are compiled to a program.

use super::architecture::Architecture;

/// Action for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Allow,
    Log,
    /// Notify a tracer, which gets the number.
    Trace(u16),
    /// Notify the process that holds the listener.
    Notify,
    Errno(u16),
    Trap,
    KillThread,
    KillProcess,
}

impl Action {
    /// Return value `SECCOMP_RET_…` of the filter.
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

    /// True when the call is made, or decided by a tracer, which must know new calls itself.
    pub(super) fn is_permissive(self) -> bool {
        matches!(self, Action::Allow | Action::Log | Action::Trace(_))
    }
}

/// Comparison of an argument as an unsigned number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal(u64),
    NotEqual(u64),
    Less(u64),
    LessOrEqual(u64),
    Greater(u64),
    GreaterOrEqual(u64),
    /// Equality of masked values: mask first, value second; bits of the value outside the mask do not count.
    Masked(u64, u64),
}

/// Condition on one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// Index of the argument, 0 to 5.
    pub(super) argument: u8,
    pub(super) comparison: Comparison,
    /// Only the low 32 bits count, as where the kernel takes an `int`. On 32-bit architectures this holds for all
    /// arguments.
    pub(super) narrow: bool,
}

/// Action for calls by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule<'a> {
    pub(super) names: Vec<&'a str>,
    pub(super) action: Action,
    /// Alternatives: the rule applies if all conditions of one of these hold; always, if there are none.
    pub(super) alternatives: Vec<Vec<Condition>>,
}

/// A complete filter with its default action.
///
/// A rule without conditions precedes all rules with conditions; of several without, the first counts. Of those with
/// conditions, the first whose conditions hold counts. A rule whose action is the default action is ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter<'a> {
    pub(super) rules: Vec<Rule<'a>>,
    pub(super) default: Action,
    /// Architectures of the filter, without duplicates.
    pub(super) architectures: Vec<Architecture>,
    /// Action for calls of other architectures.
    pub(super) foreign: Action,
}
