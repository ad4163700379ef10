//! What tests of this crate share.

/// Layers need devices, owners and trusted attributes, which only root may make.
macro_rules! needs_root {
    () => {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: needs root (device nodes, owners, trusted attributes)");
            return;
        }
    };
}

pub(crate) use needs_root;
