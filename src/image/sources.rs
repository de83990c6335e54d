//! Where packages come from: the host's own mirror where its apt knows the suite, else the recipe's.

use super::recipe::Debian;
use super::run::find_program;
use std::collections::BTreeSet;
use std::process::{Command, Stdio};

/// What is asked of `apt-get indextargets`, in the order of `Target`'s fields.
const FORMAT: &str = "$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)\t$(ORIGIN)";

/// Lines of `sources.list` for `debian`, and whether they are the host's.
pub fn sources(debian: &Debian) -> (Vec<String>, bool) {
    let args = ["indextargets", "Created-By: Packages", "--format", FORMAT];
    choose(debian, &ask("apt-get", &args))
}

/// The proxy that the host's apt uses for http, where it has one.
pub fn proxy() -> Option<String> {
    let answer = ask("apt-config", &["shell", "PROXY", "Acquire::http::Proxy"]);
    let url = answer.trim().strip_prefix("PROXY='")?.strip_suffix('\'')?;
    url.starts_with("http").then(|| url.to_owned())
}

/// Output of a program that this host may well not have (it need not be a Debian); empty where there is none.
fn ask(program: &str, args: &[&str]) -> String {
    find_program(program)
        .and_then(|p| {
            Command::new(p)
                .args(args)
                .env("LC_ALL", "C")
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .output()
                .ok()
        })
        .filter(|o| o.status.success())
        .map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
        .unwrap_or_default()
}

fn choose(debian: &Debian, targets: &str) -> (Vec<String>, bool) {
    let suite = &debian.suite;
    let releases = [suite.clone(), format!("{suite}-updates"), format!("{suite}-security")];
    let mut found = BTreeSet::new();
    for line in targets.lines() {
        let [uri, release, component, origin] = line.split('\t').collect::<Vec<_>>()[..] else {
            continue;
        };
        let usable = ["http://", "https://"].iter().any(|s| uri.starts_with(s)) && !uri.contains(char::is_whitespace);
        // Others use Debian's names for their suites: only what Debian signed as its own counts.
        if usable
            && origin == "Debian"
            && releases.iter().any(|r| r == release)
            && debian.components.iter().any(|c| c == component)
        {
            found.insert((release.to_owned(), uri.trim_end_matches('/').to_owned()));
        }
    }
    let from_host = found.iter().any(|(release, _)| release == suite);
    if !from_host {
        let uris = [&debian.mirror, &debian.mirror, &debian.security];
        found = releases.into_iter().zip(uris.map(Clone::clone)).collect();
    }
    let components = debian.components.join(" ");
    let lines = found
        .iter()
        .map(|(release, uri)| format!("deb {uri} {release} {components}"))
        .collect();
    (lines, from_host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Recipe;
    use std::path::Path;

    fn debian() -> Debian {
        Recipe::load_from(Path::new("/nonexistent"), &"debian-12".parse().unwrap())
            .unwrap()
            .debian
    }

    #[test]
    fn the_hosts_mirror_is_used_where_it_has_the_suite() {
        let targets = "http://near/debian/\tbookworm\tmain\tDebian\nhttp://near/debian/\tbookworm\tmain\tDebian\n\
            http://near/security/\tbookworm-security\tmain\tDebian\nhttp://strange/x\tbookworm\tmain\tOther\n\
            http://near/debian\tbookworm\tcontrib\tDebian\nhttps://node/x\tnodistro\tmain\t\n";
        let (lines, from_host) = choose(&debian(), targets);
        assert!(from_host);
        assert_eq!(
            lines,
            [
                "deb http://near/debian bookworm main",
                "deb http://near/security bookworm-security main"
            ]
        );
    }

    #[test]
    fn another_host_takes_the_recipes() {
        for targets in [
            "",
            "garbage\n\t\t\n\0",
            "http://u/ubuntu\tnoble\tmain\tUbuntu\n",
            "cdrom:[x]\tbookworm\tmain\tDebian\n",
        ] {
            let (lines, from_host) = choose(&debian(), targets);
            assert!(!from_host);
            assert_eq!(
                lines,
                [
                    "deb http://deb.debian.org/debian bookworm main",
                    "deb http://deb.debian.org/debian-security bookworm-security main",
                    "deb http://deb.debian.org/debian bookworm-updates main",
                ]
            );
        }
    }
}
