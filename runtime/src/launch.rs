//! Starts a container as a child of this process, which must have one thread: for programs that create one container
//! and are its parent, as an OCI runtime is.
//!
//! A single clone is enough where all namespaces are new. Where namespaces to join would change this process, an
//! intermediate process enters them and creates the container's process as its own sibling.

use crate::container::{Ended, Handed, Steps, follow};
use crate::host::{Feature, Host};
use crate::init;
use crate::message::{receive, send};
use crate::op::{Bytes, FdSlot, JoinAt, JoinOp, Plan, SetupError, SetupOp, Stage};
use crate::process::SpawnError;
use crate::sys::{self, Child, CloneFlags};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::Signal;
use rustix::thread::{ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces};
use serde::{Deserialize, Serialize};

/// First process of a container, a child of this process.
#[derive(Debug)]
pub struct Launched {
    /// Pid in the pid namespace of this process.
    pub pid: i32,
    /// Pidfd of the process.
    pub pidfd: OwnedFd,
    /// Directory of the cgroup in which it was created, while it is being set up; `None` for a plan without cgroup.
    pub group: Option<OwnedFd>,
}

/// Starts a container; returns when its program runs, or when it waits at its gate.
///
/// The container inherits the standard streams of this process.
///
/// # Errors
/// [`SpawnError::Setup`] when set-up fails in the new process, [`SpawnError::Killed`] when a signal ends it before, and
/// [`SpawnError::Caller`] with the error of `steps`. The process is killed and reaped then.
pub fn launch(plan: Plan, handed: Handed<'_>, steps: &mut dyn Steps) -> Result<Launched, SpawnError> {
    let slots = handed.into_owned().map_err(|errno| SpawnError::Helper("reach", errno))?;
    let (status, theirs) = pair()?;
    let users = plan.users.clone();
    let outside = plan.outside.clone();
    let filter_follows =
        plan.setup.iter().any(|op| matches!(op, SetupOp::Seccomp { program, .. } if program.is_empty()));
    let unasked = plan.setup.iter().any(|op| matches!(op, SetupOp::Wait(point) if point.is_unasked()));
    let mut launched = if !plan.joined.is_empty() {
        launch_between(plan, slots, theirs, None)?
    } else {
        match sys::clone(CloneFlags(plan.namespaces), group(&plan, &slots)) {
            Ok(Child::Here) => {
                drop(status);
                init::run(plan, slots, theirs, None, false)
            }
            Ok(Child::There { pid, pidfd }) => {
                // The end of the status socket is seen only when no process has its other end open.
                drop(theirs);
                Launched { pid, pidfd, group: take_group(&plan, slots) }
            }
            Err(errno) => return Err(SpawnError::Setup(clone_error(plan.namespaces, errno))),
        }
    };
    let made = steps.made(&launched).and_then(|()| {
        let filter = if filter_follows { steps.filter()? } else { Vec::new() };
        if unasked {
            let filter: Vec<u8> = filter.into_iter().flat_map(u64::to_ne_bytes).collect();
            // The failure of a process that has ended meanwhile is reported below.
            let _ = init::word::send(&status, &filter);
        }
        Ok(())
    });
    let made = made.map_err(SpawnError::Caller);
    launched.group = None;
    let identify = |pid| {
        for op in &outside {
            apply_from_outside(pid, op)?;
        }
        Ok(users.as_ref().map_or(Ok(()), |users| crate::idmap::write(pid, users))?)
    };
    let followed = made.and_then(|()| follow(&status, launched.pid, steps, identify));
    let died = |ended| if ended == Ended::Closed { died_in_set_up(&launched) } else { None };
    match followed.and_then(|ended| died(ended).map_or(Ok(()), |signal| Err(SpawnError::Killed(signal)))) {
        Ok(()) => Ok(launched),
        Err(error) => {
            let _ = rustix::process::pidfd_send_signal(&launched.pidfd, Signal::KILL);
            wait(&launched.pidfd);
            Err(error)
        }
    }
}

/// Lets a container that waits at its gate continue, over a connection to it; returns when its program runs.
///
/// `state` is the container's state, which its hooks read. Of `steps` only [`Steps::listener`] is called.
///
/// # Errors
/// [`SpawnError::Setup`] when the program cannot be run, [`SpawnError::Helper`] when the connection fails.
pub fn open_gate(
    connection: &OwnedFd,
    state: &[u8],
    pid: i32,
    steps: &mut dyn Steps,
) -> Result<(), SpawnError> {
    init::word::send(connection, state).map_err(|errno| SpawnError::Helper("reach", errno))?;
    follow(connection, pid, steps, |_| Ok(())).map(drop)
}

