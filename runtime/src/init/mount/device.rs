//! Device nodes: created, bound, or attached from file descriptors.

use super::attach;
use crate::detached::{self, READONLY, Space, copy as copy_tree};
use crate::init::path::Target;
use crate::init::{Done, Failed, Init, Named};
use crate::op::DeviceOp;
use crate::sys::AttributeChange;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, CWD, FileType, Gid, Mode, Uid};
use rustix::io::Errno;
use std::ffi::CStr;
use std::path::Path;

/// Restricts a mounted node of the host to being a device. A read-only mount does not prevent writes to the device, but
/// changes of its owner and mode.
fn hardened_node(node: OwnedFd, op: &DeviceOp, space: Space) -> Done<OwnedFd> {
    const NOSUID: u64 = 2;
    const NOEXEC: u64 = 8;
    let change = AttributeChange { set: READONLY | NOSUID | NOEXEC, ..AttributeChange::default() };
    detached::attributes(node, change, space).call("mount_setattr", op.path.clone())
}

fn node_type(op: &DeviceOp) -> FileType {
    match op.kind {
        'b' => FileType::BlockDevice,
        'p' => FileType::Fifo,
        _ => FileType::CharacterDevice,
    }
}

/// True when a node is the device of the operation.
fn is_device(stat: &fs::Stat, op: &DeviceOp) -> bool {
    let kind = node_type(op);
    FileType::from_raw_mode(stat.st_mode) == kind
        && (kind == FileType::Fifo || stat.st_rdev == fs::makedev(op.major, op.minor))
}

/// Checks that an existing node is the device of the operation.
fn check_node(parent: BorrowedFd<'_>, name: &CStr, op: &DeviceOp) -> Done {
    let stat = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).call("stat", op.path.clone())?;
    if is_device(&stat, op) {
        return Ok(());
    }
    let shown = op.path.as_path().display();
    Err(Failed::saying(
        op.path.clone(),
        format!("`{shown}` exists in the image and is not the device that is asked for"),
    ))
}

impl Init {
    pub(in crate::init) fn device(&mut self, op: &DeviceOp) -> Done {
        if let Some(slot) = op.node {
            let target = self.target(&op.path, Target::File, false)?;
            attach(self.slot(slot)?, target.as_fd()).call("move_mount", op.path.clone())?;
            self.leave(target);
            return Ok(());
        }
        if op.bind {
            let node = copy_tree(CWD, &op.path, false).call("mount", op.path.clone())?;
            let stat = fs::fstat(&node).call("stat", op.path.clone())?;
            if !is_device(&stat, op) {
                let shown = op.path.as_path().display();
                let message = format!("`{shown}` of the host is not the device that is asked for");
                return Err(Failed::saying(op.path.clone(), message));
            }
            let node = hardened_node(node, op, self.space)?;
            let target = self.target(&op.path, Target::File, false)?;
            attach(node.as_fd(), target.as_fd()).call("move_mount", op.path.clone())?;
            self.leave(node);
            self.leave(target);
            return Ok(());
        }
        if let Some(above) =
            op.path.as_path().parent().filter(|above| *above != Path::new("/") && *above != Path::new("/dev"))
        {
            self.target(&above.into(), Target::Dir, false)?;
        }
        let (parent, name) = self.parent(&op.path)?;
        let device = fs::makedev(op.major, op.minor);
        match fs::mknodat(parent, &name, node_type(op), Mode::from_raw_mode(op.mode), device) {
            Ok(()) => {}
            Err(Errno::EXIST) => return check_node(parent, &name, op),
            Err(errno) => return Err(errno).call("mknod", op.path.clone()),
        }
        if (op.uid, op.gid) != (0, 0) {
            let (uid, gid) = (Uid::from_raw(op.uid), Gid::from_raw(op.gid));
            fs::chownat(parent, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .call("chown", op.path.clone())?;
        }
        Ok(())
    }
}
