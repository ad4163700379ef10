//! References to git repositories, as ADD and build contexts write them.
//!
//! `https://host/path.git`, `git://host/path`, `ssh://user@host/path`, `user@host:path`, with a fragment
//! `#ref:directory` or a query (`ref`, `tag`, `branch`, `subdir`, `checksum`, `commit`, `keep-git-dir`, `submodules`,
//! `mtime`, `fetch-by-commit`). Rules and sentences follow moby/buildkit `frontend/dockerfile/dfgitutil`.

use crate::mount::go_bool;

/// A reference to a repository, with the revision and the files selected from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitReference {
    /// Address for `git`: without query and fragment.
    pub remote: String,
    /// Last part of the repository's path, without `.git`.
    pub short_name: String,
    /// Commit, branch or tag; empty for the default branch.
    pub reference: String,
    /// Expected commit id or its beginning; empty when any commit will do.
    pub checksum: String,
    /// Directory within the repository; empty for all of it.
    pub subdir: String,
    /// Whether the text could also be a local path: `github.com/…` without a scheme, accepted for contexts only.
    pub looks_local: bool,
    /// Whether the connection is not encrypted.
    pub unencrypted: bool,
    /// Whether `.git` is kept; `None` without the option.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are fetched; `None` without the option.
    pub submodules: Option<bool>,
    /// Source of the files' modification times; `None` without the option.
    pub mtime: Option<Mtime>,
    /// Whether the checksum itself is fetched, instead of the reference.
    pub fetch_by_commit: bool,
}

/// Mistake in the query of a reference; the texts are those of the reference builder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GitReferenceError {
    /// A key occurs more than once.
    #[error("query {0:?} has multiple values")]
    Repeated(String),
    /// A key that needs a value has none.
    #[error("query {0:?} has no value")]
    NoValue(String),
    /// A key that does not exist.
    #[error("unexpected query {0:?}")]
    UnknownKey(String),
    /// The value of a switch is not a truth value.
    #[error("invalid {key} value: {value:?}")]
    Switch {
        /// Name of the switch.
        key: String,
        /// Value in the query.
        value: String,
    },
    /// The value of `mtime` is none of its two.
    #[error("invalid mtime value: {0:?} (must be \"checkout\" or \"commit\")")]
    Mtime(String),
    /// Two parts of the text name different directories or references.
    #[error("{what} conflicts: {first:?} vs {second:?}")]
    Conflict {
        /// Either `subdir` or `ref`.
        what: &'static str,
        /// Value that came first.
        first: String,
        /// Value that came second.
        second: String,
    },
    /// The query names both a branch and a tag.
    #[error("branch conflicts with tag")]
    BranchAndTag,
}

/// Source of the modification times of a checkout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mtime {
    /// The time of the checkout.
    Checkout,
    /// The time of the commit.
    Commit,
}

impl GitReference {
    /// Parses `text`.
    ///
    /// `None` when it is not a reference to a repository; the inner error is a mistake in its query.
    pub fn parse(text: &str) -> Option<Result<GitReference, GitReferenceError>> {
        let address = Address::split(text)?;
        let mut reference = GitReference {
            short_name: short_name(&address.remote),
            looks_local: address.looks_local,
            unencrypted: address.unencrypted,
            remote: address.remote,
            ..GitReference::default()
        };
        if !address.fragment.is_empty() {
            let (name, subdir) = address.fragment.split_once(':').unwrap_or((&address.fragment, ""));
            reference.reference = name.to_owned();
            reference.subdir = clean_subdir(subdir);
        }
        Some(reference.read_query(&address.query).map(|()| reference))
    }

    /// Short form of the reference: `remote#reference:subdir`.
    pub fn fragment_form(&self, with_subdir: bool) -> String {
        let subdir = if with_subdir { clean_subdir(&self.subdir) } else { String::new() };
        let mut text = self.remote.clone();
        if !self.reference.is_empty() || !subdir.is_empty() {
            text.push('#');
            text.push_str(&self.reference);
        }
        if !subdir.is_empty() {
            text.push(':');
            text.push_str(&subdir);
        }
        text
    }

    fn read_query(&mut self, query: &[(String, String)]) -> Result<(), GitReferenceError> {
        let (mut tag, mut branch) = (String::new(), String::new());
        for (index, (key, value)) in query.iter().enumerate() {
            if query[..index].iter().any(|(earlier, _)| earlier == key) {
                return Err(GitReferenceError::Repeated(key.clone()));
            }
            let is_switch = matches!(key.as_str(), "submodules" | "keep-git-dir" | "fetch-by-commit");
            if value.is_empty() && !is_switch {
                return Err(GitReferenceError::NoValue(key.clone()));
            }
            match key.as_str() {
                "ref" => self.set_reference(value)?,
                "tag" => tag = prefixed("refs/tags/", value),
                "branch" => branch = prefixed("refs/heads/", value),
                "subdir" if !self.subdir.is_empty() && self.subdir != *value => {
                    return Err(conflict("subdir", &self.subdir, value));
                }
                "subdir" => self.subdir.clone_from(value),
                "checksum" | "commit" => self.checksum.clone_from(value),
                "keep-git-dir" => self.keep_git_dir = Some(switch(key, value)?),
                "submodules" => self.submodules = Some(switch(key, value)?),
                "fetch-by-commit" => self.fetch_by_commit = switch(key, value)?,
                "mtime" => {
                    self.mtime = Some(match value.as_str() {
                        "checkout" => Mtime::Checkout,
                        "commit" => Mtime::Commit,
                        _ => return Err(GitReferenceError::Mtime(value.clone())),
                    });
                }
                _ => return Err(GitReferenceError::UnknownKey(key.clone())),
            }
        }
        if !tag.is_empty() {
            self.set_reference(&tag)?;
        }
        if !branch.is_empty() && !tag.is_empty() {
            return Err(GitReferenceError::BranchAndTag);
        }
        if !branch.is_empty() {
            self.set_reference(&branch)?;
        }
        Ok(())
    }

