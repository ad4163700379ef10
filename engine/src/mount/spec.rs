//! Mounts as parts of the OCI specification.

use super::{Below, MountError, MountPoint, Source};
use crate::container::{Containers, Owned};
use crate::error::EngineError;
use crate::record::Container;
use crate::volume::{Backing, Volumes};
use kiln_image::store::{LayerId, Store};
use kiln_image::sys::{CallError, Named};
use kiln_runtime::{spec, view};
use oci_spec::runtime::{Mount, Spec};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Default options of a tmpfs (moby `daemon/volumes_unix.go`).
const TMPFS: [&str; 3] = ["noexec", "nosuid", "nodev"];

impl Containers<'_> {
    /// Prepares what a start needs of the store, for a container whose image has the layers of `stack`: owners of files, and
    /// mounts of images in the order of the container's mounts.
    ///
    /// # Errors
    /// Fails for volumes that do not exist, users that the image does not have, and missing layers.
    pub(crate) fn prepare_mounts(&self, container: &Container) -> Result<Vec<Mount>, EngineError> {
        let mut images = Vec::new();
        for point in &container.settings.mounts {
            match &point.source {
                Source::Image { layers, .. } => images.push(view_of(self.store, layers)?),
                Source::Host { path, create } if point.chown => {
                    make_source(path, *create)?;
                    self.give_away(container, Path::new(path))?;
                }
                Source::Volume { name, .. } if point.chown => {
                    let volume = self.find_volume(name)?;
                    let files = if self.is_in_memory(&volume)? { None } else { self.open_volume(&volume)? };
                    let in_memory = || MountError::OwnerOfMemory(name.clone());
                    self.give_away(container, files.ok_or_else(in_memory)?.path())?;
                }
                Source::Host { .. } | Source::Volume { .. } | Source::Tmpfs(_) => {}
            }
        }
        Ok(images)
    }
}

impl Owned {
    /// Adds the container's mounts to a specification; `images` are those of images. The store need not be open.
    ///
    /// # Errors
    /// [`EngineError::Mount`] for sources that no longer exist, and for a propagation that the host's mount lacks.
    pub(crate) fn add_mounts(&self, spec: &mut Spec, images: &[Mount]) -> Result<Opened, EngineError> {
        let mut images = images.iter();
        let mut points: Vec<(&MountPoint, Option<&Mount>)> = Vec::new();
        for point in &self.container.settings.mounts {
            let is_image = matches!(point.source, Source::Image { .. });
            points.push((point, if is_image { images.next() } else { None }));
        }
        // Directories before those below them.
        points.sort_by_key(|(point, _)| point.target.matches('/').count());
        leave_out_replaced(spec, &points.iter().map(|(point, _)| *point).collect::<Vec<_>>());
        let mut opened = Opened { sources: Vec::new(), memory: self.lock_memory()? };
        let mut spare = BTreeMap::new();
        for (point, image) in points {
            let (mount, handle) = self.mount(point, image, &mut spare)?;
            if let Some(propagation) = &point.propagation {
                allow_propagation(spec, point, propagation)?;
            }
            let mounts = spec.mounts_mut().get_or_insert_default();
            let handle = match point.subpath.is_empty() {
                true => handle,
                false => Some(open_subpath(point, &mount, handle)?),
            };
            opened.sources.extend(handle.map(|handle| (mounts.len(), handle)));
            mounts.push(mount);
        }
        Ok(opened)
    }

    /// Locks the mounts of volumes in memory, if the container has any.
    fn lock_memory(&self) -> Result<Option<OwnedFd>, EngineError> {
        for point in &self.container.settings.mounts {
            if let Source::Volume { name, .. } = &point.source
                && self.records.is_in_memory(&self.records.find_volume(name)?)?
            {
                return Ok(Some(Volumes::open(&self.records.root)?.lock_memory()?));
            }
        }
        Ok(None)
    }

    /// A mount, and its source where that was opened here. `spare` has mounts for later targets of the same volumes.
    fn mount(
        &self,
        point: &MountPoint,
        image: Option<&Mount>,
        spare: &mut Spare,
    ) -> Result<(Mount, Option<OwnedFd>), EngineError> {
        let path = match &point.source {
            Source::Tmpfs(options) => {
                let access = if point.read_only { "ro" } else { "rw" };
                let options: Vec<&str> =
                    TMPFS.into_iter().chain([access]).chain(options.iter().map(String::as_str)).collect();
                return Ok((spec::mount("tmpfs", &point.target, "tmpfs", &options), None));
            }
            Source::Image { name, .. } => {
                let mut mount = image.cloned().ok_or_else(|| EngineError::NoSuchVolume(name.clone()))?;
                mount.set_destination(PathBuf::from(&point.target));
                return Ok((mount, None));
            }
            Source::Host { path, create } => {
                make_source(path, *create)?;
                PathBuf::from(path)
            }
            Source::Volume { name, .. } => return self.volume_mount(point, name, spare),
        };
        Ok((bind_mount(point, &path, &[]), None))
    }

