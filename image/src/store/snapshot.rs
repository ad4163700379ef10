//! Layers as folders, and stacks of them as mounts.
//!
//! A snapshot mounts nothing: it returns mounts as data, in the OCI runtime specification's own type, and
//! whoever runs something carries them out in a mount namespace of its own.

use super::index::{self, LayerRecord};
use super::scratch::Scratch;
use super::{Store, StoreError};
use crate::digest::DiffId;
use crate::json;
use crate::layer::{Applied, LayerWriter};
use crate::sys::{self, CallError, Named};
use oci_spec::runtime::Mount;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, AtFlags, Mode};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Name of a layer in this store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerId(String);

impl LayerId {
    pub(super) fn new(id: impl Into<String>) -> LayerId {
        LayerId(id.into())
    }

    /// As text, for records.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&LayerRecord> for LayerId {
    fn from(layer: &LayerRecord) -> LayerId {
        LayerId(layer.id.clone())
    }
}

impl From<&str> for LayerId {
    fn from(id: &str) -> LayerId {
        LayerId(id.to_owned())
    }
}

/// Layers stacked on each other, lowest first: the tree that a step or container starts from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stack {
    layers: Vec<StackedLayer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct StackedLayer {
    id: LayerId,
    path: PathBuf,
    empty: bool,
    opaque_root: bool,
}

impl Stack {
    /// The tree without any files.
    pub fn empty() -> Stack {
        Stack::default()
    }

    /// The layers, lowest first.
    pub fn layers(&self) -> impl Iterator<Item = &LayerId> {
        self.layers.iter().map(|layer| &layer.id)
    }

    /// How many layers there are.
    pub fn len(&self) -> usize {
        self.layers.len()
    }

    /// True when there are no layers.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// True when the tree's root has something of that name.
    pub fn has_at_root(&self, name: &str) -> Result<bool, CallError> {
        for folder in self.folders() {
            let path = folder.join(name);
            match fs::lstat(&path) {
                Ok(stat) => return Ok(!sys::is_whiteout(&stat)),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(CallError { call: "stat", path, errno }),
            }
        }
        Ok(false)
    }

    /// The folders that overlayfs stacks, highest first; empty layers and hidden ones are left out.
    pub fn folders(&self) -> Vec<&Path> {
        let mut folders = Vec::new();
        for layer in self.layers.iter().rev() {
            if !layer.empty {
                folders.push(layer.path.as_path());
            }
            if layer.opaque_root {
                break;
            }
        }
        folders
    }
}

/// A snapshot being written; gone when it is dropped, unless it is committed.
pub struct Active {
    scratch: Scratch,
}

impl Active {
    /// The folder that takes the changes.
    pub fn upper(&self) -> PathBuf {
        self.scratch.path().join("fs")
    }

    /// An empty folder for whoever mounts the snapshot.
    pub fn mount_point(&self) -> Result<PathBuf, CallError> {
        let path = self.scratch.path().join("root");
        match fs::mkdir(&path, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(path),
            Err(errno) => Err(CallError { call: "mkdir", path, errno }),
        }
    }

    /// The folder that overlayfs works in.
    fn work(&self) -> PathBuf {
        self.scratch.path().join("work")
    }
}

impl Store {
    /// The stack of an image's layers.
    pub fn stack(&self, diff_ids: &[DiffId]) -> Result<Stack, StoreError> {
        let mut stack = Stack::empty();
        for diff_id in diff_ids {
            let layer = self.layer_of(diff_id)?;
            self.push_record(&mut stack, &layer);
        }
        Ok(stack)
    }

    /// A stack with one more layer on top.
    pub fn stack_on(&self, below: &Stack, layer: &LayerRecord) -> Stack {
        let mut stack = below.clone();
        self.push_record(&mut stack, layer);
        stack
    }

    fn push_record(&self, stack: &mut Stack, layer: &LayerRecord) {
        stack.layers.push(StackedLayer {
            id: layer.into(),
            path: self.layer_path(&layer.id),
            empty: layer.empty,
            opaque_root: layer.opaque_root,
        });
    }

    /// Begins a snapshot on top of `stack`.
    ///
    /// Its root folder has the owner and mode of the tree's root: overlayfs shows the topmost one.
    pub fn prepare(&self, stack: &Stack) -> Result<Active, StoreError> {
        let active = self.empty_active()?;
        if let Some(top) = stack.folders().first() {
            let stat = fs::stat(*top).call("stat", top)?;
            let upper = active.upper();
            fs::chown(&upper, Some(fs::Uid::from_raw(stat.st_uid)), Some(fs::Gid::from_raw(stat.st_gid)))
                .call("chown", &upper)?;
            fs::chmod(&upper, Mode::from_raw_mode(stat.st_mode & 0o7777)).call("chmod", &upper)?;
        }
        Ok(active)
    }

