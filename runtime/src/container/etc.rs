//! Directories of a container that must exist before its first mount.

/// Directories that every container needs as mount targets; the caller creates them in a layer below the image.
pub const STUB_DIRS: [&str; 4] = ["proc", "sys", "dev", "etc"];
