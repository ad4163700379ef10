//! `exec`: runs a further process in a container.

use crate::arguments::Arguments;
use crate::commands::Agent;
use crate::error::{OciError, StateError};
use crate::foreground::{self, Signals, Streams};
use crate::state::{Container, Status, write_beside};
use crate::terminal::{self, Handover};
use crate::{Globals, create};
use kiln_runtime::SpawnError;
use kiln_runtime::container::{
    self, CallerError, EntryCgroups, ExecMethod, ExecRequest, Handed, Home, Identity, Keyring, LineEnds,
    Modules, ParentWork, ProgramFile, Steps, SubCgroup, SubCgroupError, Terminal,
};
use kiln_runtime::host::{Host, SecurityModule};
use kiln_runtime::launch::{self, Launched};
use kiln_runtime::plan::{enter, processors};
use oci_spec::runtime::{Capability, Process, Spec};
use rustix::fd::{AsFd, OwnedFd};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

pub(crate) fn exec(globals: &Globals, arguments: &Arguments) -> Result<u8, OciError> {
    // Processes in the container can see this executable until it runs the program.
    kiln_runtime::seal::seal();
    let Some((id, program)) = arguments.words.split_first() else {
        return Err(OciError::usage("exec: the container's id is missing"));
    };
    let (container, pidfd) = open_running(globals, arguments, id)?;
    let spec = container.config()?;
    let (process, user) = process(globals, &spec, arguments, program)?;
    let stays = !arguments.has("detach");
    terminal::check(&process, arguments, stays)?;

    let mut handed = Handed::default();
    let target = handed.give(pidfd);
    let cgroups = entry_cgroups(&container, arguments)?;
    let cgroup = cgroups.open()?.map(|dir| handed.give(dir));
    let host = Host::get();
    let request = ExecRequest {
        target,
        namespaces: container::other_namespaces(container.record.pid),
        cgroup,
        parent: ParentWork::NONE.and_if(cgroups.needs_parent(), ParentWork::CGROUPS),
        personality: spec.linux().as_ref().and_then(|linux| linux.personality().as_ref()),
        seccomp: spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref()),
        keyring: Keyring::Caller,
        terminal: Terminal {
            size: terminal::size(&process),
            lines: if stays { LineEnds::Plain } else { LineEnds::Terminal },
        },
        identity: Identity {
            user: user.as_deref(),
            home: Home::Looked,
            modules: Modules {
                selinux: host.is_active(SecurityModule::SELinux),
                apparmor: host.is_active(SecurityModule::AppArmor),
            },
            ..Identity::default()
        },
        program: ProgramFile { kept_fds: create::kept_fds(arguments)?, run: ExecMethod::Path },
    };
    let plan = enter(&process, &request)?;
    stay_on_initial(&process)?;
    let signals = stays.then(Signals::block).transpose()?;
    if stays && !arguments.has("no-subreaper") {
        foreground::become_subreaper();
    }
    let handover = Handover::of(arguments);
    let mut entering = Entering { container: &container, agent: Agent::of(&spec)?, cgroups, handover };
    globals.log.debug(&format!("container {id:?}: a process of {} steps enters", plan.setup.len()));
    let launched = launch::launch(plan, handed, &mut entering).map_err(OciError::Exec)?;
    if let Some(path) = arguments.get("pid-file") {
        let written = write_beside(Path::new(path), launched.pid.to_string().as_bytes());
        if let Err(error) = written {
            let _ = launch::signal(launched.pidfd.as_fd(), 9);
            launch::wait(&launched.pidfd);
            return Err(error);
        }
    }
    match signals {
        Some(signals) => {
            let streams = Streams { console: entering.handover.console.take(), ready: None };
            foreground::stay(&signals, launched.pid, &launched.pidfd, streams)
        }
        None => Ok(0),
    }
}

/// Container in which a process can be started, and a pidfd of its first process.
fn open_running(
    globals: &Globals,
    arguments: &Arguments,
    id: &str,
) -> Result<(Container, OwnedFd), OciError> {
    let container = globals.store.open(id)?;
    if container.status() == Status::Paused && !arguments.has("ignore-paused") {
        return Err(StateError::ExecPaused(id.to_owned()).into());
    }
    match container.pidfd() {
        Some(_) if !container::has_own_root(container.record.pid) => {
            Err(StateError::ExecCreating(id.to_owned()).into())
        }
        Some(pidfd) => Ok((container, pidfd)),
        None => Err(StateError::ExecStopped(id.to_owned()).into()),
    }
}

