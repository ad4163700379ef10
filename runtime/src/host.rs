//! Features of the host's kernel, detected once per process.
//!
//! Every interface that is younger than the oldest supported kernel ([`OLDEST`]) has a row in [`FEATURES`]: the first
//! version of the kernel with it, and what Kiln does without it. No feature is detected by a trial: before Linux 6.5
//! overlayfs accepts unknown options and refuses them, with a line in the kernel's log, only when it is mounted. The
//! version of the running kernel decides. A kernel with a feature that a distribution backported is treated as if it
//! lacked it, which is slower and never wrong. A system call filter can disable a feature of a kernel that has it: that
//! is remembered after the first refusal ([`Host::record_missing`]).
//!
//! The environment variable [`WITHOUT`] disables features, so that the alternatives are tested on kernels that have
//! them.

use crate::cgroup::Layout;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use tracing::debug;

/// Oldest kernel that Kiln supports: that of Debian 11.
pub const OLDEST: Version = Version(5, 10);

/// Environment variable with the names of features, separated by commas, that are treated as missing; `all` for all.
pub const WITHOUT: &str = "KILN_WITHOUT";

/// A kernel's major and minor version number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

/// An interface that some of the supported kernels lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// `mount_setattr(2)`: attributes of detached mounts.
    MountSetattr,
    /// `MOUNT_ATTR_IDMAP`: mounts that show files with other owners.
    IdmappedMounts,
    /// The file `cgroup.kill` of version 2 cgroups.
    CgroupKill,
    /// Overlay mounts take their lower directories one by one, as `lowerdir+`.
    LowerAppend,
    /// A program that is executed by a file descriptor is named after its file.
    NamedExec,
    /// `open_tree(2)` copies parts of detached mounts.
    DetachedCopies,
    /// `PIDFD_INFO_EXIT`: a pidfd keeps the exit status of a process that another process has reaped.
    PidfdExit,
}

/// Version and alternative of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Feature of this row.
    pub feature: Feature,
    /// Its name in [`WITHOUT`] and in messages.
    pub name: &'static str,
    /// First kernel version with the feature.
    pub since: Version,
    /// Alternative that Kiln uses on older kernels.
    pub without: &'static str,
}

/// All features, the oldest first.
pub const FEATURES: [Row; 7] = [
    Row {
        feature: Feature::MountSetattr,
        name: "mount_setattr",
        since: Version(5, 12),
        without: "mounts are attached in a private mount namespace and remounted there",
    },
    Row {
        feature: Feature::IdmappedMounts,
        name: "idmapped-mounts",
        since: Version(5, 12),
        without: "mounts with uidMappings or gidMappings are refused",
    },
    Row {
        feature: Feature::CgroupKill,
        name: "cgroup.kill",
        since: Version(5, 14),
        without: "cgroups are frozen and their processes killed one by one",
    },
    Row {
        feature: Feature::LowerAppend,
        name: "lowerdir+",
        since: Version(6, 8),
        without: "layers are named by file descriptors, in one mount option",
    },
    Row {
        feature: Feature::NamedExec,
        name: "named-execveat",
        since: Version(6, 14),
        without: "`kiln oci run` runs from a read-only mount of its own file",
    },
    Row {
        feature: Feature::DetachedCopies,
        name: "detached-copies",
        since: Version(6, 15),
        without: "device nodes are made in a private mount namespace",
    },
    Row {
        feature: Feature::PidfdExit,
        name: "pidfd-exit",
        since: Version(6, 15),
        without: "the exit code of a container whose monitor was killed is unknown",
    },
];

/// A security module that confines processes by labels or profiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecurityModule {
    /// Profiles by path or name (apparmor(7)).
    AppArmor,
    /// Labels of processes and files (selinux(8)).
    SELinux,
}

impl SecurityModule {
    fn look(self) -> bool {
        let path = match self {
            SecurityModule::AppArmor => "/sys/module/apparmor/parameters/enabled",
            SecurityModule::SELinux => "/sys/fs/selinux/enforce",
        };
        match (self, std::fs::read_to_string(path)) {
            (SecurityModule::AppArmor, Ok(enabled)) => enabled.trim() == "Y",
            (SecurityModule::SELinux, Ok(_)) => true,
            (_, Err(_)) => false,
        }
    }
}

