//! Events of a build, as data. The listener decides how they are shown.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// Time of silent work until a row is shown for it.
const MOMENT: Duration = Duration::from_millis(300);

/// Identity of a row of progress in a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row(pub usize);

/// An event.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// All steps are known.
    Planned {
        /// Rows that are still to come, if no step can be left out.
        rows: usize,
    },
    /// Work began.
    Started {
        /// The row.
        row: Row,
        /// Its name, such as `[2/4] RUN make`.
        name: String,
    },
    /// A step need not run: its result is known.
    Cached {
        /// The row; it has no `Started`.
        row: Row,
        /// Its name.
        name: String,
    },
    /// The program wrote something.
    Output {
        /// The row.
        row: Row,
        /// What it wrote, cut anywhere.
        bytes: Vec<u8>,
    },
    /// A part of the work that is worth a line.
    Note {
        /// The row.
        row: Row,
        /// What is done.
        text: String,
    },
    /// Part of the work is done.
    Progress {
        /// The row.
        row: Row,
        /// Which part, such as a layer's digest.
        part: String,
        /// How much of it, in bytes.
        current: u64,
        /// How much there is, in bytes; 0 when that is not known.
        total: u64,
    },
    /// Work ended well.
    Done {
        /// The row.
        row: Row,
    },
    /// Work failed.
    Failed {
        /// The row.
        row: Row,
        /// Why.
        message: String,
    },
    /// Why a step runs although an earlier build had it.
    Explained {
        /// The row.
        row: Row,
        /// One sentence.
        reason: String,
    },
    /// What the file could say better.
    Findings {
        /// In the order of the file.
        list: Vec<Finding>,
        /// The file's name.
        name: String,
        /// The file.
        bytes: Vec<u8>,
    },
    /// Something to know; the build goes on.
    Warning {
        /// One sentence.
        message: String,
    },
}

/// What a lint found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule's name.
    pub rule: &'static str,
    /// One sentence.
    pub message: String,
    /// The line of the Dockerfile, from 1.
    pub line: usize,
    /// The last line that it is about.
    pub last_line: usize,
    /// What the rule asks for.
    pub description: &'static str,
    /// Where the rule is explained, if the reference builder has it.
    pub url: Option<String>,
}

/// Receives events, from any thread.
pub type Listener<'a> = dyn Fn(Event) + Sync + 'a;

/// Numbers rows and passes events on.
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

    /// A new row.
    pub(crate) fn row(&self) -> Row {
        Row(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// A row of work that begins now.
    pub(crate) fn start(&self, name: impl Into<String>) -> Row {
        let row = self.row();
        self.send(Event::Started { row, name: name.into() });
        row
    }

    /// Does work that gets a row only when it takes longer than [`MOMENT`]; `read` counts bytes while it goes on.
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

    /// The end of a row's work.
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
            // Until the row is there, and then until its progress is.
            came.recv().and_then(|()| came.recv()).map_err(|error| error.to_string())
        };
        assert_eq!(reporter.slow("read", &read, wait), Ok(()));
        let heard = heard.lock().unwrap();
        assert_eq!(heard[0], Event::Started { row: Row(0), name: "read".to_owned() });
        assert_eq!(heard[1], Event::Progress { row: Row(0), part: "read".to_owned(), current: 7, total: 0 });
        assert_eq!(heard.last(), Some(&Event::Done { row: Row(0) }));
    }
}
