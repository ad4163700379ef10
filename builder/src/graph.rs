//! The step graph as data. Nodes come after their inputs.

use crate::solve::{self, Input, NodeId, Use};
use kiln_image::digest::{DiffId, Digest};
use kiln_image::platform::Platform;
use kiln_parser::mount::Sharing;
use kiln_parser::span::Span;
use std::path::PathBuf;

/// All nodes of a build.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// The nodes; a [`NodeId`] is an index.
    pub nodes: Vec<Node>,
}

/// One step, and its presentation.
#[derive(Clone, Debug)]
pub struct Node {
    /// The operation.
    pub operation: Operation,
    /// The nodes that it needs.
    pub inputs: Vec<Input>,
    /// Name in the progress, such as `[2/4] RUN make`.
    pub name: String,
    /// Place of its instruction.
    pub span: Option<Span>,
    /// Identity of the instruction across builds: file, stage and number.
    pub place: String,
    /// Runs whatever the cache holds.
    pub no_cache: bool,
}

/// Operation of a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// An empty tree.
    Scratch,
    /// The tree of an image.
    Image(ImageSource),
    /// Runs a program on its base.
    Exec(Box<Exec>),
    /// Copies files onto its base.
    Copy(Box<Copy>),
    /// Makes a directory on its base.
    MakeDir(MakeDir),
    /// Puts the topmost layer of its second input on its first.
    Merge,
    /// A file of the web, alone in a tree.
    Download(Download),
    /// Files of a git repository, alone in a tree.
    Checkout(Checkout),
}

/// A file of the web.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Download {
    /// Address.
    pub url: String,
    /// Name in the tree.
    pub name: String,
    /// Expected digest.
    pub checksum: Option<Digest>,
}

/// Files of a git repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkout {
    /// Remote as `git` takes it.
    pub remote: String,
    /// Branch, tag or commit; empty for the default branch.
    pub reference: String,
    /// Expected commit, or its beginning; empty for any.
    pub commit: String,
    /// A directory of the repository; empty for all of it.
    pub dir: String,
    /// Keep `.git`.
    pub keeps_git: bool,
    /// Fetch submodules, too.
    pub submodules: bool,
    /// Files get the time of the commit.
    pub commit_times: bool,
}

/// An image that is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSource {
    /// Name with digest.
    pub reference: String,
    /// Layers, lowest first.
    pub diff_ids: Vec<DiffId>,
}

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// The program and its arguments.
    pub arguments: Vec<String>,
    /// `NAME=value`.
    pub environment: Vec<String>,
    /// Proxy settings: in the environment of the program, not in the key.
    pub proxies: Vec<String>,
    /// The working directory.
    pub dir: String,
    /// `USER`, empty for root.
    pub user: String,
    /// Network access.
    pub network: Network,
    /// Name and content of a script that the program sees below `/dev/pipes`.
    pub script: Option<(String, String)>,
    /// Names of `--add-host`.
    pub hosts: Vec<String>,
    /// Host name in the container.
    pub hostname: String,
    /// `--security=insecure`: all capabilities, all devices, no filters.
    pub is_insecure: bool,
    /// Devices by their CDI names, and whether the step fails without them.
    pub devices: Vec<(String, bool)>,
    /// Limits of the command line.
    pub limits: RunLimits,
    /// Platform, when it is not that of the host.
    pub platform: Option<Platform>,
    /// Mounts of this step.
    pub mounts: Vec<StepMount>,
    /// Names of variables that ARGs set, and whether `--build-arg` gave the value; not in the key.
    pub declared: Vec<(String, bool)>,
}

/// A mount of one step. It becomes no part of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepMount {
    /// Mount target, from the root.
    pub target: String,
    /// Mount source.
    pub source: MountSource,
    /// Writes fail.
    pub readonly: bool,
}

/// Mount source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSource {
    /// Files of an input.
    Files(Files),
    /// A cache: a directory that outlives the build.
    Cache {
        /// Cache id; builds with the same one share it.
        id: String,
        /// Owner and mode, when the Dockerfile sets them: caches of one id that differ in them are separate.
        given: Option<String>,
        /// Behaviour of concurrent users.
        sharing: Sharing,
        /// Mode of a new cache.
        mode: u32,
        /// Owner of a new cache.
        owner: (u32, u32),
        /// Files of a new cache.
        seed: Option<Files>,
    },
    /// A file or directory of the host. Its content is not in the key.
    Host(PathBuf),
    /// A tmpfs.
    Tmpfs {
        /// Size limit in bytes; 0 for none.
        size: u64,
    },
    /// A secret, as a file or in a variable.
    Secret {
        /// Its id.
        id: String,
        /// The step fails without it.
        required: bool,
        /// Mode and owner of the file; `None` for a variable alone.
        file: Option<(u32, (u32, u32))>,
        /// The variable that holds it.
        variable: Option<String>,
    },
    /// The socket of an ssh agent.
    Ssh {
        /// Its id.
        id: String,
        /// The step fails without it.
        required: bool,
        /// Mode and owner of the socket.
        socket: (u32, (u32, u32)),
    },
}

