//! Origins of addresses, and the rules for addresses that a server refers to.
//!
//! Registries refer to other addresses: the realm of a token server, the target of a redirect, the location of an
//! upload. Three rules hold for all of them:
//!
//! - An https server may refer to https addresses only: no request continues over plain http.
//! - Credentials, tokens and challenges belong to one origin (scheme, host and port): other origins get none, and their
//!   challenges are not answered.
//! - The realm of a token server may be on another host when it is https, as with Docker Hub. Over plain http it gets
//!   credentials only on the host of a registry that itself uses http.

use crate::client::protocol;
use crate::error::RegistryError;
use http::Uri;
use std::net::IpAddr;

/// Scheme, host and port of an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    is_secure: bool,
    /// Host in lower case; IPv6 addresses without brackets.
    host: String,
    port: u16,
}

impl Origin {
    /// Origin of an absolute `http` or `https` address; a user in it is ignored.
    pub(crate) fn of(url: &str) -> Result<Origin, RegistryError> {
        let uri: Uri = url.parse().map_err(|_| protocol(url, "not an address"))?;
        let is_secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(protocol(url, "an address that is neither http nor https")),
        };
        let authority = uri.authority().filter(|authority| !authority.host().is_empty());
        let authority = authority.ok_or_else(|| protocol(url, "an address without a host"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let port = authority.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        Ok(Origin { is_secure, host, port })
    }

    /// True for an https origin.
    pub(crate) fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// Host, in lower case and without brackets, and port.
    pub(crate) fn host_and_port(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// True when both are the same host, on any port: by name, or both on the loopback interface.
    fn has_host_of(&self, other: &Origin) -> bool {
        self.host == other.host || (is_loopback(&self.host) && is_loopback(&other.host))
    }
}

/// True when a host without brackets is reached over the loopback interface, which other hosts cannot read.
pub(crate) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Purpose of an address that a server refers to; completes "the … must be https".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The target of a redirect.
    Redirect,
    /// The location at which an upload continues.
    Upload,
    /// The realm of a token server.
    Realm,
}

impl Purpose {
    fn noun(self) -> &'static str {
        match self {
            Purpose::Redirect => "target of a redirect",
            Purpose::Upload => "address for an upload",
            Purpose::Realm => "token server",
        }
    }
}

/// Origin of `target`, to which the server at `from` refers.
///
/// # Errors
/// [`RegistryError::Insecure`] when an https server refers to plain http, and for an address with a user in it, which
/// disguises its host.
pub(crate) fn led_to(from: &Origin, target: &str, purpose: Purpose) -> Result<Origin, RegistryError> {
    let origin = Origin::of(target)?;
    let refused = |reason: String| RegistryError::Insecure { url: target.to_owned(), reason };
    if from.is_secure && !origin.is_secure {
        let noun = purpose.noun();
        return Err(refused(format!(
            "`{}` was asked over https and names a {noun} over plain http, where others could read credentials, tokens \
             and content",
            from.host
        )));
    }
    let uri: Option<Uri> = target.parse().ok();
    if uri.and_then(|uri| Some(uri.authority()?.as_str().contains('@'))).unwrap_or_default() {
        return Err(refused(format!("`{}` names a {} with a user in it", from.host, purpose.noun())));
    }
    Ok(origin)
}

/// Checks that `realm`, to which the registry at `from` refers, may receive the user's credentials.
///
/// # Errors
/// [`RegistryError::Insecure`] when they would go over plain http to a host other than the registry's.
pub(crate) fn trust_realm(from: &Origin, realm: &Origin, url: &str) -> Result<(), RegistryError> {
    if realm.is_secure || realm.has_host_of(from) {
        return Ok(());
    }
    Err(RegistryError::Insecure {
        url: url.to_owned(),
        reason: format!(
            "`{}` names this token server on another host over plain http, where others could read the credentials",
            from.host
        ),
    })
}

/// Resolves `target`, a reference such as in a `Location` header, relative to `base` (RFC 3986, section 5.2).
pub(crate) fn absolute(base: &str, target: &str) -> Result<String, RegistryError> {
    if has_scheme(target) {
        return Ok(target.to_owned());
    }
    let uri: Uri = base.parse().map_err(|_| protocol(base, "not an address"))?;
    let scheme = uri.scheme_str().unwrap_or("https");
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    if target.starts_with("//") {
        return Ok(format!("{scheme}:{target}"));
    }
    if target.starts_with('/') {
        return Ok(format!("{scheme}://{authority}{}", without_dots(target)));
    }
    if target.starts_with('?') {
        return Ok(format!("{scheme}://{authority}{}{target}", uri.path()));
    }
    let directory = uri.path().rsplit_once('/').map_or("", |(directory, _)| directory);
    Ok(format!("{scheme}://{authority}{}", without_dots(&format!("{directory}/{target}"))))
}

