use super::architecture::{self, Architecture};
use super::rule::{Action, Comparison, Condition, Filter};
use super::*;
use serde_json::{Value, json};

mod docker;
mod goldens;
mod properties;

const ALLOW: u32 = 0x7fff_0000;
const KILL_THREAD: u32 = 0;
const ENOSYS: u32 = errno(38);
const EPERM: u32 = errno(1);
const X32: u32 = 0x4000_0000;

const fn errno(errno: u16) -> u32 {
    0x0005_0000 | errno as u32
}

/// Runs a program as the kernel of a host does.
fn run(program: &[u64], big_endian: bool, audit: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut words = vec![number, audit, 0, 0];
    for argument in arguments {
        let (low, high) = (argument as u32, (argument >> 32) as u32);
        words.extend(if big_endian { [high, low] } else { [low, high] });
    }
    let (mut at, mut accumulator) = (0usize, 0u32);
    loop {
        let word = program[at];
        let (code, yes, no, k) = ((word >> 48) as u16, (word >> 40) as u8, (word >> 32) as u8, word as u32);
        at += 1;
        let test = match code {
            0x20 => {
                assert_eq!(k % 4, 0, "the kernel takes whole words only");
                accumulator = words[k as usize / 4];
                continue;
            }
            0x54 => {
                accumulator &= k;
                continue;
            }
            0x05 => {
                at += k as usize;
                continue;
            }
            0x06 => return k,
            0x15 => accumulator == k,
            0x25 => accumulator > k,
            0x35 => accumulator >= k,
            0x45 => accumulator & k != 0,
            other => panic!("an instruction {other:#x}"),
        };
        at += usize::from(if test { yes } else { no });
    }
}

/// A program for a host, with the values needed to call it.
struct Machine {
    native: Architecture,
    program: Vec<u64>,
}

impl Machine {
    fn new(native: Architecture, profile: &Value) -> Machine {
        let profile = serde_json::from_value(profile.clone()).unwrap();
        let compiled = oci::compile(&profile, native).unwrap();
        Machine { native, program: compiled.program }
    }

    fn x86_64(profile: &Value) -> Machine {
        Machine::new(Architecture::X86_64, profile)
    }

    fn number(&self, audit: u32, number: u32, arguments: [u64; 6]) -> u32 {
        run(&self.program, self.native.is_big_endian(), audit, number, arguments)
    }

    fn call_on(&self, architecture: Architecture, name: &str, arguments: &[u64]) -> u32 {
        let number = architecture.number(architecture::call(name).unwrap()).unwrap();
        let number = if architecture == Architecture::X32 { number | X32 } else { number };
        let mut all = [0; 6];
        all[..arguments.len()].copy_from_slice(arguments);
        self.number(architecture.audit(), number, all)
    }

    fn call(&self, name: &str, arguments: &[u64]) -> u32 {
        self.call_on(self.native, name, arguments)
    }
}

fn default_machine(native: Architecture, capabilities: u16) -> Machine {
    Machine { native, program: profile::filter(capabilities, native).compile().instructions }
}

fn only(capability: &str) -> u16 {
    1 << profile::WITH_CAPABILITY.iter().position(|(name, _)| *name == capability).unwrap()
}

