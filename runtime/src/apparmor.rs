//! The AppArmor profile of containers (apparmor.d(5)).
//!
//! Containers run under [`DEFAULT`] where the kernel enforces AppArmor. The profile is loaded by `apparmor_parser` when the
//! first container after a boot needs it. It denies what the reference engine's default profile denies: mounts, writes to
//! /proc and /sys outside of the process's own part, and signals to and from processes outside of containers.

use crate::host::{Host, SecurityModule};
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// Name of the profile of containers for which none is requested.
pub const DEFAULT: &str = "kiln-default";

/// Name of the profile that confines nothing.
pub const UNCONFINED: &str = "unconfined";

/// Profiles that the kernel has loaded: a line `NAME (MODE)` for each. Readable by root only.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

const PARSER: &str = "apparmor_parser";

/// Profile in the format of apparmor_parser(8).
///
/// A denial of all paths with exceptions is a chain of prefixes: each rule denies the names that differ from the
/// allowed one at a further letter. Links are resolved before a rule is applied: /proc/self is a number.
const PROFILE: &str = "\
profile kiln-default flags=(attach_disconnected,mediate_deleted) {
  # Left to the image's permissions, to namespaces and to capabilities.
  file,
  network,
  unix,
  capability,
  umount,

  signal (receive) peer=unconfined,
  signal (receive) peer=crun,
  signal (receive) peer=runc,
  signal (send, receive) peer=kiln-default,
  ptrace (trace, read, tracedby, readby) peer=kiln-default,

  deny mount,

  # In /proc only directories of processes, and sys/kernel/shm*, can be written to.
  deny /proc/* w,
  deny /proc/[^0-9s]*/** w,
  deny /proc/s[^y]*/** w,
  deny /proc/sy[^s]*/** w,
  deny /proc/sys[^/]*/** w,
  deny /proc/sys/[^k]** w,
  deny /proc/sys/k[^e]** w,
  deny /proc/sys/ke[^r]** w,
  deny /proc/sys/kernel/[^s]** w,
  deny /proc/sys/kernel/s[^h]** w,
  deny /proc/sys/kernel/sh[^m]** w,
  deny /proc/kcore rwklx,
  deny /proc/sysrq-trigger rwklx,

  # In /sys only cgroups can be written to.
  deny /sys/[^f]** wklx,
  deny /sys/f[^s]** wklx,
  deny /sys/fs/[^c]** wklx,
  deny /sys/fs/c[^g]** wklx,
  deny /sys/fs/cg[^r]** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,
}
";

/// Failure to confine a container by AppArmor.
#[derive(Debug, thiserror::Error)]
pub enum AppArmorError {
    /// A profile was requested on a kernel that enforces none.
    #[error("cannot use the AppArmor profile `{0}`: AppArmor is not enabled on this host")]
    Disabled(String),
    /// The requested profile is not loaded.
    #[error(
        "cannot use the AppArmor profile `{0}`: it is not loaded (load it with `apparmor_parser -r FILE`, or use `apparmor=unconfined`)"
    )]
    NotLoaded(String),
    /// The parser refused the default profile.
    #[error("cannot load the AppArmor profile `{DEFAULT}`: {PARSER}: {0}")]
    Refused(String),
    /// The parser could not be run.
    #[error("cannot load the AppArmor profile `{DEFAULT}`: cannot run {PARSER}")]
    Parser(#[source] io::Error),
}

/// Profile of a container: the requested one, or the default, which is loaded if necessary.
///
/// `None` when the container is not confined: because that was requested, AppArmor is not enabled, or the host lacks
/// `apparmor_parser` to load a profile, as for the reference engine. `state` is a directory that is emptied at boot.
///
/// # Errors
/// Fails when a requested profile does not exist, or the default cannot be loaded.
pub fn profile(asked: Option<&str>, state: &Path) -> Result<Option<String>, AppArmorError> {
    let is_active = Host::get().is_active(SecurityModule::AppArmor);
    match asked {
        Some(UNCONFINED) => Ok(None),
        Some(name) if !is_active => Err(AppArmorError::Disabled(name.to_owned())),
        Some(name) if name != DEFAULT => match fs::read_to_string(LOADED) {
            Ok(loaded) if !is_loaded(&loaded, name) => Err(AppArmorError::NotLoaded(name.to_owned())),
            _ => Ok(Some(name.to_owned())),
        },
        None if !is_active => Ok(None),
        None => default_profile(state),
        Some(name) => match default_profile(state)? {
            Some(profile) => Ok(Some(profile)),
            None => Err(AppArmorError::NotLoaded(name.to_owned())),
        },
    }
}

fn default_profile(state: &Path) -> Result<Option<String>, AppArmorError> {
    // In a container these are another namespace's, or cannot be read.
    let Ok(loaded) = fs::read_to_string(LOADED) else { return Ok(None) };
    // Contains the profile that was loaded last: one of an earlier version is replaced, one of the host is not.
    let stamp = state.join("apparmor-profile");
    let present = is_loaded(&loaded, DEFAULT);
    if present && fs::read_to_string(&stamp).map_or(true, |text| text == PROFILE) {
        return Ok(Some(DEFAULT.to_owned()));
    }
    match load() {
        Err(AppArmorError::Parser(error)) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(present.then(|| DEFAULT.to_owned()));
        }
        other => other?,
    }
    // Without the stamp the profile is loaded again the next time.
    let _ = fs::create_dir_all(state).and_then(|()| fs::write(&stamp, PROFILE));
    Ok(Some(DEFAULT.to_owned()))
}

fn is_loaded(profiles: &str, name: &str) -> bool {
    profiles.lines().any(|line| line.rsplit_once(" (").is_some_and(|(known, _)| known == name))
}

/// Loads the default profile, in place of one with that name.
fn load() -> Result<(), AppArmorError> {
    let mut parser = Command::new(PARSER)
        .args(["--replace", "--skip-cache", "--quiet"])
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin:/usr/local/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(AppArmorError::Parser)?;
    if let Some(mut input) = parser.stdin.take() {
        // A parser that ends early reports the reason itself.
        let _ = input.write_all(PROFILE.as_bytes());
    }
    let output = parser.wait_with_output().map_err(AppArmorError::Parser)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(AppArmorError::Refused(said.trim().replace('\n', "; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_found_by_their_whole_name() {
        let profiles = "/usr/sbin/tcpdump (enforce)\nkiln-default (enforce)\nwith blank (complain)\n";
        assert!(is_loaded(profiles, "kiln-default") && is_loaded(profiles, "with blank"));
        assert!(!is_loaded(profiles, "kiln") && !is_loaded(profiles, "kiln-default (enforce)"));
    }

    #[test]
    fn the_profile_has_the_default_name() {
        assert!(PROFILE.starts_with(&format!("profile {DEFAULT} ")));
    }

    #[test]
    fn nothing_is_confined_where_the_kernel_does_not_enforce() {
        if Host::get().is_active(SecurityModule::AppArmor) {
            return;
        }
        let state = tempfile::tempdir().unwrap();
        assert_eq!(profile(None, state.path()).unwrap(), None);
        assert_eq!(profile(Some(UNCONFINED), state.path()).unwrap(), None);
        assert!(matches!(profile(Some("mine"), state.path()), Err(AppArmorError::Disabled(_))));
    }
}
