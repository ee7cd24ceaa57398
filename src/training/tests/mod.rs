//! Held against PyTorch: losses, gradients and 20 steps of both recipes, in float64, the first five without
//! `AFFECTMILL_SOAK` (tests/golden/make_train_golden.py).

mod corpus;
mod speed;

use super::labels::{Human, Labels, Teacher};
use super::losses::Objective;
use super::optimise::Optimise;
use affectmill_base::{ModelKind, Task};
use affectmill_nn::golden::{golden_sample, golden_state, uniform};
use affectmill_nn::{Device, Trainable, batch_tensor};
use affectmill_spec::{Distill, Optimiser, OptimiserKind, Targets};
use serde::Deserialize;
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// Steps of the golden file; those that are made unless `AFFECTMILL_SOAK` is set, since float64 is slow.
const STEPS: usize = 20;
const FEW: usize = 5;
const BATCH: usize = 2;

#[derive(Deserialize)]
struct Golden {
    losses: BTreeMap<String, GoldenLoss>,
    teacher: GoldenTraining,
    student: GoldenTraining,
}

#[derive(Deserialize)]
struct GoldenLoss {
    loss: f64,
    gradient: Vec<f64>,
}

/// Norm and product with a probe of each tensor.
#[derive(Deserialize)]
struct GoldenTraining {
    losses: Vec<f64>,
    gradients: BTreeMap<String, [f64; 2]>,
    steps: BTreeMap<String, [f64; 2]>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../../../tests/golden/train.json")).unwrap()
}

fn labels(n: usize) -> Labels {
    let teacher: Vec<f32> = uniform(&format!("teacher/{n}"), 21)
        .iter()
        .map(|u| 2.0 * *u as f32)
        .collect();
    let human = uniform(&format!("human/{n}"), 14);
    let class = ((human[2] + 1.0) * 3.5) as u8;
    Labels {
        human: Human {
            va: n.is_multiple_of(2).then(|| [human[0] as f32, human[1] as f32]),
            expr: n.is_multiple_of(3).then_some(class),
            au: (n % 4 == 1).then(|| std::array::from_fn(|unit| human[2 + unit] > 0.0)),
        },
        teacher: Teacher {
            va: teacher[..2].try_into().ok(),
            expr: teacher[2..9].try_into().ok(),
            au: teacher[9..].try_into().ok(),
        },
    }
}

fn distill(targets: Targets) -> Distill {
    Distill {
        targets,
        temperature: 2.0,
        human_weight: 0.75,
    }
}

fn close(found: f64, golden: f64, scale: f64, what: &str) {
    let error = (found - golden).abs() / golden.abs().max(scale);
    assert!(error < 1e-7, "{what}: {found} is not {golden}, off by {error:e}");
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor
        .detach()
        .to_kind(Kind::Double)
        .contiguous()
        .flatten(0, -1)
        .try_into()
        .unwrap()
}

fn digests(name: &str, found: &Tensor, golden: &BTreeMap<String, [f64; 2]>, what: &str) {
    let values = numbers(found);
    let norm = values.iter().map(|value| value * value).sum::<f64>().sqrt();
    let probe = uniform(&format!("probe/{name}"), values.len());
    let product: f64 = values
        .iter()
        .zip(&probe)
        .map(|(value, probe)| value * probe)
        .sum();
    let [golden_norm, golden_product] = golden[name];
    close(norm, golden_norm, 1e-300, &format!("{what}: norm of {name}"));
    close(
        product,
        golden_product,
        golden_norm,
        &format!("{what}: probe of {name}"),
    );
}

#[test]
fn every_loss_and_its_gradient_is_pytorchs() {
    let outputs: Vec<f64> = uniform("outputs", 6 * 21).iter().map(|u| 2.0 * u).collect();
    for (name, golden) in golden().losses {
        let rows: Vec<Labels> = (0..6)
            .map(|n| match name.as_str() {
                "human" => Labels {
                    human: labels(n).human,
                    ..Labels::default()
                },
                _ => labels(n),
            })
            .collect();
        let targets = if name == "hard" {
            Targets::Hard
        } else {
            Targets::Soft
        };
        let objective = Objective::new(ModelKind::Student, distill(targets));
        let counts = objective.counts(rows.iter());
        let leaf = Tensor::from_slice(&outputs).view([6, 21]).set_requires_grad(true);
        let loss = objective.loss(&leaf, &rows, &counts).unwrap();
        close(loss.total.double_value(&[]), golden.loss, 1e-300, &name);
        let gradient = Tensor::run_backward(&[&loss.total], &[&leaf], false, false).remove(0);
        for (found, golden) in numbers(&gradient).into_iter().zip(&golden.gradient) {
            close(found, *golden, 1e-3, &format!("gradient, {name}"));
        }

        // In two parts of unequal length the losses add up to the same.
        let parts = [(0, 4), (4, 2)].map(|(start, length)| {
            let rows = &rows[start as usize..][..length as usize];
            objective
                .loss(&leaf.narrow(0, start, length), rows, &counts)
                .unwrap()
                .total
        });
        close(
            parts[0].double_value(&[]) + parts[1].double_value(&[]),
            golden.loss,
            1e-300,
            "parts",
        );
    }
}

