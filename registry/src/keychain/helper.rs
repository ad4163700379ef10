//! Credential helpers: programs `docker-credential-NAME` (docker-credential-helpers, `client` package).

use super::Credentials;
use crate::auth::AuthError;
use serde::Deserialize;
use serde_json::json;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Longest wait for a helper; it may ask its user to unlock a store.
const PATIENCE: Duration = Duration::from_secs(120);
/// Most bytes of an answer that are read.
const LONGEST: u64 = 1 << 20;
/// User of an answer that has an identity token instead of a password.
const TOKEN_USER: &str = "<token>";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Credentials for a server; `None` when the helper has none.
pub(super) fn get(name: &str, server: &str) -> Result<Option<Credentials>, AuthError> {
    let text = match run(name, "get", server)? {
        Ok(text) => text,
        Err(reason) if is_missing(&reason) => return Ok(None),
        Err(reason) => return Err(failed(name, reason)),
    };
    let answer: Answer = serde_json::from_str(&text)
        .map_err(|error| failed(name, format!("its answer has no Username and Secret: {error}")))?;
    Ok(Some(match answer.username.as_str() {
        TOKEN_USER => Credentials::Identity(answer.secret),
        _ => Credentials::Basic(answer.username, answer.secret),
    }))
}

/// Keeps credentials for a server.
pub(super) fn store(
    name: &str,
    server: &str,
    user: &str,
    credentials: &Credentials,
) -> Result<(), AuthError> {
    let (user, secret) = match credentials {
        Credentials::Basic(_, password) => (user, password),
        Credentials::Identity(token) => (TOKEN_USER, token),
    };
    let request = json!({ "ServerURL": server, "Username": user, "Secret": secret });
    // Some print their input when they fail.
    let hidden = |reason: String| reason.replace(secret.as_str(), "********");
    run(name, "store", &request.to_string())?.map(drop).map_err(|reason| failed(name, hidden(reason)))
}

/// Forgets the credentials for a server; false when there are none.
pub(super) fn erase(name: &str, server: &str) -> Result<bool, AuthError> {
    match run(name, "erase", server)? {
        Ok(_) => Ok(true),
        Err(reason) if is_missing(&reason) => Ok(false),
        Err(reason) => Err(failed(name, reason)),
    }
}

/// Helper that Docker uses on Linux when no file names one, if it is installed in one of the directories of `path`.
pub(super) fn installed(path: &OsStr) -> Option<String> {
    let has = |program: &str| std::env::split_paths(path).any(|dir| dir.join(program).is_file());
    let name = if has("pass") { "pass" } else { "secretservice" };
    has(&format!("docker-credential-{name}")).then(|| name.to_owned())
}

fn is_missing(reason: &str) -> bool {
    reason.contains("credentials not found")
}

fn failed(name: &str, reason: String) -> AuthError {
    AuthError::Helper { helper: format!("docker-credential-{name}"), reason }
}

/// Reads a stream on a new thread, to its end. Nothing is sent when it is too long.
fn reader(from: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is all.
        let _ = from.map(|from| from.take(LONGEST + 1).read_to_end(&mut bytes));
        if bytes.len() as u64 <= LONGEST {
            let _ = sender.send(String::from_utf8_lossy(&bytes).trim().to_owned());
        }
    });
    receiver
}

/// Runs a helper; returns its answer, or what it printed when its exit code is not 0.
fn run(name: &str, action: &str, input: &str) -> Result<Result<String, String>, AuthError> {
    if name.contains('/') {
        return Err(failed(name, "its name has a slash".to_owned()));
    }
    let spawned = Command::new(format!("docker-credential-{name}"))
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            failed(name, "the program is not in PATH; the credential file names it".to_owned())
        }
        _ => failed(name, error.to_string()),
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that needs no input may have ended.
        let _ = stdin.write_all(input.as_bytes());
    }
    let until = Instant::now() + PATIENCE;
    let (out, error) = (reader(child.stdout.take()), reader(child.stderr.take()));
    let mut answers =
        [out, error].map(|from| from.recv_timeout(until.saturating_duration_since(Instant::now())));
    if let Some(missing) = answers.iter().find_map(|answer| answer.as_ref().err()) {
        let reason = match missing {
            RecvTimeoutError::Timeout => format!("it did not answer within {} seconds", PATIENCE.as_secs()),
            RecvTimeoutError::Disconnected => "its answer is longer than 1 MiB".to_owned(),
        };
        let _ = child.kill();
        let _ = child.wait();
        return Err(failed(name, reason));
    }
    let [out, error] =
        [0, 1].map(|at| std::mem::replace(&mut answers[at], Ok(String::new())).unwrap_or_default());
    let status = child.wait().map_err(|error| failed(name, error.to_string()))?;
    if status.success() {
        return Ok(Ok(out));
    }
    let reason = if out.is_empty() { error } else { out };
    Ok(Err(if reason.is_empty() { status.to_string() } else { reason }))
}
