//! Whether the folders of [`Home`] can be trusted, before anything is read in them or made.
//!
//! What another user owns, or what cannot be read, is no empty folder: `ls` would say that no lab is up.

use super::Home;
use crate::error::{Error, Problem, Result};
use rustix::fs::Access;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What moves all folders elsewhere.
const ELSEWHERE: &str = "set FAILOVERLAB_HOME to a folder of your own";

impl Home {
    /// Looks at the three folders and at those that they are in. What is not there is well.
    ///
    /// # Errors
    /// [`Error::Host`] with the path: it is no folder, a link, another user's, or cannot be read.
    pub fn check(&self) -> Result<()> {
        [&self.cache, &self.state, &self.runtime]
            .into_iter()
            .try_for_each(|p| check(p))
    }
}

fn check(path: &Path) -> Result<()> {
    let refused = |observed: String, remedy: String| {
        Error::Host(
            Problem::new("use the folder")
                .on(path.display())
                .observed(observed)
                .remedy(remedy),
        )
    };
    let meta = match path.symlink_metadata() {
        Ok(meta) => meta,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => {
            let remedy = format!("see {}, or {ELSEWHERE}", obstacle(path).display());
            return Err(refused(e.to_string(), remedy));
        }
    };
    let me = rustix::process::getuid().as_raw();
    if !meta.is_dir() {
        let what = if meta.is_symlink() { "a link" } else { "no folder" };
        return Err(refused(
            format!("it is {what}"),
            format!("move it away, or {ELSEWHERE}"),
        ));
    }
    if meta.uid() != me {
        let (owner, mine) = (user_name(meta.uid()), user_name(me));
        return Err(refused(
            format!("it belongs to {owner}, and this is {mine}"),
            format!("run failoverlab as {owner}, or {ELSEWHERE}"),
        ));
    }
    rustix::fs::access(path, Access::READ_OK | Access::EXEC_OK)
        .map_err(|e| refused(e.to_string(), format!("chmod 700 {}", path.display())))
}

/// The first folder on the way to `path` that is none or that cannot be passed.
fn obstacle(path: &Path) -> PathBuf {
    let mut way: Vec<&Path> = path.ancestors().collect();
    way.reverse();
    let blocks = |p: &&&Path| !p.is_dir() || rustix::fs::access(**p, Access::EXEC_OK).is_err();
    way.iter().find(blocks).map_or(path, |p| p).to_owned()
}

/// The folder that `XDG_RUNTIME_DIR` names, where there is one and it is ours.
///
/// # Errors
/// [`Error::Host`] where it is another user's: `sudo` keeps the variable.
pub(super) fn runtime_dir(named: Option<PathBuf>) -> Result<Option<PathBuf>> {
    let Some(dir) = named else { return Ok(None) };
    let refused = |observed: String| {
        Error::Host(
            Problem::new("use the folder that XDG_RUNTIME_DIR names")
                .on(dir.display())
                .observed(observed)
                .remedy("unset XDG_RUNTIME_DIR, or log in as the user that runs failoverlab"),
        )
    };
    let me = rustix::process::getuid().as_raw();
    match dir.metadata() {
        Ok(meta) if !meta.is_dir() => Ok(None),
        Ok(meta) if meta.uid() == me => Ok(Some(dir)),
        Ok(meta) => {
            let (owner, mine) = (user_name(meta.uid()), user_name(me));
            Err(refused(format!("it belongs to {owner}, and this is {mine}")))
        }
        // Hosts without a session manager name it and have none.
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(refused(e.to_string())),
    }
}

/// The name of a user; the number where it has none here.
pub fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let by_id = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    };
    // Users of a directory service are not in the file.
    let mine = || (uid == rustix::process::getuid().as_raw()).then(|| std::env::var("USER").ok())?;
    passwd
        .lines()
        .find_map(by_id)
        .or_else(mine)
        .unwrap_or_else(|| format!("user {uid}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn told(home: &Home) -> String {
        let e = home.check().unwrap_err();
        assert_eq!(e.exit_code(), 4);
        let p = e.problem().unwrap();
        format!("{e} | {}", p.remedy.as_deref().unwrap())
    }

    #[test]
    fn what_is_not_there_and_what_is_ours_is_well() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::under(&dir.path().join("not/yet"));
        home.check().unwrap();
        std::fs::create_dir_all(&home.state).unwrap();
        home.check().unwrap();
    }

    #[test]
    fn a_file_or_a_link_is_no_folder() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::under(dir.path());
        std::fs::write(&home.cache, "x").unwrap();
        assert!(told(&home).contains("it is no folder"), "{}", told(&home));
        std::fs::remove_file(&home.cache).unwrap();
        symlink("/tmp", &home.state).unwrap();
        assert!(told(&home).contains("it is a link"), "{}", told(&home));
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let told = told(&Home::under(&file));
        assert!(
            told.contains("Not a directory") && told.contains(&format!("see {}", file.display())),
            "{told}"
        );
    }

    #[test]
    fn what_belongs_to_somebody_else_is_refused_with_the_owner() {
        // Root gives a folder away; anybody else looks at one of root's.
        let dir = tempfile::tempdir().unwrap();
        let theirs = if rustix::process::getuid().is_root() {
            std::os::unix::fs::chown(dir.path(), Some(4_242), None).unwrap();
            dir.path().to_owned()
        } else {
            PathBuf::from("/usr")
        };
        let home = Home {
            state: theirs.clone(),
            ..Home::under(&dir.path().join("own"))
        };
        let told = told(&home);
        assert!(
            told.contains("it belongs to") && told.contains("run failoverlab as"),
            "{told}"
        );
        let e = runtime_dir(Some(theirs)).unwrap_err();
        assert!(
            e.problem()
                .unwrap()
                .remedy
                .as_deref()
                .unwrap()
                .contains("unset XDG_RUNTIME_DIR"),
            "{e}"
        );
    }

    #[test]
    fn a_folder_that_may_not_be_read_is_not_empty() {
        if rustix::process::getuid().is_root() {
            return; // Nothing is closed to root.
        }
        let dir = tempfile::tempdir().unwrap();
        let home = Home::under(dir.path());
        std::fs::create_dir(&home.state).unwrap();
        std::fs::set_permissions(&home.state, std::fs::Permissions::from_mode(0o000)).unwrap();
        assert!(told(&home).contains("chmod 700"), "{}", told(&home));
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(told(&home).contains("Permission denied"), "{}", told(&home));
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    }

    #[test]
    fn a_runtime_folder_that_is_named_and_not_there_is_none() {
        assert_eq!(runtime_dir(None).unwrap(), None);
        assert_eq!(runtime_dir(Some("/nowhere/at/all".into())).unwrap(), None);
        assert_eq!(runtime_dir(Some("/etc/passwd".into())).unwrap(), None);
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            runtime_dir(Some(dir.path().into())).unwrap().as_deref(),
            Some(dir.path())
        );
    }

    #[test]
    fn root_has_its_name() {
        assert_eq!(user_name(0), "root");
        assert_eq!(user_name(4_294_967_000), "user 4294967000");
    }
}
