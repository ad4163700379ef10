//! Privileges of a container's processes: capabilities, groups, kernel parameters, a read-only root.

use crate::security::SecurityOptions;
use crate::settings::{NetworkMode, Settings};
use kiln_runtime::container::SupplementaryGroups;
use kiln_runtime::{capability, spec};
use oci_spec::runtime::{Process, Spec};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// Word for all capabilities.
const ALL: &str = "ALL";
/// Word for the supplementary groups of the caller, instead of others.
const KEEP_GROUPS: &str = "keep-groups";

/// Privileges beyond the defaults, or below them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Privileges {
    /// True for all capabilities, all devices, and no hidden paths.
    pub privileged: bool,
    /// Capabilities beyond the default ones, as written by the user; `ALL` for all.
    pub cap_add: Vec<String>,
    /// Capabilities that are left out, as written by the user; `ALL` for all.
    pub cap_drop: Vec<String>,
    /// Supplementary groups besides those of the user, by name or gid.
    pub group_add: Vec<String>,
    /// True when the root file system is read-only.
    pub read_only: bool,
    /// Kernel parameters by name.
    pub sysctls: BTreeMap<String, String>,
}

/// A privilege that does not exist or cannot be given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrivilegeError {
    /// A capability that Linux does not have.
    #[error("invalid {0}: unknown capability: {1:?}")]
    Capability(&'static str, String),
    /// Groups besides those of the caller.
    #[error("the --group-add keep-groups option is not allowed with any other --group-add options")]
    KeepGroups,
    /// A kernel parameter that no namespace of a container has.
    #[error("invalid argument {0:?} for \"--sysctl\" flag: sysctl '{0}' is not allowed")]
    Sysctl(String),
    /// A kernel parameter of a namespace that the container shares with the host.
    #[error("sysctl '{0}' is not allowed: the container shares that namespace of the host")]
    Shared(String),
}

impl Privileges {
    /// Checks the names of capabilities.
    ///
    /// # Errors
    /// [`PrivilegeError::Capability`] with the first unknown name.
    pub fn check(&self) -> Result<(), PrivilegeError> {
        if self.group_add.len() > 1 && self.supplementary() == SupplementaryGroups::Caller {
            return Err(PrivilegeError::KeepGroups);
        }
        for (flag, names) in [("CapAdd", &self.cap_add), ("CapDrop", &self.cap_drop)] {
            for name in names {
                if !is_all(name) && capability::bit(name).is_none() {
                    return Err(PrivilegeError::Capability(flag, normal(name)));
                }
            }
        }
        Ok(())
    }

    /// Capabilities of the container as a bit mask (moby `daemon/pkg/oci/caps`).
    pub fn capabilities(&self) -> u64 {
        let mask = |names: &[String]| {
            let bits = names.iter().filter_map(|name| capability::bit(name));
            bits.fold(0u64, |mask, bit| mask | 1 << bit)
        };
        let (adds, drops) = (mask(&self.cap_add), mask(&self.cap_drop));
        let default = capability::mask(capability::DEFAULT).unwrap_or_default();
        if self.privileged || self.cap_add.iter().any(|name| is_all(name)) {
            return capability::all() & !drops;
        }
        if self.cap_drop.iter().any(|name| is_all(name)) {
            return adds;
        }
        default & !drops | adds
    }

    /// Origin of the supplementary groups: `keep-groups` keeps the caller's.
    pub(crate) fn supplementary(&self) -> SupplementaryGroups {
        let keeps = self.group_add.iter().any(|name| name == KEEP_GROUPS);
        if keeps { SupplementaryGroups::Caller } else { SupplementaryGroups::Own }
    }

    /// Supplementary groups by name or gid.
    pub(crate) fn more_groups(&self) -> &[String] {
        if self.supplementary() == SupplementaryGroups::Caller { &[] } else { &self.group_add }
    }

    /// Sets the capabilities of a process.
    pub(crate) fn apply_to_process(&self, process: &mut Process) {
        process.set_capabilities(Some(spec::capabilities(self.capabilities())));
    }

    /// Adds the privileges to a specification; `security` decides which paths are hidden.
    pub(crate) fn apply(&self, security: &SecurityOptions, spec: &mut Spec) {
        if self.privileged {
            spec::make_insecure(spec);
        }
        self.apply_to_process(spec.process_mut().get_or_insert_default());
        if let Some(root) = spec.root_mut() {
            root.set_readonly(Some(self.read_only));
        }
        let Some(linux) = spec.linux_mut() else { return };
        if !self.sysctls.is_empty() {
            let sysctls: HashMap<String, String> = self.sysctls.clone().into_iter().collect();
            linux.set_sysctl(Some(sysctls));
        }
        let masked = security.masked(linux.masked_paths().clone().unwrap_or_default());
        let readonly = security.readonly(linux.readonly_paths().clone().unwrap_or_default());
        linux.set_masked_paths(Some(masked)).set_readonly_paths(Some(readonly));
    }
}

