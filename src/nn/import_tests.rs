//! Checkpoints as torch writes them, and as nobody should.

use super::checkpoint::Checkpoint;
use super::golden::golden_state;
use super::state::{Array, StateDict};
use super::*;
use affectmill_base::{ModelKind, Precision};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .join("tests/golden")
        .join(name)
}

#[derive(serde::Deserialize)]
struct Expected {
    shape: Vec<usize>,
    data: Vec<f32>,
}

/// Writes a torch zip checkpoint: a dict of `float32` tensors under `outer`, each with its own storage.
fn torch_zip(path: &Path, outer: &str, tensors: &BTreeMap<String, Array>) {
    fn text(out: &mut Vec<u8>, text: &str) {
        out.push(b'X');
        out.extend((text.len() as u32).to_le_bytes());
        out.extend(text.bytes());
    }
    fn int(out: &mut Vec<u8>, value: usize) {
        out.push(b'J');
        out.extend((value as u32).to_le_bytes());
    }
    fn ints(out: &mut Vec<u8>, values: &[usize]) {
        out.push(b'(');
        values.iter().for_each(|&value| int(out, value));
        out.push(b't');
    }
    let mut pickle = b"\x80\x02}".to_vec();
    text(&mut pickle, outer);
    pickle.extend(b"}(");
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored = zip::write::FileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (i, (name, array)) in tensors.iter().enumerate() {
        text(&mut pickle, name);
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut pickle, "storage");
        pickle.extend(b"ctorch\nFloatStorage\n");
        text(&mut pickle, &i.to_string());
        text(&mut pickle, "cpu");
        int(&mut pickle, array.data.len());
        pickle.extend(b"tQ");
        int(&mut pickle, 0);
        ints(&mut pickle, &array.shape);
        let strides: Vec<usize> = (0..array.shape.len())
            .map(|axis| array.shape[axis + 1..].iter().product())
            .collect();
        ints(&mut pickle, &strides);
        pickle.extend(b"\x89ccollections\nOrderedDict\n)RtR");
        archive.start_file(format!("any/data/{i}"), stored).unwrap();
        let bytes: Vec<u8> = array.data.iter().flat_map(|value| value.to_le_bytes()).collect();
        archive.write_all(&bytes).unwrap();
    }
    pickle.extend(b"us.");
    archive.start_file("any/data.pkl", stored).unwrap();
    archive.write_all(&pickle).unwrap();
    fs::write(path, archive.finish().unwrap().into_inner()).unwrap();
}

/// The golden student under the names of a paper-like checkpoint.
fn as_published(kind: ModelKind, prefix: &str, heads: &str) -> BTreeMap<String, Array> {
    let rename = |name: String| match name.strip_prefix("heads.").and_then(|name| name.split_once('.')) {
        Some((_, part)) if kind != ModelKind::Student => format!("{heads}head.linear.{part}"),
        Some((task, part)) => format!("{heads}{}_head.linear.{part}", task.to_uppercase()),
        None => format!("{prefix}{name}"),
    };
    golden_state(kind)
        .tensors
        .into_iter()
        .map(|(name, array)| (rename(name), array))
        .collect()
}

fn same_bits(a: &BTreeMap<String, Array>, b: &BTreeMap<String, Array>) {
    assert!(a.keys().eq(b.keys()));
    for (name, array) in a {
        assert!(array == &b[name], "{name}");
    }
}

#[test]
fn tensors_that_torch_wrote_are_read_exactly() {
    let expected: BTreeMap<String, Expected> =
        serde_json::from_slice(&fs::read(golden("tiny.json")).unwrap()).unwrap();
    for (file, format) in [
        ("tiny.pt", "PyTorch checkpoint"),
        ("tiny.pth", "PyTorch checkpoint of the format before 1.6"),
        ("tiny.ckpt", "PyTorch checkpoint, `state_dict`"),
    ] {
        let found = Checkpoint::open(&golden(file)).unwrap();
        assert_eq!(found.format, format);
        let names: Vec<&str> = found
            .names()
            .filter(|name| !name.ends_with("num_batches_tracked"))
            .collect();
        assert!(names.iter().eq(expected.keys()), "{file}: {names:?}");
        for (name, expected) in &expected {
            let array = found.read(name).unwrap();
            assert_eq!(
                (array.shape, array.data),
                (expected.shape.clone(), expected.data.clone()),
                "{file}: {name}"
            );
        }
        assert!(found.read("bn.num_batches_tracked").is_err());
    }
}

