//! Progress as lines, in the format of BuildKit's plain mode, which scripts read.
//!
//! ```text
//! #5 [2/4] RUN make
//! #5 0.213 cc main.c
//! #5 DONE 0.4s
//! ```
//!
//! Rows are numbered in the order in which they appear; a blank line stands between rows, and the name of a
//! row is repeated when it comes back after another.

use crate::visible::{Colors, output_line, visible};
use kiln_builder::event::{Event, Row};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Instant;

/// Output lines that are repeated when a step fails.
const TAIL: usize = 20;

/// Bytes of a line that are waited for.
const LONGEST: usize = 1 << 20;

/// Converts events to lines.
#[derive(Default)]
pub(super) struct Plain {
    rows: BTreeMap<Row, Shown>,
    last: Option<Row>,
    /// Parts whose end has been printed.
    complete: BTreeSet<(Row, String)>,
    failed: Vec<String>,
}

struct Shown {
    number: usize,
    name: String,
    started: Instant,
    /// The beginning of a line that has not ended yet.
    partial: Vec<u8>,
    tail: Vec<String>,
}

impl Plain {
    /// Returns the lines for an event.
    pub(super) fn show(&mut self, event: &Event) -> String {
        let mut out = String::new();
        match event {
            Event::Started { row, name } => {
                self.add(*row, name);
                self.turn_to(*row, &mut out);
            }
            Event::Cached { row, name } => {
                self.add(*row, name);
                self.turn_to(*row, &mut out);
                self.line(*row, "CACHED", &mut out);
            }
            Event::Output { row, bytes } => self.output(*row, bytes, &mut out),
            Event::Note { row, text } | Event::Explained { row, reason: text } => {
                self.turn_to(*row, &mut out);
                let text = match event {
                    Event::Explained { .. } => format!("why: {text}"),
                    _ => text.clone(),
                };
                self.line(*row, &text, &mut out);
            }
            Event::Progress { row, part, current, total } => {
                // Only the end of a part has a line.
                if current == total && self.complete.insert((*row, part.clone())) {
                    self.turn_to(*row, &mut out);
                    let text = format!("{part} {} done", crate::text::size(*total));
                    self.line(*row, &text, &mut out);
                }
            }
            Event::Done { row } => {
                self.end_partial(*row, &mut out);
                self.turn_to(*row, &mut out);
                let seconds = self.rows[row].started.elapsed().as_secs_f64();
                self.line(*row, &format!("DONE {seconds:.1}s"), &mut out);
            }
            Event::Failed { row, message } => {
                self.end_partial(*row, &mut out);
                self.turn_to(*row, &mut out);
                // Steps that were cancelled because another one failed are not shown as failed.
                if message == "canceled" {
                    self.line(*row, "CANCELED", &mut out);
                } else {
                    self.line(*row, &format!("ERROR: {message}"), &mut out);
                    self.remember_failure(*row);
                }
            }
            // Findings are printed at the end.
            Event::Findings { .. } | Event::Planned { .. } => {}
            Event::Warning { message } => {
                let _ = writeln!(out, "{}", visible(message, Colors::Show));
            }
        }
        out
    }

    /// Returns the lines that are repeated at the end: those of the failed step.
    pub(super) fn finish(&mut self) -> String {
        let mut out = String::new();
        for block in self.failed.drain(..) {
            out.push_str(&block);
        }
        if !out.is_empty() {
            out.insert(0, '\n');
        } else if self.last.is_some() {
            out.push('\n');
        }
        self.last = None;
        out
    }

    fn add(&mut self, row: Row, name: &str) {
        let number = self.rows.len() + 1;
        let shown = Shown {
            number,
            name: name.to_owned(),
            started: Instant::now(),
            partial: Vec::new(),
            tail: Vec::new(),
        };
        self.rows.insert(row, shown);
    }

    fn turn_to(&mut self, row: Row, out: &mut String) {
        if self.last == Some(row) {
            return;
        }
        if self.last.is_some() {
            out.push('\n');
        }
        self.last = Some(row);
        let name = self.rows[&row].name.clone();
        self.line(row, &name, out);
    }

    /// Prefixes every line of the text with the row's number.
    fn line(&self, row: Row, text: &str, out: &mut String) {
        for line in visible(text, Colors::Show).split('\n') {
            let _ = writeln!(out, "#{} {line}", self.rows[&row].number);
        }
    }

