//! The store: all persistent data of Kiln, shared by concurrent processes.
//!
//! ```text
//! oci-layout, index.json   make the blobs an OCI layout for other tools
//! blobs/sha256/…           manifests, configs, compressed layers as pulled
//! layers/ID/fs             a layer as a directory that overlayfs can stack
//! layers/ID/layer.json     its record, as in the index
//! containers/ID            records and writable layers of containers (see `kiln_engine`)
//! pins/NAME                layers that the container of that name uses
//! caches/HASH              directories of RUN --mount=type=cache (see `cache`)
//! cache/NAME               data that can be recomputed
//! work/                    files and directories of running processes (see `scratch`)
//! locks/                   one file for each exclusive operation
//! index.db                 the index (see `index`)
//! reserve                  space that a removal on a full disk may use (see `recover`)
//! ```
//!
//! Blobs, `layer.json` and `index.json` describe themselves; the database is an index over them, which is rebuilt when it is
//! missing or damaged. A layer or blob is complete when it has its name. Layers are not flushed to disk one by one: in the first
//! use after a boot, those that were written after the last sync are compared with their diff ids (see `recover`).

mod cache;
mod check;
mod content;
mod discard;
mod gc;
mod index;
mod layout;
mod lock;
mod pin;
mod recover;
mod rewrite;
mod scratch;
mod snapshot;

pub use cache::{CacheAccess, CacheDir};
pub use check::{Checked, Problem};
pub use content::{BlobError, BlobWriter, Blobs, MAX_METADATA};
pub use discard::PrivateLayers;
pub use gc::{Removed, Usage};
pub use index::saw_damage;
pub use index::{ImageRecord, IndexError, LayerRecord, StepRecord, TagRecord};
pub use lock::StoreLock;
pub use pin::remove_pin;
pub use recover::sync_in_background;
pub use snapshot::{Active, LayerId, Stack, Syncs, make_upper};