/// Waits for a child's end; returns its exit code, or 128 plus the signal.
pub fn wait(pidfd: &OwnedFd) -> i32 {
    loop {
        match sys::wait_pidfd(pidfd.as_fd()) {
            Ok(Some(code)) => return code,
            Ok(None) => {
                let mut polled = [PollFd::new(pidfd, PollFlags::IN)];
                let _ = rustix::event::poll(&mut polled, None);
            }
            Err(Errno::INTR) => {}
            Err(_) => return 255,
        }
    }
}

/// Exit code, or 128 plus the signal, of a process that has ended and is no child of this one. `None` when the kernel does
/// not keep it: before Linux 6.15 it is known only until the process is reaped.
///
/// `start` is the time of its start in ticks since boot: the pid may be that of another process by now.
pub fn ended_code(pid: i32, start: &str, pidfd: BorrowedFd<'_>) -> Option<i32> {
    // First the process that is not reaped yet: after that the kernel keeps the status with the pidfd.
    let kept = || Host::get().has(Feature::PidfdExit).then(|| sys::ended_status(pidfd)).flatten();
    unreaped_status(pid, start).or_else(kept).map(code_of_status)
}

/// Exit code, or 128 plus the signal, of a process that has ended and that its parent has not reaped. `None` when it runs
/// or is gone.
pub fn unreaped_code(pid: i32, start: &str) -> Option<i32> {
    unreaped_status(pid, start).map(code_of_status)
}

/// Wait status in `/proc/PID/stat` (proc(5): field 52, for callers that may trace the process).
fn unreaped_status(pid: i32, start: &str) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied();
    let is_it = field(22) == Some(start) && matches!(field(3), Some("Z" | "X"));
    is_it.then(|| field(52)?.parse().ok()).flatten()
}

/// Exit code, or 128 plus the signal, of a wait status (wait(2)).
fn code_of_status(status: i32) -> i32 {
    match status & 0x7f {
        0 => (status >> 8) & 0xff,
        signal => 128 + signal,
    }
}

/// Limits this process and its children to some processors.
pub fn stay_on(processors: &[u32]) -> Result<(), SetupError> {
    init::stay_on(processors).map_err(|failed| failed.at(Stage::Setup))
}

/// Sends a signal by number, including real-time signals.
pub fn signal(pidfd: BorrowedFd<'_>, number: i32) -> Result<(), Errno> {
    sys::signal(pidfd, number)
}

/// Pid of a pidfd's process in the pid namespace of this process; `None` when it has ended.
pub fn pid_of(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()?;
    (pid > 0).then_some(pid)
}

fn pair() -> Result<(OwnedFd, OwnedFd), SpawnError> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|errno| SpawnError::Helper("reach", errno))
}

/// Error for a process that could not be created, with a message where more is known than the errno.
pub(crate) fn clone_error(namespaces: u64, errno: Errno) -> SetupError {
    let users = namespaces & libc::CLONE_NEWUSER as u64 != 0;
    let message = match errno {
        Errno::NOSPC if users && is_zero("/proc/sys/user/max_user_namespaces") => Some(
            "cannot make a user namespace: they are disabled on this host (`sysctl user.max_user_namespaces` is 0)"
                .to_owned(),
        ),
        Errno::PERM
            if users
                && !rustix::process::geteuid().is_root()
                && is_zero("/proc/sys/kernel/unprivileged_userns_clone") => Some(
            "cannot make a user namespace: only root may on this host (`sysctl kernel.unprivileged_userns_clone` is 0)"
                .to_owned(),
        ),
        Errno::INVAL if users => Some(
            "cannot make a user namespace: this kernel has none (it was built without CONFIG_USER_NS)".to_owned(),
        ),
        Errno::AGAIN => Some("cannot make a process: the limit of processes is reached".to_owned()),
        Errno::NOSPC => Some(
            "cannot make a namespace: the limit of namespaces is reached (see /proc/sys/user)".to_owned(),
        ),
        _ => None,
    };
    SetupError {
        stage: Stage::Clone,
        call: "clone".to_owned(),
        on: Bytes::from(""),
        errno: errno.raw_os_error(),
        message,
    }
}

