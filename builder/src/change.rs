//! Changes of an image's config by single instructions, as in `docker commit --change`. Nothing is run or read.

use crate::check::dry_plan;
use crate::context::Context;
use crate::front::BuildOptions;
use crate::images::{BaseImage, BlobProgress, ImageError, Images};
use crate::mistake::Mistake;
use kiln_image::config::{ImageConfig, RunConfig};
use kiln_image::platform::Platform;
use kiln_image::reference::Reference;
use kiln_parser::ignore::Patterns;
use kiln_parser::{Source, parse};
use std::path::PathBuf;

/// Instructions that change only the config (moby `builder/dockerfile`, `validCommitCommands`).
const VALID: [&str; 11] = [
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "ONBUILD",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Applies instructions to the config of a container or image.
///
/// # Errors
/// Fails when an instruction is not one of those that change only the config, or has a mistake.
pub fn change(config: &ImageConfig, instructions: &[String]) -> Result<RunConfig, Mistake> {
    if instructions.is_empty() {
        return Ok(config.config.clone());
    }
    check_keywords(instructions)?;
    let text = format!("FROM base\n{}\n", instructions.join("\n"));
    let context = Context {
        dir: PathBuf::from("/"),
        source: Source::new("--change", text.into_bytes()),
        ignore: Patterns::default(),
        ignore_name: String::new(),
        name: "-".to_owned(),
        named: Vec::new(),
        is_archive: false,
        time: None,
    };
    // Triggers of the config would be carried out by a stage that starts from it.
    let mut base = config.clone();
    let triggers = std::mem::take(&mut base.config.on_build);
    let options = BuildOptions { platforms: vec![config.platform()], ..BuildOptions::default() };
    let mut plan = dry_plan(&context, &options, &Given(base))?;
    let planned = plan.results.pop().expect("a file with one stage has one target");
    let mut changed = planned.config.config;
    changed.on_build = triggers.into_iter().chain(changed.on_build).collect();
    // A build adds these; the reference does not where it changes a config.
    changed.args_escaped = config.config.args_escaped;
    let has_path = |entry: &String| entry.starts_with("PATH=");
    let sets_path = instructions.iter().any(|text| text.contains("PATH=") || text.contains("PATH "));
    if !sets_path && !config.config.env.iter().any(has_path) {
        changed.env.retain(|entry| !has_path(entry));
    }
    Ok(changed)
}

fn check_keywords(instructions: &[String]) -> Result<(), Mistake> {
    let parsed = parse(&Source::new("--change", instructions.join("\n").into_bytes()));
    let keywords = parsed.file.instructions.iter().map(|one| one.keyword.as_str().to_uppercase());
    match keywords.into_iter().find(|keyword| !VALID.contains(&keyword.as_str())) {
        Some(keyword) => Err(Mistake::Option {
            message: format!("{keyword} is not a valid change command"),
            hints: vec![format!("one of {}", VALID.join(", "))],
        }),
        None => Ok(()),
    }
}

/// The config that is changed, as the image of every name.
struct Given(ImageConfig);

impl Images for Given {
    fn resolve(
        &self,
        name: &Reference,
        _platform: &Platform,
        _progress: &(dyn Fn(BlobProgress) + Sync),
    ) -> Result<BaseImage, ImageError> {
        Ok(BaseImage::new(name, None, self.0.clone(), Vec::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(instructions: &[&str]) -> Result<RunConfig, Mistake> {
        let config = RunConfig {
            env: vec!["PATH=/bin".into(), "A=1".into()],
            cmd: Some(vec!["sh".into()]),
            on_build: vec!["RUN old".into()],
            ..RunConfig::default()
        };
        let config = ImageConfig {
            architecture: "amd64".into(),
            os: "linux".into(),
            config,
            ..ImageConfig::default()
        };
        change(&config, &instructions.iter().map(|&text| text.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn instructions_change_the_config() {
        let config = changed(&[
            "CMD [\"/bin/x\", \"y\"]",
            "env A=2 B=$PATH",
            "LABEL a.b=c",
            "EXPOSE 80",
            "WORKDIR /w",
            "ONBUILD RUN new",
        ])
        .unwrap();
        assert_eq!(config.cmd, Some(vec!["/bin/x".into(), "y".into()]));
        assert_eq!(config.env, ["PATH=/bin", "A=2", "B=/bin"]);
        assert_eq!(config.labels["a.b"], "c");
        assert!(config.exposed_ports.contains_key("80/tcp"));
        assert_eq!(config.working_dir, "/w");
        assert_eq!(config.on_build, ["RUN old", "RUN new"]);
        assert_eq!(changed(&[]).unwrap().cmd, Some(vec!["sh".into()]));
    }

    #[test]
    fn nothing_is_added_that_builds_add() {
        let changed = |text: &str| change(&ImageConfig::default(), &[text.to_owned()]).unwrap();
        let cmd = changed("CMD [\"a\"]");
        assert_eq!((cmd.env.len(), cmd.args_escaped), (0, false));
        assert_eq!(changed("ENV A=b").env, ["A=b"]);
        assert_eq!(changed("ENV PATH=/x").env, ["PATH=/x"]);
    }

    #[test]
    fn other_instructions_are_refused() {
        for (text, message) in [
            ("RUN x", "RUN is not a valid change command"),
            ("FROM x", "FROM is not a valid change command"),
            ("CMD x\ncopy a b", "COPY is not a valid change command"),
        ] {
            assert_eq!(changed(&[text]).unwrap_err().to_string(), message);
        }
        assert!(changed(&["ENV"]).is_err());
    }
}
