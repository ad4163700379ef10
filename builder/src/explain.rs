//! Reasons for running a step that was in the last build as well: `--explain`.
//!
//! The steps of the last build of a Dockerfile are stored with the fields of their keys. The steps of this build are
//! matched with them in order and by similarity, so that an inserted step does not shift the others. Differences in the
//! step's own inputs come first, then those in the inputs of the steps that it is based on.

mod changes;
mod matching;

use crate::graph::{Graph, Operation};
use crate::key::{self, KeyInputs};
use crate::solve::{NodeId, Use};
use changes::Names;
use kiln_image::digest::Digest;
use kiln_image::store::Store;
use serde::{Deserialize, Serialize};

/// Maximum number of causes listed for one step.
const MOST: usize = 5;

/// Record of a build's steps, to explain the next build of the same file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastBuild {
    /// Version of the fields ([`key::VERSION`]); those of another version cannot be compared.
    #[serde(default)]
    pub(crate) version: u8,
    /// Steps in the order of the graph.
    pub(crate) steps: Vec<Step>,
}

/// A step of the last build or of this one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// Kind of the step, as in its key.
    pub(crate) kind: String,
    /// Title of the stage in the progress, such as `linux/amd64 build`.
    pub(crate) stage: String,
    /// Instruction as shown in the progress.
    pub(crate) text: String,
    /// Indices of the steps on whose trees its own is based.
    pub(crate) bases: Vec<usize>,
    /// Indices of all steps that it needs.
    pub(crate) needs: Vec<usize>,
    /// Fields of its key, as far as they are known.
    pub(crate) inputs: KeyInputs,
}

impl LastBuild {
    /// Steps of a graph, without their inputs; `shown` masks secrets.
    fn of(graph: &Graph, shown: impl Fn(&str) -> String) -> LastBuild {
        let steps = graph.nodes.iter().map(|node| {
            let (stage, text) = split_name(&node.name);
            let bases = node.inputs.iter().filter(|input| input.usage == Use::Base);
            Step {
                kind: key::kind(&node.operation).to_owned(),
                stage: shown(stage),
                text: shown(text),
                bases: bases.map(|input| input.node.0).collect(),
                needs: node.inputs.iter().map(|input| input.node.0).collect(),
                inputs: KeyInputs::default(),
            }
        });
        LastBuild { version: key::VERSION, steps: steps.collect() }
    }

    /// Record for the next build: the steps of this build, and those of `before` that this build did not reach, because
    /// it failed or had other targets.
    fn after(mut self, before: Option<LastBuild>) -> LastBuild {
        let Some(before) = before else { return self };
        let matched = matching::matches(&self.steps, &before.steps);
        for (step, other) in self.steps.iter_mut().zip(&matched) {
            if let (true, Some(other)) = (step.inputs.is_empty(), other) {
                step.inputs = before.steps[*other].inputs.clone();
            }
        }
        let stages: Vec<&String> = self.steps.iter().map(|step| &step.stage).collect();
        let is_left = |number: usize| {
            !matched.contains(&Some(number)) && !stages.contains(&&before.steps[number].stage)
        };
        let left: Vec<usize> = (0..before.steps.len()).filter(|number| is_left(*number)).collect();
        let moved = |old: usize| -> Option<usize> {
            let kept = left.iter().position(|number| *number == old).map(|at| self.steps.len() + at);
            kept.or_else(|| matched.iter().position(|number| *number == Some(old)))
        };
        let kept = left.iter().map(|number| {
            let step = before.steps[*number].clone();
            let bases = step.bases.iter().filter_map(|base| moved(*base)).collect();
            let needs = step.needs.iter().filter_map(|need| moved(*need)).collect();
            Step { bases, needs, ..step }
        });
        let kept: Vec<Step> = kept.collect();
        self.steps.extend(kept);
        self
    }
}

/// The last build of a Dockerfile, and the current one.
pub(crate) struct History<'a> {
    store: &'a Store,
    /// Name of the record in the store.
    name: String,
    last: Option<LastBuild>,
    now: LastBuild,
}

