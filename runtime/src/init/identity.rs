//! Identity of the program: user, groups, capabilities, limits.

use super::path::open_as;
use super::{Done, Failed, Init, Named};
use crate::op::{Bytes, CapabilityOp, SchedulerOp, UserIds};
use crate::sys::{self, SchedulerAttr};
use crate::user;
use rustix::fd::{AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, FileType, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Resource, Rlimit, Uid};
use rustix::thread::{self, CapabilitySet, CapabilitySets};
use std::io::Read;

/// Maximum size in bytes of a user database; no legitimate one is larger.
const MAX_USER_FILE: u64 = 1 << 20;

impl Init {
    /// Looks up `user` and more supplementary groups in the container's own databases, and becomes that user.
    pub(super) fn find_user(&mut self, name: &str, groups: &[String], keep_groups: bool) -> Done {
        let passwd = self.read_user_file("etc/passwd")?;
        let group = self.read_user_file("etc/group")?;
        let mut user =
            user::find(name, &passwd, &group).map_err(|error| Failed::saying(name, error.to_string()))?;
        for more in groups {
            let gid = user::find_group(more, &group)
                .map_err(|error| Failed::saying(more.as_str(), error.to_string()))?;
            if !user.ids.groups.contains(&gid) {
                user.ids.groups.push(gid);
            }
        }
        self.become_user(&user.ids, keep_groups)?;
        if !self.has_home() {
            self.environment.push(format!("HOME={}", user.home).into());
        }
        Ok(())
    }

    /// True when the environment has a `HOME` that is not empty.
    fn has_home(&mut self) -> bool {
        self.environment.retain(|entry| entry.0 != b"HOME=");
        self.environment.iter().any(|entry| entry.0.starts_with(b"HOME="))
    }

    /// Sets `HOME` from the container's user database.
    pub(super) fn set_home(&mut self, uid: u32) -> Done {
        if self.has_home() {
            return Ok(());
        }
        // A file that cannot be read has no users.
        let passwd = self.read_user_file("etc/passwd").unwrap_or_default();
        let home = user::find(&uid.to_string(), &passwd, "").map_or("/".to_owned(), |user| user.home);
        self.environment.push(format!("HOME={home}").into());
        Ok(())
    }

    pub(super) fn oom_score(&self, score: i32) -> Done {
        self.write_proc("self/oom_score_adj", &score.to_string()).call("write", "oom_score_adj")
    }

    /// Writes a label for the program. The file may be the older one that all security modules share.
    pub(super) fn label(&mut self, file: &str, value: &str) -> Done {
        let path = format!("self/attr/{file}");
        match self.write_proc(&path, value) {
            Err(Errno::NOENT) if file != "exec" => self.write_proc("self/attr/exec", value),
            other => other,
        }
        .map_err(|errno| Failed {
            call: "write",
            on: format!("/proc/{path}").into(),
            errno,
            message: Some(format!(
                "cannot run under the label `{value}`: {}; is it loaded?",
                crate::op::describe_errno(errno.raw_os_error())
            )),
        })
    }

