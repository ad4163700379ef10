//! The step graph as data. The inputs of a node come before the node.

use crate::solve::{self, Input, NodeId, Use};
use kiln_image::digest::{DiffId, Digest};
use kiln_image::platform::Platform;
use kiln_parser::mount::Sharing;
use kiln_parser::span::Span;
use std::path::PathBuf;

/// All nodes of a build.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Nodes in topological order; a [`NodeId`] is an index.
    pub nodes: Vec<Node>,
}

/// A step: its operation and inputs, and its presentation.
#[derive(Clone, Debug)]
pub struct Node {
    /// Operation that the step executes.
    pub operation: Operation,
    /// Results of other steps that it needs, in the order of the operation's input numbers.
    pub inputs: Vec<Input>,
    /// Name in the progress, such as `[2/4] RUN make`.
    pub name: String,
    /// Position of its instruction; `None` for steps of no instruction.
    pub span: Option<Span>,
    /// Identity of the instruction across builds: file, stage and number.
    pub place: String,
    /// True when the step runs even if the cache has its result.
    pub no_cache: bool,
}

/// Operation of a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Creates an empty tree.
    Scratch,
    /// Provides the tree of an image.
    Image(ImageSource),
    /// Runs a program on its base.
    Exec(Box<Exec>),
    /// Copies files onto its base.
    Copy(Box<Copy>),
    /// Creates a directory on its base.
    MakeDir(MakeDir),
    /// Puts the topmost layer of its second input on its first.
    Merge,
    /// Downloads a file into an empty tree.
    Download(Download),
    /// Checks a git repository out into an empty tree.
    Checkout(Checkout),
}

/// A file to download over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Download {
    /// URL of the file.
    pub url: String,
    /// File name in the tree.
    pub name: String,
    /// Expected digest; `None` accepts any content.
    pub checksum: Option<Digest>,
}

/// Files of a git repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkout {
    /// Remote in a form that `git` accepts.
    pub remote: String,
    /// Branch, tag or commit; empty for the default branch.
    pub reference: String,
    /// Expected commit, or its first digits; empty for any.
    pub commit: String,
    /// Directory of the repository; empty for all of it.
    pub dir: String,
    /// Keep the `.git` directory.
    pub keeps_git: bool,
    /// Fetch submodules as well.
    pub submodules: bool,
    /// Set the times of files to the time of the commit.
    pub commit_times: bool,
}

/// An image that is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSource {
    /// Full reference with digest.
    pub reference: String,
    /// Diff ids of the layers, lowest first.
    pub diff_ids: Vec<DiffId>,
}

/// A program to run in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// Program and its arguments.
    pub arguments: Vec<String>,
    /// Variables in the form `NAME=value`.
    pub environment: Vec<String>,
    /// Proxy settings in the form `NAME=value`: in the environment of the program, not in the key.
    pub proxies: Vec<String>,
    /// Working directory in the container.
    pub dir: String,
    /// User as in `USER`; empty for root.
    pub user: String,
    /// Network access of the program.
    pub network: Network,
    /// Name and content of a script that is mounted below `/dev/pipes`.
    pub script: Option<(String, String)>,
    /// Host names of `--add-host`; their addresses are not in the key.
    pub hosts: Vec<String>,
    /// Host name in the container.
    pub hostname: String,
    /// `--security=insecure`: all capabilities, all devices, no filters.
    pub is_insecure: bool,
    /// CDI names of devices; true when the step fails without the device.
    pub devices: Vec<(String, bool)>,
    /// Resource limits from the command line.
    pub limits: RunLimits,
    /// Platform of the program; `None` for the host's.
    pub platform: Option<Platform>,
    /// Mounts that exist for this step only.
    pub mounts: Vec<StepMount>,
    /// Names of variables that ARGs set; true when `--build-arg` set the value. Not in the key.
    pub declared: Vec<(String, bool)>,
}

/// A mount of one step. It does not become part of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepMount {
    /// Absolute mount target in the container.
    pub target: String,
    /// Source of the mounted files.
    pub source: MountSource,
    /// True when writes fail.
    pub readonly: bool,
}

/// Source of a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSource {
    /// Files of an input of the step.
    Files(Files),
    /// A cache: a directory that persists between builds.
    Cache {
        /// Cache id; builds with the same id share the cache.
        id: String,
        /// Owner and mode, when the Dockerfile sets them: caches with the same id but different ones are separate.
        given: Option<String>,
        /// Concurrent access by several steps.
        sharing: Sharing,
        /// Mode of a new cache directory.
        mode: u32,
        /// Owner of a new cache directory, as uid and gid.
        owner: (u32, u32),
        /// Initial files of a new cache; `None` for an empty one.
        seed: Option<Files>,
    },
    /// A file or directory of the host. Its content is not in the key.
    Host(PathBuf),
    /// A tmpfs, empty at the start of the step.
    Tmpfs {
        /// Size limit in bytes; 0 for none.
        size: u64,
    },
    /// A secret, as a file or in a variable.
    Secret {
        /// Id of the secret.
        id: String,
        /// True when the step fails without it.
        required: bool,
        /// Mode and owner of the file; `None` when only the variable is set.
        file: Option<(u32, (u32, u32))>,
        /// Name of the variable that contains it; `None` for a file only.
        variable: Option<String>,
    },
    /// Socket of an ssh agent.
    Ssh {
        /// Id of the ssh socket.
        id: String,
        /// True when the step fails without it.
        required: bool,
        /// Mode and owner of the socket.
        socket: (u32, (u32, u32)),
    },
}

