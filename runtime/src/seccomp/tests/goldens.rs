//! Decisions of libseccomp, recorded by `scripts/seccomp/record.py`.

use super::*;
use std::path::{Path, PathBuf};

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/seccomp")
}

/// Default profile for Docker's capabilities, in the format of the runtime specification.
fn default_profile() -> Value {
    let filter = profile::filter(only("CAP_SYS_CHROOT"), Architecture::X86_64);
    let mut rules = Vec::new();
    for rule in &filter.rules {
        let (action, errno) = match rule.action {
            Action::Allow => ("SCMP_ACT_ALLOW", Value::Null),
            Action::Errno(errno) => ("SCMP_ACT_ERRNO", errno.into()),
            other => panic!("{other:?}"),
        };
        let mut group = json!({"names": rule.names, "action": action});
        if !errno.is_null() {
            group["errnoRet"] = errno;
        }
        if rule.alternatives.is_empty() {
            rules.push(group.clone());
        }
        for conditions in &rule.alternatives {
            group["args"] = conditions.iter().map(written).collect();
            rules.push(group.clone());
        }
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    })
}

fn written(condition: &Condition) -> Value {
    let (op, value) = match condition.comparison {
        Comparison::Equal(value) => ("EQ", value),
        Comparison::Less(value) => ("LT", value),
        Comparison::Greater(value) => ("GT", value),
        Comparison::Masked(value, 0) => ("MASKED_EQ", value),
        other => panic!("{other:?}"),
    };
    argument(condition.argument.into(), op, value)
}

/// `BLESS=1` writes the file; `record.py` must be run afterwards.
#[test]
fn the_default_profile_is_among_the_cases() {
    let path = dir().join("default/profile.json");
    let mut text = serde_json::to_string_pretty(&default_profile()).unwrap();
    text.push('\n');
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    assert!(std::fs::read_to_string(&path).unwrap() == text, "BLESS=1 writes {} anew", path.display());
}

#[test]
fn decisions_are_those_of_libseccomp() {
    let mut cases = 0;
    for entry in std::fs::read_dir(dir()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            check(&path);
            cases += 1;
        }
    }
    assert!(cases >= 6, "{cases} cases");
}

fn check(path: &Path) {
    let profile = std::fs::read_to_string(path.join("profile.json")).unwrap();
    let mut profile: Value = serde_json::from_str(&profile).unwrap();
    let decisions = std::fs::read_to_string(path.join("decisions.txt")).unwrap();
    let mut lines = decisions.lines();
    let unknown: Vec<&str> = lines.next().unwrap().split(' ').skip(1).collect();
    for group in profile["syscalls"].as_array_mut().unwrap() {
        group["names"].as_array_mut().unwrap().retain(|name| !unknown.contains(&name.as_str().unwrap()));
    }
    profile["listenerPath"] = "/agent".into();
    let native = match profile["architectures"][0].as_str().unwrap() {
        "SCMP_ARCH_X86_64" => Architecture::X86_64,
        "SCMP_ARCH_AARCH64" => Architecture::Arm64,
        "SCMP_ARCH_S390X" => Architecture::S390x,
        "SCMP_ARCH_PPC64LE" => Architecture::Ppc64le,
        other => panic!("{other}"),
    };
    let machine = Machine::new(native, &profile);
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let hex = |word: &str| u64::from_str_radix(word, 16).unwrap();
        let audit = hex(words[0]) as u32;
        let (first, last): (u32, u32) =
            (words[1].parse().unwrap(), words[words.len().min(4) - 2].parse().unwrap_or(0));
        match words.len() {
            4 => (first..=last).for_each(|number| {
                let ours = machine.number(audit, number, [0; 6]);
                assert_eq!(u64::from(ours), hex(words[3]), "{}: {line}: {number}", path.display());
            }),
            _ => {
                let arguments: Vec<u64> = words[2..8].iter().map(|word| hex(word)).collect();
                let ours = machine.number(audit, first, arguments.try_into().unwrap());
                assert_eq!(u64::from(ours), hex(words[8]), "{}: {line}", path.display());
            }
        }
    }
}
