"""Golden outputs of mini-Xception: the published weights run by Keras itself.

    python make_xception_golden.py emotion_model.hdf5 > xception.json

Needs tensorflow, tf_keras (Keras 2, which wrote the file) and numpy. The inputs are crops of 128×128 RGB, smooth enough
to resemble pictures, from the formula that `src/nn/tests.rs` repeats; grey and half size are made here by NumPy. The
outputs are the values before the softmax, in the order Neutral, Anger, Disgust, Fear, Happiness, Sadness, Surprise.
"""

import json
import sys

import numpy as np
import tf_keras

SAMPLES = 6
OURS = ["neutral", "angry", "disgust", "fear", "happy", "sad", "surprise"]
THEIRS = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]


def sample(n: int) -> np.ndarray:
    """`[128, 128, 3]` of 0…255: waves whose frequency depends on the sample and the channel."""
    y, x = np.mgrid[0:128, 0:128].astype(np.float64)
    channels = []
    for c in range(3):
        phase = x * (n + 1) * 0.021 * (c + 1) + y * (n + 2) * 0.017 + c
        channels.append(127.5 + 60.0 * np.sin(phase) + 60.0 * np.cos((x - y) * 0.013 * (n + 3)))
    return np.clip(np.stack(channels, -1), 0.0, 255.0)


model = tf_keras.models.load_model(sys.argv[1], compile=False)
pooled = [layer for layer in model.layers if "global_average_pooling2d" in layer.name]
logits = tf_keras.Model(model.input, pooled[-1].output)
outputs = []
for n in range(SAMPLES):
    grey = sample(n) @ np.array([0.299, 0.587, 0.114])
    half = grey.reshape(64, 2, 64, 2).mean((1, 3))
    row = logits(((half / 255.0 - 0.5) * 2.0)[None, :, :, None].astype(np.float32)).numpy()[0]
    outputs.append([float(row[THEIRS.index(name)]) for name in OURS])
json.dump(outputs, sys.stdout, indent=1)
print()
