//! Rows that a terminal shows of a build: a function of the events, the terminal's size, and the time.
//!
//! ```text
//! [+] Building 12.3s (5/9)
//!  => [internal] load build definition from Dockerfile             0.0s
//!  => CACHED 3 steps
//!  => [4/5] RUN make                                               9.8s
//!  => => # cc -c main.c
//! ```
//!
//! One row a step, cut to the width; below those that run the last lines of their output. Steps that were found in the cache
//! share a row. Where the terminal is too low for all, the oldest finished rows are left out.

use crate::text;
use crate::ui::Size;
use crate::visible::{Colors, output_line, visible};
use kiln_builder::event::{Event, Row};
use std::collections::BTreeMap;
use std::time::Duration;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Output lines that are shown of a step that failed.
const FAILED_LINES: usize = 20;

/// Output lines that are shown of a step that runs, where there is room.
const RUNNING_LINES: usize = 6;

/// Bytes of output that are kept of a step.
const LONGEST: usize = 64 << 10;

/// State of a build.
#[derive(Default)]
pub(super) struct Board {
    entries: Vec<(Row, Entry)>,
    /// Number of rows of the whole build, as far as it is known.
    expected: usize,
    is_interrupted: bool,
}

/// Row of a step.
struct Entry {
    name: String,
    started: Duration,
    state: State,
    /// The end of the program's output.
    output: Vec<u8>,
    /// Bytes done and in total, by part.
    parts: BTreeMap<String, (u64, u64)>,
    notes: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Cached,
    Done(Duration),
    Failed(Duration),
    Canceled(Duration),
}

/// Outcome of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It is still running.
    No,
    /// The step has succeeded.
    Well,
    /// The step has failed.
    Badly,
}

/// Colours of lines, as "select graphic rendition" has them.
#[derive(Clone, Copy)]
enum Paint {
    Plain,
    Bold,
    Blue,
    Red,
    Yellow,
    Dim,
}

/// A line before its colour.
struct Line {
    text: String,
    paint: Paint,
}

impl Board {
    /// Records an event, with the time since the build began.
    pub(super) fn apply(&mut self, event: &Event, now: Duration) {
        match event {
            Event::Planned { rows } => self.expected = self.entries.len() + rows,
            Event::Started { row, name } => self.add(*row, name, State::Running, now),
            Event::Cached { row, name } => self.add(*row, name, State::Cached, now),
            Event::Output { row, bytes } => self.with(*row, |entry| entry.add_output(bytes)),
            Event::Progress { row, part, current, total } => self.with(*row, |entry| {
                entry.parts.insert(part.clone(), (*current, *total));
            }),
            Event::Done { row } => self.with(*row, |entry| entry.state = State::Done(now)),
            Event::Failed { row, message } => self.with(*row, |entry| {
                // Steps that were cancelled because another one failed are not shown as failed.
                let is_stopped = message == "canceled";
                entry.state = if is_stopped { State::Canceled(now) } else { State::Failed(now) };
            }),
            Event::Explained { row, reason } => {
                self.with(*row, |entry| entry.notes.push(format!("why: {reason}")));
            }
            Event::Note { row, text } => self.with(*row, |entry| entry.notes.push(text.clone())),
            // They are printed above the rows, or at the end.
            Event::Findings { .. } | Event::Warning { .. } => {}
        }
    }

    /// Records that the user has cancelled the build.
    pub(super) fn interrupt(&mut self) {
        self.is_interrupted = true;
    }

