//! `build --check`, `build --call` and `lint`.

#[test]
fn checks_are_worded_as_the_reference_words_them() {
    let fixture = fixture!();
    let context = fixture.context("c", "FROM busybox AS B\nMAINTAINER me\nCMD [\"a\"]\n");
    let done = fixture.kiln(&["build".as_ref(), "--check".as_ref(), context.as_os_str()]);
    let file = std::fs::canonicalize(context.join("Dockerfile")).unwrap();
    let expected = format!(
        "Check complete, 2 warnings have been found!\n\n\
         WARNING: StageNameCasing - https://docs.docker.com/go/dockerfile/rule/stage-name-casing/\n\
         Stage name 'B' should be lowercase\n\
         {file}:1\n\
         --------------------\n   1 | >>> FROM busybox AS B\n   2 |     MAINTAINER me\n   3 |     CMD [\"a\"]\n--------------------\n\n\
         WARNING: MaintainerDeprecated - https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/\n\
         Maintainer instruction is deprecated in favor of using label\n\
         {file}:2\n\
         --------------------\n   1 |     FROM busybox AS B\n   2 | >>> MAINTAINER me\n   3 |     CMD [\"a\"]\n   4 |     \n--------------------\n",
        file = file.display()
    );
    assert_eq!((done.code, done.out), (1, expected));

    let fine = fixture.context("fine", "FROM busybox\nCMD [\"a\"]\n");
    let done = fixture.kiln(&["build".as_ref(), "--call=check".as_ref(), fine.as_os_str()]);
    assert_eq!((done.code, done.out.as_str()), (0, "Check complete, no warnings found.\n"));

    let json = fixture.kiln(&[
        "build".as_ref(),
        "--call=check,format=json,ignorestatus=true".as_ref(),
        context.as_os_str(),
    ]);
    assert_eq!(json.code, 0);
    assert!(json.out.contains("\"ruleName\": \"StageNameCasing\""), "{}", json.out);
    assert!(!fixture.root().join("index.db").exists(), "a question needs no store");
}

#[test]
fn targets_are_listed() {
    let fixture = fixture!();
    let context = fixture.context("c", "# first makes things\nFROM busybox AS first\nFROM first AS last\n");
    let done = fixture.kiln(&["build".as_ref(), "--call=targets".as_ref(), context.as_os_str()]);
    assert_eq!(
        (done.code, done.out.as_str()),
        (0, "TARGET         DESCRIPTION\nfirst          makes things\nlast (default) \n")
    );
}

#[test]
fn lint_fails_on_findings_and_errors() {
    let fixture = fixture!();
    fixture.write("good/Dockerfile", "FROM busybox:1\nCMD [\"a\"]\n");
    fixture.write("bad/Dockerfile", "FROM busybox\nRUNN x\n");
    let (good, bad) = (fixture.path("good/Dockerfile"), fixture.path("bad/Dockerfile"));
    let done = fixture.kiln(&["lint".as_ref(), good.as_os_str()]);
    assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, "", "0 findings in 1 file\n"));
    let done = fixture.kiln(&["lint".as_ref(), good.as_os_str(), bad.as_os_str()]);
    assert_eq!(done.code, 1);
    assert!(
        done.out.contains("error[unknown-instruction]") && done.out.contains("warning[UnpinnedBaseImage]")
    );
    assert_eq!(done.err, "2 findings in 2 files\n");
}

#[test]
fn variables_of_base_images_are_known_to_checks() {
    let fixture = fixture!();
    let context = fixture.context("c", "FROM busybox\nENV A=$PATH B=$NOTHING\nWORKDIR $A\n");
    let done = fixture.kiln(&["build".as_ref(), "--check".as_ref(), context.as_os_str()]);
    assert_eq!(done.code, 1);
    assert!(done.out.contains("Usage of undefined variable '$NOTHING'\n"), "{}", done.out);
    assert!(done.out.starts_with("Check complete, 1 warning has been found!"), "{}", done.out);
}