#[test]
fn a_damaged_checkpoint_is_refused_and_never_panics() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged");
    for file in ["tiny.pt", "tiny.pth", "tiny.ckpt"] {
        let whole = fs::read(golden(file)).unwrap();
        for end in (0..whole.len()).step_by(7) {
            fs::write(&path, &whole[..end]).unwrap();
            assert!(Checkpoint::open(&path).is_err(), "{file} cut at {end}");
        }
        for at in (0..whole.len()).step_by(3) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0xff;
            fs::write(&path, &bytes).unwrap();
            // Not every byte matters; reading must end with a value or an error.
            if let Ok(found) = Checkpoint::open(&path) {
                found.names().for_each(|name| drop(found.read(name)));
            }
        }
    }
    // One byte of a zip's tensor data: the checksum tells.
    let mut bytes = fs::read(golden("tiny.pt")).unwrap();
    let needle: Vec<u8> = [-1.0_f32, -0.875]
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let at = bytes.windows(8).position(|window| window == needle).unwrap();
    bytes[at] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = Checkpoint::open(&path).err().unwrap().to_string();
    assert!(error.contains("hecksum"), "{error}");
}

#[test]
fn a_student_is_imported_whole_or_one_head_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let (src, out) = (
        folder.path().join("student.ckpt"),
        folder.path().join("out.safetensors"),
    );
    let mut tensors = as_published(ModelKind::Student, "module.student.backbone.", "module.student.");
    tensors.insert(
        "module.student.backbone.body.fc.bias".to_owned(),
        Array {
            shape: vec![1],
            data: vec![0.0],
        },
    );
    tensors.insert(
        "module.student.backbone.body.bn1.num_batches_tracked".to_owned(),
        Array {
            shape: vec![],
            data: vec![1.0],
        },
    );
    torch_zip(&src, "state_dict", &tensors);

    let imported = import_weights(&src, None, None, &out).unwrap();
    assert_eq!(
        (imported.kind, imported.tensors),
        (ModelKind::Student, golden_state(ModelKind::Student).tensors.len())
    );
    assert_eq!(imported.source_format, "PyTorch checkpoint, `state_dict`");
    assert_eq!(imported.ignored, ["module.student.backbone.body.fc.bias"]);
    same_bits(
        &StateDict::read(&out, ModelKind::Student).unwrap().tensors,
        &golden_state(ModelKind::Student).tensors,
    );
    let info = describe(&WeightFile::read(&out).unwrap(), ModelKind::Student).unwrap();
    assert!(!info.untrained);
    // A student is no teacher, until its head is taken.
    for refused in [
        describe(&WeightFile::read(&out).unwrap(), ModelKind::TeacherVa).err(),
        StateDict::read(&out, ModelKind::TeacherVa).err(),
    ] {
        assert!(refused.unwrap().to_string().contains("affectmill.kind"));
    }
    let imported = import_weights(&src, Some(ModelKind::TeacherVa), None, &out).unwrap();
    assert_eq!(imported.ignored.len(), 5);
    let teacher = StateDict::read(&out, ModelKind::TeacherVa).unwrap();
    assert_eq!(
        teacher.tensors["heads.va.bias"],
        golden_state(ModelKind::Student).tensors["heads.va.bias"]
    );
    assert!(!teacher.tensors.contains_key("heads.au.bias"));
    let again = folder.path().join("again.safetensors");
    import_weights(&out, None, None, &again).unwrap();
    assert!(fs::read(&out).unwrap() == fs::read(&again).unwrap());
}

