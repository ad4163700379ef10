//! Fetches files over HTTP and git repositories for builds, with the credentials in secrets.

use crate::images::ImageFinder;
use kiln_builder::remote::{Answer, Remote, Version};
use kiln_builder::{Checkout, Credentials, ImageError};
use kiln_registry::{FetchRequest, GitRequest, Identity};
use std::fs::File;
use std::path::Path;

/// Fetches sources of ADD and contexts over the network.
pub struct Fetcher<'a> {
    images: &'a ImageFinder<'a>,
    credentials: &'a Credentials,
    is_named_by_user: bool,
}

impl<'a> Fetcher<'a> {
    /// Uses the connection of `images`, and the secrets of `credentials`.
    pub fn new(images: &'a ImageFinder<'a>, credentials: &'a Credentials) -> Fetcher<'a> {
        Fetcher { images, credentials, is_named_by_user: false }
    }

    /// For contexts on the command line: without `--ssh`, git uses the user's own keys, like `git clone`.
    pub fn named_by_user(&self) -> Fetcher<'a> {
        Fetcher { is_named_by_user: true, ..*self }
    }

    /// For sources in a Dockerfile: git uses only the keys of `--ssh default`.
    fn identity(&self) -> Identity {
        match self.credentials.ssh.get("default") {
            Some(socket) => Identity::Agent(socket.clone()),
            None if self.is_named_by_user && self.credentials.ssh.is_empty() => Identity::User,
            None => Identity::None,
        }
    }

    fn secret(&self, name: &str) -> Option<String> {
        let value = self.credentials.secrets.get(name)?;
        Some(String::from_utf8_lossy(value).trim().to_owned())
    }

    /// Credentials of a host: the secret `HTTP_AUTH_HEADER_<host>` or `HTTP_AUTH_TOKEN_<host>`.
    fn web_authorization(&self, url: &str) -> Option<String> {
        let host = host_of(url);
        let header = self.secret(&format!("HTTP_AUTH_HEADER_{host}"));
        header.or_else(|| Some(format!("Bearer {}", self.secret(&format!("HTTP_AUTH_TOKEN_{host}"))?)))
    }

    /// Credentials of a git server: the secret `GIT_AUTH_HEADER[.host]` or `GIT_AUTH_TOKEN[.host]`.
    fn git_authorization(&self, remote: &str) -> Option<String> {
        let host = host_of(remote);
        let named = |name: &str| self.secret(&format!("{name}.{host}")).or_else(|| self.secret(name));
        let basic = |token: String| {
            let pair = format!("x-access-token:{token}");
            format!("basic {}", base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pair))
        };
        named("GIT_AUTH_HEADER").or_else(|| named("GIT_AUTH_TOKEN").map(basic))
    }

    fn git_request(&self, checkout: &Checkout) -> GitRequest {
        let is_web = checkout.remote.starts_with("https://") || checkout.remote.starts_with("http://");
        GitRequest {
            remote: checkout.remote.clone(),
            reference: checkout.reference.clone(),
            submodules: checkout.submodules,
            keeps_git: checkout.keeps_git,
            authorization: self.git_authorization(&checkout.remote).filter(|_| is_web),
            identity: self.identity(),
            patience: self.images.patience(),
        }
    }
}

/// Host of a URL, without user and port.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    host.split(':').next().unwrap_or_default()
}

impl Remote for Fetcher<'_> {
    fn download(&self, url: &str, known: Option<&Version>, output: &mut File) -> Result<Answer, ImageError> {
        let empty = Version::default();
        let known = known.unwrap_or(&empty);
        let request = FetchRequest {
            url,
            authorization: self.web_authorization(url),
            etag: &known.etag,
            last_modified: &known.last_modified,
        };
        let fetched = self.images.registry()?.fetch(&request, output)?;
        Ok(fetched.map_or(Answer::Unchanged, |file| {
            Answer::File(Version { etag: file.etag, last_modified: file.last_modified })
        }))
    }

    fn commit(&self, checkout: &Checkout) -> Result<String, ImageError> {
        Ok(kiln_registry::commit(&self.git_request(checkout))?)
    }

    fn check_out(&self, checkout: &Checkout, commit: &str, dir: &Path) -> Result<i64, ImageError> {
        Ok(kiln_registry::check_out(&self.git_request(checkout), commit, dir)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        assert_eq!(host_of("https://user@example.com:8443/x?y"), "example.com");
        assert_eq!(host_of("http://127.0.0.1/a"), "127.0.0.1");
        assert_eq!(host_of("git@example.com:a/b"), "example.com");
    }
}
