//! Edits of a project's files: which lead to a build, which are copied, and when to react.

use super::sync::SyncRule;
use crate::error::{CliError, chain};
use crate::ui;
use kiln_builder::{Change, Inputs, Reads, WatchError, Watcher};
use rustix::event::Timespec;
use rustix::fd::{AsFd, BorrowedFd};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Time without further changes after which a set of edits is complete: programs that write several files, such as
/// `git checkout`, pause for less.
const QUIET: Duration = Duration::from_millis(60);
/// Longest time for which the reaction to an edit waits while others follow.
const LONGEST: Duration = Duration::from_secs(2);

/// Files that are watched. After an error nothing is, and the container goes on.
pub(super) struct Watching {
    inputs: Inputs,
    rules: Vec<SyncRule>,
    /// Number of directories of the build among those that are watched.
    builds: usize,
    /// True while all files count, after a build that failed.
    sees_all: bool,
    watcher: Option<Watcher>,
    /// Times of the first and the last change that waits.
    waiting: Option<(Instant, Instant)>,
}

/// Edits that are complete.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Edits {
    /// Files that the build reads.
    pub(super) built: Built,
    /// Files to copy into the container; their index is that of the rule.
    pub(super) synced: BTreeSet<Change>,
}

/// Files that the build reads.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Built(BTreeSet<PathBuf>);

impl Watching {
    /// Watches the inputs of a build that began at `since`.
    ///
    /// # Errors
    ///
    /// Fails when they cannot be watched.
    pub(super) fn begin(inputs: Inputs, rules: &[SyncRule], since: SystemTime) -> Result<Watching, CliError> {
        let builds = inputs.dirs.len();
        let mut watching =
            Watching { inputs, rules: rules.to_vec(), builds, sees_all: false, watcher: None, waiting: None };
        watching.open(since, false).map_err(|error| watch_error(&error))?;
        Ok(watching)
    }

    fn open(&mut self, since: SystemTime, everything: bool) -> Result<(), WatchError> {
        let mut inputs = self.inputs.clone();
        if everything {
            inputs.dirs = inputs.dirs.iter().map(|dir| dir.only("")).collect();
        }
        let context = self.inputs.dirs.first();
        let more: Vec<Reads> = self.rules.iter().map(|rule| rule.reads(context)).collect();
        let builds = std::mem::replace(&mut self.builds, inputs.dirs.len());
        let mut watcher = Watcher::open(&inputs, &more, since)?;
        if let Some(old) = &mut self.watcher {
            // Removed files leave nothing by which the new watcher would know.
            let _ = old.read();
            let copied = |change: Change| {
                let rule = change.reads?.checked_sub(builds)?;
                Some(Change { reads: Some(self.builds + rule), ..change })
            };
            watcher.put_back(old.take().into_iter().filter_map(copied).collect());
        }
        (self.watcher, self.sees_all) = (Some(watcher), everything);
        self.note();
        Ok(())
    }

    /// Goes on after a build that began at `since`.
    pub(super) fn succeeded(&mut self, inputs: Inputs, since: SystemTime) {
        if inputs == self.inputs && !self.sees_all {
            self.read();
            return;
        }
        self.inputs = inputs;
        self.open_again(since, false);
    }

    /// Goes on after a build that failed: the cause may be any file that a new Dockerfile copies.
    pub(super) fn failed(&mut self, since: SystemTime) {
        self.open_again(since, true);
    }

    fn open_again(&mut self, since: SystemTime, everything: bool) {
        if let Err(error) = self.open(since, everything) {
            self.stop(&error);
        }
    }

    fn stop(&mut self, error: &WatchError) {
        watch_error(error).report();
        ui::tell_line("edits are not noticed any more: start `kiln up --watch` again");
        (self.watcher, self.waiting) = (None, None);
    }

