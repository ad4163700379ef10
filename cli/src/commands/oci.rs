//! `kiln oci`: an OCI runtime for other engines, which is a program of its own (`kiln_oci`).
//!
//! `main` sees the usual form before anything else is done, for speed; this is for those who put flags of `kiln`
//! in front.

use crate::arguments::Globals;
use crate::error::CliError;
use std::ffi::OsString;

/// Describes no arguments: `kiln_oci` reads them.
pub fn describe() -> clap::Command {
    let arguments =
        clap::Arg::new("arguments").value_name("ARGUMENT").num_args(0..).allow_hyphen_values(true);
    clap::Command::new("oci")
        .arg(arguments.help("Command and flags of an OCI runtime: see `kiln oci --help`"))
}

/// Runs the OCI runtime's own command line.
pub fn run(_: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    Ok(kiln_oci::main(arguments, env!("CARGO_PKG_VERSION")))
}
