//! The program as container engines call it: `kiln oci` with bundles, on this machine's kernel.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

#[macro_use]
#[path = "oci/bed.rs"]
mod bed;
#[path = "oci/attacks.rs"]
mod attacks;
#[path = "oci/crowds.rs"]
mod crowds;
#[path = "oci/lifecycle.rs"]
mod lifecycle;
