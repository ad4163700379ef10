//! Profiles in Docker's format, as accepted by `--security-opt seccomp=FILE`.
//!
//! They extend the format of the runtime specification by the architectures, capabilities and kernels to which a rule
//! applies. The result of evaluating these is a profile in the specification's format. Unknown names of capabilities
//! and architectures match nothing, and unknown fields are ignored, as with Docker.

use super::SeccompError;
use super::architecture::Architecture;
use super::oci::ARGUMENTS;
use crate::capability;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompFilterFlag,
    LinuxSeccompOperator, LinuxSyscall,
};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Unexpected, Visitor};
use std::fmt::Formatter;
use std::marker::PhantomData;
use std::path::PathBuf;

/// Reads a profile in Docker's JSON format, for a container with these capabilities (bit mask) on a kernel of this
/// version.
pub fn docker_profile(
    json: &str,
    capabilities: u64,
    kernel: (u32, u32),
) -> Result<LinuxSeccomp, SeccompError> {
    read(json, &Machine { native: super::native(), capabilities, kernel })
}

/// Properties of the host and container on which rules may depend.
pub(super) struct Machine {
    pub(super) native: Architecture,
    pub(super) capabilities: u64,
    pub(super) kernel: (u32, u32),
}

pub(super) fn read(json: &str, machine: &Machine) -> Result<LinuxSeccomp, SeccompError> {
    let profile: Profile = serde_json::from_str(json).map_err(|error| {
        let message = error.to_string();
        let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(text, _)| text).to_owned();
        let field = field_at(json, error.line(), error.column());
        SeccompError::Profile { line: error.line(), field, message }
    })?;
    Ok(profile.resolve(machine))
}

/// A complete profile in Docker's format.
struct Profile {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<Arch>>,
    arch_map: Vec<ArchMap>,
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    listener_path: Option<PathBuf>,
    listener_metadata: Option<String>,
    syscalls: Vec<Rule>,
}

impl<'de> Deserialize<'de> for Profile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Profile, D::Error> {
        checked::<WrittenProfile, Profile, D>(deserializer)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenProfile {
    default_action: Option<LinuxSeccompAction>,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<Arch>>,
    arch_map: Option<Vec<ArchMap>>,
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    listener_path: Option<PathBuf>,
    listener_metadata: Option<String>,
    syscalls: Option<Vec<Rule>>,
}

impl TryFrom<WrittenProfile> for Profile {
    type Error = &'static str;

    fn try_from(written: WrittenProfile) -> Result<Profile, &'static str> {
        let arch_map = written.arch_map.unwrap_or_default();
        let syscalls = written.syscalls.unwrap_or_default();
        if !arch_map.is_empty() && written.architectures.as_ref().is_some_and(|list| !list.is_empty()) {
            return Err("both `architectures` and `archMap` are there; one of them says it all");
        }
        // An empty profile forbids nothing.
        let nothing = syscalls.is_empty().then_some(LinuxSeccompAction::ScmpActAllow);
        Ok(Profile {
            default_action: written.default_action.or(nothing).ok_or("missing field `defaultAction`")?,
            default_errno_ret: written.default_errno_ret,
            architectures: written.architectures,
            arch_map,
            flags: written.flags,
            listener_path: written.listener_path,
            listener_metadata: written.listener_metadata,
            syscalls,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: Arch,
    sub_architectures: Option<Vec<Arch>>,
}

struct Rule {
    syscall: LinuxSyscall,
    includes: Condition,
    excludes: Condition,
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Rule, D::Error> {
        checked::<WrittenRule, Rule, D>(deserializer)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenRule {
    /// Older form of the field `names`.
    name: Option<String>,
    names: Option<Vec<String>>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    args: Option<Vec<Argument>>,
    includes: Option<Condition>,
    excludes: Option<Condition>,
}

impl TryFrom<WrittenRule> for Rule {
    type Error = &'static str;

    fn try_from(written: WrittenRule) -> Result<Rule, &'static str> {
        let name = written.name.filter(|name| !name.is_empty());
        let names = match (name, written.names.unwrap_or_default()) {
            (None, names) => names,
            (Some(name), names) if names.is_empty() => vec![name],
            (Some(_), _) => return Err("both `name` and `names` are there; one of them says it all"),
        };
        if names.iter().any(String::is_empty) {
            return Err("a call with an empty name");
        }
        let mut syscall = LinuxSyscall::default();
        syscall
            .set_names(names)
            .set_action(written.action)
            .set_errno_ret(written.errno_ret)
            .set_args(written.args.map(|args| args.into_iter().map(|argument| argument.0).collect()));
        let (includes, excludes) =
            (written.includes.unwrap_or_default(), written.excludes.unwrap_or_default());
        Ok(Rule { syscall, includes, excludes })
    }
}

/// Deserializes an object as `W` and converts it to `T`; a failure is reported at the end of the object.
fn checked<'de, W, T, D>(deserializer: D) -> Result<T, D::Error>
where
    W: Deserialize<'de>,
    T: TryFrom<W, Error = &'static str>,
    D: Deserializer<'de>,
{
    struct Object<W, T>(PhantomData<(W, T)>);

    impl<'de, W: Deserialize<'de>, T: TryFrom<W, Error = &'static str>> Visitor<'de> for Object<W, T> {
        type Value = T;

        fn expecting(&self, text: &mut Formatter<'_>) -> std::fmt::Result {
            text.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
            let written = W::deserialize(MapAccessDeserializer::new(members))?;
            T::try_from(written).map_err(A::Error::custom)
        }
    }

    deserializer.deserialize_map(Object(PhantomData))
}

struct Argument(LinuxSeccompArg);

impl<'de> Deserialize<'de> for Argument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Argument, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Written {
            #[serde(deserialize_with = "index")]
            index: usize,
            #[serde(default)]
            value: u64,
            value_two: Option<u64>,
            op: LinuxSeccompOperator,
        }
        let written = Written::deserialize(deserializer)?;
        let builder = LinuxSeccompArgBuilder::default()
            .index(written.index)
            .value(written.value)
            .value_two(written.value_two.unwrap_or_default())
            .op(written.op);
        builder.build().map(Argument).map_err(D::Error::custom)
    }
}

fn index<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    struct Index;

