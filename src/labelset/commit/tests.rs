use super::*;
use crate::StageSeconds;

fn record(shard: &str) -> CommitRecord {
    CommitRecord {
        version: RECORD_VERSION,
        shard: serde_json::from_value(shard.into()).unwrap(),
        fingerprint: Fingerprint::from_digest(&[1; 32]),
        part: PartInfo {
            rows: 1,
            bytes: 3,
            // SHA-256 of "abc", FIPS 180-2 appendix B.1.
            sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".into(),
        },
        crops: None,
        videos: Vec::new(),
        device: None,
        retired: None,
        seconds: StageSeconds::default(),
    }
}

fn store() -> (tempfile::TempDir, Store) {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    (root, store)
}

#[test]
fn a_part_is_held_against_its_record() {
    let (_root, store) = store();
    let record = record("00000000000000aa");
    let key = paths::part(&record.shard);
    let wrong = |expected: &str| {
        let message = verify(&store, &record).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(
            message.contains("labels/part-00000000000000aa.parquet"),
            "{message}"
        );
        assert!(message.contains("commits/00000000000000aa.json"), "{message}");
    };
    wrong("is missing");
    store.replace(&key, b"abcd").unwrap();
    wrong("has 4 bytes, its record says 3");
    store.replace(&key, b"abd").unwrap();
    wrong("has SHA-256");
    store.replace(&key, b"abc").unwrap();
    verify(&store, &record).unwrap();
}

#[test]
fn records_are_read_back_and_damaged_ones_refused_by_name() {
    let (_root, store) = store();
    assert!(read_all(&store).unwrap().is_empty());
    let (a, b) = (record("00000000000000aa"), record("00000000000000bb"));
    for record in [&b, &a] {
        store
            .replace(&paths::commit(&record.shard), &encode(record))
            .unwrap();
    }
    let all: Vec<_> = read_all(&store).unwrap().into_values().collect();
    assert_eq!(all, [a.clone(), b.clone()]);

    let refused = |bytes: &[u8], expected: &str| {
        store.replace(&paths::commit(&b.shard), bytes).unwrap();
        let message = read_all(&store).unwrap_err().to_string();
        assert!(
            message.contains(expected) && message.contains("00000000000000bb.json"),
            "{message}"
        );
    };
    let whole = encode(&b);
    refused(&whole[..whole.len() / 2], "damaged");
    refused(b"", "delete it and run again");
    refused(&encode(&a), "speaks of shard 00000000000000aa");
    let newer = CommitRecord {
        version: 7,
        ..b.clone()
    };
    refused(&encode(&newer), "version 7");
}
