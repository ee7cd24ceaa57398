//! Compares the room with torchvision, and checks that it is deterministic.

mod detector;
mod expression;

use super::golden::{golden_sample, golden_state};
use super::pyramid::Pyramid;
use super::readout::Readout;
use super::resnet::{Body, Placement};
use super::*;
use affectmill_base::{IMAGENET_MEAN, IMAGENET_STD, INPUT_LEN};
use affectmill_base::{ModelKind, Precision};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Kind, Tensor};

const SAMPLES: usize = 4;
/// The kinds that torchvision's pyramid is the measure of.
const PYRAMIDS: [ModelKind; 4] = [
    ModelKind::Student,
    ModelKind::TeacherVa,
    ModelKind::TeacherExpr,
    ModelKind::TeacherAu,
];

fn golden_outputs(kind: ModelKind) -> Vec<Vec<f64>> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/golden/fpn.json");
    let mut all: BTreeMap<String, Vec<Vec<f64>>> =
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    all.remove(kind.name()).unwrap()
}

fn batch(capacity: usize, samples: &[Vec<f32>]) -> Batch {
    let mut batch = Batch::new(capacity, Device::cpu()).unwrap();
    for sample in samples {
        batch.push(sample).unwrap();
    }
    batch
}

fn golden_tensor(kind: Kind) -> Tensor {
    let all: Vec<f32> = (0..SAMPLES).flat_map(golden_sample).collect();
    Tensor::from_slice(&all)
        .view([SAMPLES as i64, 3, 128, 128])
        .to_kind(kind)
}

fn place(kind: Kind) -> Placement {
    Placement {
        device: tch::Device::Cpu,
        kind,
    }
}

/// Largest error relative to the golden value; beside zero, relative to a hundredth of the largest output.
fn worst(found: &[f64], golden: &[Vec<f64>]) -> f64 {
    let golden: Vec<f64> = golden.concat();
    assert_eq!(found.len(), golden.len());
    let floor = golden.iter().fold(0.0_f64, |most, value| most.max(value.abs())) / 100.0;
    let errors = found
        .iter()
        .zip(&golden)
        .map(|(found, golden)| (found - golden).abs() / golden.abs().max(floor));
    errors.fold(0.0, f64::max)
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_kind(Kind::Double).flatten(0, -1).try_into().unwrap()
}

#[test]
fn outputs_equal_torchvisions() {
    let _no_grad = tch::no_grad_guard();
    for kind in PYRAMIDS {
        let (state, golden) = (golden_state(kind), golden_outputs(kind));
        assert_eq!(golden[0].len(), kind.output_count());
        let body = Body::new(&state, place(Kind::Float)).unwrap();
        let levels = body.forward(&golden_tensor(Kind::Float)).unwrap();
        let pyramid = Pyramid::new(&state, kind, place(Kind::Float)).unwrap();
        let plain = worst(&values(&pyramid.forward(&levels).unwrap()), &golden);
        assert!(plain < 1e-4, "{kind:?}: plain pyramid off by {plain:e}");

        let network = Network::from_state(&state, kind, Precision::Fp32, Device::cpu()).unwrap();
        let samples: Vec<_> = (0..SAMPLES).map(golden_sample).collect();
        let rows = network.infer(&batch(SAMPLES, &samples)).unwrap();
        let rows: Vec<f64> = rows.into_iter().map(f64::from).collect();
        let read = worst(&rows, &golden);
        assert!(read < 1e-4, "{kind:?}: readout off by {read:e}");
    }
}

#[test]
fn in_training_outputs_equal_torchvisions_whatever_is_frozen() {
    let _no_grad = tch::no_grad_guard();
    let kind = ModelKind::Student;
    let golden = golden_outputs(kind);
    for layers in 0..=BODY_LAYERS {
        let model = Trainable::new(golden_state(kind), kind, layers, Precision::Fp32, Device::cpu()).unwrap();
        let off = worst(
            &values(&model.forward(&golden_tensor(Kind::Float)).unwrap()),
            &golden,
        );
        assert!(off < 1e-4, "{layers} layers: off by {off:e}");
        let trained = |name: &str| model.weights().contains_key(name);
        assert!(trained("heads.va.weight") && trained("fpn.inner_blocks.0.0.weight"));
        assert_eq!(trained("body.conv1.weight"), layers == 5);
        assert_eq!(trained("body.layer1.0.conv1.weight"), layers >= 4);
        assert_eq!(trained("body.layer4.2.conv3.weight"), layers >= 1);
        assert!(!model.weights().keys().any(|name| name.contains(".bn")));
        assert!(
            model.state().unwrap() == golden_state(kind),
            "nothing was changed"
        );
    }
}

