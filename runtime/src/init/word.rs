//! What a waiting process is told: to go on, and before that the container's state if there is one to tell. That is as
//! long as the configuration's annotations, so it comes in pieces that a socket takes.

use rustix::fd::AsFd;
use rustix::io::Errno;

const PIECE: usize = 32 * 1024;

/// Tells the state, and to go on.
pub(crate) fn send(socket: impl AsFd, state: &[u8]) -> Result<(), Errno> {
    let mut message = Vec::with_capacity(PIECE.min(state.len()) + 1);
    for piece in state.chunks(PIECE) {
        message.clear();
        message.push(b's');
        message.extend_from_slice(piece);
        rustix::io::write(&socket, &message)?;
    }
    rustix::io::write(&socket, b"g").map(drop)
}

/// Waits to be told; gives the state, which may be empty, and `None` when the other side went away without a word.
/// Where no state is told, `with_state` saves the room for it.
pub(crate) fn receive(socket: impl AsFd, with_state: bool) -> Result<Option<Vec<u8>>, Errno> {
    let mut state = Vec::new();
    let mut message = vec![0u8; if with_state { PIECE + 1 } else { 1 }];
    loop {
        match rustix::io::read(&socket, message.as_mut_slice()) {
            Ok(0) => return Ok(None),
            // A single byte is go and no more.
            Ok(1) => return Ok(Some(state)),
            Ok(length) => state.extend_from_slice(&message[1..length]),
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
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 1 << 20] {
            let (ours, theirs) =
                socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
            let state = vec![b'x'; length];
            std::thread::scope(|scope| {
                scope.spawn(|| send(&ours, &state).unwrap());
                assert_eq!(receive(&theirs, true).unwrap(), Some(state.clone()));
            });
            drop(ours);
            assert_eq!(receive(&theirs, true).unwrap(), None);
        }
    }
}
