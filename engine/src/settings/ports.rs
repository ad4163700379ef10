//! Ports that a container exposes.

/// A port that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Text that is no port and no range of ports.
    #[error("invalid range format for --expose: {0}: invalid port")]
    Expose(String),
    /// A protocol without such ports.
    #[error("invalid proto: {0}")]
    Protocol(String),
}

/// Reads `PORT[-PORT][/PROTOCOL]`. Returns each port with its protocol, such as `80/tcp`.
///
/// # Errors
/// [`PortError::Expose`] and [`PortError::Protocol`].
pub fn exposed(text: &str) -> Result<Vec<String>, PortError> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(PortError::Protocol(protocol));
    }
    let invalid = || PortError::Expose(text.to_owned());
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(invalid);
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(invalid());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_ranges() {
        assert_eq!(exposed("80").unwrap(), ["80/tcp"]);
        assert_eq!(exposed("80-81/UDP").unwrap(), ["80/udp", "81/udp"]);
        for wrong in ["", "x", "0", "70000", "81-80", "80/x", "80-"] {
            assert!(exposed(wrong).is_err(), "{wrong}");
        }
    }
}
