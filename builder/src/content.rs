//! Sources of COPY: patterns are resolved to files and directories, and these are hashed.
//!
//! The same code serves the build context and the trees of stages and images. A digest covers exactly the result of a
//! copy: names below each source, types, permissions, owners, link targets and bytes, but no times.

pub(crate) mod glob;
mod selection;
mod stat_cache;
mod walk;

pub use selection::CopySelection;
pub use stat_cache::StatCache;
pub(crate) use walk::each_file;
pub use walk::{FilesDigest, digest};

use crate::path;
use kiln_image::sys::{self, CallError, Named};
use kiln_image::tree::{RealPath, Tree};
use kiln_parser::ignore::{Decision, Patterns};
use kiln_parser::suggest;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, Stat};
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// A tree to copy from.
pub struct Content {
    tree: Tree,
    patterns: Patterns,
    /// Name of the ignore file, for messages.
    ignore_file: String,
    /// True for a context, false for the tree of a stage or image.
    is_context: bool,
    /// True when owners and attributes are those of host files, which have no meaning in an image.
    is_local: bool,
    /// Sources of the whole build in this context: other files count as missing.
    named: Vec<String>,
    /// Path of the directory for messages; empty for trees.
    shown: String,
}

/// A file or directory that a source names.
pub struct Source {
    /// Parent directory of the file.
    pub dir: OwnedFd,
    /// Name in the parent directory; `.` for the root.
    pub name: CString,
    /// Name of the copy in a destination directory.
    pub base: Vec<u8>,
    /// Path from the root, with links resolved.
    pub path: RealPath,
    /// Metadata of the file.
    pub stat: Stat,
    /// Patterns of the files to take from the directory; empty for all files.
    pub include: Patterns,
}

impl Source {
    /// True for a directory, whose content is copied.
    pub fn is_dir(&self) -> bool {
        sys::file_type(&self.stat) == FileType::Directory
    }
}

/// Failure to find a source.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// No file has that name, or the ignore file excludes it.
    #[error("failed to compute cache key: failed to calculate checksum: {path:?}: not found")]
    NotFound {
        /// Path of the source from the root.
        path: String,
        /// Possible causes and remedies, one sentence each.
        hints: Vec<String>,
        /// Description of the searched context or tree.
        origin: String,
    },
    /// The directory before a pattern does not exist.
    #[error("lstat {path}: no such file or directory")]
    NoDirectory {
        /// Path of the directory from the root.
        path: String,
        /// Possible causes and remedies, one sentence each.
        hints: Vec<String>,
        /// Description of the searched context or tree.
        origin: String,
    },
    /// A pattern in a source is malformed.
    #[error("{0:?}: syntax error in pattern")]
    Pattern(String),
    /// A file or directory cannot be read.
    #[error("cannot read what is copied")]
    Call(#[from] CallError),
}

impl Content {
    /// Build context in a directory, which messages call `shown`; `patterns` are from `ignore_file`.
    pub fn context(tree: Tree, patterns: Patterns, ignore_file: String, shown: String) -> Content {
        Content { patterns, ignore_file, is_context: true, is_local: true, shown, ..Content::tree(tree) }
    }

    /// Context that was unpacked from an archive: owners and attributes are those of the archive, and are kept.
    #[must_use]
    pub fn of_archive(self) -> Content {
        Content { is_local: false, ..self }
    }

    /// Context from which the build copies only the sources `named`.
    #[must_use]
    pub fn with_sources(self, named: Vec<String>) -> Content {
        Content { named, ..self }
    }

    /// Tree of a stage or image.
    pub fn tree(tree: Tree) -> Content {
        Content {
            tree,
            patterns: Patterns::default(),
            ignore_file: String::new(),
            is_context: false,
            is_local: false,
            named: Vec::new(),
            shown: String::new(),
        }
    }

    /// True for a host directory, whose files count as root's.
    pub fn is_local(&self) -> bool {
        self.is_local
    }

    /// Patterns of the ignore file.
    pub fn patterns(&self) -> &Patterns {
        &self.patterns
    }

    /// Finds a source: one file or directory, or all that match a pattern.
    ///
    /// # Errors
    /// [`ContentError::NotFound`] for a missing or ignored file, [`ContentError::NoDirectory`] for a pattern below a
    /// missing directory, [`ContentError::Pattern`] for a malformed pattern.
    pub fn find(&self, source: &str) -> Result<Vec<Source>, ContentError> {
        let (literal, pattern) = glob::split(source);
        if pattern.is_empty() {
            return Ok(vec![self.find_one(&literal)?]);
        }
        let components = glob::compile(&pattern).ok_or_else(|| ContentError::Pattern(source.to_owned()))?;
        let real = self.tree.resolve(literal.as_bytes())?;
        let mut found = Vec::new();
        self.match_below(&real, &components, &mut found)?;
        if found.is_empty() && self.is_context && !self.is_taken(&literal)? {
            let hints = self.hints(&literal, &real)?;
            return Err(ContentError::NoDirectory { path: literal, hints, origin: String::new() });
        }
        Ok(found)
    }

