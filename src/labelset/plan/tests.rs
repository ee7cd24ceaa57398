use super::*;
use crate::CommitRecord;
use std::path::Path;
use std::sync::Barrier;

fn video(key: &str, frames: u64) -> PlannedVideo {
    PlannedVideo {
        key: VideoKey::new(key).unwrap(),
        kind: SourceKind::File,
        bytes: 10,
        etag: "1".into(),
        frames,
        duration_us: 0,
        archive: None,
        unreadable: None,
    }
}

fn at(root: &Path, moved: bool) -> Origin {
    Origin {
        place: InputPlace {
            uri: root.into(),
            root: root.into(),
        },
        moved,
    }
}

fn here() -> Origin {
    at(Path::new("/videos"), false)
}

fn keys(shards: &[ShardPlan]) -> Vec<Vec<&str>> {
    let of = |shard: &'_ ShardPlan| shard.videos.len();
    assert!(shards.iter().all(|shard| of(shard) > 0));
    shards
        .iter()
        .map(|shard| shard.videos.iter().map(|video| video.key.as_str()).collect())
        .collect()
}

fn planner_in(store: &Store, target_frames: u64) -> Planner {
    Planner::new(store.clone(), read(store).unwrap(), here(), target_frames).unwrap()
}

/// The shards once these videos are planned again, and their rows lie in shards that are retired.
fn again_in(store: &Store, videos: Vec<(u32, PlannedVideo)>, retired: BTreeSet<ShardId>) -> Vec<ShardPlan> {
    let mut planner = planner_in(store, 1_000);
    planner.retire(retired);
    assert_eq!(planner.append(videos, true).unwrap(), []);
    planner.into_plans().shards
}

#[test]
fn shards_close_before_the_target_is_exceeded() {
    let videos = vec![
        video("d", 10),
        video("b", 40),
        video("a", 60),
        video("c", 500),
        video("e", 90),
        video("f", 1),
    ];
    let shards = make(videos, &BTreeSet::new(), 100);
    assert_eq!(
        keys(&shards),
        [vec!["a", "b"], vec!["c"], vec!["d", "e"], vec!["f"]]
    );
}

#[test]
fn order_of_discovery_changes_nothing_and_covered_videos_stay_out() {
    let videos: Vec<_> = (0..50).map(|n| video(&format!("v{n:02}"), n)).collect();
    let mut reversed = videos.clone();
    reversed.reverse();
    let none = BTreeSet::new();
    assert_eq!(make(videos.clone(), &none, 100), make(reversed, &none, 100));
    let first = make(videos[..30].to_vec(), &none, 100);
    let second = make(videos.clone(), &covered(&first), 100);
    let planned = covered(&second);
    assert_eq!(
        planned,
        videos[30..].iter().map(|video| video.key.clone()).collect()
    );
}

#[test]
fn short_and_unknown_videos_do_not_pile_up_without_end() {
    let unknown = (0..200).map(|n| video(&format!("u{n:03}"), 0)).collect();
    let sizes: Vec<_> = make(unknown, &BTreeSet::new(), 5_000)
        .iter()
        .map(|shard| shard.videos.len())
        .collect();
    assert_eq!(sizes, [64, 64, 64, 8]);
    let short = (0..1_100).map(|n| video(&format!("s{n:04}"), 1)).collect();
    let sizes: Vec<_> = make(short, &BTreeSet::new(), 5_000)
        .iter()
        .map(|shard| shard.videos.len())
        .collect();
    assert_eq!(sizes, [512, 512, 76]);
    assert_eq!(
        make(
            vec![video("a", u64::MAX), video("b", u64::MAX)],
            &BTreeSet::new(),
            5_000
        )
        .len(),
        2
    );
}

#[test]
fn the_id_is_the_content() {
    let id = |videos: Vec<PlannedVideo>| make(videos, &BTreeSet::new(), 1_000).remove(0).id;
    let base = id(vec![video("a", 5), video("b", 5)]);
    // SHA-256 by Python's hashlib over b"affectmill shard 1" and, for a and b,
    // struct.pack("<Q", 1) + key + b"\0" + struct.pack("<Q", 10).
    assert_eq!(base.as_str(), "0dc872081bf182f2");
    let mut copied = vec![video("a", 5), video("b", 7)];
    copied[0].etag = "another time".into();
    assert_eq!(id(copied), base, "neither times nor estimates are content");
    let mut grown = vec![video("a", 5), video("b", 5)];
    grown[1].bytes = 11;
    let mut kind = vec![video("a", 5), video("b", 5)];
    kind[0].kind = SourceKind::Images;
    for other in [grown, kind, vec![video("a", 5)], vec![video("ab", 5)]] {
        assert_ne!(id(other), base);
    }
}

