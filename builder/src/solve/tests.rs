//! The scheduler with steps that add numbers and count their calls.

use super::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Barrier, Condvar, Mutex};
use std::time::Duration;

/// Operation of a test step.
#[derive(Clone, Debug)]
enum Step {
    /// Outputs a fixed number.
    Value(i64),
    /// Outputs the sum of all inputs.
    Sum,
    /// Outputs the base plus the last digit of each content input.
    LastDigits,
    /// Outputs a number that is not part of the definition.
    Own(Hidden),
    /// Outputs such a number plus the last digit of each content input.
    OwnAndLastDigits(Hidden),
    /// Fails with an error.
    Fail,
    /// Panics, which no step should.
    Panic,
    /// Waits for another step before it ends.
    Meet,
}

/// Content that the definition of a step does not contain.
#[derive(Clone)]
struct Hidden(i64);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("_")
    }
}

#[derive(Default)]
struct Log {
    ran: Vec<usize>,
    found: Vec<usize>,
    cancelled: bool,
}

struct Numbers<'a> {
    steps: Vec<Step>,
    edges: Vec<Vec<Input>>,
    cache: &'a Cache,
    log: Mutex<Log>,
    barrier: Barrier,
    /// Steps that must all have started before one of them ends.
    waves: Option<Waves>,
}

/// Recorded result; `None` after it was evicted.
type Record = Option<(Key, i64)>;
type Cache = Mutex<BTreeMap<String, Record>>;

impl<'a> Numbers<'a> {
    fn new(graph: &[(Step, Vec<Input>)], cache: &'a Cache) -> Numbers<'a> {
        let (steps, edges) = graph.iter().cloned().unzip();
        Numbers { steps, edges, cache, log: Mutex::default(), barrier: Barrier::new(2), waves: None }
    }

    fn value(&self, node: usize, inputs: &[i64]) -> Result<i64, String> {
        Ok(match &self.steps[node] {
            Step::Value(value) | Step::Own(Hidden(value)) => *value,
            Step::Sum => inputs.iter().sum(),
            Step::LastDigits => inputs.iter().map(|input| input % 10).sum(),
            Step::OwnAndLastDigits(Hidden(value)) => {
                value + inputs.iter().map(|input| input % 10).sum::<i64>()
            }
            Step::Fail => return Err("as told".into()),
            Step::Panic => panic!("a step panicked"),
            Step::Meet => {
                self.barrier.wait();
                1
            }
        })
    }

    fn solve(&self, targets: &[usize], limit: usize) -> Result<Vec<i64>, String> {
        let targets: Vec<NodeId> = targets.iter().copied().map(NodeId).collect();
        solve(self, &self.edges, &targets, limit).map_err(|error| error.error)
    }
}

/// Steps by the earliest time at which they can start, counted in steps on the longest path to them.
struct Waves {
    /// Wave of each step that runs.
    of: BTreeMap<usize, usize>,
    /// Number of steps of each wave that have not started.
    missing: Mutex<BTreeMap<usize, usize>>,
    began: Condvar,
}

impl Waves {
    fn new(of: BTreeMap<usize, usize>) -> Waves {
        let mut missing = BTreeMap::new();
        of.values().for_each(|wave| *missing.entry(*wave).or_default() += 1);
        Waves { of, missing: Mutex::new(missing), began: Condvar::new() }
    }

    /// Waits until all steps of the node's wave have started.
    fn begin(&self, node: usize) {
        // A scheduler that holds one of them back would wait forever: this is the time after which the test fails.
        const NEVER: Duration = Duration::from_secs(20);
        let wave = self.of[&node];
        let mut missing = self.missing.lock().unwrap();
        *missing.get_mut(&wave).unwrap() -= 1;
        self.began.notify_all();
        let (_missing, waited) =
            self.began.wait_timeout_while(missing, NEVER, |missing| missing[&wave] > 0).unwrap();
        assert!(!waited.timed_out(), "step {node} waits for others of wave {wave}");
    }
}

impl Steps for Numbers<'_> {
    type Output = i64;
    type Cached = i64;
    /// Keys of the step's base inputs.
    type Evidence = String;
    type Error = String;

