//! What COPY takes: patterns become files and folders, and these a digest.
//!
//! The same code serves the build context and the trees of stages and images. A digest covers exactly what a
//! copy would make: names below each source, types, permissions, owners, link targets and bytes, and no
//! times.

mod glob;
mod selection;
mod stat_cache;
mod walk;

pub use selection::CopySelection;
pub use stat_cache::StatCache;
pub use walk::{Digested, digest};

use crate::plan::path;
use kiln_image::sys::{self, CallError, Named};
use kiln_image::tree::{RealPath, Tree};
use kiln_parser::ignore::Patterns;
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
    /// The file that the patterns come from, for explanations.
    ignore_file: String,
    /// All files count as root's.
    is_context: bool,
    /// The folder as messages name it.
    shown: String,
}

/// A file or folder that a source names.
pub struct Source {
    /// The folder that holds it.
    pub folder: OwnedFd,
    /// Its name there; `.` for the root.
    pub name: CString,
    /// The name that a copy of it gets in a folder.
    pub base: Vec<u8>,
    /// Where it really is, from the root.
    pub path: RealPath,
    /// What it is.
    pub stat: Stat,
    /// Only what matches is taken out of the folder; everything when there are no patterns.
    pub include: Patterns,
}

impl Source {
    /// True for a folder, of which the contents are copied.
    pub fn is_folder(&self) -> bool {
        sys::file_type(&self.stat) == FileType::Directory
    }
}

/// Why there is nothing to copy.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// Nothing of that name, or it is left out.
    #[error("failed to calculate checksum: {path:?}: not found")]
    NotFound {
        /// The path from the root.
        path: String,
        /// What to know about it.
        hints: Vec<String>,
    },
    /// A pattern in a name that is none.
    #[error("{0:?}: syntax error in pattern")]
    Pattern(String),
    /// Reading failed.
    #[error("cannot read what is copied")]
    Call(#[from] CallError),
}

impl Content {
    /// The build context below a folder, which messages call `shown`; `patterns` come from `ignore_file`.
    pub fn context(tree: Tree, patterns: Patterns, ignore_file: String, shown: String) -> Content {
        Content { tree, patterns, ignore_file, is_context: true, shown }
    }

    /// The tree of a stage or image.
    pub fn tree(tree: Tree) -> Content {
        let (ignore_file, shown) = (String::new(), String::new());
        Content { tree, patterns: Patterns::default(), ignore_file, is_context: false, shown }
    }

    /// True for the build context, whose files count as root's.
    pub fn is_context(&self) -> bool {
        self.is_context
    }

    /// The patterns that say what is left out.
    pub fn patterns(&self) -> &Patterns {
        &self.patterns
    }

    /// What a source names: one file or folder, or all that match a pattern.
    pub fn find(&self, source: &str) -> Result<Vec<Source>, ContentError> {
        let (literal, pattern) = glob::split(source);
        if pattern.is_empty() {
            return Ok(vec![self.find_one(&literal)?]);
        }
        let components = glob::compile(&pattern).ok_or_else(|| ContentError::Pattern(source.to_owned()))?;
        let real = self.tree.resolve(literal.as_bytes())?;
        let mut found = Vec::new();
        self.match_below(&real, &components, &mut found)?;
        Ok(found)
    }

    /// What `COPY --parents` takes for a source: a folder, and what of it.
    ///
    /// `before/./after` is `after` below the folder `before`; without the mark the folder is the root.
    pub fn find_with_parents(&self, source: &str) -> Result<Vec<Source>, ContentError> {
        let (pivot, pattern) = source.split_once("/./").unwrap_or(("", source));
        let pattern = path::join("/", pattern);
        if !glob::has_wildcards(&pattern) {
            // Named in full, it must be there.
            self.find_one(&path::join(&path::join("/", pivot), &pattern))?;
        }
        let include = match pattern.trim_start_matches('/') {
            "" => Patterns::default(),
            pattern => Patterns::compile([pattern]).map_err(|_| ContentError::Pattern(source.to_owned()))?,
        };
        let folders = self.find(&path::join("/", pivot))?;
        Ok(folders.into_iter().map(|folder| Source { include: include.clone(), ..folder }).collect())
    }

    fn find_one(&self, path: &str) -> Result<Source, ContentError> {
        let real = self.tree.resolve(path.as_bytes())?;
        let base = path.rsplit('/').find(|name| !name.is_empty()).unwrap_or_default();
        match self.source(&real, base.as_bytes().to_vec())? {
            Some(source) if self.is_visible(&real, source.is_folder()) => Ok(source),
            found => Err(self.not_found(path, &real, found.is_some())),
        }
    }

