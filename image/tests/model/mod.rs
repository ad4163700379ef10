//! Model of layers: changesets applied in order to a tree in memory, as in the OCI image-spec (layer.md, "Applying
//! Changesets"), compared with the store's view of the same layers. Stacks are made of arbitrary bytes, so that tests
//! and fuzzers share them.
//!
//! Where the specification is silent, the model defines the result: a parent without an entry in any layer has mode
//! 0755, owner 0 and time 0; links on the path of a member are resolved inside the root; a whiteout hides lower layers,
//! wherever it is in its layer; a character device 0:0 is a whiteout, as on overlayfs; an entry for the root has no
//! effect.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "tests; also included by the fuzz target")]

use kiln_image::digest::{DiffId, Digest};
use kiln_image::store::Store;
use kiln_image::tar::{Entry, EntryKind, Writer};
use kiln_image::tree::merged::{Found, MergedDir};
use rustix::fs::{FileType, Stat};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const MAX_LINKS: usize = 40;

/// Source of arbitrary decisions; all zero when the bytes are used up.
pub struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    fn below(&mut self, end: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first) % end
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
}

/// Fixture shared by the tests of one process: a store, and a canary directory of the host that no layer may change.
pub struct Fixture {
    root: tempfile::TempDir,
    store: Store,
    untouched: String,
    /// Tars of earlier stacks, to be reused in later ones.
    known: Vec<Vec<u8>>,
}

