//! The program as container engines call it: `kiln oci` with bundles, on this host's kernel.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

#[macro_use]
mod fixture;
mod attacks;
mod bad_bundles;
mod bad_commands;
mod bad_input;
mod cgroups;
mod concurrency;
mod conventions;
mod hooks;
mod lifecycle;
mod mounts;
mod namespaces;
mod paths;
mod privileges;
mod processes;
mod terminals;
