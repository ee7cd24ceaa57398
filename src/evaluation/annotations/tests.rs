use super::*;
use std::fs;

fn read_text(name: &str, text: &str) -> Result<Annotations, AnnotationError> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(name), text).unwrap();
    read(&folder.path().join(name), Split::All)
}

#[test]
fn headers_are_read_as_people_write_them() {
    let other =
        "\u{feff}Neutral, Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other,\r\n7\r\n-1\r\n4, \r\n\r\n";
    let read = read_text("v.txt", other).unwrap();
    let person = &read.persons["v"];
    let classes: Vec<_> = person
        .frames
        .iter()
        .map(|(n, truth)| (*n, truth.expression))
        .collect();
    assert_eq!(classes, [(0, Some(OTHER)), (2, Some(4))]);
    assert_eq!(person.invalid, [0, 1, 0]);

    let eight = "AU01,AU02,AU04,AU06,AU12,AU15,AU20,AU25\n1,0,0,1,0,0,1,1\n1,0,0,-1,0,0,1,1\n";
    let read = read_text("v.txt", eight).unwrap();
    assert_eq!(read.unknown_units, ["AU20"]);
    let units = read.persons["v"].frames[&0].units.unwrap();
    let known: Vec<_> = (0..12).map(|unit| units.get(unit)).collect();
    let (y, n, no) = (Some(true), Some(false), None);
    assert_eq!(known, [y, n, n, y, no, no, n, n, no, no, y, no]);
    assert_eq!(read.persons["v"].invalid, [0, 0, 1]);
}

#[test]
fn either_invalid_value_masks_the_frame() {
    let read = read_text(
        "v.txt",
        "valence,arousal\n0.5,-0.25\n-5,0.1\n0.1,-5\n-5.0,-5.0\n1,-1\n",
    )
    .unwrap();
    let frames = &read.persons["v"].frames;
    assert_eq!(frames.keys().collect::<Vec<_>>(), [&0, &4]);
    assert_eq!(frames[&0].va, Some([0.5, -0.25]));
    assert_eq!(read.persons["v"].invalid, [3, 0, 0]);
}

#[test]
fn the_single_file_names_its_frames() {
    let text = "image,valence,arousal,expression,aus\n\
                a_left/00003.jpg,0.1,-0.2,7,0,0,1,0,0,0,0,0,0,0,0,1\n\
                b/00001.jpg,-5,-5,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1\n";
    let read = read_text("train.txt", text).unwrap();
    let truth = read.persons["a_left"].frames[&2];
    assert_eq!((truth.va, truth.expression), (Some([0.1, -0.2]), Some(7)));
    assert_eq!(
        truth.units,
        Some(Units {
            annotated: 0xfff,
            active: 0b1000_0000_0100
        })
    );
    assert_eq!(read.persons["b"].invalid, [1, 1, 1]);
}

#[test]
fn what_cannot_be_read_is_named_by_file_and_line() {
    let says = |text: &str, expected: &str| {
        let error = read_text("v.txt", text).unwrap_err().to_string();
        assert!(error.contains("v.txt`:") && error.contains(expected), "{error}");
    };
    says("frame,label\n", ":1: `frame,label` heads no annotations");
    says("", ":1: `` heads no annotations");
    says("valence,arousal\n0.1\n", ":2: 1 values, expected 2");
    says("valence,arousal\n0.1,0.2\n0.1,x\n", ":3: `x` is no number");
    says("valence,arousal\n0.1,1.5\n", ":2: 1.5 is neither");
    says("valence,arousal\n0.1,0.5\n\n0.1,0.5\n", ":3: an empty line");
    says("Neutral,Anger\n2\n", ":2: expression 2 is neither");
    says("AU1,AU2\n1,2\n", ":2: action unit 2 is neither");
    says(
        "image,valence,arousal,expression,aus\n1.jpg,0,0,0\n",
        ":2: 4 values, expected 16",
    );
}