#[test]
fn tables_are_sorted() {
    assert!(numbers::NUMBERS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert!(profile::ALWAYS.windows(2).all(|pair| pair[0] < pair[1]));
    let known = |name: &&str| architecture::call(name).is_some();
    assert!(profile::ALWAYS.iter().all(known));
    assert!(profile::WITH_CAPABILITY.iter().all(|(_, names)| names.iter().all(known)));
}

#[test]
fn the_default_profile_decides_as_docker_does() {
    let machine = default_machine(Architecture::X86_64, 0);
    for name in ["read", "openat", "execve", "futex", "ptrace", "openat2", "statx"] {
        assert_eq!(machine.call(name, &[]), ALLOW, "{name}");
    }
    for name in ["mount", "bpf", "keyctl", "reboot", "setns", "chroot", "io_uring_setup", "userfaultfd"] {
        assert_eq!(machine.call(name, &[]), EPERM, "{name}");
    }
    assert_eq!(machine.call("clone3", &[]), ENOSYS);
    assert_eq!(machine.call("clone", &[0x11]), ALLOW);
    assert_eq!(machine.call("clone", &[0x1000_0000]), EPERM, "a user namespace");
    for (family, decision) in [(2, ALLOW), (38, EPERM), (39, ALLOW), (40, EPERM), (41, ALLOW)] {
        assert_eq!(machine.call("socket", &[family]), decision, "{family}");
        let above = 1 << 32 | family;
        assert_eq!(machine.call("socket", &[above]), decision, "the kernel takes an `int`");
    }
    assert_eq!(machine.call("personality", &[0xffff_ffff]), ALLOW);
    assert_eq!(machine.call("personality", &[1]), EPERM);
    let newest = Architecture::X86_64.number(architecture::call("removexattrat").unwrap()).unwrap();
    assert_eq!(machine.call("removexattrat", &[]), ALLOW);
    assert_eq!(machine.number(0xc000_003e, newest + 1, [0; 6]), ENOSYS, "a call from the future");
    assert_eq!(machine.call_on(Architecture::X86, "read", &[]), ALLOW);
    assert_eq!(machine.call_on(Architecture::X32, "read", &[]), ENOSYS);
    assert_eq!(machine.number(0x1234, 0, [0; 6]), ENOSYS, "a foreign architecture");
}

#[test]
fn the_default_profile_fits_each_machine() {
    use Architecture::{Arm, Arm64, Loongarch64, Ppc64le, Riscv64, S390, S390x};
    for native in [Arm64, Riscv64, Loongarch64, Ppc64le, S390x] {
        let machine = default_machine(native, 0);
        for name in ["read", "openat", "execve", "futex"] {
            assert_eq!(machine.call(name, &[]), ALLOW, "{native:?} {name}");
        }
        assert_eq!(machine.call("mount", &[]), EPERM, "{native:?}");
        let flags = |flags| if native == S390x { [0, flags] } else { [flags, 0] };
        assert_eq!(machine.call("clone", &flags(0x11)), ALLOW, "{native:?}");
        assert_eq!(machine.call("clone", &flags(0x1000_0000)), EPERM, "{native:?}");
    }
    assert_eq!(default_machine(Arm64, 0).call_on(Arm, "set_tls", &[]), ALLOW);
    assert_eq!(default_machine(S390x, 0).call_on(S390, "read", &[]), ALLOW);
}

#[test]
fn capabilities_open_their_calls() {
    let machine = default_machine(Architecture::X86_64, only("CAP_SYS_ADMIN"));
    for name in ["mount", "clone3", "setns", "unshare"] {
        assert_eq!(machine.call(name, &[]), ALLOW, "{name}");
    }
    assert_eq!(machine.call("clone", &[0x1000_0000]), ALLOW);
}

#[test]
fn programs_of_the_default_profile_are_those_of_the_running_compiler() {
    for (capabilities, program) in PROGRAMS {
        assert_eq!(profile::filter(*capabilities, native()).compile().instructions, *program);
        let mask = profile::WITH_CAPABILITY
            .iter()
            .enumerate()
            .map(|(index, (name, _))| u64::from(capabilities >> index & 1) << capability::bit(name).unwrap());
        let mask: u64 = mask.sum();
        assert_eq!(default_program(mask), *program);
        // Capabilities that the profile does not use change nothing.
        assert_eq!(default_program(mask | 1), *program);
    }
    let rare = only("CAP_SYS_TIME");
    let mask = 1 << capability::bit("CAP_SYS_TIME").unwrap();
    assert_eq!(default_program(mask), profile::filter(rare, native()).compile().instructions);
}

#[test]
fn programs_are_short() {
    let length = |capabilities| default_machine(Architecture::X86_64, capabilities).program.len();
    assert!(length(0) < 200, "{}", length(0));
    assert!(length(u16::MAX) < 200, "{}", length(u16::MAX));
}

/// A rule for one call.
fn rule(name: &str, action: &str, args: Value) -> Value {
    json!({"names": [name], "action": format!("SCMP_ACT_{action}"), "args": args})
}

fn argument(index: usize, op: &str, value: u64) -> Value {
    json!({"index": index, "op": format!("SCMP_CMP_{op}"), "value": value})
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
        ("MASKED_EQ", 4, one + 4, vec![4, one + 4], vec![0, one]),
        ("GE", 0, 0, vec![0, u64::MAX], vec![]),
        ("GT", u64::MAX, 0, vec![], vec![0, u64::MAX]),
        ("LE", u64::MAX, 0, vec![0, u64::MAX], vec![]),
        ("LT", 0, 0, vec![], vec![0, u64::MAX]),
        ("GE", 2 * one, 0, vec![2 * one, u64::MAX], vec![0, 2 * one - 1]),
        ("GT", one - 1, 0, vec![one, u64::MAX], vec![0, one - 1]),
    ] {
        let mut argument = argument(1, op, value);
        argument["valueTwo"] = two.into();
        let machine = Machine::x86_64(&json!({
            "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule("read", "ALLOW", json!([argument]))],
        }));
        for argument in yes {
            assert_eq!(machine.call("read", &[0, argument]), ALLOW, "{op} {value:#x}: {argument:#x}");
        }
        for argument in no {
            assert_eq!(machine.call("read", &[0, argument]), EPERM, "{op} {value:#x}: {argument:#x}");
        }
    }
}

