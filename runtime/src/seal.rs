//! This program's own file, kept out of reach of the containers it makes.
//!
//! A process of a container runs this program until it runs its own, and a script may name `/proc/self/exe` as its
//! interpreter. Whoever holds a handle on that file could write to it once nobody runs it (CVE-2019-5736), unless the
//! handle is on a read-only mount.

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

/// Whether a program keeps its name when it is run by a handle: it is then called after its file, not after the link
/// that it was named by. `root` is the directory that is to be its root; without the file there is nothing to say.
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

/// True where programs of containers can be run by handles, so that none of them comes to be this program: then
/// nothing needs to be sealed.
///
/// A handle that is closed by exec makes the kernel start no interpreter, which must then be found by us; those that are
/// registered for foreign programs (binfmt_misc) are beyond that.
pub fn can_do_without() -> bool {
    // Before, the kernel names a program that is run by a file descriptor after the descriptor's number.
    Host::get().has(Feature::NamedExec) && !has_foreign_interpreters()
}

fn has_foreign_interpreters() -> bool {
    // Mounted, it has this file.
    if rustix::fs::access(c"/proc/sys/fs/binfmt_misc/register", rustix::fs::Access::EXISTS).is_err() {
        return false;
    }
    let entries = std::fs::read_dir("/proc/sys/fs/binfmt_misc").into_iter().flatten().flatten();
    entries.into_iter().any(|entry| !matches!(entry.file_name().to_str(), Some("register" | "status")))
}

/// True when this program runs from a read-only mount.
pub fn is_sealed() -> bool {
    let own = rustix::fs::open(c"/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    own.and_then(|own| is_readonly(&own)).unwrap_or(false)
}

/// Runs this program again from a read-only mount of its own file that nobody else sees, unless it is on such a mount.
///
/// Returns when it is, and where no mounts can be made: whoever may not mount is not root, whose file it is. Must be
/// called by a program with one thread, before it has done anything.
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
    // Never in a circle.
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
    // Returns only when it fails.
    let Err(errno) = nix::unistd::fexecve(&sealed, &arguments, &environment);
    Err(Errno::from_raw_os_error(errno as i32))
}

fn is_readonly(file: &OwnedFd) -> Result<bool, Errno> {
    Ok(rustix::fs::fstatvfs(file)?.f_flag.contains(StatVfsMountFlags::RDONLY))
}
