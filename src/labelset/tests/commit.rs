//! Commits under accidents: crashes between part and record, races, foreign parts, a disk that is full.

use crate::commit::{CommitError, Committed, Files, Tally, commit, read_all, verify};
use crate::plan;
use crate::plan::{Planner, Plans};
use crate::rows::{Content, Row, RowWriter};
use crate::schema::LabelSchema;
use crate::{
    CommitRecord, InputPlace, PartInfo, PlannedVideo, RECORD_VERSION, ShardPlan, StageSeconds, VideoOutcome,
    VideoStatus, paths,
};
use affectmill_base::SourceKind;
use affectmill_base::{Face, Fingerprint, FrameIndex, ModelKind, Rect, ShardId, VideoKey};
use affectmill_spec::ModelRecord;
use affectmill_spec::Values;
use affectmill_store::{Put, Store};
use std::path::Path;
use std::process::Command;
use std::sync::Barrier;
use tempfile::NamedTempFile;

/// Video → (frames without a face, frames with one).
type Videos = &'static [(&'static str, u64, u64)];
const VIDEOS: Videos = &[("a.mp4", 2, 3), ("b.mp4", 0, 4)];

fn fingerprint(seed: u8) -> Fingerprint {
    Fingerprint::from_digest(&[seed; 32])
}

fn open(root: &Path) -> Store {
    Store::open(root).unwrap()
}

/// One attempt at a shard: its part, and the record that describes it. `value` is what the model says.
fn attempt(store: &Store, seed: u8, videos: Videos, value: f32) -> (NamedTempFile, CommitRecord) {
    let model = ModelRecord {
        name: "m".into(),
        kind: ModelKind::TeacherVa.into(),
        outputs: Vec::new(),
        sha256: "00".into(),
        also: Vec::new(),
        flip: false,
        architecture: "a".into(),
        preprocessing: "p".into(),
        precision: Default::default(),
        untrained: false,
    };
    let schema = LabelSchema::new(&[model], Values::Both, &fingerprint(seed));
    let part = store.scratch_file("part").unwrap();
    let mut writer = RowWriter::create(part.path(), &schema).unwrap();
    let face = Face {
        index: 0,
        track: None,
        rect: Rect {
            x: 0.0,
            y: 0.0,
            w: 1.0,
            h: 1.0,
        },
        score: None,
        landmarks: None,
    };
    let mut outcomes = Vec::new();
    for &(key, without, with) in videos {
        let key = VideoKey::new(key).unwrap();
        for frame in 0..without + with {
            let outputs: &[&[f32]] = &[&[value, frame as f32]];
            let content = if frame < without {
                Content::NoFace
            } else {
                Content::Face { face: &face, outputs }
            };
            let row = Row {
                video: &key,
                frame: FrameIndex(frame),
                timestamp: None,
                content,
            };
            writer.push(&row).unwrap();
        }
        outcomes.push(VideoOutcome {
            frames: without + with,
            rows: without + with,
            faces: with,
            seconds: 0.5,
            ..VideoOutcome::new(key)
        });
    }
    let record = CommitRecord {
        version: RECORD_VERSION,
        shard: ShardId::from_digest(&[0xab; 32]),
        fingerprint: fingerprint(seed),
        part: writer.finish().unwrap(),
        crops: None,
        videos: outcomes,
        device: None,
        retired: None,
        seconds: StageSeconds::default(),
    };
    (part, record)
}

fn only_record(store: &Store) -> CommitRecord {
    let records: Vec<_> = read_all(store).unwrap().into_values().collect();
    assert_eq!(records.len(), 1);
    verify(store, &records[0]).unwrap();
    records[0].clone()
}

fn scratch_is_empty(store: &Store) -> bool {
    std::fs::read_dir(store.path("_affectmill/tmp").as_local().unwrap())
        .unwrap()
        .next()
        .is_none()
}

#[test]
fn a_commit_is_made_once_and_may_be_repeated() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let (part, record) = attempt(&store, 1, VIDEOS, 0.5);
    assert_eq!(
        commit(&store, Files { part, crops: None }, record.clone()).unwrap(),
        Committed::New(record.clone())
    );
    assert_eq!(only_record(&store), record);
    // A second delivery, with other timings.
    let (part, mut again) = attempt(&store, 1, VIDEOS, 0.5);
    again.seconds.total = 99.0;
    assert_eq!(
        commit(&store, Files { part, crops: None }, again).unwrap(),
        Committed::Adopted(record.clone())
    );
    // Even one whose rows differ: the first stands.
    let (part, other) = attempt(&store, 1, VIDEOS, 0.25);
    assert_eq!(
        commit(&store, Files { part, crops: None }, other).unwrap(),
        Committed::Adopted(record.clone())
    );
    assert_eq!(only_record(&store), record);
    assert!(scratch_is_empty(&store));
}