    /// True when the build copies the directory `path` of this context, or a file in it. The reference fails for
    /// patterns below other directories, since its client sends only what is copied.
    fn is_taken(&self, path: &str) -> Result<bool, ContentError> {
        let own = self.tree.resolve_parent(path.as_bytes())?;
        if own.names().is_empty() || own != self.tree.resolve(path.as_bytes())? {
            // The root always exists, and a link is sent regardless of its target.
            return Ok(true);
        }
        let Some(stat) = self.tree.stat(&own)? else { return Ok(false) };
        if !self.is_visible(&own, sys::file_type(&stat) == FileType::Directory)? {
            return Ok(false);
        }
        for source in &self.named {
            let (literal, pattern) = glob::split(source);
            let above = self.tree.resolve(literal.as_bytes())?;
            let mut found = Vec::new();
            if pattern.is_empty() {
                found.extend(self.source(&above, Vec::new())?);
            } else if let Some(components) = glob::compile(&pattern) {
                // A match with a dangling link fails where it is copied.
                let _ = self.match_below(&above, &components, &mut found);
            }
            if found.iter().any(|found| found.path.contains(&own) || own.contains(&found.path)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Finds the source of `COPY --parents`: a directory, and the pattern of the files to take from it.
    ///
    /// `before/./after` is `after` below the directory `before`; without `/./` the directory is the root.
    ///
    /// # Errors
    /// [`ContentError::NotFound`] for a missing or ignored file, [`ContentError::Pattern`] for a malformed pattern.
    pub fn find_with_parents(&self, source: &str) -> Result<Vec<Source>, ContentError> {
        let (pivot, pattern) = source.split_once("/./").unwrap_or(("", source));
        let pattern = path::join("/", pattern);
        if !glob::has_wildcards(&pattern) {
            // A source without wildcards must exist.
            self.find_one(&path::join(&path::join("/", pivot), &pattern))?;
        }
        let include = match pattern.trim_start_matches('/') {
            "" => Patterns::default(),
            pattern => Patterns::compile([pattern]).map_err(|_| ContentError::Pattern(source.to_owned()))?,
        };
        let dirs = self.find(&path::join("/", pivot))?;
        Ok(dirs.into_iter().map(|dir| Source { include: include.clone(), ..dir }).collect())
    }

    fn find_one(&self, path: &str) -> Result<Source, ContentError> {
        let real = self.tree.resolve(path.as_bytes())?;
        let base = path.rsplit('/').find(|name| !name.is_empty()).unwrap_or_default();
        match self.source(&real, base.as_bytes().to_vec())? {
            Some(source) if self.is_visible(&real, source.is_dir())? => Ok(source),
            _ => Err(self.not_found(path, &real)?),
        }
    }

    fn source(&self, real: &RealPath, base: Vec<u8>) -> Result<Option<Source>, CallError> {
        let Some(name) = real.name() else {
            let dir = self.tree.open_dir(real)?;
            let stat = rustix::fs::fstat(&dir).call("stat", real.display())?;
            let (name, path) = (c".".to_owned(), real.clone());
            return Ok(Some(Source { dir, name, base, path, stat, include: Patterns::default() }));
        };
        let dir = match self.tree.open_dir(&real.parent()) {
            Ok(dir) => dir,
            Err(error) if error.is_not_found() || error.errno == rustix::io::Errno::NOTDIR => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let stat = sys::stat_at(dir.as_fd(), name).call("stat", real.display())?;
        let (name, path) = (name.clone(), real.clone());
        Ok(stat.map(|stat| Source { dir, name, base, path, stat, include: Patterns::default() }))
    }

    /// False for ignored files; an ignored directory is visible when it contains a file that is not ignored.
    fn is_visible(&self, real: &RealPath, is_dir: bool) -> Result<bool, CallError> {
        if self.patterns.is_empty() || real.names().is_empty() {
            return Ok(true);
        }
        let decision = self.patterns.decide_without_parent(&text(real));
        Ok(!decision.is_ignored() || (is_dir && self.lets_in(real, &decision)?))
    }

    /// True when the ignored directory `above`, for which the patterns returned `decision`, contains a file that is not
    /// ignored.
    fn lets_in(&self, above: &RealPath, decision: &Decision) -> Result<bool, CallError> {
        if self.patterns.prunes(&text(above), decision) {
            return Ok(false);
        }
        let opened = self.tree.open_dir(above)?;
        for name in sys::sorted_names(opened.as_fd()).call("getdents", above.display())? {
            let path = above.child(&name);
            let decision = self.patterns.decide(&text(&path), Some(decision));
            if !decision.is_ignored() {
                return Ok(true);
            }
            let stat = sys::stat_at(opened.as_fd(), &name).call("stat", path.display())?;
            let is_dir = stat.is_some_and(|stat| sys::file_type(&stat) == FileType::Directory);
            if is_dir && self.lets_in(&path, &decision)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn match_below(
        &self,
        dir: &RealPath,
        components: &[glob::Component],
        found: &mut Vec<Source>,
    ) -> Result<(), ContentError> {
        let Some((component, rest)) = components.split_first() else { return Ok(()) };
        let opened = match self.tree.open_dir(dir) {
            Ok(opened) => opened,
            // Missing, or not a directory: nothing matches.
            Err(_) => return Ok(()),
        };
        for name in sys::sorted_names(opened.as_fd()).call("getdents", dir.display())? {
            if !component.matches(&name.to_string_lossy()) {
                continue;
            }
            let path = dir.child(&name);
            let stat = sys::stat_at(opened.as_fd(), &name).call("stat", path.display())?;
            let Some(stat) = stat else { continue };
            let is_dir = sys::file_type(&stat) == FileType::Directory;
            if rest.is_empty() {
                if self.is_visible(&path, is_dir)? {
                    found.push(self.matched(&path, &name)?);
                }
            } else if is_dir {
                self.match_below(&path, rest, found)?;
            }
        }
        Ok(())
    }

    /// Source of a matched name: links are followed, as for sources without wildcards.
    fn matched(&self, path: &RealPath, name: &CStr) -> Result<Source, ContentError> {
        let shown = path.display().display().to_string();
        let real = self.tree.resolve(&path.to_bytes())?;
        match self.source(&real, name.to_bytes().to_vec())? {
            Some(source) if real == *path || self.is_visible(&real, source.is_dir())? => Ok(source),
            _ => Err(self.not_found(&shown, &real)?),
        }
    }

    fn not_found(&self, path: &str, real: &RealPath) -> Result<ContentError, CallError> {
        let hints = self.hints(path, real)?;
        Ok(ContentError::NotFound { path: path.to_owned(), hints, origin: String::new() })
    }

    /// Possible causes for a path that does not exist or is ignored.
    fn hints(&self, path: &str, real: &RealPath) -> Result<Vec<String>, CallError> {
        let mut hints = Vec::new();
        let is_link = self.tree.resolve_parent(path.as_bytes())? != *real;
        if self.tree.stat(real)?.is_some() {
            let decision = self.patterns.decide_without_parent(&text(real));
            if let Some((line, pattern)) = self.patterns.decided_by(&decision) {
                let file = &self.ignore_file;
                hints.push(format!("it exists, but {file}:{line} leaves it out: `{pattern}`"));
            }
        } else if is_link {
            hints.push(format!("`{path}` is a link that leads to `/{}`, where nothing is", shown(real)));
        } else if let Some(near) = self.near_name(real) {
            hints.push(format!("did you mean {near}?"));
        }
        Ok(hints)
    }

    /// Adds a description of the searched context or tree to an error.
    pub(crate) fn told(&self, error: ContentError, from: &str) -> ContentError {
        let place = if self.shown.is_empty() { String::new() } else { format!(", {}", self.shown) };
        let hint = format!("paths are looked for in {from}{place}");
        let with = |mut hints: Vec<String>| {
            hints.push(hint.clone());
            hints
        };
        let origin = from.to_owned();
        match error {
            ContentError::NotFound { path, hints, .. } => {
                ContentError::NotFound { path, hints: with(hints), origin }
            }
            ContentError::NoDirectory { path, hints, .. } => {
                ContentError::NoDirectory { path, hints: with(hints), origin }
            }
            other => other,
        }
    }

    /// Name similar to the missing one, in the deepest directory of the path that exists; `None` when there is none.
    fn near_name(&self, real: &RealPath) -> Option<String> {
        let mut dir = RealPath::root();
        for name in real.names() {
            let opened = self.tree.open_dir(&dir).ok()?;
            let names = sys::sorted_names(opened.as_fd()).ok()?;
            if names.contains(name) {
                dir = dir.child(name);
                continue;
            }
            let names: Vec<String> = names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
            let near = suggest::nearest(&name.to_string_lossy(), names.iter().map(String::as_str))?;
            let exact = names.iter().find(|name| name.eq_ignore_ascii_case(&near)).cloned().unwrap_or(near);
            return Some(shown(&dir.child(&CString::new(exact).ok()?)));
        }
        None
    }
}

/// Converts a path to the text that patterns match.
fn text(real: &RealPath) -> String {
    String::from_utf8_lossy(&real.to_bytes()).into_owned()
}

fn shown(real: &RealPath) -> String {
    PathBuf::from(OsStr::from_bytes(&real.to_bytes())).display().to_string()
}
