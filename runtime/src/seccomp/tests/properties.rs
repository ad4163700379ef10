//! Every filter decides like an evaluation of its rules one by one.

use super::*;
use proptest::prelude::*;
use rule::Rule;

const MACHINES: [Architecture; 5] = [
    Architecture::X86_64,
    Architecture::Arm64,
    Architecture::S390x,
    Architecture::Ppc64le,
    Architecture::Riscv64,
];
const ACTIONS: [Action; 9] = [
    Action::Allow,
    Action::Log,
    Action::Trace(3),
    Action::Notify,
    Action::Errno(1),
    Action::Errno(13),
    Action::Trap,
    Action::KillThread,
    Action::KillProcess,
];
const VALUES: [u64; 12] = [
    0,
    1,
    5,
    0x7fff_ffff,
    0xffff_fffe,
    0xffff_ffff,
    1 << 32,
    (1 << 32) + 5,
    0x8000_0000_0000_0000,
    0xffff_ffff_0000_0000,
    u64::MAX - 1,
    u64::MAX,
];

/// Reference implementation of the module's documentation.
fn decide(filter: &Filter<'_>, audit: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let native = filter.architectures[0];
    let x32 = audit == Architecture::X86_64.audit() && number & X32 != 0;
    let architecture =
        filter.architectures.iter().copied().find(|architecture| {
            architecture.audit() == audit && (*architecture == Architecture::X32) == x32
        });
    let Some(architecture) = architecture else {
        let cancelled = native.audit() == audit && number == u32::MAX;
        return if cancelled { filter.default.value() } else { filter.foreign.value() };
    };
    let bit = if x32 { X32 } else { 0 };
    let number_of = |name: &str| architecture::call(name).and_then(|call| architecture.number(call));
    let names = || filter.rules.iter().flat_map(|rule| &rule.names);
    let newest = names().filter_map(|name| number_of(name)).max().unwrap_or(0) | bit;
    let multiplexer = native == Architecture::S390x && number == 0;
    if !filter.default.is_permissive() && newest != bit && (number > newest || multiplexer) {
        return ENOSYS;
    }
    if audit == Architecture::X86_64.audit()
        && !x32
        && number > X32
        && !filter.architectures.contains(&Architecture::X32)
    {
        return filter.foreign.value();
    }
    let mut found = None;
    for rule in &filter.rules {
        for name in &rule.names {
            let here = number_of(name).map(|number| number | bit) == Some(number);
            if !here || rule.action == filter.default {
                continue;
            }
            if rule.alternatives.is_empty() {
                return first_unconditional(filter, name).value();
            }
            let wide = architecture.is_wide();
            if rule.alternatives.iter().any(|all| all.iter().all(|one| holds(one, arguments, wide))) {
                found = found.or(Some(rule.action));
            }
        }
    }
    found.unwrap_or(filter.default).value()
}

fn first_unconditional(filter: &Filter<'_>, name: &str) -> Action {
    let rules = filter.rules.iter().filter(|rule| rule.action != filter.default);
    let mut rules = rules.filter(|rule| rule.alternatives.is_empty() && rule.names.contains(&name));
    rules.next().unwrap().action
}

fn holds(condition: &Condition, arguments: [u64; 6], wide: bool) -> bool {
    let cut = |value: u64| if wide && !condition.narrow { value } else { value & 0xffff_ffff };
    let argument = cut(arguments[usize::from(condition.argument)]);
    match condition.comparison {
        Comparison::Equal(value) => argument == cut(value),
        Comparison::NotEqual(value) => argument != cut(value),
        Comparison::Less(value) => argument < cut(value),
        Comparison::LessOrEqual(value) => argument <= cut(value),
        Comparison::Greater(value) => argument > cut(value),
        Comparison::GreaterOrEqual(value) => argument >= cut(value),
        Comparison::Masked(mask, value) => argument & cut(mask) == cut(mask) & cut(value),
    }
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![proptest::sample::select(&VALUES[..]), any::<u64>()]
}

fn condition() -> impl Strategy<Value = Condition> {
    let comparison = prop_oneof![
        value().prop_map(Comparison::Equal),
        value().prop_map(Comparison::NotEqual),
        value().prop_map(Comparison::Less),
        value().prop_map(Comparison::LessOrEqual),
        value().prop_map(Comparison::Greater),
        value().prop_map(Comparison::GreaterOrEqual),
        (value(), value()).prop_map(|(mask, value)| Comparison::Masked(mask, value)),
    ];
    (0..3u8, comparison, any::<bool>()).prop_map(|(argument, comparison, narrow)| Condition {
        argument,
        comparison,
        narrow,
    })
}