impl Fixture {
    pub fn new() -> Fixture {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("canary/dir")).unwrap();
        fs::write(root.path().join("canary/file"), "of the host").unwrap();
        let store = Store::open(&root.path().join("store")).unwrap();
        let mut fixture = Fixture { root, store, untouched: String::new(), known: Vec::new() };
        fixture.untouched = fixture.canary();
        fixture
    }

    /// All metadata and contents of the canary.
    fn canary(&self) -> String {
        ["canary", "canary/dir", "canary/file"]
            .map(|name| {
                let it = fs::symlink_metadata(self.root.path().join(name)).unwrap();
                let ids = (it.ino(), it.mode(), it.uid(), it.gid(), it.nlink(), it.size());
                format!("{name} {ids:?} {:?}", (it.mtime(), it.mtime_nsec(), it.ctime(), it.ctime_nsec()))
            })
            .join("\n")
    }

    /// Unpacks one stack and compares the store's view with the model.
    ///
    /// With `mounts`, the tree is also compared through an overlayfs mount.
    pub fn check(&mut self, bytes: &[u8], mounts: bool) -> Result<(), String> {
        let mut bytes = Bytes(bytes);
        let mut model = Model::new();
        let mut diff_ids: Vec<DiffId> = Vec::new();
        let mut description = String::new();
        for _ in 0..=bytes.below(5) {
            let tar = match bytes.below(5) {
                0 if !self.known.is_empty() => bytes.pick(&self.known),
                _ => self.layer(&mut bytes),
            };
            let entries = read_tar(&tar);
            description.push_str(&format!("layer {}:\n", diff_ids.len()));
            entries.iter().for_each(|(entry, _)| description.push_str(&format!("  {}\n", shown(entry))));
            let before = model.clone();
            let expected = model.apply(&entries);
            let diff_id = DiffId(Digest::of(&tar));
            let unpacked = self.store.unpack_layer(tar.as_slice(), &diff_id, &diff_ids, None);
            match (&expected, &unpacked) {
                (Ok(()), Ok(_)) => diff_ids.push(diff_id),
                (Err(_), Err(_)) => model = before,
                (Ok(()), Err(error)) => {
                    return Err(format!("{description}the store refuses the layer: {error:?}"));
                }
                (Err(why), Ok(_)) => {
                    return Err(format!(
                        "{description}the model refuses the layer ({why}), the store does not"
                    ));
                }
            }
            if self.known.len() < 50 {
                self.known.push(tar);
            }
        }
        let expected = model.tree();
        let layers = self.store.layers_of(&diff_ids).map_err(|error| format!("{description}{error:?}"))?;
        let ids: Vec<_> = layers.iter().map(Into::into).collect();
        let stack = self.store.stack_of(&ids).map_err(|error| error.to_string())?;
        let tree = stack.tree().map_err(|error| error.to_string())?;
        let mut found = BTreeMap::new();
        walk_merged(&tree, &mut Vec::new(), &mut found).map_err(|errno| format!("{description}{errno}"))?;
        compare(&expected, &found).map_err(|difference| format!("{description}{difference}"))?;
        if mounts && stack.dirs().len() > 1 {
            let found = self.mounted(&stack.dirs())?;
            compare(&expected, &found).map_err(|difference| format!("{description}mounted: {difference}"))?;
        }
        match self.canary() == self.untouched {
            true => Ok(()),
            false => Err(format!("{description}a file of the host was changed: {}", self.canary())),
        }
    }

    fn mounted(&self, layers: &[&Path]) -> Result<BTreeMap<String, String>, String> {
        let point = self.root.path().join("mounted");
        fs::create_dir_all(&point).unwrap();
        let lower: Vec<_> = layers.iter().map(|path| path.display().to_string()).collect();
        let mount =
            |arguments: &[&str]| std::process::Command::new(arguments[0]).args(&arguments[1..]).status();
        let options = format!("lowerdir={},redirect_dir=off,metacopy=off,index=off", lower.join(":"));
        let at = point.to_str().unwrap();
        if !mount(&["mount", "-t", "overlay", "overlay", "-o", &options, at])
            .is_ok_and(|status| status.success())
        {
            return Err(format!("cannot mount {options}"));
        }
        let mut found = BTreeMap::new();
        let tree = MergedDir::root(vec![kiln_image::sys::open_dir(&point).unwrap()]);
        let walked = walk_merged(&tree, &mut Vec::new(), &mut found);
        drop(tree);
        mount(&["umount", at]).unwrap();
        walked.map_err(|errno| errno.to_string())?;
        Ok(found)
    }

    fn layer(&self, bytes: &mut Bytes<'_>) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for _ in 0..=bytes.below(9) {
            let (entry, content) = self.entry(bytes);
            writer.begin(&entry).unwrap();
            writer.content(&content).unwrap();
        }
        writer.finish().unwrap()
    }

    fn entry(&self, bytes: &mut Bytes<'_>) -> (Entry, Vec<u8>) {
        let name = path(bytes);
        let canary = self.root.path().join("canary").display().to_string();
        let kinds = [
            EntryKind::Directory,
            EntryKind::File,
            EntryKind::File,
            EntryKind::Symlink,
            EntryKind::Symlink,
            EntryKind::HardLink,
            EntryKind::CharDevice,
            EntryKind::Fifo,
            EntryKind::BlockDevice,
        ];
        let mut entry = Entry::new(bytes.pick(&kinds), name.clone());
        entry.mode = bytes.pick(&[0o755, 0o644, 0o1777, 0o4755, 0o700, 0o2711]);
        (entry.uid, entry.gid) = (bytes.below(3) as u32, bytes.below(2) as u32);
        entry.mtime = bytes.below(5) as i64 * 1000;
        let mut content = Vec::new();
        match bytes.below(12) {
            // Whiteouts are files with special names.
            0 | 1 => {
                let (parent, last) = name.rsplit_once('/').map_or(("", name.as_str()), |split| split);
                entry.kind = EntryKind::File;
                entry.name = format!("{parent}/.wh.{last}").into_bytes();
            }
            2 => {
                entry.kind = EntryKind::File;
                entry.name = match bytes.below(4) {
                    0 => b".wh..wh..opq".to_vec(),
                    _ => format!("{name}/.wh..wh..opq").into_bytes(),
                };
            }
            3 if entry.kind == EntryKind::Directory => entry.name = b"./".to_vec(),
            _ => {}
        }
        match entry.kind {
            EntryKind::Symlink => {
                let targets = [
                    "a",
                    "b",
                    "/a",
                    "/a/b",
                    "../b",
                    "..",
                    ".",
                    "/",
                    "c/../a",
                    "b/c",
                    "none",
                    "../../../../c",
                    "/c/b",
                ];
                entry.link = match bytes.below(4) {
                    0 => canary.into_bytes(),
                    1 => format!("../../../../../../../..{canary}").into_bytes(),
                    _ => bytes.pick(&targets).as_bytes().to_vec(),
                };
            }
            EntryKind::HardLink => {
                entry.link = match bytes.below(6) {
                    0 => format!("{}/file", path(bytes)).into_bytes(),
                    1 => format!("{canary}/file").into_bytes(),
                    _ => path(bytes).into_bytes(),
                };
            }
            EntryKind::CharDevice if bytes.below(3) > 0 => (entry.major, entry.minor) = (1, 3),
            EntryKind::BlockDevice => (entry.major, entry.minor) = (7, bytes.below(3) as u32),
            EntryKind::File => {
                content = vec![b'0' + bytes.below(10) as u8; bytes.below(3)];
                entry.size = content.len() as u64;
            }
            _ => {}
        }
        if matches!(entry.kind, EntryKind::File | EntryKind::Directory) && bytes.below(4) == 0 {
            entry.xattrs.insert(b"user.k".to_vec(), vec![b'0' + bytes.below(3) as u8]);
        }
        (entry, content)
    }
}

