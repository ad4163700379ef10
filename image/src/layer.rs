//! Layers: changesets between a tar stream and a directory that overlayfs can stack.
//!
//! In the tar a deleted file is an empty file `.wh.NAME`, and `.wh..wh..opq` says that a directory hides all
//! that lower layers have in it (OCI image-spec, layer.md). On disk they are overlayfs' own marks: a
//! character device 0:0, and the extended attribute `trusted.overlay.opaque`.

use crate::sys::CallError;

mod apply;
mod compare;
mod copy;
mod diff;
mod merge;
mod overlay;
mod write;

pub use apply::{Applied, ApplyError, Below, apply, extract, extract_at, is_tar};
pub use compare::{Difference, first_difference};
pub use copy::{Change, Choice, CopyRequest, Everything, Selection};
pub use diff::{DiffError, diff, diff_until};
pub use merge::merge;
pub(crate) use overlay::is_opaque;
pub(crate) use write::set_owner_and_mode;
pub use write::{FileData, LayerWriter, Metadata, WriteError};

/// Longest path of a file in a layer, in bytes: no program can name a longer one (PATH_MAX, which counts the final NUL). It
/// bounds how deep the trees are that layers are unpacked into and read from.
pub const MAX_PATH: usize = 4095;

/// Stack of threads that walk trees, in bytes: they recurse for each of as many levels as a path has names.
pub const WALK_STACK: usize = 16 << 20;

/// Fails with `ENAMETOOLONG` for a path that no layer can hold.
///
/// # Errors
/// For one that is longer than [`MAX_PATH`].
pub fn check_length(path: &[u8]) -> Result<(), CallError> {
    if path.len() <= MAX_PATH {
        return Ok(());
    }
    let shown = String::from_utf8_lossy(&path[..64]).into_owned() + "…";
    Err(CallError { call: "open", path: shown.into(), errno: rustix::io::Errno::NAMETOOLONG })
}

/// Prefix of whiteout names in a tar.
const WHITEOUT: &[u8] = b".wh.";
/// Name of the mark of an opaque directory in a tar.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// The only attribute that layers carry, as the reference builder does.
const CAPABILITY: &[u8] = b"security.capability";

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files that the tests made themselves")]
mod tests;