    impl Visitor<'_> for Index {
        type Value = usize;

        fn expecting(&self, text: &mut Formatter<'_>) -> std::fmt::Result {
            text.write_str("an argument from 0 to 5")
        }

        fn visit_u64<E: Error>(self, index: u64) -> Result<usize, E> {
            let valid = usize::try_from(index).ok().filter(|index| *index < ARGUMENTS);
            valid.ok_or_else(|| E::invalid_value(Unexpected::Unsigned(index), &self))
        }
    }

    deserializer.deserialize_u64(Index)
}

/// Conditions for applying, or not applying, a rule.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<Version>,
}

/// Major and minor version of a kernel; `None` for an empty text, which requires nothing.
struct Version(Option<(u32, u32)>);

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Version, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Version;

            fn expecting(&self, text: &mut Formatter<'_>) -> std::fmt::Result {
                text.write_str("a kernel version such as \"4.8\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Version, E> {
                let invalid = || E::invalid_value(Unexpected::Str(text), &self);
                if text.is_empty() { Ok(Version(None)) } else { version(text).ok_or_else(invalid) }
            }
        }

        deserializer.deserialize_str(Text)
    }
}

fn version(text: &str) -> Option<Version> {
    let number = |text: &str| text.parse::<u8>().ok().filter(|_| !text.starts_with('+')).map(u32::from);
    let (first, second) = text.split_once('.')?;
    let numbers = (number(first)?, number(second)?);
    (numbers != (0, 0)).then_some(Version(Some(numbers)))
}

impl Profile {
    fn resolve(self, machine: &Machine) -> LinuxSeccomp {
        let native = oci_name(machine.native);
        let mapped = self.arch_map.into_iter().find(|map| map.architecture == native).map(|map| {
            let mut list = vec![map.architecture];
            list.extend(map.sub_architectures.unwrap_or_default());
            list
        });
        let syscalls: Vec<LinuxSyscall> = self
            .syscalls
            .into_iter()
            .filter(|rule| rule.includes.all(machine) && !rule.excludes.any(machine))
            .map(|rule| rule.syscall)
            .collect();
        let mut profile = LinuxSeccomp::default();
        profile
            .set_default_action(self.default_action)
            .set_default_errno_ret(self.default_errno_ret)
            .set_architectures(mapped.or(self.architectures))
            .set_flags(self.flags)
            .set_listener_path(self.listener_path)
            .set_listener_metadata(self.listener_metadata)
            .set_syscalls(Some(syscalls));
        profile
    }
}

