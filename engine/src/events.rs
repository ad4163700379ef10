//! Events of a store: what happened to containers, images, networks and volumes, as JSON lines in Docker's form.
//!
//! ```text
//! events/events.json     the newest events; each was written by one write(2)
//! events/events.json.1   those before, once the first file has become large
//! ```
//!
//! Commands and monitors append to the file under a lock, so that lines are in the order of their times. The lock is tried
//! for half a second; then the line is written without it. An event that cannot be written is dropped: no command fails.

use crate::container::{Records, random};
use crate::record::Container;
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Directory below the root of the store.
const DIR: &str = "events";
/// File of the newest events.
const FILE: &str = "events.json";
/// File of the events before.
const OLD: &str = "events.json.1";
/// Size in bytes after which a file is followed by another one.
const LARGEST: u64 = 1 << 20;
/// Size in bytes of the longest event; one with more has no attributes.
const LONGEST: usize = 64 << 10;
/// Number of attempts to get the lock, a millisecond apart: other processes hold it for some system calls only, on a busy
/// host for longer.
const ATTEMPTS: usize = 500;

/// Something that happened, in Docker's JSON (moby `api/types/events`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// The action again, for containers and images.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// The id again, for containers and images.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Image of the container; empty for other objects.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// Kind of the object: `container`, `image`, `network` or `volume`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// What happened, such as `start`.
    #[serde(rename = "Action")]
    pub action: String,
    /// Object that it is about.
    #[serde(rename = "Actor")]
    pub actor: Actor,
    /// Scope of the event, always `local`.
    pub scope: String,
    /// Time in seconds since 1970.
    pub time: i64,
    /// Time in nanoseconds since 1970.
    #[serde(rename = "timeNano")]
    pub time_nano: i64,
}

/// Object that an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Actor {
    /// Id of a container, image or network, name of a volume.
    #[serde(rename = "ID")]
    pub id: String,
    /// Name, image, labels, and what the action has besides.
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}

impl Event {
    /// Time at which it happened.
    pub fn at(&self) -> Timestamp {
        Timestamp::from_nanosecond(self.time_nano.into()).unwrap_or_default()
    }
}

/// Time span whose events are read; `None` is without a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventQuery {
    /// Time of the first event.
    pub since: Option<Timestamp>,
    /// Time of the last event. Until it has come, new events are waited for.
    pub until: Option<Timestamp>,
}

/// Events of a store.
#[derive(Clone, Debug)]
pub struct Events {
    dir: PathBuf,
}

impl Events {
    /// The events of the store in `root`.
    pub fn of(root: &Path) -> Events {
        Events { dir: root.join(DIR) }
    }

    /// Adds an event about an object: its kind, its id, what happened, and its attributes.
    pub fn add(&self, kind: &str, id: &str, action: &str, attributes: BTreeMap<String, String>) {
        let has_status = !matches!(kind, "volume" | "network");
        let text = |text: &str| if has_status { text.to_owned() } else { String::new() };
        let event = Event {
            status: text(action),
            id: text(id),
            from: if kind == "container" {
                attributes.get("image").cloned().unwrap_or_default()
            } else {
                String::new()
            },
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor: Actor { id: id.to_owned(), attributes },
            scope: "local".to_owned(),
            ..Event::default()
        };
        let _ = self.append(event);
    }

