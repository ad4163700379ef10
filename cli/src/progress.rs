//! Shows the progress of a build.

mod frame;
mod plain;
mod raw;
mod terminal;

use crate::error::CliError;
use crate::ui;
use kiln_builder::event::{Event, Finding, Row};
use kiln_parser::diagnostic::Color;
use kiln_registry::Waiting;
use plain::Plain;
use raw::Raw;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use terminal::Terminal;

/// Style of the progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// One line per event, in the format of BuildKit's plain mode.
    Plain,
    /// Rows that change, on a terminal.
    Terminal,
    /// One JSON object per line, for programs.
    Raw,
    /// No progress at all.
    Quiet,
}

impl Style {
    /// Parses the value of `--progress`.
    ///
    /// # Errors
    ///
    /// Fails for unknown styles, and for `tty` without a terminal.
    pub fn choose(text: &str) -> Result<Style, CliError> {
        match text {
            "" | "auto" if ui::is_terminal() => Ok(Style::Terminal),
            "" | "auto" | "plain" => Ok(Style::Plain),
            "tty" if ui::is_terminal() => Ok(Style::Terminal),
            "tty" => Err(CliError::failed("--progress=tty needs a terminal").hint("use --progress=plain")),
            "rawjson" => Ok(Style::Raw),
            "quiet" | "none" => Ok(Style::Quiet),
            other => Err(CliError::failed(format!("invalid value {other:?} for --progress"))
                .hint("one of auto, plain, tty, quiet, rawjson")),
        }
    }
}

/// Shows events of a build, from any thread.
pub struct Progress {
    shown: Option<Mutex<Shown>>,
    /// Notices that are printed at the end.
    findings: Mutex<Vec<String>>,
    is_raw: bool,
    is_terminal: bool,
    /// Waits that have a row.
    waits: Mutex<BTreeSet<u64>>,
}

enum Shown {
    Plain(Plain),
    Terminal(Terminal),
    Raw(Raw),
}

impl Progress {
    /// Starts showing progress in a style.
    pub fn new(style: Style) -> Progress {
        let shown = match style {
            Style::Plain => Some(Shown::Plain(Plain::default())),
            Style::Terminal => Some(Shown::Terminal(Terminal::new())),
            Style::Raw => Some(Shown::Raw(Raw::default())),
            Style::Quiet => None,
        };
        let is_raw = style == Style::Raw;
        let is_terminal = style == Style::Terminal;
        let findings = Mutex::default();
        Progress { shown: shown.map(Mutex::new), findings, is_raw, is_terminal, waits: Mutex::default() }
    }

    /// Shows an event of the build.
    pub fn show(&self, event: &Event) {
        let Some(shown) = &self.shown else { return };
        if !self.is_raw {
            let mut kept = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                Event::Findings { list, .. } => {
                    kept.extend(list.iter().map(shown_finding));
                    return;
                }
                Event::Warning { message } => {
                    let text = message.strip_prefix("[Warning] ").unwrap_or(message).to_owned();
                    // Several platforms may have the same findings.
                    if !kept.contains(&text) {
                        kept.push(text);
                    }
                    return;
                }
                _ => {}
            }
        }
        match &mut *shown.lock().unwrap_or_else(PoisonError::into_inner) {
            Shown::Plain(plain) => ui::tell_colored(&plain.show(event)),
            Shown::Terminal(terminal) => terminal.show(event),
            // It is not shown.
            Shown::Raw(_) if matches!(event, Event::Planned { .. }) => {}
            Shown::Raw(raw) => ui::tell_data_line(&raw.show(event)),
        }
    }

    /// Prints a notice before the build begins.
    pub fn warn(&self, message: &str) {
        self.show(&Event::Warning { message: message.to_owned() });
    }

    /// Shows a wait that a server has asked for as a row that counts down; without a terminal, every ten seconds.
    pub fn wait(&self, waiting: &Waiting) {
        // Rows of the build are numbered from 0.
        let row = Row(usize::MAX - waiting.id as usize);
        let is_new = self.waits.lock().unwrap_or_else(PoisonError::into_inner).insert(waiting.id);
        if is_new {
            self.show(&Event::Started {
                row,
                name: format!("[waiting] {} answers {}", waiting.server, waiting.answer),
            });
        }
        if waiting.left == 0 {
            return self.show(&Event::Done { row });
        }
        if is_new || self.is_terminal || waiting.left.is_multiple_of(10) {
            let text = format!("trying again in {} s\n", waiting.left);
            self.show(&Event::Output { row, bytes: text.into_bytes() });
        }
    }

    /// Redraws the rows after the terminal's size has changed.
    pub fn redraw(&self) {
        if let Some(Shown::Terminal(terminal)) = self.lock().as_deref() {
            terminal.redraw();
        }
    }

    /// Notes that the user has cancelled the build.
    pub fn interrupt(&self) {
        if let Some(Shown::Terminal(terminal)) = self.lock().as_deref_mut() {
            terminal.interrupt();
        }
    }

    /// Removes the rows that change, when the build has ended.
    pub fn finish(&self, is_ok: bool) {
        let Some(mut shown) = self.lock() else { return };
        match &mut *shown {
            Shown::Plain(plain) => ui::tell_colored(&plain.finish()),
            Shown::Terminal(terminal) => terminal.finish(is_ok),
            Shown::Raw(_) => {}
        }
        self.tell_findings();
    }

    fn lock(&self) -> Option<MutexGuard<'_, Shown>> {
        Some(self.shown.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn tell_findings(&self) {
        let findings = std::mem::take(&mut *self.findings.lock().unwrap_or_else(PoisonError::into_inner));
        let number = match findings.len() {
            0 => return,
            1 => "1 warning".to_owned(),
            number => format!("{number} warnings"),
        };
        let (yellow, plain) = match ui::color() {
            Color::Always => ("\x1b[33m", "\x1b[0m"),
            Color::Never => ("", ""),
        };
        ui::tell_colored(&format!(" {yellow}{number} found (use --check to expand):{plain}\n"));
        findings.iter().for_each(|finding| ui::tell_line(&format!(" - {finding}")));
    }
}

fn shown_finding(finding: &Finding) -> String {
    format!("{}: {} (line {})", finding.rule, finding.message, finding.line)
}
