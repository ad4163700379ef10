//! What the measuring programs share: statistics of rounds, a measured process, an OCI bundle, a build step.
//!
//! Each program under `src/bin` makes one kind of claim; README.md says how they are run.
#![forbid(unsafe_code)]

pub mod bundle;
pub mod probe;
pub mod samples;
pub mod step;

use std::path::PathBuf;

/// What everything here that can fail gives: the error is only ever shown.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// The static busybox of this host: `BUSYBOX` names another one.
pub fn busybox() -> Outcome<PathBuf> {
    let named = std::env::var_os("BUSYBOX").map(PathBuf::from);
    named
        .into_iter()
        .chain(["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from))
        .find(|path| path.exists())
        .ok_or_else(|| "needs a static busybox (package busybox-static)".into())
}