/// Writes files below a folder.
fn write(folder: &Path, files: &[(&str, &[u8])]) {
    for (name, bytes) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

fn persons(read: &Annotations) -> Vec<&str> {
    read.persons.keys().map(String::as_str).collect()
}

const VA: &[u8] = b"valence,arousal\n0.5,0\n";

#[test]
fn a_split_takes_its_folders() {
    let folder = tempfile::tempdir().unwrap();
    for (set, value) in [
        ("Train_Set", "0.1"),
        ("Validation_Set", "0.2"),
        ("TestSet", "0.3"),
    ] {
        let text = format!("valence,arousal\n{value},0\n");
        write(
            folder.path(),
            &[(&format!("VA_Set/{set}/v.txt"), text.as_bytes())],
        );
    }
    let valence = |split| read(folder.path(), split).map(|read| read.persons["v"].frames[&0].va.unwrap()[0]);
    assert_eq!(valence(Split::Train).unwrap(), 0.1);
    assert_eq!(valence(Split::Validation).unwrap(), 0.2);
    assert_eq!(valence(Split::Test).unwrap(), 0.3);
    let twice = valence(Split::All).unwrap_err().to_string();
    assert!(twice.contains("Validation_Set/v.txt` annotates"), "{twice}");
    let left_out = read(folder.path(), Split::Train).unwrap().left_out;
    assert_eq!(left_out, LeftOut::from([("validation", 1), ("test", 1)]));
    let empty = tempfile::tempdir().unwrap();
    let none = read(empty.path(), Split::Train).unwrap_err().to_string();
    assert!(none.starts_with("no annotations of the train set in"), "{none}");
    // The folder that is named tells its set too, and so does the one about a single file.
    let train = folder.path().join("VA_Set/Train_Set");
    for path in [&train, &train.join("v.txt")] {
        let other = read(path, Split::Validation).unwrap_err().to_string();
        assert!(
            other.contains("no annotations of the validation set")
                && other.ends_with("; --split train has 1"),
            "{other}"
        );
        assert_eq!(read(path, Split::Train).unwrap().split, Split::Train);
    }
}

/// As the challenges of 2022 to 2025 are unpacked.
#[test]
fn a_file_of_many_videos_tells_its_set_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let row = |video: &str| {
        format!(
            "image,valence,arousal,expression,aus\n{video}/00001.jpg,0.5,0,1{}\n",
            ",0".repeat(12)
        )
    };
    write(
        folder.path(),
        &[
            ("training_set_annotations_22.txt", row("a").as_bytes()),
            ("validation_set_annotations_22.txt", row("b").as_bytes()),
            (
                "MTL_Challenge_test_set_release.txt",
                b"image,valence,arousal,expression,aus\nc/00001.jpg,\n",
            ),
            (
                "Expression_Recognition_Challenge_test_set_release.txt",
                b"video3\n10-60-1280x720_right\n",
            ),
            (
                "EXPR_Classification_Challenge/Validation_Set/d.txt",
                b"Neutral,Anger\n1\n",
            ),
            ("VA_Estimation_Challenge/Train_Set/e.txt", VA),
        ],
    );
    let validation = read(folder.path(), Split::Validation).unwrap();
    assert_eq!(
        (persons(&validation), validation.split),
        (vec!["b", "d"], Split::Validation)
    );
    assert_eq!(validation.left_out, LeftOut::from([("train", 2), ("test", 1)]));
    assert_eq!(persons(&read(folder.path(), Split::Train).unwrap()), ["a", "e"]);
    let all = read(folder.path(), Split::All).unwrap();
    assert_eq!(persons(&all), ["a", "b", "d", "e"]);
    let sets = all.persons.values().flat_map(|person| &person.sets);
    use Set::{Train, Validation};
    assert_eq!(
        sets.collect::<Vec<_>>(),
        [&Train, &Validation, &Validation, &Train]
    );

    // Where some name tells a set, what tells none is of no set; where none does, all are read, and called so.
    write(folder.path(), &[("more/f.txt", VA)]);
    let validation = read(folder.path(), Split::Validation).unwrap();
    assert_eq!(
        (persons(&validation), validation.left_out["all"]),
        (vec!["b", "d"], 1)
    );
    let plain = read(&folder.path().join("more"), Split::Validation).unwrap();
    assert_eq!((persons(&plain), plain.split), (vec!["f"], Split::All));
}

