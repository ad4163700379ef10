//! Helpers shared by the tests of this crate.

/// Skips a test without root: layers need devices, owners and trusted attributes.
macro_rules! needs_root {
    () => {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: needs root (device nodes, owners, trusted attributes)");
            return;
        }
    };
}

pub(crate) use needs_root;