    /// True before the first event.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn add(&mut self, row: Row, name: &str, state: State, now: Duration) {
        let entry = Entry {
            name: one_line(name),
            started: now,
            state,
            output: Vec::new(),
            parts: BTreeMap::new(),
            notes: Vec::new(),
        };
        self.entries.push((row, entry));
    }

    fn with(&mut self, row: Row, change: impl FnOnce(&mut Entry)) {
        if let Some((_, entry)) = self.entries.iter_mut().rev().find(|(known, _)| *known == row) {
            change(entry);
        }
    }

    /// Lines for a terminal while the build is running, at most one less than it has rows: the cursor needs one.
    pub(super) fn frame(&self, size: Size, now: Duration, has_colors: bool) -> Vec<String> {
        let room = size.rows.saturating_sub(2);
        let running = self.entries.iter().filter(|(_, entry)| entry.is_running()).count();
        let below = (room.saturating_sub(running) / running.max(1)).min(RUNNING_LINES);
        let mut blocks: Vec<(bool, Vec<Line>)> = self
            .blocks()
            .map(|block| (block.is_running(), block.lines(size.columns, now, below, false)))
            .collect();
        let shown = |blocks: &[(bool, Vec<Line>)]| blocks.iter().map(|(_, lines)| lines.len()).sum::<usize>();
        // The oldest finished rows go first, then the youngest running ones.
        while shown(&blocks) > room {
            match blocks.iter().position(|(is_running, _)| !is_running) {
                Some(oldest) => blocks.remove(oldest),
                None => blocks.pop().expect("there are lines, and so blocks"),
            };
        }
        let header = self.header(size.columns, now, Ended::No);
        let lines = std::iter::once(header).chain(blocks.into_iter().flat_map(|(_, lines)| lines));
        lines.map(|line| line.painted(has_colors)).collect()
    }

    /// Lines of all rows, for the end of the build.
    pub(super) fn last(&self, size: Size, now: Duration, has_colors: bool, ended: Ended) -> Vec<String> {
        let blocks = self.blocks().flat_map(|block| block.lines(size.columns, now, FAILED_LINES, true));
        let header = self.header(size.columns, now, ended);
        std::iter::once(header).chain(blocks).map(|line| line.painted(has_colors)).collect()
    }

    fn header(&self, columns: usize, now: Duration, ended: Ended) -> Line {
        let finished = self.entries.iter().filter(|(_, entry)| entry.is_finished()).count();
        let all = match ended {
            Ended::Well => self.entries.len(),
            Ended::No | Ended::Badly => self.entries.len().max(self.expected),
        };
        let end = match ended {
            _ if self.is_interrupted => " CANCELED",
            Ended::No => "",
            Ended::Well => " FINISHED",
            Ended::Badly => " FAILED",
        };
        let text = format!("[+] Building {} ({finished}/{all}){end}", seconds(now));
        Line { text: cut(&text, columns), paint: Paint::Bold }
    }

    /// Rows in order; cached steps share a row, in place of the first of them.
    fn blocks(&self) -> impl Iterator<Item = Block<'_>> {
        let cached = self.entries.iter().filter(|(_, entry)| entry.state == State::Cached).count();
        let mut is_shown = false;
        self.entries.iter().filter_map(move |(_, entry)| match entry.state {
            State::Cached if is_shown => None,
            State::Cached if cached > 1 => {
                is_shown = true;
                Some(Block::Cached(cached))
            }
            _ => Some(Block::Entry(entry)),
        })
    }
}

/// Content of one row, with the lines below it.
enum Block<'a> {
    /// Number of consecutive cached steps.
    Cached(usize),
    Entry(&'a Entry),
}

impl Block<'_> {
    fn is_running(&self) -> bool {
        matches!(self, Block::Entry(entry) if entry.is_running())
    }

    /// The row, with at most `below` lines of output below it. The last time a row is shown, its notes and what a program
    /// that failed wrote are shown whole.
    fn lines(&self, columns: usize, now: Duration, below: usize, is_last: bool) -> Vec<Line> {
        let entry = match self {
            Block::Cached(count) => {
                let text = cut(&format!(" => CACHED {count} steps"), columns);
                return vec![Line { text, paint: Paint::Blue }];
            }
            Block::Entry(entry) => entry,
        };
        let mut lines = vec![entry.row(columns, now)];
        let dim = |text: String| Line { text: cut(&text, columns), paint: Paint::Dim };
        match entry.state {
            State::Running if !is_last => {
                let all = entry.notes.iter().map(|note| format!(" => => {}", one_line(note)));
                let all = all.chain(entry.transfer().map(|sizes| format!(" => => {sizes}")));
                let output = entry.output_lines().filter(|line| !line.is_empty());
                let all = all.chain(output.map(|line| format!(" => => # {}", one_line(&line))));
                let all: Vec<String> = all.collect();
                lines.extend(all.into_iter().rev().take(below).rev().map(dim));
            }
            State::Failed(_) if is_last => {
                let output: Vec<String> = entry.output_lines().collect();
                let first = output.len().saturating_sub(below);
                let whole = |line: &String| Line { text: output_line(line), paint: Paint::Plain };
                lines.extend(output[first..].iter().map(whole));
            }
            _ if is_last => {
                lines.extend(entry.notes.iter().map(|note| dim(format!(" => => {}", one_line(note)))));
            }
            _ => {}
        }
        lines
    }
}

