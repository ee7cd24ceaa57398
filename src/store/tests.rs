//! One suite that every kind of store passes, and what is special to each.

use super::*;
use std::collections::BTreeSet;
use std::fs;
use std::io::{Error, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

mod s3;
use affectmill_testing::s3 as server;

type Test = fn(&Store);

/// The suite: each test gets an empty store.
const SUITE: &[(&str, Test)] = &[
    ("what was put first stays", what_was_put_first_stays),
    ("files are put like bytes", files_are_put_like_bytes),
    (
        "one of many writers wins each key",
        one_of_many_writers_wins_each_key,
    ),
    ("one of many large files wins", one_of_many_large_files_wins),
    (
        "a reader sees the old bytes or the new",
        a_reader_sees_the_old_bytes_or_the_new,
    ),
    (
        "lists are sorted and hold finished files only",
        lists_are_sorted_and_hold_finished_files_only,
    ),
    ("lists are whole however long", lists_are_whole_however_long),
    ("any key comes back", any_key_comes_back),
    ("many keys come back in order", many_keys_come_back_in_order),
    ("a large file comes back", a_large_file_comes_back),
];

fn local() -> (tempfile::TempDir, Store) {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(&root.path().join("out")).unwrap();
    (root, store)
}

#[test]
fn the_store_on_disk_conforms() {
    for (name, test) in SUITE {
        println!("{name}");
        let (_root, store) = local();
        test(&store);
    }
}

fn scratch_names(store: &Store) -> Vec<String> {
    fs::read_dir(store.scratch().folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// Bytes without a pattern: Knuth's MMIX generator.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&state.to_be_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn filled(store: &Store, bytes: &[u8]) -> NamedTempFile {
    let mut file = store.scratch_file("part").unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn content(store: &Store, key: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.file(key).unwrap().unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

fn what_was_put_first_stays(store: &Store) {
    assert_eq!(store.get("a/b/c.json").unwrap(), None);
    assert_eq!(store.put_new("a/b/c.json", b"one").unwrap(), Put::Created);
    assert_eq!(store.put_new("a/b/c.json", b"two").unwrap(), Put::Exists);
    assert_eq!(store.get("a/b/c.json").unwrap().unwrap(), b"one");
    store.replace("a/b/c.json", b"three").unwrap();
    assert_eq!(store.get("a/b/c.json").unwrap().unwrap(), b"three");
    assert_eq!(store.put_new("a/b/empty", b"").unwrap(), Put::Created);
    assert_eq!(store.put_new("a/b/empty", b"x").unwrap(), Put::Exists);
    assert_eq!(store.get("a/b/empty").unwrap().unwrap(), b"");
    assert!(store.delete("a/b/c.json").unwrap());
    assert!(!store.delete("a/b/c.json").unwrap());
    assert_eq!(store.get("a/b/c.json").unwrap(), None);
    assert!(store.file("a/b/c.json").unwrap().is_none());
    assert_eq!(store.put_new("a/b/c.json", b"four").unwrap(), Put::Created);
}

fn files_are_put_like_bytes(store: &Store) {
    let put = |bytes: &[u8]| store.put_new_file("labels/x", filled(store, bytes)).unwrap();
    assert_eq!(put(b"one"), Put::Created);
    assert_eq!(put(b"two"), Put::Exists);
    assert_eq!(store.get("labels/x").unwrap().unwrap(), b"one");
    assert_eq!(content(store, "labels/x"), b"one");
}

fn one_of_many_writers_wins_each_key(store: &Store) {
    for key in (0..10).map(|n| format!("k/{n}")) {
        let gate = Barrier::new(8);
        let (key, gate) = (&key, &gate);
        let winners: Vec<u8> = std::thread::scope(|scope| {
            let write = |writer: u8| {
                move || {
                    gate.wait();
                    let put = store.put_new(key, &[writer; 10_000]).unwrap();
                    (put == Put::Created).then_some(writer)
                }
            };
            let threads: Vec<_> = (0..8).map(|writer| scope.spawn(write(writer))).collect();
            threads
                .into_iter()
                .filter_map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(winners.len(), 1, "{key}");
        assert_eq!(store.get(key).unwrap().unwrap(), vec![winners[0]; 10_000]);
    }
}

fn one_of_many_large_files_wins(store: &Store) {
    // In S3 these go in parts.
    let gate = Barrier::new(3);
    let gate = &gate;
    let winners: Vec<u8> = std::thread::scope(|scope| {
        let write = |writer: u8| {
            move || {
                let file = filled(store, &noise(17 << 20, writer.into()));
                gate.wait();
                let put = store.put_new_file("labels/large", file).unwrap();
                (put == Put::Created).then_some(writer)
            }
        };
        let threads: Vec<_> = (0..3).map(|writer| scope.spawn(write(writer))).collect();
        threads
            .into_iter()
            .filter_map(|thread| thread.join().unwrap())
            .collect()
    });
    // SeaweedFS 4.48 was seen to complete two uploads of one key that race within a moment, the later one over the earlier
    // (single requests never): what is there then is whole and of one who was told so.
    let at_once = match store.root() {
        Location::Local(_) => 1,
        Location::S3 { .. } => 3,
    };
    assert!((1..=at_once).contains(&winners.len()), "{winners:?}");
    let there = content(store, "labels/large");
    assert!(
        winners
            .iter()
            .any(|&winner| there == noise(17 << 20, winner.into()))
    );
    let again = filled(store, &noise(17 << 20, 9));
    assert_eq!(store.put_new_file("labels/large", again).unwrap(), Put::Exists);
}

fn a_reader_sees_the_old_bytes_or_the_new(store: &Store) {
    store.replace("status", &[0; 50_000]).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (1..100).for_each(|n| store.replace("status", &[n; 50_000]).unwrap()));
        while !writer.is_finished() {
            let bytes = store.get("status").unwrap().unwrap();
            assert_eq!(bytes.len(), 50_000);
            assert!(bytes.iter().all(|byte| *byte == bytes[0]));
        }
    });
}

fn lists_are_sorted_and_hold_finished_files_only(store: &Store) {
    assert_eq!(store.list("labels").unwrap(), []);
    for name in ["b", "a", "ü", ".nfs000", "C"] {
        let _ = store.put_new(&format!("labels/{name}"), b"12345").unwrap();
    }
    let _ = store.put_new("labels/sub/x", b"").unwrap();
    let _ = store.put_new("labels-too", b"").unwrap();
    let _open = store.scratch_file("part").unwrap();
    let keys: Vec<_> = store
        .list("labels")
        .unwrap()
        .into_iter()
        .map(|entry| entry.key)
        .collect();
    assert_eq!(keys, ["labels/C", "labels/a", "labels/b", "labels/ü"]);
    assert_eq!(store.list("labels").unwrap()[0].bytes, 5);
    assert_eq!(store.list("_affectmill/tmp").unwrap(), []);
}

fn lists_are_whole_however_long(store: &Store) {
    // A page of S3 has at most 1,000 keys.
    const COUNT: usize = 1_100;
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= COUNT {
                        break;
                    }
                    let _ = store.put_new(&format!("many/{n:05}"), b"x").unwrap();
                }
            });
        }
    });
    let keys: Vec<_> = store
        .list("many")
        .unwrap()
        .into_iter()
        .map(|entry| entry.key)
        .collect();
    let expected: Vec<_> = (0..COUNT).map(|n| format!("many/{n:05}")).collect();
    assert_eq!(keys, expected);
}