impl<'a> History<'a> {
    /// Reads the record of the last build of `dockerfile`; `shown` masks secrets.
    pub(crate) fn open(
        store: &'a Store,
        dockerfile: &str,
        graph: &Graph,
        shown: impl Fn(&str) -> String,
    ) -> History<'a> {
        let name = format!("last-{}", &Digest::of(dockerfile.as_bytes()).hex()[..32]);
        let last = store.read_cache(&name).and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let last = last.filter(|last: &LastBuild| last.version == key::VERSION);
        History { store, name, last, now: LastBuild::of(graph, shown) }
    }

    /// Explainer of the steps of this build.
    pub(crate) fn explainer<'g>(&self, graph: &'g Graph) -> Explainer<'g> {
        Explainer::new(graph, self.now.clone(), self.last.clone())
    }

    /// Stores this build as the last one.
    pub(crate) fn keep(mut self, inputs: impl Fn(NodeId) -> KeyInputs) {
        for (number, step) in self.now.steps.iter_mut().enumerate() {
            step.inputs = inputs(NodeId(number));
        }
        let kept = self.now.after(self.last.clone());
        if self.last.as_ref() != Some(&kept) {
            let bytes = serde_json::to_vec(&kept).expect("texts are JSON");
            // Failure is harmless: the next build has no record to compare with.
            let _ = self.store.put_cache(&self.name, &bytes);
        }
    }
}

/// Splits `[stage 2/4] RUN x` into `stage` and `RUN x`.
fn split_name(name: &str) -> (&str, &str) {
    let inside = name.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    let Some((title, text)) = inside.filter(|(title, _)| title.contains('/')) else { return ("", name) };
    // Numbers are padded: `stage  2/12`.
    let stage = title.rsplit_once(' ').map_or("", |(stage, _)| stage.trim_end());
    (stage, text)
}

/// Compares a build with the last build of its file.
pub(crate) struct Explainer<'a> {
    graph: &'a Graph,
    now: Vec<Step>,
    before: Option<LastBuild>,
    /// Similar step of the last build for each step; `None` for new steps.
    matched: Vec<Option<usize>>,
}