    fn definition(&self, node: NodeId, inputs: &[Key]) -> Definition<String> {
        let step = &self.steps[node.0];
        let inputs: Vec<&str> = inputs.iter().map(|key| key.0.as_str()).collect();
        let content = match step {
            Step::LastDigits => Content::Inputs,
            Step::Own(_) => Content::Own,
            Step::OwnAndLastDigits(_) => Content::Both,
            _ => Content::None,
        };
        let base = self.edges[node.0].iter().zip(&inputs).filter(|(input, _)| input.usage == Use::Base);
        let base: Vec<&str> = base.map(|(_, key)| *key).collect();
        // The number in the key makes all steps different.
        Definition {
            key: Key(format!("{}:{step:?}({})", node.0, inputs.join(","))),
            content,
            evidence: base.join(","),
        }
    }

    fn look_up(&self, _node: NodeId, key: &Key, _base: &mut String) -> Result<Lookup<i64>, String> {
        let cache = self.cache.lock().unwrap();
        Ok(match cache.get(&key.0) {
            Some(Some((key, value))) => Lookup::Hit { key: key.clone(), cached: *value },
            Some(None) => Lookup::Evicted,
            None => Lookup::New,
        })
    }

    fn content_key(&self, node: NodeId, base: &mut String, inputs: &[i64]) -> Result<Key, String> {
        if let Step::Own(Hidden(value)) = &self.steps[node.0] {
            return Ok(Key(format!("own{}({value};{base})", node.0)));
        }
        let own = match &self.steps[node.0] {
            Step::OwnAndLastDigits(Hidden(value)) => value.to_string(),
            _ => String::new(),
        };
        let digits: Vec<String> = inputs.iter().map(|input| (input % 10).to_string()).collect();
        Ok(Key(format!("content{}{own}({};{base})", node.0, digits.join(","))))
    }

    fn restore(&self, _node: NodeId, cached: &i64, _base: &[i64]) -> Result<i64, String> {
        Ok(*cached)
    }

    fn run(&self, node: NodeId, keys: &[Key], _base: String, inputs: &[i64]) -> Result<i64, String> {
        if let Some(waves) = &self.waves {
            waves.begin(node.0);
        }
        // Another build may have produced it meanwhile.
        let made = keys.iter().find_map(|key| self.cache.lock().unwrap().get(&key.0).cloned().flatten());
        if let Some((_, value)) = made {
            return Ok(value);
        }
        self.log.lock().unwrap().ran.push(node.0);
        let value = self.value(node.0, inputs)?;
        let mut cache = self.cache.lock().unwrap();
        for key in keys {
            cache.insert(key.0.clone(), Some((keys[0].clone(), value)));
        }
        Ok(value)
    }

    fn found(&self, node: NodeId, _definition: &Key, _result: &Key, _base: &String) {
        self.log.lock().unwrap().found.push(node.0);
    }

    fn cancel(&self) {
        self.log.lock().unwrap().cancelled = true;
    }
}

fn base(node: usize) -> Input {
    Input { node: NodeId(node), usage: Use::Base }
}

fn content(node: usize) -> Input {
    Input { node: NodeId(node), usage: Use::Content }
}

/// Solves for the last node; returns the outcome with the nodes that ran and those found, sorted.
fn check(cache: &Cache, graph: &[(Step, Vec<Input>)]) -> (Result<i64, String>, Vec<usize>, Vec<usize>) {
    let numbers = Numbers::new(graph, cache);
    let outcome = numbers.solve(&[graph.len() - 1], 4).map(|outputs| outputs[0]);
    let mut log = numbers.log.into_inner().unwrap();
    log.ran.sort_unstable();
    log.found.sort_unstable();
    assert_eq!(log.cancelled, outcome.is_err());
    (outcome, log.ran, log.found)
}