#[test]
fn plans_are_appended_and_read_back() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let videos: Vec<_> = (0..10).map(|n| video(&format!("v{n}"), 50)).collect();
    let first = append(&store, &here(), &videos[3..], 100).unwrap().shards;
    assert_eq!(
        append(&store, &here(), &videos[3..], 100).unwrap().shards,
        first,
        "nothing new, no new plan"
    );
    assert_eq!(store.list(paths::PLANS).unwrap().len(), 1);
    let both = append(&store, &here(), &videos, 100).unwrap().shards;
    assert_eq!(both[..first.len()], first, "earlier shards stay");
    assert_eq!(read_all(&store).unwrap(), both);
    assert_eq!(store.list(paths::PLANS).unwrap().len(), 2);
}

#[test]
fn coordinators_that_plan_at_once_never_plan_a_video_twice() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let gate = Barrier::new(6);
    std::thread::scope(|scope| {
        for start in 0..6 {
            let (store, gate) = (&store, &gate);
            scope.spawn(move || {
                // Each sees more files than the one before.
                let videos: Vec<_> = (0..20 + start * 5)
                    .map(|n| video(&format!("v{n:02}"), 30))
                    .collect();
                gate.wait();
                append(store, &here(), &videos, 100).unwrap();
            });
        }
    });
    let shards = read_all(&store).unwrap();
    assert_eq!(shards.iter().map(|shard| shard.videos.len()).sum::<usize>(), 45);
    assert_eq!(covered(&shards).len(), 45);
}

#[test]
fn damaged_plans_are_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let shards = append(&store, &here(), &[video("a", 1), video("b", 1)], 1)
        .unwrap()
        .shards;
    let refused = |bytes: &[u8], expected: &str| {
        store.replace(&paths::plan(2), bytes).unwrap();
        let message = read_all(&store).unwrap_err().to_string();
        assert!(
            message.contains(expected) && message.contains("00002.json.zst"),
            "{message}"
        );
    };
    let packed = |plan: &Plan| encode(plan).unwrap();
    let plan = |version, shards: &[ShardPlan]| Plan {
        version,
        input: None,
        shards: shards.to_vec(),
    };
    refused(b"no zstd", "damaged");
    refused(&zstd::encode_all(&b"{\"version\":1}"[..], 3).unwrap(), "damaged");
    refused(&packed(&plan(2, &[])), "version 2");
    refused(
        &packed(&plan(1, &shards[..1])),
        "`a` is planned twice for one attempt",
    );
    let mut moved = shards[0].clone();
    moved.videos[0].key = VideoKey::new("c").unwrap();
    refused(&packed(&plan(1, &[moved])), "does not hold the videos of its id");
    store.replace(&paths::plan(2), &packed(&plan(1, &[]))).unwrap();
    store.delete(&paths::plan(1)).unwrap();
    assert!(
        read_all(&store)
            .unwrap_err()
            .to_string()
            .contains("00001.json.zst` should come before it")
    );
}

fn record(shard: &ShardPlan, rows: &[u64]) -> CommitRecord {
    let outcome = |(video, rows): (&PlannedVideo, &u64)| crate::VideoOutcome {
        rows: *rows,
        ..crate::VideoOutcome::new(video.key.clone())
    };
    CommitRecord {
        version: RECORD_VERSION,
        shard: shard.id.clone(),
        fingerprint: affectmill_base::Fingerprint::from_digest(&[1; 32]),
        part: crate::PartInfo {
            rows: rows.iter().sum(),
            bytes: 1,
            sha256: String::new(),
        },
        crops: None,
        videos: shard.videos.iter().zip(rows).map(outcome).collect(),
        device: None,
        retired: None,
        seconds: Default::default(),
    }
}

