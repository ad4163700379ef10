//! Layers: changesets, as a tar stream and as a directory that overlayfs can stack.
//!
//! In the tar, a whiteout `.wh.NAME` is an empty file, and `.wh..wh..opq` makes its directory opaque: it hides the
//! contents in lower layers (OCI image-spec, layer.md). On disk they have overlayfs' form: a character device 0:0, and
//! the extended attribute `trusted.overlay.opaque`.

use crate::sys::CallError;

mod apply;
mod archive;
mod changes;
mod compare;
mod copy;
mod diff;
mod flatten;
mod merge;
mod overlay;
mod pack;
mod write;

pub use apply::{Applied, ApplyError, Below, Placed, Placement, apply, extract, extract_at, is_tar, place};
pub use archive::{archive, is_of_kernel};
pub use changes::{ChangeKind, FileChange, changes};
pub use compare::{Difference, first_difference};
pub use copy::{Change, Choice, CopyRequest, Everything, Selection};
pub use diff::{DiffError, diff, diff_of_container, diff_until};
pub use flatten::flatten;
pub use merge::merge;
pub(crate) use overlay::is_opaque;
pub(crate) use write::set_owner_and_mode;
pub use write::{FileData, LayerWriter, Metadata, WriteError};

/// Longest path of a file in a layer, in bytes: programs cannot pass longer ones to the kernel (PATH_MAX, which counts
/// the final NUL). It bounds the depth of the trees that layers are unpacked into and read from.
pub const MAX_PATH: usize = 4095;

/// Stack of threads that walk trees, in bytes: they recurse once for each name in a path.
pub const WALK_STACK: usize = 16 << 20;

/// Checks the length of a path in a layer.
///
/// # Errors
/// Fails with `ENAMETOOLONG` when it is longer than [`MAX_PATH`].
pub fn check_length(path: &[u8]) -> Result<(), CallError> {
    if path.len() <= MAX_PATH {
        return Ok(());
    }
    let shown = String::from_utf8_lossy(&path[..64]).into_owned() + "…";
    Err(CallError { call: "open", path: shown.into(), errno: rustix::io::Errno::NAMETOOLONG })
}

/// Prefix of whiteout names in a tar.
const WHITEOUT: &[u8] = b".wh.";
/// Name of the opaque whiteout in a tar.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// The only extended attribute in layers, as in the reference builder.
const CAPABILITY: &[u8] = b"security.capability";

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files that the tests made themselves")]
mod tests;
