//! Unpacking of a tar below a directory of an existing tree: copies into containers and out of them.

use super::{ApplyError, Below, Options, Unpacker, clean, joined, path};
use crate::tar::{Entry, EntryKind, Reader};
use rustix::fd::OwnedFd;
use std::io::Read;

/// Where and how files are unpacked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Placement<'a> {
    /// Path of an existing directory below the root.
    pub base: &'a [u8],
    /// Owner of everything, as uid and gid; `None` for the owners in the tar.
    pub owner: Option<(u32, u32)>,
    /// Leave device nodes out, and drop setuid and setgid bits unless the owners are those of the tar: a program or device
    /// of a container must not get privileges on the host.
    pub disarms: bool,
}

/// Outcome of unpacking a tar.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// Size of all file contents in bytes.
    pub size: u64,
    /// Paths of device nodes that were left out.
    pub left_out: Vec<Vec<u8>>,
    /// Uid, gid and mode that the tar has for the directory itself, which are not set; `None` when it has no such entry.
    pub base: Option<(u32, u32, u32)>,
}

/// Unpacks any tar below a directory of the tree at `root`. Links on the way are followed inside that tree; a directory is
/// merged with an existing one and replaces no other file, nor the other way round.
///
/// # Errors
/// Fails when the stream is not a valid tar, a path leads out of `root`, the kinds of files are in conflict, or a file
/// cannot be created.
pub fn place(stream: impl Read, root: OwnedFd, placement: &Placement<'_>) -> Result<Placed, ApplyError> {
    let options = Options { keeps_kinds: true, ..Options::default() };
    let mut unpacker = Unpacker::new(root, options, Below::Nothing);
    let mut reader = Reader::new(stream);
    let mut placed = Placed::default();
    while let Some(mut entry) = reader.next_entry()? {
        let Some(name) = placement.below(&entry.name)? else {
            if entry.kind == EntryKind::Directory {
                placed.base = Some((entry.uid, entry.gid, entry.mode & 0o7777));
            }
            continue;
        };
        if placement.disarms && matches!(entry.kind, EntryKind::CharDevice | EntryKind::BlockDevice) {
            placed.left_out.push(entry.name);
            continue;
        }
        if entry.kind == EntryKind::HardLink {
            let outside = || ApplyError::Outside(path(&entry.link));
            let link = placement.below(&entry.link)?.ok_or_else(outside)?;
            entry.link = link;
        }
        entry.name = name;
        placement.own(&mut entry);
        unpacker.entry(&entry, &mut reader)?;
    }
    unpacker.set_directory_times()?;
    placed.size = unpacker.applied.size;
    Ok(placed)
}

impl Placement<'_> {
    /// Path of an entry from the root; `None` for the directory itself, which keeps its metadata.
    fn below(&self, name: &[u8]) -> Result<Option<Vec<u8>>, ApplyError> {
        let names = clean(name).ok_or_else(|| ApplyError::Outside(path(name)))?;
        if names.is_empty() {
            return Ok(None);
        }
        let name = joined(&names);
        Ok(Some(if self.base.is_empty() { name } else { [self.base, b"/", &name].concat() }))
    }

    /// Sets the owner of an entry.
    fn own(&self, entry: &mut Entry) {
        const SPECIAL: u32 = 0o6000;
        let Some((uid, gid)) = self.owner else { return };
        (entry.uid, entry.gid) = (uid, gid);
        if self.disarms && entry.kind != EntryKind::Directory {
            entry.mode &= !SPECIAL;
            entry.xattrs.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::Writer;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn tar(entries: &[(EntryKind, &str, &str)]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for (kind, name, text) in entries {
            let mut entry = Entry::new(*kind, *name);
            entry.mode = 0o4755;
            if *kind == EntryKind::File {
                entry.size = text.len() as u64;
            } else {
                entry.link = text.as_bytes().to_vec();
            }
            writer.begin(&entry).unwrap();
            if *kind == EntryKind::File {
                writer.content(text.as_bytes()).unwrap();
            }
        }
        writer.finish().unwrap()
    }

    fn owner() -> Option<(u32, u32)> {
        Some((rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw()))
    }

    #[test]
    fn files_are_placed_below_the_directory_and_links_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        symlink(&outside, root.join("a/absolute")).unwrap();
        symlink("../..", root.join("a/up")).unwrap();
        let place = |entries: &[(EntryKind, &str, &str)]| {
            let placement = Placement { base: b"a", owner: owner(), disarms: true };
            place(tar(entries).as_slice(), crate::sys::open_dir(&root).unwrap(), &placement)
        };
        let placed = place(&[
            (EntryKind::Directory, "./", ""),
            (EntryKind::File, "./b/f", "text"),
            (EntryKind::HardLink, "l", "./b/f"),
            (EntryKind::CharDevice, "dev", ""),
            (EntryKind::File, "up/../g", "g"),
        ]);
        let base = Some((0, 0, 0o4755));
        assert_eq!(placed.unwrap(), Placed { size: 5, left_out: vec![b"dev".to_vec()], base });
        assert_eq!(std::fs::read(root.join("a/l")).unwrap(), b"text");
        assert_eq!(std::fs::metadata(root.join("a/b/f")).unwrap().mode() & 0o7777, 0o755);
        assert_eq!(
            std::fs::read(root.join("a/g")).unwrap(),
            b"g",
            "the name is cleaned before links are followed"
        );
        // The target of an absolute link is looked for below the root, and created there.
        place(&[(EntryKind::File, "absolute/f", "x")]).unwrap();
        assert!(std::fs::read_dir(&outside).unwrap().next().is_none());
        assert!(place(&[(EntryKind::File, "../f", "x")]).is_err());
        assert!(place(&[(EntryKind::HardLink, "h", "../../etc/passwd")]).is_err());
        let replaced = place(&[(EntryKind::File, "b", "x")]);
        assert!(matches!(replaced, Err(ApplyError::ReplacesDirectory(_))), "{replaced:?}");
        let replaced = place(&[(EntryKind::Directory, "up", "")]);
        assert!(matches!(replaced, Err(ApplyError::ReplacesFile(_))), "{replaced:?}");
    }
}