/// What people name their files.
const ODD: &[&str] = &[
    "with blank",
    "plus+plus",
    "100%",
    "100%25",
    "a%2Fb",
    "hash#tag",
    "what?",
    "a&b=c",
    "semi;colon,comma",
    "quote'\"",
    "é und ü",
    "日本語",
    "e\u{301}",
    "a..b",
    "..a",
    "x...",
    "(1) [2] {3}",
    "~$@!*",
];

fn any_key_comes_back(store: &Store) {
    for name in ODD {
        let key = format!("odd/{name}/{name}");
        assert_eq!(
            store.put_new(&key, name.as_bytes()).unwrap(),
            Put::Created,
            "{key}"
        );
        assert_eq!(store.put_new(&key, b"").unwrap(), Put::Exists, "{key}");
        assert_eq!(store.get(&key).unwrap().unwrap(), name.as_bytes(), "{key}");
        let listed = store.list(&format!("odd/{name}")).unwrap();
        let listed: Vec<_> = listed.iter().map(|entry| entry.key.as_str()).collect();
        let hidden = name.starts_with('.');
        assert_eq!(listed, if hidden { vec![] } else { vec![key.as_str()] });
        assert!(store.delete(&key).unwrap(), "{key}");
    }
}

fn many_keys_come_back_in_order(store: &Store) {
    let keys: Vec<String> = (0..60).map(|n| format!("n/{n}")).collect();
    for key in keys.iter().filter(|key| !key.ends_with('7')) {
        let _ = store.put_new(key, key.as_bytes()).unwrap();
    }
    for (key, bytes) in keys.iter().zip(store.get_each(&keys).unwrap()) {
        let expected = (!key.ends_with('7')).then(|| key.as_bytes().to_vec());
        assert_eq!(bytes, expected, "{key}");
    }
    let (paths, _copies) = store.at_hand(&keys[8..11]).unwrap();
    for (key, path) in keys[8..11].iter().zip(paths) {
        assert_eq!(fs::read(path).unwrap(), key.as_bytes());
    }
}

fn a_large_file_comes_back(store: &Store) {
    // Not a multiple of any length that reads or uploads go by.
    let bytes = noise((40 << 20) + 12_345, 1);
    let put = store.put_new_file("labels/huge", filled(store, &bytes)).unwrap();
    assert_eq!(put, Put::Created);
    assert_eq!(store.list("labels").unwrap()[0].bytes, bytes.len() as u64);
    assert!(content(store, "labels/huge") == bytes);
    assert!(store.get("labels/huge").unwrap().unwrap() == bytes);
}