    fn set_reference(&mut self, value: &str) -> Result<(), GitReferenceError> {
        if !self.reference.is_empty() && self.reference != value {
            return Err(conflict("ref", &self.reference, value));
        }
        value.clone_into(&mut self.reference);
        Ok(())
    }
}

/// True for a complete commit id: SHA-1 or SHA-256 in hexadecimal.
pub fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Parts of an address.
struct Address {
    remote: String,
    query: Vec<(String, String)>,
    fragment: String,
    looks_local: bool,
    unencrypted: bool,
}

impl Address {
    fn split(text: &str) -> Option<Address> {
        if text.starts_with("./") || text.starts_with("../") || text.chars().any(char::is_control) {
            return None;
        }
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (remote, query) = rest.split_once('?').unwrap_or((rest, ""));
        let looks_local = remote.starts_with("github.com/");
        let (remote, unencrypted) = match remote.split_once("://") {
            _ if looks_local => (remote.to_owned(), false),
            Some((scheme, rest)) if is_word(scheme) => with_scheme(scheme, rest)?,
            _ => (is_scp(remote).then(|| remote.to_owned())?, false),
        };
        let fragment = percent_decode(fragment, false)?;
        Some(Address { remote, query: split_query(query)?, fragment, looks_local, unencrypted })
    }
}

fn is_word(scheme: &str) -> bool {
    !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn with_scheme(scheme: &str, rest: &str) -> Option<(String, bool)> {
    let scheme = scheme.to_ascii_lowercase();
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let port = host.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.contains(['@', ']']));
    if port.is_some_and(|port| !port.bytes().all(|byte| byte.is_ascii_digit())) {
        return None;
    }
    let is_repository = match scheme.as_str() {
        // Other web addresses are files.
        "http" | "https" => path.ends_with(".git"),
        "ssh" | "git" => true,
        _ => false,
    };
    let unencrypted = matches!(scheme.as_str(), "http" | "git");
    is_repository.then(|| (format!("{scheme}://{rest}"), unencrypted))
}

/// True for addresses of the form `user@host:path`.
fn is_scp(text: &str) -> bool {
    let Some((user, rest)) = text.split_once('@') else { return false };
    let Some((host, _)) = rest.split_once(':') else { return false };
    let of = |text: &str, more: &[u8]| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
    };
    of(user, b"-_") && of(host, b"-.")
}

fn short_name(remote: &str) -> String {
    let last = remote.rsplit('/').next().unwrap_or(remote);
    last.strip_suffix(".git").unwrap_or(last).to_owned()
}

/// Cleaned path that stays inside the repository whatever its `..`; without slashes at either end.
fn clean_subdir(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

fn prefixed(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

fn conflict(what: &'static str, first: &str, second: &str) -> GitReferenceError {
    GitReferenceError::Conflict { what, first: first.to_owned(), second: second.to_owned() }
}

fn switch(key: &str, value: &str) -> Result<bool, GitReferenceError> {
    if value.is_empty() {
        return Ok(true);
    }
    go_bool(value).ok_or_else(|| GitReferenceError::Switch { key: key.to_owned(), value: value.to_owned() })
}

fn split_query(query: &str) -> Option<Vec<(String, String)>> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((percent_decode(key, true)?, percent_decode(value, true)?))
        })
        .collect()
}

/// Decoded text; `None` when the escapes are wrong or the result is not UTF-8.
fn percent_decode(text: &str, plus_is_blank: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let value = digit(rest.next()?)? * 16 + digit(rest.next()?)?;
                u8::try_from(value).ok()?
            }
            b'+' if plus_is_blank => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<Result<(&str, &str, &str), &str>>) {
        let found = GitReference::parse(text);
        let shown = found.as_ref().map(|result| {
            result
                .as_ref()
                .map(|it| (it.remote.as_str(), it.reference.as_str(), it.subdir.as_str()))
                .map_err(ToString::to_string)
        });
        assert_eq!(shown, expected.map(|result| result.map_err(str::to_owned)), "{text}");
    }

    // The published tables are tested in tests/vectors.rs.
    #[test]
    fn addresses_are_split() {
        check("ssh://git@h:22/a/b#v1:x/../y/", Some(Ok(("ssh://git@h:22/a/b", "v1", "y"))));
        check("HTTPS://h/a.git?subdir=%2Fx", Some(Ok(("https://h/a.git", "", "/x"))));
        check("https://h/a.git?ref=a&ref=b", Some(Err("query \"ref\" has multiple values")));
        check("https://h/a.git?ref", Some(Err("query \"ref\" has no value")));
        check("https://h/a.tar.gz", None);
        check("httpx://h/a.git", None);
        check("a/b.git", None);
    }
}
