//! `commit`.

use crate::running::{end, start};

#[test]
fn images_are_made_of_containers() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let script = "echo x > /f; rm /etc/group; touch -d @1000000000 /f /etc";
    let run = |name: &str| {
        let command = ["run", "--name", name, "-e", "A=1", "-w", "/tmp", "busybox", "sh", "-c", script];
        assert_eq!(fixture.kiln(&command).code, 0);
    };
    run("web");
    let id = fixture.ok("commit -a me -m message web app:1");
    assert!(id.starts_with("sha256:") && id.trim().len() == 71, "{id}");
    assert_eq!(fixture.ok("images -q --no-trunc app:1"), id);
    assert_eq!(
        fixture
            .kiln(&["inspect", "-f", "{{.Author}}|{{.Config.WorkingDir}}|{{index .Config.Env 0}}", "app:1"])
            .out,
        "me|/tmp|A=1\n"
    );
    assert!(fixture.ok("history --format {{.Comment}} app:1").starts_with("message\n"));
    let done = fixture.kiln(&["run", "--rm", "app:1", "sh", "-c", "cat /f; ls /etc/group; stat -c %Y /f"]);
    assert_eq!(done.out, "x\n1000000000\n", "{}", done.err);
    // Equal changes are equal layers, whenever they were made.
    run("again");
    fixture.ok("commit again app:2");
    let layers = |name: &str| fixture.kiln(&["inspect", "-f", "{{json .RootFS.Layers}}", name]).out;
    assert_eq!(layers("app:1"), layers("app:2"));
    // Instructions change the config.
    let change =
        ["commit", "-c", "CMD [\"echo\", \"hi\"]", "-c", "ENV B=$A", "-c", "LABEL l=m", "web", "app:3"];
    assert_eq!(fixture.kiln(&change).code, 0);
    assert_eq!(fixture.ok("run --rm app:3"), "hi\n");
    assert_eq!(fixture.kiln(&["inspect", "-f", "{{.Config.Labels}}", "app:3"]).out.trim(), "map[l:m]");
    // Without changes there is no layer, and no name is needed.
    fixture.ok("run --name none busybox true");
    let id = fixture.ok("commit none");
    assert_eq!(layers(id.trim()), layers("busybox"));
    // A running one is paused meanwhile, and goes on.
    let running = start(&fixture, "live", &[], "(while true; do echo x >> /tmp/lines; done) &");
    fixture.ok("commit live app:4");
    assert_eq!(fixture.ok("ps --format {{.State}}"), "running\n");
    fixture.ok("container commit --pause=false live app:5");
    fixture.ok("pause live");
    fixture.ok("commit live app:6");
    assert_eq!(fixture.ok("ps --format {{.State}}"), "paused\n");
    end(&fixture, "live", running);
    for (words, code, text) in [
        ("commit nosuch", 1, "No such container: nosuch"),
        ("commit web APP", 1, "must be lowercase"),
        ("commit -c RUN web", 1, "RUN is not a valid change command"),
        ("commit -c EXPOSE:x web", 1, "invalid --change: "),
        ("commit --pause=maybe web", 125, "invalid value"),
        ("commit", 1, ""),
    ] {
        let done = fixture.words(words);
        assert!(done.code == code && done.err.contains(text), "{words}: {} {}", done.code, done.err);
    }
    // The image that the container came from is gone.
    fixture.build("base", &fixture.context("c", "FROM busybox\nRUN echo b > /b\n"));
    fixture.ok("run --name orphan base true");
    fixture.ok("rmi -f base");
    let done = fixture.words("commit orphan app:7");
    assert!(
        done.code == 1 && done.err.contains("was removed") && done.err.contains("hint: "),
        "{}",
        done.err
    );
    assert!(fixture.command(&["export", "orphan"]).output().unwrap().status.success());
}
