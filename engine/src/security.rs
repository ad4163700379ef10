//! `--security-opt`: confinement of a container beyond the defaults.

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
}

/// Option that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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
    /// Seccomp filters from files are not supported.
    #[error("the --security-opt {0:?} is not supported: seccomp takes `unconfined` or `builtin`")]
    Seccomp(String),
}

impl SecurityOptions {
    /// Parses options as on Docker's command line: `NAME=VALUE`, or the older `NAME:VALUE`.
    ///
    /// # Errors
    /// Fails for options that are unknown, and for those that Kiln does not support.
    pub fn parse(given: &[String]) -> Result<SecurityOptions, SecurityOptionError> {
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
                ("seccomp", Some("unconfined")) => options.no_seccomp = true,
                ("seccomp", Some("builtin" | "default")) => options.no_seccomp = false,
                ("seccomp", Some(_)) => return Err(SecurityOptionError::Seccomp(option.clone())),
                _ => return Err(SecurityOptionError::Unknown(option.clone())),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Result<SecurityOptions, SecurityOptionError> {
        SecurityOptions::parse(&options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
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
        for option in ["apparmor", "apparmor=", "systempaths=unconfined", "x", "label=", "label=type:spc_t"] {
            assert!(parse(&[option]).is_err(), "{option}");
        }
        assert!(matches!(parse(&["seccomp=/profile.json"]), Err(SecurityOptionError::Seccomp(_))));
        assert!(matches!(parse(&["no-new-privileges=maybe"]), Err(SecurityOptionError::Switch(_))));
    }
}
