//! Identity, privileges and scheduling of the program.

use super::{PlanError, Planner};
use crate::capability;
use crate::container::{
    Affinity, ExecMethod, Filter, Home, Identity, ParentWork, ProgramFile, SupplementaryGroups,
};
use crate::op::{Bytes, CapabilityOp, IdMaps, Point, Program, SchedulerOp, SetupOp, UserIds};
use crate::seccomp;
use oci_spec::runtime::{
    IOPriorityClass, LinuxPersonality, LinuxPersonalityDomain, LinuxSchedulerFlag, LinuxSchedulerPolicy,
    LinuxSeccomp, MemoryPolicyFlagType, MemoryPolicyModeType, PosixRlimit, PosixRlimitType,
    Process as ProcessSpec, Scheduler,
};

impl Planner<'_> {
    /// Operations from the changed root to the program.
    pub(super) fn process(&mut self, process: &ProcessSpec) -> Result<(), PlanError> {
        let mut low_limit = None;
        if self.namespaces.users.is_none() {
            let mut limits = limits(process)?;
            low_limit = take_low(&mut limits);
            self.setup.extend(limits);
        }
        if self.request.affinity == Affinity::Any {
            self.push(SetupOp::AnyProcessor);
        }
        if let Some(domain) = self.linux.and_then(|linux| linux.personality().as_ref()) {
            self.push(personality(domain)?);
        }
        if let Some(policy) = self.linux.and_then(|linux| linux.memory_policy().as_ref()) {
            self.push(memory_policy(policy)?);
        }
        for op in schedule(process)? {
            self.push(op);
        }
        self.push(SetupOp::Umask(process.user().umask().unwrap_or(0o022)));
        let hooks = self.spec.hooks().as_ref().filter(|_| self.request.parent.has(ParentWork::HOOKS));
        let start_hooks = hooks.and_then(|hooks| hooks.start_container().as_deref()).unwrap_or_default();
        let filter = self.linux.and_then(|linux| linux.seccomp().as_ref());
        // The parent can compile the filter during set-up, but a plan has at most one message without a request.
        // request.
        let is_asked = |op: &SetupOp| matches!(op, SetupOp::Wait(point) if !point.is_unasked());
        let filter_follows = self.request.parent.has(ParentWork::FILTER)
            && filter.is_some()
            && !self.setup.iter().any(is_asked);
        let mut ops = identity(process, &self.request.identity, filter, filter_follows)?;
        if let Some(limit) = low_limit {
            let last = ops.iter().position(|op| matches!(op, SetupOp::WorkingDir(_)));
            ops.insert(last.map_or(ops.len(), |at| at + 1), limit);
        }
        // A user namespace with a single gid has no supplementary groups.
        let has_one = |users: &IdMaps| matches!(users.groups.as_slice(), [range] if range.count == 1);
        if self.namespaces.users.as_ref().is_some_and(has_one) {
            for op in &mut ops {
                if let SetupOp::User { ids, .. } = op {
                    ids.groups.clear();
                }
            }
        }
        if self.request.parent.has(ParentWork::DEVICES) {
            self.wait_for_parent(Point::Devices);
        }
        if filter_follows {
            self.wait_for_parent(Point::Filter);
        }
        if let Some(gate) = self.request.gate {
            if gate.finds_program {
                self.push(SetupOp::FindProgram);
            }
            self.push(SetupOp::Gate(gate.socket));
        }
        self.setup.extend(ops);
        // In the environment of the program, filter included.
        self.hooks("startContainer", start_hooks)
    }
}

/// Sets the execution domain.
pub(super) fn personality(personality: &LinuxPersonality) -> Result<SetupOp, PlanError> {
    if personality.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        return Err(PlanError::Unsupported("flags of a personality, of which none exist".to_owned()));
    }
    Ok(SetupOp::Personality(match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    }))
}

