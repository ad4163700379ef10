//! What a container needs in its tree before the first mount.

/// Directories that every container needs as mount targets; the caller puts them below the image.
pub const STUB_DIRS: [&str; 4] = ["proc", "sys", "dev", "etc"];