fn path(bytes: &mut Bytes<'_>) -> String {
    let depth = bytes.pick(&[1, 1, 2, 2, 2, 3]);
    let names: Vec<&str> =
        (0..depth).map(|_| bytes.pick(&["a", "b", "c", "a", "b", "c", "long name", "..."])).collect();
    let path = names.join("/");
    match bytes.below(12) {
        0 => format!("./{path}"),
        1 => format!("/{path}"),
        2 => format!("x/../{path}"),
        _ => path,
    }
}

fn shown(entry: &Entry) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!(
        "{:?} {:?} -> {:?} mode {:o} {}:{} time {} xattrs {:?}",
        entry.kind,
        text(&entry.name),
        text(&entry.link),
        entry.mode,
        entry.uid,
        entry.gid,
        entry.mtime,
        entry.xattrs.len()
    )
}

fn read_tar(tar: &[u8]) -> Vec<(Entry, Vec<u8>)> {
    let mut reader = kiln_image::tar::Reader::new(tar);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut content = Vec::new();
        reader.content().read_to_end(&mut content).unwrap();
        entries.push((entry, content));
    }
    entries
}

// The model.

#[derive(Clone, Debug, PartialEq)]
struct Metadata {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Metadata {
    fn implied() -> Metadata {
        Metadata { mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: BTreeMap::new() }
    }

    fn of(entry: &Entry) -> Metadata {
        let xattrs = entry.xattrs.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        Metadata { mode: entry.mode, uid: entry.uid, gid: entry.gid, mtime: entry.mtime, xattrs }
    }
}

#[derive(Clone, Debug)]
enum Kind {
    Dir(BTreeMap<Vec<u8>, Name>),
    File(Vec<u8>),
    Symlink(Vec<u8>),
    Device(char, u32, u32),
    Fifo,
}

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
struct Name {
    node: usize,
    /// Whether the current layer has created it.
    is_own: bool,
}

#[derive(Clone, Debug)]
struct Node {
    kind: Kind,
    metadata: Metadata,
}

#[derive(Clone)]
pub struct Model {
    /// All nodes; the first is the root.
    nodes: Vec<Node>,
}

type Refused = &'static str;

impl Model {
    fn new() -> Model {
        Model { nodes: vec![Node { kind: Kind::Dir(BTreeMap::new()), metadata: Metadata::implied() }] }
    }