    fn volume_mount(
        &self,
        point: &MountPoint,
        name: &str,
        spare: &mut Spare,
    ) -> Result<(Mount, Option<OwnedFd>), EngineError> {
        let volume = self.records.find_volume(name)?;
        if !point.subpath.is_empty() && self.records.is_in_memory(&volume)? {
            return Err(MountError::SubpathOfMemory(name.to_owned()).into());
        }
        let shown = self.records.volume_data(name);
        if let Some(handle) = spare.get_mut(name).and_then(Vec::pop) {
            return Ok((bind_mount(point, &shown, &[]), Some(handle)));
        }
        let targets = self.container.settings.mounts.iter().filter(|other| other.volume() == Some(name));
        match self.records.back_volume(&volume, &self.container.id, targets.count())? {
            Backing::Directory { path, options } => Ok((bind_mount(point, &path, &options), None)),
            Backing::Mounts(mut handles) => {
                let handle = handles.pop();
                spare.insert(name.to_owned(), handles);
                Ok((bind_mount(point, &shown, &[]), handle))
            }
        }
    }
}

/// Further mounts of volumes, by the name of the volume.
type Spare = BTreeMap<String, Vec<OwnedFd>>;

/// Sources of mounts that were opened for a start.
pub(crate) struct Opened {
    /// Sources by the index of the mount in the specification.
    pub(crate) sources: Vec<(usize, OwnedFd)>,
    /// Held until the container has its mounts: the next one with the same volume in memory finds them there.
    pub(crate) memory: Option<OwnedFd>,
}

/// Opens a path inside of a volume or image. Links in it cannot lead out.
fn open_subpath(point: &MountPoint, mount: &Mount, handle: Option<OwnedFd>) -> Result<OwnedFd, EngineError> {
    let (name, root) = match &point.source {
        Source::Image { name, .. } => (name.clone(), view::detached(mount)?),
        Source::Volume { name, .. } => {
            let path = mount.source().clone().unwrap_or_default();
            let root = handle.map_or_else(|| kiln_image::sys::open_dir(&path), Ok)?;
            (name.clone(), root)
        }
        Source::Host { path, .. } => (path.clone(), kiln_image::sys::open_dir(Path::new(path))?),
        Source::Tmpfs(_) => return Err(EngineError::NoSuchVolume(point.target.clone())),
    };
    let refused = |errno: rustix::io::Errno| MountError::Subpath {
        subpath: point.subpath.clone(),
        source_name: name.clone(),
        reason: std::io::Error::from(errno).to_string(),
    };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let inside = rustix::fs::openat2(&root, point.subpath.as_str(), flags, Mode::empty(), resolve);
    let inside = inside.map_err(refused)?;
    let copy = view::copy(Path::new(&format!("/proc/self/fd/{}", inside.as_raw_fd())), true);
    Ok(view::cut_off(copy.map_err(refused)?).map_err(refused)?)
}

/// Read-only tree of an image.
fn view_of(store: &Store, layers: &[String]) -> Result<Mount, EngineError> {
    let layers: Vec<LayerId> = layers.iter().map(|id| LayerId::from(id.as_str())).collect();
    Ok(store.view_mount(&store.stack_of(&layers)?, &[]))
}

/// Removes the default mounts that the user's replace, and those below a /dev of the user.
fn leave_out_replaced(spec: &mut Spec, points: &[&MountPoint]) {
    let replaces = |mount: &Mount| {
        points.iter().any(|point| {
            let target = Path::new(&point.target);
            mount.destination() == target
                || target == Path::new("/dev") && mount.destination().starts_with("/dev")
        })
    };
    spec.mounts_mut().get_or_insert_default().retain(|mount| !replaces(mount));
}

/// Checks the source of a host directory's mount; a missing one is created if that is asked for.
fn make_source(path: &str, create: bool) -> Result<(), EngineError> {
    match Path::new(path).try_exists() {
        Ok(true) => Ok(()),
        Ok(false) if create => Ok(fs::create_dir_all(path).call("mkdir", path)?),
        Ok(false) => Err(MountError::NoSource(path.to_owned()).into()),
        Err(error) => {
            let errno = rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO);
            Err(CallError { call: "stat", path: path.into(), errno }.into())
        }
    }
}

