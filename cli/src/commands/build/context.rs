//! Where the files and the Dockerfile of a build come from: directories, standard input, the web, git repositories.

use super::named;
use crate::error::{BuildFailure, CliError, chain};
use crate::remote::Fetcher;
use kiln_builder::context::Context;
use kiln_builder::remote::{Answer, Remote, Version, newest_in_archive};
use kiln_builder::{Checkout, Mistake, checkout};
use kiln_image::compression::{decompressed_within_reason, is_compressed};
use kiln_image::layer::{extract, is_tar};
use kiln_image::store::{ScratchDir, Store};
use kiln_parser::git::GitReference;
use kiln_parser::ignore::Patterns;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Larger Dockerfiles are refused; a little more is read, to know.
const MAX_DOCKERFILE: u64 = (16 << 20) + 1;

/// A context, and the directories that parts of it were fetched into, which go with it.
pub(super) struct Opened {
    pub(super) context: Context,
    pub(super) dirs: Vec<TemporaryDir>,
}

/// A directory for what is fetched.
pub(super) enum TemporaryDir {
    /// Of the store: what is left of it goes when the store is opened again.
    Store(ScratchDir),
    /// Where there is no store.
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

/// Opens contexts.
pub(super) struct Opener<'a> {
    pub(super) store: Option<&'a Store>,
    pub(super) fetcher: &'a Fetcher<'a>,
    /// `.git` stays in contexts from git repositories.
    pub(super) keeps_git: bool,
}

