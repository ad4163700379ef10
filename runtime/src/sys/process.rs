//! Calls about the running process.

use super::check;
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use rustix::io::Errno;

/// Closes every file descriptor from `first` on except `kept`, which exec must close, and below it those that exec
/// would close.
///
/// Only for a process that is about to run another program, and has given up ownership of the others.
pub(crate) fn close_all_but(first: u32, kept: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut kept: Vec<u32> = kept.iter().filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok()).collect();
    kept.sort_unstable();
    for number in (3..first).filter(|number| !kept.contains(number)) {
        // SAFETY: the call takes three integers and no memory.
        let flags = unsafe { libc::syscall(libc::SYS_fcntl, number, libc::F_GETFD) };
        if flags > 0 && flags & libc::c_long::from(libc::FD_CLOEXEC) != 0 {
            close_range(number, number, 0)?;
        }
    }
    let mut from = first;
    for number in kept {
        if number > from {
            close_range(from, number - 1, 0)?;
        }
        from = from.max(number + 1);
    }
    close_range(from, u32::MAX, 0)
}

fn close_range(first: u32, last: u32, flags: libc::c_uint) -> Result<(), Errno> {
    // SAFETY: the call takes three integers and no memory. The caller guarantees that these descriptors are not used.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}

/// Closes all file descriptors but the standard streams and `kept`, which may move.
///
/// Only for a process that was forked just now, has one thread, and never returns to the code that owned the other file
/// descriptors.
pub(crate) fn keep_only(kept: OwnedFd) -> OwnedFd {
    const PLACE: RawFd = 3;
    let kept = if kept.as_raw_fd() == PLACE {
        kept
    } else {
        // SAFETY: the owner of this number before the fork never runs again in this process, so the new descriptor,
        // which replaces it, has one owner: the returned value. When the call fails the number is not used.
        match check(unsafe { libc::syscall(libc::SYS_dup3, kept.as_raw_fd(), PLACE, libc::O_CLOEXEC) }) {
            // SAFETY: as above. The old number is closed below with all others.
            Ok(_) => unsafe { OwnedFd::from_raw_fd([PLACE, kept.into_raw_fd()][0]) },
            Err(_) => return kept,
        }
    };
    // SAFETY: the call takes three integers and no memory; no code that would use these descriptors runs any more.
    let _ = unsafe { libc::syscall(libc::SYS_close_range, PLACE + 1, u32::MAX, 0) };
    kept
}

/// Moves the calling thread into new namespaces: `CLONE_NEW…` bits only.
pub(crate) fn unshare(namespaces: u64) -> Result<(), Errno> {
    // SAFETY: the call takes an integer and no memory. The callers have one thread and pass namespace bits
    // only, so no descriptor or memory that another thread uses changes hands.
    check(unsafe { libc::syscall(libc::SYS_unshare, namespaces) }).map(drop)
}

/// Starts a new anonymous session keyring for the process.
pub(crate) fn join_new_session_keyring() -> Result<(), Errno> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring; no memory is read.
    check(unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>())
    })
    .map(drop)
}

/// Sends a signal by number, including real-time signals.
pub(crate) fn signal(pidfd: BorrowedFd<'_>, number: i32) -> Result<(), Errno> {
    // SAFETY: the call takes two integers, a null pointer that stands for default information, and flags.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            number,
            std::ptr::null::<libc::c_void>(),
            0,
        )
    })
    .map(drop)
}

/// Sends a signal by number, including real-time signals, to a child that has not been reaped.
pub(crate) fn signal_child(pid: i32, number: i32) -> Result<(), Errno> {
    // SAFETY: the call takes two integers and no memory.
    check(unsafe { libc::syscall(libc::SYS_kill, pid, number) }).map(drop)
}

/// Changes the execution domain (personality(2)).
pub(crate) fn set_personality(persona: u64) -> Result<(), Errno> {
    // SAFETY: the call takes an integer and no memory.
    check(unsafe { libc::syscall(libc::SYS_personality, persona) }).map(drop)
}

/// Sets the I/O class and priority of the process (ioprio_set(2)).
pub(crate) fn set_io_priority(class: u32, priority: u32) -> Result<(), Errno> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    const CLASS_SHIFT: u32 = 13;
    // SAFETY: the call takes three integers and no memory.
    check(unsafe {
        libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, class << CLASS_SHIFT | priority)
    })
    .map(drop)
}

/// Scheduling attributes of a process: `struct sched_attr` (Linux 3.14).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SchedulerAttr {
    pub(crate) size: u32,
    pub(crate) policy: u32,
    pub(crate) flags: u64,
    pub(crate) nice: i32,
    pub(crate) priority: u32,
    pub(crate) runtime: u64,
    pub(crate) deadline: u64,
    pub(crate) period: u64,
}

/// Sets scheduling policy and priority of the process (sched_setattr(2)).
pub(crate) fn set_scheduler(mut attr: SchedulerAttr) -> Result<(), Errno> {
    attr.size = std::mem::size_of::<SchedulerAttr>() as u32;
    // SAFETY: `attr` is a live `sched_attr` whose first field is its size; the kernel only reads it.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_mut(&mut attr), 0) }).map(drop)
}

