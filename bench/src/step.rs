//! A build step without the build: the program `true` in a complete container, created through the library.

use crate::Outcome;
use kiln_runtime::container::{Filter, Handed, Identity, Request};
use kiln_runtime::plan::plan;
use kiln_runtime::{SpawnRequest, Spawner, spec};
use oci_spec::runtime::{Mount, Spec};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

/// Fixture in a temporary directory: an image with busybox, and the overlay that a step writes to.
pub struct Fixture {
    dir: tempfile::TempDir,
    mount: Mount,
}

impl Fixture {
    /// Creates the fixture from a static busybox.
    pub fn new(busybox: &Path) -> Outcome<Fixture> {
        let dir = tempfile::tempdir()?;
        for name in ["image/bin", "image/proc", "image/sys", "image/dev", "root", "upper", "work"] {
            fs::create_dir_all(dir.path().join(name))?;
        }
        fs::copy(busybox, dir.path().join("image/bin/busybox"))?;
        std::os::unix::fs::symlink("busybox", dir.path().join("image/bin/true"))?;
        let path = |name: &str| dir.path().join(name).display().to_string();
        let options = [
            format!("lowerdir+={}", path("image")),
            format!("upperdir={}", path("upper")),
            format!("workdir={}", path("work")),
        ];
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let mount = spec::mount("overlay", "/", "overlay", &options);
        Ok(Fixture { dir, mount })
    }

    /// Default specification with a change.
    pub fn spec(&self, change: impl FnOnce(&mut Spec)) -> Spec {
        let mut spec = spec::default(self.dir.path().join("root"));
        if let Some(process) = spec.process_mut() {
            process.set_args(Some(vec!["/bin/true".to_owned()]));
        }
        change(&mut spec);
        spec
    }

    /// Runs the program without a container: fork, exec, wait.
    pub fn plain(&self) -> Outcome<()> {
        let mut command = Command::new(self.dir.path().join("image/bin/true"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
        Ok(())
    }

    /// Runs the program in a container, from the specification to the exit code.
    pub fn container(&self, spawner: &Spawner, spec: &Spec) -> Outcome<()> {
        let identity = Identity { filter: Filter::Default, ..Identity::default() };
        let request = Request { root: Some(&self.mount), identity, ..Request::default() };
        let plan = plan(spec, &request)?;
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let request = SpawnRequest {
            plan: &plan,
            handed: &Handed::default(),
            stdin: null.as_fd(),
            stdout: null.as_fd(),
            stderr: null.as_fd(),
        };
        let code = spawner.spawn(&request)?.wait()?;
        if code == 0 { Ok(()) } else { Err(format!("the program ended with {code}").into()) }
    }
}
