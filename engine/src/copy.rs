//! Copies between the host and containers, by the rules of `docker cp` (moby `pkg/archive/copy.go`).
//!
//! Both ends are trees: that of the host begins at its root directory. One thread packs the source as a tar, another one
//! unpacks it, so that a tar of the user can take either's part.

mod mirror;

pub(crate) use mirror::make_dirs;
pub use mirror::mirror;

use crate::error::EngineError;
use kiln_image::layer::{ApplyError, DiffError, Placed, Placement, WALK_STACK, archive, is_of_kernel, place};
use kiln_image::sys::{self, CallError};
use kiln_image::tree::{RealPath, Tree};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};

/// A path in the tree of the host or of a container.
pub struct Place<'a> {
    /// Tree in which the path is resolved.
    pub tree: &'a Tree,
    /// Path from the root of the tree. A slash or `/.` at its end has a meaning.
    pub path: &'a [u8],
    /// Container as the user named it; `None` for the host.
    pub container: Option<&'a str>,
}

/// Options of a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyOptions {
    /// Keep owners and all permission bits; otherwise files belong to root in a container, and to the caller on the host.
    pub keeps_owners: bool,
    /// Copy what a link at the end of the source leads to, not the link.
    pub follows: bool,
    /// Owner of all files, instead of these.
    pub owner: Option<(u32, u32)>,
}

/// Failure of a copy.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A path does not exist in the container.
    #[error("Could not find the file {path} in container {container}")]
    NotInContainer {
        /// Path as the user wrote it.
        path: String,
        /// Container as the user named it.
        container: String,
    },
    /// A path leads to files of the kernel, such as /proc.
    #[error("{path} of container {container} belongs to the kernel, not to the container's files")]
    OfKernel {
        /// Path as the user wrote it.
        path: String,
        /// Container as the user named it.
        container: String,
    },
    /// A path does not exist on the host.
    #[error("lstat {0}: no such file or directory")]
    NotOnHost(String),
    /// A path with a slash at its end is not that of a directory.
    #[error("{0}: not a directory")]
    NotADirectory(String),
    /// The parent of the destination, or the destination with a slash at its end, does not exist.
    #[error("no such directory: {0}")]
    NoSuchDirectory(String),
    /// The source is a directory, and the destination another file.
    #[error("cannot copy directory to {0}: it is a file")]
    DirectoryToFile(String),
    /// A tar can only be unpacked into a directory that exists.
    #[error("destination \"{0}\" must be a directory")]
    MustBeDirectory(String),
    /// The source cannot be read.
    #[error(transparent)]
    Read(DiffError),
    /// The destination cannot be written.
    #[error(transparent)]
    Write(ApplyError),
    /// The container cannot be opened.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A system call failed.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl From<DiffError> for CopyError {
    fn from(error: DiffError) -> CopyError {
        match error {
            // Its own text names a layer, and there is none here.
            DiffError::Call(error) => CopyError::Call(error),
            error => CopyError::Read(error),
        }
    }
}

impl From<ApplyError> for CopyError {
    fn from(error: ApplyError) -> CopyError {
        match error {
            ApplyError::Call(error) => CopyError::Call(error),
            error => CopyError::Write(error),
        }
    }
}

impl CopyError {
    /// True when something is mounted where a file was to be replaced.
    pub fn is_busy(&self) -> bool {
        matches!(self, CopyError::Call(error) if error.errno == Errno::BUSY)
    }

    /// True when the disk of the destination is full.
    pub fn is_full(&self) -> bool {
        match self {
            CopyError::Write(error) => error.is_full(),
            CopyError::Call(error) => error.is_full(),
            CopyError::Engine(error) => error.is_full(),
            _ => false,
        }
    }
}

/// Copies a file or directory.
///
/// # Errors
/// Fails when a path does not exist or is of the wrong kind, or a file cannot be read or written.
pub fn copy(source: &Place<'_>, target: &Place<'_>, options: CopyOptions) -> Result<Placed, CopyError> {
    let source = source.source(options.follows)?;
    let (base, name) = target.target(&source)?;
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| CallError {
        call: "pipe",
        path: "cp".into(),
        errno,
    })?;
    std::thread::scope(|scope| {
        let packing = std::thread::Builder::new().stack_size(WALK_STACK).spawn_scoped(scope, move || {
            archive(source.dir, &source.name, &name, File::from(writer)).map(drop)
        });
        let packing = packing.map_err(|error| CallError {
            call: "clone",
            path: "cp".into(),
            errno: Errno::from_io_error(&error).unwrap_or(Errno::AGAIN),
        })?;
        let placed = target.place(File::from(reader), &base, options);
        let packed = packing.join().expect("packing does not panic");
        match (packed, placed) {
            // The pipe was closed because the other end failed.
            (Err(DiffError::Tar(_)), Err(error)) => Err(error),
            (Err(error), _) => Err(error.into()),
            (Ok(()), placed) => placed,
        }
    })
}

/// Writes a file or directory as a tar.
///
/// # Errors
/// Fails when the path does not exist, or a file cannot be read or `output` cannot be written.
pub fn copy_out(source: &Place<'_>, output: impl Write, options: CopyOptions) -> Result<(), CopyError> {
    let is_followed = options.follows && source.last_name().is_some();
    let source = source.source(options.follows)?;
    // A followed link has the name of its target, except that a directory's content has none.
    let name = if is_followed { &source.real } else { &source.shown };
    archive(source.dir, &source.name, name, output)?;
    Ok(())
}