    /// Reads a database of the image, which may be any file: only a regular file of sane size is read, and never with
    /// blocking.
    fn read_user_file(&self, path: &str) -> Done<String> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match open_as(self.root()?, &Bytes::from(path).to_c_string(), flags, true) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(String::new()),
            Err(errno) => return Err(errno).call("open", path),
        };
        let stat = fs::fstat(&file).call("stat", path)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Failed::saying(path, format!("`/{path}` of the image is not a regular file")));
        }
        let mut text = Vec::new();
        let read = std::fs::File::from(file).take(MAX_USER_FILE + 1).read_to_end(&mut text);
        if read.is_err() || text.len() as u64 > MAX_USER_FILE {
            return Err(Failed::saying(
                path,
                format!("`/{path}` of the image cannot be read or is too large"),
            ));
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    pub(super) fn become_user(&mut self, ids: &UserIds, keep_groups: bool) -> Done {
        self.own_standard_streams(ids.uid, ids.gid)?;
        let groups: Vec<Gid> = ids.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        // Capabilities are reduced afterwards; until then they must survive the change of user. Root keeps them.
        let changes = ids.uid != 0;
        if changes {
            thread::set_keep_capabilities(true).call("prctl", "PR_SET_KEEPCAPS")?;
        }
        let set = if keep_groups { Ok(()) } else { thread::set_thread_groups(&groups) };
        match set {
            // A user namespace with a single mapped id may not change groups.
            Err(Errno::PERM) if groups.is_empty() => {}
            other => other.call("setgroups", "")?,
        }
        let (uid, gid) = (Uid::from_raw(ids.uid), Gid::from_raw(ids.gid));
        thread::set_thread_res_gid(gid, gid, gid).call("setresgid", ids.gid.to_string())?;
        thread::set_thread_res_uid(uid, uid, uid).call("setresuid", ids.uid.to_string())?;
        if changes {
            thread::set_keep_capabilities(false).call("prctl", "PR_SET_KEEPCAPS")?;
        }
        Ok(())
    }

    /// Changes the owner of the program's pipes and terminal, so that the user can reopen them as /dev/stdout does.
    /// Files and terminals of the host keep their owner, and the host's null device is replaced by the container's.
    fn own_standard_streams(&mut self, uid: u32, gid: u32) -> Done {
        const PIPEFS: i64 = 0x5049_5045;
        let mut null = None;
        for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
            // Closed streams have no owner.
            let Ok(stat) = fs::fstat(stream) else { continue };
            if is_null(&stat) {
                let own = null.get_or_insert_with(|| self.null_device());
                let _ = own.as_ref().map_or(Ok(()), |own| replace(stream, own));
                continue;
            }
            let is_pipe = FileType::from_raw_mode(stat.st_mode) == FileType::Fifo
                && fs::fstatfs(stream).is_ok_and(|statfs| statfs.f_type == PIPEFS);
            if is_pipe || self.has_terminal {
                // Terminals keep the group that may write to them.
                let group = is_pipe.then(|| Gid::from_raw(gid));
                match fs::fchown(stream, Some(Uid::from_raw(uid)), group) {
                    // Inside a user namespace the stream's owner may be unmapped.
                    Ok(()) | Err(Errno::INVAL | Errno::PERM | Errno::ROFS) => {}
                    Err(errno) => return Err(errno).call("chown", "standard stream"),
                }
            }
        }
        Ok(())
    }

    /// Opens the container's null device, to replace the host's: a user with an open file may change its owner and
    /// mode, as far as that user's privileges permit. `None` when the container has no null device.
    fn null_device(&self) -> Option<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let null = open_as(self.root().ok()?, c"dev/null", flags, false).ok()?;
        // The image may have any file at this path.
        fs::fstat(&null).is_ok_and(|stat| is_null(&stat)).then_some(null)
    }

    pub(super) fn try_working_dir(&mut self, path: &Bytes) -> Done {
        match self.working_dir(path) {
            // The container's user may have access, for example on a network file system.
            Err(failed) if failed.errno == Errno::ACCESS || failed.errno == Errno::PERM => Ok(()),
            other => {
                self.is_in_working_dir = other.is_ok();
                other
            }
        }
    }

    pub(super) fn working_dir(&self, path: &Bytes) -> Done {
        if self.is_in_working_dir {
            return Ok(());
        }
        if path.0 == b"/" && self.is_at_root {
            return Ok(());
        }
        // Not over a file descriptor, for example of this process: those are closed before the lookup of the program
        // (CVE-2024-21626).
        let resolve = ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match fs::openat2(fs::CWD, path.to_c_string(), flags, fs::Mode::empty(), resolve) {
            Ok(dir) => rustix::process::fchdir(&dir).call("chdir", path.clone())?,
            // A filter may allow the older call only.
            Err(Errno::NOSYS | Errno::PERM) => {
                rustix::process::chdir(path.to_c_string()).call("chdir", path.clone())?;
            }
            Err(Errno::LOOP) => return Err(Errno::NOENT).call("chdir", path.clone()),
            Err(errno) => return Err(errno).call("chdir", path.clone()),
        }
        let current = rustix::process::getcwd(Vec::new()).call("getcwd", path.clone())?;
        // A path over a file descriptor of this process leads out of the root.
        if !current.to_bytes().starts_with(b"/") {
            let shown = path.as_path().display();
            return Err(Failed::saying(
                path.clone(),
                format!("working directory `{shown}` lies outside of the container"),
            ));
        }
        Ok(())
    }
}

