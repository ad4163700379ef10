//! The only place that prints. Answers go to standard output, everything else to standard error.

use kiln_parser::diagnostic::Color;
use std::io::{IsTerminal, Write};

/// Prints an answer; a reader that has gone away is no error.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Prints an answer and ends its line.
pub fn line(text: &str) {
    print(&format!("{text}\n"));
}

/// Tells something that is no answer.
pub fn tell(text: &str) {
    let mut out = std::io::stderr().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Tells a line.
pub fn tell_line(text: &str) {
    tell(&format!("{text}\n"));
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
