//! Default specification of containers and build steps: Docker's defaults.

use crate::capability;
use oci_spec::runtime::{
    Capability, LinuxCapabilities, LinuxNamespace, LinuxNamespaceType, Mount, Process, Root, Spec, User,
};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Paths hidden from the container (moby `daemon/pkg/oci/defaults.go`).
const MASKED: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/proc/fs/xfs",
];

/// Read-only paths of the container (same source).
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Default size of /dev/shm in bytes.
pub const SHM_SIZE: u64 = 64 << 20;

/// Path from the root without `.`, `..` and repeated slashes, in the form in which the reference engine passes working
/// directories to its runtime.
pub fn clean_path(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

/// A container with Docker's default isolation, whose root is mounted on the directory `root`.
///
/// The caller sets arguments, environment and working directory.
pub fn default(root: PathBuf) -> Spec {
    let mut spec = Spec::default();
    let mut root_spec = Root::default();
    root_spec.set_path(root).set_readonly(Some(false));
    let mut process = Process::default();
    process
        .set_terminal(Some(false))
        .set_user(User::default())
        .set_cwd(PathBuf::from("/"))
        .set_args(Some(Vec::new()))
        .set_env(Some(Vec::new()))
        .set_rlimits(None)
        .set_no_new_privileges(Some(false))
        .set_capabilities(Some(default_capabilities()));
    spec.set_root(Some(root_spec)).set_process(Some(process)).set_mounts(Some(mounts(SHM_SIZE)));
    spec.set_hostname(None);
    if let Some(linux) = spec.linux_mut() {
        linux
            .set_namespaces(Some(namespaces()))
            .set_masked_paths(Some(MASKED.map(str::to_owned).to_vec()))
            .set_readonly_paths(Some(READONLY.map(str::to_owned).to_vec()))
            .set_resources(None);
    }
    spec
}

fn namespaces() -> Vec<LinuxNamespace> {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, Uts};
    [Mount, Pid, Ipc, Uts, Network, Cgroup]
        .into_iter()
        .map(|kind| {
            let mut namespace = LinuxNamespace::default();
            namespace.set_typ(kind);
            namespace
        })
        .collect()
}

fn default_capabilities() -> LinuxCapabilities {
    capabilities(capability::mask(capability::DEFAULT).expect("the default capabilities exist"))
}

/// Capability sets of a container that may use the capabilities of a bit mask.
pub fn capabilities(mask: u64) -> LinuxCapabilities {
    let all: HashSet<Capability> =
        capability::names(mask).iter().filter_map(|name| name.parse().ok()).collect();
    let mut sets = LinuxCapabilities::default();
    // Inheritable and ambient sets stay empty: a program gets capabilities from being root, or from its file.
    sets.set_bounding(Some(all.clone()))
        .set_effective(Some(all.clone()))
        .set_permitted(Some(all))
        .set_inheritable(None)
        .set_ambient(None);
    sets
}

/// A mount of a file system with options.
pub fn mount(kind: &str, target: &str, source: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(PathBuf::from(target))
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(PathBuf::from(source)))
        .set_options(Some(options.iter().map(|option| (*option).to_owned()).collect()));
    mount
}

/// A bind mount of a file or directory of the host.
pub fn bind(source: PathBuf, target: &str, options: &[&str]) -> Mount {
    let mut mount = mount("bind", target, "", &["rbind", "rprivate"]);
    let mut all = mount.options().clone().unwrap_or_default();
    all.extend(options.iter().map(|option| (*option).to_owned()));
    mount.set_source(Some(source)).set_options(Some(all));
    mount
}

/// Sets the size of /dev/shm in bytes.
pub fn set_shm_size(spec: &mut Spec, bytes: u64) {
    let mounts = spec.mounts_mut().get_or_insert_default();
    for mount in mounts.iter_mut().filter(|mount| mount.destination() == Path::new("/dev/shm")) {
        let mut options = mount.options().clone().unwrap_or_default();
        options.retain(|option| !option.starts_with("size="));
        options.push(format!("size={bytes}"));
        mount.set_options(Some(options));
    }
}

/// Removes all confinement but the namespaces: all capabilities, no hidden and no read-only paths.
///
/// System call and device filters are decided by the caller that plans.
pub fn make_insecure(spec: &mut Spec) {
    let all: HashSet<Capability> =
        capability::all_names().iter().filter_map(|name| name.parse().ok()).collect();
    let mut capabilities = LinuxCapabilities::default();
    capabilities
        .set_bounding(Some(all.clone()))
        .set_effective(Some(all.clone()))
        .set_permitted(Some(all.clone()))
        .set_inheritable(Some(all))
        .set_ambient(None);
    spec.process_mut().get_or_insert_default().set_capabilities(Some(capabilities));
    if let Some(linux) = spec.linux_mut() {
        linux.set_masked_paths(None).set_readonly_paths(None);
    }
    for mount in spec.mounts_mut().get_or_insert_default() {
        if mount.destination().starts_with("/sys") {
            let options = mount.options().clone().unwrap_or_default();
            mount.set_options(Some(options.into_iter().filter(|option| option != "ro").collect()));
        }
    }
}

fn mounts(shm_size: u64) -> Vec<Mount> {
    let size = format!("size={shm_size}");
    vec![
        mount("proc", "/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("tmpfs", "/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "devpts",
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("sysfs", "/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("cgroup", "/sys/fs/cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]),
        mount("mqueue", "/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("tmpfs", "/dev/shm", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &size]),
    ]
}
