//! Executable of this process, which must not be accessible in a container.

use crate::create::Then;
use kiln_runtime::{namespaces, seal};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, Spec};
use std::path::Path;

/// Seals the executable before anything is read, where [`keep`] is certain to do it.
pub(crate) fn keep_early(then: Then) {
    if then == Then::Wait {
        seal::seal();
    }
}

/// Protects the executable of this process from the container (CVE-2019-5736), by running it from a read-only mount:
/// then this does not return the first time.
///
/// Returns true when that is not needed: a container without other processes until its program runs, whose program is
/// executed by a file descriptor, cannot access the executable. That saves a third of the time.
pub(crate) fn keep(spec: &Spec, then: Then, root: &Path) -> bool {
    let alone = then != Then::Wait && namespaces::has_own_pids(spec);
    const NEEDED: [&str; 2] = ["execveat", "openat2"];
    let filter = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let allows = |filter: &LinuxSeccomp, name: &str| {
        filter.default_action() == LinuxSeccompAction::ScmpActAllow
            && !filter.syscalls().iter().flatten().any(|rule| rule.names().iter().any(|known| known == name))
            || filter.syscalls().iter().flatten().any(|rule| {
                rule.action() == LinuxSeccompAction::ScmpActAllow
                    && rule.args().as_ref().is_none_or(Vec::is_empty)
                    && rule.names().iter().any(|known| known == name)
            })
    };
    let allowed = filter.is_none_or(|filter| NEEDED.iter().all(|name| allows(filter, name)));
    let process = spec.process().as_ref();
    let arguments = process.and_then(|process| process.args().as_deref()).unwrap_or_default();
    let environment = process.and_then(|process| process.env().as_deref()).unwrap_or_default();
    let keeps_name = || arguments.first().is_none_or(|program| seal::keeps_name(root, program, environment));
    if alone && allowed && seal::can_do_without() && keeps_name() {
        return true;
    }
    seal::seal();
    false
}
