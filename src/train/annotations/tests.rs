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

#[test]
fn a_split_takes_its_folders() {
    let folder = tempfile::tempdir().unwrap();
    for (set, value) in [("Train_Set", "0.1"), ("Validation_Set", "0.2")] {
        let path = folder.path().join("VA_Set").join(set);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("v.txt"), format!("valence,arousal\n{value},0\n")).unwrap();
    }
    let valence = |split| read(folder.path(), split).map(|read| read.persons["v"].frames[&0].va.unwrap()[0]);
    assert_eq!(valence(Split::Train).unwrap(), 0.1);
    assert_eq!(valence(Split::Validation).unwrap(), 0.2);
    let twice = valence(Split::All).unwrap_err().to_string();
    assert!(twice.contains("Validation_Set/v.txt` annotates"), "{twice}");
    let empty = tempfile::tempdir().unwrap();
    assert!(
        read(empty.path(), Split::Train)
            .unwrap_err()
            .to_string()
            .contains("--split all")
    );
}
