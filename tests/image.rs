//! A real image, built from a mirror. Machine tier: `cargo test --test image -- --ignored`.

use failoverlab::event::Journal;
use failoverlab::hypervisor::Accel;
use failoverlab::hypervisor::accel::probe;
use failoverlab::image::qemu_img::QemuImg;
use failoverlab::image::{ImageKey, Manifest, Recipe, Store};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A file of the image's file system, read without mounting it.
fn debugfs(raw: &std::path::Path, command: &str) -> String {
    let program = failoverlab::image::run::find_program("debugfs").expect("e2fsprogs is installed");
    let out = Command::new(program).args(["-R", command]).arg(raw).output().unwrap();
    String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
}

#[test]
#[ignore = "machine tier: downloads packages and builds an image"]
fn an_image_is_built_without_secrets_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path().join("images"));
    let recipe = Recipe::load(&"debian-12".parse().unwrap()).unwrap();
    let key = ImageKey::new(&recipe, ["iputils-ping"]).unwrap();
    let journal = Journal::in_memory();
    journal.listen(|e| {
        eprintln!("{} {}", e.kind, e.data);
        true
    });
    let never = AtomicBool::new(false);
    let image = store.ensure(&key, &journal, &never).unwrap();

    assert_eq!(ImageKey::new(&recipe, ["iputils-ping"]).unwrap().digest, image.digest);
    assert_eq!(store.find(&key).unwrap().as_ref(), Some(&image));
    let size = |p: &std::path::Path| std::fs::metadata(p).unwrap().len();
    assert!(size(&image.kernel) > 1 << 20 && size(&image.initrd) > 1 << 20 && size(&image.disk) > 100 << 20);
    assert!(size(&image.disk) < 600 << 20, "{} bytes", size(&image.disk));
    let check = QemuImg::default().check(&image.disk).unwrap();
    assert_eq!((check.corruptions, check.leaks), (0, 0));

    let text = std::fs::read_to_string(image.disk.with_file_name("image.json")).unwrap();
    let manifest: Manifest = serde_json::from_str(&text).unwrap();
    assert!(manifest.packages.contains_key("iputils-ping") && manifest.packages.contains_key("systemd"));
    let names: Vec<_> = std::fs::read_dir(image.disk.parent().unwrap())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 4, "{names:?}");

    let raw = dir.path().join("raw");
    let formats = (
        failoverlab::hypervisor::DiskFormat::Qcow2,
        failoverlab::hypervisor::DiskFormat::Raw,
    );
    QemuImg::default()
        .convert((&image.disk, formats.0), (&raw, formats.1), &never)
        .unwrap();
    assert!(debugfs(&raw, "stat /etc/machine-id").contains("Size: 0"));
    let ssh = debugfs(&raw, "ls -p /etc/ssh");
    assert!(ssh.contains("sshd_config") && !ssh.contains("ssh_host_"), "{ssh}");
    assert!(debugfs(&raw, "stat /root/.ssh/authorized_keys").contains("File not found"));
    let shadow = debugfs(&raw, "cat /etc/shadow");
    assert!(
        shadow
            .lines()
            .filter_map(|l| l.split(':').nth(1))
            .all(|p| p.starts_with(['*', '!'])),
        "{shadow}"
    );
    // Ownership survives the name spaces of an ordinary user: shadow is root's and the group shadow's (42).
    let owner = debugfs(&raw, "stat /etc/shadow");
    assert!(owner.contains("User:     0   Group:    42"), "{owner}");

    // The image's kernel runs to its panic; what was found is remembered.
    let cache = dir.path().join("accel.json");
    let forced = probe(&image, &cache, Some(Accel::Tcg)).unwrap();
    assert_eq!(forced.accel, Accel::Tcg);
    let found = probe(&image, &cache, None).unwrap();
    let written = || std::fs::metadata(&cache).unwrap().modified().unwrap();
    let before = written();
    assert_eq!(probe(&image, &cache, None).unwrap(), found);
    assert_eq!(written(), before, "it was measured again");
    eprintln!("{}\n{}", forced.detail, found.detail);
}

#[test]
#[ignore = "machine tier: begins to download packages"]
fn a_cancelled_build_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(dir.path().join("images"));
    let recipe = Recipe::load(&"debian-12".parse().unwrap()).unwrap();
    let key = ImageKey::new(&recipe, []).unwrap();
    let cancel = Arc::new(AtomicBool::new(false));
    let journal = Journal::in_memory();
    journal.listen({
        let cancel = cancel.clone();
        // In the middle: files of the user's range of ids are there.
        move |e| {
            if e.data["text"]
                .as_str()
                .is_some_and(|t| t.contains("installing essential packages"))
            {
                cancel.store(true, Ordering::Relaxed);
            }
            true
        }
    });
    let e = store.ensure(&key, &journal, &cancel).unwrap_err();
    assert_eq!(e.exit_code(), 130, "{e}");
    let left: Vec<_> = std::fs::read_dir(dir.path().join("images"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert!(left.iter().all(|n| n.to_string_lossy().ends_with(".lock")), "{left:?}");
}
