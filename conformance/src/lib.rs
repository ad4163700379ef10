//! Recorded behaviour of the reference builder, and its comparison with Kiln.
//!
//! [`cases`] reads `testdata/parser/*.cases`: small Dockerfiles, one for each rule of the language, with the dump of
//! Kiln's tree ([`dump`]) and the answer whether the reference engine accepts them ([`acceptance`]). Tests compare both
//! with Kiln's current behaviour; the program `acceptance` asks the engine again. [`differential`] does the same for
//! whole builds and the resulting images, [`commands`] for the answers to command lines; each has a program of that name.

#![forbid(unsafe_code)]

pub mod acceptance;
pub mod cases;
pub mod commands;
pub mod differential;
pub mod dump;
