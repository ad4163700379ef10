//! The containers of a store, on disk.
//!
//! ```text
//! containers/ID/container.json   the record
//! containers/ID/lock             locked by the process that runs it
//! containers/ID/layer/           its writable layer (see overlayfs)
//! containers/ID/etc/             hosts, hostname, resolv.conf
//! containers/names/NAME          a link whose target is the id: names are taken by making it
//! ```

use crate::error::EngineError;
use crate::name;
use crate::record::{Container, State, now};
use crate::settings::{RunOptions, Settings};
use kiln_image::store::{Image, Stack, Store};
use kiln_image::sys::{self, CallError, Named};
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Exit code of a container whose runner was killed: its processes were killed with it.
const KILLED: i32 = 137;

/// All containers of a store.
pub struct Containers<'a> {
    pub(crate) store: &'a Store,
    folder: PathBuf,
}

/// A container that this process runs: nobody else starts or removes it.
pub struct Owned<'a> {
    pub(crate) containers: &'a Containers<'a>,
    /// Its record.
    pub container: Container,
    pub(crate) stack: Stack,
    _lock: OwnedFd,
}

impl<'a> Containers<'a> {
    /// The containers of `store`.
    pub fn open(store: &'a Store) -> Result<Containers<'a>, EngineError> {
        let folder = store.root().join("containers");
        let names = folder.join("names");
        if !names.is_dir() {
            fs::create_dir_all(&names).call("mkdir", &names)?;
        }
        Ok(Containers { store, folder })
    }

    /// The folder that holds all that is kept of a container.
    pub fn folder_of(&self, container: &Container) -> PathBuf {
        self.path(&container.id)
    }

    pub(crate) fn path(&self, id: &str) -> PathBuf {
        self.folder.join(id)
    }

    /// Makes a container of an image. `image_name` is how the user called it.
    pub fn create(
        &'a self,
        image: &Image,
        image_name: &str,
        options: &RunOptions,
    ) -> Result<Owned<'a>, EngineError> {
        if let Some(name) = &options.name {
            name::check(name)?;
        }
        let id = kiln_image::digest::hex(&random::<32>());
        let settings = Settings::new(&image.config.config, options, &id)?;
        let folder = self.path(&id);
        fs::create_dir(&folder).call("mkdir", &folder)?;
        let lock = self.lock(&id)?.expect("nobody else knows a container that was made just now");
        let made = self.fill(&id, image, image_name, options, settings);
        match made {
            Ok((container, stack)) => Ok(Owned { containers: self, container, stack, _lock: lock }),
            Err(error) => {
                // The first failure counts.
                let _ = self.erase(&id, None);
                Err(error)
            }
        }
    }

    fn fill(
        &self,
        id: &str,
        image: &Image,
        image_name: &str,
        options: &RunOptions,
        settings: Settings,
    ) -> Result<(Container, Stack), EngineError> {
        // Layers that the image names now stay until the pin is written.
        let _using = self.store.use_layers()?;
        let stack = self.store.stack(&image.config.rootfs.diff_ids)?;
        self.store.pin(id, &stack)?;
        let name = self.take_name(options.name.as_deref(), id)?;
        let container = Container {
            id: id.to_owned(),
            name,
            created: now(),
            image: image.record.id.clone(),
            image_name: image_name.to_owned(),
            settings,
            auto_remove: options.auto_remove,
            state: State::Created { error: None, code: 0 },
            profile: String::new(),
            endpoint: None,
        };
        self.write(&container)?;
        Ok((container, stack))
    }

