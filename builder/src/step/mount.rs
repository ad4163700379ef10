//! Mounts of one RUN: files of other trees, caches, tmpfs, secrets, ssh sockets.

use super::socket::AgentSocket;
use super::{Built, Executor, StepError, lock};
use crate::event::{Event, Row};
use crate::graph::{Exec, Files, MOUNT_COPY, MountSource, StepMount};
use crate::solve::NodeId;
use kiln_image::layer::{CopyRequest, Everything, FileData, LayerWriter, Metadata};
use kiln_image::store::{CacheAccess, CacheDir, ScratchDir, Syncs, make_upper};
use kiln_image::sys::{self, CallError, Named};
use kiln_image::tree::Tree;
use kiln_parser::mount::Sharing;
use kiln_runtime::spec;
use oci_spec::runtime::Mount;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Prepared mounts of a step, with the resources that must live as long as the step.
#[derive(Default)]
pub(super) struct Mounted {
    pub(super) mounts: Vec<Mount>,
    /// Additional variables for the program.
    pub(super) environment: Vec<String>,
    /// Directories that are stacked below the image, so that all mount points exist and leave no trace.
    pub(super) stubs: Vec<PathBuf>,
    _scratch: Vec<ScratchDir>,
    /// Caches by name, except those that are mounted read-only.
    pub(super) caches: Vec<(String, CacheDir)>,
    _readonly_caches: Vec<CacheDir>,
    _secrets: Vec<SecretFile>,
    _sockets: Vec<AgentSocket>,
}

/// Step whose mounts are prepared.
struct StepPlace<'a> {
    node: NodeId,
    inputs: &'a [Built],
    row: Row,
}

/// A secret in memory; removed when dropped.
struct SecretFile(PathBuf);

