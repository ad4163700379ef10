use crate::arguments::Globals;
use crate::error::CliError;
use std::ffi::OsString;
pub fn run(_globals: &Globals, _arguments: Vec<OsString>) -> Result<u8, CliError> { Ok(0) }
