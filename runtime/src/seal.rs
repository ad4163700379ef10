//! This program's own file, kept out of reach of the containers it makes.
//!
//! A process of a container runs this program until it runs its own, and a script may name `/proc/self/exe` as its
//! interpreter. Whoever holds a handle on that file could write to it once nobody runs it (CVE-2019-5736), unless the
//! handle is on a read-only mount.

use crate::init::copy_tree;
use crate::op::Bytes;
use crate::sys::{self, AttributeChange};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;

/// Runs this program again from a read-only mount of its own file that nobody else sees, unless it is on such a mount.
///
/// Returns when it is, and where no mounts can be made: whoever may not mount is not root, whose file it is. Must be
/// called by a program with one thread, before it has done anything.
pub fn seal() {
    let _ = run_sealed();
}

fn run_sealed() -> Result<(), Errno> {
    const READONLY: u64 = 1;
    let own = rustix::fs::open(c"/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    if is_readonly(&own)? {
        return Ok(());
    }
    let sealed = copy_tree(own.as_fd(), &Bytes::from(""), false)?;
    let change = AttributeChange { set: READONLY, ..AttributeChange::default() };
    sys::set_attributes(sealed.as_fd(), change)?;
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
