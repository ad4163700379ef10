//! Messages between commands and the monitor of a container, over SEQPACKET sockets.
//!
//! The first byte is the kind of the rest: bytes of a stream as they are, or a request or an answer as JSON.

use crate::log::Stream;
use crate::settings::attachment::Attachment;
use kiln_runtime::message;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::SendFlags;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Most bytes of a stream in one message: a fraction of a socket's default buffer.
pub(crate) const MAX_PIECE: usize = 32 << 10;

const INPUT: u8 = b'i';
const STDOUT: u8 = b'o';
const STDERR: u8 = b'e';
const JSON: u8 = b'j';

/// Request of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Start a container. The lock of its directory is attached. Only over the socket that the monitor was made with.
    Start(Box<StartRequest>),
    /// Look after a container that runs and whose monitor was killed; otherwise as `Start`.
    Adopt(Box<StartRequest>),
    /// Send output from now on, and take input if `input`.
    Attach {
        /// True when the command sends input.
        input: bool,
    },
    /// The input has ended.
    CloseInput,
    /// The command's own output is closed: nothing reads the program's.
    CloseOutput {
        /// Stream that is not read.
        stream: Stream,
    },
    /// The size of the command's terminal.
    Resize {
        /// Height of the terminal in lines.
        rows: u16,
        /// Width of the terminal in columns.
        columns: u16,
    },
    /// Send the exit code at the next end of the program.
    Wait,
    /// The user ends the program, or has ended it: it is not started again.
    Stop,
    /// Connect the container to a further network.
    Connect(Box<Attachment>),
    /// The container has another name.
    Renamed,
    /// Disconnect the container from a network.
    Disconnect {
        /// Id of the network.
        network: String,
    },
}

/// A container to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StartRequest {
    /// Root directory of the store.
    pub(crate) store: PathBuf,
    /// Directory that is emptied at boot.
    pub(crate) state: PathBuf,
    /// Id of the container.
    pub(crate) id: String,
    /// Mount that is its root.
    pub(crate) root: oci_spec::runtime::Mount,
    /// Mounts of images, in the order of the container's mounts.
    pub(crate) images: Vec<oci_spec::runtime::Mount>,
    /// Initial size of its terminal: lines and columns.
    pub(crate) size: (u16, u16),
    /// Whether the requesting command is attached from the first byte of output, and sends input.
    pub(crate) attach: Option<Attach>,
}

/// How a command is attached to a container's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// True when it sends input.
    pub input: bool,
}

/// Answer of a monitor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The program runs; the pidfd of its process is attached.
    Started,
    /// The container did not start, or was not connected to a network.
    Failed(StartFailure),
    /// The container was connected to a network, or disconnected from it.
    Done,
    /// The program of the container ended.
    Exited {
        /// Exit code, or 128 plus the signal.
        code: i32,
        /// True when the kernel ended a process for lack of memory.
        #[serde(default)]
        is_out_of_memory: bool,
    },
}

/// Reason why a container did not start, from another process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct StartFailure {
    /// Error and its causes in one line.
    pub message: String,
    /// Exit code for the user: 125, 126 or 127.
    pub code: i32,
    /// True when the disk is full.
    pub is_full: bool,
    /// Free port near one that is in use, at the same address of the host; `None` for other failures.
    pub free_port: Option<SocketAddr>,
}

/// Message that was received, decoded.
#[derive(Debug)]
pub(crate) enum Message<T> {
    /// A request or an answer, with its file descriptors.
    Json(T, Vec<OwnedFd>),
    /// Input for the program.
    Input(Vec<u8>),
    /// Output of the program.
    Output(Stream, Vec<u8>),
}

/// Encodes a request or an answer.
pub(crate) fn json<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = vec![JSON];
    bytes.extend(serde_json::to_vec(value).expect("a message is made of texts and numbers"));
    bytes
}

/// Encodes a piece of output.
pub(crate) fn output(stream: Stream, piece: &[u8]) -> Vec<u8> {
    let kind = if stream == Stream::Stdout { STDOUT } else { STDERR };
    let mut bytes = Vec::with_capacity(piece.len() + 1);
    bytes.push(kind);
    bytes.extend_from_slice(piece);
    bytes
}

/// Encodes a piece of input.
pub(crate) fn input(piece: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(piece.len() + 1);
    bytes.push(INPUT);
    bytes.extend_from_slice(piece);
    bytes
}

/// Sends an encoded message, without waiting for room: fails with `EAGAIN` then.
pub(crate) fn try_send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    message::send_bytes(socket, &[bytes], fds, SendFlags::DONTWAIT)
}

/// Sends an encoded message.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    message::send_bytes(socket, &[bytes], fds, SendFlags::empty())
}

/// Receives a message; `None` when the other end is closed.
pub(crate) fn receive<T: for<'de> Deserialize<'de>>(
    socket: BorrowedFd<'_>,
) -> Result<Option<Message<T>>, Errno> {
    let Some((mut bytes, fds)) = message::receive_bytes(socket)? else { return Ok(None) };
    let kind = bytes.remove(0);
    Ok(Some(match kind {
        INPUT => Message::Input(bytes),
        STDOUT => Message::Output(Stream::Stdout, bytes),
        STDERR => Message::Output(Stream::Stderr, bytes),
        _ => Message::Json(serde_json::from_slice(&bytes).map_err(|_| Errno::BADMSG)?, fds),
    }))
}