impl Drop for SecretFile {
    fn drop(&mut self) {
        // The directory is emptied at boot in any case.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Executor<'_> {
    /// Prepares the mounts of a step.
    pub(super) fn prepare_mounts(
        &self,
        node: NodeId,
        exec: &Exec,
        inputs: &[Built],
        row: Row,
    ) -> Result<Mounted, StepError> {
        let mut mounted = Mounted::default();
        if exec.mounts.is_empty() {
            return Ok(mounted);
        }
        let stubs = self.tools.store.scratch_dir()?;
        let tree = Tree::of(self.view(&inputs[0].stack)?.into_iter().collect());
        let step = StepPlace { node, inputs, row };
        for mount in &exec.mounts {
            let is_file = self.add_mount(&mut mounted, mount, &step)?;
            if let Some(is_file) = is_file {
                let made = make_stub(&tree, stubs.path(), &mount.target, is_file)?;
                if made && matches!(mount.source, MountSource::Tmpfs { .. }) {
                    open_to_all(mounted.mounts.last_mut());
                }
            }
        }
        mounted.stubs.push(stubs.path().to_owned());
        mounted._scratch.push(stubs);
        Ok(mounted)
    }

    /// Adds a mount. Returns whether its mount point is a file; `None` when nothing is mounted.
    fn add_mount(
        &self,
        mounted: &mut Mounted,
        mount: &StepMount,
        step: &StepPlace<'_>,
    ) -> Result<Option<bool>, StepError> {
        let access = if mount.readonly { "ro" } else { "rw" };
        match &mount.source {
            MountSource::Files(files) => self.add_files(mounted, mount, *files, step.inputs).map(Some),
            MountSource::Cache { .. } => self.add_cache(mounted, mount, step).map(|()| Some(false)),
            MountSource::Host(path) => {
                let is_dir = std::fs::metadata(path).call("stat", path)?.is_dir();
                mounted.mounts.push(spec::bind(path.clone(), &mount.target, &[access, "nosuid", "nodev"]));
                Ok(Some(!is_dir))
            }
            MountSource::Tmpfs { size } => {
                let mut options = vec!["nosuid".to_owned(), "nodev".to_owned(), access.to_owned()];
                if *size > 0 {
                    options.push(format!("size={size}"));
                }
                mounted.mounts.push(filesystem("tmpfs", &mount.target, options));
                Ok(Some(false))
            }
            MountSource::Secret { .. } => self.add_secret(mounted, mount),
            MountSource::Ssh { id, required, socket: (mode, owner) } => {
                // As in the reference, the variable is set even without a socket.
                mounted.environment.push(format!("SSH_AUTH_SOCK={}", mount.target));
                let Some(socket) = self.tools.credentials.ssh.get(id) else {
                    let missing = || StepError::NotGiven { kind: "ssh", id: id.clone() };
                    return if *required { Err(missing()) } else { Ok(None) };
                };
                let own = AgentSocket::open(self.tools.sandbox.secret_path()?, socket, *mode, *owner)?;
                mounted.mounts.push(spec::bind(
                    own.path().to_owned(),
                    &mount.target,
                    &["rw", "nosuid", "nodev", "noexec"],
                ));
                mounted._sockets.push(own);
                Ok(Some(true))
            }
        }
    }

    fn add_cache(
        &self,
        mounted: &mut Mounted,
        mount: &StepMount,
        step: &StepPlace<'_>,
    ) -> Result<(), StepError> {
        let MountSource::Cache { id, given, sharing, mode, owner, seed } = &mount.source else {
            return Ok(());
        };
        let access = if mount.readonly { "ro" } else { "rw" };
        let metadata = Metadata { mode: *mode, uid: owner.0, gid: owner.1, mtime: super::copy::now() };
        let name = self.cache_name(id, given.as_deref(), *seed, step.inputs)?;
        let cache = self.cache((id, &name), *sharing, &metadata, *seed, step)?;
        mounted.mounts.push(spec::bind(cache.path().to_owned(), &mount.target, &[access]));
        match mount.readonly {
            true => mounted._readonly_caches.push(cache),
            false => mounted.caches.push((id.clone(), cache)),
        }
        Ok(())
    }

    /// Adds a secret as a variable, a file or both. Returns whether its mount point is a file; `None` without a file.
    fn add_secret(&self, mounted: &mut Mounted, mount: &StepMount) -> Result<Option<bool>, StepError> {
        let MountSource::Secret { id, required, file, variable } = &mount.source else { return Ok(None) };
        let Some(secret) = self.tools.credentials.secrets.get(id) else {
            if *required {
                return Err(StepError::NotGiven { kind: "secret", id: id.clone() });
            }
            mounted.environment.extend(variable.iter().map(|name| format!("{name}=")));
            return Ok(None);
        };
        if let Some(name) = variable {
            mounted.environment.push(format!("{name}={}", String::from_utf8_lossy(secret)));
        }
        let Some((mode, owner)) = file else { return Ok(None) };
        let path = self.tools.sandbox.secret(secret, *mode, *owner)?;
        let options = ["ro", "nosuid", "nodev", "noexec"];
        mounted.mounts.push(spec::bind(path.clone(), &mount.target, &options));
        mounted._secrets.push(SecretFile(path));
        Ok(Some(true))
    }

    fn add_files(
        &self,
        mounted: &mut Mounted,
        mount: &StepMount,
        files: Files,
        inputs: &[Built],
    ) -> Result<bool, StepError> {
        let store = self.tools.store;
        match files {
            Files::Tree(number) => {
                let stack = &inputs[number].stack;
                let mut view = match mount.readonly {
                    true => store.view_mount(stack, &[]),
                    false => {
                        let scratch = store.scratch_dir()?;
                        let (upper, work) = upper_and_work(scratch.path())?;
                        mounted._scratch.push(scratch);
                        store.writable_mount(stack, (&upper, &work), &[], Syncs::Never)
                    }
                };
                view.set_destination(PathBuf::from(&mount.target));
                mounted.mounts.push(view);
                Ok(false)
            }
            Files::Copy(number) => {
                let dirs = inputs[number].stack.dirs();
                let dir = dirs.last().copied().unwrap_or(Path::new("/"));
                let path = dir.join(&MOUNT_COPY[1..]);
                let is_file = !std::fs::symlink_metadata(&path).call("stat", &path)?.is_dir();
                if mount.readonly {
                    mounted.mounts.push(spec::bind(path, &mount.target, &["ro"]));
                    return Ok(is_file);
                }
                // Writes are discarded after the step.
                let scratch = store.scratch_dir()?;
                if is_file {
                    let copy = scratch.path().join("file");
                    copy_file(&path, &copy)?;
                    mounted.mounts.push(spec::bind(copy, &mount.target, &["rw"]));
                } else {
                    let (upper, work) = upper_and_work(scratch.path())?;
                    let options = vec![
                        format!("lowerdir+={}", path.display()),
                        format!("upperdir={}", upper.display()),
                        format!("workdir={}", work.display()),
                    ];
                    mounted.mounts.push(filesystem("overlay", &mount.target, options));
                }
                mounted._scratch.push(scratch);
                Ok(is_file)
            }
        }
    }

    /// Name of a cache in the store. As in the reference, caches with the same id are separate when the Dockerfile sets
    /// another owner, mode or initial content.
    fn cache_name(
        &self,
        id: &str,
        given: Option<&str>,
        seed: Option<Files>,
        inputs: &[Built],
    ) -> Result<String, StepError> {
        let mut name = id.to_owned();
        // No id contains a NUL byte: a Dockerfile cannot name a cache with another owner or content.
        if let Some(given) = given {
            name.push_str(&format!("\0{given}"));
        }
        let Some(Files::Tree(number) | Files::Copy(number)) = seed else { return Ok(name) };
        for layer in inputs[number].stack.layers() {
            name.push_str(&format!("\0{}", self.tools.store.diff_id(layer)?.0));
        }
        Ok(name)
    }

    fn cache(
        &self,
        (id, name): (&str, &str),
        sharing: Sharing,
        metadata: &Metadata,
        seed: Option<Files>,
        step: &StepPlace<'_>,
    ) -> Result<CacheDir, StepError> {
        let access = match sharing {
            Sharing::Shared => CacheAccess::Shared,
            Sharing::Private => CacheAccess::Private,
            Sharing::Locked => CacheAccess::Locked,
        };
        let waiting = || {
            let text = format!("waiting for the cache {id}, which another step has locked");
            self.tools.reporter.send(Event::Note { row: step.row, text });
        };
        // As in the reference, `--no-cache` empties caches as well.
        let anew =
            self.tools.graph.node(step.node).no_cache && lock(&self.notes.emptied).insert(name.to_owned());
        self.tools.store.cache_dir(name, access, anew, waiting, |dir| match seed {
            None => make_empty(dir, metadata),
            Some(files) => self.fill(dir, files, step.inputs),
        })
    }

    /// Copies the initial files into a new cache directory.
    fn fill(&self, dir: &Path, files: Files, inputs: &[Built]) -> Result<(), StepError> {
        let (number, name) = match files {
            Files::Tree(number) => (number, c"."),
            Files::Copy(number) => (number, c"m"),
        };
        let Some(root) = self.view(&inputs[number].stack)? else { return Ok(()) };
        let stat = sys::stat_at(root.as_fd(), name).call("stat", MOUNT_COPY)?;
        let is_dir = stat.is_some_and(|stat| sys::file_type(&stat) == FileType::Directory);
        if !is_dir {
            return Err(CallError {
                call: "open",
                path: MOUNT_COPY.into(),
                errno: rustix::io::Errno::NOTDIR,
            }
            .into());
        }
        let mut writer = LayerWriter::new(dir, None)?;
        let dirs = Metadata { mode: 0o755, uid: 0, gid: 0, mtime: super::copy::now() };
        writer.copy(&CopyRequest {
            source: root.as_fd(),
            name,
            base: b"",
            destination: b"/",
            dirs,
            selection: &Everything,
            attributes: true,
            change: &|metadata, _| metadata,
        })?;
        writer.finish()?;
        // Owner and mode of the cache are those of the directory that was copied.
        let own = stat.map(|stat| Metadata::of(&stat)).unwrap_or(dirs);
        make_empty(dir, &own)
    }
}

fn make_empty(dir: &Path, metadata: &Metadata) -> Result<(), StepError> {
    let handle: OwnedFd = sys::open_dir(dir)?;
    super::copy::set_metadata(&handle, metadata).call("chown", dir)?;
    Ok(())
}

/// Copies a file with its permissions. Does not follow links and does not block on pipes.
fn copy_file(from: &Path, to: &Path) -> Result<(), CallError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut source = File::from(rustix::fs::open(from, flags, Mode::empty()).call("open", from)?);
    let mut target = File::create_new(to).call("create", to)?;
    std::io::copy(&mut source, &mut target).call("copy", from)?;
    let permissions = source.metadata().call("stat", from)?.permissions();
    target.set_permissions(permissions).call("chmod", to)
}

