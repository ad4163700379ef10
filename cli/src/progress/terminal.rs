//! Lines that change while work goes on.

use crate::visible::{Colors, output_line, visible};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use kiln_builder::event::{Event, Row};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Output lines that are shown when a step fails.
const TAIL: usize = 20;

/// Bytes of them that are kept.
const LONGEST: usize = 64 << 10;

/// One moving line for each row at work, and a still one above for each that is done.
pub(super) struct Terminal {
    lines: Lines,
    rows: BTreeMap<Row, Shown>,
}

/// What is written: all of it through here, where nothing gets past that steers a terminal.
struct Lines(MultiProgress);

impl Lines {
    fn still(&self, text: &str) {
        self.write(&visible(text, Colors::Show));
    }

    /// A line of a program, with its colours.
    fn still_output(&self, line: &str) {
        self.write(&format!("    {}", output_line(line)));
    }

    fn write(&self, text: &str) {
        // A terminal that is gone shows nothing.
        let _ = self.0.println(text);
    }

    fn moving(&self, name: &str) -> MovingLine {
        let bar = self.0.add(ProgressBar::new_spinner());
        let style = ProgressStyle::with_template(" {spinner} {prefix} {elapsed} {msg:.dim}");
        bar.set_style(style.expect("the template is well-formed"));
        bar.set_prefix(one_line(name));
        bar.enable_steady_tick(Duration::from_millis(100));
        MovingLine(bar)
    }
}

struct MovingLine(ProgressBar);

impl MovingLine {
    fn set_message(&self, text: &str) {
        self.0.set_message(one_line(text));
    }
}

/// A line that is rewritten must not become two, nor be cut within a colour.
fn one_line(text: &str) -> String {
    visible(text, Colors::Drop).replace(['\n', '\t'], " ")
}

struct Shown {
    name: String,
    bar: MovingLine,
    started: Instant,
    output: Vec<u8>,
    parts: BTreeMap<String, (u64, u64)>,
}

impl Terminal {
    pub(super) fn new() -> Terminal {
        Terminal { lines: Lines(MultiProgress::new()), rows: BTreeMap::new() }
    }

    pub(super) fn show(&mut self, event: &Event) {
        match event {
            Event::Started { row, name } => self.start(*row, name),
            Event::Cached { name, .. } => self.lines.still(&format!(" CACHED {name}")),
            Event::Output { row, bytes } => self.output(*row, bytes),
            Event::Progress { row, part, current, total } => self.progress(*row, part, *current, *total),
            Event::Done { row } => self.end(*row, "=>"),
            Event::Failed { row, message } => self.fail(*row, message),
            Event::Explained { reason, .. } => self.lines.still(&format!("    why: {reason}")),
            Event::Note { text, .. } => self.lines.still(&format!("    {text}")),
            // They are told when all is over.
            Event::Findings { .. } => {}
            Event::Warning { message } => self.lines.still(message),
        }
    }

    pub(super) fn finish(&mut self) {
        self.rows.clear();
        let _ = self.lines.0.clear();
    }

    fn start(&mut self, row: Row, name: &str) {
        let shown = Shown {
            name: name.to_owned(),
            bar: self.lines.moving(name),
            started: Instant::now(),
            output: Vec::new(),
            parts: BTreeMap::new(),
        };
        self.rows.insert(row, shown);
    }

    fn output(&mut self, row: Row, bytes: &[u8]) {
        let Some(shown) = self.rows.get_mut(&row) else { return };
        shown.output.extend_from_slice(bytes);
        let keep = shown.output.iter().rev().enumerate().filter(|(_, byte)| **byte == b'\n').nth(TAIL);
        if let Some((after, _)) = keep {
            shown.output.drain(..shown.output.len() - after);
        }
        // Of lines that do not end the last part is enough.
        shown.output.drain(..shown.output.len().saturating_sub(LONGEST));
        let text = String::from_utf8_lossy(&shown.output);
        let last = text.trim_end().rsplit(['\n', '\r']).next().unwrap_or_default();
        shown.bar.set_message(last);
    }

    fn progress(&mut self, row: Row, part: &str, current: u64, total: u64) {
        let Some(shown) = self.rows.get_mut(&row) else { return };
        shown.parts.insert(part.to_owned(), (current, total));
        let (current, total) =
            shown.parts.values().fold((0, 0), |(done, all), (current, total)| (done + current, all + total));
        let sizes = [crate::text::size(current), crate::text::size(total)];
        shown.bar.set_message(&sizes.join(" / "));
    }

    fn end(&mut self, row: Row, mark: &str) {
        let Some(shown) = self.rows.remove(&row) else { return };
        shown.bar.0.finish_and_clear();
        self.lines.still(&format!(" {mark} {} {:.1}s", shown.name, shown.started.elapsed().as_secs_f64()));
    }

    fn fail(&mut self, row: Row, message: &str) {
        let output = self.rows.get(&row).map(|shown| String::from_utf8_lossy(&shown.output).into_owned());
        if message == "canceled" {
            return self.end(row, "CANCELED");
        }
        self.end(row, "ERROR");
        for line in output.unwrap_or_default().lines() {
            // A carriage return overwrites what stood in the line.
            self.lines.still_output(line.rsplit('\r').next().unwrap_or_default());
        }
        self.lines.still(&format!("    {message}"));
    }
}
