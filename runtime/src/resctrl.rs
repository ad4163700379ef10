//! Shares of caches and memory bandwidth (resctrl, Linux 4.10; runtime specification, "IntelRdt").
//!
//! A class is a directory of the resctrl file system whose `schemata` contains the shares of its processes; a process
//! is in one class. Directories in `mon_groups` of a class monitor some of its processes.

use crate::op::describe_errno;
use oci_spec::runtime::LinuxIntelRdt;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Resctrl class of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Class {
    dir: PathBuf,
    /// True when it was created for this container only, and is removed with it.
    own: bool,
    /// Monitoring directory of its processes; `None` without monitoring.
    monitor: Option<PathBuf>,
}

/// Failure to put a container into its class.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResctrlError {
    /// The hardware lacks the feature, or its file system is not mounted.
    #[error(
        "`intelRdt` needs the resctrl file system, and none is mounted: `mount -t resctrl resctrl /sys/fs/resctrl` does that, where the processor can do it"
    )]
    NotMounted,
    /// A name that leads out of the directory, or is reserved by the file system.
    #[error("the class {0:?} of `intelRdt` cannot be the name of a directory of the resctrl file system")]
    Name(String),
    /// A class that must exist already and does not.
    #[error(
        "the class {0:?} of `intelRdt` does not exist, and the configuration does not say what it is to get"
    )]
    NoClass(String),
    /// An existing class with other shares.
    #[error("the class {class:?} of `intelRdt` exists and has not `{wanted}` but `{has}`")]
    Differs {
        /// Name of the class.
        class: String,
        /// Line of the configuration.
        wanted: String,
        /// Line of its `schemata` about the same resource.
        has: String,
    },
    /// A `memBwSchema` with an invalid line.
    #[error("`memBwSchema` {0:?} does not begin with `MB:`, or has several lines")]
    Bandwidth(String),
    /// A call on a file failed.
    #[error("cannot {what} `{path}`: {reason}", path = path.display(), reason = describe_errno(*errno))]
    File {
        /// Operation, as a verb.
        what: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Errno of the call.
        errno: i32,
    },
}

fn file<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> ResctrlError + 'a {
    move |error| ResctrlError::File {
        what,
        path: path.to_owned(),
        errno: error.raw_os_error().unwrap_or(libc::EIO),
    }
}

/// Mount point of the resctrl file system.
///
/// # Errors
/// [`ResctrlError::NotMounted`] when the file system is not mounted.
pub fn mount_point() -> Result<PathBuf, ResctrlError> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounted_at(&table).ok_or(ResctrlError::NotMounted)
}

fn mounted_at(table: &str) -> Option<PathBuf> {
    table.lines().find_map(|line| {
        let (head, tail) = line.split_once(" - ")?;
        tail.starts_with("resctrl ").then(|| head.split(' ').nth(4).map(PathBuf::from))?
    })
}

impl Class {
    /// Creates or finds the class of the container `id`, in the file system mounted at `mount`.
    ///
    /// # Errors
    /// Fails for an invalid name, for a class that must exist and does not, and for one that exists with other shares.
    pub fn create(mount: &Path, id: &str, wanted: &LinuxIntelRdt) -> Result<Class, ResctrlError> {
        let lines = lines(wanted)?;
        let named = wanted.clos_id().as_deref().filter(|name| !name.is_empty());
        let name = named.unwrap_or(id);
        if name.contains('/') || matches!(name, "." | ".." | "info" | "mon_groups" | "mon_data") {
            return Err(ResctrlError::Name(name.to_owned()));
        }
        let mut class = Class { dir: mount.join(name), own: named.is_none(), monitor: None };
        if named.is_some() && lines.is_empty() {
            if !class.dir.is_dir() {
                return Err(ResctrlError::NoClass(name.to_owned()));
            }
        } else {
            class.make(name, &lines)?;
        }
        if *wanted.enable_monitoring() == Some(true) {
            let dir = class.dir.join("mon_groups").join(id);
            if let Err(error) = fs::create_dir(&dir) {
                let _ = class.remove();
                return Err(file("make", &dir)(error));
            }
            class.monitor = Some(dir);
        }
        Ok(class)
    }