fn upper_and_work(dir: &Path) -> Result<(PathBuf, PathBuf), CallError> {
    let (upper, work) = (dir.join("upper"), dir.join("work"));
    make_upper(&upper)?;
    std::fs::create_dir(&work).call("mkdir", &work)?;
    Ok((upper, work))
}

fn filesystem(kind: &str, target: &str, options: Vec<String>) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(PathBuf::from(target))
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(PathBuf::from(kind)))
        .set_options(Some(options));
    mount
}

/// Makes a tmpfs world-writable. By default it gets the mode of the directory that it covers, which the image does not
/// have here.
fn open_to_all(mount: Option<&mut Mount>) {
    let Some(mount) = mount else { return };
    let mut options = mount.options().clone().unwrap_or_default();
    options.push("mode=1777".to_owned());
    mount.set_options(Some(options));
}

/// Creates a mount point in the directory below the image when the image has none; true when it was created.
fn make_stub(tree: &Tree, stubs: &Path, target: &str, is_file: bool) -> Result<bool, StepError> {
    let real = tree.resolve(target.as_bytes())?;
    if tree.stat(&real)?.is_some() {
        return Ok(false);
    }
    let dirs = Metadata { mode: 0o755, uid: 0, gid: 0, mtime: (0, 0) };
    let mut writer = LayerWriter::new(stubs, None)?;
    let path = real.display();
    let path = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
    if is_file {
        let parent = path.iter().rposition(|byte| *byte == b'/').map_or(&path[..0], |at| &path[..at]);
        writer.make_dirs(parent, &dirs)?;
        writer.put_file(path, FileData::Bytes(b""), &Metadata { mode: 0o644, ..dirs })?;
    } else {
        writer.make_dirs(path, &dirs)?;
    }
    writer.finish()?;
    Ok(true)
}
