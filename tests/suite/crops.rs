//! `[output] crops = "webdataset"`: the faces that the models saw, beside the labels.

use super::common::*;
use parquet::file::reader::{FileReader, SerializedFileReader};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Reads the shards with the package `webdataset`, and holds every sample against the row of its key in the labels (read
/// by Polars), and some crops against OpenCV's of the frame that ffmpeg converts to RGB. Prints samples and the mean
/// difference in grey levels.
const READ: &str = r#"
import glob, json, subprocess, sys
import cv2, numpy as np, polars as pl, webdataset as wds
output, videos = sys.argv[1:]
labels = pl.read_parquet(output + "/labels/*.parquet", glob=True).filter(pl.col("status") == "ok")
rows = {(row["video"], row["frame"], row["face"]): row for row in labels.iter_rows(named=True)}
template = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])
template = (template + 0.5) * 128 / 112 - 0.5
frames = {}
def frame(video, number):
    if video not in frames:
        command = ["ffmpeg", "-v", "error", "-i", f"{videos}/{video}", "-vf", "scale=flags=accurate_rnd+full_chroma_int+bilinear"]
        command += ["-fps_mode", "passthrough", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
        raw = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        size = subprocess.run(["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "stream=width,height",
            "-of", "json", f"{videos}/{video}"], check=True, stdout=subprocess.PIPE).stdout
        stream = json.loads(size)["streams"][0]
        frames[video] = np.frombuffer(raw, np.uint8).reshape(-1, stream["height"], stream["width"], 3)
    return frames[video][number]
seen, off = 0, []
shards = sorted(glob.glob(output + "/crops/*.tar"))
for sample in wds.WebDataset(shards, shardshuffle=False).decode("rgb8"):
    found = sample["json"]
    row = rows.pop((found["video"], found["frame"], found["face"]))
    assert sample["__key__"] == f"{found['video']}/{found['frame']:09}-{found['face']:03}", sample["__key__"]
    assert found.pop("crop") == "arcface112" and len(found.pop("fingerprint")) == 64
    assert row.pop("status") == "ok"
    assert list(found) == list(row), (list(found), list(row))
    for name, value in row.items():
        if isinstance(value, float):
            assert np.float32(value) == np.float32(found[name]), (name, value, found[name])
        elif name == "landmarks":
            assert np.array_equal(np.float32(value), np.float32(found[name]))
        else:
            assert value == found[name], (name, value, found[name])
    crop = sample["jpg"]
    assert crop.shape == (128, 128, 3), crop.shape
    if seen % 10 == 0:
        points = np.array(row["landmarks"]).reshape(5, 2)
        mean, goal = points.mean(0), template.mean(0)
        s, d = points - mean, template - goal
        s, d = s[:, 0] + 1j * s[:, 1], d[:, 0] + 1j * d[:, 1]
        turn = (s.conj() * d).sum() / (abs(s) ** 2).sum()
        matrix = np.array([[turn.real, -turn.imag, 0], [turn.imag, turn.real, 0]])
        matrix[:, 2] = goal - matrix[:, :2] @ mean
        expected = cv2.warpAffine(frame(row["video"], row["frame"]), matrix, (128, 128))
        off.append(abs(crop.astype(float) - expected).mean())
    seen += 1
assert not rows, f"{len(rows)} rows have no crop"
print(seen, np.mean(off), np.max(off))
"#;

fn project(kinds: &[&str]) -> Project {
    let project = Project::with_models(kinds).detecting();
    for name in ["single_face.mp4", "face_noface.mov"] {
        fs::copy(video(name), project.videos().join(name)).unwrap();
    }
    project
}

#[test]
fn webdataset_reads_every_face_with_the_labels_of_its_row() {
    let project = project(&["student", "mini_xception"]);
    project.run("out", &["output.crops=webdataset"], 0);
    let mut python = Command::new(python());
    python
        .args(["-c", READ])
        .arg(project.output("out"))
        .arg(project.videos());
    let printed = succeed(&mut python);
    let numbers: Vec<f64> = printed.split_whitespace().map(|n| n.parse().unwrap()).collect();
    println!("samples, mean and largest difference of a crop to OpenCV's: {printed}");
    assert_eq!(numbers[0], 72.0 + 72.0);
    // Two grey levels as for crops before JPEG; at quality 95 JPEG adds about one.
    assert!(numbers[1] < 2.0 && numbers[2] < 3.0, "{printed}");
    let listed = fs::read_to_string(project.output("out").join("_affectmill/manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let samples = manifest["crops"].as_array().unwrap().iter();
    assert_eq!(
        samples.map(|shard| shard["rows"].as_u64().unwrap()).sum::<u64>(),
        144
    );
}

#[test]
fn crops_have_the_same_bytes_whoever_dies() {
    let project = project(&["mini_xception"]).synthetic(4, 20);
    let sets = [
        "output.crops=webdataset",
        "output.crop_quality=80",
        "output.shard_frames=60",
    ];
    project.run("calm", &sets, 0);
    project.run(
        "workers",
        &[&sets[..], &["run.workers=3", "run.batch=7"]].concat(),
        0,
    );
    let crops = |output: &str| tree(&project.output(output).join("crops"));
    let calm = crops("calm");
    assert!(calm.len() >= 3);
    assert_eq!(
        calm.keys().collect::<Vec<_>>(),
        crops("workers").keys().collect::<Vec<_>>()
    );
    assert!(calm == crops("workers"));

    let mut dice = Dice::new();
    for _ in 0..if soak() { 40 } else { 3 } {
        let running = project.start("stormy", &sets);
        std::thread::sleep(std::time::Duration::from_millis(300 + dice.roll(5_000)));
        running.signal("KILL");
        running.wait();
    }
    project.run("stormy", &sets, 0);
    assert!(calm == crops("stormy"));
    assert_same_labels(&project.output("calm"), &project.output("stormy"));

    // The record of a shard is lost: what lies there is adopted, byte for byte.
    let output = project.output("stormy");
    let commits = output.join("_affectmill/commits");
    let info = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap()["crops"].clone();
    let has_faces = |path: &std::path::PathBuf| info(&fs::read_to_string(path).unwrap())["rows"] != 0;
    let records = fs::read_dir(&commits).unwrap().map(|entry| entry.unwrap().path());
    let record = records.into_iter().find(has_faces).unwrap();
    let before = fs::read_to_string(&record).unwrap();
    fs::remove_file(&record).unwrap();
    project.run("stormy", &sets, 0);
    assert_eq!(info(&before), info(&fs::read_to_string(&record).unwrap()));
    assert!(calm == crops("stormy"));

    // Crops of another making, and those of another job, are not taken for ours.
    let crop = output.join(format!(
        "crops/part-{}.tar",
        record.file_stem().unwrap().to_str().unwrap()
    ));
    fs::remove_file(&record).unwrap();
    let others = fs::read(&crop).unwrap();
    let ours = b"\"fingerprint\":\"";
    let at = others
        .windows(ours.len())
        .position(|found| found == ours)
        .unwrap()
        + ours.len();
    let mut others = others;
    others[at] = if others[at] == b'0' { b'1' } else { b'0' };
    for (stranger, why) in [
        (b"not a tar".to_vec(), "no whole tar"),
        (others, "labelled under fingerprint"),
    ] {
        fs::write(&crop, stranger).unwrap();
        let error = stderr(&project.run("stormy", &sets, 4));
        assert!(
            error.contains(crop.to_str().unwrap()) && error.contains("delete it") && error.contains(why),
            "{error}"
        );
    }
    fs::remove_file(&crop).unwrap();
    project.run("stormy", &sets, 0);
    assert!(calm == crops("stormy"));
}

#[test]
fn a_later_job_labels_the_crops_of_an_earlier_one() {
    let project = project(&["mini_xception"]);
    project.run("out", &["output.crops=webdataset"], 0);
    let out = project.output("out");
    let full_frame = |name: &str, input: &std::path::Path, code: i32| {
        let job = project.dir.path().join("crops.toml");
        let text = format!(
            "[input]\nuri = {input:?}\n[faces]\nmode = \"full_frame\"\n[[models]]\nname = \"mini_xception\"\n\
             kind = \"mini_xception\"\nweights = {:?}\n[output]\nuri = {name:?}\n",
            weights("mini_xception")
        );
        fs::write(&job, text).unwrap();
        let done = affectmill().arg("run").arg(job).output().unwrap();
        assert_eq!(done.status.code(), Some(code), "{}", stderr(&done));
        stderr(&done)
    };
    full_frame("again", &out.join("crops"), 0);
    let again = project.output("again");
    let faces = |output: &std::path::Path| {
        let logits = floats(output, "mini_xception_expr_Happiness");
        let rows = rows(output).into_iter().zip(logits);
        let mut faces: Vec<(Row, f32)> = rows.filter_map(|(row, logit)| Some((row, logit?))).collect();
        faces.sort_by_key(|(row, _)| (row.video.clone(), row.frame, row.face));
        faces
    };
    let (first, second) = (faces(&out), faces(&again));
    // A frame without a face has no crop; every face has the row it had, key, time, track, box and landmarks included.
    assert_eq!(first.len(), 144);
    assert!(
        first
            .iter()
            .map(|face| &face.0)
            .eq(second.iter().map(|face| &face.0))
    );
    assert_eq!(rows(&again).len(), 144);
    // What JPEG changed is small beside what tells faces apart.
    let mean = |values: &mut dyn Iterator<Item = f32>| values.sum::<f32>() / 144.0;
    let middle = mean(&mut first.iter().map(|face| face.1));
    let spread = mean(&mut first.iter().map(|face| (face.1 - middle).abs()));
    let off = mean(&mut first.iter().zip(&second).map(|(a, b)| (a.1 - b.1).abs()));
    println!("logits vary by {spread:.4} on average; from crops they are {off:.4} off");
    assert!(off < spread / 4.0, "{off} of {spread}");

    // One crop's bytes are spoilt, and one box is beyond what 32 bits hold: their frames say so, the others stay. The end of the
    // archive is missing too. A tar file of something else lies beside it.
    let spoilt = project.dir.path().join("spoilt");
    fs::create_dir(&spoilt).unwrap();
    let shard = fs::read_dir(out.join("crops"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mut bytes = fs::read(&shard).unwrap();
    let find = |bytes: &[u8], what: &[u8], from: usize| {
        let at = bytes[from..].windows(what.len()).position(|found| found == what);
        from + at.unwrap()
    };
    let at = find(&bytes, &[0xff, 0xd8, 0xff], 0);
    bytes[at..at + 64].fill(0);
    let at = find(&bytes, b"\"box_x\":", bytes.len() / 2) + 8;
    let end = find(&bytes, b",", at);
    bytes[at..end].fill(b' ');
    bytes[at..at + 4].copy_from_slice(b"1e39");
    fs::write(spoilt.join("a.tar"), &bytes[..bytes.len() - 1024]).unwrap();
    fs::write(spoilt.join("notes.txt"), "no crops").unwrap();
    let tar = ["-cf", "other.tar", "notes.txt"];
    succeed(Command::new("tar").current_dir(&spoilt).args(tar));
    let told = full_frame("partial", &spoilt, 3);
    assert!(told.contains("the tar file is cut off"), "{told}");
    let partial = rows(&project.output("partial"));
    let damaged = partial.iter().filter(|row| row.status == "decode_error");
    assert_eq!((damaged.count(), partial.len()), (2, 72));

    // The same crops twice: which ones count is not for us to choose.
    fs::copy(&shard, spoilt.join("b.tar")).unwrap();
    let told = full_frame("twice", &spoilt, 2);
    assert!(told.contains("lie in several tar files"), "{told}");

    // Packed again, and named by itself.
    let packed = project.dir.path().join("packed");
    fs::create_dir(&packed).unwrap();
    let unpack = ["-xf", shard.to_str().unwrap()];
    succeed(Command::new("tar").current_dir(&packed).args(unpack));
    let file = project.dir.path().join("packed.tar");
    let pack = ["-cf", file.to_str().unwrap(), "."];
    succeed(Command::new("tar").current_dir(&packed).args(pack));
    full_frame("repacked", &file, 0);
    let repacked = rows(&project.output("repacked"));
    assert_eq!(repacked.len(), 72);
    let before = rows(&again);
    assert!(repacked.iter().all(|row| before.contains(row)));
    let told = full_frame("no_crops", &spoilt.join("other.tar"), 2);
    assert!(told.contains("not one of crops"), "{told}");

    // Crops of another recipe, and a job that would look for faces in crops.
    let square = project.dir.path().join("square.safetensors");
    let import = ["import-weights", weights("mini_xception").to_str().unwrap()].map(String::from);
    succeed(
        affectmill()
            .args(import)
            .args(["--crop", "square", "-o"])
            .arg(&square),
    );
    let other = format!("models.mini_xception.weights={square:?}");
    let job = project.dir.path().join("crops.toml");
    full_frame("of", &out.join("crops"), 0);
    let set = ["--set", &other, "--set", "output.uri=\"elsewhere\""];
    let done = affectmill()
        .current_dir(project.dir.path())
        .arg("run")
        .arg(job)
        .args(set)
        .output()
        .unwrap();
    let told = stderr(&done);
    assert_eq!(done.status.code(), Some(3), "{told}");
    assert!(told.contains("trained on faces cropped by `square`"), "{told}");
    let crops = format!("input.uri={:?}", out.join("crops"));
    let error = stderr(&project.run("none", &[&crops], 2));
    assert!(error.contains("mode = \"full_frame\""), "{error}");
}

/// Members of the tar files in a folder, by name.
fn members(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut members = BTreeMap::new();
    for shard in tree(folder).keys().filter(|name| name.ends_with(".tar")) {
        let mut archive = tar::Archive::new(fs::File::open(folder.join(shard)).unwrap());
        for member in archive.entries().unwrap() {
            let mut member = member.unwrap();
            let name = member.path().unwrap().to_str().unwrap().to_owned();
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut member, &mut bytes).unwrap();
            assert!(members.insert(name, bytes).is_none());
        }
    }
    members
}

#[test]
fn crops_of_crops_keep_their_recipe_and_their_bytes() {
    let project = project(&["mini_xception"]);
    let sets = [
        "output.crops=webdataset",
        "sampling.mode=stride",
        "sampling.stride=24",
    ];
    project.run("out", &sets, 0);
    let detecting = fs::read_to_string(project.job()).unwrap();
    // Each generation is labelled from the crops of the one before, at another quality.
    let job = |input: &Path| {
        let model = &detecting[detecting.find("[[models]]").unwrap()..];
        let faces = "[faces]\nmode = \"full_frame\"\n";
        fs::write(
            project.job(),
            format!("[input]\nuri = {input:?}\n{faces}{model}crops = \"webdataset\"\ncrop_quality = 50\n"),
        )
        .unwrap();
    };
    let first = members(&project.output("out/crops"));
    assert_eq!(first.len(), 2 * 6);
    let mut input = project.output("out/crops");
    for generation in ["second", "third"] {
        job(&input);
        project.run(generation, &[], 0);
        input = project.output(generation).join("crops");
        let found = members(&input);
        assert!(found.keys().eq(first.keys()));
        for (name, bytes) in &found {
            if name.ends_with(".jpg") {
                assert!(bytes == &first[name], "{name} was encoded again");
            } else {
                let json: serde_json::Value = serde_json::from_slice(bytes).unwrap();
                assert_eq!(json["crop"], "arcface112", "{name}");
            }
        }
        let parts = tree(&project.output(generation).join("labels"));
        let part = project
            .output(generation)
            .join("labels")
            .join(parts.keys().next().unwrap());
        let reader = SerializedFileReader::new(fs::File::open(part).unwrap()).unwrap();
        let pairs = reader
            .metadata()
            .file_metadata()
            .key_value_metadata()
            .unwrap()
            .clone();
        let recipes = pairs.into_iter().find(|pair| pair.key == "affectmill.cropped_by");
        assert_eq!(recipes.unwrap().value.unwrap(), "[\"arcface112\"]");
    }

    // Weights of another recipe are refused over either.
    let square = project.output("square.safetensors");
    let mut import = affectmill();
    import
        .arg("import-weights")
        .arg(weights("mini_xception"))
        .args(["--crop", "square", "-o"])
        .arg(&square);
    succeed(&mut import);
    let square = format!("models.mini_xception.weights={square:?}");
    for generation in ["out", "third"] {
        job(&project.output(generation).join("crops"));
        let told = stderr(&project.run(&format!("{generation}_square"), &[&square], 3));
        assert!(
            told.contains("cropped by `arcface112`") && told.contains("trained on faces cropped by `square`"),
            "{told}"
        );
        assert!(rows(&project.output(&format!("{generation}_square"))).is_empty());
    }

    // What an export and a training make of the last states the recipe too, and a job that detects faces takes it.
    let mut export = affectmill();
    export
        .arg("export")
        .arg(project.output("third"))
        .args(["--format", "webdataset", "-o"])
        .arg(project.output("exported"));
    succeed(&mut export);
    let exported = members(&project.output("exported"));
    let json = exported
        .iter()
        .find(|(name, _)| name.ends_with(".json"))
        .unwrap()
        .1;
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(json).unwrap()["crop"],
        "arcface112"
    );
    let train = "[train]\nrecipe = \"teacher\"\ntask = \"expr\"\nepochs = 1\nepoch_share = 1.0\nbatch = 16\ntrainable_layers = 0\n\
                 [data]\ncrops = \"third/crops\"\nexpr_teacher = \"mini_xception\"\n[validation]\nshare = 0.5\n\
                 [output]\npath = \"model\"\n[run]\ndevice = \"cpu\"\nthreads = 1\n";
    fs::write(project.output("train.toml"), train).unwrap();
    succeed(affectmill().arg("train").arg(project.output("train.toml")));
    fs::write(
        project.job(),
        detecting.replace("kind = \"mini_xception\"", "kind = \"teacher_expr\""),
    )
    .unwrap();
    let student = format!(
        "models.mini_xception.weights={:?}",
        project.output("model/best.safetensors")
    );
    project.run("student", &[&sets[1..], &[&student]].concat(), 0);

    // One face states another recipe than the others of its video: it is not labelled as they are.
    let mixed = project.output("mixed");
    fs::create_dir(&mixed).unwrap();
    for shard in tree(&project.output("out/crops")).keys() {
        let mut bytes = fs::read(project.output("out/crops").join(shard)).unwrap();
        let stated = b"\"crop\":\"arcface112\"";
        let at = bytes
            .windows(stated.len())
            .rposition(|found| found == stated)
            .unwrap();
        bytes[at..at + stated.len()].copy_from_slice(b"\"crop\":\"square\"    ");
        fs::write(mixed.join(shard), bytes).unwrap();
    }
    job(&mixed);
    let told = stderr(&project.command("mixed_out", &[]).output().unwrap());
    assert!(
        told.contains("states the crop `square`, and that of the video's first face `arcface112`"),
        "{told}"
    );
}
