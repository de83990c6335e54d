//! Image recipes: `images/NAME.toml`, compiled into the tool; a folder `images/` in the current directory overrides.

use crate::error::{Error, IoContext, Problem, Result};
use crate::units::{Name, Size};
use include_dir::{Dir, include_dir};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

static EMBEDDED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/images");

/// The version of the recipe's shape that this tool reads.
const SCHEMA: u32 = 1;

/// How a base image is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Version of the shape.
    pub schema: u32,
    /// What a lab file calls the image.
    pub name: Name,
    /// For people.
    pub title: String,
    /// What is installed, from where.
    pub debian: Debian,
    /// Kernel and initramfs.
    pub kernel: Kernel,
    /// The root disk.
    pub disk: RootDisk,
    /// What runs and what does not.
    pub system: System,
    /// Absolute path → content of files that are put over the installed ones, mode 0644.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
}

/// Suite, mirrors and packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Debian {
    /// Code name.
    pub suite: String,
    /// Archive, unless the host's apt knows one for the suite.
    pub mirror: String,
    /// Archive of security updates, unless the host's apt knows one for the suite.
    pub security: String,
    /// `main` and the like.
    pub components: Vec<String>,
    /// Keys that the archive is signed with, on the host.
    pub keyring: PathBuf,
    /// Packages of every image; packs and nodes add theirs.
    pub packages: BTreeSet<String>,
    /// dpkg patterns of paths that are not unpacked.
    #[serde(default)]
    pub exclude: Vec<String>,
}

/// Kernel and initramfs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// Modules that the initramfs loads, in this order, what they need before them.
    pub modules: Vec<String>,
    /// Command line, without `root=`.
    pub cmdline: String,
}

/// The root disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootDisk {
    /// Size of the file system.
    pub size: Size,
    /// Size of ext4's journal.
    pub journal: Size,
}

/// What runs and what does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct System {
    /// Units that start at boot: all that packages enabled is disabled.
    pub enable: Vec<String>,
    /// Units that cannot start.
    pub mask: Vec<String>,
    /// systemd generators that stay; all others are masked.
    pub generators: Vec<String>,
    /// Files that are removed; `*` in the last part of the path.
    pub remove: Vec<String>,
}

impl Recipe {
    /// The recipe called `name`: from `images/` in the current directory, else the one compiled in.
    ///
    /// # Errors
    /// [`Error::Usage`] for an unknown name (with the known ones) and for a file that is no recipe.
    pub fn load(name: &Name) -> Result<Self> {
        Self::load_from(Path::new("images"), name)
    }

    /// Like [`Recipe::load`], with `folder` in place of `images/`.
    pub fn load_from(folder: &Path, name: &Name) -> Result<Self> {
        let file = format!("{name}.toml");
        let path = folder.join(&file);
        match fs_err::read_to_string(&path) {
            Ok(text) => return Self::parse(&text, &path.display().to_string(), name),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).tried("read the recipe", path.display()),
        }
        match EMBEDDED.get_file(&file).and_then(include_dir::File::contents_utf8) {
            Some(text) => Self::parse(text, &format!("built-in {file}"), name),
            None => Err(Error::Usage(
                Problem::new("find the image")
                    .on(name)
                    .observed(format!("known images: {}", Self::known_in(folder).join(", ")))
                    .remedy(format!("choose one of them, or write images/{file}")),
            )),
        }
    }

    /// Names of every recipe that [`Recipe::load`] finds.
    pub fn known() -> Vec<String> {
        Self::known_in(Path::new("images"))
    }

    fn known_in(folder: &Path) -> Vec<String> {
        let own = std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.path());
        EMBEDDED
            .files()
            .map(|f| f.path().to_owned())
            .chain(own)
            .filter(|p| p.extension().is_some_and(|e| e == "toml"))
            .filter_map(|p| p.file_stem().and_then(|s| s.to_str()).map(str::to_owned))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    fn parse(text: &str, origin: &str, name: &Name) -> Result<Self> {
        let bad = |seen: String| Error::Usage(Problem::new("read the recipe").on(origin).observed(seen));
        let recipe: Self = toml::from_str(text).map_err(|e| bad(e.to_string().trim_end().to_owned()))?;
        if recipe.name != *name {
            return Err(bad(format!("its name is `{}`, its file says `{name}`", recipe.name)));
        }
        recipe.check().map_err(bad)?;
        Ok(recipe)
    }

    fn check(&self) -> Result<(), String> {
        if self.schema != SCHEMA {
            return Err(format!("schema is {}, this tool reads {SCHEMA}", self.schema));
        }
        let word = |s: &str| {
            !s.is_empty()
                && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.@+".contains(&b))
                && !s.starts_with(['-', '.'])
        };
        let debian = &self.debian;
        for w in [&debian.suite]
            .into_iter()
            .chain(&debian.components)
            .chain(&self.kernel.modules)
        {
            if !word(w) {
                return Err(format!("`{}` is no suite, component or module", w.escape_debug()));
            }
        }
        for unit in self
            .system
            .enable
            .iter()
            .chain(&self.system.mask)
            .chain(&self.system.generators)
        {
            if !word(unit) {
                return Err(format!("`{}` is no name of a unit", unit.escape_debug()));
            }
        }
        for url in [&debian.mirror, &debian.security] {
            let known = ["http://", "https://"].iter().any(|s| url.starts_with(s));
            if !known || url.contains(char::is_whitespace) {
                return Err(format!(
                    "`{}` is no mirror: write an http or https address",
                    url.escape_debug()
                ));
            }
        }
        debian.packages.iter().try_for_each(|p| check_package(p))?;
        for path in self.files.keys().chain(&self.system.remove) {
            let parts = path.strip_prefix('/').unwrap_or("").split('/');
            if parts.clone().any(|p| matches!(p, "" | "." | "..")) || path.contains(char::is_control) {
                return Err(format!("`{}` is no absolute path of a file", path.escape_debug()));
            }
        }
        if self.kernel.cmdline.contains(['\n', '\0']) {
            return Err("the kernel's command line must be one line".into());
        }
        if self.disk.size < Size::mib(1024) || self.disk.journal.bytes() * 4 > self.disk.size.bytes() {
            return Err("the disk needs at least 1 GiB, its journal at most a quarter of it".into());
        }
        Ok(())
    }
}

