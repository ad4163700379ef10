//! The scheduler: walks a graph of steps, and runs only those that must run.
//!
//! It does not depend on containers or files. Steps are looked up in a cache by keys; a step that is found does not
//! run, and neither do its inputs unless another step needs them. Independent steps run concurrently.
//!
//! A step is *new* when its key was never in the cache. A step based on a new step cannot be found by its definition,
//! so a new step that a target needs must run in any case: it starts as soon as its inputs are available, while other
//! stages run. A step whose result was in the cache and was evicted may turn out not to be needed, when the steps based
//! on it are found: it waits until its output is wanted.
//!
//! Every step has a *definition key*, computed from its definition and the keys of its inputs. A step that reads only
//! part of an input (COPY of one file) also has a *content key*, computed from the content of that part: when the cache
//! has the content key but not the definition key, the earlier result is used. The *result key*, which enters the keys
//! of later steps, is the content key where there is one; so an input that was built again with the same content leads
//! back to the cached chain.
//!
//! Results of computing a key that are needed again, such as a file that had to be fetched to be hashed, are the step's
//! *evidence*: it is part of the step's state and is passed to the worker that runs the step.
//!
//! One loop owns all state and receives events; workers share no state and send messages.

use kiln_image::layer::WALK_STACK;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc;

/// A cache key, opaque to the scheduler.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub String);

/// A node of a graph: an index into its nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub usize);

/// Use of another step's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// The result is the base of this step's own.
    Base,
    /// Only part of the result is read.
    Content,
}

/// An edge: a needed step, and the use of its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input {
    /// The step that is needed.
    pub node: NodeId,
    /// Use of its result.
    pub usage: Use,
}

/// Content that determines a step's key besides its definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// No content: the definition determines the result.
    None,
    /// Content outside the graph, which can be read immediately (the build context).
    Own,
    /// Parts of its content inputs, which must exist to be read.
    Inputs,
    /// Parts of its content inputs, and content outside the graph.
    Both,
}

/// A step's definition key, and the content that its result key needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition<E> {
    /// Key of the operation and the result keys of the inputs.
    pub key: Key,
    /// Content that is part of the result key.
    pub content: Content,
    /// Evidence that was collected so far.
    pub evidence: E,
}

/// Result of a cache lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup<C> {
    /// The cache has a result.
    Hit {
        /// Result key that was recorded.
        key: Key,
        /// Data that restores the output.
        cached: C,
    },
    /// A result was recorded and has been removed. Results of steps based on it may still exist.
    Evicted,
    /// No result was ever recorded under the key.
    New,
}

/// Operations of the scheduler on the steps of a graph.
///
/// Both keys of a step contain the result keys of its base inputs; its definition key contains those of all inputs.
pub trait Steps: Sync {
    /// Result of running a step.
    type Output: Clone + Send + Sync;
    /// Data in the cache that restores an output.
    type Cached: Clone + Send + Sync;
    /// Results of computing a step's key that running it needs.
    type Evidence: Send;
    /// Error of a failed step.
    type Error: Send;

    /// Definition of a step, given the result keys of its inputs in order.
    fn definition(&self, node: NodeId, inputs: &[Key]) -> Definition<Self::Evidence>;

    /// Looks a key up in the cache; must not block for long.
    fn look_up(
        &self,
        node: NodeId,
        key: &Key,
        evidence: &mut Self::Evidence,
    ) -> Result<Lookup<Self::Cached>, Self::Error>;

    /// Computes the content key; may take long. `inputs` has the outputs of content inputs, in order.
    fn content_key(
        &self,
        node: NodeId,
        evidence: &mut Self::Evidence,
        inputs: &[Self::Output],
    ) -> Result<Key, Self::Error>;

    /// Restores the output of a cached step from those of its base inputs; must not block for long.
    fn restore(
        &self,
        node: NodeId,
        cached: &Self::Cached,
        base: &[Self::Output],
    ) -> Result<Self::Output, Self::Error>;

    /// Runs a step; may take long. `inputs` has the outputs of all inputs, in order. Records the result under `keys`,
    /// the first of which is the result key.
    fn run(
        &self,
        node: NodeId,
        keys: &[Key],
        evidence: Self::Evidence,
        inputs: &[Self::Output],
    ) -> Result<Self::Output, Self::Error>;

    /// Called once for each step that was found in the cache.
    fn found(&self, _node: NodeId, _definition: &Key, _result: &Key, _evidence: &Self::Evidence) {}

    /// Called when a step has failed: stops the running steps.
    fn cancel(&self) {}
}

