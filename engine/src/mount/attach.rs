//! Finds or creates the sources of a new container's mounts.

use super::{Flag, Mount, MountError, MountPoint, MountRequest, Source, Wanted};
use crate::container::Containers;
use crate::error::EngineError;
use crate::record::Listed;
use crate::settings::RunOptions;
use crate::volume::{Volume, VolumeFiles, VolumeRequest, Volumes, images_pin};
use kiln_image::config::RunConfig;
use kiln_image::layer::{CopyRequest, Everything, LayerWriter, Metadata};
use kiln_image::store::{LayerId, Stack, Store};
use kiln_image::sys::{self, Named};
use kiln_image::tree::Tree;
use kiln_image::tree::merged::{Found, Unresolved};
use kiln_runtime::spec::clean_path;
use kiln_runtime::{plan, view};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, FlockOperation, Gid, Mode, Stat, Uid};
use rustix::io::Errno;
use std::ffi::CString;
use std::path::Path;

/// Mounts of a container that is being created. Volumes without a name that were created for it are removed on drop.
pub(crate) struct Attached {
    /// The mounts with their sources.
    pub(crate) points: Vec<MountPoint>,
    volumes: Option<Volumes>,
    /// Volumes without a name that were created.
    new: Vec<String>,
    /// Keeps volumes from being removed until the container's record names them.
    _lock: Option<OwnedFd>,
}

impl Attached {
    /// Keeps new volumes: the container's record names them.
    pub(crate) fn keep(mut self) {
        self.new.clear();
    }

    /// Pins the layers of mounted images for the container `id`.
    pub(crate) fn pin_images(&self, store: &Store, id: &str) -> Result<(), EngineError> {
        let layers = self.points.iter().filter_map(|point| match &point.source {
            Source::Image { layers, .. } => Some(layers.iter().map(|id| LayerId::from(id.as_str()))),
            Source::Host { .. } | Source::Volume { .. } | Source::Tmpfs(_) => None,
        });
        let layers: Vec<LayerId> = layers.flatten().collect();
        if layers.is_empty() { Ok(()) } else { Ok(store.pin(&images_pin(id), &store.stack_of(&layers)?)?) }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        for name in &self.new {
            if let Some(volumes) = &self.volumes {
                // One that cannot be removed stays in the list of volumes.
                let _ = volumes.erase(name);
            }
        }
    }
}

