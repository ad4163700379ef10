//! The program as its users run it: real images, real containers, the real network path to a registry.
//!
//! The base images come from `scripts/bases` over a mirror on the loopback interface.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

#[macro_use]
mod fixture;
mod acceptance;
mod archives;
mod attacks;
mod builds;
mod cgroups;
mod chaos;
mod claims;
mod command_line;
mod commands;
mod commit;
mod concurrency;
mod containers;
mod cp;
mod crashes;
mod diff;
mod differential;
mod doctor;
mod durability;
mod errors;
mod events;
mod exec;
mod explain;
mod flags;
mod goldens;
mod health;
mod hints;
mod hosts;
mod images;
mod journald;
mod layers;
mod lifecycle;
mod limits;
mod lints;
mod login;
mod logs;
mod mounts;
mod networks;
mod orphans;
mod outputs;
mod pause;
mod ports;
mod prune;
mod ps;
mod registries;
mod remote;
mod rename;
mod run_flags;
mod running;
mod secrets;
mod stages;
mod terminal;
mod top;
mod up;
mod update;
mod volume_commands;
mod volumes;
mod waiting;
mod web_server;
