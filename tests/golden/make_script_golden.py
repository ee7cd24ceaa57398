"""TorchScript files as people bring them, and what PyTorch itself makes of pictures with them.

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install torch==2.11.0 numpy
    /tmp/golden/bin/python tests/golden/make_script_golden.py

scores_a.pt, scores_b.pt  scripted, with control flow: 10 numbers a face, in an order of their own, one of no use
units.pt                  traced: a tuple of valence [N], arousal [N] and action units [N, 12]
other_size.pt             takes faces of 112x112 only
crowd.pt                  what it says of a face hangs on the others
script.json               for each of 7 pictures, which `tests/suite/scripts.rs` makes by the same formula, the numbers of the first
                          three as eager PyTorch gives them, one picture at a time, and of its mirror image
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

HERE = Path(__file__).parent
PICTURES = 7
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def picture(n):
    """[3, 128, 128] float32: the picture of that number as networks see it."""
    c, y, x = np.mgrid[0:3, 0:128, 0:128]
    value = (30 * n * (c + 1) + x * (n + 2) + y // (c + 2)) % 256
    return (torch.from_numpy(value.astype(np.float32)) / 255 - MEAN) / STD


class Scores(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 7, stride=4)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(6, 10)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        for _ in range(x.size(1) // 3):
            x = x + torch.relu(self.second(x))
        return 2.0 * self.head(self.drop(x.mean((2, 3))))


class Units(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 8, 9, stride=5)
        self.head = nn.Linear(8, 14)

    def forward(self, x):
        x = self.head(torch.relu(self.body(x)).mean((2, 3)))
        return torch.tanh(x[:, 0]), torch.tanh(x[:, 1]), 3.0 * x[:, 2:]


class OtherSize(nn.Module):
    def forward(self, x):
        return x.view(-1, 3 * 112 * 112)[:, :2]


class Crowd(nn.Module):
    def forward(self, x):
        return (x - x.mean(0)).mean((2, 3))[:, :2]


def main():
    torch.manual_seed(9)
    networks = {"scores_a": Scores(), "scores_b": Scores(), "units": Units()}
    golden = {}
    with torch.no_grad():
        for name, network in networks.items():
            for buffer in network.buffers():
                if buffer.dtype == torch.float32:
                    buffer.copy_(torch.rand_like(buffer) + 0.5)
            network.eval()
            rows = {"faces": [], "mirrored": []}
            for n in range(PICTURES):
                for side, x in [("faces", picture(n)), ("mirrored", picture(n).flip(2))]:
                    given = network(x[None])
                    if isinstance(given, tuple):
                        given = torch.cat([part.view(1, -1) for part in given], 1)
                    rows[side].append([float(f"{value:.7g}") for value in given[0].tolist()])
            golden[name] = rows
        torch.jit.save(torch.jit.script(networks["scores_a"]), HERE / "scores_a.pt")
        # In training mode, as somebody may forget it.
        torch.jit.save(torch.jit.script(networks["scores_b"].train()), HERE / "scores_b.pt")
        torch.jit.save(torch.jit.trace(networks["units"], picture(0)[None]), HERE / "units.pt")
    torch.jit.save(torch.jit.script(OtherSize()), HERE / "other_size.pt")
    torch.jit.save(torch.jit.script(Crowd()), HERE / "crowd.pt")
    (HERE / "script.json").write_text(json.dumps(golden, indent=1) + "\n")


main()
