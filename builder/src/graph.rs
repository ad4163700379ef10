//! The step graph: what is to be done, as data. Nodes come after their inputs.

use crate::solve::{Input, NodeId, Use};
use kiln_image::digest::DiffId;
use kiln_parser::mount::Sharing;
use kiln_parser::span::Span;

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
    /// Makes a folder on its base.
    MakeFolder(MakeFolder),
    /// Puts the topmost layer of its second input on its first.
    Merge,
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
    /// The working folder.
    pub folder: String,
    /// `USER`, empty for root.
    pub user: String,
    /// What it can reach.
    pub network: Network,
    /// A script that is shown to the program below `/dev/pipes`, by name and content.
    pub script: Option<(String, String)>,
    /// Names that `--add-host` gives addresses.
    pub hosts: Vec<String>,
    /// What is mounted for this step alone.
    pub mounts: Vec<StepMount>,
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
    /// A folder that outlives the build.
    Cache {
        /// Its name; builds that use the same one share it.
        id: String,
        /// How.
        sharing: Sharing,
        /// Its mode when it is made.
        mode: u32,
        /// Its owner when it is made.
        owner: (u32, u32),
        /// What it holds when it is made.
        seed: Option<Files>,
    },
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
    },
}

/// Files of one of a step's inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// The whole tree of the input of that number.
    Tree(usize),
    /// What the input of that number copied to [`MOUNT_COPY`].
    Copy(usize),
}

/// Where a copy that is made to be mounted puts what it copies: a file or a folder.
pub(crate) const MOUNT_COPY: &str = "/m";

/// What a step can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// The world, through a network of the build's own.
    Bridge,
    /// Only itself.
    None,
    /// All that the machine can, as the machine.
    Host,
}

/// Files to copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Where they are.
    pub from: CopyFrom,
    /// Paths and patterns, from the root of there.
    pub sources: Vec<String>,
    /// Where each of them stands in the Dockerfile; no part of the key.
    pub places: Vec<Span>,
    /// Files that stand in the Dockerfile: names and contents.
    pub inline: Vec<(String, String)>,
    /// Where they go: a path from the root, with a slash at its end when it must be a folder.
    pub destination: String,
    /// `--chown`.
    pub owner: Option<String>,
    /// `--chmod`.
    pub mode: Option<crate::mode::ModeChange>,
    /// `--exclude` patterns.
    pub exclude: Vec<String>,
    /// Sources that are archives are unpacked.
    pub unpack: bool,
}

/// Where files are copied from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyFrom {
    /// The build context.
    Context,
    /// The second input.
    Input,
}

/// A folder to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MakeFolder {
    /// Its path from the root.
    pub path: String,
    /// Its owner, as in `USER`; empty for root.
    pub owner: String,
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

    /// The inputs of all nodes.
    pub fn edges(&self) -> Vec<Vec<Input>> {
        self.nodes.iter().map(|node| node.inputs.clone()).collect()
    }

    /// The nodes that the target needs.
    pub fn needed(&self, target: NodeId) -> Vec<NodeId> {
        let mut needed = vec![false; self.nodes.len()];
        let mut open = vec![target];
        while let Some(node) = open.pop() {
            if !std::mem::replace(&mut needed[node.0], true) {
                open.extend(self.node(node).inputs.iter().map(|input| input.node));
            }
        }
        (0..self.nodes.len()).filter(|index| needed[*index]).map(NodeId).collect()
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