/// True outside of user namespaces, where gids are those of the host.
fn maps_all_groups() -> bool {
    std::fs::read_to_string("/proc/self/gid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}

impl Settings {
    /// Lets every user of a container with its own network listen on all ports and send pings, as in the reference
    /// engine: ports of the container are none of the host's.
    pub(crate) fn open_ports(&self, spec: &mut Spec) {
        if !self.network.has_networks() && self.network != NetworkMode::None {
            return;
        }
        let Some(linux) = spec.linux_mut() else { return };
        // The kernel refuses gids that a user namespace does not map.
        let all_groups = linux.gid_mappings().is_none() && maps_all_groups();
        let mut sysctls = linux.sysctl().clone().unwrap_or_default();
        let ping = all_groups.then_some(("net.ipv4.ping_group_range", "0 2147483647"));
        for (name, value) in [("net.ipv4.ip_unprivileged_port_start", "0")].into_iter().chain(ping) {
            sysctls.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
        linux.set_sysctl(Some(sysctls));
    }

    /// Paths that are hidden from the container, and those that are read-only.
    pub fn closed_paths(&self) -> (Vec<String>, Vec<String>) {
        if self.privileges.privileged {
            return (Vec::new(), Vec::new());
        }
        let default = spec::default(std::path::PathBuf::new());
        let linux = default.linux().clone().unwrap_or_default();
        let masked = linux.masked_paths().clone().unwrap_or_default();
        let readonly = linux.readonly_paths().clone().unwrap_or_default();
        (self.security.masked(masked), self.security.readonly(readonly))
    }
}

/// Name of a capability as Docker shows it: `CAP_CHOWN`, or `ALL`.
pub fn normal(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    if is_all(name) {
        return ALL.to_owned();
    }
    if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") }
}

fn is_all(name: &str) -> bool {
    name.eq_ignore_ascii_case(ALL) || name.eq_ignore_ascii_case("CAP_ALL")
}

/// Reads `NAME=VALUE` of a kernel parameter that exists once in each IPC or network namespace.
///
/// # Errors
/// [`PrivilegeError::Sysctl`] for all others.
pub fn sysctl(text: &str) -> Result<(String, String), PrivilegeError> {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let refused = || PrivilegeError::Sysctl(text.to_owned());
    let (name, value) = text.split_once('=').ok_or_else(refused)?;
    let dotted = name.trim().replace('/', ".");
    let is_own =
        IPC.contains(&dotted.as_str()) || dotted.starts_with("net.") || dotted.starts_with("fs.mqueue.");
    if !is_own || dotted.contains("..") {
        return Err(refused());
    }
    Ok((dotted, value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(adds: &[&str], drops: &[&str], privileged: bool) -> Vec<&'static str> {
        let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let privileges =
            Privileges { privileged, cap_add: texts(adds), cap_drop: texts(drops), ..Privileges::default() };
        privileges.check().unwrap();
        capability::names(privileges.capabilities())
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        let default = names(&[], &[], false);
        assert_eq!(default.len(), 14);
        assert_eq!(names(&["net_admin"], &["CAP_CHOWN"], false).len(), 14);
        assert!(names(&["NET_ADMIN"], &[], false).contains(&"NET_ADMIN"));
        assert_eq!(names(&["chown"], &["all"], false), ["CHOWN"]);
        assert_eq!(names(&["ALL"], &["SYS_ADMIN"], false).len(), capability::all_names().len() - 1);
        assert_eq!(names(&[], &["KILL"], true).len(), capability::all_names().len() - 1);
        let wrong = Privileges { cap_add: vec!["foo".into()], ..Privileges::default() };
        assert_eq!(wrong.check().unwrap_err().to_string(), "invalid CapAdd: unknown capability: \"CAP_FOO\"");
    }

    #[test]
    fn kernel_parameters_of_the_host_are_refused() {
        assert_eq!(sysctl("net/ipv4/ip_forward=1"), Ok(("net.ipv4.ip_forward".into(), "1".into())));
        for wrong in ["kernel.hostname=x", "vm.swappiness=1", "net.ipv4.x", "net..x=1", "kernel.msgx=1"] {
            assert!(sysctl(wrong).is_err(), "{wrong}");
        }
    }
}