fn is_zero(path: &str) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "0")
}

/// Directory of the cgroup in which a process is created.
fn group<'a>(plan: &Plan, slots: &'a [OwnedFd]) -> Option<BorrowedFd<'a>> {
    plan.cgroup.and_then(|FdSlot(slot)| slots.get(slot)).map(AsFd::as_fd)
}

/// The same, kept open while the other file descriptors are closed.
fn take_group(plan: &Plan, slots: Vec<OwnedFd>) -> Option<OwnedFd> {
    let FdSlot(slot) = plan.cgroup?;
    slots.into_iter().nth(slot)
}

/// Answer of the intermediate process.
#[derive(Debug, Serialize, Deserialize)]
enum Between {
    /// The container's process exists; its pidfd is attached.
    Made,
    Failed(SetupError),
}

/// Makes a process through an intermediate one, as a child of this process. With `stdio` the process gets those standard
/// streams, and ends with this process.
pub(crate) fn launch_between(
    mut plan: Plan,
    slots: Vec<OwnedFd>,
    status: OwnedFd,
    stdio: Option<[OwnedFd; 3]>,
) -> Result<Launched, SpawnError> {
    let (ours, theirs) = pair()?;
    // After it has entered a user namespace, the intermediate process may not choose a cgroup: it is created in the
    // cgroup itself, and its sibling inherits that.
    let is_early = plan.joined.iter().any(is_users);
    let early = if is_early { group(&plan, &slots) } else { None };
    let between =
        match sys::clone(CloneFlags(0), early).map_err(|errno| SpawnError::Setup(clone_error(0, errno)))? {
            Child::Here => {
                drop(ours);
                if is_early {
                    plan.cgroup = None;
                }
                let dies_with_parent = stdio.is_some();
                if let Some([stdin, stdout, stderr]) = &stdio {
                    let _ = rustix::stdio::dup2_stdin(stdin);
                    let _ = rustix::stdio::dup2_stdout(stdout);
                    let _ = rustix::stdio::dup2_stderr(stderr);
                }
                between(plan, slots, status, &theirs, dies_with_parent)
            }
            Child::There { pidfd, .. } => pidfd,
        };
    drop((theirs, status));
    let group = take_group(&plan, slots);
    let answer = receive::<Between>(ours.as_fd());
    wait(&between);
    match answer.map_err(|errno| SpawnError::Helper("hear from", errno))? {
        Some((Between::Made, mut fds)) => {
            let pidfd = fds.pop().ok_or(SpawnError::HelperGone)?;
            let pid = pid_of(pidfd.as_fd()).ok_or(SpawnError::HelperGone)?;
            Ok(Launched { pid, pidfd, group })
        }
        Some((Between::Failed(error), _)) => Err(SpawnError::Setup(error)),
        None => Err(SpawnError::HelperGone),
    }
}

/// Runs as the intermediate process; never returns.
fn between(plan: Plan, slots: Vec<OwnedFd>, status: OwnedFd, answer: &OwnedFd, dies_with_parent: bool) -> ! {
    if plan.users.is_none() {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        // Processes in the namespaces must not inspect this process (CVE-2016-9962).
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    }
    let proc = init::writes_proc(&plan.setup).then(init::open_proc).and_then(Result::ok);
    let made = prepare_between(&plan, &slots).and_then(|late| {
        let namespaces = plan.namespaces & !(libc::CLONE_NEWTIME as u64);
        let made = sys::clone_sibling(CloneFlags(namespaces), group(&plan, &slots))
            .map_err(|errno| clone_error(namespaces, errno))?;
        Ok((made, late))
    });
    match made {
        Ok((Child::Here, late)) => {
            let entered = late.iter().try_for_each(|(join, namespace)| {
                enter(join, namespace).map_err(|errno| join_error(join, errno))
            });
            drop(late);
            match entered {
                Ok(()) => init::run(plan, slots, status, proc, dies_with_parent),
                Err(error) => init::fail(&status, error),
            }
        }
        Ok((Child::There { pidfd, .. }, _)) => {
            let _ = send(answer.as_fd(), &Between::Made, &[pidfd.as_fd()]);
            std::process::exit(0)
        }
        Err(error) => {
            let _ = send(answer.as_fd(), &Between::Failed(error), &[]);
            std::process::exit(1)
        }
    }
}