#[test]
fn what_ran_once_is_found() {
    let cache = Cache::default();
    let graph = [(Step::Value(1), vec![]), (Step::Value(2), vec![]), (Step::Sum, vec![base(0), base(1)])];
    assert_eq!(check(&cache, &graph), (Ok(3), vec![0, 1, 2], vec![]));
    assert_eq!(check(&cache, &graph), (Ok(3), vec![], vec![0, 1, 2]));
    let changed = [graph[0].clone(), (Step::Value(5), vec![]), graph[2].clone()];
    assert_eq!(check(&cache, &changed), (Ok(6), vec![1, 2], vec![0]));
}

#[test]
fn inputs_of_what_is_found_are_not_run() {
    let cache = Cache::default();
    let graph =
        [(Step::Value(1), vec![]), (Step::Sum, vec![base(0)]), (Step::LastDigits, vec![base(0), content(1)])];
    let _ = check(&cache, &graph);
    // The source's own result was evicted, the copy's still exists.
    cache
        .lock()
        .unwrap()
        .iter_mut()
        .filter(|(key, _)| key.starts_with("1:Sum"))
        .for_each(|(_, record)| *record = None);
    assert_eq!(check(&cache, &graph), (Ok(2), vec![], vec![0, 2]));
}

#[test]
fn equal_content_leads_back_to_the_cached_chain() {
    let cache = Cache::default();
    let graph = |value: i64| {
        [
            (Step::Value(1), vec![]),
            (Step::Value(value), vec![]),
            (Step::LastDigits, vec![base(0), content(1)]),
            (Step::Sum, vec![base(2)]),
        ]
    };
    assert_eq!(check(&cache, &graph(12)), (Ok(3), vec![0, 1, 2, 3], vec![]));
    // The source changes and must run, but the part that is read stays the same.
    assert_eq!(check(&cache, &graph(22)), (Ok(3), vec![1], vec![0, 2, 3]));
    assert_eq!(check(&cache, &graph(23)), (Ok(4), vec![1, 2, 3], vec![0]));
}

#[test]
fn a_step_with_content_of_its_own_runs_again_when_that_changes() {
    let cache = Cache::default();
    let graph = |value| [(Step::Own(Hidden(value)), vec![]), (Step::Sum, vec![base(0)])];
    assert_eq!(check(&cache, &graph(1)), (Ok(1), vec![0, 1], vec![]));
    assert_eq!(check(&cache, &graph(1)), (Ok(1), vec![], vec![0, 1]));
    assert_eq!(check(&cache, &graph(2)), (Ok(2), vec![0, 1], vec![]));
    assert_eq!(check(&cache, &graph(1)), (Ok(1), vec![], vec![0, 1]));
}

#[test]
fn content_of_both_kinds_counts() {
    let cache = Cache::default();
    let graph =
        |input, own| [(Step::Value(input), vec![]), (Step::OwnAndLastDigits(Hidden(own)), vec![content(0)])];
    assert_eq!(check(&cache, &graph(12, 5)), (Ok(7), vec![0, 1], vec![]));
    assert_eq!(check(&cache, &graph(12, 5)), (Ok(7), vec![], vec![0, 1]));
    assert_eq!(check(&cache, &graph(22, 5)), (Ok(7), vec![0], vec![1]));
    assert_eq!(check(&cache, &graph(22, 6)), (Ok(8), vec![1], vec![0]));
}

#[test]
fn several_targets_share_their_steps() {
    let cache = Cache::default();
    let graph = [(Step::Value(1), vec![]), (Step::Value(2), vec![]), (Step::Sum, vec![base(0), base(1)])];
    let numbers = Numbers::new(&graph, &cache);
    assert_eq!(numbers.solve(&[2, 0], 4).unwrap(), [3, 1]);
    assert_eq!(numbers.log.into_inner().unwrap().ran.len(), 3);
}

#[test]
fn independent_steps_run_at_once() {
    let cache = Cache::default();
    // Each waits for the other: run sequentially, they would never end.
    let graph = [
        (Step::Value(0), vec![]),
        (Step::Meet, vec![base(0)]),
        (Step::Value(9), vec![]),
        (Step::Meet, vec![base(2)]),
        (Step::Sum, vec![base(1), base(3)]),
    ];
    assert_eq!(check(&cache, &graph).0, Ok(2));
}