#[test]
fn a_crash_between_part_and_record_is_mended() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let (part, record) = attempt(&store, 1, VIDEOS, 0.5);
    let key = paths::part(&record.shard);
    assert_eq!(store.put_new_file(&key, part).unwrap(), Put::Created);
    assert!(read_all(&store).unwrap().is_empty());
    let (part, record) = attempt(&store, 1, VIDEOS, 0.5);
    assert_eq!(
        commit(&store, Files { part, crops: None }, record.clone()).unwrap(),
        Committed::Adopted(record.clone())
    );
    assert_eq!(only_record(&store), record);
}

#[test]
fn a_part_with_other_numbers_is_adopted_as_it_is() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let (part, theirs) = attempt(&store, 1, VIDEOS, 0.25);
    assert_eq!(
        store.put_new_file(&paths::part(&theirs.shard), part).unwrap(),
        Put::Created
    );
    let (part, ours) = attempt(&store, 1, VIDEOS, 0.5);
    assert_ne!(ours.part.sha256, theirs.part.sha256);
    assert_eq!(
        commit(&store, Files { part, crops: None }, ours).unwrap(),
        Committed::Adopted(theirs.clone())
    );
    assert_eq!(only_record(&store), theirs);
}

#[test]
fn a_part_with_other_rows_is_recounted() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let (part, theirs) = attempt(&store, 1, &[("a.mp4", 1, 1)], 0.5);
    assert_eq!(
        store.put_new_file(&paths::part(&theirs.shard), part).unwrap(),
        Put::Created
    );
    let (part, ours) = attempt(&store, 1, VIDEOS, 0.5);
    let Committed::Adopted(record) = commit(&store, Files { part, crops: None }, ours).unwrap() else {
        panic!("the part was there before");
    };
    assert_eq!(record.part, theirs.part);
    let counted: Vec<_> = record
        .videos
        .iter()
        .map(|video| (video.status, video.rows, video.faces))
        .collect();
    assert_eq!(
        counted,
        [(VideoStatus::Partial, 2, 1), (VideoStatus::Failed, 0, 0)]
    );
    assert!(
        record
            .videos
            .iter()
            .all(|video| video.error.as_ref().unwrap().contains("adopted"))
    );
    assert_eq!(only_record(&store), record);
}

#[test]
fn of_two_committers_one_wins_and_both_get_its_record() {
    for round in 0..20 {
        let root = tempfile::tempdir().unwrap();
        let store = open(root.path());
        // The devices of the two do not agree to the last bit.
        let attempts = [0.5, 0.25].map(|value| attempt(&store, 1, VIDEOS, value));
        let sums = attempts.each_ref().map(|(_, record)| record.part.sha256.clone());
        let gate = Barrier::new(2);
        let results: Vec<Committed> = std::thread::scope(|scope| {
            let threads = attempts.map(|(part, record)| {
                let (store, gate) = (&store, &gate);
                scope.spawn(move || {
                    gate.wait();
                    commit(store, Files { part, crops: None }, record).unwrap()
                })
            });
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let record = only_record(&store);
        assert!(sums.contains(&record.part.sha256), "round {round}");
        assert!(
            results.iter().all(|result| *result.record() == record),
            "round {round}: {results:?}"
        );
        let new = results
            .iter()
            .filter(|result| matches!(result, Committed::New(_)))
            .count();
        assert!(new <= 1, "round {round}");
        assert!(scratch_is_empty(&store));
    }
}

#[test]
fn a_part_that_is_none_of_ours_is_refused_and_left() {
    let (root, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, elsewhere) = (open(root.path()), open(scratch.path()));
    let whole = std::fs::read(attempt(&elsewhere, 1, VIDEOS, 0.25).0.path()).unwrap();
    let other_job = std::fs::read(attempt(&elsewhere, 2, VIDEOS, 0.5).0.path()).unwrap();
    let other_videos = std::fs::read(attempt(&elsewhere, 1, &[("c.mp4", 1, 0)], 0.5).0.path()).unwrap();
    let cases: [(&[u8], &str); 5] = [
        (b"", "no whole Parquet file"),
        (
            b"garbage that is long enough to hold a footer",
            "no whole Parquet file",
        ),
        (&whole[..whole.len() - 9], "no whole Parquet file"),
        (&other_job, "labelled under fingerprint 0202"),
        (&other_videos, "rows of `c.mp4`"),
    ];
    for (bytes, expected) in cases {
        let (part, record) = attempt(&store, 1, VIDEOS, 0.5);
        let key = paths::part(&record.shard);
        store.replace(&key, bytes).unwrap();
        let error = commit(&store, Files { part, crops: None }, record).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, CommitError::Stranger { .. }), "{message}");
        assert!(message.contains(expected) && message.contains(&key), "{message}");
        assert!(message.contains("delete it and run again"), "{message}");
        assert_eq!(store.get(&key).unwrap().unwrap(), bytes, "it is left as it was");
        assert!(read_all(&store).unwrap().is_empty());
    }
}

