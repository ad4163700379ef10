//! The build context: a directory, the Dockerfile, and the ignore file.

use crate::mistake::Mistake;
use kiln_image::sys::{self, CallError};
use kiln_image::tree::Tree;
use kiln_parser::Source;
use kiln_parser::ignore::Patterns;
use kiln_parser::suggest;
use rustix::fs::FileType;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Default names of the Dockerfile, in order.
const NAMES: [&str; 2] = ["Dockerfile", "dockerfile"];
const IGNORE_FILE: &str = ".dockerignore";
/// Size limit of Dockerfiles and ignore files in bytes.
const MAX_SIZE: u64 = 16 << 20;

/// Input of a build.
#[derive(Clone, Debug)]
pub struct Context {
    /// Directory from which COPY takes files.
    pub dir: PathBuf,
    /// Text and name of the Dockerfile.
    pub source: Source,
    /// Patterns of the ignore file.
    pub ignore: Patterns,
    /// Name of the ignore file.
    pub ignore_name: String,
    /// Identity of the Dockerfile across builds: its path, or the address of the context.
    pub name: String,
    /// Named contexts in the order of the options.
    pub named: Vec<NamedContext>,
    /// True when it was unpacked from an archive: then owners are kept.
    pub is_archive: bool,
    /// Time of the commit or download in seconds since 1970; `None` for other contexts.
    pub time: Option<i64>,
}

/// A context with a name: `--build-context`.
#[derive(Clone, Debug)]
pub struct NamedContext {
    /// Name of the stage or image that it replaces, or a name for COPY and mounts.
    pub name: String,
    /// Files, image or stage behind the name.
    pub source: ContextSource,
    /// Time of the commit or download in seconds since 1970; `None` for other contexts.
    pub time: Option<i64>,
}

/// Kinds of named contexts.
#[derive(Clone, Debug)]
pub enum ContextSource {
    /// A directory of the host.
    Dir(LocalDir),
    /// An image by its reference.
    Image(String),
    /// A stage of the same file.
    Stage(String),
}

/// A directory of the host, and its ignore patterns.
#[derive(Clone, Debug)]
pub struct LocalDir {
    /// Path of the directory.
    pub dir: PathBuf,
    /// Patterns of the ignore file.
    pub ignore: Patterns,
    /// Name of the ignore file.
    pub ignore_name: String,
    /// True when it was unpacked from an archive: then owners are kept.
    pub is_archive: bool,
}

impl LocalDir {
    /// Opens a directory with its ignore file.
    ///
    /// # Errors
    /// Fails when the ignore file is malformed or cannot be read.
    pub fn open(dir: &Path) -> Result<LocalDir, Mistake> {
        let (ignore_name, ignore) = read_ignore(dir, &dir.join(NAMES[0]))?;
        Ok(LocalDir { dir: dir.to_owned(), ignore, ignore_name, is_archive: false })
    }

    /// Directory without an ignore file: all files are copied.
    pub fn unfiltered(dir: &Path) -> LocalDir {
        let ignore_name = IGNORE_FILE.to_owned();
        LocalDir { dir: dir.to_owned(), ignore: Patterns::default(), ignore_name, is_archive: false }
    }
}

impl Context {
    /// Reads the Dockerfile and the ignore file of the context `dir`.
    ///
    /// `file` is the path of the Dockerfile, relative to the working directory; `None` for `Dockerfile` in the context.
    ///
    /// # Errors
    /// Fails when the directory or the Dockerfile is missing or cannot be read, or the ignore file is malformed.
    pub fn open(dir: &Path, file: Option<&Path>) -> Result<Context, Mistake> {
        if !dir.is_dir() {
            let what = if dir.exists() { "is not a directory" } else { "not found" };
            return Err(Mistake::Option {
                message: format!("unable to prepare context: path {:?} {what}", dir.display().to_string()),
                hints: vec!["give the directory that holds the files to build from, such as `.`".to_owned()],
            });
        }
        let file = match file {
            Some(file) => file.to_owned(),
            None => find_dockerfile(dir),
        };
        let source = read_dockerfile(dir, &file)?;
        let (ignore_name, ignore) = read_ignore(dir, &file)?;
        let name = std::fs::canonicalize(&file).unwrap_or_else(|_| file.clone()).display().to_string();
        Ok(Context {
            dir: dir.to_owned(),
            source,
            ignore,
            ignore_name,
            name,
            named: Vec::new(),
            is_archive: false,
            time: None,
        })
    }

    /// Directories to copy from: the context, then the named ones by number; `None` for images and stages.
    pub(crate) fn dirs(&self) -> Vec<Option<LocalDir>> {
        let own = LocalDir {
            dir: self.dir.clone(),
            ignore: self.ignore.clone(),
            ignore_name: self.ignore_name.clone(),
            is_archive: self.is_archive,
        };
        let named = self.named.iter().map(|context| match &context.source {
            ContextSource::Dir(dir) => Some(dir.clone()),
            ContextSource::Image(_) | ContextSource::Stage(_) => None,
        });
        std::iter::once(Some(own)).chain(named).collect()
    }

    /// Context whose Dockerfile was read elsewhere, such as from standard input.
    ///
    /// # Errors
    /// Fails when the Dockerfile is too large, or the ignore file is malformed.
    pub fn with_dockerfile(dir: &Path, bytes: Vec<u8>) -> Result<Context, Mistake> {
        if bytes.len() as u64 > MAX_SIZE {
            return Err(Mistake::Option {
                message: "failed to read dockerfile: too large".to_owned(),
                hints: vec!["a Dockerfile holds at most 16 MiB".to_owned()],
            });
        }
        let (ignore_name, ignore) = read_ignore(dir, &dir.join(NAMES[0]))?;
        let source = Source::new(NAMES[0], bytes);
        let name = "-".to_owned();
        let dir = dir.to_owned();
        Ok(Context {
            dir,
            source,
            ignore,
            ignore_name,
            name,
            named: Vec::new(),
            is_archive: false,
            time: None,
        })
    }
}