/// Unpacks a tar into a directory that exists.
///
/// # Errors
/// Fails when the path is not that of a directory, the stream is not a tar, or a file cannot be written.
pub fn copy_in(stream: impl Read, target: &Place<'_>, options: CopyOptions) -> Result<Placed, CopyError> {
    let real = target.tree.resolve(target.path)?;
    match target.tree.stat(&real)? {
        Some(stat) if is_dir(&stat) => target.place(stream, &real, options),
        _ => Err(CopyError::MustBeDirectory(target.named())),
    }
}

/// An opened source of a copy.
struct Source {
    /// The source itself if it is a directory, otherwise its parent.
    dir: OwnedFd,
    /// Name in `dir`; `.` for a directory.
    name: CString,
    is_dir: bool,
    /// Name of the first entry of its tar; `.` for contents without their directory.
    shown: Vec<u8>,
    /// Name after links were followed; `.` for the root directory.
    real: Vec<u8>,
}

impl Place<'_> {
    fn source(&self, follows: bool) -> Result<Source, CopyError> {
        let real = match follows || self.names_dir() {
            true => self.tree.resolve(self.path)?,
            false => self.tree.resolve_parent(self.path)?,
        };
        let stat = self.tree.stat(&real)?.ok_or_else(|| self.missing(self.shown()))?;
        let is_dir = is_dir(&stat);
        if self.names_dir() && !is_dir {
            return Err(CopyError::NotADirectory(self.shown()));
        }
        let dir = match is_dir {
            true => self.tree.open_dir(&real)?,
            false => self.tree.open_dir(&real.parent())?,
        };
        self.refuse_kernel(&dir)?;
        let name = match (is_dir, real.name()) {
            (false, Some(name)) => name.clone(),
            _ => c".".to_owned(),
        };
        let shown = match self.last_name() {
            Some(name) => name.to_vec(),
            None if self.is_contents() || real.name().is_none() => b".".to_vec(),
            None => real.name().map(|name| name.to_bytes().to_vec()).unwrap_or_default(),
        };
        let real = real.name().map_or_else(|| b".".to_vec(), |name| name.to_bytes().to_vec());
        Ok(Source { dir, name, is_dir, shown, real })
    }

    /// Directory below which the source is unpacked, and the name of its first entry there.
    fn target(&self, source: &Source) -> Result<(RealPath, Vec<u8>), CopyError> {
        let real = self.tree.resolve(self.path)?;
        let name = real.name().map(|name| name.to_bytes().to_vec()).unwrap_or_default();
        match self.tree.stat(&real)? {
            Some(stat) if is_dir(&stat) => Ok((real, source.shown.clone())),
            Some(_) if self.names_dir() => Err(CopyError::NotADirectory(self.shown())),
            Some(_) if source.is_dir => Err(CopyError::DirectoryToFile(self.named())),
            Some(_) => Ok((real.parent(), name)),
            None if self.names_dir() && !source.is_dir => Err(CopyError::NoSuchDirectory(self.named())),
            None => {
                let parent = real.parent();
                match self.tree.stat(&parent)? {
                    Some(stat) if is_dir(&stat) => Ok((parent, name)),
                    Some(_) => Err(CopyError::NotADirectory(parent.display().display().to_string())),
                    None => Err(match self.container {
                        Some(_) => self.missing(parent.display().display().to_string()),
                        None => CopyError::NoSuchDirectory(parent.display().display().to_string()),
                    }),
                }
            }
        }
    }

    /// Unpacks a tar below a directory.
    fn place(&self, stream: impl Read, base: &RealPath, options: CopyOptions) -> Result<Placed, CopyError> {
        self.refuse_kernel(&self.tree.open_dir(base)?)?;
        let root = self.tree.open_dir(&RealPath::root())?;
        let caller = || (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let owner = if self.container.is_some() { (0, 0) } else { caller() };
        let placement = Placement {
            base: &base.to_bytes(),
            owner: (!options.keeps_owners).then_some(options.owner.unwrap_or(owner)),
            disarms: self.container.is_none(),
        };
        Ok(place(stream, root, &placement)?)
    }

    /// Fails for a directory of /proc and the like in a container.
    fn refuse_kernel(&self, dir: &OwnedFd) -> Result<(), CopyError> {
        let Some(container) = self.container else { return Ok(()) };
        let found = is_of_kernel(dir.as_fd());
        match found.map_err(|errno| CallError { call: "statfs", path: self.shown().into(), errno })? {
            true => Err(CopyError::OfKernel { path: self.shown(), container: container.to_owned() }),
            false => Ok(()),
        }
    }

    fn missing(&self, path: String) -> CopyError {
        match self.container {
            Some(container) => CopyError::NotInContainer { path, container: container.to_owned() },
            None => CopyError::NotOnHost(path),
        }
    }

    /// True for a path that can only be that of a directory: with a slash or `/.` at its end.
    fn names_dir(&self) -> bool {
        self.path.ends_with(b"/") || self.is_contents()
    }

    /// True for a path that means the contents of a directory without the directory.
    fn is_contents(&self) -> bool {
        self.path == b"." || self.path.ends_with(b"/.")
    }

    /// Last name of the path as the user wrote it; `None` for `.`, `..` and the root.
    fn last_name(&self) -> Option<&[u8]> {
        let trimmed =
            self.path.iter().rposition(|byte| *byte != b'/').map_or(&[][..], |at| &self.path[..=at]);
        let name = trimmed.rsplit(|byte| *byte == b'/').next()?;
        (!matches!(name, b"" | b"." | b"..")).then_some(name)
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(self.path).into_owned()
    }

    /// Path with the container in front.
    fn named(&self) -> String {
        match self.container {
            Some(container) => format!("{container}:{}", self.shown()),
            None => self.shown(),
        }
    }
}

fn is_dir(stat: &Stat) -> bool {
    sys::file_type(stat) == FileType::Directory
}
