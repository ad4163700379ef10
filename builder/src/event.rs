//! What happens during a build, as data. Who shows it decides how.

/// Tells one row of progress from the others of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row(pub usize);

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
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

/// Hears events, from any thread.
pub type Listener<'a> = dyn Fn(Event) + Sync + 'a;

/// Numbers rows and passes events on.
pub(crate) struct Reporter<'a> {
    listener: &'a Listener<'a>,
    next: std::sync::atomic::AtomicUsize,
}

impl<'a> Reporter<'a> {
    pub(crate) fn new(listener: &'a Listener<'a>) -> Reporter<'a> {
        Reporter { listener, next: std::sync::atomic::AtomicUsize::new(0) }
    }

    pub(crate) fn send(&self, event: Event) {
        (self.listener)(event);
    }

    /// A row that nobody has.
    pub(crate) fn row(&self) -> Row {
        Row(self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
    }

    /// A row of work that begins now.
    pub(crate) fn start(&self, name: impl Into<String>) -> Row {
        let row = self.row();
        self.send(Event::Started { row, name: name.into() });
        row
    }

    /// The end of a row's work.
    pub(crate) fn end<T, E: std::fmt::Display>(&self, row: Row, result: &Result<T, E>) {
        self.send(match result {
            Ok(_) => Event::Done { row },
            Err(error) => Event::Failed { row, message: error.to_string() },
        });
    }
}
