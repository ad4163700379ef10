//! Proxies of the environment, and the addresses that are requested through them.
//!
//! The rules are those of Go's `golang.org/x/net/http/httpproxy`, which Docker and BuildKit follow: `HTTP_PROXY` and
//! `HTTPS_PROXY` are chosen by the scheme of the address, `NO_PROXY` lists exceptions, and `localhost` and loopback
//! addresses never use a proxy. `ALL_PROXY`, which Go does not read, replaces either, as in curl.

mod connect;

pub(crate) use connect::Connector;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Variables by scheme; the first that is set counts.
const FOR_HTTP: [&str; 4] = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
const FOR_HTTPS: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
const EXCEPTIONS: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// The proxies of the environment.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    http: Option<Named>,
    https: Option<Named>,
    exceptions: Vec<Exception>,
}

/// A proxy with the variable that names it, or the reason why the variable's value is invalid.
#[derive(Clone, Debug)]
struct Named {
    variable: &'static str,
    proxy: Result<Arc<Proxy>, InvalidProxy>,
}

/// A server that forwards requests.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    kind: Kind,
    host: String,
    port: u16,
    /// User and password for the proxy.
    user: Option<(String, String)>,
    pub(crate) variable: &'static str,
}

/// Protocol of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Http,
    /// HTTP over a TLS connection.
    Https,
    /// SOCKS version 5; host names are resolved by the proxy.
    Socks,
}

/// An entry of `NO_PROXY`. Ports are texts, as in Go: one that is not a number matches no address.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    /// The entry `*`, which matches all addresses.
    All,
    /// A network such as `10.0.0.0/8`.
    Network(IpAddr, u32),
    /// An address such as `10.0.0.1` or `10.0.0.1:80`.
    Address(IpAddr, Option<String>),
    /// `example.com`, `.example.com` or `*.example.com`, with a port or without.
    Domain {
        /// Domain with a leading dot.
        suffix: String,
        /// Whether the domain itself matches, too.
        is_whole: bool,
        port: Option<String>,
    },
}

/// Failure of a proxy to connect to a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the proxy {}{variable} names {fault}", if proxy.is_empty() { String::from("that ") } else { format!("{proxy} that ") })]
pub struct ProxyError {
    /// Variable that names the proxy.
    pub variable: &'static str,
    /// Address of the proxy without user and password; empty when the variable holds none.
    pub proxy: String,
    /// Cause of the failure.
    pub fault: ProxyFault,
}

/// Cause of a proxy's failure; completes "the proxy …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyFault {
    /// The variable's value is not an address of a proxy.
    #[error("cannot be used: {0}")]
    Invalid(InvalidProxy),
    /// No connection to the proxy.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// No response from the proxy.
    #[error("sent no answer for {} s", .0.as_secs_f32())]
    Silent(Duration),
    /// The proxy requires authentication; true when it does not accept the user and password that were sent.
    #[error("{}", if *.0 { "does not accept the user and password that the variable holds (407 Proxy Authentication Required)" } else { "wants a user and password (407 Proxy Authentication Required)" })]
    Authentication(bool),
    /// The proxy refuses to connect to the server.
    #[error("refuses to connect to {target}: {reason}")]
    Refused {
        /// Host and port of the server.
        target: String,
        /// HTTP status; 0 for SOCKS.
        status: u16,
        /// Reason of the refusal, with the status.
        reason: String,
    },
    /// The response of the proxy violates the protocol.
    #[error("sent an answer that is malformed: {0}")]
    Malformed(String),
}

/// Reason why a text is no address of a proxy. The text is not repeated: it may contain a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProxy {
    /// The scheme is unknown.
    #[error("its scheme is none of http, https and socks5")]
    Scheme,
    /// The port is not a number of 16 bits.
    #[error("its port is not a number up to 65535")]
    Port,
    /// The host is missing or has characters that no host has.
    #[error("it has no valid host")]
    Host,
}