/// What the words of a command line mean.
enum Place<'a> {
    Stdin,
    Git(Checkout),
    Web(&'a str),
    Dir(&'a Path),
}

fn place<'a>(text: &'a str, path: &'a Path) -> Result<Place<'a>, CliError> {
    if text == "-" {
        return Ok(Place::Stdin);
    }
    match GitReference::parse(text) {
        // `github.com/user/repository` may be a directory, too.
        Some(Ok(git)) if git.looks_local && path.exists() => Ok(Place::Dir(path)),
        Some(Ok(git)) => {
            let git = GitReference {
                remote: if git.looks_local { format!("https://{}", git.remote) } else { git.remote.clone() },
                ..git
            };
            Ok(Place::Git(checkout(git, false, None)))
        }
        Some(Err(problem)) => Err(CliError::failed(format!("unable to prepare context: {text}: {problem}"))
            .hint("write REPOSITORY.git#REFERENCE:DIRECTORY")),
        None if text.starts_with("http://") || text.starts_with("https://") => Ok(Place::Web(text)),
        None => Ok(Place::Dir(path)),
    }
}

fn built(result: Result<Context, Mistake>) -> Result<Context, CliError> {
    result.map_err(|mistake| {
        CliError::Build(Box::new(BuildFailure { error: mistake.into(), source: None, is_shown: false }))
    })
}

impl Opener<'_> {
    /// Opens the context that the command line names, and the named ones.
    pub(super) fn open(
        &self,
        path: &Path,
        file: Option<&Path>,
        contexts: &[named::NamedFlag],
    ) -> Result<Opened, CliError> {
        let text = path.to_string_lossy();
        let stdin = Path::new("-");
        let mut opened = match (place(&text, path)?, file) {
            (Place::Stdin, Some(file)) if file == stdin => {
                return Err(CliError::failed(
                    "failed to build: invalid argument: can't use stdin for both build context and dockerfile",
                )
                .hint("name the context's directory, or a Dockerfile in the context"));
            }
            (Place::Stdin, file) => self.open_stdin(file)?,
            (Place::Git(git), file) => self.open_git(&git, file, &text)?,
            (Place::Web(url), file) => self.open_web(url, file)?,
            (Place::Dir(dir), Some(file)) if file == stdin => {
                let context = built(Context::with_dockerfile(dir, read_stdin()?))?;
                Opened { context, dirs: Vec::new() }
            }
            (Place::Dir(dir), Some(file)) if is_web(file) => {
                let bytes = self.dockerfile_of_web(&file.to_string_lossy())?;
                Opened { context: built(Context::with_dockerfile(dir, bytes))?, dirs: Vec::new() }
            }
            (Place::Dir(dir), file) => Opened { context: built(Context::open(dir, file))?, dirs: Vec::new() },
        };
        for context in contexts {
            let source = named::open(self, context, &mut opened.dirs)?;
            opened.context.named.push(source);
        }
        Ok(opened)
    }

    pub(super) fn dir(&self) -> Result<TemporaryDir, CliError> {
        Ok(match self.store {
            Some(store) => TemporaryDir::Store(store.scratch_dir()?),
            None => {
                let made = tempfile::Builder::new().prefix("kiln-context-").tempdir();
                TemporaryDir::System(made.map_err(|error| failed("a temporary directory", &error))?)
            }
        })
    }

    /// A tar is the context; anything else is a Dockerfile without one.
    fn open_stdin(&self, file: Option<&Path>) -> Result<Opened, CliError> {
        let input = BufReader::with_capacity(64 << 10, std::io::stdin());
        self.open_stream(input, file, "standard input", "-")
    }

    fn open_stream(
        &self,
        mut input: impl BufRead,
        file: Option<&Path>,
        origin: &str,
        name: &str,
    ) -> Result<Opened, CliError> {
        let dir = self.dir()?;
        let root = dir.path().join("context");
        std::fs::create_dir(&root).map_err(|error| failed(origin, &error))?;
        let start = input.fill_buf().map_err(|error| failed(origin, &error))?;
        let mut context = if is_compressed(start) || is_tar(start) {
            unpack(input, &root, origin)?;
            Context { is_archive: true, ..remote_context(&root, file)? }
        } else {
            let mut bytes = Vec::new();
            let read = input.take(MAX_DOCKERFILE).read_to_end(&mut bytes);
            read.map_err(|error| failed(origin, &error))?;
            built(Context::with_dockerfile(&root, bytes))?
        };
        // Where it was unpacked says nothing about whose steps these are.
        name.clone_into(&mut context.name);
        Ok(Opened { context, dirs: vec![dir] })
    }

    fn open_git(&self, git: &Checkout, file: Option<&Path>, name: &str) -> Result<Opened, CliError> {
        let (dir, root, time) = self.check_out(git)?;
        let mut context = remote_context(&root, file)?;
        name.clone_into(&mut context.name);
        context.time = Some(time);
        Ok(Opened { context, dirs: vec![dir] })
    }

    /// Checks a repository out; gives the directory to keep, the one that is asked for in it, and the commit's time.
    pub(super) fn check_out(&self, git: &Checkout) -> Result<(TemporaryDir, PathBuf, i64), CliError> {
        let git = Checkout { keeps_git: git.keeps_git || self.keeps_git, ..git.clone() };
        let refused = |error: &(dyn std::error::Error + 'static)| {
            CliError::failed(format!(
                "failed to build: unable to prepare context: {}: {}",
                git.remote,
                chain(error)
            ))
            .hint("check the address, the reference behind `#`, and the credentials")
        };
        let dir = self.dir()?;
        let root = dir.path().join("context");
        std::fs::create_dir(&root).map_err(|error| failed(&git.remote, &error))?;
        let fetcher = self.fetcher.named_by_user();
        let commit = fetcher.commit(&git).map_err(|error| refused(error.as_ref()))?;
        if !commit.starts_with(&git.commit) {
            return Err(CliError::failed(format!(
                "failed to build: unable to prepare context: expected checksum to match {}, got {commit}",
                git.commit
            )));
        }
        let time = fetcher.check_out(&git, &commit, &root).map_err(|error| refused(error.as_ref()))?;
        let wanted = root.join(&git.dir);
        // Links of a repository must not lead out of it.
        let real = std::fs::canonicalize(&wanted).ok().filter(|real| {
            real.is_dir() && real.starts_with(std::fs::canonicalize(&root).unwrap_or_else(|_| root.clone()))
        });
        match real {
            Some(real) => Ok((dir, real, time)),
            None => Err(CliError::failed(format!(
                "failed to build: unable to prepare context: {}: no such directory in the repository: {:?}",
                git.remote, git.dir
            ))),
        }
    }

    fn open_web(&self, url: &str, file: Option<&Path>) -> Result<Opened, CliError> {
        let (dir, path, version) = self.download(url)?;
        let input = BufReader::new(File::open(&path).map_err(|error| failed(url, &error))?);
        let mut opened = self.open_stream(input, file, url, url)?;
        opened.context.time = download_time(&version, &path);
        opened.dirs.push(dir);
        Ok(opened)
    }

    /// Fetches a file; gives the directory to keep, the file in it, and what the server says of it.
    pub(super) fn download(&self, url: &str) -> Result<(TemporaryDir, PathBuf, Version), CliError> {
        let dir = self.dir()?;
        let path = dir.path().join("download");
        let mut file = File::create_new(&path).map_err(|error| failed(url, &error))?;
        let answer = self.fetcher.download(url, None, &mut file).map_err(|error| {
            CliError::failed(format!("failed to build: unable to prepare context: {}", chain(error.as_ref())))
                .hint("check the address, and that the server can be reached")
        })?;
        match answer {
            Answer::File(version) => Ok((dir, path, version)),
            Answer::Unchanged => Err(CliError::failed(format!("{url}: the server sent nothing"))),
        }
    }

    fn dockerfile_of_web(&self, url: &str) -> Result<Vec<u8>, CliError> {
        let (_dir, path, _) = self.download(url)?;
        let mut bytes = Vec::new();
        let file = File::open(&path).map_err(|error| failed(url, &error))?;
        file.take(MAX_DOCKERFILE).read_to_end(&mut bytes).map_err(|error| failed(url, &error))?;
        Ok(bytes)
    }
}