#[test]
fn narrow_architectures_compare_low_halves() {
    let minus_one = json!([argument(0, "EQ", u64::MAX)]);
    let machine = Machine::x86_64(&json!({
        "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"],
        "syscalls": [rule("read", "ALLOW", minus_one)],
    }));
    assert_eq!(machine.call_on(Architecture::X86, "read", &[0xffff_ffff]), ALLOW);
    assert_eq!(machine.call("read", &[0xffff_ffff]), EPERM);
    assert_eq!(machine.call("read", &[u64::MAX]), ALLOW);
}

#[test]
fn rules_of_one_call_are_alternatives() {
    let machine = Machine::x86_64(&json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        rule("read", "TRAP", json!([argument(0, "EQ", 1)])),
        rule("read", "KILL_PROCESS", json!([argument(0, "EQ", 2), argument(1, "GT", 7)])),
        rule("read", "KILL_PROCESS", json!([argument(0, "LE", 1)])),
    ]}));
    assert_eq!(machine.call("read", &[0]), 0x8000_0000);
    assert_eq!(machine.call("read", &[1]), 0x0003_0000, "the first that holds");
    assert_eq!(machine.call("read", &[2, 8]), 0x8000_0000);
    assert_eq!(machine.call("read", &[2, 7]), ALLOW);
    assert_eq!(machine.call("read", &[3]), ALLOW);
    assert_eq!(machine.number(0xc000_003e, 5000, [0; 6]), ALLOW);
}

#[test]
fn a_repeated_argument_makes_conditions_alternatives() {
    let conditions = [argument(0, "EQ", 1), argument(0, "EQ", 2), argument(1, "EQ", 3)];
    let machine = Machine::x86_64(&json!({
        "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule("read", "ALLOW", json!(conditions))],
    }));
    for (arguments, decision) in [([1, 0], ALLOW), ([2, 0], ALLOW), ([9, 3], ALLOW), ([9, 9], EPERM)] {
        assert_eq!(machine.call("read", &arguments), decision, "{arguments:?}");
    }
}

#[test]
fn rules_without_conditions_win() {
    let conditional = || rule("read", "TRAP", json!([argument(0, "EQ", 1)]));
    for rules in [
        [rule("read", "ALLOW", json!([])), conditional(), rule("read", "LOG", json!([]))],
        [conditional(), rule("read", "ALLOW", json!([])), rule("read", "LOG", json!([]))],
        [rule("read", "ERRNO", json!([])), conditional(), rule("read", "ALLOW", json!([]))],
    ] {
        let machine = Machine::x86_64(&json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}));
        assert_eq!(machine.call("read", &[1]), ALLOW, "{rules:?}");
    }
}

#[test]
fn every_action_has_its_value() {
    for (action, errno_ret, value) in [
        ("KILL", None, 0),
        ("KILL_THREAD", Some(7), 0),
        ("KILL_PROCESS", None, 0x8000_0000),
        ("TRAP", None, 0x0003_0000),
        ("ERRNO", None, EPERM),
        ("ERRNO", Some(0), errno(0)),
        ("ERRNO", Some(12345), errno(12345)),
        ("TRACE", None, 0x7ff0_0001),
        ("TRACE", Some(9), 0x7ff0_0009),
        ("LOG", None, 0x7ffc_0000),
        ("NOTIFY", None, 0x7fc0_0000),
    ] {
        let mut profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/agent", "syscalls": [
            {"names": ["read"], "action": format!("SCMP_ACT_{action}"), "errnoRet": errno_ret},
        ]});
        assert_eq!(Machine::x86_64(&profile).call("read", &[]), value, "{action}");
        if action != "NOTIFY" {
            profile["defaultAction"] = profile["syscalls"][0]["action"].clone();
            profile["defaultErrnoRet"] = errno_ret.into();
            assert_eq!(Machine::x86_64(&profile).call("write", &[]), value, "{action}");
        }
    }
}