/// Removes `.` and `..` from a path, which may have a query (RFC 3986, section 5.2.4).
fn without_dots(target: &str) -> String {
    let end = target.find(['?', '#']).unwrap_or(target.len());
    let (path, rest) = target.split_at(end);
    let mut names: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let last = segments.len() - 1;
    for (number, segment) in segments.into_iter().enumerate() {
        match segment {
            "." | ".." => {
                if segment == ".." {
                    names.pop();
                }
                // The slash before it stays.
                if number == last {
                    names.push("");
                }
            }
            name => names.push(name),
        }
    }
    format!("/{}{rest}", names.join("/"))
}

fn has_scheme(target: &str) -> bool {
    let Some((scheme, _)) = target.split_once(':') else { return false };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &str) -> Origin {
        Origin::of(url).unwrap()
    }

    #[test]
    fn references_are_resolved() {
        let check = |target: &str| absolute("https://h:1/v2/a/blobs/x?y", target).unwrap();
        assert_eq!(check("https://o/z"), "https://o/z");
        assert_eq!(check("/z?q"), "https://h:1/z?q");
        assert_eq!(check("z"), "https://h:1/v2/a/blobs/z");
        assert_eq!(check("//o/z"), "https://o/z");
        assert_eq!(check("/z?next=http://o"), "https://h:1/z?next=http://o");
        assert_eq!(check("?q"), "https://h:1/v2/a/blobs/x?q");
        assert_eq!(check("../uploads/z?s=a/../b"), "https://h:1/v2/a/uploads/z?s=a/../b");
        assert_eq!(check("./z"), "https://h:1/v2/a/blobs/z");
        assert_eq!(check("../../../../z"), "https://h:1/z");
        assert_eq!(check("/v2/./b/../c/"), "https://h:1/v2/c/");
        assert_eq!(check(".."), "https://h:1/v2/a/");
        assert_eq!(check("/"), "https://h:1/");
    }

    #[test]
    fn origins_are_scheme_host_and_port() {
        assert_eq!(origin("https://H.Example/a"), origin("HTTPS://h.example:443/b?c"));
        assert_eq!(origin("https://u:p@h/a"), origin("https://h/a"));
        assert_eq!(origin("http://[::1]:80/"), origin("http://[::1]/x"));
        for other in ["http://h/", "https://h:444/", "https://h.other/", "https://h@o/", "https://hh/"] {
            assert_ne!(origin("https://h/"), origin(other), "{other}");
        }
        for bad in
            ["ftp://h/", "file:///etc/passwd", "/a", "h", "https://", "https:///a", "https://h\\@o/", ""]
        {
            assert!(Origin::of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn https_servers_refer_to_https_only() {
        let purposes = [Purpose::Redirect, Purpose::Upload, Purpose::Realm];
        for purpose in purposes {
            let led = |from: &str, to: &str| led_to(&origin(from), to, purpose);
            assert!(led("https://r/", "https://r:8443/x").is_ok());
            assert!(led("https://r/", "https://o/x").is_ok());
            assert!(led("http://r/", "http://o/x").is_ok());
            assert!(led("http://r/", "https://o/x").is_ok());
            for to in ["http://r/x", "http://r:443/x", "HTTP://r/x", "http://localhost/x", "http://[::1]/x"] {
                let error = led("https://r/", to).unwrap_err();
                assert!(matches!(&error, RegistryError::Insecure { url, .. } if url == to), "{error}");
            }
            assert!(matches!(led("https://r/", "https://r@o/x"), Err(RegistryError::Insecure { .. })));
        }
    }

    #[test]
    fn realms_over_http_are_on_the_registrys_host() {
        let trust = |from: &str, realm: &str| trust_realm(&origin(from), &origin(realm), realm).is_ok();
        assert!(trust("https://registry-1.docker.io/v2/", "https://auth.docker.io/token"));
        assert!(trust("http://localhost:5000/", "http://localhost:5001/token"));
        assert!(trust("http://localhost:5000/", "http://127.0.0.1:5001/token"));
        assert!(trust("http://[::1]:5000/", "http://LOCALHOST/token"));
        assert!(trust("http://10.0.0.1/", "http://10.0.0.1:81/token"));
        assert!(trust("http://10.0.0.1/", "https://auth.example/token"));
        assert!(!trust("http://10.0.0.1/", "http://10.0.0.2/token"));
        assert!(!trust("http://localhost:5000/", "http://10.0.0.2/token"));
        assert!(!trust("http://10.0.0.1/", "http://localhost/token"));
        assert!(!trust("http://localhost:5000/", "http://localhost.example/token"));
    }
}
