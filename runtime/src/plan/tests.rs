use super::*;
use crate::op::MountSource;
use crate::spec;

fn sample() -> Spec {
    let mut spec = spec::default(PathBuf::from("/store/root"));
    if let Some(process) = spec.process_mut() {
        process.set_args(Some(vec!["true".into()]));
    }
    spec
}

fn names(plan: &Plan) -> Vec<String> {
    let name = |op: &SetupOp| format!("{op:?}").split([' ', '(', '{']).next().unwrap_or_default().to_owned();
    plan.setup.iter().map(name).collect()
}

#[test]
fn operations_come_in_the_safe_order() {
    let plan = plan(&sample(), &Request::default()).unwrap();
    let names = names(&plan);
    let at = |wanted: &str| {
        names.iter().position(|name| name == wanted).unwrap_or_else(|| panic!("{wanted}: {names:?}"))
    };
    let last = |wanted: &str| names.iter().rposition(|name| name == wanted).unwrap();
    assert!(at("Propagation") < at("Root") && at("Root") < at("Mount"));
    assert!(last("Mount") < at("Device") && last("Link") < at("Readonly"));
    assert!(last("Mask") < at("Pivot"), "hidden behind the host's own files, which are out of reach later");
    assert!(at("MakeDir") < at("Pivot") && at("Pivot") < at("Bounding"));
    assert!(at("Bounding") < at("User") && at("User") < at("WorkingDir"));
    assert!(at("WorkingDir") < at("Capabilities"));
    assert_eq!(names.last().map(String::as_str), Some("Capabilities"));
}

#[test]
fn filters_are_loaded_while_it_is_allowed() {
    let mut spec = sample();
    let profile = serde_json::from_str(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#).unwrap();
    spec.linux_mut().as_mut().unwrap().set_seccomp(Some(profile));
    let order = |spec: &Spec| {
        let names = names(&plan(spec, &Request::default()).unwrap());
        let at = |wanted: &str| names.iter().position(|name| name == wanted);
        (at("Seccomp"), at("User"), at("Capabilities"), at("NoNewPrivileges"))
    };
    let (seccomp, user, _, no_new) = order(&spec);
    assert!(seccomp < user && no_new.is_none());
    spec.process_mut().as_mut().unwrap().set_no_new_privileges(Some(true));
    let (seccomp, _, capabilities, no_new) = order(&spec);
    assert!(seccomp > capabilities && seccomp > no_new && no_new.is_some());
}

#[test]
fn mounts_are_read_option_by_option() {
    let options = ["rbind", "ro", "nosuid", "rslave", "rnoexec"];
    let op = mounts::mount(&spec::mount("bind", "/x", "/y", &options), None, None).unwrap();
    assert_eq!(
        (op.set, op.clear, op.recursive_attributes, op.propagation),
        (0b1011, 0, true, libc::MS_SLAVE)
    );
    assert_eq!(op.source, MountSource::Bind { path: "/y".into(), recursive: true });
    let op =
        mounts::mount(&spec::mount("tmpfs", "/x", "tmpfs", &["noatime", "mode=1777", "nodev"]), None, None)
            .unwrap();
    let MountSource::Filesystem(filesystem) = op.source else { panic!("a file system") };
    assert_eq!(filesystem.attributes, 0x14);
    assert_eq!(filesystem.options, [("mode".to_owned(), Some("1777".to_owned()))]);
    let evil = mounts::mount(&spec::mount("tmpfs", "/x", "tmpfs", &["mode=0755,suid"]), None, None);
    assert_eq!(evil, Err(MountOptionError::Comma("mode=0755,suid".into())));
}

#[test]
fn system_dirs_must_not_be_links() {
    for (target, follow) in [("/dev", false), ("/dev/shm", false), ("/sys/fs/cgroup", false), ("/data", true)]
    {
        assert_eq!(
            mounts::mount(&spec::mount("tmpfs", target, "", &[]), None, None).unwrap().follow,
            follow,
            "{target}"
        );
    }
}

#[test]
fn without_a_filter_devices_are_useless() {
    let options = Request { devices: DeviceNodes::Exclusive, ..Request::default() };
    let plan = plan(&sample(), &options).unwrap();
    for op in &plan.setup {
        match op {
            SetupOp::Device(device) => assert!(device.bind),
            SetupOp::Root(root) => assert_eq!(root.set, 4),
            SetupOp::Mount(mount) if mount.target != "/dev/pts".into() => {
                let MountSource::Filesystem(filesystem) = &mount.source else { continue };
                assert_ne!(filesystem.attributes & 4, 0, "{mount:?}");
            }
            _ => {}
        }
    }
}

#[test]
fn unsafe_or_unknown_demands_are_refused() {
    let refused = |change: &dyn Fn(&mut Spec), error: &str| {
        let mut spec = sample();
        change(&mut spec);
        let result = plan(&spec, &Request::default()).map_err(|error| error.to_string());
        assert_eq!(result.err().as_deref(), Some(error));
    };
    refused(
        &|spec| {
            let sysctl = [("kernel.core_pattern".to_owned(), "x".to_owned())].into();
            spec.linux_mut().as_mut().unwrap().set_sysctl(Some(sysctl));
        },
        "kernel parameter `kernel.core_pattern` is not separate for the container",
    );
    refused(
        &|spec| {
            spec.process_mut().as_mut().unwrap().set_cwd("relative".into());
        },
        "working directory `relative` is not an absolute path",
    );
    refused(
        &|spec| {
            spec.process_mut().as_mut().unwrap().set_args(Some(vec!["a\0b".into()]));
        },
        "an argument holds a NUL character",
    );
    refused(
        &|spec| {
            spec.process_mut().as_mut().unwrap().set_args(None);
        },
        "the container specification has no `args`",
    );
    refused(
        &|spec| {
            spec.set_mounts(Some(vec![spec::mount("tmpfs", "relative", "", &[])]));
        },
        "mount destination `relative` is not an absolute path",
    );
}

#[test]
fn plans_travel_as_json() {
    let plan = plan(&sample(), &Request::default()).unwrap();
    let json = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan);
}

#[test]
fn names_are_those_that_the_kernel_takes() {
    for name in ["eth0", "a", "exactly-15-long", "käse", "eth0.7@x"] {
        assert!(is_device_name(name), "{name}");
    }
    for name in ["", ".", "..", "a/b", "a:1", "a b", "a\tb", "sixteen-letters-"] {
        assert!(!is_device_name(name), "{name:?}");
    }
}
