//! `--security-opt`: confinement of a container beyond the defaults.

use kiln_runtime::host::{Host, OLDEST};
use kiln_runtime::seccomp::{SeccompError, docker_profile};
use oci_spec::runtime::LinuxSeccomp;
use serde::{Deserialize, Serialize};

/// Requested confinement; empty for the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityOptions {
    /// Options as written by the user, in order.
    pub given: Vec<String>,
    /// AppArmor profile, or `unconfined`; `None` for the default profile.
    pub apparmor: Option<String>,
    /// True when programs of the container cannot gain privileges, as by setuid.
    pub no_new_privileges: bool,
    /// True when system calls are not filtered.
    pub no_seccomp: bool,
    /// Filter of system calls, as JSON in Docker's format; `None` for the default one, or for none.
    #[serde(default)]
    pub seccomp: Option<String>,
    /// True when no path is hidden or read-only.
    #[serde(default)]
    pub open_paths: bool,
    /// Paths that are hidden besides the default ones.
    #[serde(default)]
    pub mask: Vec<String>,
    /// Paths that are neither hidden nor read-only.
    #[serde(default)]
    pub unmask: Vec<String>,
}

/// Option that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecurityOptionError {
    /// Option with an unknown name.
    #[error("invalid --security-opt: {0:?}")]
    Unknown(String),
    /// SELinux labels are not supported.
    #[error(
        "the --security-opt {0:?} is not supported: containers have no SELinux labels, label takes `disable`"
    )]
    Label(String),
    /// Switch whose value is not a boolean.
    #[error("invalid --security-opt: {0:?}: expected true or false")]
    Switch(String),
    /// Path that is not absolute.
    #[error("invalid --security-opt: {0:?}: expected absolute paths, separated by colons")]
    Path(String),
    /// Profile that cannot be read.
    #[error("opening seccomp profile ({path}) failed")]
    Open {
        /// Path of the profile.
        path: String,
        /// Error of the call.
        #[source]
        source: std::io::Error,
    },
    /// Profile that is invalid.
    #[error("decoding seccomp profile failed: {0}")]
    Profile(SeccompError),
    /// Profile that reports calls to another process.
    #[error("the seccomp profile reports calls to another process (listenerPath), which is not supported")]
    Listener,
}

impl SecurityOptions {
    /// Parses options as on Docker's command line: `NAME=VALUE`, or the older `NAME:VALUE`. `read` returns the text of a
    /// file.
    ///
    /// # Errors
    /// Fails for options that are unknown, and for those that Kiln does not support.
    pub fn parse(
        given: &[String],
        read: impl Fn(&str) -> std::io::Result<String>,
    ) -> Result<SecurityOptions, SecurityOptionError> {
        let mut options = SecurityOptions { given: given.to_vec(), ..SecurityOptions::default() };
        for option in given {
            let (name, value) = match option.split_once('=').or_else(|| option.split_once(':')) {
                Some((name, value)) => (name, Some(value)),
                None => (option.as_str(), None),
            };
            match (name, value) {
                ("apparmor", Some(profile)) if !profile.is_empty() => {
                    options.apparmor = Some(profile.to_owned());
                }
                // Containers have no SELinux labels anyway.
                ("label", Some("disable")) => {}
                ("label", Some(_)) => return Err(SecurityOptionError::Label(option.clone())),
                ("no-new-privileges", value) => {
                    options.no_new_privileges = match value.unwrap_or("true") {
                        "true" | "1" => true,
                        "false" | "0" => false,
                        _ => return Err(SecurityOptionError::Switch(option.clone())),
                    };
                }
                ("seccomp", Some(profile)) if !profile.is_empty() => options.read_seccomp(profile, &read)?,
                ("systempaths", Some("unconfined")) => options.open_paths = true,
                ("mask", Some(list)) => options.mask.extend(paths(option, list)?),
                ("unmask", Some(all)) if all.eq_ignore_ascii_case("all") => options.open_paths = true,
                ("unmask", Some(list)) => options.unmask.extend(paths(option, list)?),
                _ => return Err(SecurityOptionError::Unknown(option.clone())),
            }
        }
        Ok(options)
    }

    fn read_seccomp(
        &mut self,
        profile: &str,
        read: impl Fn(&str) -> std::io::Result<String>,
    ) -> Result<(), SecurityOptionError> {
        (self.no_seccomp, self.seccomp) = match profile {
            "unconfined" => (true, None),
            "builtin" | "default" => (false, None),
            path => {
                let failed = |source| SecurityOptionError::Open { path: path.to_owned(), source };
                (false, Some(read(path).map_err(failed)?))
            }
        };
        let listens = self.profile(0)?.is_some_and(|profile| profile.listener_path().is_some());
        if listens { Err(SecurityOptionError::Listener) } else { Ok(()) }
    }