impl Containers<'_> {
    /// Finds the sources of all mounts of a new container, and creates missing volumes with the image's files.
    ///
    /// # Errors
    /// [`EngineError::Mount`] for sources that do not exist and targets that are used twice.
    pub(crate) fn attach(
        &self,
        stack: &Stack,
        image: &RunConfig,
        options: &RunOptions,
    ) -> Result<Attached, EngineError> {
        let mut attached = Attached { points: Vec::new(), volumes: None, new: Vec::new(), _lock: None };
        let requests = self.requests(image, options)?;
        let inherited = self.inherited(&options.volumes_from, &requests)?;
        if requests.is_empty() && inherited.is_empty() && options.kept.is_empty() {
            return Ok(attached);
        }
        let volumes = Volumes::open(self.store.root())?;
        attached._lock = Some(volumes.lock(FlockOperation::LockShared)?);
        attached.volumes = Some(volumes.clone());
        attached.points = inherited;
        for point in &options.kept {
            // Another command may have removed it in the meantime.
            if point.volume().map(|name| volumes.find(name)).transpose()?.flatten().is_some() {
                attached.points.push(point.clone());
            }
        }
        let mut files = ImageFiles { containers: self, stack, tree: None };
        for request in requests {
            // The image's volumes come last: those of the user's mounts replace them.
            if request.flag == Flag::Image
                && attached.points.iter().any(|point| point.target == request.target)
            {
                continue;
            }
            let point = self.settle(request, &volumes, &mut attached.new, &mut files)?;
            attached.points.push(point);
        }
        Ok(attached)
    }

    /// Mounts that the user and the image ask for.
    fn requests(&self, image: &RunConfig, options: &RunOptions) -> Result<Vec<MountRequest>, EngineError> {
        let mut requests = options.mounts.clone();
        for (index, request) in requests.iter().enumerate() {
            if !plan::can_be_covered(Path::new(&request.target)) {
                return Err(MountError::InProc(request.target.clone()).into());
            }
            if requests[..index].iter().any(|other| other.target == request.target) {
                return Err(MountError::Duplicate(request.target.clone()).into());
            }
        }
        for path in image.volumes.keys() {
            let target = clean_path(path);
            if target != "/" && !requests.iter().any(|request| request.target == target) {
                let wanted = Wanted::volume(None);
                requests.push(Mount::new(wanted, target, Flag::Image));
            }
        }
        Ok(requests)
    }

    /// Volumes and host directories of other containers, as `NAME[:ro|rw]`; mounts of the user replace them.
    fn inherited(&self, from: &[String], own: &[MountRequest]) -> Result<Vec<MountPoint>, EngineError> {
        let mut points: Vec<MountPoint> = Vec::new();
        for text in from {
            let (name, mode) = text.split_once(':').unwrap_or((text, "rw"));
            let read_only = match mode {
                "ro" | "ro,z" | "ro,Z" => true,
                "rw" | "z" | "Z" | "rw,z" | "rw,Z" => false,
                _ => return Err(MountError::VolumesFrom(text.clone()).into()),
            };
            let other = match self.find(name)? {
                Listed::Sound(container) => container,
                Listed::Damaged(damaged) => return Err(damaged.reason.into()),
            };
            for point in other.settings.mounts {
                let is_own = own.iter().any(|own| own.target == point.target && own.flag != Flag::Image);
                if is_own || matches!(point.source, Source::Tmpfs(_) | Source::Image { .. }) {
                    continue;
                }
                points.retain(|known| known.target != point.target);
                let read_only = point.read_only || read_only;
                // Removed with the container that it was created for, or with this one, whichever is the last.
                points.push(MountPoint { read_only, flag: Flag::VolumesFrom, ..point });
            }
        }
        Ok(points)
    }

    fn settle(
        &self,
        request: MountRequest,
        volumes: &Volumes,
        new: &mut Vec<String>,
        files: &mut ImageFiles<'_, '_>,
    ) -> Result<MountPoint, EngineError> {
        let source = match &request.source {
            Wanted::Host { path, create } => {
                // A link with a missing target is no source either.
                if !*create && !Path::new(path).exists() {
                    return Err(MountError::NoSource(path.clone()).into());
                }
                Source::Host { path: path.clone(), create: *create }
            }
            Wanted::Volume { name, copy, labels, options } => {
                let wanted = VolumeRequest {
                    name: name.clone(),
                    labels: labels.clone(),
                    options: options.clone(),
                    ..VolumeRequest::default()
                };
                let copied = copy.then_some(request.target.as_str());
                let volume = self.settle_volume(&wanted, copied, volumes, new, files)?;
                Source::Volume { name: volume.name, anonymous: wanted.name.is_none() }
            }
            Wanted::Tmpfs(options) => Source::Tmpfs(options.clone()),
            Wanted::Image(name) => {
                let image = self.store.read_image(self.store.resolve(name)?)?;
                let stack = self.store.stack(&image.config.rootfs.diff_ids)?;
                let layers = stack.layers().map(|layer| layer.as_str().to_owned()).collect();
                Source::Image { name: name.clone(), layers }
            }
        };
        Ok(request.with(source))
    }

    /// Finds or creates a volume; an empty one gets the image's files at `copied`.
    fn settle_volume(
        &self,
        wanted: &VolumeRequest,
        copied: Option<&str>,
        volumes: &Volumes,
        new: &mut Vec<String>,
        files: &mut ImageFiles<'_, '_>,
    ) -> Result<Volume, EngineError> {
        let existing = match &wanted.name {
            Some(name) => volumes.find(name)?,
            None => None,
        };
        let volume = match existing {
            Some(existing) => {
                wanted.check_same(&existing)?;
                existing
            }
            None => {
                let volume = Volume::new(wanted);
                let is_in_store = wanted.options.is_empty();
                volumes.create(&volume, |data| files.fill(copied.filter(|_| is_in_store), data))?;
                if volume.anonymous {
                    new.push(volume.name.clone());
                }
                if is_in_store {
                    return Ok(volume);
                }
                volume
            }
        };
        // One in memory is empty at each start, as in the reference.
        if let Some(open) = self.open_volume(&volume)?
            && !open.is_read_only
        {
            files.fill_if_empty(copied, &volume, &open)?;
        }
        Ok(volume)
    }
}

