//! Separate ssh agent for keys from the command line.

use crate::error::CliError;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

/// Script that runs an agent with keys until its standard input is closed.
const AGENT: &str = "ssh-agent -D -a \"$0\" >/dev/null & agent=$!
while [ ! -S \"$0\" ] && kill -0 $agent 2>/dev/null; do sleep 0.01; done
SSH_AUTH_SOCK=$0 ssh-add -q \"$@\" </dev/null && echo ready && cat
kill $agent; wait $agent 2>/dev/null";

/// Running agents. They end with this process, even when it is killed, because it holds the pipes to their standard
/// input.
static AGENTS: Mutex<Vec<(Child, tempfile::TempDir)>> = Mutex::new(Vec::new());

/// Starts an agent that holds `keys`; returns the path of its socket.
pub(super) fn with_keys(keys: &[PathBuf]) -> Result<PathBuf, CliError> {
    for key in keys {
        check(key)?;
    }
    let failed = |reason: String| {
        CliError::failed(format!("cannot hold ssh keys: {reason}"))
            .hint("install ssh-agent and ssh-add (openssh-client), or name an agent's socket")
    };
    let dir = tempfile::Builder::new().prefix("kiln-agent-").tempdir();
    let dir = dir.map_err(|error| failed(error.to_string()))?;
    let socket = dir.path().join("socket");
    let mut agent = Command::new("sh");
    agent.args(["-c", AGENT]).arg(&socket).args(keys).env_clear();
    // The environment leads to no other agent, and to no program that asks for a passphrase.
    for name in ["PATH", "HOME", "TMPDIR"] {
        agent.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    let mut child = agent
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("sh: {error}")))?;
    let mut ready = String::new();
    if let Some(output) = child.stdout.take() {
        let mut output = BufReader::new(output);
        // An agent without output has failed.
        let _ = output.read_line(&mut ready);
    }
    if ready.trim() != "ready" {
        let said =
            child.wait_with_output().map(|output| String::from_utf8_lossy(&output.stderr).trim().to_owned());
        return Err(failed(said.unwrap_or_default()));
    }
    AGENTS.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((child, dir));
    Ok(socket)
}

/// Stops all agents that were started.
pub(super) fn finish() {
    let agents = std::mem::take(&mut *AGENTS.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    for (mut child, _dir) in agents {
        drop(child.stdin.take());
        // The exit status of a stopped agent does not matter.
        let _ = child.wait();
    }
}

/// Checks that a file is a private key, to distinguish other files from keys with a passphrase.
fn check(key: &Path) -> Result<(), CliError> {
    let failed = |reason: &str| {
        Err(CliError::failed(format!(
            "`{}` is neither the socket of an ssh agent nor a key: {reason}",
            key.display()
        ))
        .hint("name a socket, or a private key without passphrase"))
    };
    match std::fs::read_to_string(key) {
        Err(error) => failed(&error.to_string()),
        Ok(text) if !text.contains("PRIVATE KEY-----") => failed("it holds no private key"),
        Ok(_) => Ok(()),
    }
}
