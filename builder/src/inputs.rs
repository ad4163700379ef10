//! Files of the host that a build depends on: which edits can change its result. Pure.
//!
//! An edit that nothing reaches certainly leaves the result as it is; one that something reaches may still do so, which the
//! cache keys of the next build decide.

use crate::content::glob::{self, Component};
use crate::context::{Context, LocalDir};
use crate::graph::{CopyFrom, Graph};
use crate::path;
use kiln_image::tree::Tree;
use kiln_parser::ignore::Patterns;
use std::path::{Path, PathBuf};

/// Name of ignore files, alone or behind the name of a Dockerfile.
const IGNORE_FILE: &str = ".dockerignore";

/// Files of the host that a build depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    /// Directories that the build copies from: the context first, then named contexts.
    pub dirs: Vec<Reads>,
    /// The Dockerfile and the ignore files, also those that do not exist.
    pub files: Vec<PathBuf>,
}

/// Files that a build copies from one directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// Directory without links in its path.
    dir: PathBuf,
    ignore: Patterns,
    sources: Vec<Taken>,
}

/// One source of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Taken {
    /// Names from the root of the directory; `None` stands for any number of names (`**`).
    names: Vec<Option<Component>>,
    /// `--exclude`, relative to the source.
    exclude: Patterns,
}

impl Inputs {
    /// Inputs of a planned build.
    pub(crate) fn of(context: &Context, graph: &Graph) -> Inputs {
        let dirs = context.dirs().into_iter().enumerate();
        // What was unpacked from an archive is no file of the user.
        let dirs = dirs.filter_map(|(number, dir)| Some((number, dir.filter(|dir| !dir.is_archive)?)));
        let dirs: Vec<Reads> = dirs.map(|(number, dir)| Reads::of(&dir, number, graph)).collect();
        let mut files = Vec::new();
        if context.name.starts_with('/') {
            files.push(PathBuf::from(&context.name));
            files.push(PathBuf::from(format!("{}{IGNORE_FILE}", context.name)));
        }
        files.extend(dirs.first().map(|context| context.dir.join(IGNORE_FILE)));
        Inputs { dirs, files }
    }
}

impl Reads {
    fn of(local: &LocalDir, number: usize, graph: &Graph) -> Reads {
        let dir = std::fs::canonicalize(&local.dir).unwrap_or_else(|_| local.dir.clone());
        let tree = Tree::open(&dir).ok();
        let mut sources: Vec<Taken> = Vec::new();
        for copy in graph.copies() {
            for source in copy.sources.iter().filter(|source| source.from == CopyFrom::Context(number)) {
                let exclude = match copy.parents {
                    true => Patterns::default(),
                    false => Patterns::compile(copy.exclude.iter().map(String::as_str)).unwrap_or_default(),
                };
                let written = path::join("/", &source.path);
                // A link in the path leads to other files of the directory: both are read.
                let (literal, _) = glob::split(&written);
                let real = tree.as_ref().and_then(|tree| tree.resolve(literal.as_bytes()).ok());
                let real = real.map(|real| format!("/{}", String::from_utf8_lossy(&real.to_bytes())));
                let real =
                    real.filter(|real| *real != literal).map(|real| written.replacen(&literal, &real, 1));
                for path in std::iter::once(written).chain(real) {
                    let taken = Taken { names: names(&path), exclude: exclude.clone() };
                    if !sources.contains(&taken) {
                        sources.push(taken);
                    }
                }
            }
        }
        Reads { dir, ignore: local.ignore.clone(), sources }
    }

    /// All files of a directory, whose path has no links.
    pub fn all(dir: &Path) -> Reads {
        Reads { dir: dir.to_owned(), ..Reads::default() }.only("")
    }

    /// All files at or below a path of the same directory that its ignore file does not leave out; the empty path is the
    /// directory itself.
    #[must_use]
    pub fn only(&self, path: &str) -> Reads {
        let names = path.split('/').filter(|name| !name.is_empty()).map(literal).collect();
        let taken = Taken { names, exclude: Patterns::default() };
        Reads { dir: self.dir.clone(), ignore: self.ignore.clone(), sources: vec![taken] }
    }

    /// Directory that is copied from.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// True when an edit of `path`, relative to the directory, can change what is copied. A directory counts when it can
    /// contain such a path.
    pub fn reaches(&self, path: &str, is_dir: bool) -> bool {
        let ignored = self.ignore.decide_without_parent(path);
        if ignored.is_ignored() && (!is_dir || self.ignore.prunes(path, &ignored)) {
            return false;
        }
        self.sources.iter().any(|source| source.takes(path, is_dir))
    }
}

