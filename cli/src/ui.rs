//! The only place that prints. Answers go to standard output, everything else to standard error.
//!
//! Every function makes control characters visible (see `visible`), so that text from outside cannot steer a terminal,
//! whoever printed it. Data for programs is passed on as it is, unless it goes to a terminal.

mod block;

use crate::error::CliError;
use crate::visible::{Colors, visible};
use block::Block;
use kiln_parser::diagnostic::Color;
use kiln_registry::Waiting;
use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Lines at the end of the terminal that are rewritten while work goes on.
static BLOCK: Mutex<Block> = Mutex::new(Block::new());

/// What `--color` asks for.
static CHOICE: AtomicU8 = AtomicU8::new(AUTO);
const AUTO: u8 = 0;
const ALWAYS: u8 = 1;
const NEVER: u8 = 2;

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
    let colors = if CHOICE.load(Ordering::Relaxed) == NEVER { Colors::Drop } else { Colors::Keep };
    write_error(&visible(text, colors));
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
    let block = BLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    send(&block.above(text, size().columns));
}

/// Writes to standard error. A terminal that is gone shows nothing.
fn send(text: &str) {
    let mut out = std::io::stderr().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Shows lines at the end of the terminal in place of those that were drawn before. They may carry colours of our own, and
/// are as wide as the terminal at most.
pub fn draw(lines: &[String]) {
    let lines = lines.iter().map(|line| visible(line, Colors::Keep).into_owned()).collect();
    let mut block = BLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    send(&block.redraw(lines, size().columns));
}

/// Asks whether to go on; what is no yes, such as the end of input, is a no.
///
/// # Errors
///
/// Fails when standard input cannot be read.
pub fn confirm(warning: &str) -> Result<bool, CliError> {
    print(&format!("{warning}\nAre you sure you want to continue? [y/N] "));
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    read.map_err(|error| CliError::failed(format!("cannot read the answer: {error}")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Columns and rows of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Characters in a line.
    pub columns: usize,
    /// Lines.
    pub rows: usize,
}

/// The size of the terminal that messages go to; 80 by 24 where there is none, or it does not know.
pub fn size() -> Size {
    size_of(rustix::stdio::stderr())
}

/// The size of the terminal that answers go to.
pub fn size_of_answers() -> Size {
    size_of(rustix::stdio::stdout())
}

fn size_of(stream: rustix::fd::BorrowedFd<'_>) -> Size {
    let found = rustix::termios::tcgetwinsize(stream).ok();
    let known = |count: u16, other: usize| if count == 0 { other } else { count.into() };
    Size {
        columns: found.map_or(80, |size| known(size.ws_col, 80)),
        rows: found.map_or(24, |size| known(size.ws_row, 24)),
    }
}

/// Sets what `--color` asks for.
///
/// # Errors
///
/// Fails for anything but `auto`, `always` and `never`.
pub fn choose_color(text: &str) -> Result<(), CliError> {
    let choice = match text {
        "auto" => AUTO,
        "always" => ALWAYS,
        "never" => NEVER,
        other => {
            return Err(CliError::Flags(
                format!("invalid value {other:?} for --color"),
                vec!["one of auto, always, never".to_owned()],
            ));
        }
    };
    CHOICE.store(choice, Ordering::Relaxed);
    Ok(())
}

/// Whether messages may carry colours.
pub fn color() -> Color {
    color_on(is_terminal())
}

/// Whether answers may carry colours.
pub fn color_of_answers() -> Color {
    color_on(std::io::stdout().is_terminal())
}

/// `--color` counts before `NO_COLOR`, and that before the terminal.
fn color_on(is_terminal: bool) -> Color {
    let unwanted = || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    match CHOICE.load(Ordering::Relaxed) {
        ALWAYS => Color::Always,
        AUTO if is_terminal && !unwanted() => Color::Always,
        _ => Color::Never,
    }
}

/// True when messages go to a terminal that can move its cursor.
pub fn is_terminal() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}
