//! What is packed is unpacked as it was; what was tampered with, is from elsewhere or is hostile is refused, and leaves nothing.

use super::*;
use flate2::read::GzDecoder;
use proptest::prelude::*;

/// A run's folder with something secret in it.
fn run(dir: &Path) -> PathBuf {
    let run = dir.join("run");
    std::fs::create_dir_all(run.join("F05/logs")).unwrap();
    let write = |path: &str, text: &str| std::fs::write(run.join(path), text).unwrap();
    write("run.json", "{\"schema\":1}");
    write("F05/verdict.json", "{}");
    write(
        "F05/logs/node1.log",
        "knocked with Correct1Horse2Battery\nand again Correct1Horse2Battery",
    );
    write("witness-password", "Correct1Horse2Battery");
    write("id_ed25519", "x");
    write("F05/logs/renamed", "-----BEGIN OPENSSH PRIVATE KEY-----\nabc");
    std::os::unix::fs::symlink("/etc/passwd", run.join("link")).unwrap();
    run
}

fn packed(dir: &Path) -> PathBuf {
    let to = dir.join("repro.tar.gz");
    let with = BTreeMap::from([("QEMU".to_owned(), "7.2".to_owned())]);
    let (files, bytes) = pack(&run(dir), &to, with, &["Correct1Horse2Battery".to_owned()]).unwrap();
    assert_eq!((files, bytes), (3, to.metadata().unwrap().len()));
    to
}

#[test]
fn what_is_packed_is_unpacked_as_it_was_without_what_is_secret() {
    let dir = tempfile::tempdir().unwrap();
    let file = packed(dir.path());
    let into = dir.path().join("again");
    let manifest = unpack(&file, &into).unwrap();
    assert_eq!(manifest.made_with["QEMU"], "7.2");
    assert_eq!(
        std::fs::read_to_string(into.join("run.json")).unwrap(),
        "{\"schema\":1}"
    );
    let mut plain = Vec::new();
    let mut zip = GzDecoder::new(std::fs::File::open(&file).unwrap());
    zip.read_to_end(&mut plain).unwrap();
    let text = String::from_utf8_lossy(&plain);
    for secret in [
        "Correct1Horse2Battery",
        "PRIVATE KEY",
        "id_ed25519",
        "witness-password",
        "root:x",
    ] {
        assert!(!text.contains(secret), "{secret}");
    }
    assert!(text.contains("knocked with *********************\nand again ****"));
    // Neither is written over.
    assert!(unpack(&file, &into).unwrap_err().to_string().contains("there already"));
    let again = pack(&into, &file, BTreeMap::new(), &[]).unwrap_err().to_string();
    assert!(again.contains("there already"), "{again}");
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    assert!(pack(&empty, &dir.path().join("x"), BTreeMap::new(), &[]).is_err());
}

/// Name, kind and content.
type Entry<'a> = (&'a str, tar::EntryType, &'a [u8]);

/// An archive of these entries.
fn archive(dir: &Path, entries: &[Entry<'_>]) -> PathBuf {
    let file = dir.join("made.tar.gz");
    let mut tar = tar::Builder::new(GzEncoder::new(
        std::fs::File::create(&file).unwrap(),
        Compression::fast(),
    ));
    for (name, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        // Written as it is: the crate itself would refuse some of these names.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        if *kind == tar::EntryType::Symlink || *kind == tar::EntryType::Link {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        tar.append(&header, *content).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
    file
}

fn manifest(schema: u32, files: &[(&str, &[u8])]) -> Vec<u8> {
    let digest = |(p, c): &(&str, &[u8])| (PathBuf::from(p), blake3::hash(c).to_hex().to_string());
    let manifest = Manifest {
        schema,
        tool: "x".into(),
        made_with: BTreeMap::new(),
        files: files.iter().map(digest).collect(),
    };
    serde_json::to_vec(&manifest).unwrap()
}

#[test]
fn what_is_hostile_torn_or_of_another_version_is_refused_and_leaves_nothing() {
    use tar::EntryType::{Block, Link, Regular, Symlink};
    let all: &[(&str, &[u8])] = &[("a", b"1"), ("b", b"2"), ("../out", b"x"), ("/tmp/out-of-it", b"x")];
    let one = manifest(1, all);
    let (newer, none) = (manifest(9, all), b"{}".to_vec());
    let first = ("bundle.json", Regular, one.as_slice());
    let cases: &[(&[Entry<'_>], &str)] = &[
        (&[], "empty"),
        (&[("a", Regular, b"1"), first], "does not begin with bundle.json"),
        (&[("bundle.json", Regular, &newer)], "schema 9, this tool reads 1"),
        (&[("bundle.json", Regular, &none)], "says no schema"),
        (&[first, ("../out", Regular, b"x")], "leads out of its folder"),
        (&[first, ("/tmp/out-of-it", Regular, b"x")], "leads out of its folder"),
        (&[first, ("a", Symlink, b"")], "no regular file"),
        (&[first, ("a", Link, b"")], "no regular file"),
        (&[first, ("a", Block, b"")], "no regular file"),
        (&[first, ("a", Regular, b"2")], "not what it was"),
        (&[first, ("c", Regular, b"1")], "not what it was"),
        (&[first, ("a", Regular, b"1"), ("a", Regular, b"1")], "there twice"),
        (&[first, ("a", Regular, b"1")], "is missing"),
    ];
    for (entries, seen) in cases {
        let dir = tempfile::tempdir().unwrap();
        let file = archive(dir.path(), entries);
        let into = dir.path().join("deep/into");
        let e = unpack(&file, &into).unwrap_err().to_string();
        assert!(e.contains(seen), "{seen}: {e}");
        assert!(!into.exists() && !dir.path().join("deep/out").exists() && !Path::new("/tmp/out-of-it").exists());
    }
}

#[test]
fn a_bomb_and_half_a_bundle_end_within_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let zeros = vec![0; usize::try_from(FILE_MAX).unwrap() + 1];
    let first = manifest(1, &[]);
    let regular = tar::EntryType::Regular;
    let bomb = archive(dir.path(), &[("bundle.json", regular, &first), ("a", regular, &zeros)]);
    let into = dir.path().join("into");
    let e = unpack(&bomb, &into).unwrap_err().to_string();
    assert!(e.contains("larger than 64 MiB"), "{e}");
    let whole = std::fs::read(packed(dir.path())).unwrap();
    let half = dir.path().join("half");
    std::fs::write(&half, &whole[..whole.len() / 2]).unwrap();
    assert!(unpack(&half, &into).unwrap_err().to_string().contains("no bundle"));
    assert!(unpack(&dir.path().join("absent"), &into).is_err());
    assert!(!into.exists());
}

proptest! {
    #[test]
    fn a_flipped_bit_never_gives_another_content(at in 0usize..600, bit in 0u8..8) {
        let dir = tempfile::tempdir().unwrap();
        let file = packed(dir.path());
        let mut bytes = std::fs::read(&file).unwrap();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        std::fs::write(&file, &bytes).unwrap();
        let into = dir.path().join("into");
        if unpack(&file, &into).is_ok() {
            prop_assert_eq!(std::fs::read_to_string(into.join("run.json")).unwrap(), "{\"schema\":1}");
        } else {
            prop_assert!(!into.exists());
        }
    }
}
