//! The speed of a step.

use super::*;
use affectmill_base::Precision;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

/// Seconds of a step beside PyTorch's, in turns, with a Python that has torch and torchvision:
/// `AFFECTMILL_TORCH=/venv/bin/python cargo test --lib a_step_beside -- --nocapture`; `AFFECTMILL_STEP="32 2 bf16"` asks for another
/// batch, number of threads and precision.
#[test]
fn a_step_beside_pytorchs() {
    let Some(python) = std::env::var_os("AFFECTMILL_TORCH") else {
        return;
    };
    let said = std::env::var("AFFECTMILL_STEP").unwrap_or_else(|_| "16 2 fp32".into());
    let arguments: Vec<&str> = said.split(' ').collect();
    let (batch, threads): (usize, usize) = (arguments[0].parse().unwrap(), arguments[1].parse().unwrap());
    let precision = if arguments[2] == "bf16" {
        Precision::Bf16
    } else {
        Precision::Fp32
    };
    let mut peer = std::process::Command::new(python)
        .arg(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/golden/train_peer.py"))
        .args(&arguments)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (mut orders, mut answers) = (
        peer.stdin.take().unwrap(),
        BufReader::new(peer.stdout.take().unwrap()),
    );

    affectmill_nn::set_threads(threads);
    let kind = ModelKind::Student;
    let model = Trainable::new(golden_state(kind), kind, 3, precision, Device::cpu()).unwrap();
    let objective = Objective::new(kind, distill(Targets::Soft));
    let mut optimiser = Optimise::new(settings(OptimiserKind::Adam, 1e-5, 0.0), 0, BTreeMap::new());
    let inputs: Vec<f32> = (0..batch).flat_map(|n| golden_sample(n % 6)).collect();
    let rows: Vec<Labels> = (0..batch).map(|n| labels(n % 6)).collect();
    let mut step = || {
        let began = std::time::Instant::now();
        let outputs = model.forward(&batch_tensor(&inputs).unwrap()).unwrap();
        let loss = objective
            .loss(&outputs, &rows, &objective.counts(rows.iter()))
            .unwrap();
        assert!(loss.total.double_value(&[]).is_finite());
        let weights: Vec<&Tensor> = model.weights().values().collect();
        let gradients = Tensor::run_backward(&[&loss.total], &weights, false, false);
        optimiser.step(model.weights(), &gradients).unwrap();
        began.elapsed().as_secs_f64()
    };
    let mut theirs = || {
        writeln!(orders).unwrap();
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        line.trim().parse::<f64>().unwrap()
    };
    let mut rounds: Vec<[f64; 2]> = (0..12).map(|_| [step(), theirs()]).skip(2).collect();
    let mut ratios: Vec<f64> = rounds.iter().map(|[ours, theirs]| ours / theirs).collect();
    ratios.sort_by(f64::total_cmp);
    let mut median = |side: usize| {
        rounds.sort_by(|a, b| a[side].total_cmp(&b[side]));
        rounds[rounds.len() / 2][side]
    };
    let (ours, theirs, ratio) = (median(0), median(1), ratios[ratios.len() / 2]);
    println!(
        "a step of {said}: {ours:.3} s, PyTorch {theirs:.3} s, ratio {ratio:.3} ({:.3} to {:.3})",
        ratios[0], ratios[9]
    );
    assert!(ratio <= 1.05, "a step takes {ratio} times as long as PyTorch's");
    drop(orders);
    peer.wait().unwrap();
}