/// Sets the memory policy of the process: mode and flags as `MPOL_…`, nodes as a bit mask.
pub(crate) fn set_memory_policy(mode: i32, nodes: &[u64]) -> Result<(), Errno> {
    // Without nodes the mask must be null as well.
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: `mask` is null or holds at least as many bits as the call's last argument; the kernel reads one bit less.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, nodes.len() as libc::c_ulong * 64) })
        .map(drop)
}

/// Installs a seccomp program: pairs of (`code << 48 | jt << 40 | jf << 32 | k`).
///
/// The instruction layout is `struct sock_filter`: 16-bit code, two 8-bit jumps, 32-bit constant.
///
/// With `SECCOMP_FILTER_FLAG_NEW_LISTENER` among the flags, returns the file descriptor on which calls are reported.
pub(crate) fn install_seccomp(program: &[u64], flags: u32) -> Result<Option<OwnedFd>, Errno> {
    let filter: Vec<libc::sock_filter> = program
        .iter()
        .map(|word| libc::sock_filter {
            code: (word >> 48) as u16,
            jt: (word >> 40) as u8,
            jf: (word >> 32) as u8,
            k: *word as u32,
        })
        .collect();
    let length = u16::try_from(filter.len()).map_err(|_| Errno::INVAL)?;
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
    // SAFETY: `program` points to `length` instructions in `filter`, which lives until the call returns; the
    // kernel copies and checks them.
    let answer = check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::c_ulong::from(flags),
            std::ptr::from_ref(&program),
        )
    })?;
    if u64::from(flags) & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER == 0 {
        return Ok(None);
    }
    // SAFETY: with this flag the call returns a new file descriptor without another owner.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(answer as RawFd) }))
}

/// Ignores SIGPIPE: a write to a pipe without readers fails with an error instead.
pub(crate) fn ignore_broken_pipes() {
    // SAFETY: no handler is installed; there are no other threads yet that could rely on another action.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Ends this process at once, without its exit handlers.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: the call takes a number and does not return.
    unsafe { libc::_exit(code) }
}

/// Opens /dev/null for closed standard streams: files opened later must not become one of them.
pub(crate) fn open_standard_streams() {
    let mut polled = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: `polled` holds three live `pollfd`s; without a timeout the call returns at once.
    let count = unsafe { libc::poll(polled.as_mut_ptr(), 3, 0) };
    if count <= 0 {
        return;
    }
    for _ in polled.iter().filter(|polled| polled.revents & libc::POLLNVAL != 0) {
        // SAFETY: the path is a C string; the lowest free number is that of the closed stream.
        unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
    }
}

/// Sets signals to their default action and unblocks them.
///
/// Only the signals that users and programs ignore: exec resets all handled signals to their default action.
pub(crate) fn reset_signals() -> Result<(), Errno> {
    // By `nohup`, by shells for background jobs, and by Rust's runtime.
    const OFTEN_IGNORED: [i32; 5] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGPIPE];
    for signal in OFTEN_IGNORED {
        // SAFETY: the action is SIG_DFL; nothing runs in this process when the signal comes.
        let previous = unsafe { libc::signal(signal, libc::SIG_DFL) };
        if previous == libc::SIG_ERR {
            return Err(Errno::INVAL);
        }
    }
    let none = nix::sys::signal::SigSet::empty();
    none.thread_set_mask().map_err(|errno| Errno::from_raw_os_error(errno as i32))
}

/// Reaps a child that has ended, without waiting; `None` while it runs.
///
/// Returns the exit code, or 128 plus the signal.
pub(crate) fn wait_pidfd(pidfd: BorrowedFd<'_>) -> Result<Option<i32>, Errno> {
    // SAFETY: an all-zero `siginfo_t` is a valid value of this plain C structure.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is a live `siginfo_t` that the kernel fills; the last argument may be null.
    check(unsafe {
        libc::syscall(
            libc::SYS_waitid,
            libc::P_PIDFD,
            pidfd.as_raw_fd(),
            std::ptr::from_mut(&mut info),
            libc::WEXITED | libc::WNOHANG,
            std::ptr::null_mut::<libc::c_void>(),
        )
    })?;
    // SAFETY: waitid fills these fields of the union for SIGCHLD; for a child still running they are zero.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    Ok(Some(if info.si_code == libc::CLD_EXITED { status } else { 128 + status }))
}

/// `struct pidfd_info` of linux/pidfd.h in its first size, 64 bytes.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// Wait status of a process that has ended and was reaped, by whichever parent (`PIDFD_GET_INFO`, Linux 6.15). `None` where
/// the kernel does not have it.
pub(crate) fn ended_status(pidfd: BorrowedFd<'_>) -> Option<i32> {
    /// `_IOWR(0xFF, 11, struct pidfd_info)`.
    const PIDFD_GET_INFO: libc::c_ulong = 0xC040_FF0B;
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the number of the request names the size of `PidfdInfo`, which the kernel reads and fills.
    let done = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO as _, std::ptr::from_mut(&mut info)) };
    (done == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}
