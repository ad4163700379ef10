//! Commands that are ended when they make no progress: `git` has no such limit for all of its transports.

use std::fs;
use std::io::{self, Read};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Number of bytes that count as progress within the patience: a server could drip for ever.
const MIN_BYTES: u64 = 1 << 10;
/// CPU time that counts as progress, in ticks of a hundredth of a second: 0.1 s.
const MIN_TICKS: u64 = 10;

/// Runs a command, which leads a process group, to its end; `None` when it made no progress for `patience` and was
/// killed.
pub(super) fn output(command: &mut Command, patience: Duration) -> io::Result<Option<Output>> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (sender, ended) = channel::<()>();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        let streams: [Option<Box<dyn Read + Send>>; 2] = [
            stdout.map(|it| Box::new(it) as Box<dyn Read + Send>),
            stderr.map(|it| Box::new(it) as Box<dyn Read + Send>),
        ];
        let readers = streams.map(|stream| {
            let sender = sender.clone();
            scope.spawn(move || {
                let mut bytes = Vec::new();
                let read = stream.map_or(Ok(0), |mut stream| stream.read_to_end(&mut bytes));
                drop(sender);
                read.map(|_| bytes)
            })
        });
        drop(sender);
        let mut last = (Instant::now(), Work::default());
        let step = (patience / 10).clamp(Duration::from_millis(50), Duration::from_secs(2));
        let is_silent = loop {
            // Both streams are closed when the senders are dropped.
            if ended.recv_timeout(step) != Err(RecvTimeoutError::Timeout) {
                break false;
            }
            let now = Work::of(&child);
            if now.is_more_than(&last.1) {
                last = (Instant::now(), now);
            } else if last.0.elapsed() >= patience {
                break true;
            }
        };
        if is_silent && let Some(group) = rustix::process::Pid::from_raw(child.id().cast_signed()) {
            // The group may have ended just now.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let [stdout, stderr] = readers.map(|reader| reader.join().expect("reading does not panic"));
        let status = child.wait()?;
        Ok((!is_silent).then_some(Output { status, stdout: stdout?, stderr: stderr? }))
    })
}

/// Work done so far by the processes of a group.
#[derive(Clone, Copy, Debug, Default)]
struct Work {
    /// Bytes that `git` read and wrote. Those of `ssh` do not count, since it also sends keep-alive messages.
    bytes: u64,
    ticks: u64,
    /// Whether a process waits for the disk, or cannot be inspected.
    is_busy: bool,
}

impl Work {
    fn of(leader: &Child) -> Work {
        let group = leader.id().to_string();
        let mut all = Work::default();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            let Ok(stat) = fs::read_to_string(path.join("stat")) else { continue };
            // The name may contain blanks and brackets.
            let (Some((_, name)), Some((_, rest))) = (stat.split_once('('), stat.rsplit_once(") ")) else {
                continue;
            };
            let fields: Vec<&str> = rest.split(' ').collect();
            if fields.get(2) != Some(&group.as_str()) {
                continue;
            }
            let number = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
            all.ticks += number(11) + number(12);
            all.is_busy |= fields.first() == Some(&"D");
            if name.starts_with("git") {
                match fs::read_to_string(path.join("io")) {
                    Ok(text) => all.bytes += text.lines().filter_map(moved).sum::<u64>(),
                    Err(_) => all.is_busy |= path.join("stat").exists() && fields.first() != Some(&"Z"),
                }
            }
        }
        all
    }

    /// True when work was done since `before`. The work of ended processes is not counted, so less is a change, too.
    fn is_more_than(&self, before: &Work) -> bool {
        self.is_busy
            || self.bytes.abs_diff(before.bytes) >= MIN_BYTES
            || self.ticks.abs_diff(before.ticks) >= MIN_TICKS
    }
}

fn moved(line: &str) -> Option<u64> {
    line.strip_prefix("rchar: ").or_else(|| line.strip_prefix("wchar: "))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;

    fn run(script: &str) -> Option<Output> {
        let mut command = Command::new("sh");
        command.args(["-c", script]).process_group(0).stdin(Stdio::null());
        output(&mut command, Duration::from_millis(500)).unwrap()
    }

    #[test]
    fn output_of_ended_commands_is_returned() {
        let done = run("echo out; echo err >&2; exit 3").unwrap();
        assert_eq!(
            (done.status.code(), &done.stdout[..], &done.stderr[..]),
            (Some(3), &b"out\n"[..], &b"err\n"[..])
        );
    }

    #[test]
    fn commands_that_make_progress_are_not_killed() {
        let busy = "end=$(($(date +%s) + 2)); while [ $(date +%s) -lt $end ]; do i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; done";
        assert!(run(busy).is_some());
    }

    #[test]
    fn silent_commands_are_killed_with_their_children() {
        let begun = Instant::now();
        assert!(run("sleep 1000 & sleep 1000").is_none());
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