/// Replaces a standard stream by another file.
fn replace(stream: BorrowedFd<'_>, by: &OwnedFd) -> Result<(), Errno> {
    match stream.as_raw_fd() {
        0 => rustix::stdio::dup2_stdin(by),
        1 => rustix::stdio::dup2_stdout(by),
        _ => rustix::stdio::dup2_stderr(by),
    }
}

pub(super) fn is_null(stat: &fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == fs::makedev(1, 3)
}

/// Becomes root of the user namespace, with all capabilities in it; outside of it the uid is another.
pub(super) fn become_root_of_namespace() -> Done {
    match thread::set_thread_groups(&[]) {
        // A namespace with a single mapped id may not change groups.
        Ok(()) | Err(Errno::PERM) => {}
        Err(errno) => return Err(errno).call("setgroups", ""),
    }
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    let explain = |errno: Errno, what: &str| Failed {
        call: what_call(what),
        on: "0".into(),
        errno,
        message: (errno == Errno::INVAL)
            .then(|| format!("the {what} 0 of the container is not mapped: add it to the {what} mappings")),
    };
    thread::set_thread_res_gid(gid, gid, gid).map_err(|errno| explain(errno, "gid"))?;
    thread::set_thread_res_uid(uid, uid, uid).map_err(|errno| explain(errno, "uid"))
}

fn what_call(what: &str) -> &'static str {
    if what == "gid" { "setresgid" } else { "setresuid" }
}

/// Prevents processes of the container from inspecting this process from here on (CVE-2016-9962).
pub(super) fn hide_process() -> Done {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    set_dumpable_behavior(DumpableBehavior::NotDumpable).call("prctl", "PR_SET_DUMPABLE")
}

/// Starts a session keyring; succeeds on kernels without keyrings, and with filters that forbid them.
pub(super) fn new_keyring() -> Done {
    match sys::join_new_session_keyring() {
        Ok(()) | Err(Errno::NOSYS | Errno::PERM | Errno::ACCESS | Errno::DQUOT) => Ok(()),
        Err(errno) => Err(errno).call("keyctl", ""),
    }
}

pub(super) fn memory_policy(mode: i32, nodes: &[u64]) -> Done {
    let nodes = if nodes.iter().all(|word| *word == 0) { &[] } else { nodes };
    sys::set_memory_policy(mode, nodes).call("set_mempolicy", "")
}

pub(super) fn umask(mask: u32) -> Done {
    let _ = rustix::process::umask(fs::Mode::from_raw_mode(mask));
    Ok(())
}

pub(super) fn schedule(op: SchedulerOp) -> Done {
    let attr = SchedulerAttr {
        size: 0,
        policy: op.policy,
        flags: op.flags,
        nice: op.nice,
        priority: op.priority,
        runtime: op.runtime,
        deadline: op.deadline,
        period: op.period,
    };
    let shown = format!("policy {} nice {} priority {}", op.policy, op.nice, op.priority);
    sys::set_scheduler(attr).call("sched_setattr", shown)
}

pub(crate) fn stay_on(processors: &[u32]) -> Done {
    let mut set = thread::CpuSet::new();
    for processor in processors.iter().filter(|processor| **processor < thread::CpuSet::MAX_CPU as u32) {
        set.set(*processor as usize);
    }
    thread::sched_setaffinity(None, &set).call("sched_setaffinity", "")
}