#[test]
fn a_teacher_is_told_by_its_head_and_old_names_are_known() {
    let folder = tempfile::tempdir().unwrap();
    let (src, out) = (
        folder.path().join("teacher.pt"),
        folder.path().join("out.safetensors"),
    );
    for kind in [ModelKind::TeacherVa, ModelKind::TeacherExpr, ModelKind::TeacherAu] {
        let tensors = as_published(kind, "feature_extractor.", "");
        let old = |name: String| {
            if name.contains("_blocks.") {
                name.replace(".0.weight", ".weight").replace(".0.bias", ".bias")
            } else {
                name
            }
        };
        torch_zip(
            &src,
            "model",
            &tensors
                .into_iter()
                .map(|(name, array)| (old(name), array))
                .collect(),
        );
        let imported = import_weights(&src, None, None, &out).unwrap();
        assert_eq!((imported.kind, imported.ignored), (kind, vec![]));
        same_bits(
            &StateDict::read(&out, kind).unwrap().tensors,
            &golden_state(kind).tensors,
        );
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name_and_shape() {
    let folder = tempfile::tempdir().unwrap();
    let (src, out) = (
        folder.path().join("bad.pt"),
        folder.path().join("out.safetensors"),
    );
    let refused = |kind: Option<ModelKind>, change: &dyn Fn(&mut BTreeMap<String, Array>)| {
        let mut tensors = as_published(ModelKind::TeacherExpr, "m.", "m.");
        change(&mut tensors);
        torch_zip(&src, "state_dict", &tensors);
        let error = import_weights(&src, kind, None, &out).unwrap_err().to_string();
        assert!(!out.exists());
        assert!(error.starts_with(src.to_str().unwrap()), "{error}");
        error
    };
    let error = refused(None, &|tensors| {
        tensors.remove("m.body.layer3.5.bn2.running_var");
        tensors.get_mut("m.fpn.layer_blocks.2.0.bias").unwrap().shape = vec![2, 128];
    });
    assert!(
        error.contains("`body.layer3.5.bn2.running_var` [256] is missing"),
        "{error}"
    );
    assert!(
        error.contains("`fpn.layer_blocks.2.0.bias` is [2, 128] where [256] is expected"),
        "{error}"
    );
    let error = refused(Some(ModelKind::TeacherAu), &|_| ());
    assert!(
        error.contains("`heads.au.weight` is [7, 1280] where [12, 1280] is expected"),
        "{error}"
    );
    let error = refused(Some(ModelKind::Student), &|_| ());
    assert!(error.contains("`heads.au.bias` [12] is missing"), "{error}");
    let error = refused(None, &|tensors| {
        tensors.retain(|name, _| !name.contains("head"));
    });
    assert!(error.contains("--kind"), "{error}");
    let error = refused(None, &|tensors| {
        tensors.get_mut("m.body.conv1.weight").unwrap().data[3] = f32::NAN;
    });
    assert!(
        error.contains("`body.conv1.weight` holds NaN at element 3"),
        "{error}"
    );
    let error = refused(None, &|tensors| {
        let copy = tensors["m.body.conv1.weight"].clone();
        tensors.insert("ema.body.conv1.weight".to_owned(), copy);
    });
    assert!(error.contains("several bodies, under `ema.`, `m.`"), "{error}");
    let error = refused(None, &|tensors| {
        tensors.retain(|name, _| name.starts_with("m.fpn"));
    });
    assert!(error.contains("body.conv1.weight"), "{error}");
}

#[test]
fn other_files_are_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let (src, out) = (folder.path().join("file"), folder.path().join("out"));
    let zip = |names: &[&str]| {
        let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let stored = zip::write::FileOptions::default().compression_method(zip::CompressionMethod::Stored);
        names
            .iter()
            .for_each(|name| archive.start_file(*name, stored).unwrap());
        archive.finish().unwrap().into_inner()
    };
    for (bytes, word) in [
        (Vec::new(), "neither"),
        (b"\x89HDF\r\n\x1a\n and more".to_vec(), "superblock"),
        (zip(&["a/data.pkl", "a/code/m.py"]), "TorchScript"),
        (zip(&["notes.txt"]), "no PyTorch checkpoint"),
        (b"\x05\0\0\0\0\0\0\0{nope".to_vec(), "header"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff{}".to_vec(), "header"),
    ] {
        fs::write(&src, bytes).unwrap();
        let error = import_weights(&src, None, None, &out).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
        assert!(!out.exists());
    }
    let missing = folder.path().join("missing");
    for error in [
        import_weights(&missing, None, None, &out).unwrap_err(),
        WeightFile::read(&missing).unwrap_err(),
        StateDict::read(&missing, ModelKind::Student).unwrap_err(),
        init_weights(
            ModelKind::TeacherVa,
            1,
            None,
            &src.join("below-a-file.safetensors"),
        )
        .unwrap_err(),
    ] {
        assert!(matches!(error, ModelError::Io { .. }), "{error}");
    }
}

#[test]
fn untrained_weights_are_the_same_bytes_and_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (name, kind, seed) in [
        ("a", ModelKind::TeacherVa, 7),
        ("b", ModelKind::TeacherVa, 7),
        ("c", ModelKind::TeacherVa, 8),
    ] {
        init_weights(kind, seed, None, &path(name)).unwrap();
    }
    let [a, b, c] = ["a", "b", "c"]
        .map(|name| describe(&WeightFile::read(&path(name)).unwrap(), ModelKind::TeacherVa).unwrap());
    assert!(a.untrained && a == b && a.sha256 != c.sha256);
    // Independent of this program: sha256sum of the file, and the reference reader of safetensors.
    let bytes = fs::read(path("a")).unwrap();
    let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(read.tensor("heads.va.weight").unwrap().shape(), [2, 1280]);
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(
        header.metadata().as_ref().unwrap()["affectmill.untrained"],
        "seed 7"
    );
    // An import does not wash the mark off.
    import_weights(&path("a"), None, None, &path("d")).unwrap();
    assert_eq!(
        describe(&WeightFile::read(&path("d")).unwrap(), ModelKind::TeacherVa).unwrap(),
        a
    );
    // A cut file, and one byte too many.
    for len in [bytes.len() - 1, 100, 8, 3, 0] {
        fs::write(path("cut"), &bytes[..len]).unwrap();
        assert!(
            matches!(
                describe(&WeightFile::read(&path("cut")).unwrap(), ModelKind::TeacherVa),
                Err(ModelError::File { .. })
            ),
            "{len}"
        );
    }
    fs::write(path("cut"), [bytes.as_slice(), &[0]].concat()).unwrap();
    assert!(matches!(
        describe(&WeightFile::read(&path("cut")).unwrap(), ModelKind::TeacherVa),
        Err(ModelError::File { .. })
    ));
    assert!(matches!(
        Network::load(
            &WeightFile::read(&path("cut")).unwrap(),
            ModelKind::TeacherVa,
            Precision::Fp32,
            Device::cpu()
        ),
        Err(ModelError::File { .. })
    ));
}