fn find_dockerfile(dir: &Path) -> PathBuf {
    let existing = NAMES.iter().map(|name| dir.join(name)).find(|path| path.exists());
    existing.unwrap_or_else(|| dir.join(NAMES[0]))
}

fn read_dockerfile(dir: &Path, file: &Path) -> Result<Source, Mistake> {
    let shown = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
    let fail = |reason: String, hint: &str| {
        Err(Mistake::Option {
            message: format!("failed to read dockerfile: open {}: {reason}", file.display()),
            hints: vec![hint.to_owned()],
        })
    };
    match read_file(dir, file) {
        Ok(bytes) => Ok(Source::new(shown, bytes)),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => fail("no such file or directory".to_owned(), &where_else(dir, file)),
            io::ErrorKind::IsADirectory => fail("is a directory".to_owned(), "name the file itself with -f"),
            io::ErrorKind::FileTooLarge => fail("too large".to_owned(), "a Dockerfile holds at most 16 MiB"),
            io::ErrorKind::InvalidInput => {
                fail("is not a regular file".to_owned(), "name a file with -f, or pipe one in with -f -")
            }
            _ => fail(error.to_string(), "check the permissions of the file"),
        },
    }
}

/// Hint for a Dockerfile that does not exist.
fn where_else(dir: &Path, file: &Path) -> String {
    let write = |path: &Path| format!("-f is read from the current directory: write -f {}", path.display());
    if std::fs::symlink_metadata(file).is_ok() {
        return "it is a link out of the build context: name the file itself with -f".to_owned();
    }
    let in_context = dir.join(file);
    if file.is_relative() && in_context.is_file() {
        return write(&in_context);
    }
    let mut rest = file.components();
    while rest.next().is_some() && !rest.as_path().as_os_str().is_empty() {
        if rest.as_path().is_file() {
            return write(rest.as_path());
        }
    }
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let near = suggest::nearest(&name, names.iter().map(String::as_str));
    let near = near.filter(|near| names.contains(near)).or_else(|| {
        let is_like = |it: &&String| {
            it.to_lowercase().contains("dockerfile")
                && !it.ends_with(".dockerignore")
                && directory.join(it).is_file()
        };
        names.iter().find(is_like).cloned()
    });
    match near {
        Some(near) => format!("did you mean -f {}?", directory.join(near).display()),
        None if !directory.is_dir() => {
            format!("there is no directory {}: check the path", directory.display())
        }
        None => format!("there is no Dockerfile in {}: name the file with -f", directory.display()),
    }
}

/// Reads a file of the context. Links are resolved inside the context, so that they cannot expose files of the host,
/// and reading does not block. The user named a file outside of the context explicitly, so it is read directly.
fn read_file(dir: &Path, file: &Path) -> io::Result<Vec<u8>> {
    let bytes = match below(dir, file) {
        Some((root, below)) => read_inside(&root, &below)?,
        None if std::fs::metadata(file)?.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
        None => {
            let mut bytes = Vec::new();
            File::open(file)?.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
            bytes
        }
    };
    if bytes.len() as u64 > MAX_SIZE { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

fn read_inside(root: &Path, file: &Path) -> io::Result<Vec<u8>> {
    let failed = |error: CallError| io::Error::from(error.errno);
    let tree = Tree::open(root).map_err(failed)?;
    let real = tree.resolve(file.as_os_str().as_bytes()).map_err(failed)?;
    let Some(stat) = tree.stat(&real).map_err(failed)? else { return Err(io::ErrorKind::NotFound.into()) };
    match sys::file_type(&stat) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(io::ErrorKind::IsADirectory.into()),
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    }
    let bytes = tree.read_file(&real.to_bytes(), MAX_SIZE + 1).map_err(failed)?;
    bytes.ok_or_else(|| io::ErrorKind::PermissionDenied.into())
}

/// The context and the path of a file below it; `None` for files outside of the context.
fn below(dir: &Path, file: &Path) -> Option<(PathBuf, PathBuf)> {
    let above = file.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (root, above) = (dir.canonicalize().ok()?, above.canonicalize().ok()?);
    let below = above.strip_prefix(&root).ok()?.join(file.file_name()?);
    Some((root, below))
}

/// Reads `NAME.dockerignore` beside the Dockerfile, or `.dockerignore` in the context.
fn read_ignore(dir: &Path, file: &Path) -> Result<(String, Patterns), Mistake> {
    let mut own = file.as_os_str().to_owned();
    own.push(IGNORE_FILE);
    for path in [PathBuf::from(own), dir.join(IGNORE_FILE)] {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match read_file(dir, &path) {
            Ok(bytes) => {
                let patterns = Patterns::parse(&String::from_utf8_lossy(&bytes));
                let patterns = patterns
                    .map_err(|error| Mistake::Ignore { file: name.clone(), message: error.to_string() })?;
                return Ok((name, patterns));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let message = match error.kind() {
                    io::ErrorKind::InvalidInput => "is not a regular file".to_owned(),
                    io::ErrorKind::IsADirectory => "is a directory".to_owned(),
                    io::ErrorKind::FileTooLarge => "is larger than 16 MiB".to_owned(),
                    _ => error.to_string(),
                };
                return Err(Mistake::Ignore { file: name, message });
            }
        }
    }
    Ok((IGNORE_FILE.to_owned(), Patterns::default()))
}
