use super::compile::run;
use super::*;

const X86_64: u32 = 0xc000_003e;
const ALLOW: u32 = 0x7fff_0000;

fn errno(errno: u16) -> u32 {
    0x0005_0000 | u32::from(errno)
}

fn number(name: &str) -> u32 {
    let entry = numbers::NUMBERS.iter().find(|(known, ..)| *known == name).unwrap();
    entry.1 as u32
}

fn call(program: &[u64], name: &str, arguments: &[u64]) -> u32 {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    run(program, X86_64, number(name), all)
}

#[test]
fn tables_are_sorted() {
    assert!(numbers::NUMBERS.windows(2).all(|pair| pair[0].0 < pair[1].0));
}

#[test]
fn the_default_profile_decides_as_docker_does() {
    let program = default_program(0);
    for name in ["read", "openat", "execve", "futex", "ptrace", "openat2", "statx"] {
        assert_eq!(call(&program, name, &[]), ALLOW, "{name}");
    }
    for name in ["mount", "bpf", "keyctl", "reboot", "setns", "chroot", "io_uring_setup", "userfaultfd"] {
        assert_eq!(call(&program, name, &[]), errno(EPERM), "{name}");
    }
    assert_eq!(call(&program, "clone3", &[]), errno(ENOSYS));
    assert_eq!(call(&program, "clone", &[0x11]), ALLOW);
    assert_eq!(call(&program, "clone", &[0x1000_0000]), errno(EPERM), "a user namespace");
    assert_eq!(call(&program, "socket", &[2]), ALLOW);
    assert_eq!(call(&program, "socket", &[38]), errno(EPERM));
    assert_eq!(call(&program, "socket", &[39]), ALLOW);
    assert_eq!(call(&program, "socket", &[40]), errno(EPERM));
    assert_eq!(call(&program, "socket", &[41]), ALLOW);
    assert_eq!(call(&program, "socket", &[1 << 32]), ALLOW, "compared as 64 bits");
    assert_eq!(call(&program, "personality", &[0xffff_ffff]), ALLOW);
    assert_eq!(call(&program, "personality", &[1]), errno(EPERM));
    assert_eq!(run(&program, X86_64, 5000, [0; 6]), errno(ENOSYS), "a call from the future");
    assert_eq!(run(&program, X86_64, 0x4000_0000, [0; 6]), errno(ENOSYS), "x32");
    assert_eq!(run(&program, 0x1234, 0, [0; 6]), errno(EPERM), "a foreign architecture");
    assert_eq!(run(&program, 0x4000_0003, 3, [0; 6]), ALLOW, "read on i386");
}

#[test]
fn capabilities_open_their_calls() {
    let program = default_program(1 << capability::bit("CAP_SYS_ADMIN").unwrap());
    for name in ["mount", "clone3", "setns", "unshare"] {
        assert_eq!(call(&program, name, &[]), ALLOW, "{name}");
    }
    assert_eq!(call(&program, "clone", &[0x1000_0000]), ALLOW);
}

#[test]
fn the_program_is_short() {
    let length = default_program(0).len();
    assert!(length < 600, "{length} instructions");
}

fn profile(json: &str) -> Vec<u64> {
    compile_profile(&serde_json::from_str(json).unwrap()).unwrap()
}

#[test]
fn every_comparison_is_exact() {
    let one = 1u64 << 32;
    for (op, value, two, yes, no) in [
        ("EQ", one + 5, 0, vec![one + 5], vec![5, one, one + 6]),
        ("NE", one + 5, 0, vec![5, one], vec![one + 5]),
        ("LT", one + 5, 0, vec![0, 6, one, one + 4], vec![one + 5, one + 6, 2 * one]),
        ("LE", one + 5, 0, vec![0, 6, one + 5], vec![one + 6, 2 * one]),
        ("GT", one + 5, 0, vec![one + 6, 2 * one], vec![0, 6, one + 5]),
        ("GE", one + 5, 0, vec![one + 5, one + 6, 2 * one], vec![0, 6, one + 4]),
        ("MASKED_EQ", one + 4, one, vec![one, one + 3], vec![0, 4, one + 4]),
    ] {
        let program = profile(&format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["read"],"action":"SCMP_ACT_ALLOW",
            "args":[{{"index":1,"value":{value},"valueTwo":{two},"op":"SCMP_CMP_{op}"}}]}}]}}"#
        ));
        for argument in yes {
            assert_eq!(call(&program, "read", &[0, argument]), ALLOW, "{op} {argument:#x}");
        }
        for argument in no {
            assert_eq!(call(&program, "read", &[0, argument]), errno(EPERM), "{op} {argument:#x}");
        }
    }
}

#[test]
fn rules_of_one_call_are_alternatives() {
    let program = profile(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
        {"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":5,"args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]},
        {"names":["read"],"action":"SCMP_ACT_KILL_PROCESS","args":[{"index":0,"value":2,"op":"SCMP_CMP_EQ"},{"index":1,"value":7,"op":"SCMP_CMP_GT"}]}]}"#,
    );
    assert_eq!(call(&program, "read", &[1]), errno(5));
    assert_eq!(call(&program, "read", &[2, 8]), 0x8000_0000);
    assert_eq!(call(&program, "read", &[2, 7]), ALLOW);
    assert_eq!(call(&program, "read", &[3]), ALLOW);
    assert_eq!(run(&program, X86_64, 5000, [0; 6]), ALLOW);
}
