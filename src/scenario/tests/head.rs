//! What stands beside the steps: tags and settings.

use super::*;

fn with_head(head: &str) -> String {
    format!("id = \"X\"\ntitle = \"x\"\nsteps = [{{ wait = \"1s\" }}]\n{head}\n")
}

#[test]
fn scenarios_are_chosen_by_their_tags() {
    let of = |id: &str, tags: &str| Scenario {
        id: id.to_owned(),
        ..read(&with_head(&format!("tags = [{tags}]"))).unwrap()
    };
    let all = || vec![of("A", r#""power", "quick""#), of("B", r#""power""#), of("C", "")];
    let ids = |tags: &[&str]| {
        let tags: Vec<String> = tags.iter().map(|t| (*t).to_owned()).collect();
        tagged(all(), &tags).map(|s| s.into_iter().map(|s| s.id).collect::<String>())
    };
    assert_eq!(ids(&[]).unwrap(), "ABC");
    assert_eq!(ids(&["power"]).unwrap(), "AB");
    assert_eq!(ids(&["quick", "power"]).unwrap(), "AB");
    let e = ids(&["power", "qick"]).unwrap_err();
    assert_eq!(e.exit_code(), 2);
    let remedy = |e: &crate::error::Error| e.problem().unwrap().remedy.clone().unwrap();
    assert!(remedy(&e).contains("quick"), "{e}");
    let none = tagged(vec![of("C", "")], &["power".into()]).unwrap_err();
    assert!(remedy(&none).contains("none has any"), "{none}");
}

#[test]
fn tags_are_words() {
    for bad in [
        "\"\"",
        "\"Power\"",
        "\"a b\"",
        "\"../x\"",
        "\"a\", \"a\"",
        "\"\\u001b[1m\"",
        "7",
    ] {
        assert!(read(&with_head(&format!("tags = [{bad}]"))).is_err(), "{bad}");
    }
    let long = "a".repeat(33);
    assert!(report(&with_head(&format!("tags = [\"{long}\"]"))).contains("at most 32"));
}

#[test]
fn settings_are_keys_and_values_of_the_packs_order() {
    let s = read(&with_head("settings = { dial = \"good\", heartbeat_ms = 1200 }")).unwrap();
    let wanted = [("dial", "good"), ("heartbeat_ms", "1200")];
    assert_eq!(s.settings, wanted.map(|(k, v)| (k.to_owned(), v.to_owned())));
    for bad in [
        "settings = { dial = { a = 1 } }",
        "settings = { \"--force\" = true }",
        "settings = { \"a b\" = 1 }",
        "settings = { heartbeat-ms = 1, heartbeat_ms = 2 }",
        "settings = { dial = \"{what}\" }",
        "settings = 7",
    ] {
        assert!(read(&with_head(bad)).is_err(), "{bad}");
    }
    let with = read(&with_head(
        "settings = { dial = \"{what}\" }\n[parameters]\nwhat = \"best\"",
    ))
    .unwrap();
    assert_eq!(with.settings[0].1, "best");
}

/// A lab without a runtime has nobody to tell.
#[test]
fn a_runtime_without_such_an_order_has_no_settings() {
    let lab = lab();
    let rules = Rules {
        host_names: false,
        lab: &lab,
        pack: &Vocabulary::default(),
        set: &BTreeMap::new(),
        shelf: None,
    };
    let e = parse("s.toml", &with_head("settings = { dial = \"good\" }"), rules).unwrap_err();
    assert!(e.to_string().contains("takes no settings"), "{e}");
}
