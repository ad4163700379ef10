//! Tests of profiles in Docker's format.

use super::super::docker::{Machine, read};
use super::*;

fn machine() -> Machine {
    let has = |name: &str| 1 << capability::bit(name).unwrap();
    Machine {
        native: Architecture::X86_64,
        capabilities: has("CAP_SYS_CHROOT") | has("CAP_SYS_TIME"),
        kernel: (5, 10),
    }
}

/// Indices of the rules that apply.
fn staying(filters: &[Value]) -> Vec<usize> {
    let rules: Vec<Value> = filters
        .iter()
        .enumerate()
        .map(|(index, filter)| {
            let mut rule = json!({"names": [format!("{index}")], "action": "SCMP_ACT_ALLOW"});
            rule.as_object_mut().unwrap().extend(filter.as_object().unwrap().clone());
            rule
        })
        .collect();
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}).to_string();
    let profile = read(&profile, &machine()).unwrap();
    let names = profile.syscalls().iter().flatten().flat_map(|rule| rule.names());
    names.map(|name| name.parse().unwrap()).collect()
}

#[test]
fn rules_are_for_some_machines() {
    let filters = [
        (json!({}), true),
        (json!({"includes": null, "excludes": {}}), true),
        (json!({"includes": {"caps": [], "arches": null, "minKernel": ""}}), true),
        (json!({"includes": {"caps": ["CAP_SYS_CHROOT", "CAP_SYS_TIME"]}}), true),
        (json!({"includes": {"caps": ["CAP_SYS_CHROOT", "CAP_BPF"]}}), false),
        (json!({"includes": {"caps": ["CAP_NONESUCH"]}}), false),
        (json!({"excludes": {"caps": ["CAP_BPF", "CAP_SYS_TIME"]}}), false),
        (json!({"excludes": {"caps": ["CAP_BPF", "CAP_NONESUCH"]}}), true),
        (json!({"includes": {"arches": ["arm64", "amd64"]}}), true),
        (json!({"includes": {"arches": ["arm64", "x86", "x32"]}}), false),
        (json!({"excludes": {"arches": ["arm64", "amd64"]}}), false),
        (json!({"excludes": {"arches": ["arm64"]}}), true),
        (json!({"includes": {"minKernel": "5.10"}}), true),
        (json!({"includes": {"minKernel": "4.200"}}), true),
        (json!({"includes": {"minKernel": "5.11"}}), false),
        (json!({"excludes": {"minKernel": "5.10"}}), false),
        (json!({"excludes": {"minKernel": "6.0"}}), true),
        (json!({"includes": {"arches": ["amd64"], "caps": ["CAP_BPF"]}}), false),
        (json!({"includes": {"arches": ["amd64"]}, "excludes": {"caps": ["CAP_SYS_TIME"]}}), false),
        (json!({"includes": {"arches": ["amd64"]}, "excludes": {"caps": ["CAP_BPF"]}}), true),
    ];
    let expected: Vec<usize> = (0..filters.len()).filter(|index| filters[*index].1).collect();
    assert_eq!(staying(&filters.map(|(filter, _)| filter)), expected);
}

#[test]
fn the_rest_is_passed_on() {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
        "archMap": [
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
            {"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": null},
        ],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "listenerPath": "/agent", "listenerMetadata": "x",
        "syscalls": [
            {"names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "comment": "none", "args": [
                {"index": 5, "value": 18_446_744_073_709_551_615u64, "valueTwo": 7, "op": "SCMP_CMP_MASKED_EQ"},
            ]},
            {"name": "read", "names": null, "action": "SCMP_ACT_ALLOW", "args": null},
        ],
    });
    let expected = json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "listenerPath": "/agent", "listenerMetadata": "x",
        "syscalls": [
            {"names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "args": [
                {"index": 5, "value": 18_446_744_073_709_551_615u64, "valueTwo": 7, "op": "SCMP_CMP_MASKED_EQ"},
            ]},
            {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
        ],
    });
    let profile = read(&profile.to_string(), &machine()).unwrap();
    assert_eq!(serde_json::to_value(&profile).unwrap(), expected);
}