#[test]
fn a_video_is_planned_again_once_for_each_attempt_and_the_latest_counts() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let videos: Vec<_> = (0..4).map(|n| video(&format!("v{n}"), 50)).collect();
    let first = append(&store, &here(), &videos, 1_000).unwrap().shards;
    let again = |attempt, n: usize| vec![(attempt, videos[n].clone())];

    let append_again = |videos: Vec<(u32, PlannedVideo)>| again_in(&store, videos, BTreeSet::new());

    let second = append_again(again(1, 1));
    assert_eq!(second[..1], first);
    assert_eq!((second.len(), second[1].attempt), (2, 1));
    let alone = make(vec![videos[1].clone()], &BTreeSet::new(), 1_000);
    assert_ne!(second[1].id, alone[0].id, "another attempt is another part");
    for due in [again(1, 1), again(0, 1), again(3, 1)] {
        let planned = append_again(due);
        assert_eq!(planned, second, "planned for that attempt, or not due yet");
    }
    let third = append_again([again(2, 1), again(1, 3)].concat());
    assert_eq!(third.len(), 4);
    assert_eq!(
        append(&store, &here(), &videos, 1_000).unwrap().shards,
        third,
        "nothing is new"
    );
    assert_eq!(read_all(&store).unwrap(), third);
    let attempts: Vec<u32> = latest(&third).iter().map(|video| video.shard.attempt).collect();
    assert_eq!(attempts, [0, 2, 0, 1]);

    // v1 has failed twice and is open; v3 failed once and has its rows now.
    let at = |attempt, key: &str| {
        let holds = |shard: &&ShardPlan| {
            shard.attempt == attempt && shard.videos.iter().any(|video| video.key.as_str() == key)
        };
        third.iter().find(holds).unwrap()
    };
    let commits = |records: Vec<CommitRecord>| -> BTreeMap<ShardId, CommitRecord> {
        records
            .into_iter()
            .map(|record| (record.shard.clone(), record))
            .collect()
    };
    let good = commits(vec![
        record(at(0, "v0"), &[50, 0, 50, 0]),
        record(at(1, "v1"), &[0]),
        record(at(1, "v3"), &[50]),
    ]);
    let found = outcomes(&third, &good).unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|(latest, video)| (video.key.as_str(), latest.shard.attempt, video.rows))
        .collect();
    assert_eq!(found, [("v0", 0, 50), ("v2", 0, 50), ("v3", 1, 50)]);
    let doubled = commits(vec![record(at(0, "v0"), &[50, 0, 50, 7])]);
    let error = outcomes(&third, &doubled).unwrap_err().to_string();
    assert!(error.contains("`v3`") && error.contains("twice"), "{error}");

    let late = Plan {
        version: RECORD_VERSION,
        input: None,
        shards: cut(vec![(1, video("new", 1))], 10),
    };
    store.replace(&paths::plan(4), &encode(&late).unwrap()).unwrap();
    let error = read_all(&store).unwrap_err().to_string();
    assert!(
        error.contains("`new` is planned twice for one attempt, or before an earlier one"),
        "{error}"
    );
}

#[test]
fn videos_of_another_place_are_refused_until_somebody_says_that_they_moved() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    };
    let (first, second) = (place("day1"), place("day2"));
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&first, &link).unwrap();
    let store = Store::open(&place("out")).unwrap();
    append(&store, &at(&first, false), &[video("a", 1)], 100).unwrap();
    // The same place by other names.
    for same in [link, first.join("."), second.join("../day1")] {
        append(&store, &at(&same, false), &[video("a", 1)], 100).unwrap();
    }
    let error = append(&store, &at(&second, false), &[video("b", 1)], 100).unwrap_err();
    let told = error.to_string();
    for told_place in [&first, &second] {
        assert!(told.contains(told_place.to_str().unwrap()), "{told}");
    }
    assert!(
        matches!(error, PlanError::OtherInput { .. }) && told.contains("--input-moved"),
        "{told}"
    );
    assert_eq!(store.list(paths::PLANS).unwrap().len(), 1);

    // Said once, it holds for both places.
    let moved = append(&store, &at(&second, true), &[video("a", 1)], 100).unwrap();
    assert_eq!(keys(&moved.shards), [["a"]]);
    append(&store, &at(&second, true), &[], 100).unwrap();
    assert_eq!(store.list(paths::PLANS).unwrap().len(), 2, "recorded once");
    for known in [&first, &second] {
        append(&store, &at(known, false), &[], 100).unwrap();
    }
    append(&store, &at(&second, false), &[video("b", 1)], 100).unwrap();
    assert_eq!(
        read(&store).unwrap().places.last().unwrap().root,
        second.as_path().into()
    );
}

