//! /proc: permitted mounts on and in it, and kernel parameters.

use crate::init::{Done, Failed, Init, Named};
use crate::op::{Bytes, MountOp};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{self, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

fn is_proc(handle: BorrowedFd<'_>) -> bool {
    const PROC_SUPER_MAGIC: i64 = 0x9fa0;
    fs::fstatfs(handle).is_ok_and(|statfs| statfs.f_type == PROC_SUPER_MAGIC)
}

/// Checks that a mount on /proc is a proc file system.
pub(super) fn check_proc(mount: BorrowedFd<'_>) -> Done {
    if is_proc(mount) {
        Ok(())
    } else {
        Err(Failed::saying("/proc", "what is mounted on `/proc` is not a proc file system"))
    }
}

impl Init {
    /// Rejects mounts in the container's /proc: a link of the image must not lead a mount there (CVE-2019-19921).
    /// Mounts whose target names /proc were checked when the plan was created, and follow no links.
    pub(super) fn keep_off_proc(&self, target: BorrowedFd<'_>, op: &MountOp) -> Done {
        if !op.follow || !is_proc(target) {
            return Ok(());
        }
        let device = |handle: BorrowedFd<'_>| fs::fstat(handle).map(|stat| stat.st_dev);
        let own = self.find(&Bytes::from("/proc"), false)?;
        if own.is_some_and(|own| device(own.as_fd()) != device(target)) {
            // A /proc of other processes, which was mounted for the container to see.
            return Ok(());
        }
        let shown = op.target.as_path().display();
        Err(Failed::saying(op.target.clone(), format!("cannot mount on `{shown}`: it leads into /proc")))
    }

    /// Writes below the host's /proc: the image may have mounted another file system at its own.
    ///
    /// Kernel parameters of namespaces are those of the writing process, whichever /proc they are reached through.
    pub(in crate::init) fn write_proc(&self, path: &str, value: &str) -> Result<(), Errno> {
        let proc = self.proc.as_ref().ok_or(Errno::NOENT)?;
        // `self` is the only link to follow.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        let file = fs::openat2(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)?;
        rustix::io::write(&file, value.as_bytes()).map(drop)
    }

    pub(in crate::init) fn sysctl(&self, name: &str, value: &str) -> Done {
        // Where slashes separate, dots belong to names, for example of interfaces.
        let below = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
        let path = format!("sys/{below}");
        self.write_proc(&path, value).call("write", format!("/proc/{path}"))
    }
}
