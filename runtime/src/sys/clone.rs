//! Creation of processes with clone3 and fork.

use super::check;
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use rustix::io::Errno;

/// Namespaces of a new process, as `CLONE_NEW…` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CloneFlags(pub(crate) u64);

/// Side of a fork that this process is.
pub(crate) enum Child {
    /// The new process itself.
    Here,
    /// The old process, with pid and pidfd of the new one.
    There {
        /// Pid in the pid namespace of the old process.
        pid: i32,
        /// Pidfd of the new process.
        pidfd: OwnedFd,
    },
}

/// `struct clone_args`, version 2 (Linux 5.7).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Flag of Linux 5.7; libc's constant is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Creates a child process in new namespaces, and in `cgroup` (a version 2 directory) if there is one.
///
/// Only for a process with a single thread: the child continues with ordinary code.
pub(crate) fn clone(namespaces: CloneFlags, cgroup: Option<BorrowedFd<'_>>) -> Result<Child, Errno> {
    clone_with(namespaces.0, libc::SIGCHLD as u64, cgroup)
}

/// Like [`clone`], but the new process is a child of this process's parent.
pub(crate) fn clone_sibling(namespaces: CloneFlags, cgroup: Option<BorrowedFd<'_>>) -> Result<Child, Errno> {
    // The end of the sibling raises the same signal as that of this process; the call accepts no other.
    clone_with(namespaces.0 | libc::CLONE_PARENT as u64, 0, cgroup)
}

fn clone_with(flags: u64, exit_signal: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Child, Errno> {
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: flags | libc::CLONE_PIDFD as u64,
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        exit_signal,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `args` is a live `clone_args` of the size given, and `pidfd` outlives the call. No stack is
    // given and CLONE_VM is not set, so the child runs on a copy of this stack. The caller has one thread,
    // so no lock is held by a thread that the child lacks.
    let pid = check(unsafe {
        libc::syscall(libc::SYS_clone3, std::ptr::from_mut(&mut args), std::mem::size_of::<CloneArgs>())
    })?;
    if pid == 0 {
        return Ok(Child::Here);
    }
    // SAFETY: the kernel stored a new descriptor in `pidfd`, since CLONE_PIDFD was set and the call worked.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child::There { pid: pid as i32, pidfd })
}

/// Forks a process with a single thread.
pub(crate) fn fork() -> Result<Child, Errno> {
    clone(CloneFlags(0), None)
}

/// Forks a process with a single thread by the C library's call, which works under system call filters without
/// `clone3`, such as those of containers. Returns the child's pid; `None` in the child.
pub(crate) fn fork_in_container() -> Result<Option<i32>, Errno> {
    // SAFETY: the caller has one thread, so no lock is held by a thread that the child lacks.
    let pid = check(libc::c_long::from(unsafe { libc::fork() }))?;
    Ok((pid != 0).then_some(pid as i32))
}
