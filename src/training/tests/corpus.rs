//! Faces, labels, split and order.

use crate::corpus::Corpus;
use crate::labels::Human;
use crate::loader;
use crate::loader::{Draw, Loader};
use affectmill_spec::{TrainJob, load_train};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// Aff-Wild2's folders: images of four videos, two of them recordings of one person, and annotations.
fn affwild(folder: &Path) {
    for (video, images) in [("a", 3), ("b_left", 2), ("b_right", 2), ("c", 1)] {
        let images = (1..=images).map(|n| format!("faces/{video}/{n:05}.jpg"));
        for image in images {
            let path = folder.join(image);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
    }
    for (file, text) in [
        (
            "VA_Set/Train_Set/a.txt",
            "valence,arousal\n0.5,-0.25\n-5,-5\n0.1,0.2\n",
        ),
        ("VA_Set/Train_Set/b_left.txt", "valence,arousal\n0,0\n0,0\n"),
        ("VA_Set/Validation_Set/c.txt", "valence,arousal\n1,1\n"),
        (
            "EXPR_Set/Train_Set/a.txt",
            "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise\n4\n-1\n-1\n",
        ),
        (
            "EXPR_Set/Validation_Set/b_right.txt",
            "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise\n1\n2\n",
        ),
    ] {
        let path = folder.join("annotations").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn job(folder: &Path, sets: &[&str]) -> TrainJob {
    let text = "[train]\nrecipe = \"student\"\n[data]\nimages = \"faces\"\nannotations = \"annotations\"\n[output]\npath = \"out\"\n";
    fs::write(folder.join("job.toml"), text).unwrap();
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    load_train(&folder.join("job.toml"), &sets).unwrap()
}

#[test]
fn people_label_the_frames_that_their_rows_are_about() {
    let folder = tempfile::tempdir().unwrap();
    affwild(folder.path());
    let corpus = Corpus::read(&job(
        folder.path(),
        &["validation.by=videos", "validation.videos=[\"c\"]"],
    ))
    .unwrap();
    assert_eq!(corpus.videos, ["a", "b_left", "b_right", "c"]);
    assert_eq!(corpus.crop(), None);
    let found: Vec<(usize, u64, Human)> = corpus
        .samples
        .iter()
        .map(|s| (s.video, s.frame, s.labels.human))
        .collect();
    let human = |va: Option<[f32; 2]>, expr| Human { va, expr, au: None };
    let expected = [
        (0, 0, human(Some([0.5, -0.25]), Some(4))),
        // Frame 1 has no valid label and is left out.
        (0, 2, human(Some([0.1, 0.2]), None)),
        (1, 0, human(Some([0.0, 0.0]), None)),
        (1, 1, human(Some([0.0, 0.0]), None)),
        (2, 0, human(None, Some(1))),
        (2, 1, human(None, Some(2))),
        (3, 0, human(Some([1.0, 1.0]), None)),
    ];
    assert_eq!(found, expected);
    assert_eq!(corpus.held_out, [false, false, false, true]);
    assert_eq!((corpus.side(true), corpus.side(false).len()), (vec![6], 6));
    assert!(
        corpus
            .warnings
            .iter()
            .any(|warning| warning.contains("action units")),
        "{:?}",
        corpus.warnings
    );
}

#[test]
fn recordings_of_one_person_never_stand_on_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    affwild(folder.path());
    let read = |sets: &[&str]| Corpus::read(&job(folder.path(), sets));
    let refused = |sets: &[&str]| read(sets).err().unwrap().to_string();
    let leak = refused(&["validation.by=videos", "validation.videos=[\"b_left\"]"]);
    assert!(
        leak.starts_with("a leak") && leak.contains("`b_right` is trained on"),
        "{leak}"
    );
    // In ABAW2 the sets of different tasks overlap.
    let leak = refused(&["validation.by=annotations"]);
    assert!(leak.starts_with("a leak") && leak.contains("`b`"), "{leak}");
    let unknown = refused(&["validation.by=videos", "validation.videos=[\"d\"]"]);
    assert!(
        unknown.contains("names `d`") && unknown.contains("b_left"),
        "{unknown}"
    );
    for share in ["0.01", "0.3", "0.5", "0.9"] {
        let corpus = read(&[&format!("validation.share={share}")]).unwrap();
        assert_eq!(corpus.held_out[1], corpus.held_out[2], "share {share}");
        let sides: BTreeSet<bool> = corpus.held_out.iter().copied().collect();
        assert_eq!(sides.len(), 2, "share {share}");
    }
}

#[test]
fn a_video_of_one_name_for_every_subject_is_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: String, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    for (subject, set) in [
        ("s1", "Train_Set"),
        ("s2", "Train_Set"),
        ("s3", "Validation_Set"),
        ("s4", "Test_Set"),
    ] {
        write(format!("faces/{subject}/video/00001.jpg"), "");
        write(
            format!("annotations/VA/{set}/{subject}/video.txt"),
            &format!("valence,arousal\n0.{},0\n", &subject[1..]),
        );
    }
    write("annotations/README.txt".into(), "Whom to cite.\n");
    let valence = |corpus: &Corpus| -> Vec<Option<[f32; 2]>> {
        corpus
            .samples
            .iter()
            .map(|sample| sample.labels.human.va)
            .collect()
    };
    for (by, held_out) in [("annotations", vec![false, false, true]), ("share", vec![])] {
        let corpus = Corpus::read(&job(folder.path(), &[&format!("validation.by={by}")])).unwrap();
        // What people said of the test set is not learnt from.
        assert_eq!(corpus.videos, ["s1/video", "s2/video", "s3/video"]);
        assert_eq!(
            valence(&corpus),
            [0.1, 0.2, 0.3].map(|valence| Some([valence, 0.0]))
        );
        assert!(
            held_out.is_empty() || corpus.held_out == held_out,
            "{:?}",
            corpus.held_out
        );
        for words in [
            "videos of one name in different folders",
            "README.txt (`Whom to cite.`",
            "the test set",
        ] {
            assert!(
                corpus.warnings.iter().any(|warning| warning.contains(words)),
                "{:?}",
                corpus.warnings
            );
        }
    }
    let sets = ["validation.by=videos", "validation.videos=[\"s2/video\"]"];
    let corpus = Corpus::read(&job(folder.path(), &sets)).unwrap();
    assert_eq!(corpus.held_out, [false, true, false]);
}

#[test]
fn names_are_held_against_annotations_however_accents_are_stored() {
    let folder = tempfile::tempdir().unwrap();
    affwild(folder.path());
    let (composed, decomposed) = ("caf\u{e9}", "cafe\u{301}");
    fs::rename(
        folder.path().join("faces/c"),
        folder.path().join("faces").join(decomposed),
    )
    .unwrap();
    let annotations = folder.path().join("annotations/VA_Set/Validation_Set");
    fs::rename(
        annotations.join("c.txt"),
        annotations.join(format!("{composed}.txt")),
    )
    .unwrap();
    let sets = [
        "validation.by=videos",
        &format!("validation.videos=[{composed:?}]"),
    ];
    let corpus = Corpus::read(&job(folder.path(), &sets)).unwrap();
    assert_eq!(corpus.videos[3], decomposed);
    assert_eq!(corpus.samples[6].labels.human.va, Some([1.0, 1.0]));
    assert_eq!(corpus.held_out, [false, false, false, true]);
}

#[test]
fn two_videos_of_one_name_are_two_and_annotations_of_it_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    affwild(folder.path());
    for (video, image) in [("x/d", 1), ("y/d", 2), ("x/a", 1)] {
        let path = folder.path().join(format!("faces/{video}/{image:05}.jpg"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    let held_out = ["validation.by=videos", "validation.videos=[\"c\"]"];
    let refusal = || {
        let read = Corpus::read(&job(folder.path(), &held_out));
        read.map(|_| ()).unwrap_err().to_string()
    };
    let said = refusal();
    assert!(
        said.starts_with("the annotations of `a` fit `a` and `x/a`;") && said.contains("rename one of them"),
        "{said}"
    );
    fs::remove_dir_all(folder.path().join("faces/x/a")).unwrap();
    // Nobody annotated `d`: neither is learnt from, and neither is in the way.
    let corpus = Corpus::read(&job(folder.path(), &held_out)).unwrap();
    assert_eq!(corpus.videos, ["a", "b_left", "b_right", "c"]);
    fs::write(
        folder.path().join("annotations/VA_Set/Train_Set/d.txt"),
        "valence,arousal\n0,0\n0,0\n",
    )
    .unwrap();
    let said = refusal();
    assert!(
        said.starts_with("the annotations of `d` fit `x/d` and `y/d`;"),
        "{said}"
    );
}

#[test]
fn an_epoch_shows_every_face_once_in_an_order_of_its_own() {
    let samples: Vec<usize> = (100..150).collect();
    let order = |seed, epoch, share| loader::epoch(&samples, seed, epoch, 8, share, 0.5);
    let faces =
        |epoch: &[Vec<Draw>]| -> Vec<usize> { epoch.iter().flatten().map(|draw| draw.sample).collect() };
    let first = order(1, 0, 1.0);
    assert_eq!(
        first.iter().map(Vec::len).collect::<Vec<_>>(),
        [8, 8, 8, 8, 8, 8, 2]
    );
    let mut sorted = faces(&first);
    sorted.sort();
    assert_eq!(sorted, samples);
    assert_eq!(first, order(1, 0, 1.0));
    assert_ne!(faces(&first), faces(&order(1, 1, 1.0)));
    assert_ne!(faces(&first), faces(&order(2, 0, 1.0)));
    let mirrored = first.iter().flatten().filter(|draw| draw.mirrored).count();
    assert!((10..40).contains(&mirrored), "{mirrored} of 50");
    assert_eq!(order(1, 0, 0.25), first[..2]);
    let never = loader::epoch(&samples, 1, 0, 8, 1.0, 0.0);
    assert!(never.iter().flatten().all(|draw| !draw.mirrored));
}

#[test]
fn a_damaged_picture_is_named() {
    let folder = tempfile::tempdir().unwrap();
    affwild(folder.path());
    let corpus = Arc::new(Corpus::read(&job(folder.path(), &[])).unwrap());
    let mut loader = Loader::start(&corpus, loader::in_order(&[1], 4), 2).unwrap();
    let error = loader.next().err().unwrap().to_string();
    assert!(
        error.contains("faces/a/00003.jpg") && error.contains("`a` frame 2") && error.contains("empty"),
        "{error}"
    );
}

/// A shard of crops: for each frame of a video, what a teacher said of its face.
fn shard(path: &Path, video: &str, said: &[serde_json::Value]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut tar = tar::Builder::new(fs::File::create(path).unwrap());
    for (frame, said) in said.iter().enumerate() {
        for (ending, bytes) in [("jpg", b"jpeg".to_vec()), ("json", said.to_string().into_bytes())] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            let name = format!("{video}/{frame:09}-000.{ending}");
            tar.append_data(&mut header, name, bytes.as_slice()).unwrap();
        }
    }
    tar.finish().unwrap();
}

#[test]
fn a_face_for_which_the_teacher_gave_no_numbers_has_no_label_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("set");
    let said = |valence: Option<f64>| serde_json::json!({"t_valence": valence, "t_arousal": valence});
    let faces = [said(Some(0.5)), said(None), said(Some(-0.25))];
    shard(&set.join("crops/part-0.tar"), "v.mp4", &faces);
    shard(&set.join("crops/part-1.tar"), "w.mp4", &faces[..1]);
    let text = "[train]\nrecipe = \"teacher\"\ntask = \"va\"\n[data]\ncrops = \"set/crops\"\nva_teacher = \"t\"\n\
                [validation]\nby = \"videos\"\nvideos = [\"w.mp4\"]\n[output]\npath = \"out\"\n";
    fs::write(folder.path().join("job.toml"), text).unwrap();
    let read = || Corpus::read(&load_train(&folder.path().join("job.toml"), &[]).unwrap()).unwrap();
    let labels: Vec<(u64, Option<[f32; 2]>)> = read()
        .samples
        .iter()
        .filter(|sample| sample.video == 0)
        .map(|sample| (sample.frame, sample.labels.teacher.va))
        .collect();
    assert_eq!(labels, [(0, Some([0.5, 0.5])), (2, Some([-0.25, -0.25]))]);

    // Crops of a run that is not finished are said to be, as soon as they lie in one.
    let unfinished = || {
        read()
            .warnings
            .iter()
            .any(|warning| warning.contains("not finished"))
    };
    assert!(!unfinished());
    fs::create_dir(set.join("_affectmill")).unwrap();
    fs::write(set.join("_affectmill/job.json"), "{}").unwrap();
    assert!(unfinished());
    fs::write(set.join("_SUCCESS"), "").unwrap();
    assert!(!unfinished());
}