#[test]
fn a_failure_stops_the_rest_and_keeps_what_is_done() {
    let cache = Cache::default();
    let graph = [(Step::Value(1), vec![]), (Step::Fail, vec![base(0)]), (Step::Sum, vec![base(1)])];
    assert_eq!(check(&cache, &graph), (Err("as told".into()), vec![0, 1], vec![]));
    let mended = [graph[0].clone(), (Step::Sum, vec![base(0)]), graph[2].clone()];
    assert_eq!(check(&cache, &mended), (Ok(1), vec![1, 2], vec![0]));
}

/// Regression: the scheduler waited forever for a step that had panicked.
#[test]
fn a_panic_ends_the_build() {
    let graph = [(Step::Value(1), vec![]), (Step::Panic, vec![base(0)]), (Step::Sum, vec![base(1)])];
    let ended = std::panic::catch_unwind(|| check(&Cache::default(), &graph)).unwrap_err();
    // The caller sees the reason, not a panic that follows from it.
    assert_eq!(ended.downcast_ref::<&str>(), Some(&"a step panicked"));
}

/// Stages from which a later stage copies wait for each other, and so does that stage's own first step.
#[test]
fn stages_that_are_copied_from_run_at_once() {
    let graph = [
        (Step::Value(0), vec![]),
        (Step::Value(1), vec![]),
        (Step::Value(2), vec![]),
        (Step::Sum, vec![base(0)]),
        (Step::Sum, vec![base(1)]),
        (Step::Sum, vec![base(2)]),
        (Step::LastDigits, vec![base(5), content(3)]),
        (Step::LastDigits, vec![base(6), content(4)]),
    ];
    assert_eq!(in_waves(&Cache::default(), &graph), Ok(()));
    let mounts = [graph[0].clone(), graph[1].clone(), (Step::Sum, vec![content(0), content(1)])];
    assert_eq!(in_waves(&Cache::default(), &mounts), Ok(()));
}

/// The result of an evicted step may not be needed; only the steps based on it show that.
#[test]
fn evicted_steps_run_when_their_output_is_wanted() {
    let cache = Cache::default();
    let graph = |last: i64| {
        [
            (Step::Value(12), vec![]),
            (Step::Sum, vec![base(0)]),
            (Step::Value(1), vec![]),
            (Step::LastDigits, vec![base(2), content(1)]),
            (Step::Value(last), vec![base(3)]),
        ]
    };
    let _ = check(&cache, &graph(1));
    let evict = |number: &str| {
        let mut cache = cache.lock().unwrap();
        cache.iter_mut().filter(|(key, _)| key.starts_with(number)).for_each(|(_, record)| *record = None);
    };
    evict("1:");
    // A new step is based on a copy that still exists.
    assert_eq!(check(&cache, &graph(2)), (Ok(2), vec![4], vec![0, 2, 3]));
    // Without the copy, its key needs the source, and the steps based on it are restored on the source.
    evict("3:");
    evict("content3");
    assert_eq!(check(&cache, &graph(2)), (Ok(2), vec![1, 3], vec![0, 2, 4]));
}

/// A step's key, its value when it is in the cache, and the times at which both are known.
#[derive(Clone)]
struct Keyed {
    key: Key,
    cached: Option<i64>,
    time: usize,
}

/// Model of a scheduler that runs each step as late as possible: a recursion over the graph.
struct Lazy<'a> {
    numbers: &'a Numbers<'a>,
    keys: BTreeMap<usize, Keyed>,
    /// Value and time of each output that is needed.
    outputs: BTreeMap<usize, (i64, usize)>,
    /// Start time of each step that runs.
    begins: BTreeMap<usize, usize>,
}

