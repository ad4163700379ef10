//! `--security-opt`: what confines a container besides the default.

use serde::{Deserialize, Serialize};

/// What is asked for; nothing for the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityOptions {
    /// As they were given, in order.
    pub given: Vec<String>,
    /// AppArmor profile, or `unconfined`; `None` for the default one.
    pub apparmor: Option<String>,
    /// SELinux label.
    pub label: LabelOptions,
    /// No program of the container may gain privileges that it does not have.
    pub no_new_privileges: bool,
    /// No system calls are filtered.
    pub no_seccomp: bool,
}

/// Parts of an SELinux label that differ from the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelOptions {
    /// The container has no label of its own.
    pub disabled: bool,
    /// Replaces the user, such as `system_u`.
    pub user: Option<String>,
    /// Replaces the role, such as `system_r`.
    pub role: Option<String>,
    /// Replaces the type of processes, such as `container_t`.
    pub kind: Option<String>,
    /// Replaces the level of processes and files, such as `s0:c1,c2`.
    pub level: Option<String>,
    /// Replaces the type of files, such as `container_file_t`.
    pub file_kind: Option<String>,
}

/// An option that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecurityOptionError {
    /// A word that is no option.
    #[error("invalid --security-opt: {0:?}")]
    Unknown(String),
    /// A label option without one of the known names.
    #[error(
        "invalid --security-opt: bad label option {0:?}: expected `disable`, or one of user, role, type, level and filetype with a value"
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
                ("label", Some(label)) => options.label.read(option, label)?,
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

impl LabelOptions {
    fn read(&mut self, option: &str, label: &str) -> Result<(), SecurityOptionError> {
        if label == "disable" {
            self.disabled = true;
            return Ok(());
        }
        let wrong = || SecurityOptionError::Label(option.to_owned());
        let (name, value) = label.split_once(':').filter(|(_, value)| !value.is_empty()).ok_or_else(wrong)?;
        let part = match name {
            "user" => &mut self.user,
            "role" => &mut self.role,
            "type" => &mut self.kind,
            "level" => &mut self.level,
            "filetype" => &mut self.file_kind,
            _ => return Err(wrong()),
        };
        *part = Some(value.to_owned());
        Ok(())
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
        let label = parse(&["label=type:spc_t", "label:level:s0:c1,c2"]).unwrap().label;
        assert_eq!((label.kind.as_deref(), label.level.as_deref()), (Some("spc_t"), Some("s0:c1,c2")));
        assert!(parse(&["label=disable"]).unwrap().label.disabled);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for option in ["apparmor", "apparmor=", "systempaths=unconfined", "x", "label=", "label=color:red"] {
            assert!(parse(&[option]).is_err(), "{option}");
        }
        assert!(matches!(parse(&["seccomp=/profile.json"]), Err(SecurityOptionError::Seccomp(_))));
        assert!(matches!(parse(&["no-new-privileges=maybe"]), Err(SecurityOptionError::Switch(_))));
    }
}