#[test]
fn a_build_ends_with_its_findings() {
    let fixture = fixture!();
    let context = fixture.context("c", "FROM busybox AS B\nCMD a\n");
    let done = fixture.kiln(&["build".as_ref(), context.as_os_str()]);
    assert_eq!(done.code, 0);
    let expected = " 2 warnings found (use --check to expand):\n - StageNameCasing: Stage name 'B' should be lowercase (line 1)\n - JSONArgsRecommended: ";
    assert!(done.err.contains(expected), "{}", done.err);

    let context = fixture.context("strict", "# check=error=true\nFROM busybox AS B\nRUN exit 3\n");
    let done = fixture.kiln(&["build".as_ref(), context.as_os_str()]);
    assert_eq!(done.code, 1);
    let last = "ERROR: failed to build: failed to solve: lint violation found for rules: StageNameCasing\n";
    assert!(done.err.ends_with(last) && !done.err.contains("exit code: 3"), "{}", done.err);
}

#[test]
fn findings_are_in_the_raw_progress() {
    let fixture = fixture!();
    let text = "FROM scratch AS Bad\nCOPY Dockerfile \\\n  /\n";
    let context = fixture.context("c", text);
    let raw = |context: &std::path::Path| -> Vec<serde_json::Value> {
        let done = fixture.kiln(&["build".as_ref(), "--progress=rawjson".as_ref(), context.as_os_str()]);
        let lines = done.err.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines.filter_map(|line| Some(line["warnings"].as_array()?.clone())).flatten().collect()
    };
    let found = raw(&context);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["url"], "https://docs.docker.com/go/dockerfile/rule/stage-name-casing/");
    assert_eq!(found[0]["detail"][0], "U3RhZ2UgbmFtZXMgc2hvdWxkIGJlIGxvd2VyY2FzZQ==");
    assert_eq!(found[0]["range"], serde_json::json!([{"start": {"line": 1}, "end": {"line": 1}}]));
    assert_eq!(found[0]["sourceInfo"]["language"], "Dockerfile");

    let broken = fixture.context("broken", "FROM scratch AS Bad\nMAINTAINER me\nRUNN x\n");
    assert_eq!(raw(&broken).len(), 2);
    let done = fixture.fails(&broken);
    assert!(
        done.err.contains("2 warnings found") && done.err.contains("unknown instruction: RUNN"),
        "{}",
        done.err
    );
    let json = fixture.kiln(&["build".as_ref(), "--call=check,format=json".as_ref(), broken.as_os_str()]);
    let answer: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    let message = "dockerfile parse error on line 3: unknown instruction: RUNN (did you mean RUN?)";
    assert_eq!(answer["buildError"]["message"], message);
    assert_eq!(answer["warnings"].as_array().unwrap().len(), 2);
}

#[test]
fn laying_out_changes_no_image() {
    let fixture = fixture!();
    let text = "FROM busybox\nENV DEPS \\\n\t\tautoconf \\\n\t\tfile\nLABEL a \\\n  b\nWORKDIR /a \\\nb\n\
        USER root\\\n\nCMD echo \\\n  x\nHEALTHCHECK --interval=5s \\\n\t\tCMD true \\\n  || false\n";
    let before = fixture.context("before", text);
    let done = fixture.kiln(&["fmt".as_ref(), before.join("Dockerfile").as_os_str()]);
    assert_eq!(done.code, 0, "{}", done.err);
    let after = fixture.context("after", &done.out);
    fixture.build("before", &before);
    fixture.build("after", &after);
    let config = |name: &str| fixture.kiln(&["inspect", "-f", "{{json .Config}}", name]).out;
    assert_eq!(config("before"), config("after"));
}

#[test]
fn outlines_are_drawn() {
    let fixture = fixture!();
    let text = "# V says which\nARG V=1\nFROM busybox:$V AS b\nRUN --mount=type=secret,id=s,required true\n";
    let context = fixture.context("c", text);
    let done = fixture.kiln(&["build".as_ref(), "--call=outline".as_ref(), context.as_os_str()]);
    let expected = "TARGET: b\n\nBUILD ARG   VALUE   DESCRIPTION\nV           1       says which\n\nSECRET   REQUIRED\ns        true\n\n";
    assert_eq!((done.code, done.out.as_str()), (0, expected));
    let done = fixture.kiln(&["build".as_ref(), "--call=nothing".as_ref(), context.as_os_str()]);
    assert_eq!(done.code, 1);
    assert!(done.err.contains("unsupported request frontend.nothing"), "{}", done.err);
}

