//! Snapshots: layers as directories, and stacks of them as mounts.
//!
//! A snapshot mounts nothing: it returns mounts as data, in the type of the OCI runtime specification, which the caller
//! mounts in the mount namespace of a container.

use super::index::{self, LayerRecord};
use super::scratch::Scratch;
use super::{Store, StoreError};
use crate::digest::DiffId;
use crate::json;
use crate::layer::{MAX_PATH, Metadata};
use crate::sys::{self, CallError, Descent, Named};
use crate::tree::merged::{Found, MergedDir};
use oci_spec::runtime::Mount;
use rustix::fd::AsFd;
use rustix::fs::{self, Mode};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::CString;
use std::path::{Path, PathBuf};

/// Name of a layer in this store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerId(String);

impl LayerId {
    pub(super) fn new(id: impl Into<String>) -> LayerId {
        LayerId(id.into())
    }

    /// Id as text, for records.
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

/// Largest number of layers in a tree. Overlayfs stacks 500 directories; two are for mount points of the container or
/// step and of the mounts of a RUN.
const MAX_STACKED: usize = 498;

/// Stacked layers, lowest first: the root file system of a step or container.
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
    /// Stack without any layers.
    pub fn empty() -> Stack {
        Stack::default()
    }

    /// Layers of the stack, lowest first.
    pub fn layers(&self) -> impl Iterator<Item = &LayerId> {
        self.layers.iter().map(|layer| &layer.id)
    }

    /// Number of layers in the stack.
    pub fn len(&self) -> usize {
        self.layers.len()
    }

    /// True when there are no layers.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// True when the root of the tree has a file or directory of that name.
    pub fn has_at_root(&self, name: &str) -> Result<bool, CallError> {
        let name = CString::new(name).unwrap_or_default();
        Ok(!matches!(self.tree()?.lookup(&name).call("stat", "/")?, Found::Nothing))
    }

    /// Directories that overlayfs stacks, highest first; empty and hidden layers are left out.
    ///
    /// Of repeated layers only the highest is included: it provides or hides all that the lower ones do, and overlayfs
    /// refuses a directory twice (`ELOOP`).
    pub fn dirs(&self) -> Vec<&Path> {
        let mut dirs = Vec::new();
        let mut seen = BTreeSet::new();
        for layer in self.layers.iter().rev() {
            if !layer.empty && seen.insert(&layer.id) {
                dirs.push(layer.path.as_path());
            }
            if layer.opaque_root {
                break;
            }
        }
        dirs
    }

    /// Checks that the stack can be mounted.
    ///
    /// # Errors
    /// [`StoreError::TooManyLayers`] when it has too many layers.
    pub fn check(&self) -> Result<(), StoreError> {
        let layers = self.dirs().len();
        if layers <= MAX_STACKED {
            return Ok(());
        }
        Err(StoreError::TooManyLayers { layers, most: MAX_STACKED })
    }

    /// Merged tree of the layers.
    pub fn tree(&self) -> Result<MergedDir, CallError> {
        let dirs: Result<_, _> = self.dirs().into_iter().map(sys::open_dir).collect();
        Ok(MergedDir::root(dirs?))
    }
}

/// Creates the writable directory `upper` of an overlay, with the owner and mode of all roots. An existing one is not
/// changed.
pub fn make_upper(upper: &Path) -> Result<(), CallError> {
    match fs::mkdir(upper, Mode::from_raw_mode(0o700)) {
        Ok(()) => set_root(upper),
        Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(errno) => Err(CallError { call: "mkdir", path: upper.to_owned(), errno }),
    }
}

fn set_root(path: &Path) -> Result<(), CallError> {
    let dir = sys::open_dir(path)?;
    crate::layer::set_owner_and_mode(dir.as_fd(), &ROOT).call("chmod", path)
}

/// Owner and mode of the root of every tree. As in the reference, neither a tar's entry for the root nor a `chmod` in a
/// step changes them for later steps.
const ROOT: Metadata = Metadata { mode: 0o755, uid: 0, gid: 0, mtime: (0, 0) };

/// A writable snapshot; removed when it is dropped before it is committed.
pub struct Active {
    scratch: Scratch,
}

impl Active {
    /// Directory that receives the changes.
    pub fn upper(&self) -> PathBuf {
        self.scratch.path().join("fs")
    }

    /// Creates an empty directory on which the caller can mount the snapshot.
    pub fn mount_point(&self) -> Result<PathBuf, CallError> {
        let path = self.scratch.path().join("root");
        match fs::mkdir(&path, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(path),
            Err(errno) => Err(CallError { call: "mkdir", path, errno }),
        }
    }

