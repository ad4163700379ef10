//! `build --check`, `build --call` and `lint`.

#[test]
fn checks_are_worded_as_the_reference_words_them() {
    let bed = bed!();
    let context = bed.context("c", "FROM busybox AS B\nMAINTAINER me\nCMD [\"a\"]\n");
    let done = bed.kiln(&["build".as_ref(), "--check".as_ref(), context.as_os_str()]);
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
         --------------------\n   1 |     FROM busybox AS B\n   2 | >>> MAINTAINER me\n   3 |     CMD [\"a\"]\n--------------------\n\n",
        file = file.display()
    );
    assert_eq!((done.code, done.out), (1, expected));

    let fine = bed.context("fine", "FROM busybox\nCMD [\"a\"]\n");
    let done = bed.kiln(&["build".as_ref(), "--call=check".as_ref(), fine.as_os_str()]);
    assert_eq!((done.code, done.out.as_str()), (0, "Check complete, no warnings found.\n"));

    let json = bed.kiln(&[
        "build".as_ref(),
        "--call=check,format=json,ignorestatus=true".as_ref(),
        context.as_os_str(),
    ]);
    assert_eq!(json.code, 0);
    assert!(json.out.contains("\"ruleName\": \"StageNameCasing\""), "{}", json.out);
    assert!(!bed.root().join("index.db").exists(), "a question needs no store");
}

#[test]
fn targets_are_listed() {
    let bed = bed!();
    let context = bed.context("c", "# first makes things\nFROM busybox AS first\nFROM first AS last\n");
    let done = bed.kiln(&["build".as_ref(), "--call=targets".as_ref(), context.as_os_str()]);
    assert_eq!(
        (done.code, done.out.as_str()),
        (0, "TARGET         DESCRIPTION\nfirst          makes things\nlast (default) \n")
    );
}

#[test]
fn lint_fails_on_findings_and_errors() {
    let bed = bed!();
    bed.write("good/Dockerfile", "FROM busybox:1\nCMD [\"a\"]\n");
    bed.write("bad/Dockerfile", "FROM busybox\nRUNN x\n");
    let (good, bad) = (bed.path("good/Dockerfile"), bed.path("bad/Dockerfile"));
    let done = bed.kiln(&["lint".as_ref(), good.as_os_str()]);
    assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, "", "0 findings in 1 file\n"));
    let done = bed.kiln(&["lint".as_ref(), good.as_os_str(), bad.as_os_str()]);
    assert_eq!(done.code, 1);
    assert!(
        done.out.contains("error[unknown-instruction]") && done.out.contains("warning[UnpinnedBaseImage]")
    );
    assert_eq!(done.err, "2 findings in 2 files\n");
}
