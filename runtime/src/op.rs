//! What is done to set up a container, as data: an ordered list of operations.
//!
//! [`crate::plan`] makes the list without touching anything, [`crate::init`] carries it out in the new
//! process. It travels between processes as JSON.

use serde::{Deserialize, Serialize};
use std::ffi::{CString, OsStr};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A path or argument as bytes: a string where it is UTF-8, numbers where it is not.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    /// As a path.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// As a C string, cut at a NUL, which no path or argument of a process can hold.
    pub fn to_c_string(&self) -> CString {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        CString::new(&self.0[..end]).expect("the text was cut at its first NUL")
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl From<&str> for Bytes {
    fn from(text: &str) -> Bytes {
        Bytes(text.as_bytes().to_vec())
    }
}

impl From<String> for Bytes {
    fn from(text: String) -> Bytes {
        Bytes(text.into_bytes())
    }
}

impl From<&Path> for Bytes {
    fn from(path: &Path) -> Bytes {
        Bytes(path.as_os_str().as_bytes().to_vec())
    }
}

impl From<&PathBuf> for Bytes {
    fn from(path: &PathBuf) -> Bytes {
        path.as_path().into()
    }
}

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Raw(Vec<u8>),
        }
        Ok(Bytes(match Form::deserialize(deserializer)? {
            Form::Text(text) => text.into_bytes(),
            Form::Raw(bytes) => bytes,
        }))
    }
}

/// Index into the descriptors that are handed over together with a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdSlot(pub usize);

/// A whole container about to start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// `CLONE_NEW…` bits of the namespaces that the process is born into.
    pub namespaces: u64,
    /// The cgroup v2 folder it is born into.
    pub cgroup: Option<FdSlot>,
    /// What is done before the program runs, in order.
    pub setup: Vec<SetupOp>,
    /// The program.
    pub program: Program,
}

/// The program of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its arguments, its own name first.
    pub arguments: Vec<Bytes>,
    /// Its environment as `NAME=value`.
    pub environment: Vec<Bytes>,
}

/// One step of setting up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SetupOp {
    /// Waits for the parent to say go.
    WaitForGo,
    /// Enters an existing namespace.
    Join(FdSlot),
    /// Enters the existing namespace that a path names.
    JoinPath(Bytes),
    /// Makes a namespace that must be made late: `CLONE_NEW…` bits.
    Unshare(u64),
    /// Sets the host name.
    Hostname(String),
    /// Sets the NIS domain name.
    Domainname(String),
    /// Cuts the mount tree off from its peers: `MS_…` propagation, recursively.
    Propagation(u64),
    /// Mounts the root file system and enters it.
    Root(RootOp),
    /// Mounts something below the root.
    Mount(MountOp),
    /// Makes a device node below the root.
    Device(DeviceOp),
    /// Makes a symbolic link below the root, unless something is there.
    Link {
        /// What it leads to.
        target: Bytes,
        /// Where it is.
        path: Bytes,
    },
    /// Makes a terminal from the container's own devpts and sends its master to the parent.
    Console(ConsoleSize),
    /// Makes the new root the root.
    Pivot,
    /// Makes the root read-only.
    ReadonlyRoot,
    /// Writes a kernel parameter.
    Sysctl {
        /// Name with dots.
        name: String,
        /// Value.
        value: String,
    },
    /// Makes a path read-only.
    Readonly(Bytes),
    /// Hides a path.
    Mask(Bytes),
    /// Sets a resource limit; `clamp` lowers it to what is allowed instead of failing.
    Limit {
        /// `RLIMIT_…` name.
        resource: String,
        /// Soft limit.
        soft: u64,
        /// Hard limit.
        hard: u64,
        /// Whether to be content with less.
        clamp: bool,
    },
    /// Sets the out-of-memory score adjustment.
    OomScore(i32),
    /// Starts a new session keyring.
    NewKeyring,
    /// Makes the working folder and those above it, unless they exist.
    MakeFolder {
        /// Where.
        path: Bytes,
        /// Permissions of folders that are made.
        mode: u32,
    },
    /// Looks a user up in the container's own `/etc/passwd` and `/etc/group`; `HOME` is set from it.
    FindUser(String),
    /// Becomes a user given by numbers.
    User(UserIds),
    /// Enters the working folder.
    WorkingFolder(Bytes),
    /// Gives up all capabilities for ever but these (bit mask).
    Bounding(u64),
    /// Sets the other capability sets.
    Capabilities(CapabilityOp),
    /// No program started from here may gain rights.
    NoNewPrivileges,
    /// Loads a system call filter.
    Seccomp {
        /// Instructions, each as one number (see `sys::install_seccomp`).
        program: Vec<u64>,
        /// `SECCOMP_FILTER_FLAG_…` bits.
        flags: u32,
    },
    /// File mode creation mask.
    Umask(u32),
}