    fn apply(&mut self, entries: &[(Entry, Vec<u8>)]) -> Result<(), Refused> {
        *self = self.settled();
        for (entry, content) in entries {
            self.entry(entry, content)?;
        }
        Ok(())
    }

    /// The same tree as lower layers see it: names of one file become separate files.
    fn settled(&self) -> Model {
        fn copy(from: &Model, node: usize, to: &mut Model) -> usize {
            let mut copied = from.nodes[node].clone();
            let at = to.nodes.len();
            to.nodes.push(copied.clone());
            if let Kind::Dir(members) = &mut copied.kind {
                for name in members.values_mut() {
                    *name = Name { node: copy(from, name.node, to), is_own: false };
                }
            }
            to.nodes[at] = copied;
            at
        }
        let mut settled = Model { nodes: Vec::new() };
        copy(self, 0, &mut settled);
        settled
    }

    fn members(&mut self, dir: usize) -> &mut BTreeMap<Vec<u8>, Name> {
        match &mut self.nodes[dir].kind {
            Kind::Dir(members) => members,
            other => panic!("{other:?} is no directory"),
        }
    }

    fn is_dir(&self, node: usize) -> bool {
        matches!(self.nodes[node].kind, Kind::Dir(_))
    }

    fn add(&mut self, kind: Kind, metadata: Metadata) -> usize {
        self.nodes.push(Node { kind, metadata });
        self.nodes.len() - 1
    }

    /// Directory that names lead to, and its resolved path. With `make`, missing directories are created.
    fn directory(&mut self, names: &[Vec<u8>], make: bool) -> Result<(usize, Vec<Vec<u8>>), Refused> {
        let mut pending: Vec<Vec<u8>> = names.iter().rev().cloned().collect();
        let mut way: Vec<(Vec<u8>, usize)> = Vec::new();
        let mut links = 0;
        while let Some(name) = pending.pop() {
            if name == b".." {
                way.pop();
                continue;
            }
            let here = way.last().map_or(0, |(_, node)| *node);
            let node = match self.members(here).get(&name) {
                Some(found) => found.node,
                None if !make => return Err("nothing there"),
                None => {
                    let node = self.add(Kind::Dir(BTreeMap::new()), Metadata::implied());
                    self.members(here).insert(name.clone(), Name { node, is_own: true });
                    node
                }
            };
            match self.nodes[node].kind.clone() {
                Kind::Dir(_) => way.push((name, node)),
                Kind::Symlink(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err("too many links");
                    }
                    if target.starts_with(b"/") {
                        way.clear();
                    }
                    pending.extend(split(&target).into_iter().rev());
                }
                _ => return Err("not a directory"),
            }
        }
        let node = way.last().map_or(0, |(_, node)| *node);
        Ok((node, way.into_iter().map(|(name, _)| name).collect()))
    }