#[test]
fn in_float64_the_readout_is_the_pyramid() {
    let _no_grad = tch::no_grad_guard();
    let kind = ModelKind::Student;
    let state = golden_state(kind);
    let body = Body::new(&state, place(Kind::Double)).unwrap();
    let levels = body.forward(&golden_tensor(Kind::Double)).unwrap();
    let pyramid = Pyramid::new(&state, kind, place(Kind::Double)).unwrap();
    let readout = Readout::new(&state, kind, place(Kind::Double)).unwrap();
    let (plain, read) = (
        pyramid.forward(&levels).unwrap(),
        readout.forward(&levels).unwrap(),
    );
    let golden = golden_outputs(kind);
    assert!(worst(&values(&plain), &golden) < 1e-11);
    assert!(worst(&values(&read), &golden) < 1e-11);
}

#[test]
fn a_row_depends_on_its_sample_alone() {
    for precision in Precision::ALL {
        for kind in [ModelKind::Student, ModelKind::MiniXception] {
            depends_on_its_sample_alone(kind, precision);
        }
    }
}

fn depends_on_its_sample_alone(kind: ModelKind, precision: Precision) {
    let network = Network::from_state(&golden_state(kind), kind, precision, Device::cpu());
    if precision == Precision::Bf16 && !Device::cpu().has_bf16() {
        assert!(matches!(network, Err(ModelError::NoBf16)));
        return;
    }
    if precision == Precision::Fp16 {
        assert!(matches!(network, Err(ModelError::NoFp16)), "on a CPU");
        return;
    }
    let network = network.unwrap();
    let samples: Vec<_> = (0..33).map(golden_sample).collect();
    let rows = |samples: &[Vec<f32>]| -> Vec<Vec<u32>> {
        let rows = network.infer(&batch(33, samples)).unwrap();
        rows.chunks(kind.output_count())
            .map(|row| row.iter().map(|value| value.to_bits()).collect())
            .collect()
    };
    let whole = rows(&samples);
    for size in [1, 2, 3, 4, 5, 8, 17, 32] {
        assert!(rows(&samples[..size]) == whole[..size], "a batch of {size}");
        assert!(
            rows(&samples[33 - size..]) == whole[33 - size..],
            "the last {size}"
        );
    }
    let backwards: Vec<_> = samples.iter().rev().cloned().collect();
    assert!(rows(&backwards).into_iter().rev().eq(whole.clone()), "order");
    let before = tch::get_num_threads();
    for threads in [1, 2, 3] {
        set_threads(threads);
        assert!(rows(&samples) == whole, "{threads} threads");
        assert!(
            rows(&samples[..5]) == whole[..5],
            "{threads} threads, a batch of 5"
        );
    }
    set_threads(before as usize);
}

#[test]
fn networks_and_batches_may_move_to_a_thread() {
    fn sendable<T: Send>() {}
    sendable::<Network>();
    sendable::<Batch>();
}

#[test]
fn a_batch_keeps_its_contract() {
    let mut two = batch(2, &[golden_sample(0), golden_sample(1)]);
    assert!(
        two.push(&golden_sample(2))
            .unwrap_err()
            .to_string()
            .contains("all 2 places")
    );
    two.clear();
    assert!(two.is_empty());
    assert!(two.push(&[0.0; 7]).unwrap_err().to_string().contains("7 values"));
    assert!(two.is_empty());
    assert!(Batch::new(0, Device::cpu()).is_err());
    assert!(Batch::new(usize::MAX, Device::cpu()).is_err());
    assert!(Batch::new(1, Device::cuda(Device::cuda_count())).is_err());
    let network = Network::from_state(
        &golden_state(ModelKind::TeacherVa),
        ModelKind::TeacherVa,
        Precision::Fp32,
        Device::cpu(),
    )
    .unwrap();
    assert!(network.infer(&two).unwrap().is_empty());
}

#[test]
fn untrained_outputs_follow_the_input() {
    for kind in ModelKind::ALL {
        let state = init::untrained(kind, 7, Path::new("untrained"));
        let network = Network::from_state(&state, kind, Precision::Fp32, Device::cpu()).unwrap();
        let flat = |grey: f32| -> Vec<f32> {
            let plane = |c: usize| (grey - IMAGENET_MEAN[c]) / IMAGENET_STD[c];
            (0..INPUT_LEN).map(|i| plane(i / (128 * 128))).collect()
        };
        let samples = [golden_sample(0), golden_sample(1), flat(0.1), flat(0.9)];
        let rows = network.infer(&batch(4, &samples)).unwrap();
        let rows: Vec<&[f32]> = rows.chunks(kind.output_count()).collect();
        assert!(rows.concat().iter().all(|value| value.abs() < 20.0));
        for (one, other) in [(0, 1), (0, 2), (2, 3)] {
            let apart = rows[one]
                .iter()
                .zip(rows[other])
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            assert!(
                apart > 0.05,
                "{kind:?}: samples {one} and {other} are {apart} apart"
            );
        }
    }
}