impl<'a> Lazy<'a> {
    fn new(numbers: &'a Numbers<'a>, target: usize) -> Lazy<'a> {
        let (keys, outputs) = (BTreeMap::new(), BTreeMap::new());
        let mut lazy = Lazy { numbers, keys, outputs, begins: BTreeMap::new() };
        lazy.output(target);
        lazy
    }

    fn inputs(&self, node: usize, usage: Option<Use>) -> Vec<usize> {
        let edges = self.numbers.edges[node].iter();
        let concerned = edges.filter(|input| usage.is_none_or(|usage| usage == input.usage));
        concerned.map(|input| input.node.0).collect()
    }

    fn look_up(&self, node: usize, key: &Key) -> Option<(Key, i64)> {
        match self.numbers.look_up(NodeId(node), key, &mut String::new()) {
            Ok(Lookup::Hit { key, cached }) => Some((key, cached)),
            _ => None,
        }
    }

    fn key(&mut self, node: usize) -> Keyed {
        if let Some(known) = self.keys.get(&node) {
            return known.clone();
        }
        let inputs: Vec<Keyed> = self.inputs(node, None).into_iter().map(|input| self.key(input)).collect();
        let time = inputs.iter().map(|input| input.time).max().unwrap_or(0);
        let keys: Vec<Key> = inputs.into_iter().map(|input| input.key).collect();
        let definition = self.numbers.definition(NodeId(node), &keys);
        let by_definition = match definition.content {
            Content::None | Content::Inputs => self.look_up(node, &definition.key),
            Content::Own | Content::Both => None,
        };
        let known = match by_definition {
            Some((key, cached)) => Keyed { key, cached: Some(cached), time },
            None if definition.content == Content::None => Keyed { key: definition.key, cached: None, time },
            None => self.content_key(node, definition.evidence, time),
        };
        self.keys.insert(node, known.clone());
        known
    }

    fn content_key(&mut self, node: usize, mut base: String, time: usize) -> Keyed {
        let taken = self.inputs(node, Some(Use::Content)).into_iter();
        let outputs: Vec<(i64, usize)> = taken.map(|input| self.output(input)).collect();
        let time = outputs.iter().map(|(_, time)| *time).chain([time]).max().unwrap_or(0);
        let values: Vec<i64> = outputs.into_iter().map(|(value, _)| value).collect();
        let key = self.numbers.content_key(NodeId(node), &mut base, &values).unwrap();
        let cached = self.look_up(node, &key).map(|(_, cached)| cached);
        Keyed { key, cached, time }
    }

    fn output(&mut self, node: usize) -> (i64, usize) {
        if let Some(output) = self.outputs.get(&node) {
            return *output;
        }
        let known = self.key(node);
        let inputs = self.inputs(node, known.cached.map(|_| Use::Base));
        let inputs: Vec<(i64, usize)> = inputs.into_iter().map(|input| self.output(input)).collect();
        let begin = inputs.iter().map(|(_, time)| *time).chain([known.time]).max().unwrap_or(0);
        let output = match known.cached {
            Some(value) => (value, begin),
            None => {
                self.begins.insert(node, begin);
                let values: Vec<i64> = inputs.into_iter().map(|(value, _)| value).collect();
                (self.numbers.value(node, &values).unwrap(), begin + 1)
            }
        };
        self.outputs.insert(node, output);
        output
    }
}

/// Solves for the last node, with steps that wait for all others that could run at the same time.
fn in_waves(cache: &Cache, graph: &[(Step, Vec<Input>)]) -> Result<(), String> {
    let before = Mutex::new(cache.lock().unwrap().clone());
    let oracle = Numbers::new(graph, &before);
    let begins = Lazy::new(&oracle, graph.len() - 1).begins;
    let mut numbers = Numbers::new(graph, cache);
    numbers.waves = Some(Waves::new(begins));
    numbers.solve(&[graph.len() - 1], usize::MAX).map(drop)
}