#[test]
fn videos_beside_one_that_has_rows_and_is_planned_again_are_planned_for_a_copy() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let videos: Vec<_> = (0..4).map(|n| video(&format!("v{n}"), 50)).collect();
    let first = append(&store, &here(), &videos, 1_000).unwrap().shards;
    let old = first[0].id.clone();
    // v3 failed and was tried again before: it has no rows there.
    again_in(&store, vec![(1, videos[3].clone())], BTreeSet::new());
    let retired = BTreeSet::from([old.clone()]);
    let again = vec![(1, videos[1].clone())];
    let mut planner = planner_in(&store, 1_000);
    planner.retire(retired.clone());
    assert_eq!(
        planner.append(again.clone(), false).unwrap(),
        again,
        "all in one piece"
    );
    assert_eq!(planner.shards().len(), 2);
    let planned = again_in(&store, again.clone(), retired.clone());
    assert_eq!(
        keys(&planned[2..]),
        [vec!["v0", "v2"], vec!["v1"]],
        "the copy comes first"
    );
    assert_eq!((planned[2].attempt, &planned[2].copy_of), (1, &Some(old)));
    assert_eq!(planned[3].copy_of, None);
    let alone = cut(vec![(1, videos[0].clone()), (1, videos[2].clone())], 1_000);
    assert_ne!(planned[2].id, alone[0].id, "a copy is another part");
    assert_eq!(again_in(&store, again, retired), planned);
    assert_eq!(read_all(&store).unwrap(), planned);
}

#[test]
fn pieces_of_any_size_and_kills_between_them_give_the_shards_of_one_plan() {
    let length = |n: u64| [7, 0, 30, 101, 12, 55][n as usize % 6] + n % 3;
    let new: Vec<_> = (0..60)
        .map(|n| (0, video(&format!("v{n:02}"), length(n))))
        .collect();
    let again: Vec<_> = (0..20)
        .map(|n| (1, video(&format!("v{n:02}"), length(n))))
        .collect();
    let at_once = tempfile::tempdir().unwrap();
    let mut planner = planner_in(&Store::open(at_once.path()).unwrap(), 100);
    for videos in [&new, &again] {
        assert_eq!(planner.append(videos.clone(), true).unwrap(), []);
    }
    let expected = planner.into_plans().shards;
    assert!(expected.len() > 20);
    for (piece, killed) in [(1, false), (1, true), (7, false), (7, true), (23, true)] {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        for videos in [&new, &again] {
            let mut planner = planner_in(&store, 100);
            let mut waiting = Vec::new();
            for piece in videos.chunks(piece) {
                waiting.extend(piece.iter().cloned());
                waiting = planner.append(waiting, false).unwrap();
                if killed {
                    // The next run probes again what no plan holds.
                    planner = planner_in(&store, 100);
                    let due = |(attempt, video): &&(u32, PlannedVideo)| planner.times(&video.key) == *attempt;
                    let probed = videos
                        .iter()
                        .take_while(|(_, video)| video.key <= piece.last().unwrap().1.key);
                    waiting = probed.filter(due).cloned().collect();
                }
            }
            assert_eq!(planner.append(waiting, true).unwrap(), []);
        }
        assert_eq!(
            read_all(&store).unwrap(),
            expected,
            "pieces of {piece}, killed: {killed}"
        );
        assert!(store.list(paths::PLANS).unwrap().len() > 2);
    }
}

#[test]
fn two_who_plan_in_pieces_at_the_same_time_end_with_the_shards_of_one_plan() {
    let videos: Vec<_> = (0..300)
        .map(|n| (0, video(&format!("v{n:03}"), n % 40)))
        .collect();
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let gate = Barrier::new(2);
    std::thread::scope(|scope| {
        for size in [11, 17] {
            let (videos, store, gate) = (&videos, &store, &gate);
            scope.spawn(move || {
                let mut planner = planner_in(store, 100);
                let mut waiting = Vec::new();
                gate.wait();
                for piece in videos.chunks(size) {
                    waiting.extend(piece.iter().cloned());
                    waiting = planner.append(waiting, false).unwrap();
                }
                assert_eq!(planner.append(waiting, true).unwrap(), []);
            });
        }
    });
    let new = videos.into_iter().map(|(_, video)| video).collect();
    assert_eq!(read_all(&store).unwrap(), make(new, &BTreeSet::new(), 100));
}