/// Reason for which no container can start on this host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// A kernel that lacks system calls without an alternative.
    #[error(
        "containers need Linux {OLDEST} or newer, and this kernel is {0}: older ones lack openat2, clone3 into a cgroup, or close_range"
    )]
    TooOld(String),
    /// /proc, the kernel's view of processes, is hidden.
    #[error(
        "containers need /proc, which is not mounted here or hidden: run `mount -t proc proc /proc`, or start this container without masking it"
    )]
    NoProc,
}

/// Checks the requirements of every container, before one is started.
///
/// # Errors
/// Fails for a missing requirement; the message describes how to provide it.
pub fn check() -> Result<(), HostError> {
    const PROC_SUPER_MAGIC: i64 = 0x9fa0;
    let host = Host::get();
    if host.is_too_old() {
        return Err(HostError::TooOld(host.release.clone()));
    }
    let is_proc = rustix::fs::statfs("/proc").is_ok_and(|statfs| statfs.f_type == PROC_SUPER_MAGIC);
    if is_proc { Ok(()) } else { Err(HostError::NoProc) }
}

/// The host of this process: its kernel, cgroups and privileges. Each fact is looked up once, when it is first needed.
#[derive(Debug)]
pub struct Host {
    release: String,
    version: Option<Version>,
    /// Missing features, one bit each.
    missing: AtomicU32,
    layout: OnceLock<Layout>,
    is_nested: OnceLock<bool>,
    modules: [OnceLock<bool>; 2],
}

impl Host {
    /// The host of this process.
    pub fn get() -> &'static Host {
        static HOST: OnceLock<Host> = OnceLock::new();
        HOST.get_or_init(|| {
            let release = rustix::system::uname().release().to_string_lossy().into_owned();
            Host::new(release, &std::env::var(WITHOUT).unwrap_or_default())
        })
    }

    fn new(release: String, without: &str) -> Host {
        let version = Version::parse(&release);
        let names: Vec<&str> = without.split(',').map(str::trim).collect();
        // A kernel of unknown version is treated as the oldest.
        let known = version.unwrap_or(OLDEST);
        let lacks = |row: &Row| known < row.since || names.contains(&row.name) || names.contains(&"all");
        let missing = FEATURES.iter().filter(|row| lacks(row)).fold(0, |bits, row| bits | row.feature.bit());
        Host {
            release,
            version,
            missing: AtomicU32::new(missing),
            layout: OnceLock::new(),
            is_nested: OnceLock::new(),
            modules: Default::default(),
        }
    }

    /// Release of the kernel, such as `6.1.0-38-amd64`.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Version of the kernel; `None` when its release does not begin with one.
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// Cgroup hierarchies of the host.
    pub fn layout(&self) -> &Layout {
        self.layout.get_or_init(Layout::detect)
    }

    /// True when this process is in a user namespace other than the initial one: there the kernel refuses to create
    /// device nodes.
    ///
    /// The initial namespace has a fixed inode number (`PROC_USER_INIT_INO`). The id maps do not determine this: those
    /// of another namespace may be the identity.
    pub fn is_nested(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        const INITIAL: u64 = 0xeffffffd;
        let is_other =
            || std::fs::metadata("/proc/self/ns/user").is_ok_and(|metadata| metadata.ino() != INITIAL);
        *self.is_nested.get_or_init(is_other)
    }

    /// True when the security module is enabled, whether it enforces its rules or only reports violations.
    pub fn is_active(&self, module: SecurityModule) -> bool {
        *self.modules[module as usize].get_or_init(|| module.look())
    }

    /// True when the kernel is older than the oldest one that Kiln supports.
    pub fn is_too_old(&self) -> bool {
        self.version.is_some_and(|version| version < OLDEST)
    }

    /// True when the kernel has a feature.
    pub fn has(&self, feature: Feature) -> bool {
        self.missing.load(Ordering::Relaxed) & feature.bit() == 0
    }

    /// Remembers that a call for a feature failed with `ENOSYS`, so that it is not made again.
    pub fn record_missing(&self, feature: Feature) {
        self.missing.fetch_or(feature.bit(), Ordering::Relaxed);
    }

    /// Logs the facts that decide between ways of starting containers.
    pub fn log(&self) {
        let layout = self.layout();
        let (unified, legacy) = (layout.has_unified(), !layout.is_unified_only());
        debug!(kernel = self.release, is_nested = self.is_nested(), unified, legacy, "host and its cgroups");
        for row in FEATURES.iter().filter(|row| !self.has(row.feature)) {
            debug!(feature = row.name, instead = row.without, "feature is missing");
        }
    }

    /// Sentence for errors: the missing feature and the first kernel with it.
    pub fn needs(&self, feature: Feature) -> String {
        let row = feature.row();
        format!(
            "it needs `{}` of Linux {}, and this kernel is {} (see `kiln info`)",
            row.name, row.since, self.release
        )
    }
}

