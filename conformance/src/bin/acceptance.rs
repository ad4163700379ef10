//! Asks the reference engine whether it accepts each case of `testdata/parser`, and records the answers.
//!
//! ```text
//! acceptance [CASE…]
//! ```
//!
//! The engine is that of `DOCKER_HOST`; it must be able to reach an image `busybox`. The black-box test `acceptance`
//! compares the records with the answers of Kiln.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program that prints")]

use anyhow::Result;
use kiln_conformance::acceptance::ask;
use kiln_conformance::cases;
use std::path::Path;
use std::process::Command;

fn main() -> Result<()> {
    let only: Vec<String> = std::env::args().skip(1).collect();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/parser");
    let mut asked = 0;
    for mut file in cases::read_dir(&dir)? {
        for case in file.cases.iter_mut().filter(|case| only.is_empty() || only.contains(&case.name)) {
            case.reference = Some(ask(&mut Command::new("docker"), case)?.to_string());
            asked += 1;
        }
        file.write()?;
    }
    println!("{asked} cases recorded");
    Ok(())
}