/// Moves this process to its initial processors, until the new process has entered the container's cgroups.
fn stay_on_initial(process: &Process) -> Result<(), OciError> {
    let affinity = process.exec_cpu_affinity().as_ref();
    let list = affinity.and_then(|affinity| affinity.initial().as_deref()).unwrap_or_default();
    let processors = processors(list)?;
    if processors.is_empty() {
        return Ok(());
    }
    launch::stay_on(&processors).map_err(|error| OciError::Exec(SpawnError::Setup(error)))
}

/// Process to run, and its user when that is a name.
fn process(
    globals: &Globals,
    spec: &Spec,
    arguments: &Arguments,
    program: &[String],
) -> Result<(Process, Option<String>), OciError> {
    if let Some(path) = arguments.get("process") {
        let path = Path::new(path);
        let text = std::fs::read(path).map_err(OciError::file("read", path))?;
        let mut process = crate::bundle::parse_process(path, &text)?;
        // As in runc and crun: the container's affinity, when the process has none.
        if process.exec_cpu_affinity().is_none() {
            let own = spec.process().as_ref().and_then(|own| own.exec_cpu_affinity().clone());
            process.set_exec_cpu_affinity(own);
        }
        if process.capabilities().is_none() {
            let own = spec.process().as_ref().and_then(|own| own.capabilities().clone());
            process.set_capabilities(own);
        }
        return Ok((process, None));
    }
    if program.is_empty() {
        return Err(OciError::usage(
            "exec: the program to run is missing; name it behind the container's id",
        ));
    }
    let mut process = spec.process().clone().unwrap_or_default();
    process.set_args(Some(program.to_vec())).set_terminal(Some(arguments.has("tty")));
    if let Some(dir) = arguments.get("cwd") {
        process.set_cwd(PathBuf::from(dir));
    }
    let mut environment = process.env().clone().unwrap_or_default();
    environment.extend(arguments.all("env").iter().cloned());
    process.set_env(Some(environment));
    if let Some(profile) = arguments.get("apparmor") {
        process.set_apparmor_profile(Some(profile.to_owned()));
    }
    if let Some(label) = arguments.get("process-label") {
        process.set_selinux_label(Some(label.to_owned()));
    }
    if arguments.has("no-new-privs") {
        process.set_no_new_privileges(Some(true));
    }
    add_capabilities(&mut process, arguments.all("cap"), globals);
    let by_name = set_user(&mut process, arguments)?;
    Ok((process, by_name))
}

/// Sets the user and the groups of a process from the command line. Returns the user when it is a name, which is looked
/// up in the container; `None` for ids.
fn set_user(process: &mut Process, arguments: &Arguments) -> Result<Option<String>, OciError> {
    let mut user = process.user().clone();
    let mut by_name = None;
    if let Some(text) = arguments.get("user") {
        match numbers(text)? {
            Some((uid, gid)) => {
                user.set_uid(uid);
                user.set_gid(gid.unwrap_or(0));
            }
            None => by_name = Some(text.to_owned()),
        }
    }
    let more: Vec<u32> = arguments
        .all("additional-gids")
        .iter()
        .map(|text| text.parse().map_err(|_| OciError::usage(format!("group {text:?} is not a number"))))
        .collect::<Result<_, _>>()?;
    if !more.is_empty() {
        let mut groups = user.additional_gids().clone().unwrap_or_default();
        groups.extend(more);
        user.set_additional_gids(Some(groups));
    }
    process.set_user(user);
    Ok(by_name)
}

/// Parses `uid` or `uid:gid`; `None` for names. All other forms are refused: a misread user would be another user.
pub(crate) fn numbers(text: &str) -> Result<Option<(u32, Option<u32>)>, OciError> {
    let bad = || {
        OciError::usage(format!(
            "invalid user {text:?}: it is `user` or `user:group`, each a name or a number"
        ))
    };
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let parts = std::iter::once(user).chain(group);
    for part in parts.clone() {
        let fine = |letter: char| letter.is_ascii_alphanumeric() || "_-.$@".contains(letter);
        if part.is_empty() || !part.chars().all(fine) || part.starts_with('-') {
            return Err(bad());
        }
    }
    let is_number = |part: &str| part.chars().all(|letter| letter.is_ascii_digit());
    if !parts.clone().all(is_number) {
        return Ok(None);
    }
    let number = |part: &str| {
        part.parse::<u32>().ok().filter(|id| i32::try_from(*id).is_ok()).ok_or_else(|| {
            OciError::usage(format!("invalid user {text:?}: ids are in the range 0 to {}", i32::MAX))
        })
    };
    Ok(Some((number(user)?, group.map(number).transpose()?)))
}

