//! `--sync SRC:DST`: changed files of the project are copied into the running container.

use crate::error::CliError;
use kiln_builder::{Change, Reads};
use kiln_engine::{Container, Containers, Place, mirror};
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Files of the host, and their place in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SyncRule {
    /// File or directory without links in its path.
    pub(super) source: PathBuf,
    /// Absolute path in the container.
    pub(super) target: String,
}

impl SyncRule {
    /// Reads `SRC:DST`; SRC is relative to `dir`.
    ///
    /// # Errors
    ///
    /// Fails when SRC does not exist, or DST is not absolute.
    pub(super) fn parse(text: &str, dir: &Path) -> Result<SyncRule, CliError> {
        let invalid = |reason: &str| {
            CliError::Flags(
                format!("invalid value {text:?} for --sync: {reason}"),
                vec![
                    "write SRC:DST, a path in the project's directory and an absolute path in the container"
                        .to_owned(),
                ],
            )
        };
        let at = text.find(":/").ok_or_else(|| invalid("there is no absolute path in the container"))?;
        let (source, target) = (&text[..at], &text[at + 1..]);
        if source.is_empty() {
            return Err(invalid("there is no path on the host"));
        }
        let target = target.trim_end_matches('/').to_owned();
        if target.is_empty() {
            return Err(invalid("the root of the container cannot be the target"));
        }
        let source =
            dir.join(source).canonicalize().map_err(|error| invalid(&format!("{source}: {error}")))?;
        Ok(SyncRule { source, target })
    }

    /// Files that are watched: in the build context without those that its ignore file leaves out.
    pub(super) fn reads(&self, context: Option<&Reads>) -> Reads {
        let inside = context.and_then(|reads| Some((reads, self.source.strip_prefix(reads.dir()).ok()?)));
        match inside {
            Some((reads, path)) => reads.only(&path.to_string_lossy()),
            None if self.source.is_dir() => Reads::all(&self.source),
            None => {
                let name = self.source.file_name().unwrap_or_default().to_string_lossy();
                Reads::all(self.source.parent().unwrap_or(Path::new("/"))).only(&name)
            }
        }
    }

    /// True when a file of the host is at or below the source.
    pub(super) fn has(&self, path: &Path) -> bool {
        path.starts_with(&self.source)
    }

    /// Path in the container of a file of the host; `None` for files that are not below the source.
    fn target_of(&self, path: &Path) -> Option<Vec<u8>> {
        let inner = path.strip_prefix(&self.source).ok()?;
        let mut target = self.target.clone().into_bytes();
        if !inner.as_os_str().is_empty() {
            target.push(b'/');
            target.extend(inner.as_os_str().as_bytes());
        }
        Some(target)
    }
}

/// Copies changed files into a container, and removes those that are gone; returns what was done, and the files for which it
/// failed, each with its error.
///
/// # Errors
///
/// Fails when the container's files cannot be opened.
pub(super) fn apply(
    containers: &Containers<'_>,
    container: &Container,
    rules: &[SyncRule],
    changes: &BTreeSet<Change>,
) -> Result<(String, Vec<(Change, CliError)>), CliError> {
    let view = containers.view(container)?;
    let (mut count, mut first, mut failed) = (0, String::new(), Vec::new());
    for change in changes {
        let Some(rule) = change.reads.and_then(|index| rules.get(index)) else { continue };
        let Some(path) = rule.target_of(&change.path) else { continue };
        let target = Place { tree: view.tree(), path: &path, container: Some(&container.name) };
        if let Err(error) = mirror(&change.path, &target) {
            failed.push((change.clone(), error.into()));
            continue;
        }
        // A directory changes with each of its files, which say more.
        if !change.path.is_dir() || first.is_empty() {
            first = String::from_utf8_lossy(&path).into_owned();
        }
        count += usize::from(!change.path.is_dir());
    }
    let done = match count {
        0 | 1 if first.is_empty() => String::new(),
        0 | 1 => format!("{first} is up to date in {}", container.name),
        count => format!("{count} files are up to date in {}", container.name),
    };
    Ok((done, failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        std::fs::create_dir(path.join("app")).unwrap();
        let rule = SyncRule::parse("app:/srv/app/", &path).unwrap();
        assert_eq!(rule, SyncRule { source: path.join("app"), target: "/srv/app".to_owned() });
        assert_eq!(rule.target_of(&path.join("app/a/b")), Some(b"/srv/app/a/b".to_vec()));
        assert_eq!(rule.target_of(&path.join("app")), Some(b"/srv/app".to_vec()));
        assert_eq!(rule.target_of(&path.join("apple")), None);
        for wrong in ["app", "app:srv", ":/srv", "none:/srv", "app:/"] {
            assert!(SyncRule::parse(wrong, &path).is_err(), "{wrong}");
        }
    }
}