    pub(super) fn empty_active(&self) -> Result<Active, StoreError> {
        let active = Active { scratch: self.scratch.folder()? };
        for (path, mode) in [(active.upper(), 0o755), (active.work(), 0o700)] {
            fs::mkdir(&path, Mode::from_raw_mode(mode)).call("mkdir", &path)?;
        }
        fs::chmod(active.upper(), Mode::from_raw_mode(0o755)).call("chmod", active.upper())?;
        Ok(active)
    }

    /// The mount that shows `stack` with the snapshot's changes on top.
    ///
    /// `lowest` are folders below the image: what they hold shows only where the image has nothing.
    pub fn active_mount(&self, stack: &Stack, active: &Active, lowest: &[PathBuf]) -> Mount {
        self.writable_mount(stack, &active.upper(), &active.work(), lowest)
    }

    /// Like [`Store::active_mount`], for a writable folder that someone else keeps.
    pub fn writable_mount(&self, stack: &Stack, upper: &Path, work: &Path, lowest: &[PathBuf]) -> Mount {
        let mut options = lower_options(stack, lowest);
        if options.is_empty() {
            options.push(lower_option(self.empty_folder()));
        }
        options.push(format!("upperdir={}", upper.display()));
        options.push(format!("workdir={}", work.display()));
        // The upper folder becomes a layer, or goes: syncing it to disk at unmount serves nobody.
        options.push("volatile".to_owned());
        overlay(options)
    }

    /// The mount that shows `stack` read-only.
    pub fn view_mount(&self, stack: &Stack, lowest: &[PathBuf]) -> Mount {
        let mut options = lower_options(stack, lowest);
        // Without an upper folder overlayfs wants two lower ones, and not the same twice.
        if options.is_empty() {
            options.push(lower_option(self.empty_folder_called(".none")));
        }
        if options.len() < 2 {
            options.push(lower_option(self.empty_folder()));
        }
        options.push("ro".to_owned());
        overlay(options)
    }

    /// A folder without files.
    pub fn empty_tree(&self) -> PathBuf {
        self.empty_folder()
    }

    fn empty_folder(&self) -> PathBuf {
        self.empty_folder_called(".empty")
    }

    fn empty_folder_called(&self, name: &str) -> PathBuf {
        let path = self.root.join("layers").join(name);
        let _ = std::fs::create_dir(&path);
        path
    }

    /// Makes the snapshot a layer. Nothing may be mounted on it any more.
    pub fn commit(&self, active: Active) -> Result<LayerRecord, StoreError> {
        let size = size_below(&active.upper())?;
        let empty = std::fs::read_dir(active.upper()).call("getdents", active.upper())?.next().is_none();
        let record = LayerRecord {
            id: String::new(),
            diff_id: None,
            tar_size: None,
            size,
            empty,
            opaque_root: false,
            blob: None,
            created: index::now(),
            boot: Some(self.boot.clone()),
        };
        self.keep_layer(active, record)
    }

    /// Gives a complete layer its name.
    pub(super) fn keep_layer(&self, active: Active, record: LayerRecord) -> Result<LayerRecord, StoreError> {
        sys::remove_path(&active.work())?;
        sys::remove_path(&active.scratch.path().join("root"))?;
        let record = LayerRecord { id: new_layer_id(), ..record };
        let folder = self.root.join("layers").join(&record.id);
        std::fs::write(active.scratch.path().join("layer.json"), json::to_vec(&record))
            .call("write", active.scratch.path())?;
        active.scratch.move_to(&folder)?;
        self.index.put_layer(&record)?;
        Ok(record)
    }

    /// Settles what a tar left to the layers below it: metadata of folders it did not name, and hard links
    /// to files it did not hold.
    pub(super) fn settle(
        &self,
        active: &Active,
        applied: &Applied,
        diff_id: &DiffId,
        below: &[DiffId],
    ) -> Result<(), StoreError> {
        if applied.implied.is_empty() && applied.missing_links.is_empty() {
            return Ok(());
        }
        let stack = self.stack(below)?;
        let upper = sys::open_dir(&active.upper())?;
        for path in &applied.implied {
            match find_below(&stack, path)? {
                None => {}
                Some(lower) => adopt_folder(&upper, path, &lower, diff_id)?,
            }
        }
        for (link, target) in &applied.missing_links {
            let lower = find_below(&stack, target)?;
            let Some(lower) = lower else {
                let errno = rustix::io::Errno::NOENT;
                return Err(CallError { call: "link", path: target.clone(), errno }.into());
            };
            copy_below(&active.upper(), link, &lower)?;
        }
        Ok(())
    }
}

