mod listing;

use super::*;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::{Duration, SystemTime};

fn input(uri: &Path) -> Input {
    toml::from_str(&format!("uri = {:?}", uri.to_str().unwrap())).unwrap()
}

fn access() -> Access {
    Access::of_environment()
}

fn find(uri: &Path) -> Result<Discovery, DiscoverError> {
    discover(&input(uri), &|_| false, &access())
}

/// Kinds that were passed over, as `kind name count`.
fn passed(found: &Discovery) -> Vec<String> {
    let kind = |one: &PassedOver| {
        serde_json::to_value(one.kind)
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned()
    };
    let passed = found.passed_over.iter();
    let mut passed: Vec<_> = passed
        .map(|one| format!("{} {} {}", kind(one), one.name, one.count))
        .collect();
    passed.sort();
    passed
}

fn unseen(found: &Discovery) -> Vec<(&str, &str)> {
    let places = found.unseen.first.iter();
    places
        .map(|place| (place.path.as_str(), place.reason.as_str()))
        .collect()
}

fn path_of(found: &Discovery, source: &Source) -> PathBuf {
    source_path(&found.root, &source.key).as_local().unwrap().into()
}

fn fill(root: &Path, names: &[&str]) {
    for name in names {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
}

fn keys(found: &Discovery) -> Vec<&str> {
    found.sources.iter().map(|source| source.key.as_str()).collect()
}

fn planned(source: &Source) -> PlannedVideo {
    PlannedVideo {
        key: source.key.clone(),
        kind: source.kind,
        bytes: source.bytes,
        etag: source.etag.clone(),
        frames: 0,
        duration_us: 0,
        archive: None,
        unreadable: None,
    }
}

#[test]
fn a_folder_is_searched_through_and_sorted_by_the_bytes_of_the_key() {
    let root = tempfile::tempdir().unwrap();
    let names = [
        "b.mp4",
        "a/z.MKV",
        "a b#%.Mp4",
        "a/deep/er/é.mov",
        "B.mp4",
        "a.mp4",
        "a-b/x.webm",
        "_x.mp4",
        "-Zx9.mp4",
        "id00012/_raOc3x/00110.mp4",
    ];
    fill(root.path(), &names);
    let found = find(root.path()).unwrap();
    let mut expected = names.to_vec();
    expected.sort_by_key(|name| name.as_bytes());
    assert_eq!(keys(&found), expected);
    assert_eq!((passed(&found), unseen(&found)), (vec![], vec![]));
    for source in &found.sources {
        let path = path_of(&found, source);
        assert_eq!(fs::read(&path).unwrap(), source.key.as_str().as_bytes());
        assert_eq!(source.bytes, source.key.as_str().len() as u64);
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let ns = modified
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_nanos();
        assert_eq!(source.etag, ns.to_string());
    }
}

#[test]
fn what_is_no_video_is_counted_by_kind() {
    let root = tempfile::tempdir().unwrap();
    fill(
        root.path(),
        &[
            "a.mp4",
            ".hidden.mp4",
            ".git/x.mp4",
            ".Trash-1000/files/x.mp4",
            "x/@eaDir/a.mp4/thumb.jpg",
            "x/@eaDir/b.mp4",
            "@eaDir/c.mp4",
            "#recycle/x.mp4",
            "$RECYCLE.BIN/x.mp4",
            "lost+found/x.mp4",
            "notes.txt",
            "more.TXT",
            "mp4",
            "a/photo.jpg",
            "intro.bik",
            "code.ts",
            "go.mod",
            "other/_affectmill/job.json",
            "other/labels/x.mp4",
        ],
    );
    assert!(
        Command::new("mkfifo")
            .arg(root.path().join("pipe.mp4"))
            .status()
            .unwrap()
            .success()
    );
    let found = find(root.path()).unwrap();
    assert_eq!(keys(&found), ["a.mp4"]);
    let expected = [
        "deleted #recycle 1",
        "deleted $RECYCLE.BIN 1",
        "deleted .Trash-1000 1",
        "extension  1",
        "extension jpg 1",
        "extension txt 2",
        "hidden  2",
        "labels  1",
        "no_video mod 1",
        "no_video ts 1",
        "preview @eaDir 2",
        "special  1",
        "system lost+found 1",
        "video bik 1",
    ];
    assert_eq!(passed(&found), expected);
    assert_eq!(unseen(&found), []);
}

#[test]
fn a_video_that_is_planned_stays_one_whatever_its_name() {
    let root = tempfile::tempdir().unwrap();
    fill(root.path(), &["a.mp4", "code.ts", "clip.bin", "other.bin"]);
    let planned = ["code.ts", "clip.bin"].map(|key| VideoKey::new(key).unwrap());
    let found = discover(&input(root.path()), &|key| planned.contains(key), &access()).unwrap();
    assert_eq!(keys(&found), ["a.mp4", "clip.bin", "code.ts"]);
    assert_eq!(passed(&found), ["extension bin 1"]);
}

#[test]
fn an_output_inside_the_input_is_passed_over() {
    let root = tempfile::tempdir().unwrap();
    fill(
        root.path(),
        &["a.mp4", "out/_affectmill/job.json", "out/labels/x.mp4"],
    );
    let found = find(root.path()).unwrap();
    assert_eq!(
        (keys(&found), passed(&found)),
        (vec!["a.mp4"], vec!["labels  1".into()])
    );
    // Labels written into the input folder itself leave its videos where they are.
    fill(root.path(), &["_affectmill/job.json"]);
    let found = find(root.path()).unwrap();
    assert_eq!(
        (keys(&found), passed(&found)),
        (vec!["a.mp4"], vec!["labels  2".into()])
    );
}

#[test]
fn a_single_file_is_taken_whatever_its_name() {
    let root = tempfile::tempdir().unwrap();
    fill(root.path(), &[".clip.bin"]);
    let found = find(&root.path().join(".clip.bin")).unwrap();
    assert_eq!(
        (keys(&found), found.root.as_local().unwrap()),
        (vec![".clip.bin"], root.path())
    );
}

#[test]
fn links_are_followed_and_loops_end() {
    let root = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    fill(root.path(), &["in/a.mp4"]);
    fill(elsewhere.path(), &["far/b.mp4"]);
    symlink(elsewhere.path().join("far"), root.path().join("in/far")).unwrap();
    symlink(elsewhere.path().join("far/b.mp4"), root.path().join("c.mp4")).unwrap();
    symlink(root.path(), root.path().join("in/loop")).unwrap();
    symlink("nowhere.mp4", root.path().join("dangling.mp4")).unwrap();
    symlink("nowhere", root.path().join(".#lock")).unwrap();
    let found = find(root.path()).unwrap();
    assert_eq!(keys(&found), ["c.mp4", "in/a.mp4", "in/far/b.mp4"]);
    let dangling = root.path().join("dangling.mp4").display().to_string();
    assert_eq!(unseen(&found).len(), 1, "{:?}", found.unseen);
    assert_eq!(unseen(&found)[0].0, dangling);
    assert!(
        unseen(&found)[0].1.contains("what is not there"),
        "{:?}",
        found.unseen
    );
    assert_eq!(passed(&found), ["hidden  1", "loop  1"]);
}

#[test]
fn names_that_are_not_utf8_are_told_as_unseen() {
    let root = tempfile::tempdir().unwrap();
    fill(root.path(), &["a.mp4"]);
    fs::write(root.path().join(OsString::from_vec(b"caf\xe9.mp4".to_vec())), b"").unwrap();
    let found = find(root.path()).unwrap();
    assert_eq!(keys(&found), ["a.mp4"]);
    assert_eq!(unseen(&found).len(), 1);
    assert!(unseen(&found)[0].1.contains("not UTF-8"));
}

#[test]
fn folders_of_numbered_images_are_videos() {
    let root = tempfile::tempdir().unwrap();
    fill(
        root.path(),
        &[
            "s/v1/00001.jpg",
            "s/v1/00003.JPG",
            "s/v1/cover.jpg",
            "s/v1/notes.txt",
            "s/v2/7.png",
        ],
    );
    fill(root.path(), &["thumbs/1.mp4", "thumbs/1.jpg", "s/clip.mp4"]);
    let found = find(root.path()).unwrap();
    assert_eq!(keys(&found), ["s/clip.mp4", "s/v1", "s/v2", "thumbs/1.mp4"]);
    let kinds: Vec<_> = found.sources.iter().map(|source| source.kind).collect();
    use SourceKind::{File, Images};
    assert_eq!(kinds, [File, Images, Images, File]);
    assert_eq!(
        found.sources[1].bytes,
        ("s/v1/00001.jpg".len() + "s/v1/00003.JPG".len()) as u64
    );
    assert_eq!(found.sources[1].etag.len(), 16);
    assert_eq!(
        passed(&found),
        ["extension jpg 1", "extension txt 1", "thumbnails  1"]
    );
    assert_eq!(found.passed_over[0].first, "thumbs");
}

#[test]
fn the_input_itself_may_be_a_folder_of_images() {
    let root = tempfile::tempdir().unwrap();
    let whole = root.path().canonicalize().unwrap();
    fill(&whole, &["person/00001.jpg", "person/00002.jpg"]);
    for uri in [
        whole.join("person"),
        whole.join("person/."),
        whole.join("person/../person"),
    ] {
        let found = find(&uri).unwrap();
        assert_eq!(
            (keys(&found), found.root.as_local().unwrap()),
            (vec!["person"], whole.as_path())
        );
        let source = &found.sources[0];
        assert!(same(&path_of(&found, source), &planned(source)).unwrap());
    }
    // With videos below it, it is a collection, and keys stay relative to it.
    fill(&whole, &["person/more/a.mp4"]);
    let found = find(&whole.join("person")).unwrap();
    assert_eq!(keys(&found), ["more/a.mp4"]);
    assert_eq!(passed(&found), ["images  1"]);
}

#[test]
fn changes_after_planning_are_seen() {
    let root = tempfile::tempdir().unwrap();
    fill(root.path(), &["a.mp4", "v/1.jpg", "v/2.jpg", "v/x.txt"]);
    let found = find(root.path()).unwrap();
    let check = |at: usize| {
        let source = &found.sources[at];
        same(&path_of(&found, source), &planned(source))
    };
    assert!(check(0).unwrap() && check(1).unwrap());
    fill(root.path(), &["v/y.txt"]);
    assert!(check(1).unwrap(), "other files beside the images do not matter");
    let touched = SystemTime::now() + Duration::from_secs(5);
    for name in ["a.mp4", "v/2.jpg"] {
        let file = fs::File::options()
            .write(true)
            .open(root.path().join(name))
            .unwrap();
        file.set_modified(touched).unwrap();
    }
    assert!(!check(0).unwrap() && !check(1).unwrap());
    fs::remove_file(root.path().join("a.mp4")).unwrap();
    assert!(check(0).unwrap_err().to_string().contains("a.mp4"));
}

#[test]
fn nothing_to_label_is_an_error_that_says_what_was_seen() {
    let root = tempfile::tempdir().unwrap();
    let message = |uri: &Path| find(uri).unwrap_err().to_string();
    let missing = message(&root.path().join("none"));
    assert!(
        missing.contains("none") && missing.contains("No such file"),
        "{missing}"
    );
    assert!(message(root.path()).contains("no other file either"));
    fill(
        root.path(),
        &["a.txt", "b.txt", "c.bik", "LICENSE", ".hidden.mp4"],
    );
    let empty = message(root.path());
    for expected in [
        "1 file of .bik (videos that [input] extensions does not name)",
        "1 hidden name",
        "2 files of .txt, 1 file without extension",
        "[input] extensions",
    ] {
        assert!(empty.contains(expected), "{empty}");
    }
    let mut wider = input(root.path());
    wider.extensions.push("BIK".into());
    assert_eq!(keys(&discover(&wider, &|_| false, &access()).unwrap()), ["c.bik"]);
}
