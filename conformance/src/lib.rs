//! What the reference builder does, recorded, and whether Kiln does the same.
//!
//! [`cases`] reads `testdata/parser/*.cases`: small Dockerfiles, one for each rule of the language, with what Kiln
//! reads in them ([`dump`]) and whether the reference engine accepts them ([`acceptance`]). Tests compare both with what
//! Kiln does; the program `acceptance` asks the engine again. [`differential`] does the same for whole builds and the images
//! that come of them, with a program of that name.

#![forbid(unsafe_code)]

pub mod acceptance;
pub mod cases;
pub mod differential;
pub mod dump;
