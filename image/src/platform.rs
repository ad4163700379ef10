//! Platforms of hosts and images.
//!
//! Spelling and normal form follow containerd/platforms; matching follows Docker's choice when pulling.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Operating system, processor architecture and variant, in normal form.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// Go's name of the processor architecture, such as `amd64`.
    pub architecture: String,
    /// Go's name of the operating system.
    pub os: String,
    /// Version of the operating system; only Windows uses it.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Processor variant, such as `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A text that is not a platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\": unknown operating system or architecture: invalid argument")]
pub struct PlatformError(pub String);

impl Platform {
    /// Platform of this host.
    pub fn host() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            other => other,
        };
        Platform::new("linux", architecture, None)
    }

    /// Platform in normal form.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
        let (architecture, variant) = normalize(&architecture.to_lowercase(), variant.unwrap_or(""));
        Platform { architecture, os: os.to_lowercase(), os_version: None, variant }
    }

    /// Distance between an image's platform `self` and a platform `wanted`: 0 is exact, larger is worse, `None` cannot
    /// run. Programs for the 32-bit mode of a processor run, too, and are the last choice.
    pub fn distance(&self, wanted: &Platform) -> Option<u32> {
        /// Larger than the distance between any two variants.
        const OTHER_MODE: u32 = 100;
        let image = Platform::new(&self.os, &self.architecture, self.variant.as_deref());
        if image.os != wanted.os {
            return None;
        }
        let level = |platform: &Platform| variant_level(&platform.architecture, platform.variant.as_deref());
        match (image.architecture.as_str(), wanted.architecture.as_str()) {
            (own, other) if own == other => level(wanted).checked_sub(level(&image)),
            ("386", "amd64") => Some(OTHER_MODE),
            ("arm", "arm64") => level(wanted).checked_sub(level(&image)).map(|far| OTHER_MODE + far),
            _ => None,
        }
    }
}

fn normalize(architecture: &str, variant: &str) -> (String, Option<String>) {
    let (architecture, variant) = match (architecture, variant) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        same => same,
    };
    (architecture.to_owned(), (!variant.is_empty()).then(|| variant.to_owned()))
}

/// Variants of one processor in rising order.
fn variant_level(architecture: &str, variant: Option<&str>) -> u32 {
    let number = variant.and_then(|variant| variant.strip_prefix('v')?.parse().ok());
    match architecture {
        "amd64" => number.unwrap_or(1),
        "arm64" => number.unwrap_or(8),
        "arm" => number.unwrap_or(7),
        _ => number.unwrap_or(0),
    }
}

const SYSTEMS: [&str; 8] = ["linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "wasi"];
const ARCHITECTURES: [&str; 14] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le",
    "riscv64", "s390x", "wasm",
];

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Platform, PlatformError> {
        let fail = || PlatformError(text.to_owned());
        let mut parts: Vec<&str> = text.split('/').collect();
        // The form `windows(10.0.17763.1)/amd64`.
        let os_version = match parts[0].split_once('(') {
            Some((os, rest)) => {
                parts[0] = os;
                Some(rest.strip_suffix(')').ok_or_else(fail)?)
            }
            None => None,
        };
        let valid = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        if !parts.iter().chain(&os_version).all(valid) {
            return Err(fail());
        }
        let known_architecture =
            |platform: &Platform| ARCHITECTURES.contains(&platform.architecture.as_str());
        let platform = match parts.as_slice() {
            [one] if SYSTEMS.contains(&one.to_lowercase().as_str()) => {
                let host = Platform::host();
                Ok(Platform::new(one, &host.architecture, host.variant.as_deref()))
            }
            [one] => Some(Platform::new("linux", one, None)).filter(known_architecture).ok_or_else(fail),
            [os, architecture] => Ok(Platform::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Platform::new(os, architecture, Some(variant))),
            _ => Err(fail()),
        };
        Ok(Platform { os_version: os_version.map(str::to_owned), ..platform? })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.os_version {
            Some(version) => write!(f, "{}({version})/{}", self.os, self.architecture)?,
            None => write!(f, "{}/{}", self.os, self.architecture)?,
        }
        match &self.variant {
            Some(variant) if !(self.architecture == "arm64" && variant == "v8") => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_have_one_normal_form() {
        for (text, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("x86_64", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("armhf", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("windows/amd64", "windows/amd64"),
            ("windows(10.0.17763.1)/amd64", "windows(10.0.17763.1)/amd64"),
        ] {
            assert_eq!(text.parse::<Platform>().map(|p| p.to_string()).as_deref(), Ok(expected), "{text}");
        }
        for text in
            ["", "nonsense", "linux/", "a/b/c/d", "linux/am d64", "windows()/amd64", "windows(1/amd64"]
        {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn lower_variants_run_on_higher_ones() {
        let distance = |image: &str, wanted: &str| {
            let parse = |text: &str| text.parse::<Platform>().unwrap();
            parse(image).distance(&parse(wanted))
        };
        assert_eq!(distance("linux/amd64", "linux/amd64"), Some(0));
        assert_eq!(distance("linux/arm/v5", "linux/arm/v7"), Some(2));
        assert_eq!(distance("linux/arm/v7", "linux/arm/v6"), None);
        assert_eq!(distance("linux/arm64", "linux/amd64"), None);
        assert_eq!(distance("linux/amd64", "linux/amd64/v3"), Some(2));
        // The 32-bit mode is the last choice, and does not run 64-bit programs.
        assert_eq!(distance("linux/386", "linux/amd64"), Some(100));
        assert_eq!(distance("linux/amd64", "linux/386"), None);
        assert_eq!(distance("linux/arm/v6", "linux/arm64"), Some(102));
        assert_eq!(distance("linux/arm64", "linux/arm/v7"), None);
    }
}
