//! Devices of RUN steps.

use kiln_runtime::cdi::device_at;
use oci_spec::runtime::Spec;
use std::path::Path;

/// Adds loop devices, as the reference does for insecure steps.
pub(super) fn add_loops(spec: &mut Spec) {
    let numbered = (0..8).map(|number| format!("/dev/loop{number}"));
    let found = std::iter::once("/dev/loop-control".to_owned())
        .chain(numbered)
        .filter_map(|path| device_at(Path::new(&path), &path));
    if let Some(linux) = spec.linux_mut() {
        linux.devices_mut().get_or_insert_default().extend(found);
    }
}
