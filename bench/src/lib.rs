//! Parts shared by the measuring programs: statistics of rounds, a measured process, an OCI bundle, a build step.
//!
//! Each program under `src/bin` measures one kind of claim; README.md describes how they are run.
#![forbid(unsafe_code)]

pub mod bundle;
pub mod probe;
pub mod samples;
pub mod step;

use std::path::PathBuf;

/// Result of all fallible functions here; the error is only printed.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Path of a static busybox: the value of `BUSYBOX`, or that of the host.
pub fn busybox() -> Outcome<PathBuf> {
    let named = std::env::var_os("BUSYBOX").map(PathBuf::from);
    named
        .into_iter()
        .chain(["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from))
        .find(|path| path.exists())
        .ok_or_else(|| "needs a static busybox (package busybox-static)".into())
}
