//! Endpoints of the registries that serve an image.

use crate::origin::is_loopback;
use kiln_image::reference::Reference;
use std::str::FromStr;

/// Host of the registry behind `docker.io`.
const HUB: &str = "registry-1.docker.io";

/// Address of one registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Scheme: `https` or `http`.
    pub scheme: &'static str,
    /// Host, with the port if there is one.
    pub authority: String,
    /// Host in the images' names, when this endpoint is a mirror of it.
    pub mirror_of: Option<String>,
}

impl Endpoint {
    /// Endpoint of the registry that a reference names, for pushing: mirrors accept no images.
    pub fn of(reference: &Reference) -> Endpoint {
        Endpoint::of_host(reference.host())
    }

    /// Endpoint of a registry by its host in names of images.
    pub fn of_host(host: &str) -> Endpoint {
        match host {
            "docker.io" => direct(HUB),
            host => direct(host),
        }
    }

    /// Address of a path below `/v2/`.
    pub fn url(&self, path: &str) -> String {
        let namespace = self.mirror_of.as_ref().map(|host| format!("?ns={host}")).unwrap_or_default();
        format!("{}://{}/v2/{path}{namespace}", self.scheme, self.authority)
    }
}

/// A text that is not the address of a mirror.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid registry mirror `{0}`: expected HOST[:PORT], optionally behind http:// or https://")]
pub struct MirrorError(pub String);

/// Mirrors of Docker Hub, in the order in which they are tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirrors {
    list: Vec<Endpoint>,
}

impl Mirrors {
    /// Endpoints for a reference: mirrors first, the registry itself last.
    pub fn endpoints(&self, reference: &Reference) -> Vec<Endpoint> {
        let host = reference.host();
        if host != "docker.io" {
            return vec![direct(host)];
        }
        self.list.iter().cloned().chain([direct(HUB)]).collect()
    }

    /// Endpoints of the mirrors.
    pub fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.list.iter()
    }

    /// True when there are no mirrors.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl FromStr for Mirrors {
    type Err = MirrorError;

    /// Parses mirrors separated by commas or blanks.
    fn from_str(text: &str) -> Result<Mirrors, MirrorError> {
        let words = text.split([',', ' ']).filter(|word| !word.is_empty());
        let list: Result<Vec<Endpoint>, MirrorError> = words.map(mirror).collect();
        Ok(Mirrors { list: list? })
    }
}

fn mirror(text: &str) -> Result<Endpoint, MirrorError> {
    let fail = || MirrorError(text.to_owned());
    let (scheme, rest) = match text.split_once("://") {
        Some(("http", rest)) => (Some("http"), rest),
        Some(("https", rest)) => (Some("https"), rest),
        Some(_) => return Err(fail()),
        None => (None, text),
    };
    let authority = rest.trim_end_matches('/');
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    let is_authority = authority.parse::<http::uri::Authority>().is_ok();
    if !is_authority || !authority.chars().all(valid) {
        return Err(fail());
    }
    let scheme = scheme.unwrap_or(scheme_for(authority));
    Ok(Endpoint { scheme, authority: authority.to_owned(), mirror_of: Some("docker.io".to_owned()) })
}

fn direct(host: &str) -> Endpoint {
    Endpoint { scheme: scheme_for(host), authority: host.to_owned(), mirror_of: None }
}

/// Scheme of a registry: plain HTTP for loopback only, which other hosts cannot observe.
fn scheme_for(authority: &str) -> &'static str {
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => authority.split(':').next().unwrap_or(authority),
    };
    if is_loopback(&host.to_ascii_lowercase()) { "http" } else { "https" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(mirrors: &str, reference: &str) -> Vec<String> {
        let mirrors: Mirrors = mirrors.parse().unwrap();
        let reference: Reference = reference.parse().unwrap();
        mirrors.endpoints(&reference).iter().map(|endpoint| endpoint.url("")).collect()
    }

    #[test]
    fn mirrors_precede_the_hub_and_serve_nothing_else() {
        let hub = "https://registry-1.docker.io/v2/".to_owned();
        assert_eq!(urls("", "busybox"), std::slice::from_ref(&hub));
        assert_eq!(
            urls("127.0.0.1:5000, mirror.example", "busybox"),
            [
                "http://127.0.0.1:5000/v2/?ns=docker.io".into(),
                "https://mirror.example/v2/?ns=docker.io".into(),
                hub
            ]
        );
        assert_eq!(urls("127.0.0.1:5000", "quay.io/a/b"), ["https://quay.io/v2/"]);
        assert_eq!(urls("", "localhost:5000/a"), ["http://localhost:5000/v2/"]);
        assert_eq!(urls("", "[::1]:5000/a"), ["http://[::1]:5000/v2/"]);
        assert_eq!(urls("http://10.0.0.1/", "a").len(), 2);
    }

    #[test]
    fn malformed_mirrors_are_refused() {
        for text in ["ftp://x", "http://", "http://[", "a:b:c", "a/b", "x y@z"] {
            assert!(text.parse::<Mirrors>().is_err(), "{text}");
        }
    }
}
