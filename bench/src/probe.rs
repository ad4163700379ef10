//! Runs of a command by a separate small process, which isolates its memory figures.
//!
//! The kernel keeps one peak for all waited-for children of a process, and includes the parent's memory at the time of
//! the fork. So every measured command has a separate [`Probe`] process that does nothing else; the peak is that of the
//! largest process of the command, and a smaller one than the probe's size is not visible. Wall time is measured from
//! before fork and exec to the reaped exit; CPU time is that of the command and of all waited-for descendants.

use crate::Outcome;
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

/// First argument that makes a measuring program a probe; the others are the command.
pub const VERB: &str = "probe";
/// Placeholder for a name that differs in each run.
pub const FRESH: &str = "{id}";

/// Result of one run of a command.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Wall time in milliseconds.
    pub wall: f64,
    /// CPU time in milliseconds, of user and system.
    pub cpu: f64,
    /// Peak resident memory in KiB, of all runs of this command so far.
    pub peak: i64,
}

/// A process that runs one command on request.
pub struct Probe {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Probe {
    /// Starts this program again as a probe of a command.
    pub fn start(words: &[String]) -> Outcome<Probe> {
        let mut child = Command::new("/proc/self/exe")
            .arg(VERB)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let requests = child.stdin.take();
        let answers = child.stdout.take().ok_or("the probe has no output")?;
        Ok(Probe { child, requests, answers: BufReader::new(answers) })
    }

    /// Runs the command once.
    pub fn run(&mut self) -> Outcome<Run> {
        let requests = self.requests.as_mut().ok_or("the probe has ended")?;
        requests.write_all(b"\n")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["ok", wall, cpu, peak] => {
                Ok(Run { wall: wall.parse()?, cpu: cpu.parse()?, peak: peak.parse()? })
            }
            _ => Err(line.trim().to_owned().into()),
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.requests = None;
        // The probe ends with its input; its exit code is not needed.
        let _ = self.child.wait();
    }
}

/// Main loop of a probe: runs the command for every line of its input, and writes a line of results.
pub fn serve(words: &[String]) -> Outcome<()> {
    let mut line = String::new();
    let mut number = 0u32;
    while std::io::stdin().read_line(&mut line)? > 0 {
        number += 1;
        let id = format!("bench-{}-{number}", std::process::id());
        let mut command = command(words, &id)?;
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let before = cpu(&getrusage(UsageWho::RUSAGE_CHILDREN)?);
        let begun = Instant::now();
        let status = command.status();
        let wall = begun.elapsed().as_secs_f64() * 1e3;
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        let mut output = std::io::stdout();
        match status {
            Ok(status) if status.success() => {
                writeln!(output, "ok {wall} {} {}", cpu(&usage) - before, usage.max_rss())?;
            }
            Ok(status) => writeln!(output, "{status}")?,
            Err(error) => writeln!(output, "{error}")?,
        }
        output.flush()?;
        line.clear();
    }
    Ok(())
}

/// The command with a unique name, and without input.
pub fn command(words: &[String], id: &str) -> Outcome<Command> {
    let (program, arguments) = words.split_first().ok_or("a command has a program")?;
    let mut command = Command::new(program);
    command.args(arguments.iter().map(|word| if word == FRESH { id } else { word })).stdin(Stdio::null());
    Ok(command)
}

fn cpu(usage: &Usage) -> f64 {
    (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e3
}
