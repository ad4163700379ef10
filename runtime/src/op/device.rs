//! Device nodes and terminals.

use super::{Bytes, FdSlot};
use serde::{Deserialize, Serialize};

/// A device node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceOp {
    /// Where, from the root.
    pub path: Bytes,
    /// `b` for block devices, `c` for character devices, `p` for pipes.
    pub kind: char,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bind the host's own node instead of making one.
    pub bind: bool,
    /// A node that is handed over, to bind instead of either.
    pub node: Option<FdSlot>,
}

/// Size of a new terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}
