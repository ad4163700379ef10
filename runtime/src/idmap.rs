//! Id maps of user namespaces, and user namespaces without processes.

use crate::op::{IdMaps, IdRange, describe_errno};
use crate::sys::{self, Child, CloneFlags};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs;
use std::io;
use std::process::Command;

/// Failure to map the ids of a user namespace.
#[derive(Debug, thiserror::Error)]
pub enum IdMapError {
    /// An operation on a file of the process, or a start of a program, failed.
    #[error("cannot {what} `{path}`: {reason}", reason = reason(source))]
    Access {
        /// Operation, as a verb.
        what: &'static str,
        /// Path of the file or name of the program.
        path: String,
        /// Cause of the failure.
        source: io::Error,
    },
    /// The program that maps ids for unprivileged users is not installed.
    #[error(
        "cannot map the ids of the container: the program `{0}` is not installed (it is in the package `uidmap` or `shadow-utils`)"
    )]
    NoProgram(&'static str),
    /// The program that maps ids for unprivileged users refused the map.
    #[error(
        "cannot map the ids of the container: {program}: {message} (does `{file}` have a line for the user with id {uid}, such as `{uid}:100000:65536`?)"
    )]
    Refused {
        /// Name of the program.
        program: &'static str,
        /// Error message of the program.
        message: String,
        /// File with the ranges that it permits.
        file: &'static str,
        /// Uid of this process.
        uid: u32,
    },
    /// A call for a user namespace without processes failed.
    #[error("cannot {what} a user namespace: {reason}", reason = describe_errno(errno.raw_os_error()))]
    Namespace {
        /// Operation, as a verb.
        what: &'static str,
        /// Error of the call.
        errno: Errno,
    },
}

fn reason(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), describe_errno)
}

impl IdMapError {
    fn access(what: &'static str, path: &str) -> impl FnOnce(io::Error) -> IdMapError {
        let path = path.to_owned();
        move |source| IdMapError::Access { what, path, source }
    }

    fn namespace(what: &'static str) -> impl FnOnce(Errno) -> IdMapError {
        move |errno| IdMapError::Namespace { what, errno }
    }
}

/// Writes the maps of the namespace in which process `pid` has just been created.
///
/// Directly where that is permitted: by root, and by any user for its own id alone. Otherwise by `newuidmap` and
/// `newgidmap`, which read /etc/subuid and /etc/subgid.
///
/// # Errors
/// [`IdMapError::NoProgram`] and [`IdMapError::Refused`] contain what the user can do; failures to write the maps.
pub fn write(pid: i32, maps: &IdMaps) -> Result<(), IdMapError> {
    let privileged = rustix::process::geteuid().is_root();
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let is_own = |ranges: &[IdRange], id: u32| matches!(ranges, [one] if one.count == 1 && one.outside == id);
    if !privileged && is_own(&maps.users, uid) && is_own(&maps.groups, gid) {
        // The kernel's condition for mapping the own gid without privileges (user_namespaces(7)).
        let path = format!("/proc/{pid}/setgroups");
        fs::write(&path, "deny").map_err(IdMapError::access("write", &path))?;
    } else if !privileged {
        by_helper("newuidmap", "/etc/subuid", pid, &maps.users)?;
        return by_helper("newgidmap", "/etc/subgid", pid, &maps.groups);
    }
    for (file, ranges) in [("gid_map", &maps.groups), ("uid_map", &maps.users)] {
        let path = format!("/proc/{pid}/{file}");
        fs::write(&path, text(ranges)).map_err(IdMapError::access("write", &path))?;
    }
    Ok(())
}

fn text(ranges: &[IdRange]) -> String {
    ranges.iter().map(|range| format!("{} {} {}\n", range.inside, range.outside, range.count)).collect()
}

fn by_helper(
    program: &'static str,
    file: &'static str,
    pid: i32,
    ranges: &[IdRange],
) -> Result<(), IdMapError> {
    let numbers = ranges.iter().flat_map(|range| [range.inside, range.outside, range.count]);
    let output = Command::new(program).arg(pid.to_string()).args(numbers.map(|n| n.to_string())).output();
    let output = output.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => IdMapError::NoProgram(program),
        _ => IdMapError::access("run", program)(error),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    let uid = rustix::process::geteuid().as_raw();
    Err(IdMapError::Refused { program, message, file, uid })
}

/// User namespace with these maps and without processes, for mapping the owners of files.
///
/// # Errors
/// [`IdMapError::Namespace`] when the namespace cannot be created or opened, and the errors of [`write`].
pub fn namespace(maps: &IdMaps) -> Result<OwnedFd, IdMapError> {
    let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(IdMapError::namespace("wait for"))?;
    let flags = CloneFlags(libc::CLONE_NEWUSER as u64);
    match sys::clone(flags, None).map_err(IdMapError::namespace("make"))? {
        Child::Here => {
            // The child lives until the other end is closed.
            drop(theirs);
            let _ = rustix::io::read(&ours, &mut [0u8]);
            std::process::exit(0)
        }
        Child::There { pid, pidfd } => {
            let made = write(pid, maps).and_then(|()| {
                let path = format!("/proc/{pid}/ns/user");
                rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                    .map_err(IdMapError::namespace("open"))
            });
            drop((ours, theirs));
            let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
            crate::launch::wait(&pidfd);
            made
        }
    }
}