/// A host file or directory that `--volume` mounts into all RUN steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostMount {
    /// Path on the host.
    pub host: PathBuf,
    /// Absolute mount target in the container.
    pub target: String,
    /// True when writes fail.
    pub readonly: bool,
}

/// Files of one of a step's inputs; inputs are numbered from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// The whole tree of the input with that number.
    Tree(usize),
    /// Files that the input with that number copied to [`MOUNT_COPY`].
    Copy(usize),
}

/// Path of the file or directory in a tree that was copied for a mount.
pub(crate) const MOUNT_COPY: &str = "/m";

/// Network access of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// A bridge network of the build with access to external networks.
    Bridge,
    /// The loopback device only.
    None,
    /// Network namespace of the host.
    Host,
}

/// Resource limits from the command line for RUN steps. Limits that are visible to a program are in the key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunLimits {
    /// Size of /dev/shm in bytes.
    pub shm_size: Option<u64>,
    /// `--ulimit`: name, soft and hard limit.
    pub ulimits: Vec<(String, u64, u64)>,
    /// Memory in bytes; not in the key, like all following fields except the parent cgroup.
    pub memory: Option<i64>,
    /// Memory and swap in bytes, -1 for no limit.
    pub memory_swap: Option<i64>,
    /// Relative weight of CPU time, in CPU shares.
    pub cpu_shares: Option<u64>,
    /// CPU quota: microseconds in each period.
    pub cpu_quota: Option<i64>,
    /// CPU period in microseconds.
    pub cpu_period: Option<u64>,
    /// CPUs as a list of ranges, such as `0-2,4`.
    pub cpus: Option<String>,
    /// NUMA nodes for memory, as a list of ranges.
    pub memory_nodes: Option<String>,
    /// Parent cgroup of the cgroups of steps.
    pub cgroup_parent: Option<String>,
}

/// Files to copy onto a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Sources in the order of the instruction.
    pub sources: Vec<CopySource>,
    /// Names and contents of files from heredocs in the Dockerfile.
    pub inline: Vec<(String, String)>,
    /// Destination: an absolute path, with a trailing slash when it must be a directory.
    pub destination: String,
    /// Owner of the copied files: `--chown`.
    pub owner: Option<String>,
    /// Change of the file modes: `--chmod`.
    pub mode: Option<crate::mode::ModeChange>,
    /// Patterns of files to leave out: `--exclude`.
    pub exclude: Vec<String>,
    /// `--parents`: keep the parent directories of the sources.
    pub parents: bool,
    /// Copy a directory itself, with its mode and owner, not only its content.
    pub whole: bool,
    /// Time of created files and directories in seconds since 1970; `None` for the current time.
    pub epoch: Option<i64>,
}

/// One source of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopySource {
    /// Context or step that contains the files.
    pub from: CopyFrom,
    /// Path or pattern, relative to the root of the origin.
    pub path: String,
    /// Position in the Dockerfile; not in the key.
    pub place: Span,
    /// Unpack the source if it is an archive.
    pub unpack: bool,
    /// Description of the origin, such as "the build context"; not in the key.
    pub origin: String,
}

/// Origin of copied files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyFrom {
    /// A directory of the host: 0 is the build context, larger numbers are named contexts.
    Context(usize),
    /// The input of the step with that number.
    Input(usize),
}

impl Copy {
    /// Copy of sources without any flags.
    pub fn of(sources: Vec<CopySource>, destination: String) -> Copy {
        Copy {
            sources,
            inline: Vec::new(),
            destination,
            owner: None,
            mode: None,
            exclude: Vec::new(),
            parents: false,
            whole: false,
            epoch: None,
        }
    }

    /// True when files of a context are copied.
    pub fn takes_context(&self) -> bool {
        self.sources.iter().any(|source| matches!(source.from, CopyFrom::Context(_)))
    }

    /// True when files of other steps are copied.
    pub fn takes_inputs(&self) -> bool {
        self.sources.iter().any(|source| matches!(source.from, CopyFrom::Input(_)))
    }
}

/// A directory to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MakeDir {
    /// Absolute path in the tree.
    pub path: String,
    /// Owner in the form of `USER`; empty for root.
    pub owner: String,
    /// Time in seconds since 1970; `None` for the current time.
    pub epoch: Option<i64>,
}

impl Graph {
    /// Adds a node and returns its id.
    pub fn add(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        NodeId(self.nodes.len() - 1)
    }

    /// Node with that id.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// All copies, in the order of the nodes.
    pub(crate) fn copies(&self) -> impl Iterator<Item = &Copy> {
        self.nodes.iter().filter_map(|node| match &node.operation {
            Operation::Copy(copy) => Some(&**copy),
            _ => None,
        })
    }

    /// All sources of a context, as paths and patterns relative to its root.
    pub(crate) fn sources_of(&self, context: usize) -> Vec<String> {
        let sources = self.copies().flat_map(|copy| &copy.sources);
        let own = sources.filter(|source| source.from == CopyFrom::Context(context));
        own.map(|source| crate::path::join("/", &source.path)).collect()
    }

    /// Inputs of all nodes, in the order of the nodes.
    pub fn edges(&self) -> Vec<Vec<Input>> {
        self.nodes.iter().map(|node| node.inputs.clone()).collect()
    }

    /// The targets and all nodes that they need, in order.
    pub fn needed(&self, targets: &[NodeId]) -> Vec<NodeId> {
        solve::needed(&self.edges(), targets)
    }
}

/// Input whose tree becomes the base of the step's own.
pub(crate) fn base(node: NodeId) -> Input {
    Input { node, usage: Use::Base }
}

/// Input from which only some files are read.
pub(crate) fn content(node: NodeId) -> Input {
    Input { node, usage: Use::Content }
}