impl Taken {
    fn takes(&self, path: &str, is_dir: bool) -> bool {
        let mut rest = path.split('/').filter(|name| !name.is_empty());
        for name in &self.names {
            // `**`, or the path is that of a directory above the source.
            let (Some(name), Some(own)) = (name, rest.next()) else { return true };
            if !name.matches(own) {
                return false;
            }
        }
        let inner = rest.collect::<Vec<_>>().join("/");
        if inner.is_empty() || self.exclude.is_empty() {
            return true;
        }
        let decision = self.exclude.decide_without_parent(&inner);
        !decision.is_ignored() || (is_dir && !self.exclude.prunes(&inner, &decision))
    }
}

/// Names of a source. A malformed pattern, which fails the build, takes everything.
fn names(path: &str) -> Vec<Option<Component>> {
    let one = |name: &str| match name {
        "**" => None,
        name => glob::compile(name).and_then(|compiled| compiled.into_iter().next()),
    };
    path.split('/').filter(|name| !name.is_empty()).map(one).collect()
}

/// Name that matches itself only, whatever characters it has.
fn literal(name: &str) -> Option<Component> {
    let escaped: String = name.chars().flat_map(|character| ['\\', character]).collect();
    glob::compile(&escaped).and_then(|compiled| compiled.into_iter().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(ignore: &str, sources: &[(&str, &[&str])]) -> Reads {
        let taken = |(path, exclude): &(&str, &[&str])| Taken {
            names: names(path),
            exclude: Patterns::compile(exclude.iter().copied()).unwrap(),
        };
        Reads {
            dir: PathBuf::from("/c"),
            ignore: Patterns::parse(ignore).unwrap(),
            sources: sources.iter().map(taken).collect(),
        }
    }

    #[track_caller]
    fn check(reads: &Reads, reached: &[&str], others: &[&str]) {
        let reaches = |path: &&&str| reads.reaches(path.trim_end_matches('/'), path.ends_with('/'));
        let missed: Vec<_> = reached.iter().filter(|path| !reaches(path)).collect();
        let extra: Vec<_> = others.iter().filter(reaches).collect();
        assert!(missed.is_empty() && extra.is_empty(), "missed {missed:?}, extra {extra:?}");
    }

    #[test]
    fn an_edit_is_reached_by_the_sources_of_copies() {
        let all = reads("", &[("/", &[])]);
        check(&all, &["a", "a/b/c", ".git/index", "d/"], &[]);
        let some = reads("", &[("/src", &[]), ("/go.*", &[]), ("/a/*/x", &[])]);
        check(
            &some,
            &["src/", "src/main.rs", "src", "go.mod", "a/", "a/b/", "a/b/x", "a/b/x/y", "go.d/f"],
            &["README", "srcs/x", "a/b/y", "b/", "target/src/x"],
        );
        check(&reads("", &[]), &[], &["a", "d/"]);
        check(&reads("", &[("/**/*.md", &[])]), &["a", "a/b.md"], &[]);
    }

    #[test]
    fn ignored_files_are_not_reached() {
        let context = reads("*.md\nnode_modules\n!keep.md\n", &[("/", &[])]);
        check(&context, &["a.rs", "keep.md", "docs/a.rs"], &["a.md", "node_modules/", "node_modules/a/b"]);
        let few = reads("*\n!src\n!lib/keep\n", &[("/", &[])]);
        check(&few, &["src/", "src/a", "lib/", "lib/keep"], &["a", "lib/x", "target/", "target/a"]);
    }

    #[test]
    fn excluded_files_are_not_reached() {
        let context = reads("", &[("/src", &["*.md", "gen", "!gen/keep"])]);
        check(&context, &["src/a.rs", "src/", "src/gen/", "src/gen/keep"], &["src/a.md", "src/gen/a"]);
    }

    #[test]
    fn a_part_of_a_directory_keeps_its_ignore_file() {
        let part = reads("**/*.pyc\n", &[("/", &[])]).only("app[1]");
        check(&part, &["app[1]/a.py", "app[1]/"], &["app1/a.py", "app[1]/a.pyc", "b"]);
        check(&part.only(""), &["b"], &["a.pyc"]);
    }
}
