//! `U`: makes the container's user the owner of a mount's files.

use crate::container::Containers;
use crate::error::EngineError;
use crate::record::Container;
use kiln_image::store::Stack;
use kiln_image::sys::{self, Named};
use kiln_image::tree::Tree;
use kiln_runtime::user::{self, User};
use kiln_runtime::{SpawnError, op, view};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, FileType, Gid, Uid};
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
