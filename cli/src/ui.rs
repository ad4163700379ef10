//! The only place that prints. Answers go to standard output, everything else to standard error.
//!
//! Every function makes control characters visible (see `visible`), so that text from outside cannot steer a terminal,
//! whoever printed it. Data for programs is passed on as it is, unless it goes to a terminal.

use crate::visible::{Colors, visible};
use kiln_parser::diagnostic::Color;
use kiln_registry::Waiting;
use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Prints an answer; a reader that has gone away is no error.
pub fn print(text: &str) {
    write_out(&visible(text, Colors::Show));
}

/// Prints an answer and ends its line.
pub fn line(text: &str) {
    print(&format!("{text}\n"));
}

/// Prints an answer that was rendered with colours of our own, or without.
pub fn print_rendered(text: &str, color: Color) {
    write_out(&visible(text, kept(color)));
}

/// Prints an answer in a form that programs read, such as JSON or a template's.
pub fn data(text: &str) {
    match std::io::stdout().is_terminal() {
        true => print(text),
        false => write_out(text),
    }
}

/// Prints data and ends its line.
pub fn data_line(text: &str) {
    data(&format!("{text}\n"));
}

fn write_out(text: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        lose(error);
    }
}

/// Why an answer did not reach standard output.
static LOST: OnceLock<std::io::Error> = OnceLock::new();

/// Notes that a part of the answer was not written.
pub fn lose(error: std::io::Error) {
    // A reader that has seen enough, as in `| head -1`, wants no more.
    if error.kind() != std::io::ErrorKind::BrokenPipe {
        let _ = LOST.set(error);
    }
}

/// The first error of standard output; `None` while all answers reached it.
pub fn lost_answer() -> Option<&'static std::io::Error> {
    LOST.get()
}

/// Shows a wait that a server asks for: on a terminal as a line that counts down and is removed, else as one line.
pub fn tell_wait(waiting: &Waiting) {
    static TOLD: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());
    let text = wait_text(waiting);
    if is_terminal() {
        let line = match waiting.left {
            0 => String::new(),
            _ => visible(&text, Colors::Drop).replace('\n', " "),
        };
        write_error(&format!("\r\x1b[K{line}"));
    } else if TOLD.lock().unwrap_or_else(PoisonError::into_inner).insert(waiting.id) {
        tell_line(&text);
    }
}

/// A wait that a server asks for, in words.
pub fn wait_text(waiting: &Waiting) -> String {
    let Waiting { server, answer, left, .. } = waiting;
    format!("{server} answers {answer}; trying again in {left} s")
}

/// Tells something that is no answer.
pub fn tell(text: &str) {
    write_error(&visible(text, Colors::Show));
}

/// Tells a line.
pub fn tell_line(text: &str) {
    tell(&format!("{text}\n"));
}

/// Tells something that has colours: our own, or those of a program in a container (see `visible::output_line`).
pub fn tell_colored(text: &str) {
    write_error(&visible(text, Colors::Keep));
}

/// Tells something that was rendered with colours of our own, or without.
pub fn tell_rendered(text: &str, color: Color) {
    write_error(&visible(text, kept(color)));
}

fn kept(color: Color) -> Colors {
    if color == Color::Always { Colors::Keep } else { Colors::Show }
}

/// Tells a line in a form that programs read.
pub fn tell_data_line(text: &str) {
    match std::io::stderr().is_terminal() {
        true => tell_line(text),
        false => write_error(&format!("{text}\n")),
    }
}

fn write_error(text: &str) {
    let mut out = std::io::stderr().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Whether messages may carry colours.
pub fn color() -> Color {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if wanted && std::io::stderr().is_terminal() { Color::Always } else { Color::Never }
}

/// Whether answers may carry colours.
pub fn color_of_answers() -> Color {
    if std::io::stdout().is_terminal() { color() } else { Color::Never }
}

/// True when messages go to a terminal.
pub fn is_terminal() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}
