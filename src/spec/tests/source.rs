use super::super::*;
use std::path::Path;

fn folder_with_labs() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for lab in ["labs/mine", "labs/bare", "other"] {
        std::fs::create_dir_all(dir.path().join(lab)).unwrap();
        std::fs::write(dir.path().join(lab).join("lab.toml"), format!("# {lab}")).unwrap();
    }
    dir
}

/// What was seen last of what failed.
fn observed<T: std::fmt::Debug>(failed: Result<T>) -> String {
    failed.unwrap_err().problem().unwrap().observed.clone().unwrap()
}

#[test]
fn a_folder_goes_before_a_name_and_a_name_here_before_one_built_in() {
    let dir = folder_with_labs();
    let read = |arg| find(Some(arg), dir.path()).unwrap().lab_file().unwrap();
    assert_eq!(read("other"), "# other");
    assert_eq!(read("./labs/mine"), "# labs/mine");
    assert_eq!(read("mine"), "# labs/mine");
    assert_eq!(read("bare"), "# labs/bare");
    assert_eq!(
        find(Some("ccr"), dir.path()).unwrap(),
        Source::Embedded("ccr".parse().unwrap())
    );
    assert!(read("ccr").contains("name = \"ccr\""));
    let absolute = dir.path().join("other");
    assert_eq!(
        find(absolute.to_str(), Path::new("/")).unwrap().lab_file().unwrap(),
        "# other"
    );
}

#[test]
fn without_a_name_it_is_the_current_folder() {
    let dir = folder_with_labs();
    assert_eq!(
        find(None, &dir.path().join("other")).unwrap().lab_file().unwrap(),
        "# other"
    );
    let error = find(None, dir.path()).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(
        error
            .problem()
            .unwrap()
            .observed
            .as_ref()
            .unwrap()
            .contains("bare, ccr, mine")
    );
}

#[test]
fn a_name_that_is_invalid_or_unknown_is_an_error_with_the_known_ones() {
    let dir = folder_with_labs();
    for hostile in [
        "..",
        "../..",
        "a/b",
        "a\nb",
        "",
        "/",
        "ccr/..",
        "\u{1b}[2J",
        "ccr\0",
        "CCR",
        &"a".repeat(5000),
        "-x",
    ] {
        let error = find(Some(hostile), dir.path()).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{hostile:?}");
        assert!(!error.to_string().chars().any(char::is_control), "{error}");
    }
    let error = find(Some("cccr"), dir.path()).unwrap_err();
    assert_eq!(
        error.problem().unwrap().remedy.as_deref(),
        Some("did you mean `ccr`? known: bare, ccr, mine, sentinel")
    );
}

#[test]
fn what_is_no_readable_text_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let source = Source::Folder(dir.path().to_owned());
    let file = dir.path().join("lab.toml");
    let seen = || observed(source.lab_file());
    assert!(seen().contains("No such file"));
    std::fs::write(&file, [0xff, 0xfe]).unwrap();
    assert!(seen().contains("UTF-8"));
    std::fs::write(&file, vec![b' '; (1 << 20) + 1]).unwrap();
    assert!(seen().contains("larger"));
    std::fs::write(&file, vec![b' '; 1 << 20]).unwrap();
    assert!(source.lab_file().is_ok());
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert!(seen().contains("regular file"));
}

#[test]
fn files_of_a_folder_come_by_name() {
    let dir = folder_with_labs();
    let lab = dir.path().join("other");
    std::fs::create_dir(lab.join("scenarios")).unwrap();
    for name in ["F05.toml", "F00.toml", "notes.md"] {
        std::fs::write(lab.join("scenarios").join(name), name).unwrap();
    }
    let source = Source::Folder(lab);
    let files = source.toml_files("scenarios").unwrap();
    let names: Vec<&str> = files.iter().map(|(p, _)| p.to_str().unwrap()).collect();
    assert_eq!(names, ["scenarios/F00.toml", "scenarios/F05.toml"]);
    assert_eq!(files[0].1, "F00.toml");
    assert_eq!(source.toml_files("nothing").unwrap(), []);
    let built_in = Source::Embedded("ccr".parse().unwrap());
    assert!(built_in.toml_files(".").is_ok());
    assert_eq!(built_in.toml_files("nothing").unwrap(), []);
}

#[test]
fn what_is_no_lab_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path();
    let seen = |arg: &str| observed(find(Some(arg), here));
    std::os::unix::fs::symlink("loop", here.join("loop")).unwrap();
    std::os::unix::fs::symlink("gone", here.join("dangling")).unwrap();
    std::fs::write(here.join("plain"), "").unwrap();
    std::fs::create_dir_all(here.join("odd/lab.toml")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, here.join("pipe"), rustix::fs::Mode::RUSR).unwrap();
    for (arg, why) in [
        ("loop", "symbolic links"),
        ("dangling", "No such file"),
        ("plain", "it is a file, and not a lab.toml"),
        ("plain/below", "Not a directory"),
        ("odd", "its lab.toml is no regular file"),
        ("pipe", "neither a folder nor a regular file"),
        ("~/lab", "did not expand"),
        ("nothing", "no lab.toml there"),
        ("no/such", "no lab.toml there"),
    ] {
        assert!(seen(arg).contains(why), "{arg}: {}", seen(arg));
    }
}

#[test]
fn the_file_itself_names_its_lab_and_a_built_in_one_is_found_beside_a_missing_folder() {
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path();
    std::fs::create_dir(here.join("own")).unwrap();
    std::fs::write(here.join("own/lab.toml"), "").unwrap();
    let own = Source::Folder(here.join("own"));
    assert_eq!(find(Some("own"), here).unwrap(), own);
    assert_eq!(find(Some("own/lab.toml"), here).unwrap(), own);
    assert!(matches!(find(Some("ccr"), here).unwrap(), Source::Embedded(_)));
    // A folder of that name without a lab in it hides nothing.
    std::fs::create_dir(here.join("ccr")).unwrap();
    assert!(matches!(find(Some("ccr"), here).unwrap(), Source::Embedded(_)));
}

#[test]
fn what_is_no_utf8_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let source = Source::Folder(dir.path().to_owned());
    for (bytes, seen) in [
        (&b"\xff\xfes\0"[..], "it is UTF-16 text: save it as UTF-8"),
        (b"\xfe\xff\0s", "it is UTF-16 text: save it as UTF-8"),
        (
            b"schema = 1\nname = \"f\xfcr\"\n",
            "the byte 0xfc in line 2; save it as UTF-8",
        ),
    ] {
        std::fs::write(dir.path().join("lab.toml"), bytes).unwrap();
        let e = observed(source.lab_file());
        assert!(e.ends_with(seen), "{e}");
    }
}