#[test]
fn newer_calls_do_not_exist() {
    for (action, decision) in [
        ("ERRNO", ENOSYS),
        ("TRAP", ENOSYS),
        ("KILL", ENOSYS),
        ("KILL_PROCESS", ENOSYS),
        ("ALLOW", ALLOW),
        ("LOG", 0x7ffc_0000),
        ("TRACE", 0x7ff0_0001),
    ] {
        let machine = Machine::x86_64(&json!({
            "defaultAction": format!("SCMP_ACT_{action}"),
            // Named, though it is left to the default action.
            "syscalls": [rule("close", action, json!([])), rule("write", "LOG", json!([]))],
        }));
        assert_eq!(machine.number(0xc000_003e, 4, [0; 6]), decision, "{action}");
        assert_ne!(machine.number(0xc000_003e, 3, [0; 6]), ENOSYS, "{action}");
    }
    let machine = Machine::x86_64(&json!({
        "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule("nonesuch", "ALLOW", json!([]))],
    }));
    assert_eq!(machine.number(0xc000_003e, 4, [0; 6]), EPERM, "nothing is known to be newer than");
}

#[test]
fn only_architectures_in_the_profile_live() {
    let profile = |architectures: &[&str]| {
        json!({
            "defaultAction": "SCMP_ACT_ERRNO", "architectures": architectures,
            "syscalls": [rule("read", "ALLOW", json!([])), rule("close", "ALLOW", json!([]))],
        })
    };
    let decisions = |architectures: &[&str]| {
        let machine = Machine::x86_64(&profile(architectures));
        [Architecture::X86_64, Architecture::X86, Architecture::X32]
            .map(|architecture| machine.call_on(architecture, "read", &[]))
    };
    assert_eq!(decisions(&[]), [ALLOW, KILL_THREAD, KILL_THREAD]);
    assert_eq!(decisions(&["SCMP_ARCH_NATIVE"]), [ALLOW, KILL_THREAD, KILL_THREAD]);
    assert_eq!(decisions(&["SCMP_ARCH_X86"]), [ALLOW, ALLOW, KILL_THREAD], "the native one is implied");
    assert_eq!(decisions(&["SCMP_ARCH_X32", "SCMP_ARCH_X86_64"]), [ALLOW, KILL_THREAD, ALLOW]);
    assert_eq!(decisions(&["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_X86"]), [ALLOW; 3]);
    // Architectures that this host cannot run, with or without a table.
    let foreign = [
        "ARM",
        "AARCH64",
        "MIPS",
        "MIPS64",
        "MIPS64N32",
        "MIPSEL",
        "MIPSEL64",
        "MIPSEL64N32",
        "PPC",
        "PPC64",
        "PPC64LE",
        "S390",
        "S390X",
        "PARISC",
        "PARISC64",
        "RISCV64",
        "LOONGARCH64",
        "M68K",
        "SH",
        "SHEB",
    ];
    let foreign = foreign.map(|name| format!("SCMP_ARCH_{name}"));
    let foreign: Vec<&str> = foreign.iter().map(String::as_str).collect();
    assert_eq!(decisions(&foreign), [ALLOW, KILL_THREAD, KILL_THREAD]);
    assert_eq!(Machine::x86_64(&profile(&foreign)).program, Machine::x86_64(&profile(&[])).program);

    let machine = Machine::x86_64(&profile(&[]));
    assert_eq!(machine.number(0xc000_003e, u32::MAX, [0; 6]), EPERM, "a call that a tracer has cancelled");
}

#[test]
fn multiplexed_calls_follow_those_behind_them() {
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "syscalls": [
        rule("socket", "ERRNO", json!([])), rule("shmat", "TRAP", json!([argument(0, "EQ", 7)])),
    ]});
    let machine = Machine::x86_64(&profile);
    assert_eq!(machine.call_on(Architecture::X86, "socketcall", &[1]), EPERM);
    assert_eq!(machine.call_on(Architecture::X86, "socketcall", &[2]), ALLOW);
    assert_eq!(machine.call_on(Architecture::X86, "ipc", &[21]), 0x0003_0000, "whatever is attached");
    assert_eq!(machine.call("socket", &[]), EPERM);
}

