//! A socket for one step in front of an ssh agent's socket, with the mode and owner that the step requests.

use kiln_image::sys::{CallError, Named};
use std::io;
use std::net::Shutdown;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Forwards connections until it is dropped.
pub(super) struct AgentSocket {
    path: PathBuf,
    closed: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl AgentSocket {
    /// Listens at `path` and forwards connections to the agent's socket at `agent`.
    #[expect(clippy::disallowed_methods, reason = "a new socket in a directory that only root enters")]
    pub(super) fn open(
        path: PathBuf,
        agent: &Path,
        mode: u32,
        owner: (u32, u32),
    ) -> Result<AgentSocket, CallError> {
        let listener = UnixListener::bind(&path).call("bind", &path)?;
        let permissions = PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&path, permissions).call("chmod", &path)?;
        chown(&path, Some(owner.0), Some(owner.1)).call("chown", &path)?;
        let closed = Arc::new(AtomicBool::new(false));
        let (agent, seen) = (agent.to_owned(), closed.clone());
        let thread = std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                if seen.load(Ordering::SeqCst) {
                    return;
                }
                // Without an agent the client's connection is closed, like a refused one.
                if let Ok(agent) = UnixStream::connect(&agent) {
                    pass_on(client, agent);
                }
            }
        });
        Ok(AgentSocket { path, closed, thread: Some(thread) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for AgentSocket {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        // Wakes the thread, which then finds `closed` set.
        let woken = UnixStream::connect(&self.path).is_ok();
        let _ = std::fs::remove_file(&self.path);
        if let Some(thread) = self.thread.take().filter(|_| woken) {
            let _ = thread.join();
        }
    }
}

/// Forwards both directions until either side closes.
fn pass_on(client: UnixStream, agent: UnixStream) {
    let copy = |from: &UnixStream, to: &UnixStream| {
        if let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) {
            std::thread::spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
        }
    };
    copy(&client, &agent);
    copy(&agent, &client);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn connections_reach_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        let agent = dir.path().join("agent");
        let listener = UnixListener::bind(&agent).unwrap();
        let owner = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let socket = AgentSocket::open(dir.path().join("own"), &agent, 0o640, owner).unwrap();
        assert_eq!(std::fs::metadata(socket.path()).unwrap().mode() & 0o777, 0o640);
        let mut client = UnixStream::connect(socket.path()).unwrap();
        client.write_all(b"ask").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let (mut there, _) = listener.accept().unwrap();
        let mut text = String::new();
        there.read_to_string(&mut text).unwrap();
        there.write_all(b"answer").unwrap();
        drop(there);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!((text.as_str(), answer.as_str()), ("ask", "answer"));
        let path = socket.path().to_owned();
        drop(socket);
        assert!(!path.exists());
    }
}
