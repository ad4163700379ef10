//! Layers: changesets between a tar stream and a folder that overlayfs can stack.
//!
//! In the tar a deleted file is an empty file `.wh.NAME`, and `.wh..wh..opq` says that a folder hides all
//! that lower layers have in it (OCI image-spec, layer.md). On disk they are overlayfs' own marks: a
//! character device 0:0, and the extended attribute `trusted.overlay.opaque`.

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

/// Prefix of whiteout names in a tar.
const WHITEOUT: &[u8] = b".wh.";
/// Name of the mark of an opaque folder in a tar.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// The only attribute that layers carry, as the reference builder does.
const CAPABILITY: &[u8] = b"security.capability";

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files that the tests made themselves")]
mod tests;
