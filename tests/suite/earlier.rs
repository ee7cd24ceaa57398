//! `mode = "from_labels"`: new models over the faces that an earlier run found.

use super::common::*;
use std::fs;
use std::path::Path;

const VIDEOS: [&str; 3] = ["carphone_pristine.mp4", "face_noface.mov", "single_face.mp4"];

fn project() -> Project {
    let project = Project::with_models(&["mini_xception"]).detecting();
    for name in VIDEOS {
        fs::copy(video(name), project.videos().join(name)).unwrap();
    }
    project
}

/// A job of its own on the same videos, with another model if wanted.
fn relabel(project: &Project, kind: &str, output: &str, labels: &Path, sets: &[&str], code: i32) -> String {
    let job = project.dir.path().join(format!("{output}.toml"));
    let text = format!(
        "[input]\nuri = \"videos\"\n[faces]\nmode = \"from_labels\"\nlabels = {labels:?}\n\
         [[models]]\nname = \"mini_xception\"\nkind = \"{kind}\"\nweights = {:?}\n[output]\nuri = \"{output}\"\n",
        weights(kind)
    );
    fs::write(&job, text).unwrap();
    let mut command = affectmill();
    command.arg("run").arg(job);
    for set in sets {
        command.args(["--set", set]);
    }
    let done = command.output().unwrap();
    assert_eq!(done.status.code(), Some(code), "{}", stderr(&done));
    stderr(&done)
}

#[test]
fn the_same_model_over_the_same_faces_says_the_same() {
    let project = project();
    project.run("found", &[], 0);
    // Another cut into shards, so that videos lie in other parts than before.
    relabel(
        &project,
        "mini_xception",
        "again",
        &project.output("found"),
        &["output.shard_frames=1000"],
        0,
    );
    let (found, again) = (project.output("found"), project.output("again"));
    let all = |output: &Path| {
        let values = floats(output, "mini_xception_expr_Anger");
        let mut all: Vec<_> = rows(output).into_iter().zip(values).collect();
        all.sort_by_key(|(row, _)| (row.video.clone(), row.frame, row.face));
        all
    };
    assert!(all(&found) == all(&again));
    assert_eq!(
        all(&found).iter().filter(|(_, value)| value.is_some()).count(),
        120 + 72 + 72
    );

    // Without a detector, and with any number of workers, to the byte.
    let sets = ["output.shard_frames=1000", "run.workers=3", "run.batch=5"];
    relabel(&project, "mini_xception", "many", &found, &sets, 0);
    assert_same_labels(&again, &project.output("many"));
    // Faces that were taken over can be taken over again.
    relabel(&project, "mini_xception", "chain", &again, &[], 0);
    assert!(all(&again) == all(&project.output("chain")));
}

#[test]
fn what_does_not_match_is_refused() {
    let project = project();
    let found = project.output("found");
    project.run("found", &[], 0);

    let error = relabel(
        &project,
        "mini_xception",
        "a",
        &found,
        &["sampling.mode=keyframes"],
        2,
    );
    assert!(
        error.contains("must match one to one") && error.contains("[sampling]"),
        "{error}"
    );
    let error = relabel(&project, "mini_xception", "b", &project.videos(), &[], 4);
    assert!(
        error.contains("is no label set") || error.contains("videos"),
        "{error}"
    );
    let success = found.join("_SUCCESS");
    fs::rename(&success, found.join("gone")).unwrap();
    let error = relabel(&project, "mini_xception", "c", &found, &[], 2);
    assert!(error.contains("it is not finished"), "{error}");
    fs::rename(found.join("gone"), &success).unwrap();

    // One video is another one now, one is new, one is what it was.
    let videos = project.videos();
    fs::copy(video("no_face.mp4"), videos.join("carphone_pristine.mp4")).unwrap();
    fs::copy(video("no_face.mp4"), videos.join("new.mp4")).unwrap();
    let error = relabel(&project, "mini_xception", "d", &found, &[], 3);
    assert!(error.contains("so it is another video"), "{error}");
    assert!(error.contains("the earlier run did not label it"), "{error}");
    let kept = |name: &str| {
        let of = |output: &Path| {
            rows(output)
                .into_iter()
                .filter(|row| row.video == name)
                .collect::<Vec<_>>()
        };
        assert!(of(&found) == of(&project.output("d")), "{name}");
    };
    kept("face_noface.mov");
    kept("single_face.mp4");
    assert_eq!(rows(&project.output("d")).len(), 169 + 72);
    fs::remove_file(videos.join("new.mp4")).unwrap();
    fs::copy(
        video("carphone_pristine.mp4"),
        videos.join("carphone_pristine.mp4"),
    )
    .unwrap();

    // As long as before to the byte, but with other times: a video whose rate was changed in its header.
    let path = videos.join("single_face.mp4");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(4).position(|word| word == b"mdhd").unwrap();
    bytes[at + 16..at + 20].copy_from_slice(&7_777_u32.to_be_bytes());
    fs::write(&path, bytes).unwrap();
    let error = relabel(&project, "mini_xception", "e", &found, &[], 3);
    assert!(
        error.contains("µs and was at") && error.contains("single_face.mp4"),
        "{error}"
    );
    let kept = rows(&project.output("e"));
    assert!(
        kept.iter().all(|row| row.video != "single_face.mp4"),
        "frame 0 alone would match"
    );
    assert_eq!(kept.len(), 120 + 169);

    // A part that was tampered with.
    let part = fs::read_dir(found.join("labels"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mut bytes = fs::read(&part).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&part, bytes).unwrap();
    let error = relabel(&project, "mini_xception", "f", &found, &[], 3);
    assert!(error.contains("is not what its commit record says"), "{error}");
}
