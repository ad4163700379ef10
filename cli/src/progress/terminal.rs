//! Lines that change while work goes on.

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
    bars: MultiProgress,
    rows: BTreeMap<Row, Shown>,
}

struct Shown {
    name: String,
    bar: ProgressBar,
    started: Instant,
    output: Vec<u8>,
    parts: BTreeMap<String, (u64, u64)>,
}

impl Terminal {
    pub(super) fn new() -> Terminal {
        Terminal { bars: MultiProgress::new(), rows: BTreeMap::new() }
    }

    pub(super) fn show(&mut self, event: &Event) {
        match event {
            Event::Started { row, name } => self.start(*row, name),
            Event::Cached { name, .. } => self.still(&format!(" CACHED {name}")),
            Event::Output { row, bytes } => self.output(*row, bytes),
            Event::Progress { row, part, current, total } => self.progress(*row, part, *current, *total),
            Event::Done { row } => self.end(*row, "=>"),
            Event::Failed { row, message } => self.fail(*row, message),
            Event::Explained { reason, .. } => self.still(&format!("    why: {reason}")),
            Event::Note { text, .. } => self.still(&format!("    {text}")),
            // They are told when all is over.
            Event::Findings { .. } => {}
            Event::Warning { message } => self.still(message),
        }
    }

    pub(super) fn finish(&mut self) {
        self.rows.clear();
        let _ = self.bars.clear();
    }

    fn still(&self, text: &str) {
        // A terminal that is gone shows nothing.
        let _ = self.bars.println(text);
    }

    fn start(&mut self, row: Row, name: &str) {
        let bar = self.bars.add(ProgressBar::new_spinner());
        let style = ProgressStyle::with_template(" {spinner} {prefix} {elapsed} {msg:.dim}");
        bar.set_style(style.expect("the template is well-formed"));
        bar.set_prefix(name.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        let shown = Shown {
            name: name.to_owned(),
            bar,
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
        let last = text.trim_end().rsplit(['\n', '\r']).next().unwrap_or_default().to_owned();
        shown.bar.set_message(last);
    }

    fn progress(&mut self, row: Row, part: &str, current: u64, total: u64) {
        let Some(shown) = self.rows.get_mut(&row) else { return };
        shown.parts.insert(part.to_owned(), (current, total));
        let (current, total) =
            shown.parts.values().fold((0, 0), |(done, all), (current, total)| (done + current, all + total));
        shown.bar.set_message(format!("{} / {}", crate::text::size(current), crate::text::size(total)));
    }

    fn end(&mut self, row: Row, mark: &str) {
        let Some(shown) = self.rows.remove(&row) else { return };
        shown.bar.finish_and_clear();
        self.still(&format!(" {mark} {} {:.1}s", shown.name, shown.started.elapsed().as_secs_f64()));
    }

    fn fail(&mut self, row: Row, message: &str) {
        let output = self.rows.get(&row).map(|shown| String::from_utf8_lossy(&shown.output).into_owned());
        if message == "canceled" {
            return self.end(row, "CANCELED");
        }
        self.end(row, "ERROR");
        for line in output.unwrap_or_default().lines() {
            self.still(&format!("    {line}"));
        }
        self.still(&format!("    {message}"));
    }
}
