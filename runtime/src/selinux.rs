//! SELinux labels of containers (selinux(8)).
//!
//! The host's policy says which labels containers have (`lxc_contexts` of the policy's contexts, as for the reference engine
//! and podman). To the level of both, processes and files, come two categories that no other container is likely to have:
//! containers of one type cannot reach each other's files.

use crate::host::SecurityModule;
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use std::ffi::CStr;
use std::fs;
use std::path::{Path, PathBuf};

/// The labels of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// Of its processes.
    pub process: String,
    /// Of its files.
    pub files: String,
}

/// Parts of the labels that replace those of the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the four parts of a label, the type twice; see selinux(8)")]
pub struct Parts<'a> {
    pub user: Option<&'a str>,
    pub role: Option<&'a str>,
    pub process_type: Option<&'a str>,
    pub file_type: Option<&'a str>,
    pub level: Option<&'a str>,
}

/// Categories that a policy has at most (`c0` to `c1023`).
const CATEGORIES: u32 = 1024;

/// Labels for a new container.
///
/// `None` where the kernel does not enforce SELinux, and where the policy names no labels for containers.
pub fn labels(parts: &Parts<'_>) -> Option<Labels> {
    if !SecurityModule::SELinux.is_active() {
        return None;
    }
    let contexts = fs::read_to_string(contexts_path()?).ok()?;
    let mut random = [0u8; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).ok()?;
    choose(&contexts, parts, u64::from_ne_bytes(random))
}

/// Labels directories so that containers can use what is made in them from now on: new files have the label of the directory
/// that they are made in. Does nothing where the kernel does not enforce SELinux.
///
/// # Errors
/// The directory that could not be labelled, and why.
pub fn share<'a>(directories: impl IntoIterator<Item = &'a Path>) -> Result<(), (&'a Path, Errno)> {
    const LABEL: &CStr = c"security.selinux";
    let shared = Parts { level: Some("s0"), ..Parts::default() };
    let Some(labels) = labels(&shared) else { return Ok(()) };
    for path in directories {
        let mut present = [0u8; 256];
        let length = rustix::fs::lgetxattr(path, LABEL, &mut present).unwrap_or(0);
        if present[..length].strip_suffix(b"\0").unwrap_or(&present[..length]) == labels.files.as_bytes() {
            continue;
        }
        match rustix::fs::lsetxattr(path, LABEL, labels.files.as_bytes(), XattrFlags::empty()) {
            // Not there, or on a file system that keeps no labels.
            Ok(()) | Err(Errno::NOENT | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err((path, errno)),
        }
    }
    Ok(())
}

/// The file of the active policy that names the labels of containers.
fn contexts_path() -> Option<PathBuf> {
    let config = fs::read_to_string("/etc/selinux/config").ok()?;
    let policy = config.lines().find_map(|line| line.trim().strip_prefix("SELINUXTYPE="))?;
    Some(PathBuf::from("/etc/selinux").join(policy.trim()).join("contexts/lxc_contexts"))
}

fn choose(contexts: &str, parts: &Parts<'_>, random: u64) -> Option<Labels> {
    let value = |wanted: &str| {
        contexts.lines().find_map(|line| {
            let (name, value) = line.split_once('=')?;
            (name.trim() == wanted).then(|| value.trim().trim_matches('"').to_owned())
        })
    };
    let level = parts.level.map_or_else(|| categories(random), str::to_owned);
    let label = |context: &str, kind: Option<&str>| {
        let mut fields = context.splitn(4, ':');
        let user = parts.user.or(fields.next())?;
        let mut next = |own: Option<&str>| {
            let given = fields.next();
            own.or(given).map(str::to_owned)
        };
        Some(format!("{user}:{}:{}:{level}", next(None)?, next(kind)?))
    };
    let process = value("process")?;
    let files = value("file")?;
    let mut process = label(&process, parts.process_type)?;
    if let Some(role) = parts.role {
        let mut fields: Vec<&str> = process.splitn(4, ':').collect();
        *fields.get_mut(1)? = role;
        process = fields.join(":");
    }
    Some(Labels { process, files: label(&files, parts.file_type)? })
}

/// A level with two categories, the lower one first.
fn categories(random: u64) -> String {
    let first = (random % u64::from(CATEGORIES)) as u32;
    let distance = 1 + (random >> 32) as u32 % (CATEGORIES - 1);
    let second = (first + distance) % CATEGORIES;
    format!("s0:c{},c{}", first.min(second), first.max(second))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXTS: &str = "\
process = \"system_u:system_r:container_t:s0\"
content = \"system_u:object_r:virt_var_lib_t:s0\"
file = \"system_u:object_r:container_file_t:s0\"
";

    #[test]
    fn labels_are_those_of_the_policy_with_categories() {
        let labels = choose(CONTEXTS, &Parts::default(), 7 | 5 << 32).unwrap();
        assert_eq!(labels.process, "system_u:system_r:container_t:s0:c7,c13");
        assert_eq!(labels.files, "system_u:object_r:container_file_t:s0:c7,c13");
    }

    #[test]
    fn parts_are_replaced() {
        let parts = Parts {
            process_type: Some("spc_t"),
            role: Some("other_r"),
            level: Some("s0:c1,c2"),
            ..Parts::default()
        };
        let labels = choose(CONTEXTS, &parts, 0).unwrap();
        assert_eq!(labels.process, "system_u:other_r:spc_t:s0:c1,c2");
        assert_eq!(labels.files, "system_u:object_r:container_file_t:s0:c1,c2");
    }

    #[test]
    fn categories_are_two_different_ones_in_order() {
        for random in (0..100_000u64).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let text = categories(random);
            let (first, second) = text.strip_prefix("s0:c").unwrap().split_once(",c").unwrap();
            let (first, second): (u32, u32) = (first.parse().unwrap(), second.parse().unwrap());
            assert!(first < second && second < CATEGORIES, "{text}");
        }
    }

    #[test]
    fn a_policy_without_containers_has_no_labels() {
        assert_eq!(choose("process = \"system_u:system_r:x\"", &Parts::default(), 0), None);
    }
}