#[test]
fn a_task_without_labels_has_no_loss_and_no_gradient() {
    let rows: Vec<Labels> = (0..3)
        .map(|n| Labels {
            teacher: Teacher {
                expr: labels(n).teacher.expr,
                ..Teacher::default()
            },
            ..Labels::default()
        })
        .collect();
    let objective = Objective::new(ModelKind::Student, Distill::default());
    let counts = objective.counts(rows.iter());
    assert_eq!(counts, [0, 3, 0]);
    let leaf = Tensor::from_slice(&uniform("outputs", 63))
        .view([3, 21])
        .set_requires_grad(true);
    let loss = objective.loss(&leaf, &rows, &counts).unwrap();
    assert_eq!(loss.parts[Task::Va as usize].double_value(&[]), 0.0);
    let gradient = numbers(&Tensor::run_backward(&[&loss.total], &[&leaf], false, false).remove(0));
    for row in gradient.chunks(21) {
        assert!(row[..2].iter().chain(&row[9..]).all(|value| *value == 0.0));
        assert!(row[2..9].iter().any(|value| *value != 0.0));
    }
}

fn train(kind: ModelKind, targets: Targets, settings: Optimiser, golden: &GoldenTraining) {
    let (double, device) = (Kind::Double, Device::cpu());
    let model = Trainable::of_kinds(golden_state(kind), kind, 3, double, double, device).unwrap();
    let before: BTreeMap<String, Tensor> = model
        .weights()
        .iter()
        .map(|(name, weight)| (name.clone(), weight.detach().copy()))
        .collect();
    assert!(
        before.keys().eq(golden.gradients.keys()),
        "other weights are trained"
    );
    let objective = Objective::new(kind, distill(targets));
    let mut optimiser = Optimise::new(settings, 0, BTreeMap::new());
    let soak = std::env::var_os("AFFECTMILL_SOAK").is_some();
    for step in 0..if soak { STEPS } else { FEW } {
        let faces: Vec<usize> = (0..BATCH).map(|i| (step * BATCH + i) % 6).collect();
        let inputs: Vec<f32> = faces.iter().flat_map(|&n| golden_sample(n)).collect();
        let rows: Vec<Labels> = faces.iter().map(|&n| labels(n)).collect();
        let outputs = model.forward(&batch_tensor(&inputs).unwrap()).unwrap();
        let loss = objective
            .loss(&outputs, &rows, &objective.counts(rows.iter()))
            .unwrap();
        close(
            loss.total.double_value(&[]),
            golden.losses[step],
            1e-300,
            &format!("loss {step}"),
        );
        let weights: Vec<&Tensor> = model.weights().values().collect();
        let gradients = Tensor::run_backward(&[&loss.total], &weights, false, false);
        if step == 0 {
            for (name, gradient) in model.weights().keys().zip(&gradients) {
                digests(name, gradient, &golden.gradients, "gradient");
            }
        }
        optimiser.step(model.weights(), &gradients).unwrap();
    }
    // The loss of each step tells of all the steps before it; what they came to is looked at after the last.
    for (name, weight) in model.weights().iter().filter(|_| soak) {
        digests(
            name,
            &(weight.detach() - &before[name]),
            &golden.steps,
            "20 steps",
        );
    }
}

fn settings(name: OptimiserKind, lr: f64, weight_decay: f64) -> Optimiser {
    Optimiser {
        name,
        lr,
        momentum: 0.9,
        weight_decay,
        beta1: 0.9,
        beta2: 0.999,
    }
}

#[test]
fn steps_of_a_teacher_are_pytorchs() {
    let settings = settings(OptimiserKind::Sgd, 1e-6, 1e-4);
    train(ModelKind::TeacherExpr, Targets::Hard, settings, &golden().teacher);
}

#[test]
fn steps_of_a_student_are_pytorchs() {
    let settings = settings(OptimiserKind::Adam, 1e-5, 0.0);
    train(ModelKind::Student, Targets::Soft, settings, &golden().student);
}
