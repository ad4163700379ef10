//! Messages to a waiting process: to continue, with the container's state or its filter where needed. A state is as
//! long as the configuration's annotations, so it is sent in pieces that a socket accepts.

use rustix::fd::AsFd;
use rustix::io::Errno;
use std::mem::MaybeUninit;

/// Size of a piece in bytes: longer than filters are, and shorter than a page, since the receiver's buffer is on its
/// stack.
const PIECE: usize = 3 * 1024;

/// First byte of a piece that others follow.
const MORE: u8 = b's';

/// First byte of the last piece, which lets the process continue.
const GO: u8 = b'g';

/// Sends the message to continue, with content.
pub(crate) fn send(socket: impl AsFd, what: &[u8]) -> Result<(), Errno> {
    let last = what.len().saturating_sub(1) / PIECE * PIECE;
    let mut message = Vec::with_capacity(PIECE.min(what.len()) + 1);
    let pieces = what[..last].chunks(PIECE).map(|piece| (MORE, piece));
    for (first, piece) in pieces.chain([(GO, &what[last..])]) {
        message.clear();
        message.push(first);
        message.extend_from_slice(piece);
        rustix::io::write(&socket, &message)?;
    }
    Ok(())
}

/// Waits for the message to continue; returns its content, which may be empty, and `None` when the other end was closed
/// without a message.
pub(crate) fn receive(socket: impl AsFd) -> Result<Option<Vec<u8>>, Errno> {
    let mut told = Vec::new();
    // Buffer for the longest piece; the part that a message does not fill is not touched.
    let mut room = [MaybeUninit::uninit(); PIECE + 1];
    loop {
        match rustix::io::read(&socket, &mut room[..]) {
            Ok(([], _)) => return Ok(None),
            Ok(([first, piece @ ..], _)) => {
                told.extend_from_slice(piece);
                if *first == GO {
                    return Ok(Some(told));
                }
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    #[test]
    fn words_of_any_length_arrive() {
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 1 << 20] {
            let (ours, theirs) =
                socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
            let state = vec![b'x'; length];
            std::thread::scope(|scope| {
                scope.spawn(|| send(&ours, &state).unwrap());
                assert_eq!(receive(&theirs).unwrap(), Some(state.clone()));
            });
            drop(ours);
            assert_eq!(receive(&theirs).unwrap(), None);
        }
    }
}
