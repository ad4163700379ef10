//! The program as its users run it: real images, real containers, the real network path to a registry.
//!
//! The base images come from `testdata/bases` over a mirror on the loopback interface.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

#[macro_use]
#[path = "e2e/bed.rs"]
mod bed;
#[path = "e2e/acceptance.rs"]
mod acceptance;
#[path = "e2e/archives.rs"]
mod archives;
#[path = "e2e/attacks.rs"]
mod attacks;
#[path = "e2e/builds.rs"]
mod builds;
#[path = "e2e/cgroups.rs"]
mod cgroups;
#[path = "e2e/claims.rs"]
mod claims;
#[path = "e2e/command_line.rs"]
mod command_line;
#[path = "e2e/containers.rs"]
mod containers;
#[path = "e2e/crashes.rs"]
mod crashes;
#[path = "e2e/crowds.rs"]
mod crowds;
#[path = "e2e/differential.rs"]
mod differential;
#[path = "e2e/durability.rs"]
mod durability;
#[path = "e2e/errors.rs"]
mod errors;
#[path = "e2e/explain.rs"]
mod explain;
#[path = "e2e/flags.rs"]
mod flags;
#[path = "e2e/hints.rs"]
mod hints;
#[path = "e2e/hosts.rs"]
mod hosts;
#[path = "e2e/images.rs"]
mod images;
#[path = "e2e/layers.rs"]
mod layers;
#[path = "e2e/limits.rs"]
mod limits;
#[path = "e2e/lints.rs"]
mod lints;
#[path = "e2e/mounts.rs"]
mod mounts;
#[path = "e2e/outputs.rs"]
mod outputs;
#[path = "e2e/registries.rs"]
mod registries;
#[path = "e2e/remote.rs"]
mod remote;
#[path = "e2e/stages.rs"]
mod stages;
#[path = "e2e/terminal.rs"]
mod terminal;
#[path = "e2e/web.rs"]
mod web;