    fn append(&self, mut event: Event) -> io::Result<()> {
        let dir = self.open()?;
        // A process that was stopped while it held the lock must not stop others: the order may be wrong then.
        let has_lock = (0..ATTEMPTS).any(|attempt| {
            if attempt > 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok()
        });
        let now = Timestamp::now();
        event.time = now.as_second();
        event.time_nano = i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX);
        let mut line = encoded(&event);
        if line.len() > LONGEST {
            event.actor.attributes.retain(|name, _| matches!(name.as_str(), "name" | "image"));
            line = encoded(&event);
        }
        let mut file = self.open_newest()?;
        let mut size = file.metadata()?.len();
        if has_lock && size > 0 && size + line.len() as u64 > LARGEST {
            fs::rename(self.dir.join(FILE), self.dir.join(OLD))?;
            (file, size) = (self.open_newest()?, 0);
        }
        match file.write(&line) {
            Ok(length) if length == line.len() => Ok(()),
            // The disk is full: a part of a line would damage the next one.
            _ => file.set_len(size),
        }
    }

    /// Opens the directory, which is created if it does not exist.
    fn open(&self) -> io::Result<File> {
        match File::open(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::DirBuilder::new().mode(0o700).recursive(true).create(&self.dir)?;
                File::open(&self.dir)
            }
            opened => opened,
        }
    }

    fn open_newest(&self) -> io::Result<File> {
        OpenOptions::new().append(true).create(true).mode(0o600).open(self.dir.join(FILE))
    }

    /// Passes on the events of a time span in order; waits for new ones until its end has come, without an end for ever.
    /// It ends as well when `pass` breaks.
    ///
    /// # Errors
    /// Fails when the files cannot be read or watched.
    pub fn read(
        &self,
        query: &EventQuery,
        pass: &mut dyn FnMut(&Event) -> ControlFlow<()>,
    ) -> io::Result<()> {
        self.open()?;
        // Before the first read: no event in between is missed.
        let watch = watch(&self.dir)?;
        let mut pass = |event: &Event| {
            let at = event.at();
            let is_wanted =
                query.since.is_none_or(|since| at >= since) && query.until.is_none_or(|until| at <= until);
            if is_wanted { pass(event) } else { ControlFlow::Continue(()) }
        };
        let (mut old, mut newest) = self.open_both()?;
        if let Some(old) = &mut old
            && old.pass(&mut pass)?.is_break()
        {
            return Ok(());
        }
        loop {
            // Whether the end has come is seen first: all events before it are there.
            let is_over = query.until.is_some_and(|until| Timestamp::now() > until);
            if self.pass_new(&mut newest, &mut pass)?.is_break() || is_over {
                return Ok(());
            }
            wait(&watch, query.until)?;
        }
    }

    /// Opens the old and the newest file.
    fn open_both(&self) -> io::Result<(Option<Lines>, Option<Lines>)> {
        loop {
            let newest = Lines::open(&self.dir.join(FILE))?;
            let old = self.open_old()?;
            // They may have been exchanged in between.
            let again = Lines::open(&self.dir.join(FILE))?;
            if newest.as_ref().map(|lines| lines.inode) == again.map(|lines| lines.inode) {
                return Ok((old, newest));
            }
        }
    }

    fn open_old(&self) -> io::Result<Option<Lines>> {
        Lines::open(&self.dir.join(OLD))
    }

    /// Passes on what was added to the newest file, and to those that have followed it.
    fn pass_new(
        &self,
        newest: &mut Option<Lines>,
        pass: &mut dyn FnMut(&Event) -> ControlFlow<()>,
    ) -> io::Result<ControlFlow<()>> {
        loop {
            let next = Lines::open(&self.dir.join(FILE))?;
            if let Some(lines) = newest
                && lines.pass(pass)?.is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
            match next {
                Some(next) if newest.as_ref().is_none_or(|lines| lines.inode != next.inode) => {
                    // A slow reader has one more file to read when the files were exchanged twice.
                    let between = self
                        .open_old()?
                        .filter(|old| newest.as_ref().is_some_and(|lines| lines.inode != old.inode));
                    *newest = Some(between.unwrap_or(next));
                }
                _ => return Ok(ControlFlow::Continue(())),
            }
        }
    }
}

impl Records {
    /// Adds an event about a container, with `more` attributes besides its labels, image and name.
    pub fn event(&self, container: &Container, action: &str, more: &[(&str, String)]) {
        let mut attributes = container.settings.labels.clone();
        attributes.insert("image".to_owned(), container.image_name.clone());
        attributes.insert("name".to_owned(), container.name.clone());
        attributes.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        Events::of(&self.root).add("container", &container.id, action, attributes);
    }
}

/// Events of a further process in a container.
pub struct ExecEvents<'a> {
    records: &'a Records,
    container: &'a Container,
    id: String,
    command: String,
}

impl<'a> ExecEvents<'a> {
    /// Reports that the process is about to be created.
    pub fn create(records: &'a Records, container: &'a Container, arguments: &[String]) -> ExecEvents<'a> {
        let id = kiln_image::digest::hex(&random::<32>());
        let events = ExecEvents { records, container, id, command: arguments.join(" ") };
        events.add(&format!("exec_create: {}", events.command), None);
        events
    }

    /// Reports that its program runs.
    pub fn start(&self) {
        self.add(&format!("exec_start: {}", self.command), None);
    }

    /// Reports its end: exit code, or 128 plus the signal.
    pub fn die(&self, code: i32) {
        self.add("exec_die", Some(code));
    }

    fn add(&self, action: &str, code: Option<i32>) {
        let mut more = vec![("execID", self.id.clone())];
        more.extend(code.map(|code| ("exitCode", code.to_string())));
        self.records.event(self.container, action, &more);
    }
}

fn encoded(event: &Event) -> Vec<u8> {
    let mut line = serde_json::to_vec(event).expect("an event is made of texts and numbers");
    line.push(b'\n');
    line
}

/// Lines of a file from where the last read has ended.
struct Lines {
    file: BufReader<File>,
    inode: u64,
    /// Offset of the next line.
    offset: u64,
}

