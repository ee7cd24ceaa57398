use super::*;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

fn input(uri: &Path) -> Input {
    toml::from_str(&format!("uri = {:?}", uri.to_str().unwrap())).unwrap()
}

fn access() -> Access {
    Access::of_environment()
}

fn find(uri: &Path) -> Result<Discovery, DiscoverError> {
    discover(&input(uri), &access())
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
    ];
    fill(root.path(), &names);
    fill(
        root.path(),
        &[
            ".hidden.mp4",
            ".git/x.mp4",
            "_work/x.mp4",
            "_x.mp4",
            "notes.txt",
            "mp4",
            "a/photo.jpg",
        ],
    );
    let found = find(root.path()).unwrap();
    let mut expected = names.to_vec();
    expected.sort_by_key(|name| name.as_bytes());
    assert_eq!(keys(&found), expected);
    assert!(found.skipped.is_empty(), "{:?}", found.skipped);
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
fn an_output_inside_the_input_is_passed_over() {
    let root = tempfile::tempdir().unwrap();
    fill(
        root.path(),
        &["a.mp4", "out/_affectmill/job.json", "out/labels/x.mp4"],
    );
    assert_eq!(keys(&find(root.path()).unwrap()), ["a.mp4"]);
    // Labels written into the input folder itself leave its videos where they are.
    fill(root.path(), &["_affectmill/job.json"]);
    assert_eq!(keys(&find(root.path()).unwrap()), ["a.mp4"]);
}

#[test]
fn a_single_file_is_taken_whatever_its_name() {
    let root = tempfile::tempdir().unwrap();
    fill(root.path(), &["_clip.bin"]);
    let found = find(&root.path().join("_clip.bin")).unwrap();
    assert_eq!(
        (keys(&found), found.root.as_local().unwrap()),
        (vec!["_clip.bin"], root.path())
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
    let skipped: Vec<_> = found
        .skipped
        .iter()
        .map(|skip| (skip.path.as_local().unwrap().to_path_buf(), skip.reason.as_str()))
        .collect();
    assert_eq!(skipped.len(), 2, "{skipped:?}");
    assert_eq!(skipped[0].0, root.path().join("dangling.mp4"));
    assert!(skipped[0].1.contains("No such file"), "{skipped:?}");
    assert_eq!(skipped[1].0, root.path().join("in/loop"));
    assert!(skipped[1].1.contains("link back to"), "{skipped:?}");
}

#[test]
fn names_that_are_not_utf8_are_skipped_with_a_reason() {
    let root = tempfile::tempdir().unwrap();
    fill(root.path(), &["a.mp4"]);
    fs::write(root.path().join(OsString::from_vec(b"caf\xe9.mp4".to_vec())), b"").unwrap();
    let found = find(root.path()).unwrap();
    assert_eq!(keys(&found), ["a.mp4"]);
    assert_eq!(found.skipped.len(), 1);
    assert!(found.skipped[0].reason.contains("not UTF-8"));
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
    assert_eq!(found.skipped.len(), 1);
    assert!(
        found.skipped[0].path.to_string().ends_with("thumbs")
            && found.skipped[0].reason.contains("thumbnails")
    );
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
    assert_eq!(found.skipped.len(), 1);
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
        &["a.txt", "b.txt", "c.rmvb", "LICENSE", ".hidden.mp4"],
    );
    let empty = message(root.path());
    assert!(
        empty.contains("4 other files (2 .txt, 1 without extension, 1 .rmvb)"),
        "{empty}"
    );
    assert!(empty.contains("[input] extensions"), "{empty}");
    let mut wider = input(root.path());
    wider.extensions.push("RMVB".into());
    assert_eq!(keys(&discover(&wider, &access()).unwrap()), ["c.rmvb"]);
}
