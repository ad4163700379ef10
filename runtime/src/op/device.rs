//! Device nodes and terminals.

use super::{Bytes, FdSlot};
use serde::{Deserialize, Serialize};

/// A device node to create or bind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceOp {
    /// Path of the node, from the root.
    pub path: Bytes,
    /// `b` for block devices, `c` for character devices, `p` for pipes.
    pub kind: char,
    /// Major number of the device.
    pub major: u32,
    /// Minor number of the device.
    pub minor: u32,
    /// Permission bits of the node.
    pub mode: u32,
    /// Uid of the owner.
    pub uid: u32,
    /// Gid of the owner.
    pub gid: u32,
    /// Bind the host's node instead of creating one.
    pub bind: bool,
    /// Node that the parent passes; it is bound instead.
    pub node: Option<FdSlot>,
}

/// Size of a new terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleSize {
    /// Height in lines of text.
    pub rows: u16,
    /// Width in characters per line.
    pub columns: u16,
}