    fn entry(&mut self, entry: &Entry, content: &[u8]) -> Result<(), Refused> {
        let mut names = clean(&entry.name).ok_or("outside")?;
        let Some(name) = names.pop() else {
            if entry.kind != EntryKind::Directory {
                return Err("the root is a directory");
            }
            return Ok(());
        };
        if name.starts_with(b".wh.") {
            let (dir, _) = self.directory(&names, true)?;
            return self.whiteout(dir, &name);
        }
        let target = match entry.kind {
            EntryKind::HardLink => Some(self.target(&entry.link)?),
            _ => None,
        };
        let (dir, mut way) = self.directory(&names, true)?;
        way.push(name.clone());
        if let Some((_, path)) = &target
            && path.starts_with(&way)
        {
            return Err("a link to itself");
        }
        let kind = match entry.kind {
            EntryKind::Directory => {
                let existing =
                    self.members(dir).get(&name).copied().filter(|name| self.nodes[name.node].kind.is_dir());
                if let Some(existing) = existing {
                    self.nodes[existing.node].metadata = Metadata::of(entry);
                    self.members(dir).insert(name, Name { is_own: true, ..existing });
                    return Ok(());
                }
                Kind::Dir(BTreeMap::new())
            }
            EntryKind::File => Kind::File(content.to_vec()),
            EntryKind::Symlink => Kind::Symlink(entry.link.clone()),
            EntryKind::Fifo => Kind::Fifo,
            EntryKind::CharDevice if (entry.major, entry.minor) == (0, 0) => {
                self.members(dir).remove(&name);
                return Ok(());
            }
            EntryKind::CharDevice => Kind::Device('c', entry.major, entry.minor),
            EntryKind::BlockDevice => Kind::Device('b', entry.major, entry.minor),
            EntryKind::HardLink => {
                let (node, _) = target.ok_or("no target")?;
                self.members(dir).insert(name, Name { node, is_own: true });
                let it = &mut self.nodes[node];
                if !matches!(it.kind, Kind::Symlink(_)) {
                    let xattrs = std::mem::take(&mut it.metadata.xattrs);
                    it.metadata = Metadata { xattrs, ..Metadata::of(entry) };
                }
                return Ok(());
            }
        };
        let mut metadata = Metadata::of(entry);
        if entry.kind == EntryKind::Symlink {
            metadata.mode = 0o777;
        }
        let node = self.add(kind, metadata);
        self.members(dir).insert(name, Name { node, is_own: true });
        Ok(())
    }

    /// File that a hard link refers to: links on the path are followed, the file itself may be one.
    fn target(&mut self, link: &[u8]) -> Result<(usize, Vec<Vec<u8>>), Refused> {
        let mut names = clean(link).ok_or("outside")?;
        let last = names.pop().ok_or("a link to the root")?;
        let (dir, mut way) = self.directory(&names, false)?;
        let node = self.members(dir).get(&last).ok_or("a link to nothing")?.node;
        if self.is_dir(node) {
            return Err("a link to a directory");
        }
        way.push(last);
        Ok((node, way))
    }

    fn whiteout(&mut self, dir: usize, name: &[u8]) -> Result<(), Refused> {
        if name == b".wh..wh..opq" {
            let hidden: Vec<Vec<u8>> = self.members(dir).keys().cloned().collect();
            hidden.iter().for_each(|name| self.hide(dir, name));
            return Ok(());
        }
        let hidden = &name[b".wh.".len()..];
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err("a whiteout of nothing");
        }
        self.hide(dir, hidden);
        Ok(())
    }

    /// Removes a name of lower layers.
    fn hide(&mut self, dir: usize, name: &[u8]) {
        let Some(found) = self.members(dir).get(name).copied() else { return };
        let mut stays = found.is_own;
        if self.is_dir(found.node) {
            let members: Vec<Vec<u8>> = self.members(found.node).keys().cloned().collect();
            members.iter().for_each(|member| self.hide(found.node, member));
            if !stays && !self.members(found.node).is_empty() {
                self.nodes[found.node].metadata = Metadata::implied();
                self.members(dir).insert(name.to_vec(), Name { is_own: true, ..found });
                stays = true;
            }
        }
        if !stays {
            self.members(dir).remove(name);
        }
    }

    /// Description of every path in the tree.
    fn tree(&self) -> BTreeMap<String, String> {
        fn walk(model: &Model, node: usize, path: &str, found: &mut BTreeMap<String, String>) {
            let Kind::Dir(members) = &model.nodes[node].kind else { return };
            for (name, member) in members {
                let path = format!("{path}/{}", String::from_utf8_lossy(name));
                let node = &model.nodes[member.node];
                let kind = match &node.kind {
                    Kind::Dir(_) => "dir".to_owned(),
                    Kind::File(content) => format!("file {:?}", String::from_utf8_lossy(content)),
                    Kind::Symlink(target) => format!("link {:?}", String::from_utf8_lossy(target)),
                    Kind::Device(kind, major, minor) => format!("{kind} {major}:{minor}"),
                    Kind::Fifo => "fifo".to_owned(),
                };
                let Metadata { mode, uid, gid, mtime, xattrs } = &node.metadata;
                let line = format!("{kind} {mode:o} {uid}:{gid} {mtime} {xattrs:?}");
                found.insert(path.clone(), line);
                walk(model, member.node, &path, found);
            }
        }
        let mut found = BTreeMap::new();
        walk(self, 0, "", &mut found);
        found
    }
}

