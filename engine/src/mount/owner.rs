//! `U`: makes the container's user the owner of a mount's files.

use super::{MountPoint, Source};
use crate::container::Containers;
use crate::error::EngineError;
use crate::record::Container;
use kiln_image::store::Stack;
use kiln_image::sys::{self, Named};
use kiln_image::tree::Tree;
use kiln_runtime::user::{self, User};
use kiln_runtime::{SpawnError, op, view};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, FileType, Gid, Stat, Uid};
use rustix::io::Errno;
use std::path::Path;

/// Largest user database that is read, in bytes.
const MAX_USER_FILE: u64 = 1 << 20;

impl Containers<'_> {
    /// Makes the container's user the owner of a file or directory and of everything below it.
    pub(super) fn give_away(&self, container: &Container, path: &Path) -> Result<(), EngineError> {
        let stack = self.store.pinned_stack(&container.id)?;
        let User { ids, .. } = self.user(&container.settings.user, &stack)?;
        let (uid, gid) = (Uid::from_raw(ids.uid), Gid::from_raw(ids.gid));
        rustix::fs::chownat(rustix::fs::CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .call("chown", path)?;
        if path.is_dir() {
            give_below(sys::open_dir(path)?.as_fd(), uid, gid).call("chown", path)?;
        }
        Ok(())
    }

    /// User of the container's program, looked up in its image.
    fn user(&self, name: &str, stack: &Stack) -> Result<User, EngineError> {
        let view = (!stack.is_empty()).then(|| view::detached(&self.store.view_mount(stack, &[])));
        let tree = Tree::of(view.transpose()?.into_iter().collect());
        let read = |path: &str| -> Result<String, EngineError> {
            let bytes = tree.read_file(path.as_bytes(), MAX_USER_FILE)?.unwrap_or_default();
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let found = user::find(name, &read("etc/passwd")?, &read("etc/group")?);
        found.map_err(|error| {
            let text = error.to_string();
            EngineError::Start(SpawnError::Setup(op::SetupError {
                stage: op::Stage::User,
                call: "find user".to_owned(),
                on: name.into(),
                errno: Errno::INVAL.raw_os_error(),
                message: Some(text),
            }))
        })
    }
}

/// A host directory that the user of a container may not use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedMount {
    /// Path on the host.
    pub source: String,
    /// Path in the container.
    pub target: String,
    /// Permission bits of the source.
    pub mode: u32,
    /// Uid and gid of the source's owner.
    pub owner: (u32, u32),
    /// Uid and gid of the container's user.
    pub user: (u32, u32),
    /// Missing access: `read` or `write to`.
    pub access: &'static str,
}

impl Containers<'_> {
    /// Mounts of host directories that the mode of the source closes to the container's user.
    ///
    /// # Errors
    /// Fails when the image does not have the user, and when a layer is missing.
    pub fn closed_mounts(&self, container: &Container) -> Result<Vec<ClosedMount>, EngineError> {
        let settings = &container.settings;
        let host = settings.mounts.iter().filter_map(|point| match &point.source {
            Source::Host { path, .. } if !point.chown => Some((point, path)),
            _ => None,
        });
        let host: Vec<(&MountPoint, &String)> = host.collect();
        let is_root = matches!(settings.user.split(':').next(), Some("" | "0" | "root") | None);
        if host.is_empty() || is_root || settings.privileges.privileged {
            return Ok(Vec::new());
        }
        let user = self.user(&settings.user, &self.store.pinned_stack(&container.id)?)?;
        let closed = host.into_iter().filter_map(|(point, path)| {
            let stat = rustix::fs::stat(path.as_str()).ok()?;
            let access = missing_access(&stat, &user, point.read_only)?;
            Some(ClosedMount {
                source: path.clone(),
                target: point.target.clone(),
                mode: stat.st_mode & 0o7777,
                owner: (stat.st_uid, stat.st_gid),
                user: (user.ids.uid, user.ids.gid),
                access,
            })
        });
        Ok(closed.collect())
    }
}

/// Access to a file or directory that its mode denies to a user; `None` when it allows all that the mount does.
fn missing_access(stat: &Stat, user: &User, read_only: bool) -> Option<&'static str> {
    let is_member = stat.st_gid == user.ids.gid || user.ids.groups.contains(&stat.st_gid);
    let bits = match (stat.st_uid == user.ids.uid, is_member) {
        (true, _) => stat.st_mode >> 6,
        (false, true) => stat.st_mode >> 3,
        (false, false) => stat.st_mode,
    };
    let read = if sys::file_type(stat) == FileType::Directory { 0o5 } else { 0o4 };
    match (bits & read == read, read_only || bits & 0o2 != 0) {
        (false, _) => Some("read"),
        (true, false) => Some("write to"),
        (true, true) => None,
    }
}

/// Changes the owner of everything in a directory; links are not followed.
fn give_below(dir: BorrowedFd<'_>, uid: Uid, gid: Gid) -> Result<(), Errno> {
    for name in sys::sorted_names(dir)? {
        rustix::fs::chownat(dir, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        let is_dir =
            sys::stat_at(dir, &name)?.is_some_and(|stat| sys::file_type(&stat) == FileType::Directory);
        if is_dir {
            give_below(sys::open_dir_at(dir, &name)?.as_fd(), uid, gid)?;
        }
    }
    Ok(())
}
