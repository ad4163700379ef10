//! Programs that run during set-up, with the container's state on standard input.

use super::{Done, Failed, Init, Named};
use crate::op::{Bytes, HookOp};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal};
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Failure of a hook.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The hook did not run to its end.
    #[error("{}", fault.text(name, path))]
    Hook {
        /// Kind of the hook, such as `prestart`.
        name: String,
        /// Path of the program.
        path: PathBuf,
        /// Reason of the failure.
        fault: HookFault,
    },
    /// The program failed. The text has the formats of old and new versions of runc, since users search for either.
    #[error("error running {name} hook #{index}: error running hook `{path}`: {end}", path = path.display())]
    Failed {
        /// Kind of the hook.
        name: String,
        /// Position among the hooks of its kind, from 0 on.
        index: usize,
        /// Path of the program.
        path: PathBuf,
        /// Exit status or signal, and the beginning of its standard error.
        end: String,
    },
    /// The file for the output of hooks cannot be opened.
    #[error("cannot open `{path}` for what hooks say: {reason}", path = path.display(), reason = reason(source))]
    Output {
        /// Path of the file.
        path: PathBuf,
        /// Cause of the failure.
        source: io::Error,
    },
}

/// Reason why a hook did not run to its end.
#[derive(Debug)]
pub enum HookFault {
    /// The program cannot be started.
    Start(io::Error),
    /// Waiting for the program failed.
    Wait(io::Error),
    /// The program did not end within this number of seconds.
    Timeout(u32),
}

impl HookFault {
    fn text(&self, name: &str, path: &Path) -> String {
        let path = path.display();
        match self {
            HookFault::Start(error) => format!("cannot run the {name} hook `{path}`: {}", reason(error)),
            HookFault::Wait(error) => format!("cannot wait for the {name} hook `{path}`: {error}"),
            HookFault::Timeout(seconds) => {
                format!("the {name} hook `{path}` did not end within {seconds} seconds and was killed")
            }
        }
    }
}

/// Maximum length in bytes of a failing hook's message.
const MAX_MESSAGE: u64 = 4096;

impl Init {
    pub(super) fn run_hooks(&mut self, name: &str, hooks: &[HookOp]) -> Done {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let here = rustix::fs::open(c".", flags, Mode::empty()).call("open", ".")?;
        // Hooks in the container start in its root directory, before and after it becomes `/`; the program does not.
        if let Ok(root) = self.root() {
            let _ = rustix::process::fchdir(root);
        }
        let state = if name == "startContainer" { created(&self.state) } else { self.state.clone() };
        for (index, hook) in hooks.iter().enumerate() {
            let mut hook = hook.clone();
            // Hooks that run with the program have its environment.
            if name == "startContainer" && hook.environment.is_none() {
                hook.environment = Some(self.environment.clone());
            }
            run(name, index, &hook, &state)
                .map_err(|error| Failed::saying(hook.path.clone(), error.to_string()))?;
        }
        rustix::process::fchdir(here).call("chdir", ".")
    }
}

/// State with the status `created`; it was sent while that was still `creating`.
fn created(state: &[u8]) -> Vec<u8> {
    const BEFORE: &[u8] = br#""status":"creating""#;
    let Some(at) = state.windows(BEFORE.len()).position(|part| part == BEFORE) else { return state.to_vec() };
    [&state[..at], br#""status":"created""#, &state[at + BEFORE.len()..]].concat()
}

/// Runs one hook to its end; `index` is its position among the hooks of its kind.
pub(crate) fn run(name: &str, index: usize, hook: &HookOp, state: &[u8]) -> Result<(), HookError> {
    let fail = |fault| HookError::Hook { name: name.to_owned(), path: hook.path.as_path().to_owned(), fault };
    let mut child = command(hook)?.spawn().map_err(|error| fail(HookFault::Start(error)))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read the state.
        let _ = stdin.write_all(state);
    }
    let in_time = hook.timeout.is_none_or(|seconds| ends_within(&child, seconds));
    if !in_time {
        let _ = child.kill();
    }
    let mut message = Vec::new();
    if let Some(stderr) = child.stderr.take().filter(|_| in_time) {
        let _ = stderr.take(MAX_MESSAGE).read_to_end(&mut message);
    }
    let status = child.wait().map_err(|error| fail(HookFault::Wait(error)))?;
    if !in_time {
        return Err(fail(HookFault::Timeout(hook.timeout.unwrap_or(0))));
    }
    if status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&message).trim().replace('\n', "; ");
    let message = if message.is_empty() { String::new() } else { format!(", stderr: {message}") };
    let (name, path) = (name.to_owned(), hook.path.as_path().to_owned());
    Err(HookError::Failed { name, index, path, end: format!("{}{message}", describe(status)) })
}

/// Command of a hook, with its streams.
fn command(hook: &HookOp) -> Result<Command, HookError> {
    let mut command = Command::new(hook.path.as_path());
    if let Some((first, rest)) = hook.arguments.split_first() {
        command
            .arg0(OsStr::from_bytes(&first.0))
            .args(rest.iter().map(|argument| OsStr::from_bytes(&argument.0)));
    }
    if hook.environment.is_some() {
        command.env_clear();
    }
    for entry in hook.environment.iter().flatten() {
        if let Some(at) = entry.0.iter().position(|byte| *byte == b'=') {
            command.env(OsStr::from_bytes(&entry.0[..at]), OsStr::from_bytes(&entry.0[at + 1..]));
        }
    }
    let stdout = output(hook.output.stdout.as_ref())?.unwrap_or_else(Stdio::null);
    let stderr = output(hook.output.stderr.as_ref())?.unwrap_or_else(Stdio::piped);
    command.stdin(Stdio::piped()).stdout(stdout).stderr(stderr);
    Ok(command)
}

/// Opens the file to which a stream is appended; `None` without a file.
fn output(path: Option<&Bytes>) -> Result<Option<Stdio>, HookError> {
    let Some(path) = path.map(Bytes::as_path) else { return Ok(None) };
    let file = std::fs::File::options().create(true).append(true).open(path);
    let file = file.map_err(|source| HookError::Output { path: path.to_owned(), source })?;
    Ok(Some(file.into()))
}

/// End of a program, in the usual text that users search for.
fn describe(status: std::process::ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    let Some(signal) = status.signal() else {
        return format!("exit status {}", status.code().unwrap_or(255));
    };
    let name = match signal {
        6 => "aborted",
        9 => "killed",
        11 => "segmentation fault",
        15 => "terminated",
        31 => "bad system call",
        _ => return format!("signal: {signal}"),
    };
    format!("signal: {name}")
}

fn reason(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), crate::op::describe_errno)
}

fn ends_within(child: &std::process::Child, seconds: u32) -> bool {
    let Ok(pidfd) = rustix::process::pidfd_open(Pid::from_child(child), PidfdFlags::empty()) else {
        return true;
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(u64::from(seconds));
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let mut polled = [PollFd::new(&pidfd, PollFlags::IN)];
        match rustix::event::poll(&mut polled, Some(&timeout)) {
            Ok(0) => {
                let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
                return false;
            }
            Err(rustix::io::Errno::INTR) => {}
            _ => return true,
        }
    }
}