/// State of a step in the scheduler.
enum State<S: Steps> {
    /// The keys of its inputs are not all known.
    Waiting,
    /// Parts of its inputs must be read: the definition key is not in the cache, or is not a cache key.
    NeedsContent { definition: Key, is_key: bool, evidence: S::Evidence },
    /// A worker computes the content key; `None` when the definition is not a cache key.
    Keying { definition: Option<Key> },
    /// Its result key is known.
    Keyed { definition: Key, key: Key, cached: Option<S::Cached>, evidence: S::Evidence },
    /// It runs in a worker.
    Running { key: Key },
    /// It has an output.
    Done { key: Key, output: S::Output },
    /// It has failed, or the build has.
    Stopped,
}

/// Report of a worker.
enum Event<S: Steps> {
    Keyed(NodeId, Result<(Key, S::Evidence), S::Error>),
    Ran(NodeId, Result<S::Output, S::Error>),
}

/// Work for a worker.
enum Job<S: Steps> {
    Key { node: NodeId, evidence: S::Evidence, inputs: Vec<S::Output> },
    Run { node: NodeId, keys: Vec<Key>, evidence: S::Evidence, inputs: Vec<S::Output> },
}

/// Failure of a build: the step and its error.
#[derive(Debug)]
pub struct SolveError<E> {
    /// The step that failed first.
    pub node: NodeId,
    /// Error of that step.
    pub error: E,
}

/// The targets and the steps that they need, in order.
pub(crate) fn needed(edges: &[Vec<Input>], targets: &[NodeId]) -> Vec<NodeId> {
    let mut needed = vec![false; edges.len()];
    let mut open = targets.to_vec();
    while let Some(node) = open.pop() {
        if !std::mem::replace(&mut needed[node.0], true) {
            open.extend(edges[node.0].iter().map(|input| input.node));
        }
    }
    (0..edges.len()).filter(|index| needed[*index]).map(NodeId).collect()
}

/// Produces the outputs of `targets`, in order. `edges` has the inputs of each node; nodes come after their inputs.
///
/// At most `limit` steps run concurrently.
///
/// # Errors
/// Fails with the error of the first step that failed; no step starts after that.
pub fn solve<S: Steps>(
    steps: &S,
    edges: &[Vec<Input>],
    targets: &[NodeId],
    limit: usize,
) -> Result<Vec<S::Output>, SolveError<S::Error>> {
    let (events, inbox) = mpsc::channel();
    std::thread::scope(|scope| {
        let mut solver = Solver::new(steps, edges, targets);
        let mut running = 0;
        loop {
            solver.advance_all();
            while running < limit.max(1)
                && let Some(job) = solver.jobs.pop_front()
            {
                running += 1;
                let events = events.clone();
                let worker = move || {
                    // The receiver outlives the workers, and waits for one message from each.
                    let _ = events.send(catch_unwind(AssertUnwindSafe(|| perform(steps, job))));
                };
                let thread = std::thread::Builder::new().stack_size(WALK_STACK);
                thread.spawn_scoped(scope, worker).expect("a thread can be started");
            }
            if running == 0 {
                break;
            }
            let Ok(event) = inbox.recv() else { break };
            running -= 1;
            // The panic of a worker ends the build, after the other workers have ended.
            solver.hear(event.unwrap_or_else(|panic| resume_unwind(panic)));
        }
        solver.outcome(targets)
    })
}

fn perform<S: Steps>(steps: &S, job: Job<S>) -> Event<S> {
    match job {
        Job::Key { node, mut evidence, inputs } => {
            let key = steps.content_key(node, &mut evidence, &inputs);
            Event::Keyed(node, key.map(|key| (key, evidence)))
        }
        Job::Run { node, keys, evidence, inputs } => {
            Event::Ran(node, steps.run(node, &keys, evidence, &inputs))
        }
    }
}

struct Solver<'a, S: Steps> {
    steps: &'a S,
    edges: &'a [Vec<Input>],
    /// Steps that need each step, limited to those that a target needs.
    dependents: Vec<Vec<NodeId>>,
    states: Vec<State<S>>,
    /// Steps whose output is wanted.
    wanted: Vec<bool>,
    /// Steps that must run: they, or steps that they are based on, were never in the cache.
    new: Vec<bool>,
    queue: VecDeque<NodeId>,
    jobs: VecDeque<Job<S>>,
    failure: Option<SolveError<S::Error>>,
}

