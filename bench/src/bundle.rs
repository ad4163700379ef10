//! OCI bundle as Docker would write one for `/bin/true`, with which the runtimes are measured.

use crate::Outcome;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Parts of the usual specification in a bundle.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// Whether there are limits of memory and processes, for which the runtime must create a cgroup.
    pub limits: bool,
    /// Whether there is the default seccomp filter.
    pub seccomp: bool,
}

/// Creates the bundle in a directory: `config.json`, and `rootfs` with a static busybox.
pub fn write(dir: &Path, busybox: &Path, variant: Variant) -> Outcome<()> {
    let root = dir.join("rootfs");
    for name in ["bin", "dev", "etc", "proc", "sys"] {
        fs::create_dir_all(root.join(name))?;
    }
    // In a user namespace the container's user may be another one, and must be able to reach the files.
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    fs::copy(busybox, root.join("bin/busybox"))?;
    // A copy instead of a link: executing through a link costs Kiln more, and the other runtimes nothing.
    fs::copy(busybox, root.join("bin/true"))?;
    fs::write(dir.join("config.json"), serde_json::to_vec(&configuration(variant)?)?)?;
    Ok(())
}

fn configuration(variant: Variant) -> Outcome<Value> {
    let mut configuration: Value = serde_json::from_str(include_str!("../data/config.json"))?;
    let linux = &mut configuration["linux"];
    if variant.seccomp {
        let mut profile: Value = serde_json::from_str(include_str!("../data/seccomp.json"))?;
        if cfg!(target_arch = "aarch64") {
            profile["architectures"] = json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]);
        }
        linux["seccomp"] = profile;
    }
    if variant.limits {
        linux["resources"] = json!({"memory": {"limit": 256 << 20}, "pids": {"limit": 512}});
    }
    Ok(configuration)
}

#[cfg(test)]
mod tests {
    use super::{Variant, configuration};
    use oci_spec::runtime::Spec;

    #[test]
    fn every_variant_is_a_valid_specification() {
        for (limits, seccomp) in [(false, false), (false, true), (true, false), (true, true)] {
            let value = configuration(Variant { limits, seccomp }).unwrap();
            let spec: Spec = serde_json::from_value(value).unwrap();
            let linux = spec.linux().as_ref().unwrap();
            assert_eq!(linux.resources().is_some(), limits);
            assert_eq!(linux.seccomp().is_some(), seccomp);
            assert_eq!(spec.mounts().as_ref().map(Vec::len), Some(7));
        }
    }
}
