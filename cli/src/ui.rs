//! The only module that prints. The output of commands goes to standard output, messages go to standard error.
//!
//! Every function makes control characters visible (see `visible`), so that text from outside cannot control the
//! terminal. Data for programs is printed as it is, unless it goes to a terminal.

mod block;

use crate::error::CliError;
use crate::visible::{Colors, visible};
use block::Block;
use kiln_parser::diagnostic::Color;
use kiln_registry::Waiting;
use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Lines at the end of the terminal that are redrawn while a command is running.
static BLOCK: Mutex<Block> = Mutex::new(Block::new());

/// Value of the flag `--color`.
static CHOICE: AtomicU8 = AtomicU8::new(AUTO);
const AUTO: u8 = 0;
const ALWAYS: u8 = 1;
const NEVER: u8 = 2;

/// Prints output. A closed pipe is no error.
pub fn print(text: &str) {
    write_out(&visible(text, Colors::Show));
}

/// Prints a line of output.
pub fn line(text: &str) {
    print(&format!("{text}\n"));
}

/// Prints output that was rendered with our own colours, or without.
pub fn print_rendered(text: &str, color: Color) {
    write_out(&visible(text, kept(color)));
}

/// Prints output that programs read, such as JSON or that of a template.
pub fn data(text: &str) {
    match std::io::stdout().is_terminal() {
        true => print(text),
        false => write_out(text),
    }
}

/// Prints a line of output that programs read.
pub fn data_line(text: &str) {
    data(&format!("{text}\n"));
}

/// Moves the output that follows to the top of the terminal, and clears it; elsewhere it follows the output before.
pub fn clear_answer() {
    if std::io::stdout().is_terminal() {
        write_out("\x1b[H\x1b[J");
    }
}

fn write_out(text: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        CLOSED.store(true, Ordering::Relaxed);
        lose(error);
    }
}

/// True when a write to standard output has failed.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// True when standard output takes nothing more: its reader has ended, or the disk is full.
pub fn is_closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

/// Error of the first write to standard output that failed.
static LOST: OnceLock<std::io::Error> = OnceLock::new();

/// Records that a part of the output was not written.
pub fn lose(error: std::io::Error) {
    // A reader such as `head -1` may close the pipe early.
    if error.kind() != std::io::ErrorKind::BrokenPipe {
        let _ = LOST.set(error);
    }
}

/// The first error of standard output; `None` when all output was written.
pub fn lost_answer() -> Option<&'static std::io::Error> {
    LOST.get()
}

/// Shows a wait that a server has asked for: on a terminal as a line that counts down and is removed, else as one line.
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

/// Describes a wait that a server has asked for.
pub fn wait_text(waiting: &Waiting) -> String {
    let Waiting { server, answer, left, .. } = waiting;
    format!("{server} answers {answer}; trying again in {left} s")
}

/// Prints a message to standard error.
pub fn tell(text: &str) {
    write_error(&visible(text, Colors::Show));
}

/// Prints a message of one line.
pub fn tell_line(text: &str) {
    tell(&format!("{text}\n"));
}

/// Prints a message with colours: our own, or those of a program in a container (see `visible::output_line`).
pub fn tell_colored(text: &str) {
    let colors = if CHOICE.load(Ordering::Relaxed) == NEVER { Colors::Drop } else { Colors::Keep };
    write_error(&visible(text, colors));
}

/// Prints a message that was rendered with our own colours, or without.
pub fn tell_rendered(text: &str, color: Color) {
    write_error(&visible(text, kept(color)));
}

fn kept(color: Color) -> Colors {
    if color == Color::Always { Colors::Keep } else { Colors::Show }
}

/// Prints a line on standard error that programs read.
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

/// Writes to standard error. Errors are ignored: there is no other stream for them.
fn send(text: &str) {
    let mut out = std::io::stderr().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Draws lines at the end of the terminal in place of those that were drawn before. They may have our own colours, and must
/// not be wider than the terminal.
pub fn draw(lines: &[String]) {
    let lines = lines.iter().map(|line| visible(line, Colors::Keep).into_owned()).collect();
    let mut block = BLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    send(&block.redraw(lines, size().columns));
}

/// Asks the user whether to continue; any answer but yes, also the end of input, means no.
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

/// Size of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Number of characters in a line.
    pub columns: usize,
    /// Number of lines on the screen.
    pub rows: usize,
}

/// Size of the terminal at standard error; 80 by 24 when it is no terminal, or its size is not known.
pub fn size() -> Size {
    size_of(rustix::stdio::stderr())
}

/// Size of the terminal at standard output, like [`size`].
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

/// Sets the value of `--color`.
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

/// Returns whether messages may have colours.
pub fn color() -> Color {
    color_on(is_terminal())
}

/// Returns whether output may have colours.
pub fn color_of_answers() -> Color {
    color_on(std::io::stdout().is_terminal())
}

/// Chooses colours: `--color` takes precedence over `NO_COLOR`, and that over the terminal.
fn color_on(is_terminal: bool) -> Color {
    let unwanted = || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    match CHOICE.load(Ordering::Relaxed) {
        ALWAYS => Color::Always,
        AUTO if is_terminal && !unwanted() => Color::Always,
        _ => Color::Never,
    }
}

/// True when standard error is a terminal that can move its cursor.
pub fn is_terminal() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}

/// True when standard output is a terminal.
pub fn answers_to_terminal() -> bool {
    rustix::termios::isatty(std::io::stdout())
}
