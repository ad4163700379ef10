//! Packs directories as OCI layouts and serves layouts as a registry: base images for hosts without access to one.
//!
//! `layouts pack DIRECTORY LAYOUT NAME COMMAND` · `layouts serve ADDRESS LAYOUT…`
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool of the project's own tests")]

use kiln_registry::testing::{Faults, LayoutServer, PackOptions, pack};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome =
        match words.as_slice() {
            ["pack", dir, layout, name, command] => pack_dir(dir, layout, name, command),
            ["serve", address, layouts @ ..] if !layouts.is_empty() => serve(address, layouts),
            _ => Err("usage: layouts pack DIRECTORY LAYOUT NAME COMMAND | layouts serve ADDRESS LAYOUT…"
                .to_owned()),
        };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("layouts: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn pack_dir(dir: &str, layout: &str, name: &str, command: &str) -> Result<(), String> {
    let options = PackOptions {
        name: name.to_owned(),
        cmd: vec![command.to_owned()],
        created: "2024-01-01T00:00:00Z".to_owned(),
    };
    let digest = pack(Path::new(dir), Path::new(layout), &options)
        .map_err(|error| format!("cannot pack {dir}: {error}"))?;
    println!("{name} {digest}");
    Ok(())
}

fn serve(address: &str, layouts: &[&str]) -> Result<(), String> {
    let listen = address.parse().map_err(|_| format!("`{address}` is not an address with a port"))?;
    let dirs = layouts.iter().map(PathBuf::from).collect();
    let server = LayoutServer::start(listen, dirs, Faults::default())
        .map_err(|error| format!("cannot listen on {address}: {error}"))?;
    println!("{}", server.address());
    loop {
        std::thread::park();
    }
}
