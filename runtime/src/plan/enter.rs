//! Plan of a further process in a running container.

use super::PlanError;
use super::identity;
use crate::container::{ExecRequest, Keyring, LineEnds, ParentWork, Terminal};
use crate::op::{JoinAt, JoinOp, Plan, SetupOp};
use oci_spec::runtime::Process as ProcessSpec;

/// Plans a process that enters a container.
///
/// # Errors
/// Fails for process specifications that are invalid, or that need what this runtime does not support.
pub fn enter(process: &ProcessSpec, request: &ExecRequest<'_>) -> Result<Plan, PlanError> {
    if !process.cwd().is_absolute() {
        return Err(PlanError::NotAbsolute("working directory", process.cwd().clone()));
    }
    let mut setup = Vec::new();
    if request.parent.has(ParentWork::START) {
        setup.push(SetupOp::Wait(crate::op::Point::Start));
    }
    if request.parent.has(ParentWork::CGROUPS) {
        setup.push(SetupOp::Wait(crate::op::Point::Cgroups));
    }
    if request.namespaces & libc::CLONE_NEWUSER as u64 != 0 {
        setup.push(SetupOp::BecomeRoot);
    }
    setup.push(SetupOp::HideProcess);
    setup.push(SetupOp::PresentRoot);
    if request.keyring == Keyring::New {
        setup.push(SetupOp::NewKeyring);
    }
    if process.terminal() == Some(true) {
        let Terminal { size, lines } = request.terminal;
        setup.push(SetupOp::Console { size, bind: false, plain: lines == LineEnds::Plain });
    }
    setup.extend(identity::limits(process)?);
    setup.extend(request.personality.map(identity::personality).transpose()?);
    setup.extend(identity::schedule(process)?);
    let affinity = process.exec_cpu_affinity().as_ref();
    let list = affinity.and_then(|affinity| affinity.cpu_affinity_final().as_deref()).unwrap_or_default();
    let processors = identity::processors(list)?;
    let begins = affinity.and_then(|affinity| affinity.initial().as_deref()).unwrap_or_default();
    if !processors.is_empty() {
        setup.push(SetupOp::Affinity(processors));
    } else if begins.is_empty() {
        setup.push(SetupOp::AnyProcessor);
    }
    setup.push(SetupOp::Umask(process.user().umask().unwrap_or(0o022)));
    setup.extend(identity::identity(process, &request.identity, request.seccomp, false)?);
    let target = JoinOp { kinds: request.namespaces, at: JoinAt::Slot(request.target) };
    Ok(Plan {
        namespaces: 0,
        joined: vec![target],
        users: None,
        outside: Vec::new(),
        clocks: Vec::new(),
        cgroup: request.cgroup,
        setup,
        program: identity::program(process, request.program)?,
    })
}
