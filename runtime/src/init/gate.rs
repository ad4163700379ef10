//! Waiting to be started, by another process than the one that made the container.
//!
//! The gate is a listening socket in the folder of the container's state, opened before the container's root
//! was. Whoever starts the container connects, says go, and is told from there on what goes wrong; the
//! connection is closed by exec. Unlike a FIFO nothing here waits for somebody who is dead.

use super::{Done, Init, Named, Status, word};
use crate::op::FdSlot;
use rustix::io::Errno;
use rustix::net::SocketFlags;

impl Init {
    pub(super) fn wait_at_gate(&mut self, slot: FdSlot) -> Done {
        if !self.stubs.is_empty() {
            let stubs = std::mem::take(&mut self.stubs);
            self.send(&Status::Stubs(stubs), None);
        }
        self.send(&Status::Created, None);
        loop {
            let connection = match rustix::net::accept_with(self.slot(slot)?, SocketFlags::CLOEXEC) {
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                other => other.call("accept", "gate")?,
            };
            // Whoever connects and goes away without a word has only looked.
            if let Ok(Some(state)) = word::receive(&connection) {
                if !state.is_empty() {
                    self.state = state;
                }
                self.status = connection;
                return Ok(());
            }
        }
    }
}