#[test]
fn a_profile_may_be_in_the_other_form_or_empty() {
    let text = r#"{"defaultAction":"SCMP_ACT_LOG","architectures":["SCMP_ARCH_X86"],"archMap":[]}"#;
    let profile = read(text, &machine()).unwrap();
    assert_eq!(profile.architectures().as_ref().unwrap().len(), 1);
    let profile = read("{}", &machine()).unwrap();
    // On x86-64 two more instructions detect x32 calls.
    let rest = if cfg!(target_arch = "x86_64") { 2 } else { 0 };
    assert_eq!(compile_profile(&profile).unwrap().program.len(), 5 + rest);
}

#[test]
fn errors_say_where() {
    let full = r#"{
  "defaultAction": "SCMP_ACT_ERRNO",
  "archMap": [
    {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}
  ],
  "syscalls": [
    {"names": ["read"], "action": "SCMP_ACT_ALLOW", "comment": "a \"quoted\" one: {,}"},
    {
      "names": ["write"],
      "action": "SCMP_ACT_ALLOW",
      "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 2, "op": "SCMP_CMP_NE"}],
      "includes": {"minKernel": "4.8"}
    }
  ]
}"#;
    assert!(read(full, &machine()).is_ok());
    for (from, to, expected) in [
        ("ACT_ERRNO", "ACT_EERRNO", "line 2: `defaultAction`: unknown variant `SCMP_ACT_EERRNO`"),
        ("\"SCMP_ARCH_X86\"", "7", "line 4: `archMap[0].subArchitectures[0]`: expected value"),
        ("ARCH_X86_64", "ARCH_Z80", "line 4: `archMap[0].architecture`: unknown variant `SCMP_ARCH_Z80`"),
        ("[\"read\"]", "\"read\"", "line 7: `syscalls[0].names`: invalid type: string \"read\""),
        ("[\"read\"]", "[\"\"]", "line 7: `syscalls[0]`: a call with an empty name"),
        (
            "\"names\": [\"read\"]",
            "\"names\": [\"read\"], \"name\": \"x\"",
            "line 7: `syscalls[0]`: both `name` and",
        ),
        ("CMP_NE", "CMP_XX", "line 11: `syscalls[1].args[1].op`: unknown variant `SCMP_CMP_XX`"),
        (
            "\"index\": 1",
            "\"index\": 6",
            "line 11: `syscalls[1].args[1].index`: invalid value: integer `6`, expected an argument from 0",
        ),
        (
            "\"value\": 2",
            "\"value\": -2",
            "line 11: `syscalls[1].args[1].value`: invalid value: integer `-2`",
        ),
        ("\"index\": 1, ", "", "line 11: `syscalls[1].args[1]`: missing field `index`"),
        (
            "4.8",
            "4",
            "line 12: `syscalls[1].includes.minKernel`: invalid value: string \"4\", expected a kernel",
        ),
        ("4.8", "0.0", "line 12: `syscalls[1].includes.minKernel`: invalid value: string \"0.0\""),
        ("4.8", "4.8.1", "line 12: `syscalls[1].includes.minKernel`: invalid value: string \"4.8.1\""),
        ("\"4.8\"", "4.8", "line 12: `syscalls[1].includes.minKernel`: invalid type: floating point `4.8`"),
        ("\"defaultAction\": \"SCMP_ACT_ERRNO\",", "", "line 15: `profile`: missing field `defaultAction`"),
        (
            "\"archMap\"",
            "\"architectures\": [\"SCMP_ARCH_X86\"], \"archMap\"",
            "line 15: `profile`: both `architectures`",
        ),
        ("\"action\": \"SCMP_ACT_ALLOW\",\n", "", "line 12: `syscalls[1]`: missing field `action`"),
        ("\n  ]\n}", "\n  ]\n", "line 15: `syscalls`: EOF while parsing an object"),
        ("\"names\": [\"write\"],", "\"names\": [\"write\"]", "line 10: `syscalls[1]"),
    ] {
        let text = full.replacen(from, to, 1);
        assert_ne!(text, full, "{from}");
        let error = read(&text, &machine()).err().map(|error| error.to_string()).unwrap_or_default();
        let expected = format!("seccomp profile, {expected}");
        assert!(error.starts_with(&expected), "{from} -> {to}\n  {error}\n  {expected}");
    }
}
