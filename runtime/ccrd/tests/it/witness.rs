//! The witness client against a real Samba on loopback.

use crate::samba::Samba;
use crate::wait::ends_within;
use ccrd::witness::{BLOCK, FILE, Fault, Share, SmbWitness, Witness, probe};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);

macro_rules! samba_or_return {
    () => {
        match Samba::start() {
            Some(s) => s,
            None => return,
        }
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_holder_at_a_time_and_the_record_stays() {
    let samba = samba_or_return!();
    let (mut a, mut b) = (
        SmbWitness::new(samba.share(), FILE),
        SmbWitness::new(samba.share(), FILE),
    );
    assert_eq!(a.open(SOON).await, Ok(Vec::new()));
    a.write(b"epoch 1, a longer content", SOON).await.unwrap();
    assert_eq!(b.open(SOON).await, Err(Fault::Held));
    assert!(a.is_held() && !b.is_held());
    a.close(SOON).await.unwrap();
    assert!(!a.is_held());
    assert_eq!(b.open(SOON).await, Ok(b"epoch 1, a longer content".to_vec()));
    b.write(b"epoch 2", SOON).await.unwrap();
    assert_eq!(a.open(SOON).await, Err(Fault::Held));
    drop(b);
    // The server frees the file when it sees the end of the connection: soon, not at once.
    assert_eq!(samba.open_soon(&mut a).await, b"epoch 2".to_vec());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_race_has_one_winner() {
    let samba = samba_or_return!();
    for round in 0..20 {
        let (mut a, mut b) = (
            SmbWitness::new(samba.share(), FILE),
            SmbWitness::new(samba.share(), FILE),
        );
        let both = tokio::join!(a.open(SOON), b.open(SOON));
        let winners = usize::from(both.0.is_ok()) + usize::from(both.1.is_ok());
        assert_eq!(winners, 1, "round {round}: {both:?}");
        for w in [&mut a, &mut b] {
            if w.is_held() {
                w.close(SOON).await.unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_ends_the_hold() {
    let mut samba = samba_or_return!();
    let mut a = SmbWitness::new(samba.share(), FILE);
    samba.opened(&mut a).await;
    samba.kill();
    assert!(matches!(a.write(b"beat", SOON).await, Err(Fault::Lost(_))));
    assert!(!a.is_held());
    assert!(
        matches!(a.write(b"beat", SOON).await, Err(Fault::Lost(_))),
        "no way back to life"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abandoned_open_leaves_nothing_behind() {
    let samba = samba_or_return!();
    let mut a = SmbWitness::new(samba.share(), FILE);
    samba.stop();
    let given_up = ends_within(200, a.open(Duration::from_millis(300))).await;
    assert!(matches!(given_up, Some(Err(Fault::Lost(_)))), "{given_up:?}");
    samba.resume();
    let mut b = SmbWitness::new(samba.share(), FILE);
    samba.open_soon(&mut b).await;
    b.write(b"beat", SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_server_is_noticed_in_time() {
    let samba = samba_or_return!();
    let mut a = SmbWitness::new(samba.share(), FILE);
    samba.opened(&mut a).await;
    samba.stop();
    let given_up = ends_within(200, a.write(b"beat", Duration::from_millis(400))).await;
    assert!(matches!(given_up, Some(Err(Fault::Lost(_)))), "{given_up:?}");
    samba.resume();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_says_so() {
    let samba = samba_or_return!();
    let mut a = SmbWitness::new(
        Share {
            password: "wrong".into(),
            ..samba.share()
        },
        FILE,
    );
    let Err(Fault::Lost(why)) = a.open(SOON).await else {
        panic!("let in")
    };
    assert!(why.contains("LOGON_FAILURE"), "{why}");
    assert!(!why.contains("wrong"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_has_its_own_file() {
    let samba = samba_or_return!();
    let mut holder = SmbWitness::new(samba.share(), FILE);
    samba.opened(&mut holder).await;
    let mut prober = SmbWitness::passing(samba.share(), "probe-node2");
    probe(&mut prober, SOON).await.unwrap();
    assert!(!prober.is_held() && holder.is_held());
    assert!(!samba.files().join("probe-node2").exists(), "it goes with its hold");
    holder.write(b"still mine", SOON).await.unwrap();
    samba.stop();
    let given_up = ends_within(200, probe(&mut prober, Duration::from_millis(600))).await;
    assert!(matches!(given_up, Some(Err(_))), "{given_up:?}");
    samba.resume();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_makes_the_witness_file_and_never_changes_what_it_says() {
    let samba = samba_or_return!();
    let mut prober = SmbWitness::passing(samba.share(), "probe-node1");
    let file = samba.files().join(FILE);
    probe(&mut prober, SOON).await.unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), [0; BLOCK]);
    let mut a = SmbWitness::new(samba.share(), FILE);
    assert_eq!(a.open(SOON).await, Ok(Vec::new()), "a new one is no vote for anybody");
    a.write(b"epoch 1", SOON).await.unwrap();
    a.close(SOON).await.unwrap();
    // One that is too short gets its room.
    std::fs::write(&file, b"epoch 2").unwrap();
    probe(&mut prober, SOON).await.unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().len(), BLOCK as u64);
    assert_eq!(a.open(SOON).await, Ok(b"epoch 2".to_vec()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_fails_the_probe_but_not_the_holder() {
    let Some(samba) = Samba::start_small() else { return };
    let (mut prober, mut a) = (
        SmbWitness::passing(samba.share(), "probe-node1"),
        SmbWitness::new(samba.share(), FILE),
    );
    samba.fill();
    let Err(Fault::Lost(why)) = probe(&mut prober, SOON).await else {
        panic!("there was room")
    };
    assert!(why.contains("DISK_FULL"), "{why}");
    samba.empty();
    probe(&mut prober, SOON).await.unwrap();
    samba.fill();
    assert!(probe(&mut prober, SOON).await.is_err());
    // It has its room since the first good probe.
    samba.opened(&mut a).await;
    a.write(b"epoch 1", SOON).await.unwrap();
}
