//! Configurations that are wrong or hostile: each is refused with one line that names what is wrong, and nothing is
//! left of it.

use crate::bad_bundles::refused;
use crate::fixture::new_id;
use kiln_runtime::host::{Feature, Host};
use serde_json::{Value, json};

/// A change to the default configuration, and what the one line on standard error must hold.
type Case = (&'static str, Change, &'static str);

type Change = fn(&mut Value);

fn linux(config: &mut Value, key: &str, value: Value) {
    config["linux"][key] = value;
}

fn process(config: &mut Value, key: &str, value: Value) {
    config["process"][key] = value;
}

fn resources(config: &mut Value, key: &str, value: Value) {
    config["linux"]["resources"][key] = value;
}

fn namespace(config: &mut Value, value: Value) {
    config["linux"]["namespaces"].as_array_mut().unwrap().push(value);
}

/// Joins the network namespace at `path`.
fn network(config: &mut Value, path: &str) {
    config["linux"]["namespaces"][1] = json!({"type": "network", "path": path});
}

fn users(config: &mut Value, users: Value, groups: Value) {
    namespace(config, json!({"type": "user"}));
    linux(config, "uidMappings", users);
    linux(config, "gidMappings", groups);
}

fn rule(config: &mut Value, rule: Value) {
    linux(config, "seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}));
}

fn mount(config: &mut Value, mount: Value) {
    config["mounts"].as_array_mut().unwrap().push(mount);
}

fn limit(config: &mut Value, name: &str, soft: Value, hard: Value) {
    process(config, "rlimits", json!([{"type": name, "soft": soft, "hard": hard}]));
}

fn hook(config: &mut Value, kind: &str, path: &str) {
    config["hooks"] = json!({kind: [{"path": path}]});
}

fn check(name: &str, cases: &[Case]) {
    let fixture = fixture!();
    let mut bundle = fixture.bundle("echo ok");
    let good = bundle.config.clone();
    let before = fixture.traces(name);
    for (what, change, expected) in cases {
        bundle.config = good.clone();
        change(&mut bundle.config);
        let done = refused(&fixture, &bundle, name, what);
        let line = done.err.replace(bundle.dir.to_str().unwrap(), "BUNDLE");
        assert!(line.contains(expected), "{what}: {line:?} does not hold {expected:?}");
    }
    assert_eq!(fixture.traces(name), before);
}

#[test]
fn namespaces_that_cannot_be() {
    check(
        "namespaces-that-cannot-be",
        &[
            (
                "kind",
                |c| namespace(c, json!({"type": "nope"})),
                "`BUNDLE/config.json` is not a valid container configuration: unknown variant `nope`",
            ),
            ("twice", |c| namespace(c, json!({"type": "pid"})), "lists the pid namespace twice"),
            ("relative", |c| network(c, "proc/x"), "namespace path `proc/x` is not an absolute path"),
            ("missing", |c| network(c, "/no/ns"), "open `/no/ns`: no such file or directory"),
            (
                "another kind",
                |c| network(c, "/proc/self/ns/uts"),
                "cannot join `/proc/self/ns/uts`: it is not a namespace of the kind",
            ),
            ("no namespace", |c| network(c, "/etc/passwd"), "cannot join `/etc/passwd`"),
            (
                "no pid namespace",
                |c| c["linux"]["namespaces"][0] = json!({"type": "pid", "path": "/etc/passwd"}),
                "cannot join `/etc/passwd`",
            ),
            (
                "no mounts",
                |c| linux(c, "namespaces", json!([{"type": "pid"}])),
                "sharing the host's mounts, which is not supported",
            ),
            (
                "no users",
                |c| users(c, json!([]), json!([{"containerID": 0, "hostID": 0, "size": 1}])),
                "no uidMappings",
            ),
            (
                "host name elsewhere",
                |c| linux(c, "sysctl", json!({"kernel.hostname": "other"})),
                "sysctl `kernel.hostname` is not allowed as it conflicts with the field `hostname`",
            ),
            (
                "two domains",
                |c| {
                    c["domainname"] = json!("one");
                    linux(c, "sysctl", json!({"kernel/domainname": "other"}));
                },
                "sysctl `kernel/domainname` is not allowed as it conflicts with the field `domainname`",
            ),
            (
                "no groups",
                |c| users(c, json!([{"containerID": 0, "hostID": 0, "size": 1}]), json!([])),
                "no gidMappings",
            ),
            (
                "overlap",
                |c| {
                    let overlapping = json!([
                        {"containerID": 0, "hostID": 0, "size": 10},
                        {"containerID": 5, "hostID": 100, "size": 10},
                    ]);
                    users(c, overlapping, json!([{"containerID": 0, "hostID": 0, "size": 10}]));
                },
                "the uidMappings `5 100 10` overlap with others",
            ),
            (
                "size 0",
                |c| {
                    let one = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
                    users(c, one, json!([{"containerID": 0, "hostID": 0, "size": 0}]));
                },
                "the gidMappings `0 0 0` map no id at all",
            ),
            (
                "too far",
                |c| {
                    let far = json!([{"containerID": 4_294_967_000_u32, "hostID": 0, "size": 1000}]);
                    users(c, far, json!([{"containerID": 0, "hostID": 0, "size": 1}]));
                },
                "the uidMappings `4294967000 0 1000` go beyond the largest id",
            ),
            (
                "no root",
                |c| {
                    let ten = json!([{"containerID": 10, "hostID": 100_000, "size": 10}]);
                    users(c, ten.clone(), ten);
                },
                "the gid 0 of the container is not mapped",
            ),
            (
                "offsets alone",
                |c| linux(c, "timeOffsets", json!({"boottime": {"secs": 5}})),
                "timeOffsets needs a time namespace",
            ),
            (
                "clock",
                |c| {
                    namespace(c, json!({"type": "time"}));
                    linux(c, "timeOffsets", json!({"wallclock": {"secs": 5}}));
                },
                "write `/proc/self/timens_offsets`: invalid argument",
            ),
            (
                "before time",
                |c| {
                    namespace(c, json!({"type": "time"}));
                    linux(c, "timeOffsets", json!({"boottime": {"secs": -99_999_999_999_i64}}));
                },
                "write `/proc/self/timens_offsets`: numerical result out of range",
            ),
            (
                "name of the host",
                |c| linux(c, "namespaces", json!([{"type": "pid"}, {"type": "mount"}])),
                "hostname needs a uts namespace",
            ),
            ("long name", |c| c["hostname"] = json!("x".repeat(100)), "sethostname `xxx"),
            (
                "parameter of the host",
                |c| linux(c, "sysctl", json!({"kernel.panic": "1"})),
                "kernel parameter `kernel.panic` is not separate",
            ),
            (
                "parameter by a way around",
                |c| linux(c, "sysctl", json!({"net/../kernel/panic": "1"})),
                "`net/../kernel/panic` is not separate",
            ),
            (
                "parameter's value",
                |c| linux(c, "sysctl", json!({"kernel.msgmax": "abc"})),
                "write `/proc/sys/kernel/msgmax`: invalid argument",
            ),
            (
                "parameter that is none",
                |c| linux(c, "sysctl", json!({"net.nope": "1"})),
                "write `/proc/sys/net/nope`: no such file",
            ),
        ],
    );
}

#[test]
fn filters_that_cannot_be() {
    check(
        "filters-that-cannot-be",
        &[
            (
                "action",
                |c| linux(c, "seccomp", json!({"defaultAction": "SCMP_ACT_NOPE"})),
                "unknown variant `SCMP_ACT_NOPE`",
            ),
            (
                "operator",
                |c| {
                    let args = json!([{"index": 0, "value": 1, "op": "SCMP_CMP_NOPE"}]);
                    rule(c, json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": args}));
                },
                "unknown variant `SCMP_CMP_NOPE`",
            ),
            (
                "argument",
                |c| {
                    let args = json!([{"index": 9, "value": 1, "op": "SCMP_CMP_EQ"}]);
                    rule(c, json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": args}));
                },
                "the seccomp rule for `read` is about argument 9",
            ),
            (
                "architecture",
                |c| {
                    linux(
                        c,
                        "seccomp",
                        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_VAX"]}),
                    )
                },
                "unknown variant `SCMP_ARCH_VAX`",
            ),
            (
                "flag",
                |c| {
                    linux(
                        c,
                        "seccomp",
                        json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_NOPE"]}),
                    )
                },
                "unknown variant `SECCOMP_FILTER_FLAG_NOPE`",
            ),
            (
                "errno",
                |c| rule(c, json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99_999_999})),
                "the seccomp rule for `read` has errnoRet 99999999",
            ),
            (
                "nobody's name",
                |c| rule(c, json!({"names": [""], "action": "SCMP_ACT_ERRNO"})),
                "a call with an empty name",
            ),
            (
                "ask about all",
                |c| linux(c, "seccomp", json!({"defaultAction": "SCMP_ACT_NOTIFY"})),
                "SCMP_ACT_NOTIFY cannot be the default action",
            ),
            (
                "ask about write",
                |c| rule(c, json!({"names": ["write"], "action": "SCMP_ACT_NOTIFY"})),
                "cannot be used for the write syscall",
            ),
            (
                "ask nobody",
                |c| rule(c, json!({"names": ["read"], "action": "SCMP_ACT_NOTIFY"})),
                "needs a listenerPath",
            ),
            (
                "ask somebody who is not there",
                |c| {
                    rule(c, json!({"names": ["getcwd"], "action": "SCMP_ACT_NOTIFY"}));
                    c["linux"]["seccomp"]["listenerPath"] = json!("/no/agent");
                },
                "failed to connect with seccomp agent: cannot connect to `/no/agent`: no such file or directory",
            ),
        ],
    );
}

#[test]
fn processes_that_cannot_be() {
    check(
        "processes-that-cannot-be",
        &[
            ("none", |c| drop(c.as_object_mut().unwrap().remove("process")), "has no `process`"),
            (
                "no directory",
                |c| drop(c["process"].as_object_mut().unwrap().remove("cwd")),
                "missing field `cwd`",
            ),
            (
                "relative directory",
                |c| process(c, "cwd", json!("tmp")),
                "working directory `tmp` is not an absolute path",
            ),
            (
                "empty directory",
                |c| process(c, "cwd", json!("")),
                "working directory `` is not an absolute path",
            ),
            (
                "directory that is a file",
                |c| process(c, "cwd", json!("/etc/passwd")),
                "chdir `/etc/passwd`: not a directory",
            ),
            ("directory of the host", |c| process(c, "cwd", json!("/proc/self/fd/3")), "proc/self/fd/3"),
            ("no program", |c| drop(c["process"].as_object_mut().unwrap().remove("args")), "has no `args`"),
            ("empty program", |c| process(c, "args", json!([])), "has no `args`"),
            (
                "program that is no list",
                |c| process(c, "args", json!("sh")),
                "invalid type: string \"sh\", expected a sequence",
            ),
            (
                "NUL in an argument",
                |c| process(c, "args", json!(["/bin/sh", "a\0b"])),
                "a text with a NUL character in it at line 1 column",
            ),
            ("NUL in the environment", |c| process(c, "env", json!(["A=\0"])), "a text with a NUL character"),
            ("NUL in a name", |c| c["hostname"] = json!("a\0b"), "a text with a NUL character"),
            (
                "user's number",
                |c| c["process"]["user"]["uid"] = json!(-1),
                "invalid value: integer `-1`, expected u32",
            ),
            (
                "nobody",
                |c| c["process"]["user"]["uid"] = json!(u32::MAX),
                "no user and no group can have the id 4294967295",
            ),
            (
                "nobody's group",
                |c| c["process"]["user"]["additionalGids"] = json!([1, u32::MAX]),
                "can have the id 4294967295",
            ),
            (
                "user's name",
                |c| c["process"]["user"]["uid"] = json!("root"),
                "invalid type: string \"root\", expected u32",
            ),
            (
                "limit's name",
                |c| limit(c, "RLIMIT_NOPE", json!(1), json!(1)),
                "unknown variant `RLIMIT_NOPE`",
            ),
            (
                "limit's order",
                |c| limit(c, "RLIMIT_NOFILE", json!(20), json!(10)),
                "setrlimit `RLIMIT_NOFILE`: invalid argument",
            ),
            (
                "absurd limit",
                |c| limit(c, "RLIMIT_NOFILE", json!(1_u64 << 62), json!(1_u64 << 62)),
                "setrlimit `RLIMIT_NOFILE`: operation not permitted",
            ),
            (
                "negative limit",
                |c| limit(c, "RLIMIT_NOFILE", json!(-1), json!(-1)),
                "invalid value: integer `-1`, expected u64",
            ),
            ("half a limit", |c| limit(c, "RLIMIT_NOFILE", json!(1.5), json!(2)), "floating point `1.5`"),
            (
                "limit twice",
                |c| {
                    let one = json!({"type": "RLIMIT_CORE", "soft": 0, "hard": 0});
                    process(c, "rlimits", json!([one.clone(), one]));
                },
                "sets the limit RLIMIT_CORE twice",
            ),
            (
                "capabilities that are no list",
                |c| c["process"]["capabilities"]["bounding"] = json!("CAP_KILL"),
                "expected a sequence",
            ),
            (
                "scheduler",
                |c| process(c, "scheduler", json!({"policy": "SCHED_NOPE"})),
                "unknown variant `SCHED_NOPE`",
            ),
            (
                "scheduler of no Linux",
                |c| process(c, "scheduler", json!({"policy": "SCHED_ISO"})),
                "SCHED_ISO",
            ),
            (
                "scheduler's values",
                |c| process(c, "scheduler", json!({"policy": "SCHED_FIFO", "priority": 500})),
                "sched_setattr `policy 1 nice 0 priority 500`: invalid argument",
            ),
            (
                "class",
                |c| process(c, "ioPriority", json!({"class": "NOPE", "priority": 1})),
                "unknown variant `NOPE`",
            ),
            (
                "priority",
                |c| process(c, "ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 9})),
                "the I/O priority 9 (0 to 7 exist)",
            ),
            ("processors", |c| process(c, "execCPUAffinity", json!({"initial": "a-b"})), "a-b"),
            (
                "domain",
                |c| linux(c, "personality", json!({"domain": "PER_NOPE"})),
                "unknown variant `PER_NOPE`",
            ),
            (
                "personality flags",
                |c| linux(c, "personality", json!({"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]})),
                "flags of a personality, of which none exist",
            ),
            (
                "memory policy",
                |c| linux(c, "memoryPolicy", json!({"mode": "MPOL_NOPE"})),
                "unknown variant `MPOL_NOPE`",
            ),
            (
                "memory nodes",
                |c| linux(c, "memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "x"})),
                "memory policy nodes",
            ),
            (
                "memory nodes that are none",
                |c| linux(c, "memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "99"})),
                "set_mempolicy",
            ),
            ("score", |c| process(c, "oomScoreAdj", json!(5000)), "oom_score_adj`: invalid argument"),
            (
                "mask",
                |c| c["process"]["user"]["umask"] = json!(-1),
                "invalid value: integer `-1`, expected u32",
            ),
            ("terminal for nobody", |c| process(c, "terminal", json!("yes")), "expected a boolean"),
        ],
    );
}

#[test]
fn file_trees_that_cannot_be() {
    check(
        "file-trees-that-cannot-be",
        &[
            ("none", |c| drop(c.as_object_mut().unwrap().remove("root")), "has no `root`"),
            ("empty", |c| c["root"]["path"] = json!(""), "has no `root path`"),
            (
                "missing",
                |c| c["root"]["path"] = json!("nope"),
                "cannot use the root file system `BUNDLE/nope`: no such file or directory",
            ),
            ("a file", |c| c["root"]["path"] = json!("config.json"), "`BUNDLE/config.json`: not a directory"),
            ("propagation", |c| linux(c, "rootfsPropagation", json!("nope")), "root propagation `nope`"),
            (
                "relative",
                |c| mount(c, json!({"destination": "x", "type": "tmpfs"})),
                "mount destination `x` is not an absolute path",
            ),
            ("no type", |c| mount(c, json!({"destination": "/x"})), "the mount on `/x` has no type"),
            (
                "no source",
                |c| mount(c, json!({"destination": "/x", "type": "bind"})),
                "the bind mount on `/x` has no source",
            ),
            (
                "missing source",
                |c| mount(c, json!({"destination": "/x", "type": "bind", "source": "/no/such"})),
                "cannot mount `/no/such` on `/x`: no such file or directory",
            ),
            (
                "file system",
                |c| mount(c, json!({"destination": "/x", "type": "nopefs", "source": "x"})),
                "cannot mount nopefs on `/x`: this kernel has no file system `nopefs`",
            ),
            (
                "option",
                |c| mount(c, json!({"destination": "/x", "type": "tmpfs", "options": ["nope=1"]})),
                "cannot mount tmpfs on `/x`: tmpfs: Unknown parameter 'nope'",
            ),
            (
                "value",
                |c| mount(c, json!({"destination": "/x", "type": "tmpfs", "options": ["size=abc"]})),
                "cannot mount tmpfs on `/x`: tmpfs: Bad value for 'size'",
            ),
            (
                "two options in one",
                |c| mount(c, json!({"destination": "/x", "type": "tmpfs", "options": ["size=1,mode=1"]})),
                "the mount option `size=1,mode=1` holds a comma",
            ),
            (
                "NUL in a target",
                |c| mount(c, json!({"destination": "/x\0y", "type": "tmpfs"})),
                "a text with a NUL character",
            ),
            (
                "over what the kernel tells",
                |c| mount(c, json!({"destination": "/proc/sys", "type": "tmpfs"})),
                "`/proc/sys` cannot be mounted on: it is part of /proc",
            ),
            (
                "over this program",
                |c| {
                    mount(
                        c,
                        json!({"destination": "/proc/self/exe", "type": "bind", "source": "/etc/passwd"}),
                    )
                },
                "`/proc/self/exe` cannot be mounted on",
            ),
            (
                "no proc as proc",
                |c| mount(c, json!({"destination": "/proc", "type": "bind", "source": "/tmp"})),
                "what is mounted on `/proc` is not a proc file system",
            ),
            (
                "directory on a file",
                |c| mount(c, json!({"destination": "/etc/passwd", "type": "bind", "source": "/tmp"})),
                "cannot mount a directory on `/etc/passwd`, which is not a directory",
            ),
            (
                "file on a directory",
                |c| mount(c, json!({"destination": "/etc", "type": "bind", "source": "/etc/passwd"})),
                "cannot mount a file on `/etc`, which is a directory",
            ),
            (
                "below a file",
                |c| mount(c, json!({"destination": "/etc/passwd/x", "type": "tmpfs"})),
                "`/etc/passwd/x`: not a directory",
            ),
            (
                "other owners of a new file system",
                |c| {
                    let one = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
                    mount(
                        c,
                        json!({"destination": "/x", "type": "tmpfs", "uidMappings": one, "gidMappings": one}),
                    );
                },
                "the mount on `/x` cannot be id-mapped: only bind mounts can",
            ),
            (
                "other users alone",
                |c| {
                    let one = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
                    mount(
                        c,
                        json!({"destination": "/x", "type": "bind", "source": "/tmp", "uidMappings": one}),
                    );
                },
                "the mount on `/x` needs both uidMappings and gidMappings",
            ),
            (
                "other owners of what has none",
                |c| {
                    let one = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
                    mount(
                        c,
                        json!({"destination": "/x", "type": "bind", "source": "/proc/fs", "uidMappings": one, "gidMappings": one}),
                    );
                },
                if Host::get().has(Feature::IdmappedMounts) {
                    "the owners of files on `/proc/fs` cannot be mapped: its file system (proc) does not support that"
                } else {
                    "the owners of files on `/proc/fs` cannot be mapped: it needs `idmapped-mounts` of Linux 5.12"
                },
            ),
            (
                "relative masked path",
                |c| linux(c, "maskedPaths", json!(["x"])),
                "masked path `x` is not an absolute path",
            ),
            (
                "relative read-only path",
                |c| linux(c, "readonlyPaths", json!(["x"])),
                "read-only path `x` is not an absolute path",
            ),
            (
                "relative device",
                |c| linux(c, "devices", json!([{"path": "dev/x", "type": "c", "major": 1, "minor": 3}])),
                "device path `dev/x` is not an absolute path",
            ),
            (
                "device's kind",
                |c| linux(c, "devices", json!([{"path": "/dev/x", "type": "q", "major": 1, "minor": 3}])),
                "unknown variant `q`",
            ),
            (
                "device's number",
                |c| linux(c, "devices", json!([{"path": "/dev/x", "type": "c", "major": -1, "minor": 3}])),
                "device `/dev/x` has the major number -1",
            ),
            (
                "device's owner",
                |c| {
                    linux(
                        c,
                        "devices",
                        json!([{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "uid": u32::MAX}]),
                    )
                },
                "can have the id 4294967295",
            ),
            (
                "another device",
                |c| {
                    linux(c, "devices", json!([{"path": "/etc/passwd", "type": "c", "major": 1, "minor": 3}]))
                },
                "`/etc/passwd` exists in the image and is not the device",
            ),
            ("hook", |c| hook(c, "prestart", "x"), "hook `x` is not an absolute path"),
            ("last hook", |c| hook(c, "poststop", "x"), "hook `x` is not an absolute path"),
            (
                "missing hook",
                |c| hook(c, "createRuntime", "/no/hook"),
                "cannot run the createRuntime hook `/no/hook`: no such file or directory",
            ),
            (
                "missing hook of the container",
                |c| hook(c, "createContainer", "/no/hook"),
                "the createContainer hook `/no/hook`: no such file",
            ),
            (
                "missing hook in the container",
                |c| hook(c, "startContainer", "/no/hook"),
                "the startContainer hook `/no/hook`: no such file",
            ),
            (
                "hook's time",
                |c| c["hooks"] = json!({"poststop": [{"path": "/bin/true", "timeout": 0}]}),
                "the timeout of hook `/bin/true` is not a positive number",
            ),
        ],
    );
}

#[test]
fn invalid_resources_are_refused() {
    check(
        "groups-that-cannot-be",
        &[
            (
                "device rule's kind",
                |c| resources(c, "devices", json!([{"allow": true, "type": "q"}])),
                "unknown variant `q`",
            ),
            (
                "device rule's access",
                |c| resources(c, "devices", json!([{"allow": true, "access": "xyz"}])),
                "the access \"xyz\": it consists of",
            ),
            (
                "memory as text",
                |c| resources(c, "memory", json!({"limit": "1g"})),
                "invalid type: string \"1g\"",
            ),
            ("setting that is none", |c| resources(c, "unified", json!({"nope.max": "1"})), "`nope.max`"),
            (
                "setting elsewhere",
                |c| resources(c, "unified", json!({"../x": "1"})),
                "/../x`: invalid argument",
            ),
            (
                "RDT",
                |c| linux(c, "intelRdt", json!({"closID": "x"})),
                "`intelRdt` needs the resctrl file system, and none is mounted",
            ),
            (
                "network device that is none",
                |c| linux(c, "netDevices", json!({"kiln-none": {}})),
                "network device \"kiln-none\": there is no network device `kiln-none` that could be moved",
            ),
            (
                "loopback",
                |c| linux(c, "netDevices", json!({"lo": {"name": "lo2"}})),
                "there is no network device `lo` that could be moved",
            ),
            (
                "name of a network device",
                |c| linux(c, "netDevices", json!({"eth0": {"name": "a/b"}})),
                "`a/b` cannot be the name of a network device",
            ),
            (
                "two network devices of one name",
                |c| linux(c, "netDevices", json!({"eth1": {"name": "eth0"}, "eth0": {}})),
                "the network devices `eth0` and `eth1` would both be called `eth0` in the container",
            ),
            (
                "network devices for all",
                |c| {
                    let list = c["linux"]["namespaces"].as_array_mut().unwrap();
                    list.retain(|one| one["type"] != "network");
                    linux(c, "netDevices", json!({"eth0": {}}));
                },
                "netDevices",
            ),
            ("version", |c| c["ociVersion"] = json!("2.0.0"), "ociVersion \"2.0.0\""),
            ("version that is none", |c| c["ociVersion"] = json!("x"), "ociVersion \"x\""),
            ("no version", |c| drop(c.as_object_mut().unwrap().remove("ociVersion")), "ociVersion"),
            (
                "annotations",
                |c| c["annotations"] = json!({"a": 1}),
                "invalid type: integer `1`, expected a string",
            ),
        ],
    );
    if !std::path::Path::new("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").exists() {
        skip!("limits of version 1 groups: none are mounted");
    }
    check(
        "groups-that-cannot-be",
        &[
            (
                "memory",
                |c| resources(c, "memory", json!({"limit": -5})),
                "memory.limit_in_bytes`: invalid argument",
            ),
            ("quota", |c| resources(c, "cpu", json!({"quota": 5})), "cpu.cfs_quota_us`: invalid argument"),
            ("period", |c| resources(c, "cpu", json!({"period": 5})), "cpu.cfs_period_us`: invalid argument"),
            (
                "processor that is none",
                |c| resources(c, "cpu", json!({"cpus": "999"})),
                "cpuset.cpus`: numerical result out of range",
            ),
            ("processors", |c| resources(c, "cpu", json!({"cpus": "a-b"})), "cpuset.cpus`: invalid argument"),
            ("memory node", |c| resources(c, "cpu", json!({"mems": "99"})), "cpuset.mems`: "),
            (
                "controller that is none",
                |c| resources(c, "rdma", json!({"x": {"hcaHandles": 1}})),
                "needs the cgroup controller `rdma`, which this host does not have",
            ),
        ],
    );
}

/// A container that runs out of memory before its program runs is reported; in the middle of exec it is the program
/// that was killed.
#[test]
fn too_little_memory_to_begin_with() {
    let fixture = fixture!();
    if !std::path::Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists() {
        skip!("no memory controller of version 1");
    }
    let mut bundle = fixture.bundle("echo ok");
    resources(&mut bundle.config, "memory", json!({"limit": 4096}));
    for _ in 0..5 {
        let done = fixture.oci(&["run", "--bundle", bundle.write(), &new_id("little")]);
        let told = done.code == 1 && done.err.contains("was killed by signal 9 while it set itself up");
        assert!(told || done.code == 137 && done.err.is_empty(), "{done:?}");
        assert_eq!(done.out, "");
    }
    assert!(fixture.traces("little").is_empty());
}

/// Ignored fields: the container runs nevertheless.
#[test]
fn odd_but_fine() {
    let fixture = fixture!();
    let mut bundle = fixture.bundle("echo ok");
    bundle.config["process"]["capabilities"]["bounding"].as_array_mut().unwrap().push(json!("CAP_NOPE"));
    let warning = "kiln oci: warning: ignoring unknown or unavailable capabilities: [CAP_NOPE]\n";
    let done = fixture.run(&bundle);
    assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, "ok\n", warning));
    // Reported once, although this program re-executes itself before it waits.
    let done = fixture.detached(&["create", "--bundle", bundle.write(), &new_id("odd")]);
    assert_eq!((done.code, done.err.as_str()), (0, warning));
    let cases: [(&str, Change); 7] = [
        ("unknown parts", |c| c["nope"] = json!({"a": [1, 2]})),
        ("an escaped NUL that is none", |c| c["annotations"] = json!({"a": "\\u0000"})),
        ("unknown call", |c| rule(c, json!({"names": ["no_such_call"], "action": "SCMP_ACT_ERRNO"}))),
        ("variable without a value", |c| process(c, "env", json!(["PATH=/bin", "ODD", "=x", ""]))),
        ("more than there is forbidden", |c| {
            resources(
                c,
                "devices",
                json!([{"allow": false, "access": "rwm"}, {"allow": false, "type": "c", "major": 1, "minor": 11, "access": "rwa"}]),
            );
        }),
        ("a place above all", |c| linux(c, "cgroupsPath", json!(format!("../../{}", new_id("above"))))),
        ("64 mounts at one place", |c| {
            for _ in 0..64 {
                mount(c, json!({"destination": "/over", "type": "tmpfs", "options": ["size=64k"]}));
            }
        }),
    ];
    for (what, change) in cases {
        let done = fixture.sh("echo ok", change);
        assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, "ok\n", ""), "{what}");
    }
    let done = fixture.sh("ls /over; wc -l < /proc/self/mountinfo", |c| {
        mount(c, json!({"destination": "/over", "type": "tmpfs", "options": ["size=64k"]}));
        mount(c, json!({"destination": "/over/early", "type": "tmpfs", "options": ["size=64k"]}));
        mount(c, json!({"destination": "/over", "type": "tmpfs", "options": ["size=64k"]}));
        mount(c, json!({"destination": "/over/late", "type": "tmpfs", "options": ["size=64k"]}));
    });
    assert_eq!(done.out.lines().next(), Some("late"), "the later mount wins: {done:?}");
}