impl ProxyError {
    /// Proxy error in the chain of sources of another error; `None` when there is none.
    pub(crate) fn behind(error: &(dyn std::error::Error + 'static)) -> Option<ProxyError> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref::<ProxyError>() {
                return Some(found.clone());
            }
            cause = error.source();
        }
        None
    }

    /// True when a later attempt may succeed.
    pub(crate) fn is_transient(&self) -> bool {
        match &self.fault {
            ProxyFault::Unreachable(_) | ProxyFault::Silent(_) => true,
            ProxyFault::Refused { status, .. } => matches!(status, 0 | 408 | 429 | 500..=599),
            _ => false,
        }
    }
}

impl Proxies {
    /// Reads the proxies from variables; `get` returns the value of one.
    pub fn from_environment(get: impl Fn(&str) -> Option<String>) -> Proxies {
        let first = |names: &[&'static str]| {
            let set =
                |name: &&'static str| Some((*name, get(name).filter(|value| !value.trim().is_empty())?));
            names.iter().find_map(set)
        };
        let named = |names: &[&'static str]| {
            first(names).map(|(variable, value)| {
                let proxy = value.trim().parse::<Proxy>();
                Named { variable, proxy: proxy.map(|proxy| Arc::new(Proxy { variable, ..proxy })) }
            })
        };
        let exceptions = first(&EXCEPTIONS).map(|(_, value)| value).unwrap_or_default();
        Proxies {
            http: named(&FOR_HTTP),
            https: named(&FOR_HTTPS),
            exceptions: exceptions.split(',').filter_map(exception).collect(),
        }
    }

    /// Proxy for a server; `None` for a direct connection. `host` is in lower case and has no brackets.
    ///
    /// # Errors
    /// [`ProxyFault::Invalid`] when the applicable variable does not hold the address of a proxy.
    pub(crate) fn of(
        &self,
        is_secure: bool,
        host: &str,
        port: u16,
    ) -> Result<Option<Arc<Proxy>>, ProxyError> {
        let Some(named) = (if is_secure { &self.https } else { &self.http }) else { return Ok(None) };
        if self.is_excepted(host, port) {
            return Ok(None);
        }
        match &named.proxy {
            Ok(proxy) => Ok(Some(Arc::clone(proxy))),
            Err(reason) => Err(ProxyError {
                variable: named.variable,
                proxy: String::new(),
                fault: ProxyFault::Invalid(*reason),
            }),
        }
    }

    fn is_excepted(&self, host: &str, port: u16) -> bool {
        let address = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return true;
        }
        let port = port.to_string();
        let has_port = |wanted: &Option<String>| wanted.as_ref().is_none_or(|wanted| *wanted == port);
        self.exceptions.iter().any(|exception| match exception {
            Exception::All => true,
            Exception::Network(network, bits) => {
                address.is_some_and(|address| contains(*network, *bits, address))
            }
            Exception::Address(known, wanted) => address == Some(*known) && has_port(wanted),
            Exception::Domain { suffix, is_whole, port: wanted } => {
                (host.ends_with(suffix) || (*is_whole && *host == suffix[1..])) && has_port(wanted)
            }
        })
    }
}

/// Variables that libcurl, and so `git`, reads: it knows fewer forms of exceptions than Go, does not except loopback,
/// and does not read `HTTP_PROXY`.
pub(crate) fn variables_for_curl(get: impl Fn(&str) -> Option<String>) -> Vec<(&'static str, String)> {
    let first = |names: &[&str]| {
        names
            .iter()
            .find_map(|name| get(name).map(|value| value.trim().to_owned()).filter(|it| !it.is_empty()))
    };
    let mut variables = Vec::new();
    variables.extend(first(&FOR_HTTP).map(|proxy| ("http_proxy", proxy)));
    variables.extend(first(&FOR_HTTPS).map(|proxy| ("https_proxy", proxy)));
    if variables.is_empty() {
        return variables;
    }
    let exceptions = first(&EXCEPTIONS).unwrap_or_default();
    let mut list: Vec<&str> =
        exceptions.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect();
    if list.contains(&"*") {
        list = vec!["*"];
    } else {
        list.iter_mut().for_each(|entry| *entry = entry.strip_prefix('*').unwrap_or(entry));
        list.extend(["localhost", "127.0.0.1", "127.0.0.0/8", "::1"]);
    }
    variables.push(("no_proxy", list.join(",")));
    variables
}