#[test]
fn files_are_as_readable_as_any_other() {
    let (root, store) = local();
    fs::write(root.path().join("plain"), b"").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    let plain = mode(&root.path().join("plain"));
    let _ = store.put_new("labels/x", b"x").unwrap();
    store.replace("y", b"y").unwrap();
    assert_eq!(mode(&root.path().join("out/labels/x")), plain);
    assert_eq!(mode(&root.path().join("out/y")), plain);
    assert_eq!(scratch_names(&store), Vec::<String>::new());
}

#[test]
fn a_sweep_takes_orphans_and_leaves_live_files() {
    let (root, store) = local();
    let mut live = store.scratch_file("live").unwrap();
    live.write_all(b"being written").unwrap();
    let folder = store.scratch().subfolder("copies").unwrap();
    let scratch = root.path().join("out/_affectmill/tmp");
    // What a killed process leaves: a file, and a folder, without a lock.
    fs::write(scratch.join("part-dead.tmp"), b"half").unwrap();
    fs::create_dir(scratch.join("images-dead")).unwrap();
    fs::write(scratch.join("images-dead/.lock"), b"").unwrap();
    fs::write(scratch.join("images-dead/1.jpg"), b"").unwrap();
    assert_eq!(
        store.sweep_scratch(Duration::from_secs(3600)).unwrap(),
        0,
        "young files stay"
    );
    assert_eq!(store.sweep_scratch(Duration::ZERO).unwrap(), 2);
    let left: BTreeSet<_> = scratch_names(&store).into_iter().collect();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_string();
    assert_eq!(left, BTreeSet::from([name(live.path()), name(folder.path())]));
    assert_eq!(store.put_new_file("labels/live", live).unwrap(), Put::Created);
    assert_eq!(store.get("labels/live").unwrap().unwrap(), b"being written");
    drop(folder);
    assert_eq!(scratch_names(&store), Vec::<String>::new());
}

#[test]
fn a_root_that_cannot_be_used_is_refused_with_path_and_remedy() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, b"").unwrap();
    let refusals = [
        (Store::open(&file), "is not a folder"),
        (Store::open(&file.join("below")), "a folder above it is a file"),
        // Nobody makes folders here, root included.
        (
            Store::open(Path::new("/proc/affectmill")),
            "cannot make the output folder `/proc/affectmill",
        ),
        (Store::open_existing(root.path()), "no affectmill output"),
        (
            Store::open_existing(&root.path().join("none")),
            "cannot open the output",
        ),
        (Store::open_existing(&file), "is not a folder"),
    ];
    for (refusal, expected) in refusals {
        let message = refusal.unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(message.contains("file") || message.contains("/"), "{message}");
    }
    assert!(!root.path().join("none").exists());
}

#[test]
fn errors_say_what_to_do() {
    // errno values of Linux, <asm-generic/errno.h>.
    for (errno, expected) in [
        (libc::ENOSPC, "disk is full: free space"),
        (libc::EDQUOT, "quota"),
        (libc::EFBIG, "ulimit -f"),
        (libc::EACCES, "permissions"),
        (libc::EPERM, "permissions"),
        (libc::EROFS, "read-only"),
    ] {
        let error = StoreError::Io {
            operation: "write",
            path: "/out/x".into(),
            source: Error::from_raw_os_error(errno),
        };
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().contains("cannot write `/out/x`"), "{error}");
        assert!(!error.is_transient(), "{error}");
    }
    for errno in [libc::EAGAIN, libc::ESTALE, libc::ETIMEDOUT] {
        let error = StoreError::Io {
            operation: "write",
            path: "/out/x".into(),
            source: Error::from_raw_os_error(errno),
        };
        assert!(error.is_transient(), "{error}");
    }
}

#[test]
fn what_a_crash_leaves_beside_a_final_name_is_swept_and_seen_by_nobody() {
    let (root, store) = local();
    let _ = store.put_new("labels/part.parquet", b"whole").unwrap();
    let _ = store.put_new("_affectmill/commits/c.json", b"whole").unwrap();
    let out = root.path().join("out");
    let left = [
        "labels/.affectmill-x.tmp",
        "_affectmill/commits/.affectmill-y.tmp",
    ];
    let left = left.map(|name| out.join(name));
    left.iter()
        .for_each(|path| fs::write(path, b"whole, too").unwrap());
    assert_eq!(store.list("labels").unwrap().len(), 1);
    assert_eq!(
        store.sweep_scratch(Duration::from_secs(3600)).unwrap(),
        0,
        "young ones stay"
    );
    assert_eq!(store.sweep_scratch(Duration::ZERO).unwrap(), 2);
    assert!(left.iter().all(|path| !path.exists()));
    assert_eq!(store.get("labels/part.parquet").unwrap().unwrap(), b"whole");
}