#[test]
fn a_record_without_its_part_or_of_another_job_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let (part, record) = attempt(&store, 1, VIDEOS, 0.5);
    commit(&store, Files { part, crops: None }, record.clone()).unwrap();
    let (part, other) = attempt(&store, 2, VIDEOS, 0.5);
    let error = commit(&store, Files { part, crops: None }, other).unwrap_err();
    assert!(matches!(error, CommitError::Fingerprint { .. }), "{error}");
    store.delete(&paths::part(&record.shard)).unwrap();
    let (part, again) = attempt(&store, 1, VIDEOS, 0.5);
    let error = commit(&store, Files { part, crops: None }, again).unwrap_err();
    assert!(error.to_string().contains("is missing although"), "{error}");
}

const ROOM: &str = "AFFECTMILL_TEST_FULL_DISK";

/// What the child of the test below does; on its own it does nothing.
#[test]
fn child_with_little_room() {
    let Some(root) = std::env::var_os(ROOM) else {
        return;
    };
    let store = open(Path::new(&root));
    // The part fits into the room, its record (padded by a long error) does not.
    let (part, mut record) = attempt(&store, 1, VIDEOS, 0.5);
    record.videos[0].error = Some("x".repeat(200_000));
    let error = commit(&store, Files { part, crops: None }, record).unwrap_err();
    assert!(error.to_string().contains("ulimit -f"), "{error}");
    assert!(!error.is_transient());
    // And a file that does not fit at all.
    let error = store
        .put_new("labels/part-big.parquet", &[1; 200_000])
        .unwrap_err();
    assert!(error.to_string().contains("ulimit -f"), "{error}");
}

/// A file size limit stands in for a full disk: both fail a write half-way, and this needs no rights.
#[test]
fn without_room_nothing_half_written_gets_a_name() {
    let root = tempfile::tempdir().unwrap();
    let child = Command::new("bash")
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 64; exec \"$0\" --exact tests::commit::child_with_little_room --nocapture",
        ])
        .arg(std::env::current_exe().unwrap())
        .env(ROOM, root.path())
        .output()
        .unwrap();
    let said = [child.stdout, child.stderr]
        .map(|text| String::from_utf8_lossy(&text).into_owned())
        .concat();
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
    let store = Store::open_existing(root.path()).unwrap();
    assert!(read_all(&store).unwrap().is_empty());
    assert_eq!(
        store.list(paths::LABELS).unwrap().len(),
        1,
        "the whole part, without a record"
    );
    assert!(scratch_is_empty(&store));
    // With room again the run goes on.
    let (part, record) = attempt(&store, 1, VIDEOS, 0.5);
    assert_eq!(
        commit(&store, Files { part, crops: None }, record.clone()).unwrap(),
        Committed::Adopted(record)
    );
    only_record(&store);
}

/// A video as it was planned.
fn planned(key: &str) -> PlannedVideo {
    PlannedVideo {
        key: VideoKey::new(key).unwrap(),
        kind: SourceKind::File,
        bytes: 1,
        etag: String::new(),
        frames: 10,
        duration_us: 0,
        archive: None,
        unreadable: None,
    }
}

