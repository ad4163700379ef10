//! Programs that run during set-up, with the container's state on standard input.

use super::{Done, Failed, Init, Named};
use crate::op::{Bytes, HookOp};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

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
            run(name, index, &hook, &state).map_err(|message| Failed::saying(hook.path.clone(), message))?;
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

/// Runs one hook to its end; `index` is its position among the hooks of its kind. The error describes its failure.
pub(crate) fn run(name: &str, index: usize, hook: &HookOp, state: &[u8]) -> Result<(), String> {
    let path = OsStr::from_bytes(&hook.path.0);
    let shown = hook.path.as_path().display();
    let mut command = Command::new(path);
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
    let stdout = kept(hook.output.stdout.as_ref())?.unwrap_or_else(Stdio::null);
    let stderr = kept(hook.output.stderr.as_ref())?.unwrap_or_else(Stdio::piped);
    command.stdin(Stdio::piped()).stdout(stdout).stderr(stderr);
    let mut child = command
        .spawn()
        .map_err(|error| format!("cannot run the {name} hook `{shown}`: {}", reason(&error)))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read the state.
        let _ = stdin.write_all(state);
    }
    let in_time = hook.timeout.is_none_or(|seconds| ends_within(&child, seconds));
    if !in_time {
        let _ = child.kill();
    }
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take().filter(|_| in_time) {
        let _ = stderr.take(MAX_MESSAGE).read_to_end(&mut said);
    }
    let status =
        child.wait().map_err(|error| format!("cannot wait for the {name} hook `{shown}`: {error}"))?;
    if !in_time {
        let seconds = hook.timeout.unwrap_or(0);
        return Err(format!("the {name} hook `{shown}` did not end within {seconds} seconds and was killed"));
    }
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said).trim().replace('\n', "; ");
    let said = if said.is_empty() { String::new() } else { format!(", stderr: {said}") };
    // In the formats of old and new versions of runc, since users search for either.
    Err(format!(
        "error running {name} hook #{index}: error running hook `{shown}`: {}{said}",
        describe(status)
    ))
}

/// Opens the file to which a stream is appended; `None` without a file.
fn kept(path: Option<&Bytes>) -> Result<Option<Stdio>, String> {
    let Some(path) = path.map(Bytes::as_path) else { return Ok(None) };
    let file = std::fs::File::options().create(true).append(true).open(path);
    let file = file.map_err(|error| {
        format!("cannot open `{}` for what hooks say: {}", path.display(), reason(&error))
    })?;
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

fn reason(error: &std::io::Error) -> String {
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