impl<'a, S: Steps> Solver<'a, S> {
    fn new(steps: &'a S, edges: &'a [Vec<Input>], targets: &[NodeId]) -> Solver<'a, S> {
        let mut dependents = vec![Vec::new(); edges.len()];
        let needed = needed(edges, targets);
        for node in &needed {
            for input in &edges[node.0] {
                dependents[input.node.0].push(*node);
            }
        }
        let mut solver = Solver {
            steps,
            edges,
            dependents,
            states: edges.iter().map(|_| State::Waiting).collect(),
            wanted: vec![false; edges.len()],
            new: vec![false; edges.len()],
            queue: needed.into(),
            jobs: VecDeque::new(),
            failure: None,
        };
        targets.iter().for_each(|target| solver.want_output(*target));
        solver
    }

    fn advance_all(&mut self) {
        while let Some(node) = self.queue.pop_front() {
            if self.failure.is_some() {
                return;
            }
            if let Err(error) = self.advance(node) {
                self.fail(node, error);
            }
        }
    }

    /// Moves a step to its next state, if possible.
    fn advance(&mut self, node: NodeId) -> Result<(), S::Error> {
        let state = std::mem::replace(&mut self.states[node.0], State::Stopped);
        let next = match state {
            State::Waiting => self.define(node)?,
            State::NeedsContent { definition, is_key, evidence } => {
                self.look_at_inputs(node, definition, is_key, evidence)
            }
            State::Keyed { definition, key, cached: Some(cached), evidence } if self.wanted[node.0] => {
                self.restore(node, definition, key, cached, evidence)?
            }
            State::Keyed { definition, key, cached: None, evidence } if self.wanted[node.0] => {
                self.launch(node, definition, key, evidence)
            }
            unchanged => unchanged,
        };
        self.states[node.0] = next;
        Ok(())
    }

    fn define(&mut self, node: NodeId) -> Result<State<S>, S::Error> {
        let keys: Option<Vec<Key>> = self.edges[node.0].iter().map(|input| self.key(input.node)).collect();
        let Some(keys) = keys else { return Ok(State::Waiting) };
        let Definition { key: definition, content, mut evidence } = self.steps.definition(node, &keys);
        match content {
            Content::None => {
                let key = definition.clone();
                self.keyed(node, definition, key, evidence)
            }
            Content::Own => {
                self.jobs.push_back(Job::Key { node, evidence, inputs: Vec::new() });
                // The definition alone does not determine the result, so it must not be used as a cache key.
                Ok(State::Keying { definition: None })
            }
            Content::Inputs => match self.steps.look_up(node, &definition, &mut evidence)? {
                Lookup::Hit { key, cached } => Ok(self.found(node, definition, key, cached, evidence)),
                Lookup::Evicted | Lookup::New => Ok(self.needs_content(node, definition, true, evidence)),
            },
            Content::Both => Ok(self.needs_content(node, definition, false, evidence)),
        }
    }

    /// Looks the step up by its result key, which is known now.
    fn keyed(
        &mut self,
        node: NodeId,
        definition: Key,
        key: Key,
        mut evidence: S::Evidence,
    ) -> Result<State<S>, S::Error> {
        match self.steps.look_up(node, &key, &mut evidence)? {
            Lookup::Hit { key, cached } => return Ok(self.found(node, definition, key, cached, evidence)),
            Lookup::Evicted => {}
            Lookup::New => self.want_new(node),
        }
        self.changed(node);
        Ok(State::Keyed { definition, key, cached: None, evidence })
    }

    fn found(
        &mut self,
        node: NodeId,
        definition: Key,
        key: Key,
        cached: S::Cached,
        evidence: S::Evidence,
    ) -> State<S> {
        self.steps.found(node, &definition, &key, &evidence);
        self.changed(node);
        State::Keyed { definition, key, cached: Some(cached), evidence }
    }

    /// Marks outputs as wanted that are certainly needed because a step is new: its own, those of all its inputs, and
    /// the same for the steps based on it, whose keys contain its key. A step that reads only parts of it cannot be
    /// found by its definition, and reads all its content inputs.
    fn want_new(&mut self, node: NodeId) {
        let mut open = vec![node];
        while let Some(node) = open.pop() {
            if std::mem::replace(&mut self.new[node.0], true) {
                continue;
            }
            self.want_output(node);
            self.want(node, None);
            for index in 0..self.dependents[node.0].len() {
                let dependent = self.dependents[node.0][index];
                let goes_on = |input: &Input| input.node == node && input.usage == Use::Base;
                match self.edges[dependent.0].iter().any(goes_on) {
                    true => open.push(dependent),
                    false => self.want(dependent, Some(Use::Content)),
                }
            }
        }
    }

    fn needs_content(
        &mut self,
        node: NodeId,
        definition: Key,
        is_key: bool,
        evidence: S::Evidence,
    ) -> State<S> {
        self.want(node, Some(Use::Content));
        self.queue.push_back(node);
        State::NeedsContent { definition, is_key, evidence }
    }

    fn look_at_inputs(
        &mut self,
        node: NodeId,
        definition: Key,
        is_key: bool,
        evidence: S::Evidence,
    ) -> State<S> {
        let Some(inputs) = self.outputs(node, Some(Use::Content)) else {
            return State::NeedsContent { definition, is_key, evidence };
        };
        self.jobs.push_back(Job::Key { node, evidence, inputs });
        State::Keying { definition: is_key.then_some(definition) }
    }

    fn restore(
        &mut self,
        node: NodeId,
        definition: Key,
        key: Key,
        cached: S::Cached,
        evidence: S::Evidence,
    ) -> Result<State<S>, S::Error> {
        self.want(node, Some(Use::Base));
        let Some(base) = self.outputs(node, Some(Use::Base)) else {
            return Ok(State::Keyed { definition, key, cached: Some(cached), evidence });
        };
        let output = self.steps.restore(node, &cached, &base)?;
        self.changed(node);
        Ok(State::Done { key, output })
    }

    fn launch(&mut self, node: NodeId, definition: Key, key: Key, evidence: S::Evidence) -> State<S> {
        self.want(node, None);
        let Some(inputs) = self.outputs(node, None) else {
            return State::Keyed { definition, key, cached: None, evidence };
        };
        let mut keys = vec![key.clone()];
        if definition != key {
            keys.push(definition);
        }
        self.jobs.push_back(Job::Run { node, keys, evidence, inputs });
        State::Running { key }
    }

    /// Marks the outputs of a step's inputs as wanted: of all inputs, or of those with one use.
    fn want(&mut self, node: NodeId, usage: Option<Use>) {
        let edges = self.edges;
        let concerned = |input: &&Input| usage.is_none_or(|usage| usage == input.usage);
        edges[node.0].iter().filter(concerned).for_each(|input| self.want_output(input.node));
    }

    /// Marks the output of a step and of all its bases as wanted: both restoring and running the step need them.
    fn want_output(&mut self, node: NodeId) {
        let mut open = vec![node];
        while let Some(node) = open.pop() {
            if std::mem::replace(&mut self.wanted[node.0], true) {
                continue;
            }
            self.queue.push_back(node);
            let base = self.edges[node.0].iter().filter(|input| input.usage == Use::Base);
            open.extend(base.map(|input| input.node));
        }
    }

    fn outputs(&self, node: NodeId, usage: Option<Use>) -> Option<Vec<S::Output>> {
        let concerned =
            self.edges[node.0].iter().filter(|input| usage.is_none_or(|usage| usage == input.usage));
        concerned
            .map(|input| match &self.states[input.node.0] {
                State::Done { output, .. } => Some(output.clone()),
                _ => None,
            })
            .collect()
    }

    fn key(&self, node: NodeId) -> Option<Key> {
        match &self.states[node.0] {
            State::Keyed { key, .. } | State::Running { key } | State::Done { key, .. } => Some(key.clone()),
            _ => None,
        }
    }

    /// Continues a step that got a key or an output, and the steps that wait for it.
    fn changed(&mut self, node: NodeId) {
        self.queue.push_back(node);
        self.queue.extend(&self.dependents[node.0]);
    }

    fn hear(&mut self, event: Event<S>) {
        let (node, outcome) = match event {
            Event::Keyed(node, Ok((key, evidence))) => (node, self.hear_key(node, key, evidence)),
            Event::Ran(node, Ok(output)) => (node, self.hear_output(node, output)),
            Event::Keyed(node, Err(error)) | Event::Ran(node, Err(error)) => (node, Err(error)),
        };
        if let Err(error) = outcome {
            self.fail(node, error);
        }
    }

    fn hear_key(&mut self, node: NodeId, key: Key, evidence: S::Evidence) -> Result<(), S::Error> {
        let state = std::mem::replace(&mut self.states[node.0], State::Stopped);
        if let State::Keying { definition } = state
            && self.failure.is_none()
        {
            let definition = definition.unwrap_or_else(|| key.clone());
            self.states[node.0] = self.keyed(node, definition, key, evidence)?;
        }
        Ok(())
    }

    fn hear_output(&mut self, node: NodeId, output: S::Output) -> Result<(), S::Error> {
        let state = std::mem::replace(&mut self.states[node.0], State::Stopped);
        if let State::Running { key } = state {
            self.states[node.0] = State::Done { key, output };
            self.changed(node);
        }
        Ok(())
    }

    /// Records the first failure; no step starts after it.
    fn fail(&mut self, node: NodeId, error: S::Error) {
        self.jobs.clear();
        self.queue.clear();
        if self.failure.is_none() {
            self.failure = Some(SolveError { node, error });
            self.steps.cancel();
        }
    }

    fn outcome(mut self, targets: &[NodeId]) -> Result<Vec<S::Output>, SolveError<S::Error>> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let output = |target: &NodeId| match &self.states[target.0] {
            State::Done { output, .. } => output.clone(),
            _ => unreachable!("without a failure the loop goes on until the targets are done"),
        };
        Ok(targets.iter().map(output).collect())
    }
}

#[cfg(test)]
mod tests;
