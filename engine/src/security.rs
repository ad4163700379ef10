//! `--security-opt`: what confines a container besides the default.

use serde::{Deserialize, Serialize};

/// What is asked for; nothing for the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityOptions {
    /// As they were given, in order.
    pub given: Vec<String>,
    /// AppArmor profile, or `unconfined`; `None` for the default one.
    pub apparmor: Option<String>,
    /// No program of the container may gain privileges that it does not have.
    pub no_new_privileges: bool,
    /// No system calls are filtered.
    pub no_seccomp: bool,
}

/// An option that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecurityOptionError {
    /// A word that is no option.
    #[error("invalid --security-opt: {0:?}")]
    Unknown(String),
    /// SELinux labels.
    #[error(
        "the --security-opt {0:?} is not supported: containers have no SELinux labels, label takes `disable`"
    )]
    Label(String),
    /// A switch with a value that is no truth value.
    #[error("invalid --security-opt: {0:?}: expected true or false")]
    Switch(String),
    /// Filters from files.
    #[error("the --security-opt {0:?} is not supported: seccomp takes `unconfined` or `builtin`")]
    Seccomp(String),
}

impl SecurityOptions {
    /// Reads options as on Docker's command line: `NAME=VALUE`, or the older `NAME:VALUE`.
    ///
    /// # Errors
    /// For options that are unknown, and for those that Kiln does not have.
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
                // As it is anyway.
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
