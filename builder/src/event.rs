//! Events of a build, as data. The listener determines how they are shown.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// Duration of silent work after which a row is shown for it.
const MOMENT: Duration = Duration::from_millis(300);

/// Identity of a row of progress in a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row(pub usize);

/// Event of a running build.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// All steps are known.
    Planned {
        /// Number of rows still to come, if no step can be skipped.
        rows: usize,
    },
    /// Work of a new row started.
    Started {
        /// Row of the work.
        row: Row,
        /// Name of the row, such as `[2/4] RUN make`.
        name: String,
    },
    /// A step does not run: its result is in the cache.
    Cached {
        /// Row of the step; it has no `Started`.
        row: Row,
        /// Name of the row.
        name: String,
    },
    /// The program wrote output.
    Output {
        /// Row of the step.
        row: Row,
        /// Bytes of the output, cut at any position.
        bytes: Vec<u8>,
    },
    /// A message about the current work.
    Note {
        /// Row of the work.
        row: Row,
        /// Description of the current work.
        text: String,
    },
    /// A part of the work advanced.
    Progress {
        /// Row of the work.
        row: Row,
        /// Name of the part, such as a layer's digest.
        part: String,
        /// Completed part, in bytes.
        current: u64,
        /// Total size in bytes; 0 when it is unknown.
        total: u64,
    },
    /// Work of a row ended successfully.
    Done {
        /// Row of the work.
        row: Row,
    },
    /// Work of a row failed.
    Failed {
        /// Row of the work.
        row: Row,
        /// Message of the error.
        message: String,
    },
    /// Reason for running a step that was in an earlier build as well.
    Explained {
        /// Row of the step.
        row: Row,
        /// Reason as one sentence.
        reason: String,
    },
    /// Findings of lints in the Dockerfile.
    Findings {
        /// Findings in the order of the file.
        list: Vec<Finding>,
        /// Name of the file.
        name: String,
        /// Content of the file.
        bytes: Vec<u8>,
    },
    /// A warning; the build continues.
    Warning {
        /// Warning as one sentence.
        message: String,
    },
}

/// Finding of a lint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Name of the rule.
    pub rule: &'static str,
    /// Message as one sentence.
    pub message: String,
    /// First line of the finding, from 1.
    pub line: usize,
    /// Last line of the finding, from 1.
    pub last_line: usize,
    /// Description of the rule.
    pub description: &'static str,
    /// URL of the rule's documentation; `None` for rules that the reference builder does not have.
    pub url: Option<String>,
}

/// Receives events, from any thread.
pub type Listener<'a> = dyn Fn(Event) + Sync + 'a;

/// Numbers rows and sends events to the listener.
pub(crate) struct Reporter<'a> {
    listener: &'a Listener<'a>,
    next: AtomicUsize,
}

impl<'a> Reporter<'a> {
    pub(crate) fn new(listener: &'a Listener<'a>) -> Reporter<'a> {
        Reporter { listener, next: AtomicUsize::new(0) }
    }

    pub(crate) fn send(&self, event: Event) {
        (self.listener)(event);
    }

    /// Number for a new row.
    pub(crate) fn row(&self) -> Row {
        Row(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Starts a new row of work.
    pub(crate) fn start(&self, name: impl Into<String>) -> Row {
        let row = self.row();
        self.send(Event::Started { row, name: name.into() });
        row
    }

    /// Runs work that gets a row only when it takes longer than [`MOMENT`]; `read` counts its bytes.
    pub(crate) fn slow<T, E: std::fmt::Display>(
        &self,
        name: &str,
        read: &AtomicU64,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let before = read.load(Ordering::Relaxed);
        let (done, wait) = mpsc::channel::<()>();
        let watch = move || {
            let goes_on = || wait.recv_timeout(MOMENT) == Err(mpsc::RecvTimeoutError::Timeout);
            let row = goes_on().then(|| self.start(name))?;
            while goes_on() {
                let current = read.load(Ordering::Relaxed) - before;
                self.send(Event::Progress { row, part: name.to_owned(), current, total: 0 });
            }
            Some(row)
        };
        std::thread::scope(|scope| {
            let watcher = scope.spawn(watch);
            let result = work();
            drop(done);
            if let Some(row) = watcher.join().expect("watching does not panic") {
                self.end(row, &result);
            }
            result
        })
    }

    /// Sends the end of a row's work.
    pub(crate) fn end<T, E: std::fmt::Display>(&self, row: Row, result: &Result<T, E>) {
        self.send(match result {
            Ok(_) => Event::Done { row },
            Err(error) => Event::Failed { row, message: error.to_string() },
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn only_slow_work_gets_a_row() {
        let heard = Mutex::new(Vec::new());
        let (first, came) = mpsc::channel();
        let listener = |event: Event| {
            let _ = first.send(());
            heard.lock().unwrap().push(event);
        };
        let reporter = Reporter::new(&listener);
        let read = AtomicU64::new(5);
        assert_eq!(reporter.slow("read", &read, || Ok::<_, String>(1)), Ok(1));
        assert!(heard.lock().unwrap().is_empty());
        let wait = || {
            read.store(12, Ordering::Relaxed);
            // Waits for the row, and then for its progress.
            came.recv().and_then(|()| came.recv()).map_err(|error| error.to_string())
        };
        assert_eq!(reporter.slow("read", &read, wait), Ok(()));
        let heard = heard.lock().unwrap();
        assert_eq!(heard[0], Event::Started { row: Row(0), name: "read".to_owned() });
        assert_eq!(heard[1], Event::Progress { row: Row(0), part: "read".to_owned(), current: 7, total: 0 });
        assert_eq!(heard.last(), Some(&Event::Done { row: Row(0) }));
    }
}
