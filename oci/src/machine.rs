//! What this machine has.

use std::path::Path;

/// Profiles of AppArmor can be set.
pub(crate) fn has_apparmor() -> bool {
    Path::new("/sys/kernel/security/apparmor").exists()
}

/// Labels of SELinux can be set.
pub(crate) fn has_selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// This process is in a user namespace other than the first: it can make no device nodes.
///
/// Told by the namespace's number, which is fixed (`PROC_USER_INIT_INO`), not by its maps: those may be the identity.
pub(crate) fn is_nested() -> bool {
    use std::os::unix::fs::MetadataExt;
    const FIRST: u64 = 0xeffffffd;
    std::fs::metadata("/proc/self/ns/user").is_ok_and(|metadata| metadata.ino() != FIRST)
}

/// Name of the user, for lists.
pub(crate) fn owner() -> String {
    let uid = rustix::process::getuid();
    if uid.is_root() { "root".to_owned() } else { uid.as_raw().to_string() }
}
