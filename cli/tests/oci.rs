//! The program as container engines call it: `kiln oci` with bundles, on this host's kernel.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

#[macro_use]
#[path = "oci/bed.rs"]
mod bed;
#[path = "oci/agreed.rs"]
mod agreed;
#[path = "oci/attacks.rs"]
mod attacks;
#[path = "oci/bad_bundles.rs"]
mod bad_bundles;
#[path = "oci/bad_commands.rs"]
mod bad_commands;
#[path = "oci/bad_input.rs"]
mod bad_input;
#[path = "oci/crowds.rs"]
mod crowds;
#[path = "oci/groups.rs"]
mod groups;
#[path = "oci/hooks.rs"]
mod hooks;
#[path = "oci/lifecycle.rs"]
mod lifecycle;
#[path = "oci/mounts.rs"]
mod mounts;
#[path = "oci/namespaces.rs"]
mod namespaces;
#[path = "oci/paths.rs"]
mod paths;
#[path = "oci/privileges.rs"]
mod privileges;
#[path = "oci/processes.rs"]
mod processes;
#[path = "oci/terminals.rs"]
mod terminals;