/// The commit record of a shard whose videos all ended so, with ten rows each where they have any.
fn record_of(shard: &ShardPlan, status: VideoStatus) -> CommitRecord {
    let rows = if status == VideoStatus::Ok { 10 } else { 0 };
    let outcome = |video: &PlannedVideo| VideoOutcome {
        status,
        rows,
        error: (status != VideoStatus::Ok).then(|| "broken".into()),
        ..VideoOutcome::new(video.key.clone())
    };
    CommitRecord {
        device: None,
        retired: None,
        version: RECORD_VERSION,
        shard: shard.id.clone(),
        fingerprint: fingerprint(1),
        part: PartInfo {
            rows: rows * shard.videos.len() as u64,
            bytes: 1,
            sha256: "0".repeat(64),
        },
        crops: None,
        videos: shard.videos.iter().map(outcome).collect(),
        seconds: StageSeconds::default(),
    }
}

fn write_record(store: &Store, record: &CommitRecord) {
    let text = serde_json::to_vec(record).unwrap();
    store.replace(&paths::commit(&record.shard), &text).unwrap();
}

fn here() -> plan::Origin {
    let place = InputPlace {
        uri: Path::new("/in").into(),
        root: Path::new("/in").into(),
    };
    plan::Origin { place, moved: false }
}

/// Shards done, rows, videos that are not ok.
fn said(tally: Tally) -> (usize, u64, usize) {
    (
        tally.totals().shards_done,
        tally.rows(),
        tally.into_not_ok().len(),
    )
}

#[test]
fn a_tally_says_what_the_records_say_and_a_kept_one_as_well() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let videos: Vec<PlannedVideo> = (0..1_200).map(|n| planned(&format!("{n:04}"))).collect();
    // Two videos to a shard.
    let plans = plan::append(&store, &here(), &videos, 20).unwrap();
    assert_eq!(plans.shards.len(), 600);
    let of_plans = |plans: &Plans| Tally::of_plans(&store, &plans.shards, plans.count as usize).unwrap();
    for shard in &plans.shards[..100] {
        write_record(&store, &record_of(shard, VideoStatus::Ok));
    }
    let mut tally = of_plans(&plans);
    tally.keep(&store).unwrap();
    assert!(Tally::of_kept(&store).unwrap().is_none(), "not worth it");
    for shard in &plans.shards[100..300] {
        write_record(&store, &record_of(shard, VideoStatus::Failed));
    }
    tally.catch_up(&store).unwrap();
    tally.keep(&store).unwrap();
    let kept = || said(Tally::of_kept(&store).unwrap().expect("a kept tally"));
    assert_eq!(said(tally), (300, 2_000, 400));
    assert_eq!(kept(), (300, 2_000, 400));

    // What came since, what is gone, and what is another record now.
    write_record(&store, &record_of(&plans.shards[300], VideoStatus::Ok));
    assert_eq!(kept(), (301, 2_020, 400));
    store.delete(&paths::commit(&plans.shards[0].id)).unwrap();
    assert_eq!(kept(), (300, 2_000, 400));
    write_record(&store, &record_of(&plans.shards[100], VideoStatus::Ok));
    assert_eq!(kept(), (300, 2_020, 398));
    // A record of a shard that no plan has counts for nothing.
    let mut stranger = record_of(&plans.shards[1], VideoStatus::Ok);
    stranger.shard = ShardId::from_digest(&[9; 8]);
    write_record(&store, &stranger);
    assert_eq!(kept(), (300, 2_020, 398));
    assert_eq!(said(of_plans(&plans)), kept());

    // Of videos that are tried again the latest attempt counts, once it is committed.
    let again: Vec<_> = plans.shards[101]
        .videos
        .iter()
        .map(|video| (1, video.clone()))
        .collect();
    let mut planner = Planner::new(store.clone(), plans.clone(), here(), 20).unwrap();
    planner.append(again, true).unwrap();
    let more = planner.into_plans();
    assert!(Tally::of_kept(&store).unwrap().is_none(), "of other plans");
    let tally = of_plans(&more);
    assert_eq!((tally.totals().videos, tally.totals().shards), (1_200, 601));
    assert_eq!(said(tally), (300, 2_020, 396));
    write_record(&store, &record_of(more.shards.last().unwrap(), VideoStatus::Ok));
    assert_eq!(said(of_plans(&more)), (301, 2_040, 396));

    // A file that is no tally is none.
    of_plans(&more).keep(&store).unwrap();
    assert!(Tally::of_kept(&store).unwrap().is_some());
    store.replace(paths::TALLY, b"no tally").unwrap();
    assert!(Tally::of_kept(&store).unwrap().is_none());
    assert_eq!(said(of_plans(&more)), (301, 2_040, 396));
}
