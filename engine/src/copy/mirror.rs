//! Files of a container that follow files of the host.

use super::{CopyError, CopyOptions, Place, copy, is_dir};
use kiln_image::sys::{self, CallError};
use kiln_image::tree::{RealPath, Tree};
use rustix::fd::AsFd;
use rustix::fs::{Gid, Mode, Stat, Uid};
use rustix::io::Errno;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Makes the file at `target`, in a container, like the one at `source` on the host: its kind, content and mode, or its
/// absence. A directory is made without its content. The owner is that of the file before, or that of the directory in
/// which it is new. Missing directories above it are created.
///
/// # Errors
/// Fails when the source cannot be read, or the target cannot be written.
pub fn mirror(source: &Path, target: &Place<'_>) -> Result<(), CopyError> {
    let Some(name) = target.last_name().and_then(|name| CString::new(name).ok()) else {
        return Err(CopyError::MustBeDirectory(target.named()));
    };
    let found = match rustix::fs::lstat(source) {
        Ok(found) => Some(found),
        Err(Errno::NOENT | Errno::NOTDIR) => None,
        Err(errno) => return Err(CallError { call: "lstat", path: source.to_owned(), errno }.into()),
    };
    let above = above(target.path);
    if found.is_some() {
        make_dirs(target, above)?;
    }
    // The last name is not followed: a link is replaced, whatever it leads to.
    let parent = target.tree.resolve(above)?;
    let real = parent.child(&name);
    let old = match target.tree.stat(&parent)? {
        // What was below a directory that is a file now went with it.
        Some(above) if found.is_none() && !is_dir(&above) => return Ok(()),
        Some(_) => target.tree.stat(&real)?,
        None => return Ok(()),
    };
    let dir = target.tree.open_dir(&parent)?;
    target.refuse_kernel(&dir)?;
    let is_same_kind =
        |new: &Stat| old.as_ref().is_some_and(|old| sys::file_type(old) == sys::file_type(new));
    let keeps = found.as_ref().is_some_and(|new| is_same_kind(new) && !is_link(new));
    if old.is_some() && !keeps {
        sys::remove_all(dir.as_fd(), &name).map_err(|errno| failed("unlink", target, errno))?;
    }
    let Some(found) = found else { return Ok(()) };
    let above = rustix::fs::fstat(&dir).map_err(|errno| failed("stat", target, errno))?;
    let owner = old.as_ref().map_or((above.st_uid, above.st_gid), |old| (old.st_uid, old.st_gid));
    if is_dir(&found) {
        return make_dir(target, &parent, &name, owner, found.st_mode);
    }
    let host = Tree::open(Path::new("/"))?;
    let source = Place { tree: &host, path: source.as_os_str().as_bytes(), container: None };
    copy(&source, target, CopyOptions { owner: Some(owner), ..CopyOptions::default() }).map(drop)
}

/// Creates the missing directories of a path, with the owner of the one above each.
pub(crate) fn make_dirs(target: &Place<'_>, path: &[u8]) -> Result<(), CopyError> {
    let mut end = 0;
    for name in path.split(|byte| *byte == b'/') {
        let before = &path[..end];
        end = (end + name.len() + usize::from(end > 0 || path.starts_with(b"/"))).min(path.len());
        if name.is_empty() {
            continue;
        }
        let before = if before.is_empty() { b"/" } else { before };
        let parent = target.tree.resolve(before)?;
        let own = [before, b"/", name].concat();
        if target.tree.stat(&target.tree.resolve(&own)?)?.is_some() {
            continue;
        }
        let above = target.tree.stat(&parent)?.map_or((0, 0), |above| (above.st_uid, above.st_gid));
        let name = CString::new(name).map_err(|_| failed("mkdir", target, Errno::INVAL))?;
        make_dir(target, &parent, &name, above, 0o755)?;
    }
    Ok(())
}

