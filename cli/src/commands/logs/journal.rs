//! `kiln logs` of a container that logs to the journal: `journalctl` reads it.

use crate::error::CliError;
use kiln_engine::log::{Entry, LogQuery, parse_journal_line};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, BorrowedFd};
use std::cell::RefCell;
use std::io::{self, BufRead, BufReader};
use std::ops::ControlFlow;
use std::process::{Child, ChildStdout, Command, Stdio};

/// Passes on the entries of a container; with `follow`, which becomes readable at the end of its program, until then.
///
/// # Errors
///
/// Fails when `journalctl` cannot be run.
pub(super) fn read(
    id: &str,
    query: &LogQuery,
    follow: Option<BorrowedFd<'_>>,
    emit: &mut dyn FnMut(&Entry) -> ControlFlow<()>,
) -> Result<(), CliError> {
    let cursor = RefCell::new(String::new());
    let mut pass = |line: &[u8]| {
        let Some(parsed) = parse_journal_line(line) else { return ControlFlow::Continue(()) };
        *cursor.borrow_mut() = parsed.cursor;
        let time = parsed.entry.time;
        if query.until.is_some_and(|until| time >= until) {
            return ControlFlow::Break(());
        }
        if query.since.is_some_and(|since| time < since) {
            return ControlFlow::Continue(());
        }
        emit(&parsed.entry)
    };
    let mut arguments = Vec::new();
    if let Some(tail) = query.tail {
        arguments.push(format!("--lines={tail}"));
    } else if follow.is_some() {
        arguments.push("--no-tail".to_owned());
    }
    let Some(ended) = follow else {
        let (mut child, mut lines) = start(id, &arguments)?;
        let _ = drain(&mut lines, &mut pass);
        return end(&mut child);
    };
    arguments.push("--follow".to_owned());
    let (mut child, mut lines) = start(id, &arguments)?;
    if follow_until(ended, &mut lines, &mut pass).is_break() {
        return end(&mut child);
    }
    end(&mut child)?;
    // What the journal has received and not written yet is in no list.
    let _ = Command::new("journalctl").arg("--sync").stderr(Stdio::null()).status();
    let cursor = cursor.borrow().clone();
    let rest = if cursor.is_empty() { Vec::new() } else { vec![format!("--after-cursor={cursor}")] };
    let (mut child, mut lines) = start(id, &rest)?;
    let _ = drain(&mut lines, &mut pass);
    end(&mut child)
}

fn start(id: &str, arguments: &[String]) -> Result<(Child, BufReader<ChildStdout>), CliError> {
    let mut command = Command::new("journalctl");
    command.args(["--output=json", "--all", "--quiet", "--no-pager"]).args(arguments);
    command.arg(format!("CONTAINER_ID_FULL={id}")).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            CliError::failed("cannot read the journal: this host has no program `journalctl`")
                .hint("install the package of systemd that has it, or log to files: --log-driver json-file")
        }
        _ => CliError::failed(format!("cannot run journalctl: {error}")),
    })?;
    let stdout = child.stdout.take().expect("it was just asked for");
    Ok((child, BufReader::new(stdout)))
}

fn end(child: &mut Child) -> Result<(), CliError> {
    // One that has ended cannot be killed.
    let _ = child.kill();
    child.wait().map(drop).map_err(|error| CliError::failed(format!("cannot wait for journalctl: {error}")))
}

/// Passes on all lines up to the end of the output.
fn drain(
    lines: &mut BufReader<ChildStdout>,
    pass: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        pass(&line)?;
        line.clear();
    }
    ControlFlow::Continue(())
}

/// Passes on lines until `ended` is readable and no line is there.
fn follow_until(
    ended: BorrowedFd<'_>,
    lines: &mut BufReader<ChildStdout>,
    pass: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let mut line = Vec::new();
    loop {
        if lines.buffer().is_empty() {
            let stdout = lines.get_ref().as_fd();
            let mut polled = [
                PollFd::from_borrowed_fd(stdout, PollFlags::IN),
                PollFd::from_borrowed_fd(ended, PollFlags::IN),
            ];
            let _ = poll(&mut polled, None);
            if polled[0].revents().is_empty() {
                if polled[1].revents().is_empty() {
                    continue;
                }
                return ControlFlow::Continue(());
            }
        }
        line.clear();
        if !lines.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            return ControlFlow::Continue(());
        }
        pass(&line)?;
    }
}
