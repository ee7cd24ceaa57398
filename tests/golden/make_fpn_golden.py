"""Writes the golden values that hold src/nn against torch and torchvision.

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install torch==2.11.0 torchvision==0.26.0
    /tmp/golden/bin/python tests/golden/make_fpn_golden.py

fpn.json          outputs of the student and the teachers for 4 inputs, computed in float64 by torchvision's own
                  resnet_fpn_backbone. No weights are stored: both sides fill them by the formula below.
tiny.{pt,pth,ckpt} checkpoints of a few small tensors as torch really writes them, with tiny.json holding their
                  expected contents: fp32, half, bfloat16, double, strided views, shared storage, other objects.

`--full FOLDER` also writes full-size checkpoints (100 MB each) for a parity check by hand.
"""

import argparse
import json
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
import torchvision
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

HERE = Path(__file__).parent
SAMPLES = 4
KINDS = {
    "student": ["va", "expr", "au"],
    "teacher_va": ["va"],
    "teacher_expr": ["expr"],
    "teacher_au": ["au"],
}
OUTPUTS = {"va": 2, "expr": 7, "au": 12}


def uniform(name, count):
    """`count` numbers in [-1, 1), multiples of 2^-23: splitmix64 over the FNV-1a hash of the name."""
    with np.errstate(over="ignore"):
        seed = np.uint64(0xCBF29CE484222325)
        for byte in name.encode():
            seed = (seed ^ np.uint64(byte)) * np.uint64(0x100000001B3)
        x = seed + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(40)).astype(np.float64) / 2**23 - 1


def weight(kind, name, shape):
    """The float32 tensor `name` of a model of `kind`."""
    u = uniform(f"{kind}/{name}", int(np.prod(shape)))
    if len(shape) == 4:
        gain = 6.0 if name.startswith("body.") else 3.0
        value = u * np.sqrt(gain / (shape[1] * shape[2] * shape[3]))
    elif len(shape) == 2:
        value = u * np.sqrt(3.0 / shape[1])
    elif name.endswith("running_var"):
        value = 1.0 + 0.5 * u
    elif name.endswith("bn3.weight"):
        value = 0.25 + 0.125 * u
    elif name.startswith("body.") and name.endswith("weight"):
        value = 1.0 + 0.25 * u
    else:
        value = 0.1 * u
    return torch.from_numpy(value.astype(np.float32).reshape(shape))


def sample(n):
    """Input n, [3, 128, 128] float32: blocks of 16x16 plus noise."""
    blocks = uniform(f"input/{n}/blocks", 3 * 8 * 8).reshape(3, 8, 8)
    noise = uniform(f"input/{n}/noise", 3 * 128 * 128).reshape(3, 128, 128)
    value = 2.0 * blocks.repeat(16, axis=1).repeat(16, axis=2) + 0.5 * noise
    return torch.from_numpy(value.astype(np.float32))


class Model(torch.nn.Module):
    """The paper's layout: backbone, mean of every level, linear heads."""

    def __init__(self, kind):
        super().__init__()
        self.backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=3)
        heads = {}
        for task in KINDS[kind]:
            heads[task] = torch.nn.Module()
            heads[task].linear = torch.nn.Linear(1280, OUTPUTS[task])
            name = f"{task.upper()}_head" if kind == "student" else "head"
            self.add_module(name, heads[task])
        self.heads = list(heads.values())
        state = {}
        for key, tensor in self.state_dict().items():
            name = key.removeprefix("backbone.")
            for task in KINDS[kind]:
                for spelling in (f"{task.upper()}_head.linear.", "head.linear."):
                    if name.startswith(spelling):
                        name = f"heads.{task}." + name.removeprefix(spelling)
            state[key] = weight(kind, name, tuple(tensor.shape))
        self.load_state_dict(state)
        self.eval()

    def forward(self, x):
        levels = self.backbone(x)
        assert list(levels) == ["0", "1", "2", "3", "pool"]
        embedding = torch.cat([level.mean(dim=(2, 3)) for level in levels.values()], dim=1)
        return torch.cat([head.linear(embedding) for head in self.heads], dim=1)