    /// Descriptor that is readable when there are changes; `None` when nothing is watched.
    pub(super) fn queue(&self) -> Option<BorrowedFd<'_>> {
        self.watcher.as_ref().map(AsFd::as_fd)
    }

    /// Reads the changes that there are.
    pub(super) fn read(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        match watcher.read() {
            Ok(()) => self.note(),
            Err(error) => self.stop(&error),
        }
    }

    fn note(&mut self) {
        if self.watcher.as_ref().is_some_and(Watcher::has_changes) {
            let now = Instant::now();
            let first = self.waiting.map_or(now, |(first, _)| first);
            self.waiting = Some((first, now));
        }
    }

    /// Time until the waiting changes are complete; `None` without any.
    pub(super) fn limit(&self) -> Option<Timespec> {
        let left = self.due()?.saturating_duration_since(Instant::now());
        // Rounded up: at the end of the wait they are complete.
        let left = left + Duration::from_millis(1);
        Some(Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() })
    }

    /// True when the waiting changes are complete.
    pub(super) fn is_due(&self) -> bool {
        self.due().is_some_and(|due| Instant::now() >= due)
    }

    fn due(&self) -> Option<Instant> {
        self.waiting.map(|(first, last)| (last + QUIET).min(first + LONGEST))
    }

    /// Takes the waiting changes.
    pub(super) fn take(&mut self) -> Edits {
        self.waiting = None;
        let changes = self.watcher.as_mut().map(Watcher::take).unwrap_or_default();
        sorted(changes, self.builds, &self.rules)
    }
}

/// Separates edits that are copied from those that are built. A file that a rule copies is not built, even if the build
/// reads it.
fn sorted(changes: BTreeSet<Change>, builds: usize, rules: &[SyncRule]) -> Edits {
    let mut edits = Edits::default();
    for change in changes {
        match change.reads.and_then(|index| index.checked_sub(builds)) {
            Some(rule) => {
                edits.synced.insert(Change { reads: Some(rule), ..change });
            }
            None if rules.iter().any(|rule| rule.has(&change.path)) && change.reads.is_some() => {}
            None => {
                edits.built.0.insert(change.path);
            }
        }
    }
    edits
}

impl Built {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names what has changed, with paths relative to the project where they are in it.
    pub(super) fn describe(&self, dir: &Path) -> String {
        // A directory changes with each of its files, which say more.
        let files: Vec<&PathBuf> = self.0.iter().filter(|path| !path.is_dir()).collect();
        let all: Vec<&PathBuf> = if files.is_empty() { self.0.iter().collect() } else { files };
        let shown = |path: &Path| match path.strip_prefix(dir) {
            Ok(inner) if !inner.as_os_str().is_empty() => inner.display().to_string(),
            _ => path.display().to_string(),
        };
        match all.as_slice() {
            [] => "nothing has changed".to_owned(),
            [one] => format!("{} has changed", shown(one)),
            [first, rest @ ..] => format!("{} and {} more have changed", shown(first), rest.len()),
        }
    }
}

fn watch_error(error: &WatchError) -> CliError {
    let failed = CliError::failed(chain(error));
    match error {
        WatchError::Limit { .. } => failed
            .hint("leave directories out by .dockerignore, or raise the limit: sysctl fs.inotify.max_user_watches=524288"),
        WatchError::Call { .. } => failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copied_files_are_not_built() {
        let rule = SyncRule { source: PathBuf::from("/p/app"), target: "/srv".to_owned() };
        let change = |path: &str, reads| Change { path: PathBuf::from(path), reads };
        let changes = [
            change("/p/app/a.py", Some(0)),
            change("/p/app/a.py", Some(1)),
            change("/p/lib.py", Some(0)),
            change("/p/app/Dockerfile", None),
        ];
        let edits = sorted(changes.into(), 1, &[rule]);
        assert_eq!(edits.synced, BTreeSet::from([change("/p/app/a.py", Some(0))]));
        assert_eq!(edits.built.0, ["/p/app/Dockerfile", "/p/lib.py"].map(PathBuf::from).into());
        assert_eq!(edits.built.describe(Path::new("/p")), "app/Dockerfile and 1 more have changed");
        let one = Built([PathBuf::from("/elsewhere/f")].into());
        assert_eq!(one.describe(Path::new("/p")), "/elsewhere/f has changed");
    }
}