/// Whether `name` is a Debian package's (Policy 5.6.7): nothing else reaches an argument list.
pub fn check_package(name: &str) -> Result<(), String> {
    let ok = name.len() >= 2
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b));
    if ok {
        Ok(())
    } else {
        Err(format!("`{}` is no name of a Debian package", name.escape_debug()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> Name {
        "debian-12".parse().unwrap()
    }
    fn text() -> &'static str {
        EMBEDDED.get_file("debian-12.toml").unwrap().contents_utf8().unwrap()
    }

    #[test]
    fn every_built_in_recipe_is_valid() {
        let nowhere = Path::new("/nonexistent");
        let known = Recipe::known_in(nowhere);
        assert!(known.contains(&"debian-12".to_owned()));
        for n in known {
            Recipe::load_from(nowhere, &n.parse().unwrap()).unwrap();
        }
    }

    #[test]
    fn a_folder_overrides_and_adds() {
        let dir = tempfile::tempdir().unwrap();
        let changed = text().replace("Debian 12 (bookworm)", "Mine");
        std::fs::write(dir.path().join("debian-12.toml"), &changed).unwrap();
        std::fs::write(
            dir.path().join("other.toml"),
            changed.replace("\"debian-12\"", "\"other\""),
        )
        .unwrap();
        assert_eq!(Recipe::load_from(dir.path(), &name()).unwrap().title, "Mine");
        assert_eq!(
            Recipe::load_from(dir.path(), &"other".parse().unwrap()).unwrap().title,
            "Mine"
        );
        assert_eq!(Recipe::known_in(dir.path()), ["debian-12", "other"]);
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let e = Recipe::load_from(Path::new("/nonexistent"), &"debian-99".parse().unwrap()).unwrap_err();
        assert_eq!(e.exit_code(), 2);
        assert!(e.to_string().contains("debian-12"), "{e}");
    }

    #[test]
    fn bad_recipes_are_refused_with_the_place() {
        let cases = [
            ("suite ", "siute ", "unknown field `siute`"),
            ("\"bookworm\"", "\"-o=x\"", "no suite"),
            ("\"4 GiB\"", "\"4 GB\"", "is no size"),
            ("schema = 1", "schema = 9", "schema is 9"),
            ("name   = \"debian-12\"", "name = \"debian-11\"", "its file says"),
            ("\"kmod\"", "\"--hook-dir=/\"", "no name of a Debian package"),
            ("\"ssh.service\"", "\"../x.service\"", "no name of a unit"),
            ("\"/etc/machine-id\"", "\"/etc/../../x\"", "no absolute path"),
            ("\"/etc/machine-id\"", "\"etc/x\"", "no absolute path"),
            ("\"16 MiB\"", "\"2 GiB\"", "at most a quarter"),
            ("http://deb.debian.org/debian\"", "ftp://x\"", "is no mirror"),
        ];
        for (from, to, expected) in cases {
            let changed = text().replacen(from, to, 1);
            assert_ne!(changed, text(), "{from}");
            let e = Recipe::parse(&changed, "x.toml", &name()).unwrap_err();
            assert_eq!(e.exit_code(), 2);
            assert!(e.to_string().contains(expected), "{to}: {e}");
        }
    }

    proptest::proptest! {
        #[test]
        fn garbage_is_an_error_never_a_panic(s in "\\PC{0,300}") {
            proptest::prop_assert!(Recipe::parse(&s, "x", &name()).is_err());
        }
    }
}
