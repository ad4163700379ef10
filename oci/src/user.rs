//! User of this process, as far as lists need it.

/// Name of the user for lists: `root`, or the uid.
pub(crate) fn name() -> String {
    let uid = rustix::process::getuid();
    if uid.is_root() { "root".to_owned() } else { uid.as_raw().to_string() }
}