use crate::compression;
use crate::config::ImageConfig;
use crate::digest::{Algorithm, BackgroundHasher, DiffId, Digest, Hashing, ImageId};
use crate::json;
use crate::layer::{self, ApplyError, Below, DiffError};
use crate::manifest::{Manifest, ManifestError, ManifestOrIndex};
use crate::reference::{Reference, ReferenceError};
use crate::sys::{self, CallError, Named};
use index::Index;
use rustix::fd::AsFd;
use scratch::ScratchArea;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// Failure of an operation on the store.
///
/// Every operation may fail with the errors of system calls and of the index; their `# Errors` list the others.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory cannot be created or opened.
    #[error("cannot open the store `{path}`", path = .0.display())]
    Open(PathBuf, #[source] CallError),
    /// A system call failed.
    #[error("cannot access the store")]
    Call(#[from] CallError),
    /// An operation of the index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A blob cannot be read or stored.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A layer cannot be unpacked.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A layer cannot be packed.
    #[error(transparent)]
    Diff(#[from] DiffError),
    /// A config is not JSON of the expected shape.
    #[error("image {0} has a malformed config")]
    Config(ImageId, #[source] serde_json::Error),
    /// A manifest is not JSON of the expected shape.
    #[error("image {0} has a malformed manifest")]
    Manifest(ImageId, #[source] ManifestError),
    /// There is no image with that reference or id.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// The image to be removed has several tags.
    #[error("image {0} has several tags")]
    ManyTags(ImageId),
    /// The image has more layers than overlayfs can stack.
    #[error("the image has {layers} layers with files, and Linux stacks {most} of them at most (overlayfs)")]
    TooManyLayers {
        /// Number of layers with files.
        layers: usize,
        /// Largest number of layers.
        most: usize,
    },
    /// Several images have ids that begin with these digits.
    #[error("image id `{0}` is ambiguous: more than one image begins with it")]
    Ambiguous(String),
    /// A text is not a reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The content of a layer has another digest.
    #[error("layer does not match its digest: expected {expected}, got {actual}")]
    DiffIdMismatch {
        /// Diff id in the image's config.
        expected: DiffId,
        /// Diff id of the unpacked tar.
        actual: DiffId,
    },
    /// The bytes of a blob have changed since it was stored.
    #[error("blob {0} in the store is damaged: its bytes have changed since it was stored")]
    Damaged(Digest),
    /// A layer of an image was removed or damaged.
    #[error("layer {0} is missing from the store")]
    LayerMissing(DiffId),
    /// The layer was created here and has no blob.
    #[error("layer {0} was built here and has no blob")]
    NoBlob(String),
}

impl StoreError {
    /// True when this process, or the host, has too many open files.
    pub fn is_out_of_files(&self) -> bool {
        let mut error: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(at) = error {
            if let Some(call) = at.downcast_ref::<CallError>() {
                return matches!(call.errno, rustix::io::Errno::MFILE | rustix::io::Errno::NFILE);
            }
            error = at.source();
        }
        false
    }

    /// True when the disk is full.
    pub fn is_full(&self) -> bool {
        match self {
            StoreError::Open(_, error) | StoreError::Call(error) => error.is_full(),
            StoreError::Index(error) => error.is_full(),
            StoreError::Apply(error) => error.is_full(),
            StoreError::Diff(DiffError::Call(error)) => error.is_full(),
            StoreError::Blob(BlobError::Call(error)) => error.is_full(),
            _ => false,
        }
    }
}

/// An open store; shared by threads.
pub struct Store {
    root: PathBuf,
    index: Index,
    blobs: Blobs,
    scratch: ScratchArea,
    boot: String,
    /// Whether data was written that a power cut could lose.
    changed: AtomicBool,
    /// Number of pins written, less those released: a container that was created and removed leaves nothing to sync.
    pins: AtomicI64,
    after: Option<AfterChange>,
}

/// Callback with the store's directory, run when a modified store is closed.
pub type AfterChange = Box<dyn Fn(&Path) + Send + Sync>;

impl Drop for Store {
    fn drop(&mut self) {
        let has_changed = self.changed.load(Ordering::Relaxed) || self.pins.load(Ordering::Relaxed) != 0;
        if has_changed && let Some(after) = &self.after {
            after(&self.root);
        }
    }
}

/// A directory for temporary files of this process; removed when it is dropped, or after the process ended.
pub struct ScratchDir {
    scratch: scratch::Scratch,
}

impl ScratchDir {
    /// Creates a directory in `area`, which is outside of stores and not accessible to other users.
    pub fn elsewhere(area: &Path) -> Result<ScratchDir, CallError> {
        make_dir(area)?;
        restrict_to_owner(area)?;
        Ok(ScratchDir { scratch: ScratchArea::new(area.to_owned()).dir()? })
    }

    /// Removes directories of ended processes in `area`, if that exists.
    pub fn remove_orphans(area: &Path) -> Result<(), CallError> {
        match ScratchArea::new(area.to_owned()).remove_orphans(&|_| {}) {
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        }
    }

    /// Path of the directory.
    pub fn path(&self) -> &Path {
        self.scratch.path()
    }
}

/// An unpacked layer that is not in the store yet; removed when it is dropped.
pub struct Unpacked {
    active: Active,
    diff_id: DiffId,
    record: LayerRecord,
}

impl Unpacked {
    /// Digest of the layer's tar.
    pub fn diff_id(&self) -> &DiffId {
        &self.diff_id
    }
}

/// An image with its config.
#[derive(Clone, Debug)]
pub struct Image {
    /// Record of the image in the index.
    pub record: ImageRecord,
    /// Config of the image.
    pub config: ImageConfig,
}

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

impl Store {
    /// Opens the store in the directory `root`, which is created when it is missing.
    ///
    /// # Errors
    /// [`StoreError::Open`] when the directory cannot be created or opened, [`IndexError::TooNew`] for a store of a
    /// newer version.
    pub fn open(root: &Path) -> Result<Store, StoreError> {
        let open = |error| StoreError::Open(root.to_owned(), error);
        let fresh = !root.join("oci-layout").exists();
        for dir in ["blobs/sha256", "layers", "work", "locks", "pins", "cache", "caches", "containers"] {
            let path = root.join(dir);
            if fresh || !path.exists() {
                make_dir(&path).map_err(open)?;
            }
        }
        for name in RESTRICTED {
            restrict_to_owner(&root.join(name)).map_err(open)?;
        }
        let (index, is_new) = Store::open_index(root)?;
        let scratch = ScratchArea::new(root.join("work"));
        let blobs = Blobs::new(root.join("blobs"), scratch.clone());
        let boot = fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
        let changed = AtomicBool::new(false);
        let pins = AtomicI64::new(0);
        let store = Store { root: root.to_owned(), index, blobs, scratch, boot, changed, pins, after: None };
        if fresh {
            store.replace_file("oci-layout", OCI_LAYOUT)?;
        }
        store.scratch.remove_orphans(&|orphan| store.discard_private(orphan))?;
        store.recover(is_new)?;
        store.keep_reserve();
        Ok(store)
    }

    /// Sets the callback for closing the store after a modification that a power cut could lose.
    pub fn on_change(&mut self, after: AfterChange) {
        self.after = Some(after);
    }

    pub(in crate::store) fn record_change(&self) {
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Directory of the store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Content store with the blobs.
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// Creates a directory for temporary files of this process.
    pub fn scratch_dir(&self) -> Result<ScratchDir, StoreError> {
        Ok(ScratchDir { scratch: self.scratch.dir()? })
    }

    /// Reads cached data; `None` when there is none of that name.
    pub fn read_cache(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.root.join("cache").join(name)).ok()
    }

    /// Stores data that can be recomputed.
    pub fn put_cache(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.replace_file(&format!("cache/{name}"), bytes)
    }

    /// Pins the layers of `stack`: they are not removed until [`Store::unpin`] is called with the same `name`.
    pub fn pin(&self, name: &str, stack: &Stack) -> Result<(), StoreError> {
        let layers: Vec<&str> = stack.layers().map(LayerId::as_str).collect();
        self.pins.fetch_add(1, Ordering::Relaxed);
        self.replace_file(&format!("pins/{name}"), &json::to_vec(&layers))
    }

    /// Releases a pin, if there is one of that name.
    pub fn unpin(&self, name: &str) -> Result<(), StoreError> {
        self.pins.fetch_sub(1, Ordering::Relaxed);
        Ok(sys::remove_path(&self.root.join("pins").join(name))?)
    }

    /// Layers pinned by containers; `None` when a damaged pin could refer to any layer.
    fn pinned_layers(&self) -> Result<Option<BTreeSet<String>>, StoreError> {
        let dir = self.root.join("pins");
        let mut pinned = BTreeSet::new();
        for entry in fs::read_dir(&dir).call("getdents", &dir)? {
            let path = entry.call("getdents", &dir)?.path();
            if !path.is_file() {
                continue;
            }
            let bytes = match fs::read(&path) {
                // The pin was released meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                bytes => bytes.call("read", &path)?,
            };
            let Ok(layers) = serde_json::from_slice::<Vec<String>>(&bytes) else { return Ok(None) };
            pinned.extend(layers);
        }
        Ok(Some(pinned))
    }

    // Images.

    /// Stores an image whose layers are in the store; returns its id.
    ///
    /// The bytes of `manifest` and `config` are stored unchanged.
    ///
    /// # Errors
    /// Fails when a layer is missing, the config is malformed, or writing fails.
    pub fn put_image(&self, manifest: &[u8], media_type: &str, config: &[u8]) -> Result<ImageId, StoreError> {
        let id = ImageId(self.blobs.put(config)?);
        let parsed = ImageConfig::parse(config).map_err(|error| StoreError::Config(id.clone(), error))?;
        let mut size = 0;
        let mut stack = Stack::empty();
        for layer in self.layers_of(&parsed.rootfs.diff_ids)? {
            size += layer.size;
            self.push_record(&mut stack, &layer);
        }
        stack.check()?;
        let record = ImageRecord {
            id: id.clone(),
            manifest: self.blobs.put(manifest)?,
            media_type: media_type.to_owned(),
            created: parsed.created.clone().unwrap_or_default(),
            size,
        };
        self.record_change();
        self.index.put_image(&record, &parsed.rootfs.diff_ids)?;
        Ok(id)
    }

    /// Points `reference` to an image; the image that it referred to before is not removed.
    ///
    /// # Errors
    /// [`StoreError::NoSuchImage`] when the image was removed, otherwise failures of the index.
    pub fn tag(&self, reference: &Reference, image: &ImageId) -> Result<(), StoreError> {
        let reference = reference.with_tag(reference.tag().unwrap_or("latest"));
        self.record_change();
        if !self.index.set_tag(&reference.to_string(), image, index::now())? {
            return Err(StoreError::NoSuchImage(image.to_string()));
        }
        self.write_layout_index()
    }

    /// Removes a tag and nothing else.
    pub fn untag(&self, reference: &str) -> Result<(), StoreError> {
        self.record_change();
        self.making_room(|| Ok(self.index.remove_tag(reference)?))?;
        self.making_room(|| self.write_layout_index())
    }

    /// Records the digest of an image in a registry's repository.
    pub fn add_repo_digest(
        &self,
        image: &ImageId,
        repository: &str,
        digest: &Digest,
    ) -> Result<(), StoreError> {
        Ok(self.index.add_repo_digest(image, repository, digest)?)
    }

    /// Digests of an image in registries, as pairs of repository and digest.
    pub fn repo_digests(&self, image: &ImageId) -> Result<Vec<(String, Digest)>, StoreError> {
        Ok(self.index.repo_digests(image)?)
    }

    /// Image that a reference refers to; `None` when the store does not have it.
    pub fn find(&self, reference: &Reference) -> Result<Option<ImageRecord>, StoreError> {
        let id = match reference.digest() {
            Some(digest) => self.index.image_by_repo_digest(&reference.repository(), digest)?,
            None => self.index.tag(&reference.clone().or_latest().to_string())?,
        };
        match id {
            Some(id) => Ok(self.index.image(&id)?),
            None => Ok(None),
        }
    }

    /// Image by a reference, an id or the beginning of an id.
    ///
    /// # Errors
    /// [`StoreError::NoSuchImage`] or [`StoreError::Ambiguous`].
    pub fn resolve(&self, name: &str) -> Result<ImageRecord, StoreError> {
        let missing = || StoreError::NoSuchImage(name.to_owned());
        let parsed = name.parse::<Reference>();
        if let Ok(reference) = &parsed
            && let Some(image) = self.find(reference)?
        {
            return Ok(image);
        }
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        let is_hex =
            !hex.is_empty() && hex.len() <= 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if is_hex {
            let mut found = self.index.images_with_prefix(hex)?;
            return match found.len() {
                0 => Err(missing_reference(parsed, name)),
                1 => found.pop().ok_or_else(missing),
                _ => Err(StoreError::Ambiguous(name.to_owned())),
            };
        }
        match parsed {
            Ok(_) => Err(missing_reference(parsed, name)),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads an image's config.
    ///
    /// # Errors
    /// Fails when the blob is missing, damaged or malformed.
    pub fn read_image(&self, record: ImageRecord) -> Result<Image, StoreError> {
        let bytes = self.blobs.read(&record.id.0)?;
        let config =
            ImageConfig::parse(&bytes).map_err(|error| StoreError::Config(record.id.clone(), error))?;
        Ok(Image { record, config })
    }

    /// Reads an image's manifest.
    ///
    /// # Errors
    /// Fails when the blob is missing, damaged or malformed.
    pub fn read_manifest(&self, record: &ImageRecord) -> Result<Manifest, StoreError> {
        let bytes = self.blobs.read(&record.manifest)?;
        let fail = |error| StoreError::Manifest(record.id.clone(), error);
        match ManifestOrIndex::parse(&bytes, Some(&record.media_type)).map_err(fail)? {
            ManifestOrIndex::Manifest(manifest) => Ok(*manifest),
            ManifestOrIndex::Index(_) => Err(fail(ManifestError::MediaType(record.media_type.clone()))),
        }
    }

    /// All images, in no particular order.
    pub fn images(&self) -> Result<Vec<ImageRecord>, StoreError> {
        Ok(self.index.images()?)
    }

    /// All tags, sorted by reference.
    pub fn tags(&self) -> Result<Vec<TagRecord>, StoreError> {
        Ok(self.index.tags()?)
    }

    fn replace_file(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let (scratch, mut file) = self.scratch.file()?;
        file.write_all(bytes).call("write", scratch.path())?;
        Ok(scratch.move_to(&self.root.join(name))?)
    }

    // Layers.

    /// Layers of an image, lowest first.
    ///
    /// # Errors
    /// [`StoreError::LayerMissing`] when the store does not have one of them.
    pub fn layers_of(&self, diff_ids: &[DiffId]) -> Result<Vec<LayerRecord>, StoreError> {
        (0..diff_ids.len()).map(|at| self.layer_of(&diff_ids[at], &diff_ids[..at])).collect()
    }

    /// Layer with a diff id above the layers `below`; unpacked again from its blob if necessary.
    ///
    /// # Errors
    /// [`StoreError::LayerMissing`] when the store has neither the layer nor its blob.
    pub fn layer_of(&self, diff_id: &DiffId, below: &[DiffId]) -> Result<LayerRecord, StoreError> {
        if let Some(layer) = self.find_layer(diff_id, below)? {
            return Ok(layer);
        }
        self.revive(diff_id, below)?.ok_or_else(|| StoreError::LayerMissing(diff_id.clone()))
    }

    /// Layer with a diff id above the layers `below` (diff ids, lowest first); `None` when it is missing or damaged.
    pub fn find_layer(&self, diff_id: &DiffId, below: &[DiffId]) -> Result<Option<LayerRecord>, StoreError> {
        for layer in self.index.layers_of_diff_id(diff_id)? {
            let fits = layer.below.as_ref().is_none_or(|own| own == below);
            if fits && let Some(layer) = self.sound(layer, below)? {
                return Ok(Some(layer));
            }
        }
        Ok(None)
    }

    /// Layer by its id, as cache records name it; `None` when it was removed or is damaged.
    pub fn layer(&self, id: &LayerId) -> Result<Option<LayerRecord>, StoreError> {
        let Some(layer) = self.index.layer(id.as_str())? else { return Ok(None) };
        let below = layer.below.clone().unwrap_or_default();
        self.sound(layer, &below)
    }

    /// Verifies a layer that may not have been on disk when the host went down; a damaged one is unpacked again, or
    /// removed.
    fn sound(&self, layer: LayerRecord, below: &[DiffId]) -> Result<Option<LayerRecord>, StoreError> {
        let path = self.layer_path(&layer.id);
        let is_known = |layer: &LayerRecord| {
            layer.boot.as_ref().is_none_or(|boot| !boot.is_empty() && *boot == self.boot)
        };
        if path.is_dir() && is_known(&layer) {
            return Ok(Some(layer));
        }
        // One process verifies; the lock keeps others from removing files that were just verified.
        let _lock = self.lock(&format!("check-{}", layer.id), || {})?;
        let layer = match self.index.layer(&layer.id)? {
            Some(now) if path.is_dir() && is_known(&now) => return Ok(Some(now)),
            Some(now) => now,
            None => return Ok(None),
        };
        if path.is_dir() && layer.below.is_none() {
            let (actual, _) = pack(&path)?;
            if layer.diff_id.as_ref().is_some_and(|expected| *expected == actual) {
                let layer = LayerRecord { boot: None, ..layer };
                self.index.put_layer(&layer)?;
                return Ok(Some(layer));
            }
        }
        match self.unpack_again(&layer, below) {
            Ok(layer) => return Ok(Some(layer)),
            // These errors do not mean that the layer is damaged.
            Err(error) if error.is_full() || error.is_out_of_files() => return Err(error),
            Err(_) => {}
        }
        self.discard(&self.root.join("layers").join(&layer.id))?;
        self.index.remove_layer(&layer.id)?;
        Ok(None)
    }

    /// Replaces a layer's files by the content of its blob.
    ///
    /// The packer does not reproduce layers from other tools byte for byte, so after a crash their files cannot be
    /// verified.
    fn unpack_again(&self, layer: &LayerRecord, below: &[DiffId]) -> Result<LayerRecord, StoreError> {
        let Some(diff_id) = &layer.diff_id else { return Err(StoreError::NoBlob(layer.id.clone())) };
        let unpacked = self.unpack(self.blob_tar(layer)?, diff_id, below)?;
        let Unpacked { active, record, .. } = unpacked;
        let layer = LayerRecord {
            id: layer.id.clone(),
            blob: layer.blob.clone(),
            created: layer.created,
            // The new files are not on disk yet, either.
            ..record
        };
        let old = self.scratch.dir()?;
        let files = self.layer_path(&layer.id);
        make_dir(&self.root.join("layers").join(&layer.id))?;
        match fs::rename(&files, old.path().join("fs")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).call("rename", &files)?;
            }
            _ => {}
        }
        fs::rename(active.upper(), &files).call("rename", &files)?;
        self.write_layer_record(&layer)?;
        self.record_change();
        self.index.put_layer(&layer)?;
        Ok(layer)
    }

    /// Original tar of a layer from another tool.
    fn blob_tar(&self, layer: &LayerRecord) -> Result<Box<dyn Read>, StoreError> {
        let blob = layer.blob.as_ref().filter(|blob| self.blobs.contains(blob));
        let blob = blob.ok_or_else(|| StoreError::NoBlob(layer.id.clone()))?;
        let file = io::BufReader::with_capacity(1 << 17, self.blobs.open(blob)?);
        Ok(compression::decompressed(file).call("read", self.blobs.path(blob))?)
    }

    /// Directory of a layer's files, for reading.
    pub fn layer_dir(&self, id: &LayerId) -> PathBuf {
        self.layer_path(id.as_str())
    }

    /// Directory of a layer's files.
    fn layer_path(&self, id: &str) -> PathBuf {
        self.root.join("layers").join(id).join("fs")
    }

    /// Diff id of a layer and the length of its tar; computed by packing the layer unless they are known.
    pub fn diff_id(&self, id: &LayerId) -> Result<(DiffId, u64), StoreError> {
        let missing = || CallError {
            call: "open",
            path: self.layer_path(id.as_str()),
            errno: rustix::io::Errno::NOENT,
        };
        let layer = self.index.layer(id.as_str())?.ok_or_else(missing)?;
        if let (Some(diff_id), Some(size)) = (&layer.diff_id, layer.tar_size) {
            return Ok((diff_id.clone(), size));
        }
        let (diff_id, tar_size) = pack(&self.layer_path(id.as_str()))?;
        let layer = LayerRecord { diff_id: Some(diff_id.clone()), tar_size: Some(tar_size), ..layer };
        self.write_layer_record(&layer)?;
        self.index.put_layer(&layer)?;
        Ok((diff_id, tar_size))
    }

    /// Length of a layer's tar in bytes.
    pub fn layer_tar_size(&self, layer: &LayerRecord) -> Result<u64, StoreError> {
        match layer.tar_size {
            Some(size) => Ok(size),
            None => Ok(self.diff_id(&LayerId::new(&layer.id))?.1),
        }
    }

    /// Writes a layer's tar to `output`, and verifies its diff id; returns its length in bytes.
    ///
    /// # Errors
    /// [`StoreError::DiffIdMismatch`] when the files have changed; failures to pack the layer or to write.
    pub fn write_layer_tar(&self, layer: &LayerRecord, output: impl Write) -> Result<u64, StoreError> {
        let algorithm = layer.diff_id.as_ref().map_or(Algorithm::Sha256, |diff_id| diff_id.0.algorithm());
        let mut output = Hashing::with(output, algorithm);
        match self.blob_tar(layer) {
            Ok(mut tar) => {
                let copied = io::copy(&mut tar, &mut output).call("write", "layer");
                copied.map_err(|error| self.or_damaged(layer, error.into()))?;
            }
            Err(StoreError::NoBlob(_)) => output = layer::diff(&self.layer_path(&layer.id), output)?,
            Err(error) => return Err(error),
        }
        let (_, digest, size) = output.finish();
        match &layer.diff_id {
            Some(expected) if expected.0 != digest => {
                let (expected, actual) = (expected.clone(), DiffId(digest));
                Err(self.or_damaged(layer, StoreError::DiffIdMismatch { expected, actual }))
            }
            _ => Ok(size),
        }
    }

    /// Error for a layer that cannot be read: [`StoreError::Damaged`] if its blob is damaged, which decompression
    /// errors do not show, else `error` itself.
    fn or_damaged(&self, layer: &LayerRecord, error: StoreError) -> StoreError {
        let blob = layer.blob.as_ref().filter(|_| !error.is_full());
        match blob.map(|blob| self.check_blob(blob)) {
            Some(Err(damaged @ StoreError::Damaged(_))) => damaged,
            _ => error,
        }
    }

    /// Verifies the digest of a blob.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when its bytes have changed.
    pub fn check_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        match self.blobs.verify(digest) {
            Err(BlobError::Mismatch { .. }) => Err(StoreError::Damaged(digest.clone())),
            checked => Ok(checked?),
        }
    }

    /// Unpacks a layer from an uncompressed tar with the diff id `expected`; it is not in the store yet.
    ///
    /// `below` are the diff ids of the layers below it, which are consulted only when the tar depends on them.
    ///
    /// # Errors
    /// [`StoreError::LayerMissing`] when a layer below is needed and missing, [`StoreError::DiffIdMismatch`] for
    /// another tar than the expected one.
    pub fn unpack(
        &self,
        tar: impl Read,
        expected: &DiffId,
        below: &[DiffId],
    ) -> Result<Unpacked, StoreError> {
        let active = self.empty_active()?;
        let mut stream = Hashing::with(tar, expected.0.algorithm());
        let failure = RefCell::new(None);
        let tree = || match self.stack(below).and_then(|stack| Ok(stack.tree()?)) {
            Ok(tree) => Some(tree),
            Err(error) => {
                failure.replace(Some(error));
                None
            }
        };
        let applied = layer::apply(&mut stream, &active.upper(), Below::Layers(&tree));
        let applied = applied.map_err(|error| match failure.take() {
            Some(why) => why,
            None => StoreError::from(error),
        })?;
        io::copy(&mut stream, &mut io::sink()).call("read", "layer")?;
        let (_, digest, tar_size) = stream.finish();
        if digest != expected.0 {
            let actual = DiffId(digest);
            return Err(StoreError::DiffIdMismatch { expected: expected.clone(), actual });
        }
        let upper = sys::open_dir(&active.upper())?;
        let is_empty = sys::is_empty_dir(upper.as_fd()).call("getdents", active.upper())?;
        let record = LayerRecord {
            id: String::new(),
            diff_id: Some(expected.clone()),
            tar_size: Some(tar_size),
            size: applied.size,
            empty: is_empty && !applied.opaque_root,
            opaque_root: applied.opaque_root,
            blob: None,
            created: index::now(),
            boot: Some(self.boot.clone()),
            below: applied.asked_below.then(|| below.to_vec()),
        };
        Ok(Unpacked { active, diff_id: expected.clone(), record })
    }

    /// True when the blob of a layer exists with the right size, or the layer has none.
    pub fn has_blob_of(&self, layer: &LayerRecord) -> bool {
        let Some(blob) = &layer.blob else { return true };
        let is_tar = layer.diff_id.as_ref().is_some_and(|diff_id| diff_id.0 == *blob);
        match layer.tar_size.filter(|_| is_tar) {
            Some(size) => self.blobs.has(blob, size),
            None => self.blobs.contains(blob) && !self.blobs.has(blob, 0),
        }
    }

    /// Stores an unpacked layer; `blob` is the blob that it was unpacked from.
    ///
    /// If the store has the layer already, the blob is added to that one.
    pub fn keep_unpacked(
        &self,
        unpacked: Unpacked,
        blob: Option<&Digest>,
    ) -> Result<LayerRecord, StoreError> {
        for known in self.index.layers_of_diff_id(unpacked.diff_id())? {
            if known.below == unpacked.record.below && self.layer_path(&known.id).is_dir() {
                let known_blob = known.blob.filter(|blob| self.blobs.contains(blob));
                let known = LayerRecord { blob: blob.cloned().or(known_blob), ..known };
                self.write_layer_record(&known)?;
                self.record_change();
                self.index.put_layer(&known)?;
                return Ok(known);
            }
        }
        self.keep_layer(unpacked.active, LayerRecord { blob: blob.cloned(), ..unpacked.record })
    }

    /// Stores an unpacked layer, and before that its tar as a blob, unless the packer reproduces the tar byte for byte.
    pub fn keep_with_tar<R: Read>(
        &self,
        unpacked: Unpacked,
        tar: impl FnOnce() -> io::Result<R>,
    ) -> Result<LayerRecord, StoreError> {
        let digest = unpacked.diff_id.0.clone();
        let is_own = unpacked.record.below.is_none() && pack(&unpacked.active.upper())?.0.0 == digest;
        if is_own {
            return self.keep_unpacked(unpacked, None);
        }
        let mut writer = self.blobs.writer(&digest)?;
        let mut tar = tar().call("read", "layer")?;
        io::copy(&mut tar, &mut writer).call("write", self.blobs.path(&digest))?;
        writer.commit()?;
        self.keep_unpacked(unpacked, Some(&digest))
    }

    /// [`Store::unpack`] and [`Store::keep_unpacked`], unless the store has the layer.
    ///
    /// # Errors
    /// Fails in the cases of these.
    pub fn unpack_layer(
        &self,
        tar: impl Read,
        expected: &DiffId,
        below: &[DiffId],
        blob: Option<&Digest>,
    ) -> Result<LayerRecord, StoreError> {
        if let Some(layer) = self.find_layer(expected, below)? {
            return Ok(layer);
        }
        let unpacked = self.unpack(tar, expected, below)?;
        self.keep_unpacked(unpacked, blob)
    }

    fn write_layer_record(&self, layer: &LayerRecord) -> Result<(), StoreError> {
        let dir = self.root.join("layers").join(&layer.id);
        let (scratch, mut file) = self.scratch.file()?;
        file.write_all(&json::to_vec(layer)).call("write", scratch.path())?;
        Ok(scratch.move_to(&dir.join("layer.json"))?)
    }

    // Cache records.

    /// Cache record of a key, if its layer exists; `None` otherwise.
    pub fn step(&self, key: &str) -> Result<Option<StepRecord>, StoreError> {
        let Some(step) = self.index.step(key)? else { return Ok(None) };
        let Some(layer) = &step.layer else { return Ok(None) };
        Ok(self.layer(&LayerId::new(layer))?.map(|_| step))
    }

    /// True when a result was recorded under a key, even if it was removed since.
    pub fn knew_step(&self, key: &str) -> Result<bool, StoreError> {
        Ok(self.index.step(key)?.is_some())
    }

    /// Records results of steps. A record without a layer marks its key as known, and does not replace one with a
    /// layer.
    pub fn put_steps(&self, steps: &[StepRecord]) -> Result<(), StoreError> {
        Ok(self.index.put_steps(steps)?)
    }

    /// Updates the time of last use of cache records.
    pub fn touch_steps(&self, keys: &[String]) -> Result<(), StoreError> {
        Ok(self.index.touch_steps(keys)?)
    }

    /// Newest record of the same instruction in the same file; `None` when there is none.
    pub fn newest_step_at(&self, place: &str) -> Result<Option<StepRecord>, StoreError> {
        Ok(self.index.newest_step_at(place)?)
    }
}

fn missing_reference(parsed: Result<Reference, ReferenceError>, name: &str) -> StoreError {
    let shown = parsed.map_or_else(|_| name.to_owned(), |reference| reference.or_latest().familiar());
    StoreError::NoSuchImage(shown)
}

fn pack(path: &Path) -> Result<(DiffId, u64), StoreError> {
    let (digest, size) = layer::diff(path, BackgroundHasher::sha256())?.finish();
    Ok((DiffId(digest), size))
}

/// Files of the store that only root may access: layers contain setuid programs, blobs may contain secrets.
const RESTRICTED: [&str; 12] = [
    "blobs",
    "layers",
    "work",
    "locks",
    "pins",
    "cache",
    "caches",
    "containers",
    "index.db",
    "index.db-wal",
    "index.db-shm",
    "reserve",
];

/// Removes the permissions of group and others from a file or directory, if it exists.
#[expect(clippy::disallowed_methods, reason = "a directory of the store itself, above all images")]
fn restrict_to_owner(path: &Path) -> Result<(), CallError> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    let mode = metadata.permissions().mode();
    if mode & 0o077 == 0 || metadata.is_symlink() {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o7700)).call("chmod", path)
}

fn make_dir(path: &Path) -> Result<(), CallError> {
    fs::create_dir_all(path).call("mkdir", path)
}

#[cfg(test)]
mod tests;