impl<'a> Explainer<'a> {
    fn new(graph: &'a Graph, now: LastBuild, before: Option<LastBuild>) -> Explainer<'a> {
        let none = || vec![None; now.steps.len()];
        let matched = before.as_ref().map_or_else(none, |past| matching::matches(&now.steps, &past.steps));
        Explainer { graph, now: now.steps, before, matched }
    }

    /// Reasons for running a step, one sentence each. `inputs` returns the known fields of a step's key.
    pub(crate) fn causes(&self, node: NodeId, inputs: &dyn Fn(NodeId) -> KeyInputs) -> Vec<String> {
        if self.graph.node(node).no_cache {
            return vec!["results of earlier builds do not count (--no-cache)".to_owned()];
        }
        let Some(before) = &self.before else {
            return vec!["no earlier build of this Dockerfile is known".to_owned()];
        };
        let Some(past) = self.matched[node.0] else {
            return vec!["this step is new: the last build had none like it".to_owned()];
        };
        let mut causes = self.own_changes(node.0, past, inputs);
        causes.extend(self.mounted_changes(node.0, past, inputs));
        if self.base_differs(node, past, inputs) {
            causes.extend(self.base_changes(node.0, past, inputs));
        }
        if causes.is_empty() {
            let known = !before.steps[past].inputs.is_empty();
            causes.push(match known {
                true => "its result is no longer in the store".to_owned(),
                false => "no earlier build came to this step".to_owned(),
            });
        }
        let more = causes.len().saturating_sub(MOST);
        causes.truncate(MOST);
        if more > 0 {
            causes.push(format!("and {more} more"));
        }
        causes
    }

    fn past(&self, number: usize) -> &Step {
        &self.before.as_ref().expect("steps are matched with those of a build").steps[number]
    }

    /// Differences in a step's own inputs.
    fn own_changes(&self, node: usize, past: usize, inputs: &dyn Fn(NodeId) -> KeyInputs) -> Vec<String> {
        let now = inputs(NodeId(node));
        let before = self.past(past);
        if before.inputs.is_empty() || now.is_empty() {
            return Vec::new();
        }
        let names = match &self.graph.nodes[node].operation {
            Operation::Exec(exec) => Names { arguments: &exec.declared },
            _ => Names::default(),
        };
        let step = &self.now[node];
        if step.kind == "image" {
            return changes::of_image(&step.text, &before.text, &now, &before.inputs);
        }
        changes::of_step(&step.kind, &now, &before.inputs, &names)
    }

    /// Differences in files that are mounted from other steps.
    fn mounted_changes(&self, node: usize, past: usize, inputs: &dyn Fn(NodeId) -> KeyInputs) -> Vec<String> {
        let (now, before) = (inputs(NodeId(node)), &self.past(past).inputs);
        let mut causes = Vec::new();
        for (target, number) in changes::mounted(&now) {
            let tree = format!("tree {number}");
            let (Some(own), Some(other)) = (now.value(&tree), before.value(&tree)) else { continue };
            if own == other {
                continue;
            }
            let need = self.now[node].needs.get(number).copied();
            let own = need.and_then(|need| Some(self.own_changes(need, self.matched[need]?, inputs)));
            let own = own.unwrap_or_default();
            if own.is_empty() {
                causes.push(format!("the files mounted on {target} changed"));
            }
            causes.extend(own.into_iter().map(|cause| format!("mounted on {target}: {cause}")));
        }
        causes
    }

    fn base_differs(&self, node: NodeId, past: usize, inputs: &dyn Fn(NodeId) -> KeyInputs) -> bool {
        let (now, before) = (inputs(node), &self.past(past).inputs);
        let bases = 0..self.now[node.0].bases.len();
        let runs_anew = |base: &usize| self.graph.nodes[*base].no_cache;
        self.now[node.0].bases.iter().any(runs_anew)
            || bases
                .map(|number| format!("base {number}"))
                .any(|base| now.value(&base) != before.value(&base))
    }

    /// Differences in the steps below, from the nearest step whose own inputs differ.
    fn base_changes(&self, node: usize, past: usize, inputs: &dyn Fn(NodeId) -> KeyInputs) -> Vec<String> {
        let mut seen = Vec::new();
        let mut open: Vec<(usize, Option<usize>)> = vec![(node, Some(past))];
        while let Some((above, past)) = open.pop() {
            let below = past.map(|past| self.past(past).bases.clone()).unwrap_or_default();
            for (at, base) in self.now[above].bases.iter().enumerate() {
                if seen.contains(base) {
                    continue;
                }
                seen.push(*base);
                let causes = self.base_change(*base, below.get(at).copied(), inputs);
                if !causes.is_empty() {
                    return causes;
                }
                open.push((*base, self.matched[*base]));
            }
        }
        vec!["the result of an earlier step changed".to_owned()]
    }

    /// Differences between the base of a step and its base in the last build, except those of the bases below.
    fn base_change(
        &self,
        base: usize,
        before: Option<usize>,
        inputs: &dyn Fn(NodeId) -> KeyInputs,
    ) -> Vec<String> {
        let step = &self.now[base];
        let text = &step.text;
        if self.graph.nodes[base].no_cache {
            return vec![format!("`{text}` before it ran again (--no-cache)")];
        }
        let mut causes = Vec::new();
        let is_gone = |past: usize| !self.matched.contains(&Some(past));
        if let Some(gone) = before.filter(|past| is_gone(*past) && self.past(*past).kind != "scratch") {
            causes.push(format!("`{}` before it is gone", self.past(gone).text));
        }
        let Some(past) = self.matched[base] else {
            causes.insert(0, format!("`{text}` before it is new"));
            return causes;
        };
        let own = self.own_changes(base, past, inputs);
        let own = own.into_iter().chain(self.mounted_changes(base, past, inputs));
        causes.extend(own.map(|cause| match step.kind.as_str() {
            "image" => cause,
            _ => format!("`{text}` before it: {cause}"),
        }));
        if causes.is_empty() && before.is_some_and(|before| before != past) {
            causes.push(format!("`{text}` was moved to before it"));
        }
        causes
    }
}

#[cfg(test)]
mod tests;
