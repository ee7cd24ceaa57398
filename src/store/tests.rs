use super::*;
use std::collections::BTreeSet;
use std::fs;
use std::io::{Error, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Barrier;
use std::time::Duration;

fn store() -> (tempfile::TempDir, Store) {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(&root.path().join("out")).unwrap();
    (root, store)
}

fn scratch_names(store: &Store) -> Vec<String> {
    fs::read_dir(store.path("_affectmill/tmp"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn what_was_put_first_stays() {
    let (_root, store) = store();
    assert_eq!(store.get("a/b/c.json").unwrap(), None);
    assert_eq!(store.put_new("a/b/c.json", b"one").unwrap(), Put::Created);
    assert_eq!(store.put_new("a/b/c.json", b"two").unwrap(), Put::Exists);
    assert_eq!(store.get("a/b/c.json").unwrap().unwrap(), b"one");
    store.replace("a/b/c.json", b"three").unwrap();
    assert_eq!(store.get("a/b/c.json").unwrap().unwrap(), b"three");
    assert!(store.delete("a/b/c.json").unwrap());
    assert!(!store.delete("a/b/c.json").unwrap());
    assert_eq!(store.get("a/b/c.json").unwrap(), None);
    assert_eq!(scratch_names(&store), Vec::<String>::new());
}

#[test]
fn files_are_as_readable_as_any_other() {
    let (root, store) = store();
    fs::write(root.path().join("plain"), b"").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    let plain = mode(&root.path().join("plain"));
    let _ = store.put_new("labels/x", b"x").unwrap();
    store.replace("y", b"y").unwrap();
    assert_eq!(mode(&store.path("labels/x")), plain);
    assert_eq!(mode(&store.path("y")), plain);
}

#[test]
fn one_of_many_writers_wins_each_key() {
    let (_root, store) = store();
    for key in ["k/0", "k/1", "k/2", "k/3"] {
        let gate = Barrier::new(8);
        let (store, gate) = (&store, &gate);
        let winners: Vec<u8> = std::thread::scope(|scope| {
            let write = |writer: u8| {
                move || {
                    gate.wait();
                    let put = store.put_new(key, &[writer; 100_000]).unwrap();
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
        assert_eq!(store.get(key).unwrap().unwrap(), vec![winners[0]; 100_000]);
    }
    assert_eq!(scratch_names(&store), Vec::<String>::new());
}

#[test]
fn a_reader_sees_the_old_bytes_or_the_new() {
    let (_root, store) = store();
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

#[test]
fn lists_are_sorted_and_hold_finished_files_only() {
    let (_root, store) = store();
    assert_eq!(store.list("labels").unwrap(), []);
    for name in ["b", "a", "ü", ".nfs000", "C"] {
        let _ = store.put_new(&format!("labels/{name}"), b"12345").unwrap();
    }
    let _ = store.put_new("labels/sub/x", b"").unwrap();
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

#[test]
fn a_sweep_takes_orphans_and_leaves_live_files() {
    let (_root, store) = store();
    let mut live = store.scratch_file("live").unwrap();
    live.write_all(b"being written").unwrap();
    // What a killed process leaves: a file without a lock.
    fs::write(store.path("_affectmill/tmp/part-dead.tmp"), b"half").unwrap();
    assert_eq!(
        store.sweep_scratch(Duration::from_secs(3600)).unwrap(),
        0,
        "young files stay"
    );
    assert_eq!(store.sweep_scratch(Duration::ZERO).unwrap(), 1);
    let left: BTreeSet<_> = scratch_names(&store).into_iter().collect();
    let live_name = live.path().file_name().unwrap().to_str().unwrap().to_string();
    assert_eq!(left, BTreeSet::from([live_name]));
    assert_eq!(store.put_new_file("labels/live", live).unwrap(), Put::Created);
    assert_eq!(store.get("labels/live").unwrap().unwrap(), b"being written");
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
