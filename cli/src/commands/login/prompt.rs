//! Questions for the user's name and password.

use crate::error::CliError;
use crate::ui;
use kiln_runtime::container::terminal::{RawOutput, RawTerminal};
use rustix::io::Errno;
use rustix::termios;

const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
const BACKSPACE: u8 = 8;
const CTRL_U: u8 = 21;
const DELETE: u8 = 127;

/// What the user is doing with a line.
#[derive(Debug, PartialEq, Eq)]
enum Typed {
    Goes,
    Ended,
    Left,
}

/// Asks for what is missing. The password is not shown.
///
/// # Errors
///
/// Fails without a terminal, and for empty answers.
pub(super) fn ask(user: Option<String>, password: Option<String>) -> Result<(String, String), CliError> {
    if !termios::isatty(rustix::stdio::stdin()) {
        return Err(CliError::failed("Cannot perform an interactive login from a non TTY device")
            .hint("echo \"$PASSWORD\" | kiln login -u NAME --password-stdin REGISTRY"));
    }
    let user = match user {
        Some(user) => user,
        None => checked("username", shown("Username: ")?)?,
    };
    let password = match password {
        Some(password) => password,
        None => checked("password", hidden("Password: ")?)?,
    };
    Ok((user, password))
}

fn checked(name: &str, answer: String) -> Result<String, CliError> {
    if answer.trim().is_empty() { Err(CliError::failed(format!("{name} is empty"))) } else { Ok(answer) }
}

/// Reads a line that the terminal shows.
fn shown(question: &str) -> Result<String, CliError> {
    ui::tell(question);
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line);
    read.map_err(|error| CliError::failed(format!("cannot read from the terminal: {error}")))?;
    Ok(line.trim().to_owned())
}

/// Reads a line that the terminal does not show.
fn hidden(question: &str) -> Result<String, CliError> {
    let failed = |errno| CliError::failed(format!("cannot read from the terminal: {errno}"));
    // Before the question: what is typed after it is never shown.
    let raw = RawTerminal::new(RawOutput::Translated).map_err(failed)?;
    ui::tell(question);
    let mut line = Vec::new();
    let typed = loop {
        let mut byte = [0u8];
        let typed = match rustix::io::read(rustix::stdio::stdin(), &mut byte) {
            Ok(0) => Typed::Left,
            Ok(_) => take(&mut line, byte[0]),
            Err(Errno::INTR) => Typed::Goes,
            Err(errno) => return Err(failed(errno)),
        };
        if typed != Typed::Goes {
            break typed;
        }
    };
    drop(raw);
    ui::tell_line("");
    if typed == Typed::Left {
        std::process::exit(130);
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// Adds a byte of the terminal to a line.
fn take(line: &mut Vec<u8>, byte: u8) -> Typed {
    match byte {
        b'\r' | b'\n' => return Typed::Ended,
        CTRL_C => return Typed::Left,
        CTRL_D if line.is_empty() => return Typed::Left,
        CTRL_D => {}
        CTRL_U => line.clear(),
        BACKSPACE | DELETE => {
            // A character has one to four bytes; all but the first are 10xxxxxx.
            while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
        }
        byte => line.push(byte),
    }
    Typed::Goes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_typed() {
        let mut line = Vec::new();
        for byte in "hä\x7f".bytes() {
            assert_eq!(take(&mut line, byte), Typed::Goes);
        }
        assert_eq!(line, b"h");
        take(&mut line, CTRL_U);
        assert_eq!(take(&mut line, CTRL_D), Typed::Left);
        take(&mut line, b'x');
        assert_eq!((take(&mut line, CTRL_D), take(&mut line, b'\r')), (Typed::Goes, Typed::Ended));
        assert_eq!((line.as_slice(), take(&mut Vec::new(), CTRL_C)), (&b"x"[..], Typed::Left));
    }
}
