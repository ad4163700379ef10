//! Capabilities by name and as bits (`linux/capability.h`, Linux 5.9).

/// Names in the order of the capabilities' numbers, without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Default capabilities of a container, as in the reference engine.
pub const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Number of a capability, with or without `CAP_`, in any case; `None` when it is unknown.
pub fn bit(name: &str) -> Option<u32> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == bare).map(|index| index as u32)
}

/// A name that no capability has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown capability {0:?}")]
pub struct UnknownCapability(pub String);

/// Mask of several capabilities.
///
/// # Errors
/// Fails for the first name that no capability has.
pub fn mask<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<u64, UnknownCapability> {
    let mut mask = 0;
    for name in names {
        mask |= 1 << bit(name).ok_or_else(|| UnknownCapability(name.to_owned()))?;
    }
    Ok(mask)
}

/// Names of all capabilities, without `CAP_`.
pub fn all_names() -> &'static [&'static str] {
    &NAMES
}

/// Names of the capabilities in a mask, without `CAP_`.
pub fn names(mask: u64) -> Vec<&'static str> {
    let all = NAMES.iter().enumerate();
    all.filter(|(index, _)| mask & (1 << index) != 0).map(|(_, name)| *name).collect()
}

/// Mask of this process's permitted capabilities; all when it cannot be determined.
pub fn permitted() -> u64 {
    rustix::thread::capabilities(None).map_or(u64::MAX, |sets| sets.permitted.bits())
}

/// Mask of all capabilities that exist.
pub fn all() -> u64 {
    (1 << NAMES.len()) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(bit("CAP_CHOWN"), Some(0));
        assert_eq!(bit("sys_admin"), Some(21));
        assert_eq!(bit("CAP_CHECKPOINT_RESTORE"), Some(40));
        assert_eq!(bit("CAP_NONE"), None);
        assert_eq!(mask(["CHOWN", "KILL"]), Ok(0b10_0001));
        assert_eq!(mask(["CHOWN", "x"]), Err(UnknownCapability("x".into())));
        assert_eq!(names(0b10_0001), ["CHOWN", "KILL"]);
        assert!(mask(DEFAULT).is_ok_and(|mask| mask & all() == mask));
    }
}