impl Feature {
    fn bit(self) -> u32 {
        1 << self as u32
    }

    /// Row of the feature in [`FEATURES`].
    pub fn row(self) -> &'static Row {
        let mut rows = FEATURES.iter();
        rows.find(|row| row.feature == self).expect("each feature has a row, which a test counts")
    }
}

impl Version {
    /// Version at the beginning of a release such as `6.1.0-38-amd64`; `None` when it begins with none.
    pub fn parse(release: &str) -> Option<Version> {
        let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Some(Version(major, minor)),
            _ => None,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(release: &str, without: &str) -> Vec<&'static str> {
        let host = Host::new(release.to_owned(), without);
        FEATURES.iter().filter(|row| host.has(row.feature)).map(|row| row.name).collect()
    }

    #[test]
    fn versions_are_the_first_two_numbers_of_a_release() {
        assert_eq!(Version::parse("5.10.0-33-cloud-amd64"), Some(Version(5, 10)));
        assert_eq!(Version::parse("6.12.43+deb13-amd64"), Some(Version(6, 12)));
        assert_eq!(Version::parse("6.19-rc1"), Some(Version(6, 19)));
        assert_eq!(Version::parse("unknown"), None);
        assert_eq!(Version::parse("6"), None);
    }

    #[test]
    fn features_depend_on_the_version_alone() {
        assert_eq!(names("5.10.0-33-amd64", ""), [""; 0]);
        assert_eq!(names("5.14.0-570.el9.x86_64", ""), ["mount_setattr", "idmapped-mounts", "cgroup.kill"]);
        assert_eq!(names("6.1.0-38-amd64", ""), ["mount_setattr", "idmapped-mounts", "cgroup.kill"]);
        assert_eq!(names("6.18.1", "").len(), FEATURES.len());
        assert_eq!(names("something", ""), [""; 0]);
    }

    #[test]
    fn the_environment_takes_features_away() {
        assert_eq!(names("6.18.1", "lowerdir+, mount_setattr").len(), FEATURES.len() - 2);
        assert_eq!(names("6.18.1", "all"), [""; 0]);
        assert_eq!(names("6.18.1", "unknown").len(), FEATURES.len());
    }

    #[test]
    fn kernels_that_are_too_old_are_told() {
        assert!(Host::new("5.4.0-150-generic".to_owned(), "").is_too_old());
        assert!(Host::new("4.18.0-553.el8_10.x86_64".to_owned(), "").is_too_old());
        assert!(!Host::new("5.10.0-8-amd64".to_owned(), "").is_too_old());
        assert_eq!(check(), Ok(()));
    }

    #[test]
    fn a_missing_call_is_remembered() {
        let host = Host::new("6.18.1".to_owned(), "");
        host.record_missing(Feature::MountSetattr);
        assert!(!host.has(Feature::MountSetattr) && host.has(Feature::IdmappedMounts));
    }

    #[test]
    fn rows_are_in_the_order_of_versions() {
        assert!(FEATURES.is_sorted_by_key(|row| row.since));
        for feature in [Feature::MountSetattr, Feature::DetachedCopies, Feature::NamedExec] {
            assert_eq!(feature.row().feature, feature);
        }
        assert!(FEATURES.iter().all(|row| row.since > OLDEST), "older ones need no row");
    }
}