/// Names without the calls behind `socketcall` and `ipc`, which have separate tests.
fn name() -> impl Strategy<Value = &'static str> {
    let inner = |name: &str| {
        let calls = architecture::SOCKET_CALLS.iter().chain(&architecture::IPC_CALLS);
        calls.map(|(name, _)| *name).any(|call| call == name)
    };
    let names: Vec<&str> =
        numbers::NUMBERS.iter().map(|(name, _)| *name).filter(|name| !inner(name)).collect();
    // A few names are frequent, so that rules overlap.
    prop_oneof![
        proptest::sample::select(&["read", "clone", "futex", "socketcall"][..]),
        proptest::sample::select(names)
    ]
}

fn action() -> impl Strategy<Value = Action> {
    proptest::sample::select(&ACTIONS[..])
}

fn rules() -> impl Strategy<Value = Vec<Rule<'static>>> {
    let alternatives = proptest::collection::vec(proptest::collection::vec(condition(), 1..4), 0..3);
    let rule = (proptest::collection::vec(name(), 0..60), action(), alternatives)
        .prop_map(|(names, action, alternatives)| Rule { names, action, alternatives });
    proptest::collection::vec(rule, 0..8)
}

fn filter() -> impl Strategy<Value = Filter<'static>> {
    let machine = proptest::sample::select(&MACHINES[..]);
    (rules(), [action(), action()], machine, any::<[bool; 2]>()).prop_map(
        |(rules, actions, native, chosen)| {
            let others = native.secondary().iter().zip(chosen).filter(|(_, chosen)| *chosen);
            let architectures = [native].into_iter().chain(others.map(|(other, _)| *other)).collect();
            let [default, foreign] = actions;
            Filter { rules, default, architectures, foreign }
        },
    )
}

/// Calls that the rules name and their neighbours, on all architectures of the host and one that it lacks.
fn calls(filter: &Filter<'_>, numbers: &[u32]) -> Vec<(u32, u32)> {
    let native = filter.architectures[0];
    let mut found = vec![(0x1234, 0)];
    for architecture in [native].iter().chain(native.secondary()) {
        let bit = if *architecture == Architecture::X32 { X32 } else { 0 };
        let names = filter.rules.iter().flat_map(|rule| &rule.names);
        let named = names.filter_map(|name| architecture.number(architecture::call(name)?));
        let near = named.flat_map(|number| [number.saturating_sub(1), number, number + 1]);
        let edges =
            [0, 1, 470, 471, 472, 1000, X32 - 1, X32, X32 + 1, 1 << 31, 3 << 30, u32::MAX - 1, u32::MAX];
        let all = near.chain(edges).chain(numbers.iter().copied());
        found.extend(all.map(|number| (architecture.audit(), number | bit)));
    }
    found.sort_unstable();
    found.dedup();
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn programs_decide_as_their_rules_say(
        filter in filter(),
        arguments in proptest::collection::vec([value(), value(), value()], 6),
        numbers in proptest::collection::vec(any::<u32>(), 8),
    ) {
        let program = filter.compile().instructions;
        let big_endian = filter.architectures[0].is_big_endian();
        for (audit, number) in calls(&filter, &numbers) {
            for [one, two, three] in &arguments {
                let arguments = [*one, *two, *three, 0, 0, 0];
                prop_assert_eq!(
                    run(&program, big_endian, audit, number, arguments),
                    decide(&filter, audit, number, arguments),
                    "{:#x} {:#x} {:x?}", audit, number, arguments
                );
            }
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        let _ = docker_profile(&text, 0, (6, 1));
    }

    /// Includes texts that are almost a profile.
    #[test]
    fn damaged_profiles_are_read_or_refused(at in 0..DOCKER.len(), put in "[]\\[{}\",:\\\\0-9x\né]{0,3}", cut in 0..4usize) {
        let mut text = DOCKER.to_owned();
        text.replace_range(at..(at + cut).min(DOCKER.len()), &put);
        if let Err(error) = docker_profile(&text, 0, (6, 1)) {
            let SeccompError::Profile { line, .. } = &error else { panic!("{error}") };
            prop_assert!((1..=DOCKER.lines().count() + 3).contains(line), "{}", error);
        }
    }
}

const DOCKER: &str = r#"{
  "defaultAction": "SCMP_ACT_ERRNO",
  "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
  "syscalls": [{
    "names": ["write", "re\u0061d"],
    "action": "SCMP_ACT_ALLOW",
    "comment": "\"",
    "args": [{"index": 1, "value": 2, "op": "SCMP_CMP_NE"}],
    "includes": {"minKernel": "4.8", "caps": ["CAP_BPF"]}
  }]
}"#;