/// Files of a container's image, which are mounted when the first volume is filled.
struct ImageFiles<'a, 'b> {
    containers: &'a Containers<'b>,
    stack: &'a Stack,
    tree: Option<Tree>,
}

impl ImageFiles<'_, '_> {
    fn tree(&mut self) -> Result<&Tree, EngineError> {
        if self.tree.is_none() {
            let view = (!self.stack.is_empty())
                .then(|| view::detached(&self.containers.store.view_mount(self.stack, &[])))
                .transpose()?;
            self.tree = Some(Tree::of(view.into_iter().collect()));
        }
        Ok(self.tree.as_ref().expect("it was just opened"))
    }

    /// Fills a volume that exists if it is empty.
    fn fill_if_empty(
        &mut self,
        target: Option<&str>,
        volume: &Volume,
        files: &VolumeFiles,
    ) -> Result<(), EngineError> {
        if target.is_none() {
            return Ok(());
        }
        let data = files.path();
        let dir = sys::open_dir(data)?;
        if !sys::is_empty_dir(dir.as_fd()).call("getdents", data)? {
            return Ok(());
        }
        // One process at a time; the next one finds files, or an image without any.
        rustix::fs::flock(&dir, FlockOperation::LockExclusive).call("flock", data)?;
        if sys::is_empty_dir(dir.as_fd()).call("getdents", data)? {
            self.fill(target, data)?;
            volume.owner.apply(&dir).call("chown", data)?;
        }
        Ok(())
    }

    /// Copies the image's directory at `target`, with its owner and mode, into the empty directory of a volume.
    fn fill(&mut self, target: Option<&str>, data: &Path) -> Result<(), EngineError> {
        let Some(target) = target else { return Ok(()) };
        match self.covered(target)? {
            Covered::Nothing => Ok(()),
            Covered::Empty(stat) => Ok(take_over(&sys::open_dir(data)?, &stat).call("chown", data)?),
            Covered::Files => self.copy(target, data),
        }
    }

    /// What the image has at `target`, without mounting it: most volumes cover nothing.
    fn covered(&self, target: &str) -> Result<Covered, EngineError> {
        let names: Vec<CString> = target
            .split('/')
            .filter(|name| !name.is_empty())
            .map(|name| CString::new(name).unwrap_or_default())
            .collect();
        let found = match self.stack.tree()?.resolve(&names) {
            Ok(resolved) => resolved.found,
            Err(Unresolved::Missing) => return Ok(Covered::Nothing),
            Err(_) => return Ok(Covered::Files),
        };
        Ok(match found {
            Found::Nothing | Found::Unknown => Covered::Nothing,
            Found::Dir(dir) if dir.names().call("getdents", target)?.is_empty() => match dir.top() {
                Some(top) => Covered::Empty(rustix::fs::fstat(top).call("stat", target)?),
                None => Covered::Nothing,
            },
            Found::Dir(_) | Found::File(_) => Covered::Files,
        })
    }

    fn copy(&mut self, target: &str, data: &Path) -> Result<(), EngineError> {
        let tree = self.tree()?;
        let real = tree.resolve(target.as_bytes())?;
        let Some(stat) = tree.stat(&real)? else { return Ok(()) };
        if sys::file_type(&stat) != FileType::Directory {
            return Err(MountError::OverFile(target.to_owned()).into());
        }
        let source = tree.open_dir(&real)?;
        let mut writer = LayerWriter::new(data, None)?;
        writer.copy(&CopyRequest {
            source: source.as_fd(),
            name: c".",
            base: b"",
            destination: b"/",
            dirs: Metadata::of(&stat),
            selection: &Everything,
            attributes: true,
            change: &|metadata, _| metadata,
        })?;
        writer.finish()?;
        Ok(take_over(&sys::open_dir(data)?, &stat).call("chown", data)?)
    }
}

/// The image's files at the target of a volume.
enum Covered {
    /// No file, or a parent that is no directory.
    Nothing,
    /// A directory without files.
    Empty(Stat),
    /// Files, or a path that only a mounted image resolves.
    Files,
}

/// Sets the owner and mode of a directory to those of another one.
fn take_over(dir: &OwnedFd, stat: &Stat) -> Result<(), Errno> {
    rustix::fs::fchown(dir, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(dir, Mode::from_raw_mode(stat.st_mode & 0o7777))
}