/// Bind mount of a path, with the options of a volume.
fn bind_mount(point: &MountPoint, path: &Path, own: &[String]) -> Mount {
    let is_bind = |option: &&String| matches!(option.as_str(), "bind" | "rbind");
    let mut options = bind_options(point);
    if let Some(kind) = own.iter().find(is_bind) {
        options[0].clone_from(kind);
    }
    // Before the point's access: a writable volume can be mounted read-only.
    options.splice(2..2, own.iter().filter(|option| !is_bind(option)).cloned());
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    spec::mount("bind", &point.target, &path.to_string_lossy(), &options)
}

/// Mount options of a bind mount.
fn bind_options(point: &MountPoint) -> Vec<String> {
    let bind = if point.below == Below::Omitted { "bind" } else { "rbind" };
    let propagation = point.propagation.as_deref().unwrap_or("rprivate");
    let mut options = vec![bind.to_owned(), propagation.to_owned()];
    if !point.read_only {
        return options;
    }
    // The runtime remounts each mount below where the kernel lacks `mount_setattr(2)`.
    let access = match point.below {
        Below::Mounted | Below::ReadOnly => "rro",
        Below::Writable | Below::Omitted => "ro",
    };
    options.push(access.to_owned());
    options
}

/// Sets the propagation of the root that a shared or slave mount needs, after a check of the host's mount.
fn allow_propagation(spec: &mut Spec, point: &MountPoint, propagation: &str) -> Result<(), EngineError> {
    let Source::Host { path, .. } = &point.source else { return Ok(()) };
    let kind = propagation.strip_prefix('r').unwrap_or(propagation);
    if kind == "private" {
        return Ok(());
    }
    let real = fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(path));
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let (mount, optional) = mount_of(&table, &real);
    let has = |name: &str| optional.iter().any(|field| field.starts_with(name));
    let wanted = if kind == "shared" { "shared" } else { "shared or slave" };
    if !(has("shared:") || kind == "slave" && has("master:")) {
        return Err(MountError::NotShared { path: path.clone(), mount, wanted }.into());
    }
    let Some(linux) = spec.linux_mut() else { return Ok(()) };
    let current = linux.rootfs_propagation().as_deref().unwrap_or_default();
    match kind {
        "shared" => linux.set_rootfs_propagation(Some("shared".to_owned())),
        _ if !matches!(current, "shared" | "rslave") => {
            linux.set_rootfs_propagation(Some("rslave".to_owned()))
        }
        _ => linux,
    };
    Ok(())
}

/// Mount point that contains a path, with the optional fields of its line (proc_pid_mountinfo(5)).
fn mount_of<'a>(table: &'a str, path: &Path) -> (String, Vec<&'a str>) {
    let mut found = (String::from("/"), Vec::new());
    for line in table.lines() {
        let Some((head, _)) = line.split_once(" - ") else { continue };
        let fields: Vec<&str> = head.split(' ').collect();
        let Some(mount) = fields.get(4) else { continue };
        let mount = mount.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\");
        // Of several mounts at one path the last one is visible.
        if path.starts_with(&mount) && mount.len() >= found.0.len() {
            found = (mount, fields.get(6..).unwrap_or_default().to_vec());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount::Flag;
    use crate::mount::Mount as Point;

    #[test]
    fn the_mount_of_a_path_is_the_deepest_and_last() {
        let table = "1 0 8:1 / / rw shared:1 - ext4 a rw\n2 1 8:1 / /data rw - ext4 a rw\n\
                     3 1 8:1 / /data rw master:4 - ext4 a rw\n4 1 8:1 / /data\\0402 rw shared:5 - ext4 a rw\n";
        let found = |path: &str| {
            let (mount, fields) = mount_of(table, Path::new(path));
            format!("{mount} {}", fields.join(" "))
        };
        assert_eq!(found("/x"), "/ shared:1");
        assert_eq!(found("/data/x"), "/data master:4");
        assert_eq!(found("/data 2/x"), "/data 2 shared:5");
        assert_eq!(found("/database"), "/ shared:1");
    }

    #[test]
    fn the_users_mounts_replace_the_default_ones() {
        let targets = |path: &str| {
            let point = Point::new(Source::Tmpfs(Vec::new()), path.to_owned(), Flag::Tmpfs);
            let mut spec = spec::default(PathBuf::from("/r"));
            leave_out_replaced(&mut spec, &[&point]);
            let mounts = spec.mounts().iter().flatten();
            mounts.map(|mount| mount.destination().display().to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(targets("/dev"), "/proc /sys /sys/fs/cgroup");
        assert!(!targets("/dev/shm").contains("/dev/shm") && targets("/dev/shm").contains("/dev/pts"));
    }
}