/// A file or directory of the host for all RUN steps: `--volume`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostMount {
    /// Path on the host.
    pub host: PathBuf,
    /// Path in the container.
    pub target: String,
    /// Writes fail.
    pub readonly: bool,
}

/// Files of one of a step's inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// The whole tree of the input of that number.
    Tree(usize),
    /// What the input of that number copied to [`MOUNT_COPY`].
    Copy(usize),
}

/// Path at which a copy for a mount has its file or directory.
pub(crate) const MOUNT_COPY: &str = "/m";

/// Network access of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// A network of the build with access to the world.
    Bridge,
    /// Loopback only.
    None,
    /// The host network.
    Host,
}

/// Limits of the command line for RUN steps. Those that a program can see are in the key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunLimits {
    /// Size of /dev/shm in bytes.
    pub shm_size: Option<u64>,
    /// `--ulimit`: name, soft and hard limit.
    pub ulimits: Vec<(String, u64, u64)>,
    /// Memory in bytes; not in the key, as all below but the parent cgroup.
    pub memory: Option<i64>,
    /// Memory and swap in bytes, -1 for no limit.
    pub memory_swap: Option<i64>,
    /// CPU shares.
    pub cpu_shares: Option<u64>,
    /// CPU quota: microseconds in each period.
    pub cpu_quota: Option<i64>,
    /// CPU period in microseconds.
    pub cpu_period: Option<u64>,
    /// CPUs, as `0-2,4`.
    pub cpus: Option<String>,
    /// Memory nodes.
    pub memory_nodes: Option<String>,
    /// Parent cgroup of the cgroups of steps.
    pub cgroup_parent: Option<String>,
}

/// Files to copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Sources.
    pub sources: Vec<CopySource>,
    /// Files that the Dockerfile contains: names and contents.
    pub inline: Vec<(String, String)>,
    /// Destination: a path from the root, with a slash at its end when it must be a directory.
    pub destination: String,
    /// `--chown`.
    pub owner: Option<String>,
    /// `--chmod`.
    pub mode: Option<crate::mode::ModeChange>,
    /// `--exclude` patterns.
    pub exclude: Vec<String>,
    /// `--parents`: keep the directories above the sources.
    pub parents: bool,
    /// Copy a directory itself, with its mode and owner, not only its content.
    pub whole: bool,
    /// Time of what the builder makes, in seconds since 1970; `None` for the current time.
    pub epoch: Option<i64>,
}

/// One source of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopySource {
    /// Origin.
    pub from: CopyFrom,
    /// Path or pattern, from the root of the origin.
    pub path: String,
    /// Place in the Dockerfile; not in the key.
    pub place: Span,
    /// Unpack it if it is an archive.
    pub unpack: bool,
    /// Description of the origin, such as "the build context"; not in the key.
    pub origin: String,
}

/// Origin of copied files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyFrom {
    /// A directory of the host: 0 is the build context, others are named ones.
    Context(usize),
    /// The input of that number.
    Input(usize),
}

impl Copy {
    /// Copies sources as they are.
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

    /// True when files of the host are copied.
    pub fn takes_context(&self) -> bool {
        self.sources.iter().any(|source| matches!(source.from, CopyFrom::Context(_)))
    }

    /// True when files of other steps are copied.
    pub fn takes_inputs(&self) -> bool {
        self.sources.iter().any(|source| matches!(source.from, CopyFrom::Input(_)))
    }
}

/// A directory to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MakeDir {
    /// Path from the root.
    pub path: String,
    /// Owner, as in `USER`; empty for root.
    pub owner: String,
    /// Time in seconds since 1970; `None` for the current time.
    pub epoch: Option<i64>,
}

impl Graph {
    /// Adds a node.
    pub fn add(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        NodeId(self.nodes.len() - 1)
    }

    /// A node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// All sources of a context, as paths and patterns from its root.
    pub(crate) fn sources_of(&self, context: usize) -> Vec<String> {
        let copies = self.nodes.iter().filter_map(|node| match &node.operation {
            Operation::Copy(copy) => Some(copy),
            _ => None,
        });
        let sources = copies.flat_map(|copy| &copy.sources);
        let own = sources.filter(|source| source.from == CopyFrom::Context(context));
        own.map(|source| crate::path::join("/", &source.path)).collect()
    }

    /// The inputs of all nodes.
    pub fn edges(&self) -> Vec<Vec<Input>> {
        self.nodes.iter().map(|node| node.inputs.clone()).collect()
    }

    /// The nodes that the targets need, with the targets, in order.
    pub fn needed(&self, targets: &[NodeId]) -> Vec<NodeId> {
        solve::needed(&self.edges(), targets)
    }
}

/// An input whose tree goes on in the step's own.
pub(crate) fn base(node: NodeId) -> Input {
    Input { node, usage: Use::Base }
}

/// An input of which only some files are looked at.
pub(crate) fn content(node: NodeId) -> Input {
    Input { node, usage: Use::Content }
}
