//! Sources of build contexts: directories, a stream, remote files, git repositories, and named contexts of all kinds.
//!
//! Fetched and unpacked files are in temporary directories, which exist as long as the opened context.

mod named;

pub use named::{NamedSource, load_layouts};

use crate::context::Context;
use crate::graph::Checkout;
use crate::images::ImageError;
use crate::mistake::Mistake;
use crate::plan::checkout;
use crate::remote::{Answer, Remote, Version, newest_in_archive};
use kiln_image::archive::ArchiveError;
use kiln_image::compression::{decompressed_limited, is_compressed};
use kiln_image::layer::{ApplyError, extract, is_tar};
use kiln_image::store::{ScratchDir, Store, StoreError};
use kiln_parser::git::{GitReference, GitReferenceError};
use kiln_parser::ignore::Patterns;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Limit for reading a Dockerfile in bytes: one more than its maximum, to detect larger ones.
const MAX_DOCKERFILE: u64 = (16 << 20) + 1;
/// Argument that stands for the input stream.
const STREAM: &str = "-";

/// Failure to open a context.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The directory, the Dockerfile or the ignore file has a mistake.
    #[error(transparent)]
    Mistake(#[from] Mistake),
    /// Both the context and the Dockerfile come from the stream.
    #[error("invalid argument: can't use stdin for both build context and dockerfile")]
    StreamTwice,
    /// The address of a repository is malformed.
    #[error("unable to prepare context: {address}: {problem}")]
    Address {
        /// Address as the user wrote it.
        address: String,
        /// Mistake in its query.
        problem: GitReferenceError,
    },
    /// A repository cannot be fetched.
    #[error("unable to prepare context: {address}")]
    Repository {
        /// Address of the repository.
        address: String,
        /// Error of the fetcher.
        #[source]
        source: ImageError,
    },
    /// The commit is not the one in the address.
    #[error("unable to prepare context: expected checksum to match {expected}, got {commit}")]
    Commit {
        /// Expected commit, or its first digits.
        expected: String,
        /// Commit to which the reference resolves.
        commit: String,
    },
    /// The repository has no such directory.
    #[error("unable to prepare context: {address}: no such directory in the repository: {dir:?}")]
    NoDirectory {
        /// Address of the repository.
        address: String,
        /// Path in the repository.
        dir: String,
    },
    /// A remote file cannot be fetched.
    #[error("unable to prepare context")]
    Download(#[source] ImageError),
    /// A server sent no file.
    #[error("{0}: the server sent nothing")]
    Nothing(String),
    /// The input, or a temporary file for it, cannot be read or written.
    #[error("cannot read the build context from {origin}")]
    Read {
        /// Description of the stream, or the address.
        origin: String,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
    /// An archive cannot be unpacked.
    #[error("cannot unpack the build context")]
    Unpack(#[from] ApplyError),
    /// A named context is malformed, or of the wrong kind.
    #[error("{message}")]
    Named {
        /// Message as one sentence.
        message: String,
        /// Possible remedy; `None` when there is none.
        hint: Option<&'static str>,
    },
    /// An OCI layout cannot be read.
    #[error(transparent)]
    Layout(#[from] ArchiveError),
    /// Reading or writing the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SourceError {
    /// Possible remedy; `None` when there is none.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            SourceError::StreamTwice => Some("name the context's directory, or a Dockerfile in the context"),
            SourceError::Address { .. } => Some("write REPOSITORY.git#REFERENCE:DIRECTORY"),
            SourceError::Repository { .. } => {
                Some("check the address, the reference behind `#`, and the credentials")
            }
            SourceError::Download(_) => Some("check the address, and that the server can be reached"),
            SourceError::Read { .. } => Some(
                "pipe a tar or a Dockerfile into the command, or name a directory, a URL or a git repository",
            ),
            SourceError::Unpack(_) => Some("give a tar, plain or compressed with gzip, bzip2, xz or zstd"),
            SourceError::Named { hint, .. } => *hint,
            _ => None,
        }
    }

    fn read(origin: &str) -> impl Fn(io::Error) -> SourceError {
        move |source| SourceError::Read { origin: origin.to_owned(), source }
    }
}

/// A context, and the temporary directories of its fetched parts, which are removed with it.
pub struct OpenedContext {
    /// Context for the build.
    pub context: Context,
    dirs: Vec<TemporaryDir>,
}

/// Temporary directory for fetched files.
enum TemporaryDir {
    /// Directory in the store, which removes those of dead processes when it is opened.
    Store(ScratchDir),
    /// Directory of the operating system, for builds without a store.
    System(tempfile::TempDir),
}

impl TemporaryDir {
    fn path(&self) -> &Path {
        match self {
            TemporaryDir::Store(dir) => dir.path(),
            TemporaryDir::System(dir) => dir.path(),
        }
    }
}

/// Arguments that describe a context, as the user wrote them.
#[derive(Clone, Copy, Debug)]
pub struct SourceRequest<'a> {
    /// A directory, an address, or `-` for the stream.
    pub place: &'a Path,
    /// The Dockerfile: a path, a URL, or `-` for the stream; `None` for `Dockerfile` in the context.
    pub file: Option<&'a Path>,
    /// Named contexts in the order of the options.
    pub named: &'a [NamedSource],
}

/// Opens contexts of all kinds.
pub struct ContextOpener<'a> {
    /// Store for temporary directories; `None` for those of the operating system.
    pub store: Option<&'a Store>,
    /// Fetches remote files and repositories.
    pub remote: &'a dyn Remote,
    /// Keep `.git` in contexts from git repositories.
    pub keeps_git: bool,
}

