//! What starting a container costs, and by which way of making its process.
//!
//! `cargo run --release -p kiln-bench --bin spawn [ROUNDS]`, as root, with a static busybox on the machine.
//! Rounds are interleaved; printed are minimum, median and 90th percentile in milliseconds.
#![allow(clippy::print_stdout, reason = "the result is the output")]

use kiln_runtime::plan::{PlanOptions, plan};
use kiln_runtime::{SpawnRequest, Spawner, serve_standard_input, spec};
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Mount, Spec};
use std::error::Error;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    if std::env::args().nth(1).as_deref() == Some("serve") {
        serve_standard_input();
    }
    let spawner = Spawner::start()?;
    let rounds = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(100);
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let bed = Bed::new(Path::new(busybox.ok_or("needs busybox")?))?;

    type Case<'a> = (&'static str, Box<dyn Fn() -> Outcome<()> + 'a>);
    let full = bed.spec(|_| {});
    let bare = bed.spec(bare);
    let cases: Vec<Case<'_>> = vec![
        ("fork+exec of the program alone", Box::new(|| bed.plain())),
        ("helper forked at start, bare", Box::new(|| bed.container(&spawner, &bare))),
        ("helper forked at start, full", Box::new(|| bed.container(&spawner, &full))),
        ("re-executing ourselves, full", Box::new(|| bed.container(&reexec()?, &full))),
    ];
    let mut samples = vec![Vec::new(); cases.len()];
    for round in 0..rounds + 5 {
        for (index, (_, run)) in cases.iter().enumerate() {
            let start = Instant::now();
            run()?;
            if round >= 5 {
                samples[index].push(start.elapsed().as_secs_f64() * 1000.0);
            }
        }
    }
    println!("{:<34} {:>8} {:>8} {:>8}  n={rounds}", "", "min", "median", "p90");
    for ((name, _), mut sample) in cases.iter().zip(samples) {
        sample.sort_by(f64::total_cmp);
        let at = |share: f64| sample[((sample.len() - 1) as f64 * share) as usize];
        println!("{name:<34} {:>8.2} {:>8.2} {:>8.2}", sample[0], at(0.5), at(0.9));
    }
    Ok(())
}

fn reexec() -> Outcome<Spawner> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("serve");
    Ok(Spawner::start_by_exec(command)?)
}

/// Leaves process, mount, IPC and host name namespaces, and nothing else.
fn bare(spec: &mut Spec) {
    spec.set_mounts(None);
    if let Some(linux) = spec.linux_mut() {
        let kinds = [LinuxNamespaceType::Mount, LinuxNamespaceType::Pid];
        let namespaces = kinds.map(|kind| {
            let mut namespace = LinuxNamespace::default();
            namespace.set_typ(kind);
            namespace
        });
        linux.set_namespaces(Some(namespaces.to_vec())).set_masked_paths(None).set_readonly_paths(None);
    }
}

struct Bed {
    folder: tempfile::TempDir,
    mount: Mount,
}

impl Bed {
    fn new(busybox: &Path) -> Outcome<Bed> {
        let folder = tempfile::tempdir()?;
        for name in ["image/bin", "image/proc", "image/sys", "image/dev", "root", "upper", "work"] {
            fs::create_dir_all(folder.path().join(name))?;
        }
        fs::copy(busybox, folder.path().join("image/bin/busybox"))?;
        std::os::unix::fs::symlink("busybox", folder.path().join("image/bin/true"))?;
        let path = |name: &str| folder.path().join(name).display().to_string();
        let options = [
            format!("lowerdir+={}", path("image")),
            format!("upperdir={}", path("upper")),
            format!("workdir={}", path("work")),
        ];
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let mount = spec::mount("overlay", "/", "overlay", &options);
        Ok(Bed { folder, mount })
    }

    fn spec(&self, change: impl FnOnce(&mut Spec)) -> Spec {
        let mut spec = spec::default(self.folder.path().join("root"));
        if let Some(process) = spec.process_mut() {
            process.set_args(Some(vec!["/bin/true".to_owned()]));
        }
        change(&mut spec);
        spec
    }

    fn plain(&self) -> Outcome<()> {
        let mut command = Command::new(self.folder.path().join("image/bin/true"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
        Ok(())
    }

    fn container(&self, spawner: &Spawner, spec: &Spec) -> Outcome<()> {
        let options = PlanOptions { root: Some(&self.mount), default_filter: true, ..PlanOptions::default() };
        let plan = plan(spec, &options)?;
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let request = SpawnRequest {
            plan: &plan,
            slots: Vec::new(),
            stdin: null.as_fd(),
            stdout: null.as_fd(),
            stderr: null.as_fd(),
        };
        let code = spawner.spawn(&request)?.wait()?;
        if code == 0 { Ok(()) } else { Err(format!("the program ended with {code}").into()) }
    }
}