/// Adds capabilities to the process; unknown names are ignored, as in configurations.
fn add_capabilities(process: &mut Process, names: &[String], globals: &Globals) {
    if names.is_empty() {
        return;
    }
    let mut added: HashSet<Capability> = HashSet::new();
    for name in names {
        let bare = name.to_ascii_uppercase();
        let bare = bare.strip_prefix("CAP_").unwrap_or(&bare);
        match bare.parse() {
            Ok(capability) => {
                added.insert(capability);
            }
            Err(_) => globals.log.debug(&format!("ignoring unknown capability {name}")),
        }
    }
    let mut sets = process.capabilities().clone().unwrap_or_default();
    let joined = |set: &Option<HashSet<Capability>>| {
        let mut all = set.clone().unwrap_or_default();
        all.extend(added.iter().copied());
        Some(all)
    };
    let (bounding, effective, permitted) =
        (joined(sets.bounding()), joined(sets.effective()), joined(sets.permitted()));
    sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
    // A capability that is not inheritable cannot be ambient either.
    if let Some(inheritable) = sets.inheritable().clone().filter(|set| !set.is_empty()) {
        let mut ambient = sets.ambient().clone().unwrap_or_default();
        ambient.extend(added.intersection(&inheritable));
        sets.set_ambient(Some(ambient));
    }
    process.set_capabilities(Some(sets));
}

/// Cgroups that the process enters. `--cgroup` names one below the container's, for all controllers or, as
/// `controller[,controller]:path`, for some.
fn entry_cgroups(container: &Container, arguments: &Arguments) -> Result<EntryCgroups, OciError> {
    let mut below = Vec::new();
    for text in arguments.all("cgroup") {
        match text.split_once(':') {
            Some((controllers, path)) => below.extend(
                controllers
                    .split(',')
                    .map(|name| SubCgroup { controller: Some(name.to_owned()), path: path.into() }),
            ),
            None => below.push(SubCgroup { controller: None, path: text.into() }),
        }
    }
    let record = &container.record;
    EntryCgroups::new(&record.groups, record.pid, &below).map_err(|error| {
        OciError::usage(match error {
            SubCgroupError::Controller(_) => format!("{error} in --cgroup"),
            SubCgroupError::Path(_) => error.to_string(),
        })
    })
}

struct Entering<'a> {
    container: &'a Container,
    /// Agent for notifications of the filter; `None` without one.
    agent: Option<Agent>,
    cgroups: EntryCgroups,
    handover: Handover,
}

impl Steps for Entering<'_> {
    fn made(&mut self, launched: &Launched) -> Result<(), CallerError> {
        let attached = self.cgroups.attach(launched.pid);
        attached.map_err(|source| OciError::Attach { pid: launched.pid, source })?;
        Ok(self.handover.pidfd(launched.pidfd.as_fd())?)
    }

    fn console(&mut self, master: OwnedFd) -> Result<(), CallerError> {
        Ok(self.handover.console(master)?)
    }

    fn listener(&mut self, listener: OwnedFd, pid: i32) -> Result<(), CallerError> {
        Ok(self.agent.as_ref().map_or(Ok(()), |agent| agent.send(&self.container.record, &listener, pid))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_read_strictly() {
        let check = |text: &str, expected: Option<Option<(u32, Option<u32>)>>| {
            assert_eq!(numbers(text).ok(), expected, "{text:?}");
        };
        check("0", Some(Some((0, None))));
        check("1000:1001", Some(Some((1000, Some(1001)))));
        check("007", Some(Some((7, None))));
        check("app", Some(None));
        check("app:1000", Some(None));
        for bad in [
            "",
            ":",
            "1000:",
            ":1000",
            "1:2:3",
            "-1",
            "1000 ",
            " 1000",
            "+1",
            "4294967296",
            "2147483648",
            "1000:-5",
            "a b",
            "1\n",
        ] {
            check(bad, None);
        }
    }
}