/// Kinds of context arguments.
enum Place<'a> {
    Stream,
    Git(Checkout),
    Web(&'a str),
    Dir(&'a Path),
}

impl<'a> Place<'a> {
    fn of(text: &'a str, path: &'a Path) -> Result<Place<'a>, SourceError> {
        if text == STREAM {
            return Ok(Place::Stream);
        }
        match GitReference::parse(text) {
            // `github.com/user/repository` may be a directory as well.
            Some(Ok(git)) if git.looks_local && path.exists() => Ok(Place::Dir(path)),
            Some(Ok(git)) => {
                let remote = match git.looks_local {
                    true => format!("https://{}", git.remote),
                    false => git.remote.clone(),
                };
                Ok(Place::Git(checkout(GitReference { remote, ..git }, false, None)))
            }
            Some(Err(problem)) => Err(SourceError::Address { address: text.to_owned(), problem }),
            None if is_web(text) => Ok(Place::Web(text)),
            None => Ok(Place::Dir(path)),
        }
    }
}

impl ContextOpener<'_> {
    /// Opens a context and the named ones; `input` is the stream of `-`.
    ///
    /// # Errors
    /// Fails when a context does not exist, cannot be fetched or unpacked, or has no Dockerfile.
    pub fn open(
        &self,
        request: &SourceRequest<'_>,
        input: &mut dyn Read,
    ) -> Result<OpenedContext, SourceError> {
        let text = request.place.to_string_lossy();
        let is_stream = |file: &Path| file == Path::new(STREAM);
        let mut opened = match (Place::of(&text, request.place)?, request.file) {
            (Place::Stream, Some(file)) if is_stream(file) => return Err(SourceError::StreamTwice),
            (Place::Stream, file) => {
                let input = BufReader::with_capacity(64 << 10, input);
                self.open_stream(input, file, "standard input", STREAM)?
            }
            (Place::Git(git), file) => self.open_git(&git, file, &text)?,
            (Place::Web(url), file) => self.open_web(url, file)?,
            (Place::Dir(dir), Some(file)) if is_stream(file) => {
                let bytes = read_dockerfile(input, "standard input")?;
                OpenedContext { context: Context::with_dockerfile(dir, bytes)?, dirs: Vec::new() }
            }
            (Place::Dir(dir), Some(file)) if file.to_str().is_some_and(is_web) => {
                let bytes = self.dockerfile_of_web(&file.to_string_lossy())?;
                OpenedContext { context: Context::with_dockerfile(dir, bytes)?, dirs: Vec::new() }
            }
            (Place::Dir(dir), file) => OpenedContext { context: Context::open(dir, file)?, dirs: Vec::new() },
        };
        for source in request.named {
            let context = source.open(self, &mut opened.dirs)?;
            opened.context.named.push(context);
        }
        Ok(opened)
    }

    fn dir(&self) -> Result<TemporaryDir, SourceError> {
        Ok(match self.store {
            Some(store) => TemporaryDir::Store(store.scratch_dir()?),
            None => {
                let made = tempfile::Builder::new().prefix("kiln-context-").tempdir();
                TemporaryDir::System(made.map_err(SourceError::read("a temporary directory"))?)
            }
        })
    }

    /// Opens a tar as the context; other input is a Dockerfile with an empty context.
    fn open_stream(
        &self,
        mut input: impl BufRead,
        file: Option<&Path>,
        origin: &str,
        name: &str,
    ) -> Result<OpenedContext, SourceError> {
        let failed = SourceError::read(origin);
        let dir = self.dir()?;
        let root = dir.path().join("context");
        std::fs::create_dir(&root).map_err(&failed)?;
        let start = input.fill_buf().map_err(&failed)?;
        let mut context = if is_compressed(start) || is_tar(start) {
            unpack(input, &root, origin)?;
            Context { is_archive: true, ..remote_context(&root, file)? }
        } else {
            Context::with_dockerfile(&root, read_dockerfile(&mut input, origin)?)?
        };
        // The temporary path must not become part of the identity of the steps.
        name.clone_into(&mut context.name);
        Ok(OpenedContext { context, dirs: vec![dir] })
    }

    fn open_git(
        &self,
        git: &Checkout,
        file: Option<&Path>,
        name: &str,
    ) -> Result<OpenedContext, SourceError> {
        let (dir, root, time) = self.check_out(git)?;
        let mut context = remote_context(&root, file)?;
        name.clone_into(&mut context.name);
        context.time = Some(time);
        Ok(OpenedContext { context, dirs: vec![dir] })
    }

    /// Checks a repository out. Returns the directory to keep, the requested directory in it, and the commit's time.
    fn check_out(&self, git: &Checkout) -> Result<(TemporaryDir, PathBuf, i64), SourceError> {
        let git = Checkout { keeps_git: git.keeps_git || self.keeps_git, ..git.clone() };
        let refused = |source| SourceError::Repository { address: git.remote.clone(), source };
        let dir = self.dir()?;
        let root = dir.path().join("context");
        std::fs::create_dir(&root).map_err(SourceError::read(&git.remote))?;
        let commit = self.remote.commit(&git).map_err(refused)?;
        if !commit.starts_with(&git.commit) {
            return Err(SourceError::Commit { expected: git.commit, commit });
        }
        let time = self.remote.check_out(&git, &commit, &root).map_err(refused)?;
        let wanted = root.join(&git.dir);
        // Links of a repository must not lead to files outside of it.
        let real = std::fs::canonicalize(&wanted).ok().filter(|real| {
            real.is_dir() && real.starts_with(std::fs::canonicalize(&root).unwrap_or_else(|_| root.clone()))
        });
        match real {
            Some(real) => Ok((dir, real, time)),
            None => Err(SourceError::NoDirectory { address: git.remote, dir: git.dir }),
        }
    }

    fn open_web(&self, url: &str, file: Option<&Path>) -> Result<OpenedContext, SourceError> {
        let (dir, path, version) = self.download(url)?;
        let input = BufReader::new(File::open(&path).map_err(SourceError::read(url))?);
        let mut opened = self.open_stream(input, file, url, url)?;
        opened.context.time = download_time(&version, &path);
        opened.dirs.push(dir);
        Ok(opened)
    }

    /// Downloads a file. Returns the directory to keep, the path of the file in it, and its version.
    fn download(&self, url: &str) -> Result<(TemporaryDir, PathBuf, Version), SourceError> {
        let dir = self.dir()?;
        let path = dir.path().join("download");
        let mut file = File::create_new(&path).map_err(SourceError::read(url))?;
        match self.remote.download(url, None, &mut file).map_err(SourceError::Download)? {
            Answer::File(version) => Ok((dir, path, version)),
            Answer::Unchanged => Err(SourceError::Nothing(url.to_owned())),
        }
    }

    fn dockerfile_of_web(&self, url: &str) -> Result<Vec<u8>, SourceError> {
        let (_dir, path, _) = self.download(url)?;
        read_dockerfile(&mut File::open(&path).map_err(SourceError::read(url))?, url)
    }
}

