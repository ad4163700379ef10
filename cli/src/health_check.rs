//! One health check of a container, which its monitor runs as a process: its output and exit code are the check's.

use crate::error::chain;
use crate::ui;
use kiln_engine::{EngineError, Records, Stdio, start_code};
use kiln_runtime::Spawner;
use kiln_runtime::op::ConsoleSize;
use rustix::stdio::{stderr, stdin, stdout};
use std::path::Path;

/// Runs the health check of the container `id` in the store at `root`; returns its exit code.
pub fn run(root: &Path, id: &str) -> u8 {
    // Other processes of the container see this program until it runs the check's (CVE-2019-5736).
    kiln_runtime::seal::seal();
    match check(root, id) {
        Ok(code) => code as u8,
        Err(error) => {
            ui::tell_line(&chain(&error));
            start_code(&error) as u8
        }
    }
}

fn check(root: &Path, id: &str) -> Result<i32, EngineError> {
    let spawner = Spawner::start()?;
    let console = ConsoleSize { rows: 0, columns: 0 };
    let stdio = Stdio { stdin: stdin(), stdout: stdout(), stderr: stderr(), console };
    Records::open(root)?.check(id, &spawner, &stdio)
}