    /// Work directory of overlayfs.
    pub(super) fn work(&self) -> PathBuf {
        self.scratch.path().join("work")
    }
}

/// Whether a file system syncs its writable directory to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syncs {
    /// Never, not even for fsync(2): the directory becomes a layer or is removed.
    Never,
    /// When programs ask for it, and at unmount: the directory is mounted again later.
    Usual,
}

impl Store {
    /// Stack of an image's layers.
    ///
    /// # Errors
    /// [`StoreError::LayerMissing`] when the store does not have one of them.
    pub fn stack(&self, diff_ids: &[DiffId]) -> Result<Stack, StoreError> {
        let mut stack = Stack::empty();
        for layer in self.layers_of(diff_ids)? {
            self.push_record(&mut stack, &layer);
        }
        Ok(stack)
    }

    /// Stack of layers by their ids, lowest first.
    ///
    /// # Errors
    /// Fails when the store does not have one of them.
    pub fn stack_of(&self, layers: &[LayerId]) -> Result<Stack, StoreError> {
        let mut stack = Stack::empty();
        for id in layers {
            let layer = self.index.layer(id.as_str())?;
            let layer = layer.ok_or_else(|| StoreError::NoBlob(id.as_str().to_owned()))?;
            self.push_record(&mut stack, &layer);
        }
        Ok(stack)
    }

    /// Stack of the layers that a pin keeps (see [`Store::pin`]).
    ///
    /// # Errors
    /// Fails when there is no pin of that name, or it is damaged.
    pub fn pinned_stack(&self, name: &str) -> Result<Stack, StoreError> {
        let path = self.root.join("pins").join(name);
        let bytes = std::fs::read(&path).call("read", &path)?;
        let layers: Vec<String> = serde_json::from_slice(&bytes).map_err(|_| CallError {
            call: "read",
            path,
            errno: Errno::INVAL,
        })?;
        let layers: Vec<LayerId> = layers.into_iter().map(LayerId).collect();
        self.stack_of(&layers)
    }

    /// Stack with one more layer on top.
    pub fn stack_on(&self, below: &Stack, layer: &LayerRecord) -> Stack {
        let mut stack = below.clone();
        self.push_record(&mut stack, layer);
        stack
    }

    pub(super) fn push_record(&self, stack: &mut Stack, layer: &LayerRecord) {
        stack.layers.push(StackedLayer {
            id: layer.into(),
            path: self.layer_path(&layer.id),
            empty: layer.empty,
            opaque_root: layer.opaque_root,
        });
    }

    /// Creates a writable snapshot.
    pub fn prepare(&self) -> Result<Active, StoreError> {
        self.empty_active()
    }

    pub(super) fn empty_active(&self) -> Result<Active, StoreError> {
        let active = Active { scratch: self.scratch.dir()? };
        make_upper(&active.upper())?;
        fs::mkdir(active.work(), Mode::from_raw_mode(0o700)).call("mkdir", active.work())?;
        Ok(active)
    }

    /// Mount of `stack` with the snapshot's directory on top.
    ///
    /// `lowest` are directories below the image: their files are visible only where the image has none.
    pub fn active_mount(&self, stack: &Stack, active: &Active, lowest: &[PathBuf]) -> Mount {
        self.writable_mount(stack, (&active.upper(), &active.work()), lowest, Syncs::Never)
    }

    /// Mount of `stack` with a writable directory that belongs to the caller, and the work directory beside it.
    pub fn writable_mount(
        &self,
        stack: &Stack,
        (upper, work): (&Path, &Path),
        lowest: &[PathBuf],
        syncs: Syncs,
    ) -> Mount {
        let mut options = lower_options(stack, lowest);
        if options.is_empty() {
            options.push(lower_option(self.empty_dir()));
        }
        options.push(format!("upperdir={}", upper.display()));
        options.push(format!("workdir={}", work.display()));
        if syncs == Syncs::Never {
            options.push("volatile".to_owned());
        }
        overlay(options)
    }

    /// Read-only mount of `stack`.
    pub fn view_mount(&self, stack: &Stack, lowest: &[PathBuf]) -> Mount {
        let mut options = lower_options(stack, lowest);
        // Without an upper directory overlayfs requires two different lower ones.
        if options.is_empty() {
            options.push(lower_option(self.empty_dir_called(".none")));
        }
        if options.len() < 2 {
            options.push(lower_option(self.empty_dir()));
        }
        options.push("ro".to_owned());
        overlay(options)
    }

    /// Path of a directory without files.
    pub fn empty_tree(&self) -> PathBuf {
        self.empty_dir()
    }

    fn empty_dir(&self) -> PathBuf {
        self.empty_dir_called(".empty")
    }

