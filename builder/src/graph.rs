//! The step graph: what is to be done, as data. Nodes come after their inputs.

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

/// One step, with how it is shown.
#[derive(Clone, Debug)]
pub struct Node {
    /// What is done.
    pub operation: Operation,
    /// What it is done to.
    pub inputs: Vec<Input>,
    /// How progress names it, such as `[2/4] RUN make`.
    pub name: String,
    /// Its instruction.
    pub span: Option<Span>,
    /// Which instruction of which file it is: the same in every build.
    pub place: String,
    /// Results of earlier builds do not count.
    pub no_cache: bool,
}

/// What a step does.
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
    /// Where it is.
    pub url: String,
    /// Its name in the tree.
    pub name: String,
    /// The digest that it must have.
    pub checksum: Option<Digest>,
}

/// Files of a git repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkout {
    /// What `git` is given.
    pub remote: String,
    /// Branch, tag or commit; empty for the default branch.
    pub reference: String,
    /// The commit it must be, or its beginning; empty for any.
    pub commit: String,
    /// A directory of the repository; empty for all of it.
    pub dir: String,
    /// `.git` stays.
    pub keeps_git: bool,
    /// Submodules are fetched, too.
    pub submodules: bool,
    /// Files have the time of the commit.
    pub commit_times: bool,
}

/// An image that is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSource {
    /// Its name with its digest.
    pub reference: String,
    /// Its layers, lowest first.
    pub diff_ids: Vec<DiffId>,
}

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// The program and its arguments.
    pub arguments: Vec<String>,
    /// `NAME=value`.
    pub environment: Vec<String>,
    /// Proxy settings: seen by the program, not part of the key.
    pub proxies: Vec<String>,
    /// The working directory.
    pub dir: String,
    /// `USER`, empty for root.
    pub user: String,
    /// What it can reach.
    pub network: Network,
    /// A script that is shown to the program below `/dev/pipes`, by name and content.
    pub script: Option<(String, String)>,
    /// Names that `--add-host` gives addresses.
    pub hosts: Vec<String>,
    /// What the program believes to be its host's name.
    pub hostname: String,
    /// `--security=insecure`: all capabilities, all devices, no filters.
    pub is_insecure: bool,
    /// Devices by their CDI names, and whether the step fails without them.
    pub devices: Vec<(String, bool)>,
    /// Limits that the command line set.
    pub limits: RunLimits,
    /// What it is for, when that is not what this host is.
    pub platform: Option<Platform>,
    /// What is mounted for this step alone.
    pub mounts: Vec<StepMount>,
    /// The variables that ARGs gave, and whether their values are from `--build-arg`; no part of the key.
    pub declared: Vec<(String, bool)>,
}

/// Something mounted for one step. None of it becomes part of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepMount {
    /// Where, from the root.
    pub target: String,
    /// What.
    pub source: MountSource,
    /// Writes fail.
    pub readonly: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSource {
    /// Files of an input.
    Files(Files),
    /// A directory that outlives the build.
    Cache {
        /// Its name; builds that use the same one share it.
        id: String,
        /// Owner and mode as the Dockerfile gives them. Caches of one name that differ in this are different ones.
        given: Option<String>,
        /// How.
        sharing: Sharing,
        /// Its mode when it is made.
        mode: u32,
        /// Its owner when it is made.
        owner: (u32, u32),
        /// What it holds when it is made.
        seed: Option<Files>,
    },
    /// A file or directory of this host. What it holds is no part of the key.
    Host(PathBuf),
    /// Memory.
    Tmpfs {
        /// In bytes; 0 for no limit.
        size: u64,
    },
    /// A secret, as a file or in a variable.
    Secret {
        /// Its id.
        id: String,
        /// The step fails without it.
        required: bool,
        /// Mode and owner of the file; none when there is only the variable.
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

/// A file or directory of this host for all RUN steps: `--volume`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostMount {
    /// Where it is.
    pub host: PathBuf,
    /// Where programs see it.
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

/// Where a copy that is made to be mounted puts what it copies: a file or a directory.
pub(crate) const MOUNT_COPY: &str = "/m";

/// What a step can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// The world, through a network of the build's own.
    Bridge,
    /// Only itself.
    None,
    /// All that the host can, as the host.
    Host,
}

/// What the command line lets programs of RUN have. Part of the key are those that a program sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunLimits {
    /// Size of /dev/shm in bytes.
    pub shm_size: Option<u64>,
    /// `--ulimit`: name, soft and hard limit.
    pub ulimits: Vec<(String, u64, u64)>,
    /// Memory in bytes; no part of the key, as all below.
    pub memory: Option<i64>,
    /// Memory and swap in bytes, -1 for no limit.
    pub memory_swap: Option<i64>,
    /// Weight of processor time.
    pub cpu_shares: Option<u64>,
    /// Processor time in microseconds of each period.
    pub cpu_quota: Option<i64>,
    /// That period.
    pub cpu_period: Option<u64>,
    /// Processors, as `0-2,4`.
    pub cpus: Option<String>,
    /// Memory nodes.
    pub memory_nodes: Option<String>,
    /// The control group that those of steps are made in.
    pub cgroup_parent: Option<String>,
}

/// Files to copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// What is copied.
    pub sources: Vec<CopySource>,
    /// Files that stand in the Dockerfile: names and contents.
    pub inline: Vec<(String, String)>,
    /// Where they go: a path from the root, with a slash at its end when it must be a directory.
    pub destination: String,
    /// `--chown`.
    pub owner: Option<String>,
    /// `--chmod`.
    pub mode: Option<crate::mode::ModeChange>,
    /// `--exclude` patterns.
    pub exclude: Vec<String>,
    /// `--parents`: directories above the sources are made, too.
    pub parents: bool,
    /// A directory is copied with its own mode and owner, not only what is in it.
    pub whole: bool,
    /// The time of what the builder itself makes, in seconds since 1970; now without one.
    pub epoch: Option<i64>,
}

/// One source of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopySource {
    /// Where it is.
    pub from: CopyFrom,
    /// A path or pattern, from the root of there.
    pub path: String,
    /// Where it stands in the Dockerfile; no part of the key.
    pub place: Span,
    /// It is unpacked when it is an archive.
    pub unpack: bool,
    /// What `from` is in words, such as "the build context"; no part of the key.
    pub origin: String,
}

/// Where files are copied from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyFrom {
    /// A directory of this host: 0 is the build context, others are named ones.
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

    /// True when files of this host are copied.
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
    /// Its path from the root.
    pub path: String,
    /// Its owner, as in `USER`; empty for root.
    pub owner: String,
    /// Its time in seconds since 1970; now without one.
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

    /// All that is taken of a context, as paths and patterns from its root.
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