/// The root file system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RootOp {
    /// A folder to mount on.
    pub path: Bytes,
    /// What to mount there; `None` for the folder itself.
    pub mount: Option<FilesystemMount>,
}

/// A file system to mount: type, options for the file system, attributes of the mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesystemMount {
    /// Such as `overlay`.
    pub fstype: String,
    /// Source name, shown in mount tables.
    pub source: String,
    /// Keys with or without a value, in order.
    pub options: Vec<(String, Option<String>)>,
    /// `MOUNT_ATTR_…` bits.
    pub attributes: u64,
}

/// Something mounted below the root.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MountOp {
    /// Where, from the root.
    pub target: Bytes,
    /// What.
    pub source: MountSource,
    /// `MOUNT_ATTR_…` bits to set on a bind mount.
    pub set: u64,
    /// Bits to clear.
    pub clear: u64,
    /// Applies `set` and `clear` to all mounts below too.
    pub recursive_attributes: bool,
    /// `MS_…` propagation.
    pub propagation: u64,
    /// Whether links in the target are followed (inside the root). Not for /proc, /sys and /dev: a link
    /// there leads the set-up of the others astray.
    pub follow: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MountSource {
    /// A new file system.
    Filesystem(FilesystemMount),
    /// A file or folder of the machine.
    Bind {
        /// Its path.
        path: Bytes,
        /// With the mounts below it.
        recursive: bool,
    },
}

/// A device node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceOp {
    /// Where, from the root.
    pub path: Bytes,
    /// `b` for block devices, `c` for character devices, `p` for pipes.
    pub kind: char,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bind the machine's own node instead of making one.
    pub bind: bool,
}

/// Size of a new terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}

/// Numbers of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserIds {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

/// Capability sets as bit masks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityOp {
    /// What counts now.
    pub effective: u64,
    /// What may be made to count.
    pub permitted: u64,
    /// What is kept over exec with the file's consent.
    pub inheritable: u64,
    /// What is kept over exec without it.
    pub ambient: u64,
}

/// Why setting up failed, as data: the failing operation's name, what it was done to, and errno.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetupError {
    /// Which part of setting up.
    pub stage: Stage,
    /// The call that failed, such as `mount`.
    pub call: String,
    /// What it was called on.
    pub on: Bytes,
    /// Why; 0 when the reason is in `message`.
    pub errno: i32,
    /// Said instead of the errno's text when that would mislead.
    pub message: Option<String>,
}

/// Parts of setting up that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Making the process.
    Clone,
    /// Namespaces, mounts, devices, limits.
    Setup,
    /// Looking up the user.
    User,
    /// Entering the working folder.
    WorkingFolder,
    /// Running the program.
    Exec,
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(message) = &self.message {
            return f.write_str(message);
        }
        write!(f, "{}", self.call)?;
        if !self.on.0.is_empty() {
            write!(f, " `{}`", self.on.as_path().display())?;
        }
        write!(f, ": {}", describe_errno(self.errno))
    }
}

impl std::error::Error for SetupError {}

/// The text of an errno without Rust's `(os error N)`.
pub fn describe_errno(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default().to_owned();
    text.chars()
        .next()
        .map(|first| first.to_lowercase().chain(text.chars().skip(1)).collect())
        .unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_travel_as_text_or_numbers() {
        for bytes in [Bytes::from("/a"), Bytes(vec![b'/', 0xff])] {
            let json = serde_json::to_string(&bytes).unwrap();
            assert_eq!(serde_json::from_str::<Bytes>(&json).unwrap(), bytes);
        }
        assert_eq!(serde_json::to_string(&Bytes::from("/a")).unwrap(), "\"/a\"");
    }

    #[test]
    fn errors_read_as_calls() {
        let error = SetupError {
            stage: Stage::Setup,
            call: "mount".into(),
            on: "/proc".into(),
            errno: 1,
            message: None,
        };
        assert_eq!(error.to_string(), "mount `/proc`: operation not permitted");
    }
}