    fn make(&self, name: &str, lines: &[String]) -> Result<(), ResctrlError> {
        match fs::create_dir(&self.dir) {
            Ok(()) => self.assign(lines).inspect_err(|_| {
                let _ = fs::remove_dir(&self.dir);
            }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => self.compare(name, lines),
            Err(error) => Err(file("make", &self.dir)(error)),
        }
    }

    /// Sets the shares of its processes: lines in the format of `schemata`.
    pub fn assign(&self, lines: &[String]) -> Result<(), ResctrlError> {
        let path = self.dir.join("schemata");
        for line in lines {
            // In one call each: the kernel reads whole lines.
            fs::write(&path, format!("{line}\n")).map_err(file("write", &path))?;
        }
        Ok(())
    }

    fn compare(&self, class: &str, lines: &[String]) -> Result<(), ResctrlError> {
        let path = self.dir.join("schemata");
        let has = fs::read_to_string(&path).map_err(file("read", &path))?;
        for wanted in lines {
            let name = wanted.split(':').next().unwrap_or_default();
            let there = has.lines().map(str::trim).find(|line| line.split(':').next() == Some(name));
            let there = there.unwrap_or_default();
            if !shares(wanted).all(|share| shares(there).any(|known| known == share)) {
                return Err(ResctrlError::Differs {
                    class: class.to_owned(),
                    wanted: wanted.clone(),
                    has: there.to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Moves a process into the class; its future children are in it as well.
    pub fn attach(&self, pid: i32) -> Result<(), ResctrlError> {
        for dir in [Some(&self.dir), self.monitor.as_ref()].into_iter().flatten() {
            let path = dir.join("tasks");
            fs::write(&path, pid.to_string()).map_err(file("write", &path))?;
        }
        Ok(())
    }

    /// Removes the directories that were created for the container.
    pub fn remove(&self) -> Result<(), ResctrlError> {
        for dir in [self.monitor.as_ref(), self.own.then_some(&self.dir)].into_iter().flatten() {
            match fs::remove_dir(dir) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(file("remove", dir)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Lines of a configuration in the order in which they are written.
fn lines(wanted: &LinuxIntelRdt) -> Result<Vec<String>, ResctrlError> {
    let bandwidth = wanted.mem_bw_schema().as_deref().filter(|text| !text.is_empty());
    if let Some(text) = bandwidth.filter(|text| !text.starts_with("MB:") || text.trim_end().contains('\n')) {
        return Err(ResctrlError::Bandwidth(text.to_owned()));
    }
    let cache = wanted.l3_cache_schema().as_deref().unwrap_or_default().lines();
    // Bandwidth lines are dropped where the field for bandwidth is set.
    let cache = cache.filter(|line| bandwidth.is_none() || !line.trim_start().starts_with("MB:"));
    let whole = wanted.schemata().iter().flatten().flat_map(|text| text.lines());
    let all = cache.chain(bandwidth).chain(whole).map(str::trim);
    Ok(all.filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// Shares in a line, such as `0=7f0`, without leading zeros of masks.
fn shares(line: &str) -> impl Iterator<Item = (&str, String)> {
    let (_, list) = line.split_once(':').unwrap_or_default();
    list.split(';').filter_map(|share| {
        let (id, value) = share.trim().split_once('=')?;
        let value = value.trim().trim_start_matches('0').to_ascii_lowercase();
        Some((id.trim(), value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(json: serde_json::Value) -> LinuxIntelRdt {
        serde_json::from_value(json).unwrap()
    }

    /// A file system of ordinary directories with the files that a kernel would create.
    fn machine() -> tempfile::TempDir {
        let mount = tempfile::tempdir().unwrap();
        fs::create_dir_all(mount.path().join("gold/mon_groups")).unwrap();
        fs::write(mount.path().join("gold/schemata"), "    L3:0=0f0;1=fff\n    MB:0= 20;1= 70\n").unwrap();
        mount
    }

    #[test]
    fn mounts_are_found() {
        let table =
            "30 20 0:26 / /sys rw - sysfs sysfs rw\n31 30 0:27 / /sys/fs/resctrl rw - resctrl resctrl rw";
        assert_eq!(mounted_at(table), Some("/sys/fs/resctrl".into()));
        assert_eq!(mounted_at("30 20 0:26 / /resctrl rw - tmpfs resctrl rw"), None);
    }

    #[test]
    fn lines_are_written_in_order() {
        let all = wanted(serde_json::json!({
            "l3CacheSchema": "L3:0=f\nMB:0=1", "memBwSchema": "MB:0=2", "schemata": ["L2:0=1", "MB:0=3"]
        }));
        assert_eq!(lines(&all).unwrap(), ["L3:0=f", "MB:0=2", "L2:0=1", "MB:0=3"]);
        let cache = wanted(serde_json::json!({"l3CacheSchema": "L3:0=f\nMB:0=1"}));
        assert_eq!(lines(&cache).unwrap(), ["L3:0=f", "MB:0=1"]);
        for wrong in ["L3:0=1", "MB:0=1\nMB:1=1"] {
            let wrong = wanted(serde_json::json!({"memBwSchema": wrong}));
            assert!(matches!(lines(&wrong), Err(ResctrlError::Bandwidth(_))));
        }
    }

    #[test]
    fn containers_get_classes_of_their_own() {
        let mount = machine();
        let class =
            Class::create(mount.path(), "c1", &wanted(serde_json::json!({"l3CacheSchema": "L3:0=f"})))
                .unwrap();
        let dir = mount.path().join("c1");
        assert_eq!(fs::read_to_string(dir.join("schemata")).unwrap(), "L3:0=f\n");
        class.attach(42).unwrap();
        assert_eq!(fs::read_to_string(dir.join("tasks")).unwrap(), "42");
        for file in ["schemata", "tasks"] {
            fs::remove_file(dir.join(file)).unwrap();
        }
        class.remove().unwrap();
        assert!(!dir.exists());
        class.remove().unwrap();
    }

    #[test]
    fn classes_of_others_stay_as_they_are() {
        let mount = machine();
        let create = |json| Class::create(mount.path(), "c1", &wanted(json));
        let before = fs::read_to_string(mount.path().join("gold/schemata")).unwrap();
        let class = create(serde_json::json!({"closID": "gold", "enableMonitoring": true})).unwrap();
        assert!(mount.path().join("gold/mon_groups/c1").is_dir());
        class.remove().unwrap();
        assert!(mount.path().join("gold").is_dir() && !mount.path().join("gold/mon_groups/c1").exists());
        create(serde_json::json!({"closID": "gold", "l3CacheSchema": "L3:0=F0", "memBwSchema": "MB:1=70"}))
            .unwrap();
        let differs = create(serde_json::json!({"closID": "gold", "l3CacheSchema": "L3:0=1"})).unwrap_err();
        assert_eq!(
            differs.to_string(),
            "the class \"gold\" of `intelRdt` exists and has not `L3:0=1` but `L3:0=0f0;1=fff`"
        );
        let none = create(serde_json::json!({"closID": "none"})).unwrap_err();
        assert_eq!(none, ResctrlError::NoClass("none".to_owned()));
        for name in ["../x", "a/b", "..", "info", "mon_groups"] {
            let error = create(serde_json::json!({"closID": name, "schemata": ["L3:0=1"]})).unwrap_err();
            assert_eq!(error, ResctrlError::Name(name.to_owned()));
        }
        assert_eq!(fs::read_to_string(mount.path().join("gold/schemata")).unwrap(), before);
    }
}