impl Condition {
    /// True when the host meets all conditions.
    fn all(&self, machine: &Machine) -> bool {
        let arches = self.arches.as_ref().filter(|arches| !arches.is_empty());
        arches.is_none_or(|arches| arches.iter().any(|arch| machine.is(arch)))
            && self.caps.iter().flatten().all(|capability| machine.has(capability))
            && self.kernel().is_none_or(|version| machine.kernel >= version)
    }

    /// True when the host meets any condition.
    fn any(&self, machine: &Machine) -> bool {
        self.arches.iter().flatten().any(|arch| machine.is(arch))
            || self.caps.iter().flatten().any(|capability| machine.has(capability))
            || self.kernel().is_some_and(|version| machine.kernel >= version)
    }

    fn kernel(&self) -> Option<(u32, u32)> {
        self.min_kernel.as_ref().and_then(|version| version.0)
    }
}

impl Machine {
    fn has(&self, capability: &str) -> bool {
        capability::bit(capability).is_some_and(|bit| self.capabilities & (1 << bit) != 0)
    }

    fn is(&self, arch: &str) -> bool {
        arch == docker_name(self.native)
    }
}

fn oci_name(architecture: Architecture) -> Arch {
    match architecture {
        Architecture::X86_64 => Arch::ScmpArchX86_64,
        Architecture::X86 => Arch::ScmpArchX86,
        Architecture::X32 => Arch::ScmpArchX32,
        Architecture::Arm64 => Arch::ScmpArchAarch64,
        Architecture::Arm => Arch::ScmpArchArm,
        Architecture::Riscv64 => Arch::ScmpArchRiscv64,
        Architecture::Loongarch64 => Arch::ScmpArchLoongarch64,
        Architecture::Ppc64le => Arch::ScmpArchPpc64le,
        Architecture::S390x => Arch::ScmpArchS390x,
        Architecture::S390 => Arch::ScmpArchS390,
    }
}

/// Name of an architecture in `includes.arches`.
fn docker_name(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X86_64 => "amd64",
        Architecture::X86 => "x86",
        Architecture::X32 => "x32",
        Architecture::Arm64 => "arm64",
        Architecture::Arm => "arm",
        Architecture::Riscv64 => "riscv64",
        Architecture::Loongarch64 => "loongarch64",
        Architecture::Ppc64le => "ppc64le",
        Architecture::S390x => "s390x",
        Architecture::S390 => "s390",
    }
}

/// Part of a JSON text that ends at a position, such as `syscalls[2].args[0].op`; `profile` for the whole.
fn field_at(json: &str, line: usize, column: usize) -> String {
    let start: usize = json.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let end = (start + column.saturating_sub(1)).min(json.len());
    let mut path: Vec<Step> = Vec::new();
    let mut bytes = json.as_bytes()[..end].iter().copied().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'{' => path.push(Step::Member(String::new(), true)),
            b'[' => path.push(Step::Element(0)),
            b'}' | b']' => drop(path.pop()),
            b',' => match path.last_mut() {
                Some(Step::Element(index)) => *index += 1,
                Some(Step::Member(_, before)) => *before = true,
                None => {}
            },
            b':' => {
                if let Some(Step::Member(_, before)) = path.last_mut() {
                    *before = false;
                }
            }
            b'"' => {
                let mut last = at;
                while let Some((next, byte)) = bytes.next() {
                    last = next;
                    match byte {
                        b'\\' => drop(bytes.next()),
                        b'"' => break,
                        _ => {}
                    }
                }
                if let Some(Step::Member(name, true)) = path.last_mut() {
                    *name = String::from_utf8_lossy(&json.as_bytes()[at + 1..last.max(at + 1)]).into_owned();
                }
            }
            _ => {}
        }
    }
    if json.as_bytes().get(end) == Some(&b'}') {
        // The whole object is meant, not its last member.
        path.pop();
    }
    let mut text = String::new();
    for step in path {
        match step {
            Step::Element(index) => text.push_str(&format!("[{index}]")),
            Step::Member(name, _) if name.is_empty() => {}
            Step::Member(name, _) if text.is_empty() => text.push_str(&name),
            Step::Member(name, _) => text.push_str(&format!(".{name}")),
        }
    }
    if text.is_empty() { "profile".to_owned() } else { text }
}

/// One step down into a JSON text.
enum Step {
    Element(usize),
    /// Name of a member; before its colon, that of the member before it.
    Member(String, bool),
}