/// Where the topmost layer has `path`; `None` when no layer has it or it was deleted.
fn find_below(stack: &Stack, path: &Path) -> Result<Option<PathBuf>, CallError> {
    for folder in stack.folders() {
        let candidate = folder.join(path);
        match fs::lstat(&candidate) {
            Ok(stat) if sys::is_whiteout(&stat) => return Ok(None),
            Ok(_) => return Ok(Some(candidate)),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {}
            Err(errno) => return Err(CallError { call: "stat", path: candidate, errno }),
        }
    }
    Ok(None)
}

fn adopt_folder(upper: &OwnedFd, path: &Path, lower: &Path, diff_id: &DiffId) -> Result<(), StoreError> {
    let stat = fs::lstat(lower).call("stat", lower)?;
    if sys::file_type(&stat) != fs::FileType::Directory {
        return Err(StoreError::ImpliedFolder(diff_id.clone(), path.to_owned()));
    }
    let name = CString::new(path.as_os_str().as_bytes()).expect("paths of a tar hold no NUL");
    sys::chown_at(upper.as_fd(), &name, stat.st_uid, stat.st_gid).call("chown", path)?;
    sys::chmod_at(upper.as_fd(), &name, stat.st_mode).call("chmod", path)?;
    let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    sys::set_mtime_at(upper.as_fd(), &name, stat.st_mtime, nanos).call("utimensat", path)?;
    Ok(())
}

/// Copies a file of a lower layer, as overlayfs does when it is linked to.
fn copy_below(upper: &Path, link: &Path, lower: &Path) -> Result<(), StoreError> {
    let folder = lower.parent().unwrap_or(Path::new("/"));
    let source = sys::open_dir(folder)?;
    let name = lower.file_name().unwrap_or_default().as_bytes();
    let name = CString::new(name).expect("paths of a tar hold no NUL");
    let mut writer = LayerWriter::new(upper, None)?;
    let parent = link.parent().unwrap_or(Path::new("/"));
    let keep = |metadata, _| metadata;
    let made = writer.copy(&crate::layer::CopyRequest {
        source: source.as_fd(),
        name: &name,
        base: link.file_name().unwrap_or_default().as_bytes(),
        destination: parent.as_os_str().as_bytes(),
        folders: crate::layer::Metadata { mode: 0o755, uid: 0, gid: 0, mtime: (0, 0) },
        selection: &crate::layer::Everything,
        change: &keep,
    });
    made.map_err(|error| match error {
        crate::layer::WriteError::Call(call) => StoreError::Call(call),
        other => StoreError::Call(CallError {
            call: "link",
            path: PathBuf::from(other.to_string()),
            errno: rustix::io::Errno::NOTDIR,
        }),
    })?;
    Ok(writer.finish()?)
}

fn lower_options(stack: &Stack, lowest: &[PathBuf]) -> Vec<String> {
    let lowest = lowest.iter().map(PathBuf::as_path);
    stack.folders().into_iter().chain(lowest).map(lower_option).collect()
}

fn lower_option(path: impl AsRef<Path>) -> String {
    format!("lowerdir+={}", path.as_ref().display())
}

fn overlay(mut options: Vec<String>) -> Mount {
    // A layer must not depend on features that other overlay mounts of it would need to know.
    options.extend(["redirect_dir=off", "metacopy=off", "index=off"].map(str::to_owned));
    let mut mount = Mount::default();
    mount
        .set_destination(PathBuf::from("/"))
        .set_typ(Some("overlay".to_owned()))
        .set_source(Some(PathBuf::from("overlay")))
        .set_options(Some(options));
    mount
}

/// Bytes of all regular files below a folder, each counted once.
fn size_below(path: &Path) -> Result<u64, CallError> {
    fn walk(
        dir: rustix::fd::BorrowedFd<'_>,
        shown: &Path,
        linked: &mut BTreeSet<u64>,
    ) -> Result<u64, CallError> {
        let mut size = 0;
        for name in sys::sorted_names(dir).call("getdents", shown)? {
            let stat = fs::statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW).call("stat", shown)?;
            size += match sys::file_type(&stat) {
                fs::FileType::Directory => {
                    let inner = sys::open_dir_at(dir, &name).call("open", shown)?;
                    walk(inner.as_fd(), shown, linked)?
                }
                fs::FileType::RegularFile if stat.st_nlink > 1 && !linked.insert(stat.st_ino) => 0,
                fs::FileType::RegularFile | fs::FileType::Symlink => stat.st_size as u64,
                _ => 0,
            };
        }
        Ok(size)
    }
    walk(sys::open_dir(path)?.as_fd(), path, &mut BTreeSet::new())
}

/// A name that no layer has had or will have: random, since other machines' stores may be merged in.
fn new_layer_id() -> String {
    let mut bytes = [0u8; 16];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    assert_eq!(filled, Ok(bytes.len()), "the kernel gives sixteen random bytes at once");
    crate::digest::hex(&bytes)
}