#[test]
fn plans_are_printed() {
    let fixture = fixture!();
    let text = "FROM scratch AS a\nWORKDIR /w\nCOPY b .\nFROM a\nRUN [\"/none\"]\n";
    let context = fixture.context("c", text);
    let call = |flags: &[&str]| {
        let words = ["build"].iter().chain(flags).map(|word| std::ffi::OsStr::new(*word));
        fixture.kiln(&words.chain([context.as_os_str()]).collect::<Vec<_>>())
    };
    let done = call(&["--call=plan"]);
    // Neither the missing file nor the missing program matters.
    let nodes = "0 scratch\n1 directory /w ← 0\n2 copy /b to /w/ ← 1\n3 run \"/none\" in /w ← 2\nimage of stage 1 for ";
    assert!(done.code == 0 && done.out.starts_with(nodes), "{}{}", done.out, done.err);
    let history = "  history WORKDIR /w\n  history COPY b . # buildkit\n  history RUN /none # buildkit\n";
    assert!(done.out.ends_with(history), "{}", done.out);
    let target = call(&["--call=plan", "--target=a"]);
    assert!(target.code == 0 && !target.out.contains("/none"), "{}", target.out);
    assert_eq!(call(&["--call=plan,format=json"]).code, 1);
    let unknown = call(&["--call=plan", "--target=b"]);
    assert!(unknown.code == 1 && unknown.err.contains("could not be found"), "{}", unknown.err);
}

#[test]
fn levels_of_rules_are_chosen() {
    let fixture = fixture!();
    fixture.write("Dockerfile", "FROM busybox\nCMD a\n");
    let file = fixture.path("Dockerfile");
    let lint = |flags: &[&str]| {
        let words = ["lint"].iter().chain(flags).map(|word| std::ffi::OsStr::new(*word));
        fixture.kiln(&words.chain([file.as_os_str()]).collect::<Vec<_>>())
    };
    let off = lint(&["--rule", "UnpinnedBaseImage=off", "--rule=JSONArgsRecommended=off"]);
    assert_eq!((off.code, off.out.as_str()), (0, ""));
    assert_eq!(lint(&["--fail-on=error"]).code, 0);
    assert_eq!(lint(&["--fail-on=error", "--rule", "unpinnedbaseimage=error"]).code, 1);
    let wrong = lint(&["--rule", "UnpinedBaseImage=off"]);
    assert_eq!(wrong.code, 1);
    assert!(wrong.err.contains("did you mean UnpinnedBaseImage?"), "{}", wrong.err);
    let json = lint(&["--format=json"]);
    let answer: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(answer["warnings"][1]["ruleName"], "JSONArgsRecommended");
    assert_eq!(answer["warnings"][1]["location"]["ranges"][0]["start"]["line"], 2);
    assert!(answer["buildError"].is_null() && answer["sources"][0]["filename"].is_string());
    let sarif = lint(&["--format=sarif"]);
    let log: serde_json::Value = serde_json::from_str(&sarif.out).unwrap();
    assert_eq!(log["runs"][0]["results"][1]["ruleId"], "JSONArgsRecommended");
    assert_eq!(log["runs"][0]["results"][1]["locations"][0]["physicalLocation"]["region"]["startLine"], 2);
}

#[test]
fn files_are_laid_out() {
    let fixture = fixture!();
    fixture.write("Dockerfile", "from   busybox\nrun  a   \\\n  && b\n");
    let file = fixture.path("Dockerfile");
    let expected = "FROM busybox\nRUN a \\\n    && b\n";
    let done = fixture.kiln(&["fmt".as_ref(), file.as_os_str()]);
    assert_eq!((done.code, done.out.as_str()), (0, expected));
    let check = || fixture.kiln(&["fmt".as_ref(), "--check".as_ref(), file.as_os_str()]);
    let done = check();
    assert_eq!((done.code, done.out), (1, format!("{}\n", file.display())));
    let done = fixture.kiln(&["fmt".as_ref(), "-w".as_ref(), file.as_os_str()]);
    assert_eq!((done.code, done.out.as_str()), (0, ""));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), expected);
    assert_eq!(check().code, 0);
    fixture.write("bad/Dockerfile", "FROM busybox\nRUNN x\n");
    let done = fixture.kiln(&["fmt".as_ref(), fixture.path("bad/Dockerfile").as_os_str()]);
    assert!(done.code == 1 && done.err.contains("unknown instruction: RUNN"), "{}", done.err);
}