/// User, capabilities, labels and filter, in the only order in which each can still be set.
pub(super) fn identity(
    process: &ProcessSpec,
    wanted: &Identity<'_>,
    filter: Option<&LinuxSeccomp>,
    filter_follows: bool,
) -> Result<Vec<SetupOp>, PlanError> {
    let mut ops = Vec::new();
    let sets = capability_sets(process)?;
    let no_new_privileges = process.no_new_privileges() == Some(true);
    let seccomp = match filter {
        Some(profile) if filter_follows => {
            let checked = seccomp::check_profile(profile)?;
            let (flags, listens) = (checked.flags, checked.listens);
            Some(SetupOp::Seccomp { program: Vec::new(), flags, listens })
        }
        Some(profile) => {
            let compiled = seccomp::compile_profile(profile)?;
            let listens = compiled.listener.is_some();
            Some(SetupOp::Seccomp { program: compiled.program, flags: compiled.flags, listens })
        }
        None if wanted.filter == Filter::Default => Some(SetupOp::Seccomp {
            program: seccomp::default_program(sets.0),
            flags: seccomp::DEFAULT_FLAGS,
            listens: false,
        }),
        None => None,
    };
    let given = |label: &Option<String>| label.clone().filter(|label| !label.is_empty());
    if let Some(label) = given(process.selinux_label()).filter(|_| wanted.modules.selinux) {
        ops.push(SetupOp::Label { file: "exec".to_owned(), value: label });
    }
    if let Some(profile) = given(process.apparmor_profile()).filter(|_| wanted.modules.apparmor) {
        ops.push(SetupOp::Label { file: "apparmor/exec".to_owned(), value: format!("exec {profile}") });
    }
    ops.push(SetupOp::Bounding(sets.0));
    // Before a filter is loaded, which may forbid finding the directory.
    ops.push(SetupOp::TryWorkingDir(process.cwd().into()));
    if !no_new_privileges && let Some(seccomp) = &seccomp {
        // Loading a filter requires privileges that are dropped next.
        ops.push(seccomp.clone());
    }
    match wanted.user {
        Some(name) => ops.push(SetupOp::FindUser {
            user: name.to_owned(),
            groups: wanted.more_groups.to_vec(),
            keep_groups: wanted.groups == SupplementaryGroups::Caller,
        }),
        None => {
            let user = process.user();
            if wanted.home == Home::Looked {
                ops.push(SetupOp::Home(user.uid()));
            }
            let groups = user.additional_gids().clone().unwrap_or_default();
            [user.uid(), user.gid()].iter().chain(&groups).try_for_each(|id| check_id(*id))?;
            let ids = UserIds { uid: user.uid(), gid: user.gid(), groups };
            ops.push(SetupOp::User { ids, keep_groups: wanted.groups == SupplementaryGroups::Caller });
        }
    }
    ops.push(SetupOp::WorkingDir(process.cwd().into()));
    ops.push(SetupOp::Capabilities(sets.1));
    if no_new_privileges {
        ops.push(SetupOp::NoNewPrivileges);
        ops.extend(seccomp);
    }
    Ok(ops)
}

/// Rejects the largest id: in system calls it means "no change" and is not a valid uid or gid.
pub(super) fn check_id(id: u32) -> Result<(), PlanError> {
    if id == u32::MAX { Err(PlanError::Id(id)) } else { Ok(()) }
}

/// Bounding set, and the other capability sets.
fn capability_sets(process: &ProcessSpec) -> Result<(u64, CapabilityOp), PlanError> {
    let Some(sets) = process.capabilities() else { return Ok((0, CapabilityOp::default())) };
    let mask = |set: &Option<oci_spec::runtime::Capabilities>| {
        let names: Vec<String> = set.iter().flatten().map(ToString::to_string).collect();
        capability::mask(names.iter().map(String::as_str)).map_err(|unknown| PlanError::Capability(unknown.0))
    };
    let op = CapabilityOp {
        effective: mask(sets.effective())?,
        permitted: mask(sets.permitted())?,
        inheritable: mask(sets.inheritable())?,
        ambient: mask(sets.ambient())?,
    };
    Ok((mask(sets.bounding())?, op))
}

/// Resource limits and the out-of-memory score.
pub(super) fn limits(process: &ProcessSpec) -> Result<Vec<SetupOp>, PlanError> {
    let mut ops = Vec::new();
    let mut seen = Vec::new();
    for limit in process.rlimits().iter().flatten() {
        if seen.contains(&limit.typ()) {
            return Err(PlanError::LimitTwice(limit.typ()));
        }
        seen.push(limit.typ());
        ops.push(limit_op(limit));
    }
    if let Some(score) = process.oom_score_adj() {
        ops.push(SetupOp::OomScore(score));
    }
    Ok(ops)
}