pub(super) fn drop_bounding(keep: u64) -> Done {
    for capability in 0..64 {
        let set = CapabilitySet::from_bits_retain(1 << capability);
        if keep & (1 << capability) != 0 {
            continue;
        }
        match thread::remove_capability_from_bounding_set(set) {
            Ok(()) => {}
            // Above the last capability that this kernel has.
            Err(Errno::INVAL) => break,
            // Without the privilege to drop it, it may already be dropped.
            Err(Errno::PERM) if thread::capability_is_in_bounding_set(set) == Ok(false) => {}
            Err(errno) => return Err(errno).call("prctl", format!("PR_CAPBSET_DROP {capability}")),
        }
    }
    Ok(())
}

pub(super) fn capabilities(op: CapabilityOp) -> Done {
    let sets = |have: CapabilitySet| {
        let set = |bits: u64| CapabilitySet::from_bits_retain(bits) & have;
        CapabilitySets {
            effective: set(op.effective),
            permitted: set(op.permitted),
            inheritable: set(op.inheritable),
        }
    };
    let mut have = CapabilitySet::from_bits_retain(u64::MAX);
    match thread::set_capabilities(None, sets(have)) {
        // A process cannot grant capabilities that it does not have.
        Err(Errno::PERM) => {
            have = thread::capabilities(None).call("capget", "")?.permitted;
            thread::set_capabilities(None, sets(have)).call("capset", "")?;
        }
        other => other.call("capset", "")?,
    }
    // Capabilities missing from either set are no longer ambient.
    if op.permitted & op.inheritable != 0 {
        match thread::clear_ambient_capability_set() {
            Ok(()) | Err(Errno::INVAL) => {}
            Err(errno) => return Err(errno).call("prctl", "PR_CAP_AMBIENT"),
        }
    }
    for capability in 0..64 {
        let bits = op.ambient & op.permitted & op.inheritable & (1 << capability);
        let wanted = CapabilitySet::from_bits_retain(bits) & have;
        if !wanted.is_empty() {
            thread::configure_capability_in_ambient_set(wanted, true).call("prctl", "PR_CAP_AMBIENT")?;
        }
    }
    Ok(())
}

pub(super) fn limit(name: &str, soft: u64, hard: u64, clamp: bool) -> Done {
    set_limit(None, name, soft, hard, clamp)
}

/// Sets a resource limit of another process.
pub(crate) fn limit_of(pid: i32, name: &str, soft: u64, hard: u64, clamp: bool) -> Done {
    set_limit(rustix::process::Pid::from_raw(pid), name, soft, hard, clamp)
}

fn set_limit(pid: Option<rustix::process::Pid>, name: &str, soft: u64, hard: u64, clamp: bool) -> Done {
    use rustix::process::prlimit;
    let resource =
        resource(name).ok_or_else(|| Failed::saying(name, format!("unknown resource limit `{name}`")))?;
    let value = |limit: u64| (limit != u64::MAX).then_some(limit);
    let wanted = Rlimit { current: value(soft), maximum: value(hard) };
    match prlimit(pid, resource, wanted) {
        Err(Errno::PERM) if clamp => {
            // A child inherits the limits of this process.
            let now = rustix::process::getrlimit(resource);
            let least = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
            let maximum = least(now.maximum, value(hard));
            let clamped = Rlimit { current: least(maximum, value(soft)), maximum };
            prlimit(pid, resource, clamped).map(drop).call("setrlimit", name)
        }
        other => other.map(drop).call("setrlimit", format!("RLIMIT_{name}")),
    }
}

fn resource(name: &str) -> Option<Resource> {
    Some(match name.strip_prefix("RLIMIT_").unwrap_or(name) {
        "AS" => Resource::As,
        "CORE" => Resource::Core,
        "CPU" => Resource::Cpu,
        "DATA" => Resource::Data,
        "FSIZE" => Resource::Fsize,
        "LOCKS" => Resource::Locks,
        "MEMLOCK" => Resource::Memlock,
        "MSGQUEUE" => Resource::Msgqueue,
        "NICE" => Resource::Nice,
        "NOFILE" => Resource::Nofile,
        "NPROC" => Resource::Nproc,
        "RSS" => Resource::Rss,
        "RTPRIO" => Resource::Rtprio,
        "RTTIME" => Resource::Rttime,
        "SIGPENDING" => Resource::Sigpending,
        "STACK" => Resource::Stack,
        _ => return None,
    })
}
