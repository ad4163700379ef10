//! Git repositories, through the `git` program.
//!
//! No settings of the machine or its users count, nothing is asked for on a terminal, and no transport but those of the
//! network is used, whatever a repository's submodules say.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why a repository cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The program is not there.
    #[error("cannot run `git`: {0}; it fetches repositories: install it")]
    Program(#[source] std::io::Error),
    /// The program failed.
    #[error("git {what} failed: {reason}")]
    Failed {
        /// What it was told to do.
        what: String,
        /// What it said.
        reason: String,
    },
    /// A branch, tag or commit that the repository does not have.
    #[error("repository does not contain ref {reference}, output: {output:?}")]
    Reference {
        /// What was asked for.
        reference: String,
        /// What there is.
        output: String,
    },
}

/// What is wanted of a repository.
#[derive(Clone, Debug, Default)]
pub struct GitRequest {
    /// Its address.
    pub remote: String,
    /// Branch, tag or commit; empty for the default branch.
    pub reference: String,
    /// Submodules are fetched, too.
    pub submodules: bool,
    /// `.git` stays.
    pub keeps_git: bool,
    /// The `Authorization` header for this host, over https.
    pub authorization: Option<String>,
    /// The socket of an ssh agent.
    pub agent: Option<PathBuf>,
}

/// The commit that a reference means now.
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
    // A tag with a message of its own points to the commit: what it points to counts.
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

/// Checks a commit out into the empty folder `folder`; gives its time in seconds since 1970.
pub fn check_out(request: &GitRequest, commit: &str, folder: &Path) -> Result<i64, GitError> {
    let inside = Some(folder);
    run(request, inside, &["init", "-q", "-b", "master"])?;
    run(request, inside, &["remote", "add", "origin", "--", &request.remote])?;
    let shallow =
        |what: &str| run(request, inside, &["fetch", "-q", "--depth=1", "--no-tags", "origin", what]);
    // Some servers give only what has a name.
    let by_name = format!(
        "{0}:refs/kiln/wanted",
        if request.reference.is_empty() { "HEAD" } else { &request.reference }
    );
    if shallow(commit).is_err() && (is_commit(&request.reference) || shallow(&by_name).is_err()) {
        let all = ["fetch", "-q", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*"];
        run(request, inside, &all)?;
    }
    run(request, inside, &["checkout", "-q", "--detach", commit])?;
    if request.submodules && folder.join(".gitmodules").exists() {
        let update = ["submodule", "update", "-q", "--init", "--recursive", "--depth=1"];
        run(request, inside, &update)?;
    }
    let time = run(request, inside, &["show", "-s", "--format=%ct", commit])?;
    if !request.keeps_git {
        remove_git(folder).map_err(GitError::Program)?;
    }
    Ok(time.trim().parse().unwrap_or(0))
}

/// Removes `.git`: the folder of the repository, the files of submodules.
fn remove_git(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let is_folder = entry.file_type()?.is_dir();
        if entry.file_name() == ".git" {
            if is_folder { std::fs::remove_dir_all(&path)? } else { std::fs::remove_file(&path)? }
        } else if is_folder {
            remove_git(&path)?;
        }
    }
    Ok(())
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn run<A: AsRef<OsStr>>(
    request: &GitRequest,
    folder: Option<&Path>,
    arguments: &[A],
) -> Result<String, GitError> {
    let mut git = Command::new("git");
    git.args([
        "-c",
        "protocol.allow=never",
        "-c",
        "core.hooksPath=/dev/null",
        "-c",
        "advice.detachedHead=false",
    ]);
    for transport in ["http", "https", "git", "ssh"] {
        git.args(["-c".to_owned(), format!("protocol.{transport}.allow=always")]);
    }
    if let Some(folder) = folder {
        git.arg("-C").arg(folder);
    }
    git.args(arguments)
        .env_remove("GIT_DIR")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_SSH_COMMAND", "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=accept-new")
        .stdin(Stdio::null())
        .process_group(0);
    if let Some(authorization) = &request.authorization {
        // In the environment, where other users do not see it.
        let host = request.remote.split('/').take(3).collect::<Vec<_>>().join("/");
        git.env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", format!("http.{host}/.extraheader"))
            .env("GIT_CONFIG_VALUE_0", format!("Authorization: {authorization}"));
    }
    if let Some(agent) = &request.agent {
        git.env("SSH_AUTH_SOCK", agent);
    }
    let output = git.output().map_err(GitError::Program)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let reason = text.lines().filter(|line| !line.trim().is_empty()).collect::<Vec<_>>().join("; ");
    let what =
        arguments.first().map(|first| first.as_ref().to_string_lossy().into_owned()).unwrap_or_default();
    Err(GitError::Failed { what, reason })
}