    fn empty_dir_called(&self, name: &str) -> PathBuf {
        let path = self.root.join("layers").join(name);
        let _ = std::fs::create_dir(&path);
        path
    }

    /// Turns the snapshot into a layer; it must not be mounted any more.
    pub fn commit(&self, active: Active) -> Result<LayerRecord, StoreError> {
        self.commit_as(new_layer_id(), active)
    }

    /// Commits like [`Store::commit`], with an id from [`new_layer_id`].
    pub(super) fn commit_as(&self, id: String, active: Active) -> Result<LayerRecord, StoreError> {
        let size = size_below(&active.upper())?;
        // Changes of the root's owner and mode are not part of the layer.
        set_root(&active.upper())?;
        let upper = sys::open_dir(&active.upper())?;
        let empty = sys::is_empty_dir(upper.as_fd()).call("getdents", active.upper())?;
        let record = LayerRecord {
            id,
            diff_id: None,
            tar_size: None,
            size,
            empty,
            opaque_root: false,
            blob: None,
            created: index::now(),
            boot: Some(self.boot.clone()),
            below: None,
        };
        self.keep_layer(active, record)
    }

    /// Moves a complete layer to its final path, with the id of the record, or a new one if that is empty.
    pub(super) fn keep_layer(&self, active: Active, record: LayerRecord) -> Result<LayerRecord, StoreError> {
        sys::remove_path(&active.work())?;
        sys::remove_path(&active.scratch.path().join("root"))?;
        let id = if record.id.is_empty() { new_layer_id() } else { record.id };
        let record = LayerRecord { id, ..record };
        let dir = self.root.join("layers").join(&record.id);
        std::fs::write(active.scratch.path().join("layer.json"), json::to_vec(&record))
            .call("write", active.scratch.path())?;
        active.scratch.move_to(&dir)?;
        self.record_change();
        self.index.put_layer(&record)?;
        Ok(record)
    }
}

fn lower_options(stack: &Stack, lowest: &[PathBuf]) -> Vec<String> {
    let lowest = lowest.iter().map(PathBuf::as_path);
    stack.dirs().into_iter().chain(lowest).map(lower_option).collect()
}

fn lower_option(path: impl AsRef<Path>) -> String {
    format!("lowerdir+={}", path.as_ref().display())
}

fn overlay(mut options: Vec<String>) -> Mount {
    // A layer must not depend on features of one mount that other mounts of it would have to know.
    options.extend(["redirect_dir=off", "metacopy=off", "index=off"].map(str::to_owned));
    let mut mount = Mount::default();
    mount
        .set_destination(PathBuf::from("/"))
        .set_typ(Some("overlay".to_owned()))
        .set_source(Some(PathBuf::from("overlay")))
        .set_options(Some(options));
    mount
}

/// Size of all regular files below a directory in bytes, each file counted once. Files that are removed meanwhile do not
/// count.
///
/// # Errors
/// Fails when a directory cannot be read, or a path is longer than programs can name.
pub fn size_below(path: &Path) -> Result<u64, CallError> {
    /// `length` is that of the path so far, in bytes.
    fn walk(
        way: &mut Descent,
        shown: &Path,
        linked: &mut BTreeSet<u64>,
        length: usize,
    ) -> Result<u64, CallError> {
        if length > MAX_PATH {
            return Err(CallError { call: "open", path: shown.to_owned(), errno: Errno::NAMETOOLONG });
        }
        let mut size = 0;
        for name in sys::names_if_any(way.here()).call("getdents", shown)? {
            let Some(stat) = sys::stat_at(way.here(), &name).call("stat", shown)? else { continue };
            size += match sys::file_type(&stat) {
                fs::FileType::Directory => {
                    match way.enter(&name) {
                        Err(Errno::NOENT) => continue,
                        entered => entered.call("open", shown)?,
                    }
                    let inner = walk(way, shown, linked, length + 1 + name.as_bytes().len())?;
                    way.leave().call("open", shown)?;
                    inner
                }
                fs::FileType::RegularFile if stat.st_nlink > 1 && !linked.insert(stat.st_ino) => 0,
                fs::FileType::RegularFile | fs::FileType::Symlink => stat.st_size as u64,
                _ => 0,
            };
        }
        Ok(size)
    }
    walk(&mut Descent::new(sys::open_dir(path)?), path, &mut BTreeSet::new(), 0)
}

/// Random id for a layer, unique also among the stores of other hosts.
pub(super) fn new_layer_id() -> String {
    let mut bytes = [0u8; 16];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    assert_eq!(filled, Ok(bytes.len()), "the kernel gives sixteen random bytes at once");
    crate::digest::hex(&bytes)
}
