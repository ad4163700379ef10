//! What a waiting process is told: to go on, and with that the container's state, or its filter, if there is one to tell.
//! A state is as long as the configuration's annotations, so it comes in pieces that a socket takes.

use rustix::fd::AsFd;
use rustix::io::Errno;
use std::mem::MaybeUninit;

/// Longer than filters are, and shorter than a page: the receiver has room for it on its stack.
const PIECE: usize = 3 * 1024;

/// First byte of a piece that others follow.
const MORE: u8 = b's';

/// First byte of the last one, which says go.
const GO: u8 = b'g';

/// Tells something, and to go on.
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

/// Waits to be told; gives what was told besides going on, which may be nothing, and `None` when the other side went away
/// without a word.
pub(crate) fn receive(socket: impl AsFd) -> Result<Option<Vec<u8>>, Errno> {
    let mut told = Vec::new();
    // Room for the longest; what a message does not fill is not touched.
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