/// Enters namespaces; returns those that the new process must enter itself.
///
/// Where cgroup namespaces are delegation boundaries (the mount option `nsdelegate`, which systemd sets), only a
/// process whose cgroup namespace shows both its own cgroup and another can create a process in that one: the cgroup
/// namespace is entered after the process is in its cgroup.
fn prepare_between(plan: &Plan, slots: &[OwnedFd]) -> Result<Vec<(JoinOp, OwnedFd)>, SetupError> {
    const CGROUP: u64 = libc::CLONE_NEWCGROUP as u64;
    if plan.namespaces & libc::CLONE_NEWTIME as u64 != 0 {
        init::time::make(&plan.clocks).map_err(|failed| failed.at(Stage::Setup))?;
    }
    // Opened before any namespace is entered, which could change the meaning of paths.
    let mut open = Vec::new();
    let mut late = Vec::new();
    for join in &plan.joined {
        // Only for pidfds: a path may refer to a namespace of the host, and a new user namespace ends the privileges
        // over those.
        let by_handle = matches!(join.at, JoinAt::Slot(_));
        let later = if plan.cgroup.is_some() && by_handle { join.kinds & CGROUP } else { 0 };
        let now = join.kinds & !later;
        if later != 0 {
            late.push(open_one(join, later, slots)?);
        }
        if now != 0 {
            open.push((JoinOp { kinds: now, ..join.clone() }, open_join(join, slots)?));
        }
    }
    // With the host's privileges first. User namespaces change privileges, so they are entered last, except for
    // namespaces that only their root may enter.
    let mut refused = Vec::new();
    for (join, namespace) in open.iter().filter(|(join, _)| !is_users(join)) {
        match enter(join, namespace) {
            Err(Errno::PERM | Errno::ACCESS) => refused.push((join, namespace)),
            other => other.map_err(|errno| join_error(join, errno))?,
        }
    }
    for (join, namespace) in open.iter().filter(|(join, _)| is_users(join)) {
        enter(join, namespace).map_err(|errno| join_error(join, errno))?;
        let _ = rustix::thread::set_thread_groups(&[]);
        let (uid, gid) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
        let _ = rustix::thread::set_thread_res_gid(gid, gid, gid);
        let _ = rustix::thread::set_thread_res_uid(uid, uid, uid);
    }
    for (join, namespace) in refused {
        enter(join, namespace).map_err(|errno| join_error(join, errno))?;
    }
    Ok(late)
}

/// True for a user namespace by itself, whose root the intermediate process becomes.
fn is_users(join: &JoinOp) -> bool {
    join.kinds == libc::CLONE_NEWUSER as u64
}

/// Opens the cgroup namespace of a process by its file: this requires privileges over the namespace only, while the
/// pidfd also requires permission to inspect the process.
fn open_one(join: &JoinOp, kind: u64, slots: &[OwnedFd]) -> Result<(JoinOp, OwnedFd), SetupError> {
    let pid = || match &join.at {
        JoinAt::Slot(FdSlot(slot)) => slots.get(*slot).and_then(|pidfd| pid_of(pidfd.as_fd())),
        JoinAt::Path(_) => None,
    };
    let gone = || join_error(join, Errno::SRCH);
    let before = pid().ok_or_else(gone)?;
    let at = JoinAt::Path(Bytes::from(format!("/proc/{before}/ns/cgroup")));
    let one = JoinOp { kinds: kind, at };
    let namespace = open_join(&one, slots)?;
    // The process still runs, so the path was that of its namespace.
    if pid() == Some(before) { Ok((one, namespace)) } else { Err(gone()) }
}