/// Takes out a limit of open files that set-up itself would exceed: it is set when no more files are opened. A hard limit
/// that may have to be raised is raised at once, since that needs privileges.
fn take_low(limits: &mut Vec<SetupOp>) -> Option<SetupOp> {
    const NEEDED: u64 = 1024;
    let is_low = |op: &SetupOp| {
        matches!(op, SetupOp::Limit { resource, soft, hard, .. }
            if resource == "NOFILE" && soft <= hard && *soft < NEEDED)
    };
    let at = limits.iter().position(is_low)?;
    let low = limits[at].clone();
    match &mut limits[at] {
        SetupOp::Limit { soft, hard, .. } if *hard >= NEEDED => *soft = NEEDED,
        _ => drop(limits.remove(at)),
    }
    Some(low)
}

/// True for values that engines set without checking the host: from a million up to the billion that some systems have
/// as their maximum, and unlimited. They are lowered to the allowed limit; a larger value is a mistake.
fn is_blanket(limit: u64) -> bool {
    (1 << 20..=1 << 30).contains(&limit) || limit == u64::MAX
}

fn limit_op(limit: &PosixRlimit) -> SetupOp {
    let name = match limit.typ() {
        PosixRlimitType::RlimitAs => "AS",
        PosixRlimitType::RlimitCore => "CORE",
        PosixRlimitType::RlimitCpu => "CPU",
        PosixRlimitType::RlimitData => "DATA",
        PosixRlimitType::RlimitFsize => "FSIZE",
        PosixRlimitType::RlimitLocks => "LOCKS",
        PosixRlimitType::RlimitMemlock => "MEMLOCK",
        PosixRlimitType::RlimitMsgqueue => "MSGQUEUE",
        PosixRlimitType::RlimitNice => "NICE",
        PosixRlimitType::RlimitNofile => "NOFILE",
        PosixRlimitType::RlimitNproc => "NPROC",
        PosixRlimitType::RlimitRss => "RSS",
        PosixRlimitType::RlimitRtprio => "RTPRIO",
        PosixRlimitType::RlimitRttime => "RTTIME",
        PosixRlimitType::RlimitSigpending => "SIGPENDING",
        PosixRlimitType::RlimitStack => "STACK",
    };
    let clamp = matches!(limit.typ(), PosixRlimitType::RlimitNofile | PosixRlimitType::RlimitNproc)
        && is_blanket(limit.hard());
    SetupOp::Limit { resource: name.to_owned(), soft: limit.soft(), hard: limit.hard(), clamp }
}

/// Scheduler and I/O priority.
pub(super) fn schedule(process: &ProcessSpec) -> Result<Vec<SetupOp>, PlanError> {
    let mut ops = Vec::new();
    if let Some(scheduler) = process.scheduler() {
        ops.push(SetupOp::Scheduler(scheduler_op(scheduler)?));
    }
    if let Some(priority) = process.io_priority() {
        let class = match priority.class() {
            IOPriorityClass::IoprioClassRt => 1,
            IOPriorityClass::IoprioClassBe => 2,
            IOPriorityClass::IoprioClassIdle => 3,
        };
        let level = u32::try_from(priority.priority()).ok().filter(|level| *level < 8);
        let level = level.ok_or_else(|| {
            PlanError::Unsupported(format!("the I/O priority {} (0 to 7 exist)", priority.priority()))
        })?;
        ops.push(SetupOp::IoPriority { class, priority: level });
    }
    Ok(ops)
}

fn scheduler_op(scheduler: &Scheduler) -> Result<SchedulerOp, PlanError> {
    let policy = match scheduler.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
        LinuxSchedulerPolicy::SchedIso => {
            return Err(PlanError::Unsupported(
                "the scheduler SCHED_ISO, which Linux does not have".to_owned(),
            ));
        }
    };
    if *scheduler.policy() == LinuxSchedulerPolicy::SchedDeadline {
        check_deadline(scheduler)?;
    }
    let flags = scheduler.flags().iter().flatten().map(|flag| match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    });
    Ok(SchedulerOp {
        policy,
        flags: flags.fold(0, |all, flag| all | flag),
        nice: scheduler.nice().unwrap_or(0),
        priority: scheduler.priority().unwrap_or(0).max(0) as u32,
        runtime: scheduler.runtime().unwrap_or(0),
        deadline: scheduler.deadline().unwrap_or(0),
        period: scheduler.period().unwrap_or(0),
    })
}

