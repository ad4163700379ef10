//! OCI specification of a container, and its files for /etc.

use crate::container::Owned;
use crate::error::EngineError;
use kiln_image::store::make_upper;
use kiln_image::sys::{CallError, Named};
use kiln_runtime::container::etc::STUB_DIRS;
use kiln_runtime::{apparmor, spec};
use oci_spec::runtime::Spec;
use std::fs;
use std::path::{Path, PathBuf};

/// Program name under which this executable acts as a container's init process, as in the reference engine.
pub const INIT_NAME: &str = "docker-init";
/// Mount targets that every container needs; they lie in a layer below the image.
const STUB_FILES: [&str; 3] = ["etc/hosts", "etc/hostname", "etc/resolv.conf"];

impl Owned {
    /// Adds the AppArmor profile and the requested privileges to a specification.
    pub(crate) fn confine(&mut self, spec: &mut Spec, state: &Path) -> Result<(), EngineError> {
        let security = &self.container.settings.security;
        let profile = apparmor::profile(self.container.settings.apparmor(), state)?;
        let process = spec.process_mut().get_or_insert_default();
        process.set_no_new_privileges(Some(security.no_new_privileges)).set_apparmor_profile(profile.clone());
        self.container.profile = profile.unwrap_or_default();
        Ok(())
    }

    pub(crate) fn spec(&self, dirs: &Dirs) -> Spec {
        let settings = &self.container.settings;
        let mut spec = spec::default(dirs.root.clone());
        let domain = Some(settings.resolution.domainname.clone()).filter(|domain| !domain.is_empty());
        spec.set_hostname(Some(settings.hostname.clone())).set_domainname(domain);
        let dir = spec::clean_path(&settings.dir);
        let mut arguments = settings.arguments();
        if settings.init {
            arguments.splice(0..0, [init_path(), "--".to_owned()]);
            // Read-only, because the program in the container sees the host's executable (CVE-2019-5736).
            let own = PathBuf::from("/proc/self/exe");
            let own = fs::read_link(&own).unwrap_or(own);
            spec.mounts_mut().get_or_insert_default().push(spec::bind(own, &init_path(), &["ro"]));
        }
        let process = spec.process_mut().get_or_insert_default();
        process
            .set_args(Some(arguments))
            .set_env(Some(settings.full_environment()))
            .set_cwd(PathBuf::from(dir))
            .set_terminal(Some(settings.tty));
        spec.mounts_mut().get_or_insert_default().extend(self.etc_mounts(dirs));
        spec
    }
}

/// Path of the init process of a container with `--init`, as in the reference engine.
fn init_path() -> String {
    format!("/sbin/{INIT_NAME}")
}

/// Directories of a running container.
pub(crate) struct Dirs {
    pub(crate) root: PathBuf,
    pub(crate) upper: PathBuf,
    pub(crate) work: PathBuf,
    pub(crate) etc: PathBuf,
    pub(crate) stubs: PathBuf,
}

impl Dirs {
    /// Paths of the directories of a container, whose own directory is `dir`.
    pub(crate) fn of(dir: &Path) -> Dirs {
        Dirs {
            root: dir.join("root"),
            upper: dir.join("layer/upper"),
            work: dir.join("layer/work"),
            etc: dir.join("etc"),
            stubs: dir.join("stubs"),
        }
    }

    /// Creates those that are missing.
    pub(crate) fn make(dir: &Path) -> Result<Dirs, CallError> {
        let dirs = Dirs::of(dir);
        // Left by a mount that did not sync: overlayfs refuses the directory while it is there.
        kiln_image::sys::remove_path(&dirs.work.join("work/incompat"))?;
        let stubs = STUB_DIRS.map(|name| dirs.stubs.join(name));
        for path in [&dirs.root, &dirs.work, &dirs.etc].into_iter().chain(&stubs) {
            fs::create_dir_all(path).call("mkdir", path)?;
        }
        make_upper(&dirs.upper)?;
        for name in STUB_FILES {
            let path = dirs.stubs.join(name);
            fs::write(&path, "").call("write", &path)?;
        }
        Ok(dirs)
    }
}
