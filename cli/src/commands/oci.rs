//! `kiln oci`: an OCI runtime for other engines, which is a separate program (`kiln_oci`).
//!
//! `main` handles the usual form before anything else, for speed; this module serves command lines with global flags of
//! `kiln` in front of `oci`.

use crate::arguments::Globals;
use crate::error::CliError;
use std::ffi::OsString;

/// Describes one list of arguments, which `kiln_oci` parses.
pub fn describe() -> clap::Command {
    let arguments =
        clap::Arg::new("arguments").value_name("ARGUMENT").num_args(0..).allow_hyphen_values(true);
    clap::Command::new("oci").arg(arguments.help("Run this command of an OCI runtime: see `kiln oci --help`"))
}

/// Runs the OCI runtime's own command line.
pub fn run(_: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    Ok(kiln_oci::main(arguments, env!("CARGO_PKG_VERSION")))
}
