//! Compiles the default system call filter for the usual capability sets.
//!
//! The compiler is the one that the crate has: its modules are included here too.
#![allow(dead_code, unreachable_pub, reason = "the crate uses the rest")]

#[path = "src/seccomp/architecture.rs"]
mod architecture;
#[path = "src/seccomp/assemble.rs"]
mod assemble;
#[path = "src/seccomp/compile.rs"]
mod compile;
#[path = "src/seccomp/numbers.rs"]
mod numbers;
#[path = "src/seccomp/profile.rs"]
mod profile;
#[path = "src/seccomp/rule.rs"]
mod rule;

use architecture::Architecture;
use std::fmt::Write as _;
use std::path::Path;

/// None, Docker's default ones, those plus one that is often added, and all.
const SETS: [&[&str]; 5] = [
    &[],
    &["CAP_SYS_CHROOT"],
    &["CAP_SYS_CHROOT", "CAP_SYS_PTRACE"],
    &["CAP_SYS_CHROOT", "CAP_SYS_ADMIN"],
    &ALL,
];

const ALL: [&str; profile::WITH_CAPABILITY.len()] = {
    let mut names = [""; profile::WITH_CAPABILITY.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = profile::WITH_CAPABILITY[index].0;
        index += 1;
    }
    names
};

fn main() {
    for module in ["architecture", "assemble", "compile", "numbers", "profile", "rule"] {
        println!("cargo::rerun-if-changed=src/seccomp/{module}.rs");
    }
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name: &str| std::env::var(name).expect("cargo sets it");
    let (name, endian) = (variable("CARGO_CFG_TARGET_ARCH"), variable("CARGO_CFG_TARGET_ENDIAN"));
    let native = match Architecture::named(&name) {
        Some(architecture) if architecture.is_big_endian() == (endian == "big") => architecture,
        _ => panic!("no table of system calls for {name} ({endian}-endian)"),
    };
    let mut text = "static PROGRAMS: &[(u16, &[u64])] = &[\n".to_owned();
    for set in SETS {
        let bits = bits(set);
        let program = profile::filter(bits, native).compile().instructions;
        writeln!(text, "    ({bits:#06x}, &{program:?}),").expect("memory takes all text");
    }
    text.push_str("];\n");
    let path = Path::new(&variable("OUT_DIR")).join("seccomp_programs.rs");
    std::fs::write(&path, text).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
}

fn bits(set: &[&str]) -> u16 {
    let names = profile::WITH_CAPABILITY.iter().enumerate();
    names.map(|(index, (name, _))| u16::from(set.contains(name)) << index).sum()
}
