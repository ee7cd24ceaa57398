//! The room as a whole against torchvision's numbers, which `tests/golden/make_fpn_golden.py` wrote.

use super::layout::{head_name, layout};
use super::pyramid::Pyramid;
use super::resnet::Placement;
use super::state::{Array, StateDict};
use super::{Batch, Device, INPUT_LEN, Network, checkpoint::Checkpoint, import_weights};
use crate::domain::ModelKind;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// The generator's formula: `count` multiples of 2⁻²³ in [−1, 1), splitmix64 over the FNV-1a hash of the name.
fn uniform(name: &str, count: usize) -> Vec<f64> {
    let seed = name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |seed, byte| {
        (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    (1..=count as u64)
        .map(|n| {
            let mut x = seed.wrapping_add(n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            x ^= x >> 31;
            (x >> 40) as f64 / f64::from(1 << 23) - 1.0
        })
        .collect()
}

fn golden_state(kind: ModelKind) -> StateDict {
    let mut state = StateDict::new(Path::new("golden"), kind);
    for (name, shape) in layout(kind) {
        let u = uniform(&format!("{}/{name}", kind.name()), shape.iter().product());
        let value = |u: f64| match (shape.as_slice(), name.as_str()) {
            (&[_, c, h, w], name) => {
                u * f64::sqrt(if name.starts_with("body.") { 6.0 } else { 3.0 } / (c * h * w) as f64)
            }
            (&[_, inputs], _) => u * f64::sqrt(3.0 / inputs as f64),
            (_, name) if name.ends_with("running_var") => 1.0 + 0.5 * u,
            (_, name) if name.ends_with("bn3.weight") => 0.25 + 0.125 * u,
            (_, name) if name.starts_with("body.") && name.ends_with("weight") => 1.0 + 0.25 * u,
            _ => 0.1 * u,
        };
        let data = u.into_iter().map(|u| value(u) as f32).collect();
        state.tensors.insert(name, Array { shape, data });
    }
    state
}

/// Input `n` of the generator: blocks of 16×16 plus noise.
fn sample(n: usize) -> Vec<f32> {
    let blocks = uniform(&format!("input/{n}/blocks"), 3 * 8 * 8);
    let noise = uniform(&format!("input/{n}/noise"), INPUT_LEN);
    (0..INPUT_LEN)
        .map(|at| {
            let (plane, y, x) = (at / 16_384, at / 128 % 128, at % 128);
            (2.0 * blocks[plane * 64 + y / 16 * 8 + x / 16] + 0.5 * noise[at]) as f32
        })
        .collect()
}

/// Within 1e-4 of the largest output of the row.
fn assert_close(found: &[f32], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected
        .iter()
        .fold(0.0_f64, |scale, value| scale.max(value.abs()));
    for (n, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs() / scale;
        assert!(
            error < 1e-4,
            "{what}, output {n}: {found} where torchvision says {expected}"
        );
    }
}

#[test]
fn plain_pyramid_and_readout_equal_torchvision() {
    let text = std::fs::read_to_string(golden("fpn.json")).unwrap();
    let expected: BTreeMap<String, Vec<Vec<f64>>> = serde_json::from_str(&text).unwrap();
    for kind in ModelKind::ALL {
        let state = golden_state(kind);
        let network = Network::from_state(&state, kind, Device::cpu()).unwrap();
        let place = Placement {
            device: tch::Device::Cpu,
            kind: Kind::Float,
        };
        let pyramid = Pyramid::new(&state, kind, place).unwrap();
        let rows = &expected[kind.name()];
        let mut batch = Batch::new(rows.len(), Device::cpu()).unwrap();
        let mut inputs = Vec::new();
        for n in 0..rows.len() {
            batch.push(&sample(n)).unwrap();
            inputs.extend(sample(n));
        }
        let readout = network.infer(&batch).unwrap();

        let _no_grad = tch::no_grad_guard();
        let inputs = Tensor::f_from_slice(&inputs)
            .unwrap()
            .view([rows.len() as i64, 3, 128, 128]);
        let plain = pyramid.forward(&network.body.forward(&inputs).unwrap()).unwrap();
        for (n, row) in rows.iter().enumerate() {
            let width = kind.output_count();
            assert_close(
                &readout[n * width..][..width],
                row,
                &format!("readout, {}, input {n}", kind.name()),
            );
            let plain: Vec<f32> = Vec::try_from(plain.get(n as i64).contiguous()).unwrap();
            assert_close(&plain, row, &format!("plain pyramid, {}, input {n}", kind.name()));
        }
    }
}

#[test]
fn a_row_depends_on_nothing_but_its_input() {
    let network = Network::from_state(
        &golden_state(ModelKind::Student),
        ModelKind::Student,
        Device::cpu(),
    )
    .unwrap();
    let samples: Vec<_> = (0..4).map(sample).collect();
    let infer = |order: &[usize]| -> Vec<Vec<u32>> {
        let mut batch = Batch::new(40, Device::cpu()).unwrap();
        order.iter().for_each(|&n| batch.push(&samples[n]).unwrap());
        let rows = network.infer(&batch).unwrap();
        rows.chunks(21)
            .map(|row| row.iter().map(|value| value.to_bits()).collect())
            .collect()
    };
    let alone: Vec<_> = (0..4).map(|n| infer(&[n]).remove(0)).collect();
    assert!(alone[0] != alone[1], "different faces have different rows");
    for size in [2, 3, 4, 5, 8, 17, 32, 40] {
        let order: Vec<usize> = (0..size).map(|at| (at * 7 + size) % 4).collect();
        for (row, n) in infer(&order).iter().zip(&order) {
            assert!(row == &alone[*n], "batch of {size}");
        }
    }
}

#[test]
fn checkpoints_as_torch_writes_them_are_read() {
    let text = std::fs::read_to_string(golden("tiny.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&text).unwrap();
    for file in ["tiny.pt", "tiny.pth", "tiny.ckpt"] {
        let checkpoint = Checkpoint::open(&golden(file)).unwrap();
        let tensors = expected.get(file).unwrap_or(&expected).as_object().unwrap();
        assert!(!tensors.is_empty());
        for (name, tensor) in tensors {
            let array = checkpoint.read(name).unwrap_or_else(|error| panic!("{error}"));
            let shape: Vec<usize> = serde_json::from_value(tensor["shape"].clone()).unwrap();
            let values: Vec<f32> = serde_json::from_value(tensor["data"].clone()).unwrap();
            assert_eq!((array.shape, array.data), (shape, values), "{file}: {name}");
        }
    }
}

#[test]
fn a_student_with_other_spellings_imports_and_gives_up_one_head() {
    let folder = tempfile::tempdir().unwrap();
    let student = golden_state(ModelKind::Student);
    let mut theirs = StateDict::new(Path::new("theirs"), ModelKind::Student);
    theirs.metadata.clear();
    for (name, array) in &student.tensors {
        let name = match name.split('.').collect::<Vec<_>>().as_slice() {
            ["heads", task, part] => format!("module.{}_head.linear.{part}", task.to_uppercase()),
            ["fpn", blocks, level, "0", part] => format!("module.backbone.fpn.{blocks}.{level}.{part}"),
            _ => format!("module.backbone.{name}"),
        };
        theirs.tensors.insert(name, array.clone());
    }
    theirs.tensors.insert(
        "module.extra".into(),
        Array {
            shape: vec![1],
            data: vec![0.0],
        },
    );
    let (source, out) = (
        folder.path().join("theirs.safetensors"),
        folder.path().join("ours.safetensors"),
    );
    theirs.write(&source).unwrap();

    let imported = import_weights(&source, None, &out).unwrap();
    assert_eq!(
        (imported.kind, imported.ignored.as_slice()),
        (ModelKind::Student, &["module.extra".to_owned()][..])
    );
    assert!(StateDict::read(&out, ModelKind::Student).unwrap().tensors == student.tensors);

    let imported = import_weights(&source, Some(ModelKind::TeacherVa), &out).unwrap();
    assert_eq!(imported.kind, ModelKind::TeacherVa);
    let teacher = StateDict::read(&out, ModelKind::TeacherVa).unwrap();
    let weight = format!("heads.{}.weight", head_name(crate::domain::Task::Va));
    assert!(teacher.tensors[&weight] == student.tensors[&weight]);

    theirs.tensors.remove("module.VA_head.linear.bias");
    theirs
        .tensors
        .get_mut("module.backbone.body.conv1.weight")
        .unwrap()
        .shape = vec![64, 3, 49, 1];
    theirs.write(&source).unwrap();
    let error = import_weights(&source, Some(ModelKind::Student), &out)
        .unwrap_err()
        .to_string();
    assert!(error.contains("`heads.va.bias` [2] is missing"), "{error}");
    assert!(
        error.contains("`body.conv1.weight` is [64, 3, 49, 1] where [64, 3, 7, 7] is expected"),
        "{error}"
    );
}
