//! `kiln logs`.

mod journal;

use super::start::sound;
use crate::arguments::{self, Globals};
use crate::error::{CliError, chain, code};
use crate::session::Session;
use crate::{times, ui};
use clap::Parser;
use jiff::Timestamp;
use kiln_engine::log::{self, Entry, LogDriver, LogQuery, Stream};
use kiln_engine::{Attached, Container, Containers, Records};
use rustix::fd::AsFd;
use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;

/// Show the output of a container.
#[derive(Debug, Parser)]
struct Logs {
    /// Show new output until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Show output since TIME: a time such as 2026-01-02T15:04:05, or a duration such as 42m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Show output before TIME
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Show this many lines from the end, or all
    #[arg(short = 'n', long, value_name = "NUMBER", default_value = "all", allow_negative_numbers = true)]
    tail: String,
    /// Show the time of each line
    #[arg(short, long)]
    timestamps: bool,
    /// Show the labels and variables that the log's options select
    #[arg(long)]
    details: bool,
    /// Container: name or id
    container: String,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Logs as clap::CommandFactory>::command()
}

/// Prints the log: standard output to standard output, standard error to standard error.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let logs: Logs = arguments::parse("logs", arguments)?;
    let query = logs.query(Timestamp::now())?;
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    let container = sound(&containers, &logs.container)?;
    if container.log.driver == LogDriver::None {
        return Err(CliError::failed("configured logging driver does not support reading")
            .hint("the container was created with --log-driver none: `kiln attach` shows what it writes from now on"));
    }
    let monitor = logs.monitor(&containers, &container)?;
    let mut output = Output::default();
    let mut emit = |entry: &Entry| logs.print(&mut output, entry);
    let read = read(&containers, &container, &query, monitor.as_ref(), &mut emit);
    output.flush();
    read?;
    Ok(0)
}

/// Prints the whole log of a container, and later lines until `writer`, the connection to its monitor, is closed; `None` for a
/// container that has ended. `before` is called in front of each line. A log that cannot be read is empty.
///
/// # Errors
///
/// Fails when the log cannot be read or watched.
pub(super) fn follow(
    containers: &Records,
    container: &Container,
    writer: Option<&Attached>,
    before: &mut dyn FnMut(),
) -> Result<(), CliError> {
    let mut output = Output::default();
    let read = read(containers, container, &LogQuery::default(), writer, &mut |entry: &Entry| {
        before();
        output.write(entry.stream, entry.text.as_bytes(), true)
    });
    output.flush();
    read
}

/// Prints the last lines of a container's log to standard error.
///
/// # Errors
///
/// Fails when the log cannot be read.
pub(super) fn tell_last(containers: &Records, container: &Container, lines: u64) -> Result<(), CliError> {
    let query = LogQuery { tail: Some(lines), ..LogQuery::default() };
    read(containers, container, &query, None, &mut |entry: &Entry| {
        let line = entry.text.trim_end_matches('\n');
        ui::tell_line(line);
        ControlFlow::Continue(())
    })
}

fn read(
    containers: &Records,
    container: &Container,
    query: &LogQuery,
    writer: Option<&Attached>,
    emit: &mut dyn FnMut(&Entry) -> ControlFlow<()>,
) -> Result<(), CliError> {
    let ended = writer.map(AsFd::as_fd);
    match container.log.driver {
        LogDriver::None => {
            writer.iter().for_each(|writer| writer.wait_for_close());
            Ok(())
        }
        LogDriver::Journald => journal::read(&container.id, query, ended, emit),
        _ => log::read(&containers.dir_of(container), query, ended, emit)
            .map_err(|error| CliError::failed(chain(&error))),
    }
}

/// Reads the value of the flag `name`, which is a time or a duration before `now`.
///
/// # Errors
///
/// Fails for other texts.
pub(super) fn time(name: &str, text: &Option<String>, now: Timestamp) -> Result<Option<Timestamp>, CliError> {
    let parse = |text: &String| {
        times::parse(text, now).ok_or_else(|| {
            CliError::failed(format!(
                "invalid value for \"{name}\": failed to parse value as time or duration: \"{text}\""
            ))
            .hint("write a time such as 2026-01-02T15:04:05, seconds since 1970, or a duration such as 1h30m")
        })
    };
    text.as_ref().map(parse).transpose()
}

impl Logs {
    fn query(&self, now: Timestamp) -> Result<LogQuery, CliError> {
        let tail = match self.tail.as_str() {
            "all" | "" => None,
            // As in the reference, a negative number is all.
            text => match text.parse::<i64>() {
                Ok(number) => u64::try_from(number).ok(),
                Err(_) => {
                    return Err(CliError::failed(format!("invalid value for --tail: {text:?}"))
                        .hint("write a number of lines, or all")
                        .with_code(code::FAILURE));
                }
            },
        };
        // As in the reference, the beginning of 1970 is no end.
        let until = self.until.clone().filter(|text| text != "0");
        let (since, until) = (time("since", &self.since, now)?, time("until", &until, now)?);
        Ok(LogQuery { since, until, tail })
    }

    /// Connection to the monitor, which is closed when the log is complete. `None` when nothing is to be followed.
    fn monitor(
        &self,
        containers: &Containers<'_>,
        container: &Container,
    ) -> Result<Option<Attached>, CliError> {
        Ok(if self.follow { containers.connect(container)? } else { None })
    }

    fn print(&self, output: &mut Output, entry: &Entry) -> ControlFlow<()> {
        let mut line = Vec::with_capacity(entry.text.len() + 64);
        if self.timestamps {
            line.extend_from_slice(times::nano(entry.time).as_bytes());
            line.push(b' ');
        }
        if self.details {
            let pairs: Vec<String> =
                entry.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
            line.extend_from_slice(pairs.join(",").as_bytes());
            line.push(b' ');
        }
        line.extend_from_slice(entry.text.as_bytes());
        output.write(entry.stream, &line, self.follow)
    }
}

/// The user's streams; what is written to one is flushed before the other is written to.
struct Output {
    stdout: BufWriter<io::Stdout>,
    stderr: BufWriter<io::Stderr>,
    last: Stream,
}

impl Default for Output {
    fn default() -> Output {
        let (stdout, stderr) = (BufWriter::new(io::stdout()), BufWriter::new(io::stderr()));
        Output { stdout, stderr, last: Stream::Stdout }
    }
}

impl Output {
    fn write(&mut self, stream: Stream, line: &[u8], at_once: bool) -> ControlFlow<()> {
        if stream != self.last {
            self.flush();
            self.last = stream;
        }
        let written = match stream {
            Stream::Stdout => self.stdout.write_all(line),
            Stream::Stderr => self.stderr.write_all(line),
        };
        if at_once {
            self.flush();
        }
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                if error.kind() != io::ErrorKind::BrokenPipe {
                    ui::lose(error);
                }
                ControlFlow::Break(())
            }
        }
    }

    fn flush(&mut self) {
        for flushed in [self.stdout.flush(), self.stderr.flush()] {
            if let Err(error) = flushed.as_ref()
                && error.kind() != io::ErrorKind::BrokenPipe
            {
                let _ = flushed.map_err(ui::lose);
            }
        }
    }
}