    /// The user's filter for a container with these capabilities (bit mask); `None` without one.
    ///
    /// # Errors
    /// [`SecurityOptionError::Profile`] for an invalid one.
    pub(crate) fn profile(&self, capabilities: u64) -> Result<Option<LinuxSeccomp>, SecurityOptionError> {
        let version = Host::get().version().unwrap_or(OLDEST);
        let read = |json: &String| docker_profile(json, capabilities, (version.0, version.1));
        self.seccomp.as_ref().map(read).transpose().map_err(SecurityOptionError::Profile)
    }

    /// Hidden paths, made of the default ones.
    pub(crate) fn masked(&self, default: Vec<String>) -> Vec<String> {
        let mut paths = self.without_unmasked(default);
        paths.extend(self.mask.iter().cloned());
        paths
    }

    /// Read-only paths, made of the default ones.
    pub(crate) fn readonly(&self, default: Vec<String>) -> Vec<String> {
        self.without_unmasked(default)
    }

    fn without_unmasked(&self, mut paths: Vec<String>) -> Vec<String> {
        // `/proc/*` stands for all paths in a directory.
        let matches = |unmask: &str, path: &str| match unmask.strip_suffix("/*") {
            Some(dir) => path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/')),
            None => path == unmask,
        };
        paths.retain(|path| !self.open_paths && !self.unmask.iter().any(|unmask| matches(unmask, path)));
        paths
    }
}

fn paths(option: &str, list: &str) -> Result<Vec<String>, SecurityOptionError> {
    let paths: Vec<String> = list.split(':').map(str::to_owned).collect();
    if paths.iter().all(|path| path.starts_with('/')) {
        return Ok(paths);
    }
    Err(SecurityOptionError::Path(option.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Result<SecurityOptions, SecurityOptionError> {
        let read = |path: &str| match path {
            "/good.json" => Ok(r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#.to_owned()),
            "/bad.json" => Ok("{".to_owned()),
            "/asks.json" => Ok(r#"{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}"#.to_owned()),
            _ => Err(std::io::Error::from(std::io::ErrorKind::NotFound)),
        };
        SecurityOptions::parse(&options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>(), read)
    }

    #[test]
    fn options_are_read_in_both_forms() {
        let options = parse(&["apparmor=mine", "no-new-privileges", "seccomp:unconfined"]).unwrap();
        assert_eq!(options.apparmor.as_deref(), Some("mine"));
        assert!(options.no_new_privileges && options.no_seccomp);
        assert!(!parse(&["no-new-privileges", "no-new-privileges:false"]).unwrap().no_new_privileges);
        assert_eq!(parse(&["label=disable"]).unwrap().given, ["label=disable"]);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for option in [
            "apparmor",
            "apparmor=",
            "systempaths=x",
            "x",
            "label=",
            "label=type:spc_t",
            "seccomp=",
            "mask=a",
            "unmask=/a:b",
        ] {
            assert!(parse(&[option]).is_err(), "{option}");
        }
        assert!(matches!(parse(&["no-new-privileges=maybe"]), Err(SecurityOptionError::Switch(_))));
    }

    #[test]
    fn filters_are_read_from_files() {
        let options = parse(&["seccomp=unconfined", "seccomp=/good.json"]).unwrap();
        assert!(!options.no_seccomp && options.profile(0).unwrap().is_some());
        assert!(matches!(parse(&["seccomp=/none.json"]), Err(SecurityOptionError::Open { .. })));
        assert!(matches!(parse(&["seccomp=/bad.json"]), Err(SecurityOptionError::Profile(_))));
        assert!(matches!(parse(&["seccomp=/asks.json"]), Err(SecurityOptionError::Listener)));
        assert!(parse(&["seccomp=/good.json", "seccomp=builtin"]).unwrap().seccomp.is_none());
    }

    #[test]
    fn paths_are_hidden_and_shown() {
        let default = || ["/proc/kcore", "/proc/keys", "/sys/firmware"].map(str::to_owned).to_vec();
        let masked = |options: &[&str]| parse(options).unwrap().masked(default()).join(" ");
        assert_eq!(masked(&["mask=/a:/b"]), "/proc/kcore /proc/keys /sys/firmware /a /b");
        assert_eq!(masked(&["unmask=/proc/keys"]), "/proc/kcore /sys/firmware");
        assert_eq!(masked(&["unmask=/proc/*", "mask=/a"]), "/sys/firmware /a");
        assert_eq!(masked(&["unmask=ALL"]), "");
        assert_eq!(masked(&["systempaths=unconfined"]), "");
    }
}