    fn output(&mut self, row: Row, bytes: &[u8], out: &mut String) {
        let Some(shown) = self.rows.get_mut(&row) else { return };
        let before = shown.partial.len();
        shown.partial.extend_from_slice(bytes);
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map(|at| before + at);
        // A line without end is printed in pieces.
        let longest = (shown.partial.len() >= LONGEST).then(|| shown.partial.len() - 1);
        let Some(end) = end.or(longest) else { return };
        let lines: Vec<u8> = shown.partial.drain(..=end).collect();
        self.turn_to(row, out);
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            self.output_line(row, line, out);
        }
    }

    fn output_line(&mut self, row: Row, line: &[u8], out: &mut String) {
        let shown = self.rows.get_mut(&row).expect("only rows that exist have output");
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end_matches(['\n', '\r']);
        // A carriage return overwrites the line.
        let text = text.rsplit('\r').next().unwrap_or_default();
        let line = format!("{:.3} {}", shown.started.elapsed().as_secs_f64(), output_line(text));
        let _ = writeln!(out, "#{} {line}", shown.number);
        shown.tail.push(line);
        if shown.tail.len() > TAIL {
            shown.tail.remove(0);
        }
    }

    fn end_partial(&mut self, row: Row, out: &mut String) {
        let Some(shown) = self.rows.get_mut(&row) else { return };
        let partial = std::mem::take(&mut shown.partial);
        if !partial.is_empty() {
            self.turn_to(row, out);
            self.output_line(row, &partial, out);
        }
    }

    fn remember_failure(&mut self, row: Row) {
        let shown = &self.rows[&row];
        let rule = "------";
        let tail: String = shown.tail.iter().map(|line| format!("{line}\n")).collect();
        self.failed.push(format!("{rule}\n > {}:\n{tail}{rule}\n", visible(&shown.name, Colors::Show)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times in the output are replaced by `T`.
    fn check(events: &[Event], expected: &str) {
        let mut plain = Plain::default();
        let mut text: String = events.iter().map(|event| plain.show(event)).collect();
        text.push_str(&plain.finish());
        let mut masked = String::new();
        for line in text.split_inclusive('\n') {
            let words: Vec<String> = line
                .split(' ')
                .map(|word| {
                    let bare = word.trim_end().trim_end_matches('s');
                    let is_time = bare.contains('.') && bare.parse::<f64>().is_ok();
                    if is_time { word.replace(bare, "T") } else { word.to_owned() }
                })
                .collect();
            masked.push_str(&words.join(" "));
        }
        assert_eq!(masked, expected);
    }

    fn started(row: usize, name: &str) -> Event {
        Event::Started { row: Row(row), name: name.to_owned() }
    }

    fn output(row: usize, text: &str) -> Event {
        Event::Output { row: Row(row), bytes: text.as_bytes().to_vec() }
    }

    #[test]
    fn rows_take_turns() {
        check(
            &[
                started(0, "[1/2] RUN a"),
                output(0, "one\ntw"),
                started(7, "[2/2] RUN b"),
                output(0, "o\r\nthree"),
                Event::Done { row: Row(0) },
                Event::Done { row: Row(7) },
                Event::Cached { row: Row(8), name: "COPY".to_owned() },
            ],
            "#1 [1/2] RUN a\n#1 T one\n\n#2 [2/2] RUN b\n\n#1 [1/2] RUN a\n#1 T two\n#1 T three\n#1 DONE Ts\n\n#2 [2/2] RUN b\n#2 DONE Ts\n\n#3 COPY\n#3 CACHED\n\n",
        );
    }

    #[test]
    fn every_line_of_a_row_has_its_number() {
        check(
            &[
                started(0, "[1/2] RUN <<EOF\none\ntwo"),
                started(1, "[2/2] RUN b"),
                output(1, "half"),
                output(0, "three\nfo"),
                Event::Failed { row: Row(1), message: "a\nb".to_owned() },
                Event::Failed { row: Row(0), message: "canceled".to_owned() },
            ],
            "#1 [1/2] RUN <<EOF\n#1 one\n#1 two\n\n#2 [2/2] RUN b\n\n#1 [1/2] RUN <<EOF\n#1 one\n#1 two\n#1 T three\n\n#2 [2/2] RUN b\n#2 T half\n#2 ERROR: a\n#2 b\n\n#1 [1/2] RUN <<EOF\n#1 one\n#1 two\n#1 T fo\n#1 CANCELED\n\n------\n > [2/2] RUN b:\nT half\n------\n",
        );
    }

    #[test]
    fn failures_are_repeated() {
        check(
            &[
                started(0, "[1/1] RUN exit 3"),
                output(0, "bad\n"),
                Event::Failed { row: Row(0), message: "exit code: 3".to_owned() },
            ],
            "#1 [1/1] RUN exit 3\n#1 T bad\n#1 ERROR: exit code: 3\n\n------\n > [1/1] RUN exit 3:\nT bad\n------\n",
        );
    }
}
