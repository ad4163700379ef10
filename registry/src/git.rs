//! Git repositories, through the `git` program.
//!
//! Settings of the host and its users are ignored, `git` never prompts on a terminal, and only network transports are
//! enabled, whatever the submodules of a repository request. The environment of `git`, and of the `ssh` that it starts,
//! consists of the variables in [`PASSED_ON`] and those set here: a Dockerfile chooses the repositories, so only
//! credentials that the user passed with `--ssh` or `--secret` reach them.

#![allow(
    clippy::disallowed_methods,
    reason = "`git` runs in the user's environment, less what PASSED_ON leaves out"
)]

mod watch;

use crate::DEFAULT_PATIENCE;
use crate::proxy::variables_for_curl;
use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Variables of the user that `git` receives: search paths and trusted certificates. Proxies come from
/// [`variables_for_curl`].
const PASSED_ON: [&str; 8] = [
    "PATH",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "GIT_EXEC_PATH",
];

/// Failure to fetch a repository.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The program `git` cannot be run.
    #[error("cannot run `git`: {0}; it fetches repositories: install it")]
    Program(#[source] std::io::Error),
    /// The program exited with an error.
    #[error("git {what} failed: {reason}")]
    Failed {
        /// Subcommand of `git` that failed.
        what: String,
        /// Error output of the program.
        reason: String,
    },
    /// The server stopped sending.
    #[error(
        "git {what} failed: the server sent nothing for {} s; try again, or allow longer silence: \
         KILN_NETWORK_TIMEOUT=SECONDS",
        .patience.as_secs()
    )]
    Silence {
        /// Subcommand of `git` that was ended.
        what: String,
        /// Length of the silence after which the command was ended.
        patience: Duration,
    },
    /// The repository does not have the branch, tag or commit.
    #[error("repository does not contain ref {reference}, output: {output:?}")]
    Reference {
        /// Branch, tag or commit that was requested.
        reference: String,
        /// References in the repository, as `git` prints them.
        output: String,
    },
}

/// A repository, and the files requested from it.
#[derive(Clone, Debug, Default)]
pub struct GitRequest {
    /// Address of the repository.
    pub remote: String,
    /// Branch, tag or commit; empty for the default branch.
    pub reference: String,
    /// Whether submodules are fetched, too.
    pub submodules: bool,
    /// Whether `.git` is kept.
    pub keeps_git: bool,
    /// Value of the `Authorization` header for this host, sent over https.
    pub authorization: Option<String>,
    /// Keys that are offered to ssh servers.
    pub identity: Identity,
    /// Longest silence of the server; `None` for [`DEFAULT_PATIENCE`].
    pub patience: Option<Duration>,
}

/// Keys that ssh offers to a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Identity {
    /// None: the user passed none.
    #[default]
    None,
    /// Keys of an agent, by its socket.
    Agent(PathBuf),
    /// Keys of the user, in files and in the agent of the environment: for repositories on the command line.
    User,
}

/// Commit that a reference currently points to.
///
/// # Errors
/// [`GitError::Reference`] when the repository does not have the reference; otherwise the failures of `git`.
pub fn commit(request: &GitRequest) -> Result<String, GitError> {
    let reference = &request.reference;
    if is_commit(reference) {
        return Ok(reference.clone());
    }
    let wanted = if reference.is_empty() { "HEAD" } else { reference };
    let peeled = format!("{wanted}^{{}}");
    let output = run(request, None, &["ls-remote", "--", &request.remote, wanted, &peeled])?;
    let lines: Vec<(&str, &str)> = output.lines().filter_map(|line| line.split_once('\t')).collect();
    let named = |name: &str| lines.iter().find(|(_, known)| *known == name).map(|(commit, _)| *commit);
    let tag = format!("refs/tags/{wanted}");
    // An annotated tag points to the commit: its target counts.
    let candidates = [
        peeled.clone(),
        wanted.to_owned(),
        format!("{tag}^{{}}"),
        tag,
        format!("refs/heads/{wanted}"),
        format!("refs/{wanted}"),
    ];
    let found = candidates.iter().find_map(|name| named(name)).or(lines.first().map(|(commit, _)| *commit));
    match found.filter(|commit| is_commit(commit)) {
        Some(commit) => Ok(commit.to_owned()),
        None => Err(GitError::Reference { reference: wanted.to_owned(), output }),
    }
}

