//! EXPOSE values after expansion: ports, ranges and protocols.

use std::net::IpAddr;

/// Mistake in a port; the texts are those of the reference builder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// There is no port.
    #[error("invalid port: {0:?}: no port specified")]
    NoPort(String),
    /// The protocol is none of tcp, udp and sctp.
    #[error("invalid port: {text:?}: invalid proto: {protocol}")]
    Protocol {
        /// Complete text of the port.
        text: String,
        /// Protocol in the text.
        protocol: String,
    },
    /// The address is not an IP address.
    #[error("invalid IP address: {0}")]
    Address(String),
    /// The port of the container is not a port or range.
    #[error("invalid containerPort: {0}")]
    ContainerPort(String),
    /// The port of the host is not a port or range.
    #[error("invalid hostPort: {0}")]
    HostPort(String),
    /// The ranges of container and host have different lengths.
    #[error("invalid ranges specified for container and host Ports: {container} and {host}")]
    Ranges {
        /// Range of the container.
        container: String,
        /// Range of the host.
        host: String,
    },
}

/// Parses `[[ip:]host:]container[-end][/protocol]`; returns the container's ports as `number/protocol`.
///
/// Messages follow moby/buildkit `frontend/dockerfile/dockerfile2llb/convert_expose.go`.
///
/// # Errors
/// Fails on an invalid address, port, range or protocol.
pub fn container_ports(text: &str) -> Result<Vec<String>, PortError> {
    let (address, host, container) = split(text);
    let (range, protocol) = container.split_once('/').unwrap_or((container, ""));
    if range.is_empty() {
        return Err(PortError::NoPort(text.to_owned()));
    }
    let lower = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_lowercase() };
    if !matches!(lower.as_str(), "tcp" | "udp" | "sctp") {
        return Err(PortError::Protocol { text: text.to_owned(), protocol: protocol.to_owned() });
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    if !bare.is_empty() && bare.parse::<IpAddr>().is_err() {
        return Err(PortError::Address(bare.to_owned()));
    }
    let (start, end) = parse_range(range).ok_or_else(|| PortError::ContainerPort(range.to_owned()))?;
    if !host.is_empty() {
        let (host_start, host_end) = parse_range(host).ok_or_else(|| PortError::HostPort(host.to_owned()))?;
        if end - start != host_end - host_start && start != end {
            return Err(PortError::Ranges { container: range.to_owned(), host: host.to_owned() });
        }
    }
    Ok((start..=end).map(|port| format!("{port}/{lower}")).collect())
}

/// Splits off address, host port and container port; the address may itself contain colons.
fn split(text: &str) -> (&str, &str, &str) {
    let Some((before, container)) = text.rsplit_once(':') else { return ("", "", text) };
    match before.rsplit_once(':') {
        Some((address, host)) => (address, host, container),
        None => ("", before, container),
    }
}

fn parse_range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| text.parse::<u16>().ok();
    let (start, end) = match text.split_once('-') {
        Some((start, end)) => (number(start)?, number(end)?),
        None => (number(text)?, number(text)?),
    };
    (start <= end).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&[&str], &str>) {
        let expected = expected.map(|ports| ports.iter().map(|port| (*port).to_owned()).collect());
        let found = container_ports(text).map_err(|error| error.to_string());
        assert_eq!(found, expected.map_err(str::to_owned), "{text}");
    }

    #[test]
    fn ports_are_parsed() {
        check("80", Ok(&["80/tcp"]));
        check("53/UDP", Ok(&["53/udp"]));
        check("80/", Ok(&["80/tcp"]));
        check("8000-8002/sctp", Ok(&["8000/sctp", "8001/sctp", "8002/sctp"]));
        check("8080:80", Ok(&["80/tcp"]));
        check("127.0.0.1:8080:80", Ok(&["80/tcp"]));
        check("[::1]:8080:80", Ok(&["80/tcp"]));
        check("abc", Err("invalid containerPort: abc"));
        check("70000", Err("invalid containerPort: 70000"));
        check("9-8", Err("invalid containerPort: 9-8"));
        check("x:80", Err("invalid hostPort: x"));
        check("1.2.3:1:80", Err("invalid IP address: 1.2.3"));
        check("80/xyz", Err("invalid port: \"80/xyz\": invalid proto: xyz"));
        check("/tcp", Err("invalid port: \"/tcp\": no port specified"));
    }
}