#[test]
fn names_tell_a_set_by_whole_words() {
    for (name, file, folder) in [
        ("training_set_annotations", Some(Set::Train), Some(Set::Train)),
        ("valid_validation_set_annotations_23", Some(Set::Validation), None),
        ("MTL_Challenge_test_set_release", Some(Set::Test), None),
        ("val", Some(Set::Validation), Some(Set::Validation)),
        ("TestSet2", Some(Set::Test), Some(Set::Test)),
        ("train_val_annotations", None, None),
        ("trainees", None, None),
        ("Val_Kilmer", Some(Set::Validation), None),
        ("test_subject_1", Some(Set::Test), None),
        ("VA_Set", None, None),
    ] {
        assert_eq!(
            (Set::of_file(name), Set::of_folder(name)),
            (file, folder),
            "{name}"
        );
    }
}

#[test]
fn texts_without_a_header_are_passed_over_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let utf16: Vec<u8> = "\u{feff}valence,arousal\r\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    write(
        folder.path(),
        &[
            ("VA_Set/a.txt", VA),
            ("VA_Set/BOM.TXT", b"\xef\xbb\xbfvalence,arousal\r\n0.5,0\r\n"),
            ("README.txt", b"Please cite us.\n"),
            ("VA_Set/empty.txt", b""),
            // What macOS writes beside a file on a disk of another kind.
            (
                "VA_Set/._a.txt",
                b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        \x00\x02\x00\x00\x00\x09\x00\x00\xb0",
            ),
            ("VA_Set/utf16.txt", &utf16),
            ("VA_Set/notes.csv", b"no text of annotations"),
        ],
    );
    let found = read(folder.path(), Split::Validation).unwrap();
    assert_eq!(persons(&found), ["BOM", "a"]);
    let named: Vec<String> = found.passed_over.iter().map(PassedOver::to_string).collect();
    assert_eq!(
        named,
        [
            "README.txt (`Please cite us.` heads no annotations)",
            "VA_Set/._a.txt (no UTF-8 text)",
            "VA_Set/empty.txt (`` heads no annotations)",
            "VA_Set/utf16.txt (UTF-16; save it as UTF-8)"
        ]
    );
    // Alone they are an error, which names them.
    fs::remove_dir_all(folder.path().join("VA_Set")).unwrap();
    let none = read(folder.path(), Split::All).unwrap_err().to_string();
    assert!(
        none.contains("passed over README.txt (`Please cite us.`"),
        "{none}"
    );
    // Below a header nothing is passed over.
    write(folder.path(), &[("b.txt", b"valence,arousal\n0.5,0\n0.\xff,0\n")]);
    let broken = read(folder.path(), Split::All).unwrap_err().to_string();
    assert!(
        broken.ends_with("b.txt`:3: is not UTF-8 text; save the file as UTF-8"),
        "{broken}"
    );
}

#[test]
fn one_name_in_several_folders_is_several_persons() {
    let folder = tempfile::tempdir().unwrap();
    let expressions: &[u8] = b"Neutral,Anger\n1\n";
    for (name, text) in [
        ("VA_Set/Train_Set/s1/video.txt", VA),
        ("VA_Set/Train_Set/s2/video.txt", VA),
        ("EXPR_Set/Train_Set/s1/video.txt", expressions),
        ("EXPR_Set/Train_Set/other.txt", expressions),
    ] {
        write(folder.path(), &[(name, text)]);
    }
    let found = read(folder.path(), Split::Train).unwrap();
    assert_eq!(persons(&found), ["other", "s1/video", "s2/video"]);
    let tasks = |name: &str| Task::ALL.map(|task| found.persons[name].has(task));
    assert_eq!(
        (tasks("s1/video"), tasks("s2/video")),
        ([true, true, false], [true, false, false])
    );
    // The same file name, composed and decomposed.
    write(folder.path(), &[("caf\u{e9}.txt", VA), ("x/cafe\u{301}.txt", VA)]);
    let all = read(folder.path(), Split::All).unwrap();
    assert_eq!(persons(&all)[..2], ["caf\u{e9}", "other"]);
    assert!(all.persons.contains_key("x/caf\u{e9}"), "{:?}", persons(&all));
}
