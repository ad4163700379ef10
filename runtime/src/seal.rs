//! Protection of this program's own file from the containers that it creates.
//!
//! A process of a container runs this program until it runs its own, and a script may name `/proc/self/exe` as its
//! interpreter. A process with a file descriptor of that file could write to it once no process executes it
//! (CVE-2019-5736), unless the descriptor is on a read-only mount.

use crate::detached::{self, READONLY, Space};
use crate::host::{Feature, Host};
use crate::op::Bytes;
use crate::sys::AttributeChange;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, StatVfsMountFlags};
use rustix::io::Errno;
use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// True when a program keeps its name when it is executed by a file descriptor: it is then named after its file, not
/// after a link to it. `root` is the program's future root directory; without the file the answer is true.
pub fn keeps_name(root: &Path, program: &str, environment: &[String]) -> bool {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(root) = rustix::fs::open(root, flags, Mode::empty()) else { return true };
    let path = environment.iter().rev().find_map(|entry| entry.strip_prefix("PATH="));
    let dirs = path.unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let candidates: Vec<String> = if program.contains('/') {
        vec![program.to_owned()]
    } else {
        dirs.split(':').map(|dir| format!("{dir}/{program}")).collect()
    };
    for candidate in candidates {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let open =
            |flags| rustix::fs::openat2(&root, &candidate, flags | OFlags::CLOEXEC, Mode::empty(), resolve);
        let Ok(named) = open(OFlags::PATH | OFlags::NOFOLLOW) else { continue };
        let is_link = rustix::fs::fstat(&named)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink);
        if !is_link {
            return true;
        }
        let Ok(file) = open(OFlags::PATH) else { continue };
        let found = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_default();
        return found.file_name() == Path::new(&candidate).file_name();
    }
    true
}

/// True where programs of containers can be executed by file descriptors, so that no process of a container executes
/// this program's file: then it need not be sealed.
///
/// With a file descriptor that is closed by exec, the kernel starts no interpreter, so this program must find it;
/// interpreters registered for foreign formats (binfmt_misc) cannot be found that way.
pub fn can_do_without() -> bool {
    // Older kernels name a program that is executed by a file descriptor after the descriptor's number.
    Host::get().has(Feature::NamedExec) && !has_foreign_interpreters()
}

fn has_foreign_interpreters() -> bool {
    // A mounted binfmt_misc has this file.
    if rustix::fs::access(c"/proc/sys/fs/binfmt_misc/register", rustix::fs::Access::EXISTS).is_err() {
        return false;
    }
    let entries = std::fs::read_dir("/proc/sys/fs/binfmt_misc").into_iter().flatten().flatten();
    entries.into_iter().any(|entry| !matches!(entry.file_name().to_str(), Some("register" | "status")))
}

/// True when this program's file is on a read-only mount.
pub fn is_sealed() -> bool {
    let own = rustix::fs::open(c"/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    own.and_then(|own| is_readonly(&own)).unwrap_or(false)
}

/// Executes this program again from a detached read-only mount of its file, unless it is on such a mount.
///
/// Returns when it is, and where mounts are not permitted: a process that may not mount is not root, which owns the
/// file. Must be called by a program with one thread, before any other work.
pub fn seal() {
    let _ = run_sealed();
}

fn run_sealed() -> Result<(), Errno> {
    let own = rustix::fs::open(c"/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    if is_readonly(&own)? {
        return Ok(());
    }
    let sealed = detached::copy(own.as_fd(), &Bytes::from(""), false)?;
    let change = AttributeChange { set: READONLY, ..AttributeChange::default() };
    let sealed = detached::attributes(sealed, change, Space::Shared)?;
    // Prevents endless re-execution of this program.
    if !is_readonly(&sealed)? {
        return Ok(());
    }
    let text = |text: OsString| CString::new(text.into_vec()).map_err(|_| Errno::INVAL);
    let arguments = std::env::args_os().map(text).collect::<Result<Vec<_>, _>>()?;
    let environment = std::env::vars_os().map(|(mut entry, value)| {
        entry.push("=");
        entry.push(value);
        text(entry)
    });
    let environment = environment.collect::<Result<Vec<_>, _>>()?;
    // Returns only on failure.
    let Err(errno) = nix::unistd::fexecve(&sealed, &arguments, &environment);
    Err(Errno::from_raw_os_error(errno as i32))
}

fn is_readonly(file: &OwnedFd) -> Result<bool, Errno> {
    Ok(rustix::fs::fstatvfs(file)?.f_flag.contains(StatVfsMountFlags::RDONLY))
}