/// Graph of steps based on earlier ones: a number for each step, and its inputs.
fn graph_of(steps: &[(i64, Vec<usize>)]) -> Vec<(Step, Vec<Input>)> {
    let step = |(index, (value, inputs)): (usize, &(i64, Vec<usize>))| {
        let inputs: Vec<usize> = inputs.iter().copied().filter(|input| *input < index).collect();
        match inputs.as_slice() {
            [] if value % 5 == 0 => (Step::Own(Hidden(*value)), vec![]),
            [] => (Step::Value(*value), vec![]),
            [first, rest @ ..] if value % 2 == 0 => {
                let rest = rest.iter().map(|input| content(*input));
                (Step::LastDigits, std::iter::once(base(*first)).chain(rest).collect())
            }
            all if value % 3 == 0 => (Step::Sum, all.iter().map(|input| content(*input)).collect()),
            all => (Step::Sum, all.iter().map(|input| base(*input)).collect()),
        }
    };
    steps.iter().enumerate().map(step).collect()
}

/// The same steps, some of them with another definition.
fn changed(steps: &[(i64, Vec<usize>)], changes: &[usize]) -> Vec<(i64, Vec<usize>)> {
    let mut steps = steps.to_vec();
    for change in changes {
        // Even numbers stay even, so that the kinds of steps do not change.
        let index = change % steps.len();
        steps[index].0 += 30 * (1 + (*change as i64) % 2);
    }
    steps
}

fn evict(cache: &Cache, numbers: &[usize]) {
    let mut cache = cache.lock().unwrap();
    let keys: Vec<String> = cache.keys().cloned().collect();
    for number in numbers {
        if let Some(key) = keys.get(*number) {
            cache.insert(key.clone(), None);
        }
    }
}

type Described = Vec<(i64, Vec<usize>)>;

fn described() -> impl proptest::strategy::Strategy<Value = Described> {
    proptest::collection::vec((0i64..50, proptest::collection::vec(0usize..12, 0..4)), 1..12)
}

proptest::proptest! {
    /// Neither cached results nor the order change the outcome, even where the cache lost a record.
    #[test]
    fn order_and_cache_never_change_the_result(
        steps in described(),
        changes in proptest::collection::vec(0usize..12, 0..3),
        forget in proptest::collection::vec(0usize..20, 0..5),
    ) {
        let cache = Cache::default();
        let _ = check(&cache, &graph_of(&steps));
        let keys: Vec<String> = cache.lock().unwrap().keys().cloned().collect();
        for index in forget {
            if let Some(key) = keys.get(index) {
                cache.lock().unwrap().remove(key);
            }
        }
        let graph = graph_of(&changed(&steps, &changes));
        let fresh = check(&Cache::default(), &graph).0;
        proptest::prop_assert_eq!(check(&cache, &graph).0, fresh);
    }

    /// An early start runs no step that would not run anyway.
    #[test]
    fn only_what_must_run_runs(
        steps in described(),
        changes in proptest::collection::vec(0usize..12, 0..3),
        evicted in proptest::collection::vec(0usize..20, 0..6),
    ) {
        let cache = Cache::default();
        let _ = check(&cache, &graph_of(&steps));
        evict(&cache, &evicted);
        let graph = graph_of(&changed(&steps, &changes));
        let before = Mutex::new(cache.lock().unwrap().clone());
        let oracle = Numbers::new(&graph, &before);
        let lazy = Lazy::new(&oracle, graph.len() - 1);
        let must: BTreeSet<usize> = lazy.begins.keys().copied().collect();
        let (outcome, ran, _) = check(&cache, &graph);
        proptest::prop_assert_eq!(ran.into_iter().collect::<BTreeSet<_>>(), must);
        proptest::prop_assert_eq!(outcome.unwrap(), lazy.outputs[&(graph.len() - 1)].0);
    }

    /// With as many workers as steps, a build takes as long as the longest path through the graph.
    #[test]
    fn steps_begin_when_their_inputs_are_there(
        steps in described(),
        changes in proptest::collection::vec(0usize..12, 0..4),
    ) {
        let cache = Cache::default();
        proptest::prop_assert_eq!(in_waves(&cache, &graph_of(&steps)), Ok(()));
        proptest::prop_assert_eq!(in_waves(&cache, &graph_of(&changed(&steps, &changes))), Ok(()));
    }
}
