//! Compares mini-Xception with Keras running the published file (`tests/golden/make_xception_golden.py`).

use crate::{Batch, Device, Imported, Network, WeightFile, describe, import_weights};
use affectmill_base::{Crop, ModelKind, Precision};
use affectmill_base::{IMAGENET_MEAN, IMAGENET_STD};
use affectmill_testing::media::cached;
use std::fs;

/// The formula of the golden script: `[3, 128, 128]`, normalised.
fn sample(n: usize) -> Vec<f32> {
    let n = n as f64;
    let pixel = |i: usize| {
        let (channel, y, x) = (i / 16384, (i / 128 % 128) as f64, (i % 128) as f64);
        let c = channel as f64;
        let phase = x * (n + 1.0) * 0.021 * (c + 1.0) + y * (n + 2.0) * 0.017 + c;
        let value = 127.5 + 60.0 * phase.sin() + 60.0 * ((x - y) * 0.013 * (n + 3.0)).cos();
        let value = value.clamp(0.0, 255.0) / 255.0;
        ((value - f64::from(IMAGENET_MEAN[channel])) / f64::from(IMAGENET_STD[channel])) as f32
    };
    (0..3 * 128 * 128).map(pixel).collect()
}

#[test]
fn the_published_weights_give_what_keras_gives() {
    let golden: Vec<Vec<f32>> =
        serde_json::from_str(include_str!("../../../tests/golden/xception.json")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("mini_xception.safetensors");
    let source = cached("expression/emotion_model.hdf5");
    let imported = import_weights(&source, None, Some(Crop::Square), &weights).unwrap();
    let Imported { kind, tensors, .. } = imported;
    // Two of the stem and the head with bias, four blocks of a shortcut with bias and two pairs with one bias each.
    assert_eq!(
        (kind, tensors),
        (ModelKind::MiniXception, 2 * 3 + 4 * (2 + 2 * 3))
    );
    let info = describe(&WeightFile::read(&weights).unwrap(), kind).unwrap();
    assert_eq!((info.untrained, info.crop.as_deref()), (false, Some("square")));

    let network = Network::load(
        &WeightFile::read(&weights).unwrap(),
        kind,
        Precision::Fp32,
        Device::cpu(),
    )
    .unwrap();
    let mut batch = Batch::new(golden.len(), Device::cpu()).unwrap();
    for n in 0..golden.len() {
        batch.push(&sample(n)).unwrap();
    }
    let rows = network.infer(&batch).unwrap();
    let mut worst = 0.0_f32;
    for (found, expected) in rows.chunks(7).zip(&golden) {
        for (found, expected) in found.iter().zip(expected) {
            worst = worst.max((found - expected).abs());
        }
    }
    let spread = golden
        .concat()
        .iter()
        .fold(0.0_f32, |most, value| most.max(value.abs()));
    println!("logits up to {spread:.2}, off by at most {worst:.1e}");
    assert_eq!(rows.len(), 7 * golden.len());
    assert!(spread > 1.0 && worst < 1e-4 * spread, "{worst} of {spread}");

    // Imported again it can state another recipe.
    let again = folder.path().join("again.safetensors");
    import_weights(&weights, None, Some(Crop::Box), &again).unwrap();
    assert_eq!(
        describe(&WeightFile::read(&again).unwrap(), kind)
            .unwrap()
            .crop
            .as_deref(),
        Some("box")
    );
}

#[test]
fn what_is_no_mini_xception_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (cached("expression/emotion_model.hdf5"), folder.path().join("out"));
    let refused = |path: &std::path::Path, kind| {
        let error = import_weights(path, kind, None, &out).unwrap_err().to_string();
        assert!(!out.exists());
        error
    };
    let error = refused(&source, Some(ModelKind::Student));
    assert!(error.contains("no student can be taken"), "{error}");

    // Cut off, and bytes set to what they are not, anywhere: never a panic, and what comes out has every tensor.
    let whole = fs::read(&source).unwrap();
    let damaged = folder.path().join("damaged.hdf5");
    let good = folder.path().join("good.safetensors");
    import_weights(&source, None, None, &good).unwrap();
    for part in 1..8 {
        fs::write(&damaged, &whole[..whole.len() * part / 8]).unwrap();
        // What the optimizer left is the second half, and nobody needs it.
        match import_weights(&damaged, None, None, &out) {
            Ok(_) => {
                assert!(
                    part >= 4 && fs::read(&out).unwrap() == fs::read(&good).unwrap(),
                    "{part} of 8"
                );
                fs::remove_file(&out).unwrap();
            }
            Err(error) => {
                assert!(
                    error.to_string().contains("damaged.hdf5") && !out.exists(),
                    "{error}"
                );
            }
        }
    }
    let mut seed = 1_u64;
    for _ in 0..200 {
        let mut bytes = whole.clone();
        for _ in 0..8 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            // The first 64 KiB contain most of the structure.
            let at = (seed >> 33) as usize % (1 << 16);
            bytes[at] ^= 1 << (seed >> 60 & 7);
        }
        fs::write(&damaged, bytes).unwrap();
        if import_weights(&damaged, None, None, &out).is_ok() {
            describe(&WeightFile::read(&out).unwrap(), ModelKind::MiniXception).unwrap();
            fs::remove_file(&out).unwrap();
        }
    }
}