/// Parses an entry of `NO_PROXY`; `None` for one that matches no address.
fn exception(text: &str) -> Option<Exception> {
    let text = text.trim().to_ascii_lowercase();
    if text == "*" {
        return Some(Exception::All);
    }
    if let Some((address, bits)) = text.split_once('/')
        && let (Ok(address), Ok(bits)) = (address.parse::<IpAddr>(), bits.parse::<u32>())
        && bits <= if address.is_ipv4() { 32 } else { 128 }
    {
        return Some(Exception::Network(address, bits));
    }
    let (host, port) = split_port(&text);
    let port = port.filter(|port| !port.is_empty()).map(str::to_owned);
    if let Ok(address) = host.parse::<IpAddr>() {
        return Some(Exception::Address(address.to_canonical(), port));
    }
    // A `*` stands for a part of the name, and requires one.
    let host = if host.starts_with("*.") { &host[1..] } else { host };
    let is_whole = !host.starts_with('.');
    let suffix = if is_whole { format!(".{host}") } else { host.to_owned() };
    (suffix.len() > 1).then_some(Exception::Domain { suffix, is_whole, port })
}

fn contains(network: IpAddr, bits: u32, address: IpAddr) -> bool {
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            (network.to_bits() ^ address.to_bits()).checked_shr(32 - bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            (network.to_bits() ^ address.to_bits()).checked_shr(128 - bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// Splits a text into the host, without brackets, and the port.
fn split_port(text: &str) -> (&str, Option<&str>) {
    if let Some((host, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, rest.strip_prefix(':'));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host, Some(port)),
        _ => (text, None),
    }
}

impl FromStr for Proxy {
    type Err = InvalidProxy;

    /// Parses an address `[SCHEME://][USER[:PASSWORD]@]HOST[:PORT]`.
    fn from_str(text: &str) -> Result<Proxy, InvalidProxy> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let (kind, default) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (Kind::Http, 80),
            "https" => (Kind::Https, 443),
            "socks5" | "socks5h" => (Kind::Socks, 1080),
            _ => return Err(InvalidProxy::Scheme),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, authority),
        };
        let (host, port) = split_port(place);
        let port = match port.filter(|port| !port.is_empty()) {
            None => default,
            Some(port) => port.parse().map_err(|_| InvalidProxy::Port)?,
        };
        let is_host = host.parse::<IpAddr>().is_ok()
            || host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        if host.is_empty() || !is_host {
            return Err(InvalidProxy::Host);
        }
        let user = user.map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            (unescaped(name), unescaped(password))
        });
        Ok(Proxy { kind, host: host.to_ascii_lowercase(), port, user, variable: "" })
    }
}

/// Decodes `%` escapes; malformed ones stay.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = (*first == b'%').then(|| tail.get(..2)).flatten();
        let escaped =
            escaped.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Proxy {
    /// True when plain http requests are sent to the proxy whole, without a tunnel.
    pub(crate) fn takes_requests(&self) -> bool {
        self.kind != Kind::Socks
    }

    /// True when the connection to the proxy uses TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.kind == Kind::Https
    }

    /// Value of the `Proxy-Authorization` header; `None` without a user.
    pub(crate) fn authorization(&self) -> Option<String> {
        let (user, password) = self.user.as_ref()?;
        Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
    }

    /// Error of this proxy.
    pub(crate) fn error(&self, fault: ProxyFault) -> ProxyError {
        ProxyError { variable: self.variable, proxy: self.to_string(), fault }
    }

    /// Error for an unsuccessful response.
    pub(crate) fn refusal(&self, target: &str, status: u16, reason: &str) -> ProxyError {
        self.error(match status {
            407 => ProxyFault::Authentication(self.user.is_some()),
            _ => ProxyFault::Refused {
                target: target.to_owned(),
                status,
                reason: format!("{status} {reason}").trim_end().to_owned(),
            },
        })
    }
}

impl fmt::Display for Proxy {
    /// Formats the address without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            Kind::Http => "http",
            Kind::Https => "https",
            Kind::Socks => "socks5",
        };
        write!(f, "{scheme}://{}", authority(&self.host, self.port))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Host and port in the form of addresses.
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests;
