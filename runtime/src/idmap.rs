//! Id maps of user namespaces, and user namespaces without processes.

use crate::op::{IdMaps, IdRange, describe_errno};
use crate::sys::{self, Child, CloneFlags};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs;
use std::process::Command;

/// Writes the maps of the namespace in which process `pid` has just been created.
///
/// Directly where that is permitted: by root, and by any user for its own id alone. Otherwise by `newuidmap` and
/// `newgidmap`, which read /etc/subuid and /etc/subgid. The error contains what the user can do.
pub fn write(pid: i32, maps: &IdMaps) -> Result<(), String> {
    let privileged = rustix::process::geteuid().is_root();
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let is_own = |ranges: &[IdRange], id: u32| matches!(ranges, [one] if one.count == 1 && one.outside == id);
    if !privileged && is_own(&maps.users, uid) && is_own(&maps.groups, gid) {
        // The kernel's condition for mapping the own gid without privileges (user_namespaces(7)).
        let path = format!("/proc/{pid}/setgroups");
        fs::write(&path, "deny").map_err(|error| failed("write", &path, &error))?;
    } else if !privileged {
        by_helper("newuidmap", "/etc/subuid", pid, &maps.users)?;
        return by_helper("newgidmap", "/etc/subgid", pid, &maps.groups);
    }
    for (file, ranges) in [("gid_map", &maps.groups), ("uid_map", &maps.users)] {
        let path = format!("/proc/{pid}/{file}");
        fs::write(&path, text(ranges)).map_err(|error| failed("write", &path, &error))?;
    }
    Ok(())
}

fn text(ranges: &[IdRange]) -> String {
    ranges.iter().map(|range| format!("{} {} {}\n", range.inside, range.outside, range.count)).collect()
}

fn failed(what: &str, path: &str, error: &std::io::Error) -> String {
    let reason = error.raw_os_error().map_or_else(|| error.to_string(), describe_errno);
    format!("cannot {what} `{path}`: {reason}")
}

fn by_helper(program: &str, file: &str, pid: i32, ranges: &[IdRange]) -> Result<(), String> {
    let numbers = ranges.iter().flat_map(|range| [range.inside, range.outside, range.count]);
    let output = Command::new(program).arg(pid.to_string()).args(numbers.map(|n| n.to_string())).output();
    let output = output.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!(
            "cannot map the ids of the container: the program `{program}` is not installed (it is in the package `uidmap` or `shadow-utils`)"
        ),
        _ => failed("run", program, &error),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    let uid = rustix::process::geteuid().as_raw();
    Err(format!(
        "cannot map the ids of the container: {program}: {said} (does `{file}` have a line for the user with id {uid}, such as `{uid}:100000:65536`?)"
    ))
}

/// User namespace with these maps and without processes, for mapping the owners of files.
pub fn namespace(maps: &IdMaps) -> Result<OwnedFd, String> {
    let call = |what: &str, errno: Errno| {
        format!("cannot {what} a user namespace: {}", describe_errno(errno.raw_os_error()))
    };
    let (ours, theirs) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|errno| call("wait for", errno))?;
    let flags = CloneFlags(libc::CLONE_NEWUSER as u64);
    match sys::clone(flags, None).map_err(|errno| call("make", errno))? {
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
                    .map_err(|errno| call("open", errno))
            });
            drop((ours, theirs));
            let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
            crate::launch::wait(&pidfd);
            made
        }
    }
}