/// Time of a download: as its server reports it, or else that of the newest file in the archive; `None` without either.
fn download_time(version: &Version, path: &Path) -> Option<i64> {
    let reported = Some(version.time()).filter(|time| *time > 0);
    reported.or_else(|| newest_in_archive(File::open(path).ok()?))
}

fn is_web(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// Context in a fetched directory; an ignore file in it has no effect.
fn remote_context(root: &Path, file: Option<&Path>) -> Result<Context, SourceError> {
    let file: Option<PathBuf> = file.map(|file| root.join(file.strip_prefix("/").unwrap_or(file)));
    let mut context = Context::open(root, file.as_deref())?;
    context.ignore = Patterns::default();
    Ok(context)
}

/// Unpacks a tar, compressed or not.
fn unpack(input: impl BufRead, root: &Path, origin: &str) -> Result<(), SourceError> {
    let stream = decompressed_limited(input).map_err(SourceError::read(origin))?;
    extract(stream, root)?;
    Ok(())
}

fn read_dockerfile(input: &mut dyn Read, origin: &str) -> Result<Vec<u8>, SourceError> {
    let mut bytes = Vec::new();
    input.take(MAX_DOCKERFILE).read_to_end(&mut bytes).map_err(SourceError::read(origin))?;
    Ok(bytes)
}