/// Creates a directory unless it exists, and sets its owner and mode.
fn make_dir(
    target: &Place<'_>,
    parent: &RealPath,
    name: &CString,
    (uid, gid): (u32, u32),
    mode: u32,
) -> Result<(), CopyError> {
    let dir = target.tree.open_dir(parent)?;
    target.refuse_kernel(&dir)?;
    match rustix::fs::mkdirat(&dir, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(failed("mkdir", target, errno)),
    }
    let own = sys::open_dir_at(dir.as_fd(), name).map_err(|errno| failed("open", target, errno))?;
    let owned = rustix::fs::fchown(&own, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    owned.map_err(|errno| failed("chown", target, errno))?;
    // The permission bits only: the kind of the file is not part of a mode to set.
    let mode = Mode::from_raw_mode(mode & 0o7777);
    rustix::fs::fchmod(&own, mode).map_err(|errno| failed("chmod", target, errno))
}

fn is_link(stat: &Stat) -> bool {
    sys::file_type(stat) == rustix::fs::FileType::Symlink
}

fn above(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or_default();
    if end == 0 { b"/" } else { &path[..end] }
}

fn failed(call: &'static str, target: &Place<'_>, errno: Errno) -> CopyError {
    CallError { call, path: target.named().into(), errno }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    /// A host directory and the root of a container.
    struct Two {
        dir: tempfile::TempDir,
    }

    impl Two {
        fn new() -> Two {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join("host")).unwrap();
            fs::create_dir_all(dir.path().join("root/srv")).unwrap();
            Two { dir }
        }

        fn host(&self, name: &str) -> std::path::PathBuf {
            self.dir.path().canonicalize().unwrap().join("host").join(name)
        }

        fn inside(&self, name: &str) -> std::path::PathBuf {
            self.dir.path().join("root").join(name)
        }

        fn mirror(&self, name: &str, target: &str) -> Result<(), CopyError> {
            let tree = Tree::open(&self.dir.path().join("root")).unwrap();
            mirror(&self.host(name), &Place { tree: &tree, path: target.as_bytes(), container: Some("web") })
        }
    }

    #[test]
    fn files_follow_with_mode_and_deletions() {
        let two = Two::new();
        fs::write(two.host("a"), "1").unwrap();
        let file = fs::File::open(two.host("a")).unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o750)).unwrap();
        two.mirror("a", "/srv/new/deep/a").unwrap();
        assert_eq!(fs::read_to_string(two.inside("srv/new/deep/a")).unwrap(), "1");
        assert_eq!(two.inside("srv/new/deep/a").metadata().unwrap().mode() & 0o7777, 0o750);
        fs::remove_file(two.host("a")).unwrap();
        fs::create_dir(two.host("a")).unwrap();
        two.mirror("a", "/srv/new/deep/a").unwrap();
        assert!(two.inside("srv/new/deep/a").is_dir());
        fs::remove_dir(two.host("a")).unwrap();
        two.mirror("a", "/srv/new").unwrap();
        assert!(!two.inside("srv/new").exists());
        // What is gone on both sides, also with its directory, is no failure.
        two.mirror("a", "/srv/new/deep/a").unwrap();
    }

    #[test]
    fn links_of_a_container_lead_nowhere_else() {
        let two = Two::new();
        fs::write(two.host("a"), "1").unwrap();
        fs::write(two.host("victim"), "old").unwrap();
        symlink(two.host("victim"), two.inside("srv/a")).unwrap();
        two.mirror("a", "/srv/a").unwrap();
        assert_eq!(fs::read_to_string(two.host("victim")).unwrap(), "old");
        assert!(two.inside("srv/a").symlink_metadata().unwrap().is_file());
        // A link to a directory above the target is followed inside the container.
        symlink(two.host(""), two.inside("srv/up")).unwrap();
        two.mirror("a", "/srv/up/b").unwrap_or_default();
        assert!(!two.host("b").exists());
    }

    #[test]
    fn owners_are_those_of_the_container() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: needs root");
            return;
        }
        let two = Two::new();
        std::os::unix::fs::chown(two.inside("srv"), Some(7), Some(8)).unwrap();
        fs::write(two.host("a"), "1").unwrap();
        two.mirror("a", "/srv/d/a").unwrap();
        for name in ["srv/d", "srv/d/a"] {
            let found = two.inside(name).metadata().unwrap();
            assert_eq!((found.uid(), found.gid()), (7, 8), "{name}");
        }
        std::os::unix::fs::chown(two.inside("srv/d/a"), Some(9), Some(9)).unwrap();
        fs::write(two.host("a"), "2").unwrap();
        two.mirror("a", "/srv/d/a").unwrap();
        let found = two.inside("srv/d/a").metadata().unwrap();
        assert_eq!((found.uid(), fs::read_to_string(two.inside("srv/d/a")).unwrap().as_str()), (9, "2"));
    }
}