def golden_outputs():
    inputs = torch.stack([sample(n) for n in range(SAMPLES)])
    outputs = {}
    with torch.no_grad():
        for kind in KINDS:
            single = Model(kind)(inputs)
            double = Model(kind).double()(inputs.double())
            print(kind, "fp32 against fp64:", (single - double).abs().max().item(), file=sys.stderr)
            print(double.numpy().round(3), file=sys.stderr)
            outputs[kind] = double.tolist()
    return outputs


class Callback:
    """Something a training framework might pickle beside the weights."""

    def __init__(self):
        self.best = {"score": 0.5, "history": [1, 2, 3]}


def tiny_tensors():
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 8 - 1
    return OrderedDict(
        [
            ("body.conv1.weight", base),
            ("transposed", base.t()),  # the same storage, other strides
            ("window", base[1:3, 2:6:2]),  # the same storage, an offset and a step
            ("half", torch.tensor([0.1, -2.5, 65504.0, 6e-8], dtype=torch.float16)),
            ("bfloat16", torch.tensor([0.1, -2.5, 3e38], dtype=torch.bfloat16)),
            ("double", torch.tensor([0.1, -1e30], dtype=torch.float64)),
            ("scalar", torch.tensor(3.25)),
            ("expanded", torch.tensor([[1.5], [2.5]]).expand(2, 3)),  # stride 0
            ("empty", torch.zeros(0, 3)),
            ("parameter", torch.nn.Parameter(torch.tensor([7.0, 8.0]))),
            ("bn.num_batches_tracked", torch.tensor(9)),
        ]
    )


def write_tiny():
    tensors = tiny_tensors()
    expected = {
        name: {"shape": list(t.shape), "data": t.detach().float().flatten().tolist()}
        for name, t in tensors.items()
        if t.is_floating_point()
    }
    (HERE / "tiny.json").write_text(json.dumps(expected, indent=1) + "\n")
    torch.save(tensors, HERE / "tiny.pt")
    torch.save(tensors, HERE / "tiny.pth", _use_new_zipfile_serialization=False)
    lightning = {
        "epoch": 3,
        "pytorch-lightning_version": "2.0.0",
        "callbacks": {"ModelCheckpoint": {"best": Path("a/b.ckpt"), "object": Callback(), "set": {1, 2}}},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(5.0), "exp_avg": torch.ones(3)}}}],
        "hyper_parameters": {"lr": 1e-3, "betas": (0.9, 0.999), "big": 1 << 80, "bytes": b"\0\1", "none": None},
        "state_dict": tensors,
        "shape": torch.Size([1, 2]),
        "dtype": torch.float32,
    }
    torch.save(lightning, HERE / "tiny.ckpt", pickle_protocol=4)


def write_full(folder):
    """Full-size checkpoints in the layouts that import-weights must read."""
    student = OrderedDict(("model." + name, t) for name, t in Model("student").state_dict().items())
    student["model.backbone.body.bn1.num_batches_tracked"] = torch.tensor(1)
    torch.save({"state_dict": student, "callbacks": {"c": Callback()}, "epoch": 1}, folder / "student.ckpt")
    teacher = Model("teacher_expr").state_dict()
    old = OrderedDict((name.replace(".0.weight", ".weight").replace(".0.bias", ".bias")
                       if "_blocks." in name else name, t) for name, t in teacher.items())
    torch.save(old, folder / "teacher_expr.pth", _use_new_zipfile_serialization=False)
    torch.save({"module." + name: t for name, t in Model("teacher_au").state_dict().items()}, folder / "teacher_au.pt")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", type=Path, metavar="FOLDER")
    full = parser.parse_args().full
    print(torch.__version__, torchvision.__version__, file=sys.stderr)
    if full:
        write_full(full)
        return
    (HERE / "fpn.json").write_text(json.dumps(golden_outputs(), indent=1) + "\n")
    write_tiny()


if __name__ == "__main__":
    main()