fn open_join(join: &JoinOp, slots: &[OwnedFd]) -> Result<OwnedFd, SetupError> {
    let opened = match &join.at {
        JoinAt::Path(path) => {
            rustix::fs::open(path.as_path(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        }
        JoinAt::Slot(FdSlot(slot)) => {
            slots.get(*slot).ok_or(Errno::BADF).and_then(|fd| rustix::io::fcntl_dupfd_cloexec(fd, 3))
        }
    };
    opened.map_err(|errno| join_error(join, errno))
}

fn enter(join: &JoinOp, namespace: &OwnedFd) -> Result<(), Errno> {
    match &join.at {
        JoinAt::Slot(_) => {
            let kinds = ThreadNameSpaceType::from_bits_retain(join.kinds as u32);
            move_into_thread_name_spaces(namespace.as_fd(), kinds)
        }
        JoinAt::Path(_) => move_into_link_name_space(namespace.as_fd(), init::link_kind(join.kinds)),
    }
}

fn join_error(join: &JoinOp, errno: Errno) -> SetupError {
    let on = match &join.at {
        JoinAt::Path(path) => path.clone(),
        JoinAt::Slot(_) => Bytes::from("the container's namespaces"),
    };
    let message = (errno == Errno::INVAL).then(|| {
        format!("cannot join `{}`: it is not a namespace of the kind that is named", on.as_path().display())
    });
    SetupError { stage: Stage::Setup, call: "setns".to_owned(), on, errno: errno.raw_os_error(), message }
}

/// Signal that killed a child before it ran its program, most often for lack of memory; `None` when there was none.
///
/// Flag, state and exit code in `/proc/PID/stat` remain until the child is waited for. The exit code contains the signal.
fn died_in_set_up(launched: &Launched) -> Option<i32> {
    let mut polled = [PollFd::new(&launched.pidfd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    if !matches!(rustix::event::poll(&mut polled, Some(&now)), Ok(1..)) {
        return None;
    }
    let stat = Stat::of(launched.pid)?;
    (stat.is_dead && !stat.has_executed && stat.code & 0x7f != 0).then_some(stat.code & 0x7f)
}

/// True once the process has executed a program. A container's init process that still sets itself up has not: its mounts
/// may still be the host's. `None` when the process does not exist any more.
pub fn has_executed(pid: i32) -> Option<bool> {
    Stat::of(pid).filter(|stat| !stat.is_dead).map(|stat| stat.has_executed)
}

/// Fields of `/proc/PID/stat` (proc_pid_stat(5)).
struct Stat {
    /// The process is a zombie.
    is_dead: bool,
    /// The flag of a process that has not called exec since its fork (`PF_FORKNOEXEC`) is clear.
    has_executed: bool,
    /// Exit code, as waitpid(2) reports it.
    code: i32,
}

impl Stat {
    fn of(pid: i32) -> Option<Stat> {
        const NOT_EXECUTED: u64 = 0x40;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let is_dead = fields.next() == Some("Z");
        // Flags are the ninth field overall, the exit code is the last.
        let flags: u64 = fields.nth(5)?.parse().ok()?;
        let code = fields.last()?.parse().ok()?;
        Some(Stat { is_dead, has_executed: flags & NOT_EXECUTED == 0, code })
    }
}

/// Applies limits to a process in a new user namespace, where it could not raise them itself.
fn apply_from_outside(pid: i32, op: &SetupOp) -> Result<(), String> {
    match op {
        SetupOp::Limit { resource, soft, hard, clamp } => init::limit_of(pid, resource, *soft, *hard, *clamp)
            .map_err(|failed| failed.at(Stage::Setup).to_string()),
        SetupOp::OomScore(score) => {
            let path = format!("/proc/{pid}/oom_score_adj");
            std::fs::write(&path, score.to_string())
                .map_err(|error| format!("cannot write `{path}`: {error}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Groups;
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    use std::process::Command;

    #[test]
    fn wait_statuses_become_codes() {
        let check = |status, code| assert_eq!(code_of_status(status), code, "{status:#x}");
        check(0, 0);
        check(3 << 8, 3);
        check(255 << 8, 255);
        check(9, 137);
        // With a dump of memory.
        check(0x80 | 11, 139);
    }

    #[test]
    fn ended_processes_keep_their_code_before_and_after_they_are_reaped() {
        let mut command = Command::new("sh");
        let command = command.args(["-c", "read x; exit 7"]).stdin(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let pid = child.id() as i32;
        let start = Groups::start_time(pid).unwrap();
        let pidfd = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
        assert_eq!((unreaped_code(pid, &start), ended_code(pid, &start, pidfd.as_fd())), (None, None));
        drop(child.stdin.take());
        rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).unwrap();
        assert_eq!(unreaped_code(pid, &start), Some(7));
        assert_eq!(unreaped_code(pid, "1"), None, "another process of this pid");
        child.wait().unwrap();
        assert_eq!(unreaped_code(pid, &start), None);
        let kept = Host::get().has(Feature::PidfdExit).then_some(7);
        assert_eq!(ended_code(pid, &start, pidfd.as_fd()), kept);
    }
}