impl Entry {
    fn is_running(&self) -> bool {
        self.state == State::Running
    }

    fn is_finished(&self) -> bool {
        matches!(self.state, State::Done(_) | State::Cached)
    }

    fn row(&self, columns: usize, now: Duration) -> Line {
        let (mark, end, paint) = match self.state {
            State::Running => ("", Some(now), Paint::Plain),
            State::Cached => ("CACHED ", None, Paint::Blue),
            State::Done(end) => ("", Some(end), Paint::Blue),
            State::Failed(end) => ("ERROR ", Some(end), Paint::Red),
            State::Canceled(end) => ("CANCELED ", Some(end), Paint::Yellow),
        };
        let text = format!(" => {mark}{}", self.name);
        let Some(end) = end else { return Line { text: cut(&text, columns), paint } };
        let time = seconds(end.saturating_sub(self.started));
        let text = cut(&text, columns.saturating_sub(time.len() + 1));
        let gap = columns.saturating_sub(text.width() + time.len());
        Line { text: cut(&format!("{text}{}{time}", " ".repeat(gap)), columns), paint }
    }

    fn add_output(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
        let mut ends = self.output.iter().rev().enumerate().filter(|(_, byte)| **byte == b'\n');
        if let Some((after, _)) = ends.nth(FAILED_LINES) {
            self.output.drain(..self.output.len() - after);
        }
        // Of a line without end only the last part is kept.
        self.output.drain(..self.output.len().saturating_sub(LONGEST));
    }

    /// The last lines of output as a terminal shows them: a carriage return overwrites the line.
    fn output_lines(&self) -> impl Iterator<Item = String> {
        let text = String::from_utf8_lossy(&self.output).into_owned();
        let lines = text.lines().map(|line| {
            line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default().trim_end().to_owned()
        });
        lines.collect::<Vec<_>>().into_iter()
    }

    /// Share of the bytes that have been downloaded or read.
    fn transfer(&self) -> Option<String> {
        if self.parts.is_empty() {
            return None;
        }
        let add = |(done, all): (u64, u64), (current, total): &(u64, u64)| (done + current, all + total);
        let (done, all) = self.parts.values().fold((0, 0), add);
        Some(match all {
            0 => text::size(done),
            all => format!("{} / {}", text::size(done), text::size(all)),
        })
    }
}

impl Line {
    fn painted(self, has_colors: bool) -> String {
        let code = match self.paint {
            Paint::Plain => return self.text,
            _ if !has_colors => return self.text,
            Paint::Bold => "1",
            Paint::Blue => "34",
            Paint::Red => "31",
            Paint::Yellow => "33",
            Paint::Dim => "2",
        };
        format!("\x1b[{code}m{}\x1b[0m", self.text)
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1}s", time.as_secs_f64())
}

/// Replaces line feeds, since a row is one line.
fn one_line(text: &str) -> String {
    visible(text, Colors::Drop).replace(['\n', '\t'], " ")
}

/// Cuts a line to a number of columns, with `…` at its end when it was longer.
fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut width = 0;
    let fits = |character: &char| {
        width += character.width().unwrap_or(0);
        width < columns
    };
    let mut shown: String = text.chars().take_while(fits).collect();
    if columns > 0 {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
#[path = "frame/tests.rs"]
mod tests;
