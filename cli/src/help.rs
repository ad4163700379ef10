//! What `--help` shows: an overview, the members of groups, and the flags of commands in groups with examples.

use crate::commands::{self, GROUP_NAMES, GROUPS};
use crate::ui;
use clap::{Arg, ArgAction, Command};
use std::fmt::Write;

/// Id of the flag `--color`, which every command has.
pub const COLOR: &str = "color";

/// Longest line of help in columns, also on wider terminals.
const WIDEST: usize = 100;

/// Heading of flags that are in no group.
const OTHER: &str = "Options";

/// Returns the text of `kiln --help`.
pub fn overview() -> String {
    let mut text = String::from(
        "kiln builds container images from Dockerfiles and runs them, without a daemon\n\nUsage: kiln [OPTIONS] COMMAND\n\nCommands:\n",
    );
    for command in commands::ALL.iter().filter(|command| !command.hidden) {
        let _ = writeln!(text, "  {:<11} {}", command.name, command.about);
    }
    text.push_str("\nGroups:\n");
    for (name, about) in GROUP_NAMES {
        let _ = writeln!(text, "  {name:<11} {about}");
    }
    text.push_str(
        "
Options:
  --root DIR     Store of images, layers and containers
                 [default: $KILN_ROOT, or /var/lib/kiln]
  --color WHEN   Colour messages: auto, always or never [default: auto]
  -v, --version  Print the version
  -h, --help     Print help

Examples:
  kiln build -t hello .
  kiln run --rm hello
  kiln help build
",
    );
    text
}

/// Returns the text of `kiln GROUP --help`.
pub fn group(name: &str) -> String {
    let about = GROUP_NAMES.iter().find(|(known, _)| *known == name).map_or("", |(_, about)| about);
    let mut text = format!("{about}\n\nUsage: kiln {name} COMMAND\n\nCommands:\n");
    let members = || GROUPS.iter().filter(|(group, _, _)| *group == name);
    let width = members().map(|(_, member, _)| member.len()).max().unwrap_or(0).max(9);
    for (_, member, target) in members() {
        let about = commands::named(target).map_or("", |command| command.about);
        let _ = writeln!(text, "  {member:<width$} {about}");
    }
    let _ = writeln!(text, "\nRun `kiln {name} COMMAND --help` for the flags of a command.");
    text
}

/// Completes a command's description: adds the flags that all commands have, groups, examples, and the terminal's width.
pub fn complete(name: &str, command: Command) -> Command {
    let command = command.arg(color()).bin_name(format!("kiln {name}")).disable_version_flag(true);
    let command = in_groups(name, command).term_width(ui::size_of_answers().columns.min(WIDEST));
    match examples(name) {
        Some(examples) => command.after_help(format!("Examples:\n{}", indented(examples))),
        None => command,
    }
}

fn color() -> Arg {
    let color = Arg::new(COLOR).long("color").value_name("WHEN").value_parser(["auto", "always", "never"]);
    color.hide_possible_values(true).help("Colour messages: auto, always or never [default: auto]")
}

/// Describes the whole program, for completions and manual pages.
pub fn program() -> Command {
    let root = Arg::new("root").long("root").value_name("DIR").value_hint(clap::ValueHint::DirPath);
    let root = root.help("Store of images, layers and containers [default: $KILN_ROOT, or /var/lib/kiln]");
    let about = "Builds container images from Dockerfiles and runs them, without a daemon";
    let version = Arg::new("version").short('v').long("version").action(ArgAction::SetTrue);
    let mut program = Command::new("kiln").about(about).version(env!("CARGO_PKG_VERSION"));
    program = program.disable_version_flag(true).args([root, color(), version.help("Print the version")]);
    for command in commands::ALL.iter().filter(|command| !command.hidden) {
        program = program.subcommand(described(command.name, command.name, command));
    }
    for (group, about) in GROUP_NAMES {
        let mut parent = Command::new(*group).about(*about);
        for (_, member, target) in GROUPS.iter().filter(|(name, _, _)| name == group) {
            let command = commands::named(target).expect("groups name commands that exist");
            parent = parent.subcommand(described(&format!("{group} {member}"), member, command));
        }
        program = program.subcommand(parent);
    }
    program
}