impl Lines {
    /// Opens a file; `None` when there is none.
    fn open(path: &Path) -> io::Result<Option<Lines>> {
        match File::open(path) {
            Ok(file) => {
                let inode = file.metadata()?.ino();
                Ok(Some(Lines { file: BufReader::new(file), inode, offset: 0 }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Passes on complete lines; a damaged one is left out.
    fn pass(&mut self, pass: &mut dyn FnMut(&Event) -> ControlFlow<()>) -> io::Result<ControlFlow<()>> {
        self.file.seek(SeekFrom::Start(self.offset))?;
        let mut line = Vec::new();
        loop {
            line.clear();
            self.file.read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                return Ok(ControlFlow::Continue(()));
            }
            self.offset += line.len() as u64;
            if let Ok(event) = serde_json::from_slice(&line)
                && pass(&event).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
}

fn watch(dir: &Path) -> io::Result<OwnedFd> {
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    inotify::add_watch(&watch, dir, WatchFlags::MODIFY | WatchFlags::CREATE)?;
    Ok(watch)
}

/// Waits for a change, at most until a time has passed.
fn wait(watch: &OwnedFd, until: Option<Timestamp>) -> io::Result<()> {
    // Rounded up: after the wait the time has passed.
    let left = until.map(|until| until.duration_since(Timestamp::now()).as_millis().max(0) + 1);
    let left = left.map(|millis| Timespec {
        tv_sec: (millis / 1000) as i64,
        tv_nsec: (millis % 1000 * 1_000_000) as i64,
    });
    match poll(&mut [PollFd::new(watch, PollFlags::IN)], left.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let mut buffer = [0u8; 4096];
    // The file is read after any change.
    while rustix::io::read(watch.as_fd(), &mut buffer).is_ok_and(|length| length > 0) {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_name(name: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("name".to_owned(), name.to_owned())])
    }

    /// Actions of all events until now.
    fn actions(events: &Events) -> Vec<String> {
        let mut seen = Vec::new();
        let query = EventQuery { since: None, until: Some(Timestamp::now()) };
        let mut pass = |event: &Event| {
            seen.push(event.action.clone());
            ControlFlow::Continue(())
        };
        events.read(&query, &mut pass).unwrap();
        seen
    }

    #[test]
    fn events_have_dockers_shape() {
        let event = Event {
            status: "start".into(),
            id: "x".into(),
            from: "i".into(),
            kind: "container".into(),
            action: "start".into(),
            actor: Actor { id: "x".into(), attributes: of_name("web") },
            scope: "local".into(),
            time: 1,
            time_nano: 1_000_000_002,
        };
        assert_eq!(
            String::from_utf8(encoded(&event)).unwrap(),
            r#"{"status":"start","id":"x","from":"i","Type":"container","Action":"start","Actor":{"ID":"x","Attributes":{"name":"web"}},"scope":"local","time":1,"timeNano":1000000002}
"#
        );
    }

    #[test]
    fn events_are_read_in_order_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let events = Events::of(dir.path());
        assert!(actions(&events).is_empty());
        let long = "x".repeat(20 << 10);
        for number in 0..150 {
            events.add("volume", &long, &format!("{number}"), BTreeMap::new());
        }
        let seen = actions(&events);
        let expected: Vec<String> = (150 - seen.len()..150).map(|number| number.to_string()).collect();
        assert_eq!(seen, expected);
        assert!((50..110).contains(&seen.len()), "{}", seen.len());
        for entry in fs::read_dir(dir.path().join(DIR)).unwrap() {
            assert!(entry.unwrap().metadata().unwrap().len() <= LARGEST);
        }
        // A line that a power cut left incomplete or damaged is left out.
        let mut file = events.open_newest().unwrap();
        file.write_all(b"{\"Type\":\n").unwrap();
        events.add("image", "a", "last", BTreeMap::new());
        assert_eq!(actions(&events).last().map(String::as_str), Some("last"));
    }

    #[test]
    fn events_of_many_processes_are_followed_over_rotations() {
        let dir = tempfile::tempdir().unwrap();
        let events = Events::of(dir.path());
        let long = "x".repeat(8 << 10);
        let add = |writer: usize| {
            for number in 0..100 {
                events.add("volume", &long, &format!("{writer}/{number}"), BTreeMap::new());
            }
        };
        let (mut seen, mut last) = (Vec::new(), 0);
        std::thread::scope(|scope| {
            (0..4).for_each(|writer| drop(scope.spawn(move || add(writer))));
            let mut pass = |event: &Event| {
                assert!(event.time_nano >= last, "times are in order");
                last = event.time_nano;
                seen.push(event.action.clone());
                if seen.len() == 400 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            events.read(&EventQuery::default(), &mut pass).unwrap();
        });
        for writer in 0..4 {
            let prefix = format!("{writer}/");
            let own: Vec<&String> = seen.iter().filter(|action| action.starts_with(&prefix)).collect();
            let expected: Vec<String> = (0..100).map(|number| format!("{writer}/{number}")).collect();
            assert_eq!(own, expected.iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn long_labels_make_no_long_event() {
        let dir = tempfile::tempdir().unwrap();
        let events = Events::of(dir.path());
        let mut attributes = of_name("web");
        attributes.insert("label".into(), "x".repeat(LONGEST));
        events.add("container", "a", "create", attributes);
        let mut seen = None;
        let query = EventQuery { since: None, until: Some(Timestamp::now()) };
        events
            .read(&query, &mut |event| {
                seen = Some(event.actor.attributes.clone());
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(seen, Some(of_name("web")));
    }
}