    /// Takes the wanted name, or one that is made up.
    fn take_name(&self, wanted: Option<&str>, id: &str) -> Result<String, EngineError> {
        for attempt in 0.. {
            let name = match wanted {
                Some(name) => name.to_owned(),
                None => name::make(random(), attempt),
            };
            let path = self.folder.join("names").join(&name);
            match std::os::unix::fs::symlink(id, &path) {
                Ok(()) => return Ok(name),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    let holder = fs::read_link(&path).unwrap_or_default().display().to_string();
                    if !self.path(&holder).join("container.json").exists() && self.is_abandoned(&holder) {
                        // Its maker was killed before it was complete.
                        sys::remove_path(&path)?;
                    } else if wanted.is_some() {
                        return Err(EngineError::NameTaken { name, id: holder });
                    }
                }
                Err(error) => return Err(named("symlink", &path)(error).into()),
            }
        }
        unreachable!("attempts do not run out")
    }

    fn is_abandoned(&self, id: &str) -> bool {
        !self.path(id).is_dir() || matches!(self.lock(id), Ok(Some(_)))
    }

    /// Locks a container; `None` when another process has it.
    fn lock(&self, id: &str) -> Result<Option<OwnedFd>, EngineError> {
        let path = self.path(id).join("lock");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)).call("open", &path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(CallError { call: "flock", path, errno }.into()),
        }
    }

    pub(crate) fn write(&self, container: &Container) -> Result<(), EngineError> {
        let folder = self.path(&container.id);
        let (new, path) = (folder.join("container.json.new"), folder.join("container.json"));
        let bytes = serde_json::to_vec(container).expect("a record is made of texts and numbers");
        let mut file = fs::File::create(&new).call("open", &new)?;
        file.write_all(&bytes).call("write", &new)?;
        fs::rename(&new, &path).call("rename", &path)?;
        Ok(())
    }

    fn read(&self, id: &str) -> Result<Option<Container>, EngineError> {
        let path = self.path(id).join("container.json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(named("read", &path)(error).into()),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| EngineError::Record(id.to_owned(), error))
    }

    /// All containers, the newest first. Those whose runner was killed are put right on the way.
    pub fn list(&self) -> Result<Vec<Container>, EngineError> {
        let mut containers = Vec::new();
        for entry in fs::read_dir(&self.folder).call("getdents", &self.folder)? {
            let id = entry.call("getdents", &self.folder)?.file_name().to_string_lossy().into_owned();
            if id != "names" {
                containers.extend(self.look_at(&id)?);
            }
        }
        containers.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        Ok(containers)
    }

    /// A container's record as it really stands; `None` when nothing is left of it.
    fn look_at(&self, id: &str) -> Result<Option<Container>, EngineError> {
        let record = self.read(id)?;
        let settled = record.as_ref().is_some_and(|c| !c.state.is_running() && !c.auto_remove);
        if settled {
            return Ok(record);
        }
        let Some(_lock) = self.lock(id)? else { return Ok(record) };
        // Its runner is gone: it may have written something before.
        let Some(mut container) = self.read(id)? else {
            self.erase(id, None)?;
            return Ok(None);
        };
        if container.auto_remove {
            self.erase(id, Some(&container.name))?;
            return Ok(None);
        }
        if let State::Running { started, .. } = &container.state {
            container.state = State::Exited { code: KILLED, started: started.clone(), finished: now() };
            container.endpoint = None;
            self.write(&container)?;
        }
        Ok(Some(container))
    }

    /// The container that a user means by a name, an id or the beginning of one.
    pub fn find(&self, text: &str) -> Result<Container, EngineError> {
        let missing = || EngineError::NoSuchContainer(text.to_owned());
        let text_name = text.strip_prefix('/').unwrap_or(text);
        let all = self.list()?;
        if let Some(container) = all.iter().find(|c| c.id == text || c.name == text_name) {
            return Ok(container.clone());
        }
        let mut found =
            all.into_iter().filter(|container| !text.is_empty() && container.id.starts_with(text));
        match (found.next(), found.next()) {
            (None, _) => Err(missing()),
            (Some(container), None) => Ok(container),
            (Some(_), Some(_)) => Err(EngineError::Ambiguous(text.to_owned())),
        }
    }

    /// Containers made from an image.
    pub fn of_image(&self, image: &kiln_image::digest::ImageId) -> Result<Vec<Container>, EngineError> {
        Ok(self.list()?.into_iter().filter(|container| container.image == *image).collect())
    }

    /// Removes a container; one that runs is killed first when that is wanted.
    pub fn remove(&self, container: &Container, kill: bool) -> Result<(), EngineError> {
        if let State::Running { pid, .. } = container.state {
            if !kill {
                return Err(EngineError::IsRunning(container.name.clone()));
            }
            self.kill(&container.id, pid)?;
        }
        let lock = self.wait_for_lock(&container.id)?;
        self.erase(&container.id, Some(&container.name))?;
        drop(lock);
        Ok(())
    }

    /// Kills the first process of a container, after making sure that it still is that.
    fn kill(&self, id: &str, pid: i32) -> Result<(), EngineError> {
        let Some(pid) = rustix::process::Pid::from_raw(pid) else { return Ok(()) };
        let Ok(handle) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
            return Ok(());
        };
        // While the runner holds the lock the process id cannot have passed to another process.
        if self.lock(id)?.is_none() {
            let _ = rustix::process::pidfd_send_signal(&handle, rustix::process::Signal::KILL);
        }
        Ok(())
    }

    fn wait_for_lock(&self, id: &str) -> Result<OwnedFd, EngineError> {
        let path = self.path(id).join("lock");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let file = match rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)) {
            Ok(file) => file,
            // Removed by its runner meanwhile.
            Err(Errno::NOENT) => return Err(EngineError::NoSuchContainer(id.to_owned())),
            Err(errno) => return Err(CallError { call: "open", path, errno }.into()),
        };
        loop {
            match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(file),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(CallError { call: "flock", path, errno }.into()),
            }
        }
    }

    /// Takes away all that there is of a container, the record first.
    pub(crate) fn erase(&self, id: &str, name: Option<&str>) -> Result<(), EngineError> {
        let folder = self.path(id);
        sys::remove_path(&folder.join("container.json"))?;
        if let Some(name) = name {
            sys::remove_path(&self.folder.join("names").join(name))?;
        }
        self.store.unpin(id)?;
        sys::remove_path(&folder)?;
        Ok(())
    }
}

impl Owned<'_> {
    /// The container's folder.
    pub(crate) fn folder(&self) -> PathBuf {
        self.containers.path(&self.container.id)
    }

    pub(crate) fn set_state(&mut self, state: State) -> Result<(), EngineError> {
        self.container.state = state;
        self.containers.write(&self.container)
    }

    /// Removes it.
    pub fn remove(self) -> Result<(), EngineError> {
        self.containers.erase(&self.container.id, Some(&self.container.name))
    }
}

fn named(call: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> CallError {
    let path = path.to_owned();
    move |error| CallError { call, path, errno: Errno::from_io_error(&error).unwrap_or(Errno::IO) }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0u8; N];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    assert_eq!(filled, Ok(N), "the kernel gives a few random bytes at once");
    bytes
}