fn compiled(profile: Value) -> Result<Compiled, SeccompError> {
    compile_profile(&serde_json::from_value(profile).unwrap())
}

#[test]
fn profiles_that_make_no_sense_are_refused() {
    let with = |rule: Value| compiled(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}));
    let error = with(rule("read", "TRAP", json!([argument(6, "EQ", 0)])));
    assert_eq!(error, Err(SeccompError::Argument { name: "read".into(), index: 6 }));
    assert_eq!(with(rule("", "TRAP", json!([]))), Err(SeccompError::EmptyName));
    let mut errno = rule("read", "ERRNO", json!([]));
    errno["errnoRet"] = 65536.into();
    assert_eq!(with(errno), Err(SeccompError::Errno { name: "read".into(), errno: 65536 }));
    let error = compiled(json!({"defaultAction": "SCMP_ACT_TRACE", "defaultErrnoRet": 65536}));
    assert_eq!(error, Err(SeccompError::Errno { name: "defaultAction".into(), errno: 65536 }));

    let many: Vec<Value> =
        (0..5000).map(|value| rule("read", "TRAP", json!([argument(0, "EQ", value << 8)]))).collect();
    let error = compiled(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": many})).unwrap_err();
    assert!(matches!(error, SeccompError::TooLong(length) if length > 4096), "{error}");

    let unknown = |profile: Value| serde_json::from_value::<LinuxSeccomp>(profile).unwrap_err().to_string();
    let error = unknown(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_NEW"]}));
    assert!(error.contains("unknown variant `SECCOMP_FILTER_FLAG_NEW`"), "{error}");
    let error = unknown(json!({"defaultAction": "SCMP_ACT_PANIC"}));
    assert!(error.contains("unknown variant `SCMP_ACT_PANIC`"), "{error}");
}

#[test]
fn names_that_nobody_knows_are_told() {
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["read", "nonesuch", "set_tls"], "action": "SCMP_ACT_ALLOW"},
    ]});
    assert_eq!(compiled(profile).unwrap().unknown, ["nonesuch"]);
}

#[test]
fn asking_needs_somebody_to_ask() {
    let asking = |name: &str, path: Value, metadata: Value| {
        compiled(json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": metadata,
            "syscalls": [rule(name, "NOTIFY", json!([]))],
        }))
    };
    let null = Value::Null;
    let listener = asking("mkdir", json!("/agent"), json!("x")).unwrap().listener;
    assert_eq!(listener, Some(Listener { path: "/agent".into(), metadata: Some("x".into()) }));
    assert_eq!(asking("mkdir", null.clone(), null.clone()), Err(SeccompError::NoListener));
    assert_eq!(asking("mkdir", json!(""), null.clone()), Err(SeccompError::NoListener));
    assert_eq!(asking("mkdir", null.clone(), json!("x")), Err(SeccompError::Metadata));
    assert_eq!(asking("write", json!("/agent"), null), Err(SeccompError::NotifyWrite));
    let error = compiled(json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/agent"}));
    assert_eq!(error, Err(SeccompError::NotifyByDefault));
    let silent = compiled(json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/agent"})).unwrap();
    assert_eq!(silent.listener, None, "a path that no rule needs");
}

#[test]
fn flags_are_bits() {
    let all = ["TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV"]
        .map(|flag| format!("SECCOMP_FILTER_FLAG_{flag}"));
    let flags = |flags: Value, action: &str| {
        let rules = [rule("mkdir", action, json!([]))];
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/a", "flags": flags, "syscalls": rules});
        compiled(profile).unwrap().flags
    };
    assert_eq!(flags(Value::Null, "TRAP"), DEFAULT_FLAGS);
    assert_eq!(flags(json!([]), "TRAP"), 0);
    assert_eq!(flags(json!([all[1]]), "TRAP"), 1 << 1);
    assert_eq!(flags(json!(all), "TRAP"), 0b111, "nobody waits for an answer");
    assert_eq!(flags(json!(all), "NOTIFY"), 0b10_0110, "the kernel takes no TSYNC then");
}
