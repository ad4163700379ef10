//! `login` and `logout`: credentials are checked, kept where Docker and podman have them, used, and forgotten.

use crate::fixture::{Done, Fixture};
use crate::web_server::{Request, Response, Server};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

/// The header for user and pass.
const RIGHT: &str = "Basic dXNlcjpwYXNz";

fn basic_registry() -> Server {
    Server::start(|request: &Request| match (request.header("authorization"), request.path.as_str()) {
        (RIGHT, "/v2/") => Response::new(200, "{}"),
        (RIGHT, _) => Response::new(404, ""),
        _ => Response::new(401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"wrong password"}]}"#)
            .header("WWW-Authenticate", "Basic realm=\"x\""),
    })
}

/// Runs a command with its configuration in `config`, and with standard input.
fn kiln(fixture: &Fixture, words: &[&str], variables: &[(&str, &str)], input: &str) -> Done {
    let mut command = fixture.command(words);
    command.env("DOCKER_CONFIG", fixture.path("config")).envs(variables.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Done::of(child.wait_with_output().unwrap())
}

fn config(fixture: &Fixture) -> String {
    fs::read_to_string(fixture.path("config/config.json")).unwrap()
}

#[test]
fn passwords_are_checked_kept_used_and_forgotten() {
    let fixture = fixture!();
    let server = basic_registry();
    let host = server.address.as_str();
    let image = format!("{host}/x:1");
    let wrong = kiln(&fixture, &["login", "-u", "user", "--password-stdin", host], &[], "other\n");
    let reason = format!("http://{host}/v2/: unauthorized: wrong password");
    assert!(wrong.code == 1 && wrong.err.contains(&reason), "{}", wrong.err);
    assert!(!wrong.err.contains("other") && !fixture.path("config/config.json").exists());
    assert!(kiln(&fixture, &["pull", &image], &[], "").err.contains("pull access denied"));
    let done = kiln(&fixture, &["login", "-u", "user", "--password-stdin", host], &[], "pass\n");
    assert_eq!((done.code, done.out.as_str()), (0, "Login Succeeded\n"), "{}", done.err);
    assert!(done.err.contains("WARNING! Your credentials are stored unencrypted in"), "{}", done.err);
    let mode = fs::metadata(fixture.path("config/config.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(config(&fixture).contains("\"auth\": \"dXNlcjpwYXNz\""));
    assert!(kiln(&fixture, &["pull", &image], &[], "").err.contains("manifest unknown"));
    // Again, without asking for anything.
    let again = kiln(&fixture, &["login", host], &[], "");
    assert_eq!((again.code, again.out.as_str()), (0, "Login Succeeded\n"));
    assert_eq!(again.err, "Authenticating with existing credentials... [Username: user]\n");
    let url = format!("http://{host}/v2/");
    let out = kiln(&fixture, &["logout", &url], &[], "");
    assert_eq!((out.code, out.out), (0, format!("Removing login credentials for {host}\n")));
    assert_eq!(config(&fixture), "{\n\t\"auths\": {}\n}");
    assert!(kiln(&fixture, &["pull", &image], &[], "").err.contains("pull access denied"));
    assert_eq!(kiln(&fixture, &["logout", host], &[], "").code, 0);
    // podman's files are read after Docker's, and logout forgets what they have.
    fixture.write(
        "run/containers/auth.json",
        &format!("{{\"auths\":{{\"{host}/x\":{{\"auth\":\"dXNlcjpwYXNz\"}}}}}}"),
    );
    let run = fixture.path("run").display().to_string();
    let podman = [("XDG_RUNTIME_DIR", run.as_str())];
    assert!(kiln(&fixture, &["pull", &image], &podman, "").err.contains("manifest unknown"));
    assert!(kiln(&fixture, &["pull", &format!("{host}/y")], &podman, "").err.contains("pull access denied"));
    // A file that a variable names is the only one.
    let file = fixture.path("auth.json").display().to_string();
    let named = [("REGISTRY_AUTH_FILE", file.as_str())];
    assert_eq!(kiln(&fixture, &["login", "-u", "user", "-p", "pass", host], &named, "").code, 0);
    assert!(
        fs::read_to_string(&file).unwrap().contains("dXNlcjpwYXNz") && !config(&fixture).contains("auth\":")
    );
}

#[test]
fn token_servers_give_identity_tokens() {
    let fixture = fixture!();
    let server = Server::start(|request: &Request| {
        let form = String::from_utf8_lossy(&request.body).into_owned();
        match (request.method.as_str(), request.header("authorization")) {
            ("GET", RIGHT) if request.path.starts_with("/token?") => {
                Response::new(200, r#"{"token":"short","refresh_token":"long"}"#)
            }
            ("POST", _) if form.contains("refresh_token=long") => {
                Response::new(200, r#"{"access_token":"short"}"#)
            }
            (_, "Bearer short") if request.path == "/v2/" => Response::new(200, "{}"),
            (_, "Bearer short") => Response::new(404, ""),
            _ if request.path.starts_with("/token?") => {
                Response::new(401, r#"{"details":"incorrect username or password"}"#)
            }
            _ => {
                let realm = format!("Bearer realm=\"http://{}/token\",service=\"s\"", request.header("host"));
                Response::new(401, "").header("WWW-Authenticate", realm)
            }
        }
    });
    let host = server.address.as_str();
    let login =
        |password: &str| kiln(&fixture, &["login", "-u", "user", "--password-stdin", host], &[], password);
    let wrong = login("no");
    assert!(wrong.code == 1 && wrong.err.contains("/v2/: unauthorized"), "{}", wrong.err);
    assert_eq!(login("pass").code, 0);
    assert!(
        config(&fixture).contains("\"identitytoken\": \"long\"")
            && !config(&fixture).contains("dXNlcjpwYXNz")
    );
    let asked = server
        .requests()
        .into_iter()
        .rfind(|request| request.method == "GET" && request.path.contains("token"));
    let asked = asked.unwrap().path;
    assert!(asked.contains("account=user") && asked.contains("offline_token=true"), "{asked}");
    let pulled = kiln(&fixture, &["pull", &format!("{host}/x")], &[], "");
    assert!(pulled.err.contains("manifest unknown"), "{}", pulled.err);
}

#[test]
fn helpers_keep_credentials() {
    let fixture = fixture!();
    let server = basic_registry();
    let host = server.address.as_str();
    let kept = fixture.path("kept").display().to_string();
    let script = format!(
        "#!/bin/sh\ncase $1 in\n\
         store) cat > {kept} ;;\n\
         get) [ -e {kept} ] || {{ echo credentials not found in native keychain; exit 1; }}; cat {kept} ;;\n\
         erase) rm {kept} ;;\nesac\n"
    );
    fixture.write("bin/docker-credential-ours", &script);
    fixture.write("bin/docker-credential-broken", "#!/bin/sh\necho 'the store is locked' >&2\nexit 3\n");
    for name in ["ours", "broken"] {
        let path = fixture.path(&format!("bin/docker-credential-{name}"));
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", fixture.path("bin").display(), std::env::var("PATH").unwrap());
    let variables = [("PATH", path.as_str())];
    fixture.write("config/config.json", "{\"credsStore\":\"ours\",\"HttpHeaders\":{\"X-A\":\"b\"}}");
    let done = kiln(&fixture, &["login", "-u", "user", "--password-stdin", host], &variables, "pass");
    assert_eq!((done.code, done.err.as_str()), (0, ""), "no warning");
    let text = fs::read_to_string(&kept).unwrap();
    assert!(
        text.contains("\"Secret\":\"pass\"") && text.contains(&format!("\"ServerURL\":\"{host}\"")),
        "{text}"
    );
    assert!(!config(&fixture).contains("dXNlcjpwYXNz") && config(&fixture).contains("X-A"));
    let image = format!("{host}/x");
    assert!(kiln(&fixture, &["pull", &image], &variables, "").err.contains("manifest unknown"));
    assert_eq!(kiln(&fixture, &["logout", host], &variables, "").code, 0);
    assert!(!fs::exists(&kept).unwrap());
    assert!(kiln(&fixture, &["pull", &image], &variables, "").err.contains("pull access denied"));
    for (name, reason) in
        [("broken", "the store is locked"), ("none", "is not in PATH"), ("a/b", "has a slash")]
    {
        fixture.write("config/config.json", &format!("{{\"credHelpers\":{{\"{host}\":\"{name}\"}}}}"));
        let done = kiln(&fixture, &["login", "-u", "user", "--password-stdin", host], &variables, "pass");
        let named = format!("the credential helper `docker-credential-{name}` failed");
        assert!(done.code == 1 && done.err.contains(&named) && done.err.contains(reason), "{}", done.err);
    }
    // Docker's choice where no file names one, if it is installed.
    fs::remove_file(fixture.path("config/config.json")).unwrap();
    fs::rename(fixture.path("bin/docker-credential-ours"), fixture.path("bin/docker-credential-pass"))
        .unwrap();
    fixture.write("bin/pass", "");
    assert_eq!(kiln(&fixture, &["login", "-u", "user", "-p", "pass", host], &variables, "").code, 0);
    assert!(config(&fixture).contains("\"credsStore\": \"pass\"") && fs::exists(&kept).unwrap());
}

#[test]
fn wrong_uses_are_explained() {
    let fixture = fixture!();
    for (words, text) in [
        (vec!["login", "127.0.0.1:1"], "Cannot perform an interactive login from a non TTY device"),
        (
            vec!["login", "-u", "a", "127.0.0.1:1"],
            "Cannot perform an interactive login from a non TTY device",
        ),
        (vec!["login", "--password-stdin", "x"], "requires --username to be set"),
        (
            vec!["login", "-u", "a", "-p", "b", "--password-stdin"],
            "cannot specify both --password and --password-stdin",
        ),
        (vec!["login", "-u", "a", "--password-stdin"], "the password on standard input is empty"),
        (vec!["login", "-u", " ", "-p", "b"], "username is empty"),
        (vec!["login", "-u", "a", "-p", ""], "password is empty"),
        (vec!["login", "-u", "a", "-p", "b", "/x"], "invalid registry \"/x\""),
        (vec!["login", "-u", "a", "-p", "b", "127.0.0.1:1"], "cannot reach http://127.0.0.1:1/v2/"),
    ] {
        let done = kiln(&fixture, &words, &[], "");
        assert!(done.code == 1 && done.err.contains(text) && done.out.is_empty(), "{words:?}: {done:?}");
    }
    let server = basic_registry();
    fixture.write("config/config.json", "{");
    let done = kiln(&fixture, &["login", "-u", "user", "-p", "pass", &server.address], &[], "");
    assert!(done.code == 1 && done.err.contains("cannot read credentials from"), "{}", done.err);
    assert_eq!(config(&fixture), "{", "a broken file stays as it is");
    let other = Server::start(|_| Response::new(404, "not here"));
    let done = kiln(&fixture, &["login", "-u", "user", "-p", "pass", &other.address], &[], "");
    assert!(done.code == 1 && done.err.contains("this is no registry"), "{}", done.err);
}