/// Checks a commit out into the empty directory `dir`; returns its time in seconds since 1970.
///
/// # Errors
/// Fails when `git` cannot be run, fails, or the server is silent.
pub fn check_out(request: &GitRequest, commit: &str, dir: &Path) -> Result<i64, GitError> {
    let inside = Some(dir);
    // The length of commit ids determines the object format of the repository.
    let format = if commit.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
    run(request, inside, &["init", "-q", "-b", "master", format])?;
    run(request, inside, &["remote", "add", "origin", "--", &request.remote])?;
    let shallow =
        |what: &str| run(request, inside, &["fetch", "-q", "--depth=1", "--no-tags", "origin", what]);
    // Some servers send named references only.
    let by_name = format!(
        "{0}:refs/kiln/wanted",
        if request.reference.is_empty() { "HEAD" } else { &request.reference }
    );
    if shallow(commit).is_err() && (is_commit(&request.reference) || shallow(&by_name).is_err()) {
        let all = ["fetch", "-q", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*"];
        run(request, inside, &all)?;
    }
    run(request, inside, &["checkout", "-q", "--detach", commit])?;
    if request.submodules && dir.join(".gitmodules").exists() {
        let update = ["submodule", "update", "-q", "--init", "--recursive"];
        let shallow: Vec<&str> = update.into_iter().chain(["--depth=1"]).collect();
        // Web servers without git support cannot send shallow histories.
        if run(request, inside, &shallow).is_err() {
            run(request, inside, &["submodule", "deinit", "-q", "--all", "-f"])?;
            run(request, inside, &update)?;
        }
    }
    let time = run(request, inside, &["show", "-s", "--format=%ct", commit])?;
    if !request.keeps_git {
        remove_git(dir).map_err(GitError::Program)?;
    }
    Ok(time.trim().parse().unwrap_or(0))
}

/// Removes `.git`: the repository's directory, and the files of submodules.
fn remove_git(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        let is_dir = entry.file_type()?.is_dir();
        if entry.file_name() == ".git" {
            if is_dir { std::fs::remove_dir_all(&path)? } else { std::fs::remove_file(&path)? }
        } else if is_dir {
            remove_git(&path)?;
        }
    }
    Ok(())
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Command that `git` starts for ssh. Keys in files are offered only for [`Identity::User`].
fn ssh(identity: &Identity, patience: Duration) -> String {
    let seconds = patience.as_secs().max(1);
    let base = format!(
        "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o ConnectTimeout={seconds} \
         -o ServerAliveInterval={seconds} -o ServerAliveCountMax=1"
    );
    match identity {
        Identity::None => format!("{base} -o IdentityAgent=none -o IdentityFile=none"),
        Identity::Agent(_) => format!("{base} -o IdentityFile=none"),
        Identity::User => base,
    }
}

/// The command `git` with its environment and without arguments.
fn command(request: &GitRequest, patience: Duration) -> Command {
    let mut git = Command::new("git");
    git.env_clear();
    for name in PASSED_ON {
        git.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    git.envs(variables_for_curl(|name| std::env::var(name).ok()));
    git.env("HOME", "/dev/null")
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_SSH_COMMAND", ssh(&request.identity, patience))
        .stdin(Stdio::null())
        .process_group(0);
    let agent = match &request.identity {
        Identity::None => None,
        Identity::Agent(socket) => Some(socket.clone().into_os_string()),
        Identity::User => std::env::var_os("SSH_AUTH_SOCK"),
    };
    git.envs(agent.map(|socket| ("SSH_AUTH_SOCK", socket)));
    if let Some(authorization) = &request.authorization {
        // Passed in the environment, which other users cannot read. git sends the header along with redirects, too.
        let host = request.remote.split('/').take(3).collect::<Vec<_>>().join("/");
        git.env("GIT_CONFIG_COUNT", "2")
            .env("GIT_CONFIG_KEY_0", format!("http.{host}/.extraheader"))
            .env("GIT_CONFIG_VALUE_0", format!("Authorization: {authorization}"))
            .env("GIT_CONFIG_KEY_1", "http.followRedirects")
            .env("GIT_CONFIG_VALUE_1", "false");
    }
    git
}

fn run<A: AsRef<OsStr>>(
    request: &GitRequest,
    dir: Option<&Path>,
    arguments: &[A],
) -> Result<String, GitError> {
    let patience = request.patience.unwrap_or(DEFAULT_PATIENCE);
    let mut git = command(request, patience);
    let settings = [
        "protocol.allow=never".to_owned(),
        "core.hooksPath=/dev/null".to_owned(),
        "advice.detachedHead=false".to_owned(),
        "http.lowSpeedLimit=100".to_owned(),
        format!("http.lowSpeedTime={}", patience.as_secs().max(1)),
    ];
    let transports = ["http", "https", "git", "ssh"].map(|name| format!("protocol.{name}.allow=always"));
    for setting in settings.iter().chain(&transports) {
        git.args(["-c", setting.as_str()]);
    }
    if let Some(dir) = dir {
        git.arg("-C").arg(dir);
    }
    git.args(arguments);
    let what =
        arguments.first().map(|first| first.as_ref().to_string_lossy().into_owned()).unwrap_or_default();
    let Some(output) = watch::output(&mut git, patience).map_err(GitError::Program)? else {
        return Err(GitError::Silence { what, patience });
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let mut reason = text.lines().filter(|line| !line.trim().is_empty()).collect::<Vec<_>>().join("; ");
    if request.identity == Identity::None && reason.contains("Permission denied") {
        reason.push_str("; no ssh key is lent to it: pass --ssh default");
    }
    Err(GitError::Failed { what, reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn names(request: &GitRequest) -> BTreeSet<String> {
        let command = command(request, DEFAULT_PATIENCE);
        let set = command.get_envs().filter(|(_, value)| value.is_some());
        set.map(|(name, _)| name.to_string_lossy().into_owned()).collect()
    }

    fn variable(request: &GitRequest, name: &str) -> Option<String> {
        let command = command(request, DEFAULT_PATIENCE);
        let found = command.get_envs().find(|(known, _)| *known == name)?.1?;
        Some(found.to_string_lossy().into_owned())
    }

    #[test]
    fn the_environment_of_git_is_an_allow_list() {
        let set = [
            "HOME",
            "LC_ALL",
            "GIT_CONFIG_NOSYSTEM",
            "GIT_CONFIG_GLOBAL",
            "GIT_TERMINAL_PROMPT",
            "GIT_SSH_COMMAND",
            "http_proxy",
            "https_proxy",
            "no_proxy",
        ];
        let allowed: BTreeSet<String> = PASSED_ON.iter().chain(&set).map(|name| (*name).to_owned()).collect();
        let found = names(&GitRequest::default());
        assert!(found.is_subset(&allowed), "{found:?}");
        // The tests' own environment has more than that.
        assert!(std::env::vars_os().any(|(name, _)| !allowed.contains(&*name.to_string_lossy())));
    }

    #[test]
    fn keys_are_offered_only_when_passed() {
        let with = |identity: Identity| GitRequest { identity, ..GitRequest::default() };
        let ssh = |identity: Identity| variable(&with(identity), "GIT_SSH_COMMAND").unwrap();
        assert_eq!(variable(&with(Identity::None), "SSH_AUTH_SOCK"), None);
        assert!(ssh(Identity::None).ends_with("-o IdentityAgent=none -o IdentityFile=none"));
        let agent = Identity::Agent("/agent".into());
        assert_eq!(variable(&with(agent.clone()), "SSH_AUTH_SOCK").as_deref(), Some("/agent"));
        assert!(ssh(agent).ends_with("ServerAliveCountMax=1 -o IdentityFile=none"));
        assert!(!ssh(Identity::User).contains("Identity"));
    }
}
