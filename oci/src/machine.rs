//! Who runs this program.

/// Name of the user, for lists.
pub(crate) fn owner() -> String {
    let uid = rustix::process::getuid();
    if uid.is_root() { "root".to_owned() } else { uid.as_raw().to_string() }
}
