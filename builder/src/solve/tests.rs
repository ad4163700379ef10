//! Steps that add numbers and count their calls.

use super::*;
use std::collections::BTreeMap;
use std::sync::{Barrier, Mutex};

/// What a step does.
#[derive(Clone, Debug)]
enum Step {
    /// A number.
    Value(i64),
    /// The sum of all inputs.
    Sum,
    /// The base plus the last digit of each content input.
    LastDigits,
    /// A number that only looking shows.
    Own(Hidden),
    /// Such a number, and the last digit of each content input.
    OwnAndLastDigits(Hidden),
    /// Fails.
    Fail,
    /// Panics, which no step should.
    Panic,
    /// Meets another step before it ends.
    Meet,
}

/// Something that the words of a step do not tell.
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
    cache: &'a Mutex<BTreeMap<String, (Key, i64)>>,
    log: Mutex<Log>,
    barrier: Barrier,
}

impl Steps for Numbers<'_> {
    type Output = i64;
    type Cached = i64;
    type Error = String;

    fn definition(&self, node: NodeId, inputs: &[Key]) -> Definition {
        let step = &self.steps[node.0];
        let inputs: Vec<&str> = inputs.iter().map(|key| key.0.as_str()).collect();
        let content = match step {
            Step::LastDigits => Content::Inputs,
            Step::Own(_) => Content::Own,
            Step::OwnAndLastDigits(_) => Content::Both,
            _ => Content::None,
        };
        Definition { key: Key(format!("{step:?}({})", inputs.join(","))), content }
    }

    fn look_up(&self, _node: NodeId, key: &Key) -> Result<Option<Hit<i64>>, String> {
        let cache = self.cache.lock().unwrap();
        Ok(cache.get(&key.0).map(|(key, value)| Hit { key: key.clone(), cached: *value }))
    }

    fn content_key(&self, node: NodeId, _definition: &Key, inputs: &[i64]) -> Result<Key, String> {
        if let Step::Own(Hidden(value)) = &self.steps[node.0] {
            return Ok(Key(format!("own{}({value})", node.0)));
        }
        let own = match &self.steps[node.0] {
            Step::OwnAndLastDigits(Hidden(value)) => value.to_string(),
            _ => String::new(),
        };
        let digits: Vec<String> = inputs.iter().map(|input| (input % 10).to_string()).collect();
        Ok(Key(format!("content{}{own}({})", node.0, digits.join(","))))
    }

    fn restore(&self, _node: NodeId, cached: &i64, _base: &[i64]) -> Result<i64, String> {
        Ok(*cached)
    }

    fn run(&self, node: NodeId, keys: &[Key], inputs: &[i64]) -> Result<i64, String> {
        // Somebody else may have made it meanwhile.
        let made = keys.iter().find_map(|key| self.cache.lock().unwrap().get(&key.0).cloned());
        if let Some((_, value)) = made {
            return Ok(value);
        }
        self.log.lock().unwrap().ran.push(node.0);
        let value = match &self.steps[node.0] {
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
        };
        let mut cache = self.cache.lock().unwrap();
        for key in keys {
            cache.insert(key.0.clone(), (keys[0].clone(), value));
        }
        Ok(value)
    }

    fn found(&self, node: NodeId, _definition: &Key, _result: &Key) {
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

type Cache = Mutex<BTreeMap<String, (Key, i64)>>;

/// Solves for the last node; gives the outcome with the nodes that ran and those found, sorted.
fn check(cache: &Cache, graph: &[(Step, Vec<Input>)]) -> (Result<i64, String>, Vec<usize>, Vec<usize>) {
    let (steps, edges): (Vec<Step>, Vec<Vec<Input>>) = graph.iter().cloned().unzip();
    let numbers = Numbers { steps, cache, log: Mutex::default(), barrier: Barrier::new(2) };
    let outcome = solve(&numbers, &edges, &[NodeId(edges.len() - 1)], 4).map(|outputs| outputs[0]);
    let mut log = numbers.log.into_inner().unwrap();
    log.ran.sort_unstable();
    log.found.sort_unstable();
    assert_eq!(log.cancelled, outcome.is_err());
    (outcome.map_err(|error| error.error), log.ran, log.found)
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
    // The source's own records are gone, that of the copy is not.
    cache.lock().unwrap().retain(|key, _| !key.starts_with("Sum"));
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
    // The source changes and must run, but the part that is looked at stays the same.
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
    let steps = vec![Step::Value(1), Step::Value(2), Step::Sum];
    let edges = [vec![], vec![], vec![base(0), base(1)]];
    let numbers = Numbers { steps, cache: &cache, log: Mutex::default(), barrier: Barrier::new(2) };
    assert_eq!(solve(&numbers, &edges, &[NodeId(2), NodeId(0)], 4).unwrap(), [3, 1]);
    assert_eq!(numbers.log.into_inner().unwrap().ran.len(), 3);
}

#[test]
fn independent_steps_run_at_once() {
    let cache = Cache::default();
    // Each waits for the other: one after the other they would never end.
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

/// The scheduler once waited for ever for a step that had panicked.
#[test]
fn a_panic_ends_the_build() {
    let graph = [(Step::Value(1), vec![]), (Step::Panic, vec![base(0)]), (Step::Sum, vec![base(1)])];
    let ended = std::panic::catch_unwind(|| check(&Cache::default(), &graph));
    assert!(ended.is_err());
}

proptest::proptest! {
    #[test]
    fn order_and_cache_never_change_the_result(
        steps in proptest::collection::vec((0i64..50, proptest::collection::vec(0usize..8, 0..3)), 1..8),
        forget in proptest::collection::vec(0usize..20, 0..5),
    ) {
        let graph: Vec<(Step, Vec<Input>)> = steps
            .iter()
            .enumerate()
            .map(|(index, (value, inputs))| {
                let inputs: Vec<usize> = inputs.iter().copied().filter(|input| *input < index).collect();
                match inputs.as_slice() {
                    [] => (Step::Value(*value), vec![]),
                    [first, rest @ ..] if value % 2 == 0 => {
                        let rest = rest.iter().map(|input| content(*input));
                        (Step::LastDigits, std::iter::once(base(*first)).chain(rest).collect())
                    }
                    all => (Step::Sum, all.iter().map(|input| base(*input)).collect()),
                }
            })
            .collect();
        let fresh = check(&Cache::default(), &graph).0;
        let cache = Cache::default();
        let _ = check(&cache, &graph);
        let keys: Vec<String> = cache.lock().unwrap().keys().cloned().collect();
        for index in forget {
            if let Some(key) = keys.get(index) {
                cache.lock().unwrap().remove(key);
            }
        }
        proptest::prop_assert_eq!(check(&cache, &graph).0, fresh);
    }
}
