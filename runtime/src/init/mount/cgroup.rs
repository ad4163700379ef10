//! Version 1 cgroup hierarchies.

use super::attached_attributes;
use super::hide::attach_in;
use crate::detached::{self, READONLY, copy as copy_tree, old_flags};
use crate::init::path::Target;
use crate::init::{Done, Init, Named};
use crate::op::{Bytes, HierarchiesOp, HierarchyMount, HierarchyView};
use crate::sys::AttributeChange;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{self, CWD, Mode};
use rustix::io::Errno;
use rustix::mount::MountFlags;

/// Mounts a version 1 hierarchy, as seen in the cgroup namespace, on a directory of the working directory.
fn mount_hierarchy(name: &str, options: &str, flags: MountFlags) -> Result<(), Errno> {
    let options = Bytes::from(options).to_c_string();
    rustix::mount::mount(c"cgroup", name, c"cgroup", flags, Some(options.as_c_str()))
}

impl Init {
    /// Mounts version 1 cgroups on directories of a tmpfs.
    pub(in crate::init) fn hierarchies(&mut self, op: &HierarchiesOp) -> Done {
        self.forget_dir(&op.target, false);
        let target = self.target(&op.target, Target::Dir, false)?;
        let writable = old_flags(op.attributes) - MountFlags::RDONLY;
        rustix::process::fchdir(&target).call("chdir", op.target.clone())?;
        rustix::mount::mount(c"tmpfs", c".", c"tmpfs", writable, Some(c"mode=755"))
            .call("mount", op.target.clone())?;
        // The new mount covers the target: its top must be opened by path.
        let top = self.find(&op.target, false)?.ok_or(Errno::NOENT).call("open", op.target.clone())?;
        rustix::process::fchdir(&top).call("chdir", op.target.clone())?;
        for hierarchy in &op.mounts {
            self.hierarchy(hierarchy, top.as_fd(), op.attributes)?;
        }
        for (name, target) in &op.links {
            fs::symlink(target.as_str(), name.as_str()).call("symlink", name.as_str())?;
        }
        if op.attributes & READONLY != 0 {
            let change = AttributeChange { set: READONLY, ..AttributeChange::default() };
            attached_attributes(top.as_fd(), change).call("mount_setattr", op.target.clone())?;
        }
        self.leave(target);
        self.leave(top);
        Ok(())
    }

    /// Mounts one version 1 hierarchy on a new directory of `top`, which is the working directory.
    fn hierarchy(&self, hierarchy: &HierarchyMount, top: BorrowedFd<'_>, attributes: u64) -> Done {
        let name = hierarchy.name.as_str();
        fs::mkdir(name, Mode::from_raw_mode(0o755)).call("mkdir", name)?;
        match &hierarchy.shows {
            HierarchyView::Nothing => Ok(()),
            HierarchyView::Cgroup(path) => {
                let cgroup = copy_tree(CWD, path, false).call("open_tree", path.clone())?;
                let change = AttributeChange { set: attributes, ..AttributeChange::default() };
                let cgroup =
                    detached::attributes(cgroup, change, self.space).call("mount_setattr", path.clone())?;
                attach_in(cgroup.as_fd(), top, &Bytes::from(name).to_c_string()).call("move_mount", name)
            }
            HierarchyView::Namespace(options) => {
                match mount_hierarchy(name, options, old_flags(attributes)) {
                    // A user namespace may be refused some of them.
                    Ok(()) | Err(Errno::PERM | Errno::NODEV) => Ok(()),
                    Err(errno) => Err(errno).call("mount", format!("cgroup {name}")),
                }
            }
        }
    }
}
