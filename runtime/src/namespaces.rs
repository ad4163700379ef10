//! Namespaces in a configuration: which ones the container has, and which of them are new.

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Spec};
use std::path::Path;

/// Namespace of the container that is not the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace<'a> {
    /// A namespace that is created for the container.
    New,
    /// Existing namespace, at a path.
    Joined(&'a Path),
}

/// Namespace of a kind; `None` where that is the host's.
pub fn of(spec: &Spec, kind: LinuxNamespaceType) -> Option<Namespace<'_>> {
    let one = all(spec).find(|one| one.typ() == kind)?;
    let path = one.path().as_deref().filter(|path| !path.as_os_str().is_empty());
    Some(path.map_or(Namespace::New, Namespace::Joined))
}

/// True when the container's first process is the init process of a pid namespace, which ends with it.
pub fn has_own_pids(spec: &Spec) -> bool {
    of(spec, LinuxNamespaceType::Pid) == Some(Namespace::New)
}

/// All namespaces, in the order of the configuration.
pub fn all(spec: &Spec) -> impl Iterator<Item = &LinuxNamespace> {
    spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref()).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_with_a_path_exist() {
        let spec = |list: &str| -> Spec {
            serde_json::from_str(&format!(r#"{{"ociVersion": "1.0.0", "linux": {{"namespaces": {list}}}}}"#))
                .unwrap()
        };
        let kind = LinuxNamespaceType::Pid;
        assert_eq!(of(&spec("[]"), kind), None);
        assert_eq!(of(&Spec::default(), LinuxNamespaceType::User), None);
        for list in
            [r#"[{"type": "pid"}]"#, r#"[{"type": "user", "path": "/u"}, {"type": "pid", "path": ""}]"#]
        {
            assert_eq!(of(&spec(list), kind), Some(Namespace::New), "{list}");
        }
        assert!(has_own_pids(&spec(r#"[{"type": "pid"}]"#)) && !has_own_pids(&spec("[]")));
        let joined = spec(r#"[{"type": "pid", "path": "/proc/1/ns/pid"}]"#);
        assert_eq!(of(&joined, kind), Some(Namespace::Joined(Path::new("/proc/1/ns/pid"))));
    }
}
