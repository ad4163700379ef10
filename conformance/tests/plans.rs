//! Plans of the builder beside the goldens in `testdata/plan`: each step, its inputs, and the config and history of the
//! images. `BLESS=1` records the present plans; compare the difference with the reference.

#![allow(clippy::unwrap_used, reason = "tests")]

use kiln_builder::check::dry_plan;
use kiln_builder::context::Context;
use kiln_builder::{
    BaseImage, BlobProgress, BuildOptions, ContextSource, HostMount, ImageError, Images, LocalDir, Mistake,
    NamedContext, Target,
};
use kiln_conformance::cases::{self, Case};
use kiln_image::config::ImageConfig;
use kiln_image::platform::Platform;
use kiln_image::reference::Reference;
use kiln_parser::Source;
use kiln_parser::ast::NetworkMode;
use kiln_parser::ignore::Patterns;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Host that the goldens were written on: `BUILDPLATFORM`, and the platform of steps without emulation.
const HOST: &str = "linux/amd64";

/// Config of images that a case does not describe.
const PLAIN: &str = r#"{"config": {"Env": ["PATH=/usr/bin:/bin"], "Cmd": ["sh"]}}"#;

/// Images by their names as the cases write them; all others are plain, but for `missing`. The reference of `everywhere`
/// shows the platform that was asked for.
struct TestImages(BTreeMap<String, String>);

impl Images for TestImages {
    fn resolve(
        &self,
        name: &Reference,
        platform: &Platform,
        _progress: &(dyn Fn(BlobProgress) + Sync),
    ) -> Result<BaseImage, ImageError> {
        let repository = name.familiar_repository();
        if repository == "missing" {
            return Err("not found".into());
        }
        let text = self.0.get(&repository).map_or(PLAIN, String::as_str);
        let mut config: ImageConfig = serde_json::from_str(text)?;
        config.os.clone_from(&platform.os);
        config.architecture.clone_from(&platform.architecture);
        config.variant.clone_from(&platform.variant);
        let mut image = BaseImage::new(name, None, config, Vec::new());
        if repository == "everywhere" {
            image.reference = format!("{repository} for {platform}");
        }
        Ok(image)
    }
}

/// The options that the `with` lines of a case set.
#[derive(Default)]
struct Setting {
    options: BuildOptions,
    images: BTreeMap<String, String>,
    contexts: Vec<NamedContext>,
    time: Option<i64>,
}

fn pair(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (name.to_owned(), value.to_owned())
}

impl Setting {
    fn of(case: &Case) -> Setting {
        let mut setting = Setting::default();
        let lines = case.expected.iter().filter_map(|line| line.strip_prefix("with "));
        lines.for_each(|line| setting.set(line));
        if setting.options.platforms.is_empty() {
            assert_eq!(Platform::host().to_string(), HOST);
        }
        setting
    }

    fn set(&mut self, line: &str) {
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        let options = &mut self.options;
        match name {
            "build-arg" => options.build_args.extend([pair(value)]),
            "label" => options.labels.extend([pair(value)]),
            "target" => options.targets.push(Target { stage: value.to_owned(), tags: Vec::new() }),
            "platform" => options.platforms.push(value.parse().unwrap()),
            "all-stages" => options.all_stages = true,
            "no-cache" => options.no_cache = true,
            "no-cache-filter" => drop(options.no_cache_stages.insert(value.to_owned())),
            "network" if value == "none" => options.network = NetworkMode::None,
            "allow" => self.allow(value),
            "add-host" => options.hosts.push(pair(value)),
            "shm-size" => options.limits.shm_size = value.parse().ok(),
            "memory" => options.limits.memory = value.parse().ok(),
            "ulimit" => options.limits.ulimits.push((value.to_owned(), 1024, 2048)),
            "volume" => options.volumes.push(HostMount {
                host: "/host".into(),
                target: value.to_owned(),
                readonly: true,
            }),
            "context-time" => self.time = value.parse().ok(),
            "context" => {
                let (name, value) = pair(value);
                self.contexts.push(NamedContext { name, source: source(&value), time: Some(77) });
            }
            "image" => {
                let (name, config) = value.split_once(' ').unwrap();
                self.images.insert(name.to_owned(), config.to_owned());
            }
            other => panic!("{other} is no setting"),
        }
    }

    fn allow(&mut self, value: &str) {
        let entitlements = &mut self.options.entitlements;
        match value {
            "network.host" => entitlements.host_network = true,
            "security.insecure" => entitlements.insecure = true,
            "device" => entitlements.devices = Some(BTreeSet::new()),
            other => panic!("{other} is no privilege"),
        }
    }
}

/// As `--build-context` has it.
fn source(value: &str) -> ContextSource {
    match value.split_once(':') {
        Some(("docker-image", image)) => ContextSource::Image(image.trim_start_matches('/').to_owned()),
        Some(("target", stage)) => ContextSource::Stage(stage.to_owned()),
        _ => ContextSource::Dir(LocalDir::unfiltered(Path::new(value))),
    }
}

/// A mistake with its line and its hints.
fn shown(mistake: &Mistake, source: &Source) -> Vec<String> {
    let line = mistake.span().map(|span| source.position(span.start as usize).line);
    let place = line.map_or(String::new(), |line| format!("line {line}: "));
    let hints = match mistake {
        Mistake::Meaning(diagnostic) => diagnostic.hints.clone(),
        Mistake::Option { hints, .. } | Mistake::Image { hints, .. } => hints.clone(),
        _ => Vec::new(),
    };
    let hints = hints.into_iter().map(|hint| format!("hint: {hint}"));
    std::iter::once(format!("mistake: {place}{mistake}")).chain(hints).collect()
}

fn planned(case: &Case) -> Vec<String> {
    let setting = Setting::of(case);
    let context = Context {
        dir: "/".into(),
        source: Source::new("Dockerfile", case.bytes()),
        ignore: Patterns::default(),
        ignore_name: ".dockerignore".to_owned(),
        name: "Dockerfile".to_owned(),
        named: setting.contexts,
        is_archive: false,
        time: setting.time,
    };
    let with = case.expected.iter().filter(|line| line.starts_with("with ")).cloned();
    let lines = match dry_plan(&context, &setting.options, &TestImages(setting.images)) {
        Ok(plan) => plan.to_string().lines().map(str::to_owned).collect(),
        Err(mistake) => shown(&mistake, &context.source),
    };
    with.chain(lines).collect()
}

#[test]
fn plans_are_those_of_the_cases() {
    if Platform::host().to_string() != HOST {
        println!("SKIPPED: the plans of testdata/plan are those of a host with {HOST}");
        return;
    }
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/plan");
    let bless = std::env::var_os("BLESS").is_some();
    let mut names = BTreeSet::new();
    let mut wrong = Vec::new();
    for mut file in cases::read_dir(&dir).unwrap() {
        for case in &mut file.cases {
            assert!(names.insert(case.name.clone()), "{} stands twice", case.name);
            // A case keeps no spaces at the ends of its lines.
            let found: Vec<String> = planned(case).iter().map(|line| line.trim_end().to_owned()).collect();
            if found != case.expected {
                let (name, expected) = (&case.name, case.expected.join("\n    "));
                wrong.push(format!(
                    "{name}\n  planned\n    {}\n  expected\n    {expected}",
                    found.join("\n    ")
                ));
                case.expected = found;
            }
        }
        if bless {
            file.write().unwrap();
        }
    }
    assert!(names.len() >= 150, "only {} cases", names.len());
    assert!(bless || wrong.is_empty(), "{} plans differ:\n{}", wrong.len(), wrong.join("\n"));
}