impl Kind {
    fn is_dir(&self) -> bool {
        matches!(self, Kind::Dir(_))
    }
}

fn split(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).map(<[u8]>::to_vec).collect()
}

/// Names of a member; `None` when it is outside of the archive.
fn clean(name: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    for part in split(name) {
        match part.as_slice() {
            b".." => drop(names.pop()?),
            _ => names.push(part),
        }
    }
    Some(names)
}

// The store.

fn walk_merged(
    dir: &MergedDir,
    way: &mut Vec<CString>,
    found: &mut BTreeMap<String, String>,
) -> Result<(), rustix::io::Errno> {
    for name in dir.names()? {
        way.push(name.clone());
        let path: String = way.iter().map(|name| format!("/{}", name.to_string_lossy())).collect();
        match dir.lookup(&name)? {
            Found::Dir(inner) => {
                let top = inner.top().unwrap();
                let stat = rustix::fs::fstat(top)?;
                let mut line = common("dir".to_owned(), &stat, 0o7777);
                line.push_str(&xattrs(top));
                found.insert(path, line);
                walk_merged(&inner, way, found)?;
            }
            Found::File(file) => {
                found.insert(path, file_line(&file.dir, &name, &file.stat)?);
            }
            Found::Nothing | Found::Unknown => {}
        }
        way.pop();
    }
    Ok(())
}

fn common(kind: String, stat: &Stat, mask: u32) -> String {
    format!("{kind} {:o} {}:{} {} ", stat.st_mode & mask, stat.st_uid, stat.st_gid, stat.st_mtime)
}

fn file_line(dir: &rustix::fd::OwnedFd, name: &CString, stat: &Stat) -> Result<String, rustix::io::Errno> {
    let device = |kind: char| {
        format!("{kind} {}:{}", rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
    };
    let mut attributes = "{}".to_owned();
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(dir, name, Vec::new())?;
            format!("link {:?}", target.to_string_lossy())
        }
        FileType::CharacterDevice => device('c'),
        FileType::BlockDevice => device('b'),
        FileType::Fifo => "fifo".to_owned(),
        _ => {
            let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NOFOLLOW;
            let file = rustix::fs::openat(dir, name, flags, rustix::fs::Mode::empty())?;
            attributes = xattrs(rustix::fd::AsFd::as_fd(&file));
            let mut content = String::new();
            fs::File::from(file).read_to_string(&mut content).unwrap();
            format!("file {content:?}")
        }
    };
    Ok(common(kind, stat, 0o7777) + &attributes)
}

fn xattrs(fd: rustix::fd::BorrowedFd<'_>) -> String {
    let mut value = [0u8; 16];
    let mut found: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    if let Ok(length) = rustix::fs::fgetxattr(fd, c"user.k", &mut value) {
        found.insert(b"user.k".to_vec(), value[..length].to_vec());
    }
    format!("{found:?}")
}

fn compare(expected: &BTreeMap<String, String>, found: &BTreeMap<String, String>) -> Result<(), String> {
    let paths: std::collections::BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    for path in paths {
        if expected.get(path) != found.get(path) {
            return Err(format!(
                "{path:?}: expected {:?}, found {:?}",
                expected.get(path).map(String::as_str).unwrap_or("nothing"),
                found.get(path).map(String::as_str).unwrap_or("nothing")
            ));
        }
    }
    Ok(())
}