    fn source(&self, real: &RealPath, base: Vec<u8>) -> Result<Option<Source>, CallError> {
        let Some(name) = real.name() else {
            let folder = self.tree.open_folder(real)?;
            let stat = rustix::fs::fstat(&folder).call("stat", real.display())?;
            let (name, path) = (c".".to_owned(), real.clone());
            return Ok(Some(Source { folder, name, base, path, stat, include: Patterns::default() }));
        };
        let folder = match self.tree.open_folder(&real.parent()) {
            Ok(folder) => folder,
            Err(error) if error.is_not_found() || error.errno == rustix::io::Errno::NOTDIR => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let stat = sys::stat_at(folder.as_fd(), name).call("stat", real.display())?;
        let (name, path) = (name.clone(), real.clone());
        Ok(stat.map(|stat| Source { folder, name, base, path, stat, include: Patterns::default() }))
    }

    /// False for what the patterns leave out; a folder counts when something below it may be let in.
    fn is_visible(&self, real: &RealPath, is_folder: bool) -> bool {
        if self.patterns.is_empty() || real.names().is_empty() {
            return true;
        }
        let path = text(real);
        let decision = self.patterns.decide_alone(&path);
        !decision.is_ignored() || (is_folder && !self.patterns.prunes(&path, &decision))
    }

    fn match_below(
        &self,
        folder: &RealPath,
        components: &[glob::Component],
        found: &mut Vec<Source>,
    ) -> Result<(), ContentError> {
        let Some((component, rest)) = components.split_first() else { return Ok(()) };
        let opened = match self.tree.open_folder(folder) {
            Ok(opened) => opened,
            // Not there, or no folder: nothing matches.
            Err(_) => return Ok(()),
        };
        for name in sys::sorted_names(opened.as_fd()).call("getdents", folder.display())? {
            if !component.matches(&name.to_string_lossy()) {
                continue;
            }
            let path = folder.child(&name);
            let stat = sys::stat_at(opened.as_fd(), &name).call("stat", path.display())?;
            let Some(stat) = stat else { continue };
            let is_folder = sys::file_type(&stat) == FileType::Directory;
            if rest.is_empty() {
                if self.is_visible(&path, is_folder) {
                    found.push(self.matched(&path, &name)?);
                }
            } else if is_folder {
                self.match_below(&path, rest, found)?;
            }
        }
        Ok(())
    }

    /// What a matched name leads to: links are followed, as for sources that are named in full.
    fn matched(&self, path: &RealPath, name: &CStr) -> Result<Source, ContentError> {
        let shown = path.display().display().to_string();
        let real = self.tree.resolve(&path.to_bytes())?;
        self.source(&real, name.to_bytes().to_vec())?.ok_or_else(|| self.not_found(&shown, &real, false))
    }

    fn not_found(&self, path: &str, real: &RealPath, exists: bool) -> ContentError {
        let mut hints = Vec::new();
        if exists {
            let decision = self.patterns.decide_alone(&text(real));
            if let Some((line, pattern)) = self.patterns.decided_by(&decision) {
                let file = &self.ignore_file;
                hints.push(format!("it exists, but {file}:{line} leaves it out: `{pattern}`"));
            }
        } else if let Some(near) = self.near_name(real) {
            hints.push(format!("did you mean {near}?"));
        }
        if self.is_context {
            hints.push(format!("paths are looked for in the build context, {}", self.shown));
        }
        ContentError::NotFound { path: path.to_owned(), hints }
    }

    /// A name like the one that is missing, in the deepest folder of the path that exists.
    fn near_name(&self, real: &RealPath) -> Option<String> {
        let mut folder = RealPath::root();
        for name in real.names() {
            let opened = self.tree.open_folder(&folder).ok()?;
            let names = sys::sorted_names(opened.as_fd()).ok()?;
            if names.contains(name) {
                folder = folder.child(name);
                continue;
            }
            let names: Vec<String> = names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
            let near = suggest::nearest(&name.to_string_lossy(), names.iter().map(String::as_str))?;
            let exact = names.iter().find(|name| name.eq_ignore_ascii_case(&near)).cloned().unwrap_or(near);
            return Some(shown(&folder.child(&CString::new(exact).ok()?)));
        }
        None
    }
}

/// A path for patterns, which are text.
fn text(real: &RealPath) -> String {
    String::from_utf8_lossy(&real.to_bytes()).into_owned()
}

fn shown(real: &RealPath) -> String {
    PathBuf::from(OsStr::from_bytes(&real.to_bytes())).display().to_string()
}
