//! `init`: a lab of one's own to begin with, in a folder.

use super::target::{self, LabArg};
use super::{Ended, output};
use crate::error::{Error, IoContext, Problem, Result};
use crate::files::Home;
use crate::mutation;
use crate::spec::{self, LAB_FILE, Source};
use crate::units::Name;
use std::path::{Path, PathBuf};

/// Folders of a lab that belong to it beside its file.
const FOLDERS: [&str; 2] = ["scenarios", mutation::FOLDER];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The lab's name; its folder is made in the current one
    name: Name,
    /// The lab to begin with: a folder, or one that is built in
    #[arg(long, value_name = "LAB", default_value = "ccr")]
    from: String,
    /// With this misconfiguration in its lab file (`failoverlab mutations ls`); several with commas
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    from_mutation: Vec<String>,
}

pub fn run(home: &Home, args: Args) -> Ended {
    let source = mutation::applied(target::source(home, &LabArg::of(&args.from))?, &args.from_mutation)?;
    let files = files(&source, &args.name)?;
    let dir = Path::new(args.name.as_str());
    write(dir, &files)?;
    output::text_out(&format!(
        "{}: written, with {} files beside it; change it, then try `failoverlab up {} --dry-run`",
        dir.join(LAB_FILE).display(),
        files.len() - 1,
        args.name
    ))?;
    Ok(0)
}

/// The files of a lab like `source` of another name, each with its path in the lab's folder.
fn files(source: &Source, name: &Name) -> Result<Vec<(PathBuf, String)>> {
    let text = spec::renamed(&source.file_name(), &source.lab_file()?, name)?;
    let mut files = vec![(PathBuf::from(LAB_FILE), text)];
    for folder in FOLDERS {
        files.extend(source.toml_files(folder)?);
    }
    Ok(files)
}

/// Writes them into a folder that is not there yet; nothing of it stays where one cannot be written.
fn write(dir: &Path, files: &[(PathBuf, String)]) -> Result<()> {
    let what = "make the lab's folder";
    std::fs::create_dir(dir).map_err(|e| {
        let problem = Problem::new(what).on(dir.display()).observed(&e);
        match e.kind() {
            std::io::ErrorKind::AlreadyExists => Error::Usage(problem.remedy("take another name, or another folder")),
            _ => Error::Operation(problem),
        }
    })?;
    let written = files.iter().try_for_each(|(path, text)| {
        let path = dir.join(path);
        let parent = path.parent().unwrap_or(dir);
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&path, text))
            .tried("write the file", path.display())
    });
    written.map_err(|e| {
        let undone = std::fs::remove_dir_all(dir).err();
        e.with_rollback(undone.map(|e| format!("could not remove {}: {e}", dir.display())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::desired;

    #[test]
    fn each_built_in_lab_can_be_begun_with_under_another_name() {
        for built_in in spec::embedded() {
            let dir = tempfile::tempdir().unwrap();
            let mine = dir.path().join("mine");
            let name: Name = "mine".parse().unwrap();
            let source = Source::Embedded(built_in.clone());
            write(&mine, &files(&source, &name).unwrap()).unwrap();
            let (ours, theirs) = (
                desired::read(&Source::Folder(mine.clone())).unwrap(),
                desired::read(&source).unwrap(),
            );
            assert_eq!(ours.lab.name, name);
            assert_eq!(
                (ours.lab.nodes, ours.lab.networks),
                (theirs.lab.nodes, theirs.lab.networks),
                "{built_in}"
            );
            let scenarios = |s: &Source| s.toml_files("scenarios").unwrap();
            assert_eq!(scenarios(&Source::Folder(mine)), scenarios(&source));
        }
    }

    #[test]
    fn a_folder_that_is_there_is_left_alone_and_a_half_written_one_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let mine = dir.path().join("mine");
        std::fs::create_dir(&mine).unwrap();
        std::fs::write(mine.join("notes"), "x").unwrap();
        let e = write(&mine, &[(LAB_FILE.into(), "x".into())]).unwrap_err();
        assert_eq!(e.exit_code(), 2);
        assert!(!mine.join(LAB_FILE).exists() && mine.join("notes").exists());
        // The second file's folder is the first file.
        let other = dir.path().join("other");
        let e = write(&other, &[("a".into(), "x".into()), ("a/b".into(), "x".into())]).unwrap_err();
        assert!(e.exit_code() == 5 && !other.exists(), "{e}");
    }

    #[test]
    fn a_file_that_is_no_lab_file_is_refused() {
        let e = spec::renamed("lab.toml", "schema = 1\n", &"mine".parse().unwrap()).unwrap_err();
        assert_eq!(e.exit_code(), 2);
    }
}