fn described(name: &str, word: &'static str, command: &commands::Command) -> Command {
    complete(name, (command.describe)()).name(word).about(command.about)
}

fn in_groups(name: &str, command: Command) -> Command {
    let groups: &[&[Group]] = match name {
        "build" | "image build" | "builder build" | "buildx build" => &[BUILD_GROUPS],
        "run" | "container run" | "create" | "container create" => &[RUN_GROUPS],
        "up" => &[UP_GROUPS, RUN_GROUPS],
        _ => return command,
    };
    let is_shared = groups != [RUN_GROUPS];
    let groups = groups.iter().copied().flatten();
    let heading =
        |id: &str| groups.clone().find(|(_, ids)| ids.contains(&id)).map_or(OTHER, |(name, _)| name);
    // Flags that several commands share are described together, and shown where users look for them.
    let order = |id: &str| groups.clone().flat_map(|(_, ids)| *ids).position(|known| *known == id);
    command.mut_args(|arg| match arg.is_positional() {
        true => arg,
        false => {
            let (heading, order) = (heading(arg.get_id().as_str()), order(arg.get_id().as_str()));
            let arg = arg.help_heading(heading);
            match order {
                Some(order) if is_shared => arg.display_order(order),
                _ => arg,
            }
        }
    })
}

/// Heading of flags, and their ids.
type Group = (&'static str, &'static [&'static str]);

/// Flags of `up` that `run` has not, by group.
const UP_GROUPS: &[Group] = &[
    ("Common options", &["detach", "watch", "sync"]),
    (
        "Build options",
        &[
            "file",
            "build_arg",
            "target",
            "build_context",
            "build_secret",
            "ssh",
            "pull",
            "no_cache",
            "no_cache_filter",
            "progress",
            "allow",
            "explain",
        ],
    ),
];

/// Flags of `build` by group.
const BUILD_GROUPS: &[Group] = &[
    (
        "Common options",
        &[
            "file",
            "tag",
            "build_arg",
            "target",
            "platform",
            "build_context",
            "label",
            "secret",
            "ssh",
            "progress",
            "quiet",
        ],
    ),
    (
        "Output options",
        &[
            "output",
            "load",
            "push",
            "iidfile",
            "metadata_file",
            "format",
            "annotation",
            "squash",
            "squash_all",
            "all_stages",
            "authfile",
        ],
    ),
    ("Cache options", &["pull", "no_cache", "no_cache_filter", "explain"]),
    ("Check options", &["call", "check", "strict"]),
    ("Access of RUN steps", &["network", "add_host", "allow", "volume"]),
    (
        "Limits",
        &[
            "jobs",
            "memory",
            "memory_swap",
            "cpu_shares",
            "cpu_quota",
            "cpu_period",
            "cpuset_cpus",
            "cpuset_mems",
            "resource",
            "shm_size",
            "ulimit",
            "cgroup_parent",
        ],
    ),
    ("Reproducibility", &["source_date_epoch", "rewrite_timestamp"]),
    (
        "Flags of Docker without effect",
        &["compress", "debug", "force_rm", "isolation", "layers", "rm", "security_opt", "builder"],
    ),
];

/// Flags of `run` and `create` by group.
const RUN_GROUPS: &[Group] = &[
    (
        "Common options",
        &[
            "detach",
            "rm",
            "interactive",
            "tty",
            "name",
            "replace",
            "env",
            "env_file",
            "workdir",
            "user",
            "entrypoint",
            "restart",
            "wait",
            "wait_timeout",
        ],
    ),
    ("Image options", &["pull", "platform", "quiet"]),
    ("Mount options", &["volume", "mount", "tmpfs", "volumes_from", "volume_driver", "secret"]),
    (
        "Network options",
        &[
            "network",
            "ip",
            "ip6",
            "mac_address",
            "network_alias",
            "link",
            "publish",
            "publish_all",
            "expose",
            "hostname",
            "domainname",
            "dns",
            "dns_search",
            "dns_option",
            "add_host",
        ],
    ),
    (
        "Limits",
        &[
            "memory",
            "memory_swap",
            "memory_reservation",
            "memory_swappiness",
            "oom_kill_disable",
            "oom_score_adj",
            "cpus",
            "cpu_shares",
            "cpu_period",
            "cpu_quota",
            "cpu_rt_period",
            "cpu_rt_runtime",
            "cpuset_cpus",
            "cpuset_mems",
            "pids_limit",
            "blkio_weight",
            "blkio_weight_device",
            "device_read_bps",
            "device_write_bps",
            "device_read_iops",
            "device_write_iops",
            "ulimit",
            "shm_size",
            "cgroup_parent",
        ],
    ),
    (
        "Process and security options",
        &[
            "init",
            "privileged",
            "cap_add",
            "cap_drop",
            "security_opt",
            "group_add",
            "read_only",
            "sysctl",
            "device",
            "device_cgroup_rule",
            "gpus",
            "pid",
            "ipc",
            "uts",
            "userns",
            "cgroupns",
            "stop_signal",
            "stop_timeout",
            "tz",
        ],
    ),
    (
        "Health options",
        &[
            "health_cmd",
            "health_interval",
            "health_timeout",
            "health_retries",
            "health_start_period",
            "health_start_interval",
            "no_healthcheck",
        ],
    ),
    ("Streams and logs", &["attach", "detach_keys", "sig_proxy", "log_driver", "log_opt"]),
    ("Notes", &["label", "label_file", "annotation", "cidfile"]),
];

/// Examples that are shown below the flags of a command; `None` when it has none.
fn examples(name: &str) -> Option<&'static str> {
    let (_, examples) = EXAMPLES.iter().find(|(known, _)| *known == name)?;
    Some(examples)
}

const EXAMPLES: &[(&str, &str)] = &[
    (
        "build",
        "kiln build -t app:1 .
kiln build -t app:1 -f docker/Dockerfile --build-arg VERSION=2 .
kiln build --target test --progress plain .
kiln build --output out .
kiln build --secret id=token,env=TOKEN -t app:1 .
kiln build -t app:1 https://example.com/project.git#main:server
kiln build --check .",
    ),
    (
        "run",
        "kiln run --rm app:1
kiln run --rm -it busybox sh
kiln run --rm -e NAME=value -w /tmp busybox env
kiln run -d --name web --restart unless-stopped app:1
kiln run -d --wait --health-cmd /check web:1
kiln run -d --network web --network-alias db --ip 10.20.0.9 app:1",
    ),
    ("up", "kiln up\nkiln up --watch -e DEBUG=1 web\nkiln up -d -p 8080:80 -- --verbose"),
    ("down", "kiln down\nkiln down -v --rmi web"),
    ("create", "kiln create --name web app:1\nkiln create -it --name shell busybox sh"),
    ("start", "kiln start web db\nkiln start -ai shell"),
    ("restart", "kiln restart web\nkiln restart -t 60 db"),
    ("wait", "kiln wait web\nkiln wait --condition healthy web db"),
    ("attach", "kiln attach shell\nkiln attach --no-stdin web"),
    ("logs", "kiln logs -f web\nkiln logs --since 10m -n 100 -t web"),
    (
        "images",
        "kiln images\nkiln images --filter dangling=true\nkiln images --format '{{.Repository}}:{{.Tag}}'",
    ),
    ("image prune", "kiln image prune\nkiln image prune --all --force --filter until=24h"),
    ("builder prune", "kiln builder prune --force"),
    ("ps", "kiln ps --all --filter status=exited\nkiln ps --format '{{.Names}}:{{.Status}}'"),
    ("inspect", "kiln inspect app:1\nkiln inspect --format '{{.Config.Cmd}}' app:1"),
    ("history", "kiln history --no-trunc app:1"),
    (
        "login",
        "kiln login -u NAME registry.example.com\necho \"$TOKEN\" | kiln login -u NAME --password-stdin ghcr.io",
    ),
    ("logout", "kiln logout\nkiln logout registry.example.com"),
    ("pull", "kiln pull busybox:latest"),
    ("push", "kiln push registry.example.com/app:1"),
    ("save", "kiln save -o app.tar app:1\nkiln save app:1 | gzip > app.tar.gz"),
    ("load", "kiln load -i app.tar\nkiln load < app.tar.gz"),
    (
        "import",
        "kiln import files.tar.gz app:1\nkiln import -m copied https://example.com/files.tar web:copy",
    ),
    ("tag", "kiln tag app:1 registry.example.com/app:1"),
    ("exec", "kiln exec web cat /etc/hosts\nkiln exec -it web sh\nkiln exec -d web touch /tmp/ready"),
    ("stop", "kiln stop web\nkiln stop -t 60 db"),
    ("kill", "kiln kill -s HUP web"),
    (
        "events",
        "kiln events --since 10m --until 0s\nkiln events --filter event=die --format '{{.Actor.Attributes.name}}'",
    ),
    ("pause", "kiln pause web"),
    ("unpause", "kiln unpause web"),
    ("rename", "kiln rename web old-web"),
    ("update", "kiln update --memory 512m --memory-swap 1g web\nkiln update --restart unless-stopped web db"),
    ("top", "kiln top web\nkiln top web -o pid,user,cmd"),
    ("stats", "kiln stats\nkiln stats --no-stream --format json web"),
    ("port", "kiln port web\nkiln port web 80/tcp"),
    ("cp", "kiln cp web:/var/log/app.log .\nkiln cp config/. web:/etc/app\nkiln cp web:/data - | tar t"),
    ("diff", "kiln diff web"),
    ("commit", "kiln commit web app:fixed\nkiln commit --author me --message fixed --no-pause web app:2"),
    ("export", "kiln export -o web.tar web\nkiln export web | tar t"),
    ("container prune", "kiln container prune\nkiln container prune --force --filter until=24h"),
    (
        "volume create",
        "kiln volume create db-data
kiln volume create --uid 999 --mode 750 db-data
kiln volume create -o type=nfs -o device=nas.example.com:/srv shared",
    ),
    (
        "volume ls",
        "kiln volume ls --filter dangling=true\nkiln volume ls --format '{{.Name}}:{{.Mountpoint}}'",
    ),
    ("volume inspect", "kiln volume inspect db-data\nkiln volume inspect --format '{{.Mountpoint}}' db-data"),
    ("volume list", "kiln volume list\nkiln volume list --quiet"),
    ("volume remove", "kiln volume remove db-data\nkiln volume remove --force db-data cache"),
    ("volume rm", "kiln volume rm db-data\nkiln volume rm --force db-data cache"),
    ("volume prune", "kiln volume prune\nkiln volume prune --all --force --filter label!=keep"),
    ("volume export", "kiln volume export -o db.tar db-data\nkiln volume export db-data | tar t"),
    ("volume import", "kiln volume import db-data db.tar\nkiln volume import new - < old.tar"),
    (
        "network create",
        "kiln network create web
kiln network create --subnet 10.20.0.0/24 --gateway 10.20.0.1 --internal db",
    ),
    ("network ls", "kiln network ls\nkiln network ls --filter type=custom --format '{{.Name}}'"),
    ("network list", "kiln network list\nkiln network list --filter driver=bridge"),
    ("network remove", "kiln network remove web\nkiln network remove --force web db"),
    ("network rm", "kiln network rm web\nkiln network rm --force web db"),
    (
        "network connect",
        "kiln network connect web server\nkiln network connect --ip 10.20.0.9 --alias db web server",
    ),
    ("network disconnect", "kiln network disconnect web server\nkiln network disconnect --force web server"),
    ("network prune", "kiln network prune\nkiln network prune --force --filter until=24h"),
    ("system df", "kiln system df\nkiln system df --verbose"),
    ("system prune", "kiln system prune\nkiln system prune --all --force"),
    ("doctor net", "kiln doctor net\nkiln doctor net --format json"),
    ("rm", "kiln rm web"),
    ("rmi", "kiln rmi app:1"),
    ("lint", "kiln lint Dockerfile\nkiln lint --format sarif docker/Dockerfile"),
    ("fmt", "kiln fmt Dockerfile\nkiln fmt --check Dockerfile"),
    ("verify", "kiln verify app:1"),
    ("system check", "kiln system check --repair"),
    ("system boot", "kiln system boot\nkiln system boot --stop"),
    (
        "system install-units",
        "kiln system install-units --dry-run\nsudo kiln --root /srv/kiln system install-units",
    ),
    ("info", "kiln info --format '{{.KernelVersion}}'"),
    ("version", "kiln version --format '{{.Client.Version}}'"),
    (
        "completion",
        "source <(kiln completion bash)\nkiln completion fish > ~/.config/fish/completions/kiln.fish",
    ),
    ("man", "kiln man build | man -l -\nkiln man --output /usr/local/share/man/man1"),
];

fn indented(lines: &str) -> String {
    lines.lines().map(|line| format!("  {line}\n")).collect::<String>().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Help of a command on a terminal of a width.
    fn help(name: &str, columns: usize) -> String {
        let command = commands::named(name).unwrap();
        complete(name, (command.describe)()).term_width(columns).render_long_help().to_string()
    }

    #[test]
    fn lines_break_between_words() {
        for columns in [60, 80, 100] {
            let text = help("build", columns);
            let too_long =
                |line: &&str| line.chars().count() > columns && !line.trim_start().starts_with("kiln ");
            assert_eq!(text.lines().find(too_long), None, "{columns}");
            // A word of the help that is cut would not be found.
            assert!(text.split_whitespace().any(|word| word == "registry"), "{text}");
        }
        for (_, text) in EXAMPLES {
            assert!(text.lines().all(|line| line.len() < 78), "{text}");
        }
        assert!(overview().lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn flags_of_build_and_run_are_in_groups() {
        for (name, groups) in [("build", BUILD_GROUPS), ("run", RUN_GROUPS)] {
            let described = (commands::named(name).unwrap().describe)();
            let known: Vec<&str> = described.get_arguments().map(|arg| arg.get_id().as_str()).collect();
            for (_, ids) in groups {
                assert!(ids.iter().all(|id| known.contains(id)), "{ids:?}");
            }
            let grouped = |id: &str| groups.iter().any(|(_, ids)| ids.contains(&id));
            let others = described
                .get_arguments()
                .filter(|arg| !arg.is_positional() && !arg.is_hide_set() && !grouped(arg.get_id().as_str()));
            let others: Vec<&str> = others.map(|arg| arg.get_id().as_str()).collect();
            assert_eq!(others, if name == "run" { vec!["help"] } else { Vec::new() }, "{name}");
        }
        let text = help("build", 80);
        for group in ["Common options:", "Output options:", "Cache options:", "Limits:", "Reproducibility:"] {
            assert!(text.contains(&format!("\n{group}\n")), "{group}: {text}");
        }
    }

    #[test]
    fn every_command_has_an_example_that_it_accepts() {
        let members = GROUPS.iter().filter_map(|(group, member, target)| {
            let command = commands::named(target).unwrap();
            command.hidden.then(|| (format!("{group} {member}"), command))
        });
        let members = members.filter(|(name, _)| !name.starts_with("buildx"));
        let plain = commands::ALL.iter().filter(|command| !command.hidden && command.name != "oci");
        for (name, command) in plain.map(|command| (command.name.to_owned(), command)).chain(members) {
            let lines = examples(&name).unwrap_or_else(|| panic!("{name} has no example"));
            for line in lines.lines().filter(|line| line.starts_with("kiln ")) {
                let line = line.split([';', '|', '<', '>']).next().unwrap_or_default().replace('\'', "");
                let words = line.strip_prefix("kiln ").and_then(|line| line.strip_prefix(&name)).unwrap();
                let words = std::iter::once("kiln").chain(words.split_whitespace());
                let read = complete(&name, (command.describe)()).try_get_matches_from(words);
                assert!(read.is_ok(), "{line}: {read:?}");
            }
        }
    }

    #[test]
    fn the_whole_program_is_consistent() {
        program().debug_assert();
    }
}