/// When a download is from: as its server says, or else as the newest of its files is.
pub(super) fn download_time(version: &Version, path: &Path) -> Option<i64> {
    let told = Some(version.time()).filter(|time| *time > 0);
    told.or_else(|| newest_in_archive(File::open(path).ok()?))
}

fn is_web(file: &Path) -> bool {
    file.to_str().is_some_and(|text| text.starts_with("http://") || text.starts_with("https://"))
}

/// A directory that came from elsewhere: no file of it is left out.
fn remote_context(root: &Path, file: Option<&Path>) -> Result<Context, CliError> {
    let file: Option<PathBuf> = file.map(|file| root.join(file.strip_prefix("/").unwrap_or(file)));
    let mut context = built(Context::open(root, file.as_deref()))?;
    context.ignore = Patterns::default();
    Ok(context)
}

/// Unpacks a tar, compressed or not.
pub(super) fn unpack(input: impl BufRead, root: &Path, origin: &str) -> Result<(), CliError> {
    let stream = decompressed_within_reason(input).map_err(|error| failed(origin, &error))?;
    extract(stream, root).map_err(|error| {
        CliError::failed(format!("cannot unpack the build context: {}", chain(&error)))
            .hint("give a tar, plain or compressed with gzip, bzip2, xz or zstd")
    })?;
    Ok(())
}

fn read_stdin() -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().take(MAX_DOCKERFILE).read_to_end(&mut bytes);
    read.map_err(|error| failed("standard input", &error))?;
    Ok(bytes)
}

fn failed(origin: &str, error: &std::io::Error) -> CliError {
    CliError::failed(format!("cannot read the build context from {origin}: {error}"))
        .hint("pipe a tar or a Dockerfile into the command, or name a directory, a URL or a git repository")
}