/// Checks the kernel's conditions (sched(7)), for which it has one errno only.
fn check_deadline(scheduler: &Scheduler) -> Result<(), PlanError> {
    const LEAST: u64 = 1 << 10;
    const MOST: u64 = i64::MAX as u64;
    let refuse = |why: String| Err(PlanError::Deadline(why));
    let Some(runtime) = *scheduler.runtime() else { return refuse("requires `runtime`".to_owned()) };
    let Some(deadline) = *scheduler.deadline() else { return refuse("requires `deadline`".to_owned()) };
    let period = scheduler.period().filter(|period| *period > 0);
    if runtime == 0 {
        return refuse("runtime must be greater than 0".to_owned());
    }
    if !(LEAST..=MOST).contains(&runtime) {
        return refuse(format!("runtime {runtime} must be between {LEAST} and {MOST}"));
    }
    if runtime > deadline {
        return refuse(format!("runtime {runtime} must be <= deadline {deadline}"));
    }
    match period {
        Some(period) if deadline > period => {
            refuse(format!("deadline {deadline} must be <= period {period}"))
        }
        _ => Ok(()),
    }
}

fn memory_policy(policy: &oci_spec::runtime::LinuxMemoryPolicy) -> Result<SetupOp, PlanError> {
    let mode = match policy.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let flags = policy.flags().iter().flatten().map(|flag| match flag {
        MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
        MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
        MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
    });
    let nodes = numbers(policy.nodes().as_deref().unwrap_or_default()).ok_or_else(|| {
        PlanError::Unsupported("memory policy nodes that are no list of numbers".to_owned())
    })?;
    let mut mask = vec![0u64; 16];
    for node in nodes {
        let word = mask
            .get_mut(node as usize / 64)
            .ok_or_else(|| PlanError::Unsupported(format!("memory node {node} (at most 1023 exist)")))?;
        *word |= 1 << (node % 64);
    }
    Ok(SetupOp::MemoryPolicy { mode: flags.fold(mode, |mode, flag| mode | flag), nodes: mask })
}

/// Processors of a list such as `0-3,7`.
pub fn processors(list: &str) -> Result<Vec<u32>, PlanError> {
    numbers(list).ok_or_else(|| PlanError::Unsupported(format!("the processor list `{list}`")))
}

/// Numbers in a list such as `0-3,7`; `None` when it is malformed.
fn numbers(list: &str) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= 1 << 16 {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

pub(super) fn program(process: &ProcessSpec, file: ProgramFile) -> Result<Program, PlanError> {
    let arguments =
        process.args().as_ref().filter(|args| !args.is_empty()).ok_or(PlanError::Missing("args"))?;
    let bytes = |list: &[String], what: &'static str| {
        if list.iter().any(|text| text.contains('\0')) {
            return Err(PlanError::Nul(what));
        }
        Ok(list.iter().map(|text| Bytes::from(text.as_str())).collect::<Vec<_>>())
    };
    let environment = without_repeats(process.env().as_deref().unwrap_or_default());
    Ok(Program {
        arguments: bytes(arguments, "an argument")?,
        environment: bytes(&environment, "the environment")?,
        kept_fds: file.kept_fds,
        by_handle: file.run == ExecMethod::Handle,
    })
}

/// Removes repeated entries: of several with one name the last value counts, at the position of the first.
fn without_repeats(environment: &[String]) -> Vec<String> {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut places = std::collections::HashMap::new();
    let mut kept: Vec<String> = Vec::with_capacity(environment.len());
    for entry in environment {
        match places.entry(name(entry)) {
            std::collections::hash_map::Entry::Occupied(place) => kept[*place.get()] = entry.clone(),
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(kept.len());
                kept.push(entry.clone());
            }
        }
    }
    kept
}
