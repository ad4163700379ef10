//! `RUN --mount`: mounts that exist for one step.

use super::{Planner, StageState};
use crate::graph::{self, Copy, CopyFrom, CopySource, Files, MOUNT_COPY, MountSource, Operation, StepMount};
use crate::mistake::Mistake;
use crate::path;
use crate::solve::{Input, NodeId};
use crate::stage::{Origin, Step};
use kiln_parser::ast::{MountFlag, Run};
use kiln_parser::expand::{self, Rules};
use kiln_parser::mount::{self, Mount, MountKind, Sharing};

/// Default directory of secrets in the container.
const SECRETS: &str = "/run/secrets";
/// Default path of ssh sockets, followed by a number.
const SOCKETS: &str = "/run/buildkit/ssh_agent.";

impl Planner<'_> {
    /// Mounts of a RUN, and the inputs that contain their files.
    pub(super) fn mounts(
        &mut self,
        state: &mut StageState,
        step: &Step,
        run: &Run,
    ) -> Result<(Vec<StepMount>, Vec<Input>), Mistake> {
        let mut inputs = Vec::new();
        let volumes = self.options.volumes.iter().map(|volume| StepMount {
            target: volume.target.clone(),
            source: MountSource::Host(volume.host.clone()),
            readonly: volume.readonly,
        });
        let mut mounts: Vec<StepMount> = volumes.collect();
        let mut sockets = 0;
        for (number, flag) in run.mounts.iter().enumerate() {
            let mount = resolve(state, step, flag)?;
            let origin = step.origins.get(number).and_then(Option::as_ref);
            let target = target(state, &mount, &mut sockets);
            let span = if step.is_trigger { step.span } else { flag.text.span() };
            let takes_root = matches!(mount.kind, MountKind::Bind | MountKind::Cache | MountKind::Tmpfs);
            if takes_root && target == "/" {
                return Err(Mistake::at("invalid-mount", span, "invalid mount target \"/\"")
                    .hint(Some("name a directory of the container with target=".to_owned())));
            }
            if mount.kind == MountKind::Cache && origin.is_none() && path::join("/", &mount.source) != "/" {
                let message = format!("open {}: no such file or directory", path::join("/", &mount.source));
                return Err(Mistake::at("invalid-mount", span, message).hint(Some(
                    "a cache begins with files of a stage or image: name it with from=".to_owned(),
                )));
            }
            let owner = (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
            let source = match mount.kind {
                MountKind::Bind => {
                    MountSource::Files(self.files(state, step, origin, &mount.source, &mut inputs))
                }
                MountKind::Cache => MountSource::Cache {
                    id: self.cache_id(&mount),
                    given: given_owner(&mount).filter(|_| origin.is_none()),
                    sharing: mount.sharing.unwrap_or(Sharing::Shared),
                    mode: mount.mode.unwrap_or(0o755),
                    owner,
                    seed: origin.map(|_| self.files(state, step, origin, &mount.source, &mut inputs)),
                },
                MountKind::Tmpfs => MountSource::Tmpfs { size: mount.size },
                MountKind::Secret => MountSource::Secret {
                    id: mount.secret_id(),
                    required: mount.required,
                    file: (mount.env.is_none() || !mount.target.is_empty())
                        .then(|| (mount.mode.unwrap_or(0o400), owner)),
                    variable: mount.env.clone(),
                },
                MountKind::Ssh => MountSource::Ssh {
                    id: mount.ssh_id(),
                    required: mount.required,
                    socket: (mount.mode.unwrap_or(0o600), owner),
                },
            };
            mounts.push(StepMount { target, source, readonly: mount.readonly });
        }
        Ok((mounts, inputs))
    }

    /// Adds files of the context, a stage or an image to the inputs of the step.
    ///
    /// A whole tree is mounted directly. A part of a tree, or of the context, is copied first: the files then have the
    /// owners of a COPY, ignored files are absent, and other files do not change the key.
    fn files(
        &mut self,
        state: &mut StageState,
        step: &Step,
        origin: Option<&Origin>,
        source: &str,
        inputs: &mut Vec<Input>,
    ) -> Files {
        // The first input is the stage's own tree.
        let number = inputs.len() + 1;
        let source = path::join("/", source);
        let (from, node) = match origin {
            None => (CopyFrom::Context(0), None),
            Some(Origin::Context(context)) => (CopyFrom::Context(context + 1), None),
            Some(origin) => (CopyFrom::Input(1), Some(self.origin_node(origin, step.span))),
        };
        if let (Some(node), "/") = (node, source.as_str()) {
            inputs.push(graph::content(node));
            return Files::Tree(number);
        }
        let source = (from, source, self.origin_name(origin));
        inputs.push(graph::content(self.copy_for_mount(state, step, source, node)));
        Files::Copy(number)
    }

    /// Name of a cache in the store: `BUILDKIT_CACHE_MOUNT_NS` separates the caches of different projects.
    fn cache_id(&self, mount: &Mount) -> String {
        let id = if mount.id.is_empty() { path::join("/", &mount.target) } else { mount.id.clone() };
        match self.options.build_args.get("BUILDKIT_CACHE_MOUNT_NS").filter(|name| !name.is_empty()) {
            Some(name) => format!("{name}/{id}"),
            None => id,
        }
    }

    fn copy_for_mount(
        &mut self,
        state: &mut StageState,
        step: &Step,
        (from, source, shown): (CopyFrom, String, String),
        origin: Option<NodeId>,
    ) -> NodeId {
        let counter = &mut state.counter;
        let name = format!("[internal] load {source} for a mount");
        let empty = self.add(counter, step.span, Operation::Scratch, Vec::new(), "FROM scratch".to_owned());
        let source = CopySource { from, path: source, place: step.span, unpack: false, origin: shown };
        let copy = Copy { whole: true, ..Copy::of(vec![source], MOUNT_COPY.to_owned()) };
        let inputs = std::iter::once(graph::base(empty)).chain(origin.map(graph::content)).collect();
        self.add(counter, step.span, Operation::Copy(Box::new(copy)), inputs, name)
    }
}

/// Owner and mode of an empty cache; `None` when the Dockerfile sets neither.
fn given_owner(mount: &Mount) -> Option<String> {
    if mount.uid.is_none() && mount.gid.is_none() && mount.mode.is_none() {
        return None;
    }
    let (uid, gid) = (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
    Some(format!("{uid}:{gid} {:04o}", mount.mode.unwrap_or(0o755)))
}

fn resolve(state: &StageState, step: &Step, flag: &MountFlag) -> Result<Mount, Mistake> {
    let expanded = mount::resolve(flag, &mut |text| {
        expand::expand(text.as_str(), &state.limited(), Rules::value(step.escape)).map(|it| it.value)
    });
    expanded.map_err(|error| {
        let span = if step.is_trigger { step.span } else { error.span };
        Mistake::at("invalid-mount", span, error.message).hint(error.hint)
    })
}

/// Absolute mount target in the container.
fn target(state: &StageState, mount: &Mount, sockets: &mut usize) -> String {
    let dir = &state.config.config.working_dir;
    let dir = if dir.is_empty() { "/" } else { dir };
    match mount.kind {
        MountKind::Secret if mount.target.is_empty() => {
            path::join(SECRETS, mount::base_name(&mount.secret_id()))
        }
        MountKind::Ssh if mount.target.is_empty() => {
            let socket = format!("{SOCKETS}{sockets}");
            *sockets += 1;
            socket
        }
        _ if mount.target.starts_with('/') => path::join("/", &mount.target),
        _ => path::join(dir, &mount.target),
    }
}
