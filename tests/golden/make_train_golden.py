"""Writes train.json, which holds src/training against torch and torchvision: losses, gradients and 20 steps of training.

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install torch==2.11.0 torchvision==0.26.0
    /tmp/golden/bin/python tests/golden/make_train_golden.py

Everything is computed in float64. No weights, pictures or labels are stored: both sides fill them by the formula of
make_fpn_golden.py. Of a tensor (a gradient; what 20 steps added to a weight) two numbers are kept: its norm and its
product with a probe, numbers of the same formula.

losses    each way of making a loss out of 6 rows of outputs, and its gradient
teacher   an expression teacher on human labels: SGD with momentum and weight decay
student   a student on soft labels of teachers, mixed with human ones where there are any: Adam

The learning rates are far below the published ones, which these random weights would run away under.
"""

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from make_fpn_golden import Model, sample, uniform

HERE = Path(__file__).parent
STEPS, BATCH, TEMPERATURE, HUMAN_WEIGHT = 20, 2, 2.0, 0.75
SLICES = {"va": slice(0, 2), "expr": slice(2, 9), "au": slice(9, 21)}


def numbers(name, *shape):
    return torch.from_numpy(uniform(name, math.prod(shape)).reshape(shape))


def labels(n):
    """What is known of picture n: a teacher's 21 outputs, and by people what its number says."""
    teacher = 2 * numbers(f"teacher/{n}", 21)
    human = numbers(f"human/{n}", 14)
    va = human[:2] if n % 2 == 0 else None
    expr = int((human[2].item() + 1) * 3.5) if n % 3 == 0 else None
    au = (human[2:] > 0).double() if n % 4 == 1 else None
    return teacher, {"va": va, "expr": expr, "au": au}


def row_loss(task, output, target, hard_or_soft):
    """The loss of one row. `target` is a person's label, or with `hard_or_soft` a teacher's outputs."""
    if hard_or_soft == "hard":
        target = {"va": lambda t: t.clamp(-0.99, 0.99), "expr": lambda t: int(t.argmax()), "au": lambda t: (t > 0.5).double()}[task](target)
    if task == "va":
        return F.mse_loss(output, target)
    if task == "au":
        return F.binary_cross_entropy_with_logits(output, target.sigmoid() if hard_or_soft == "soft" else target)
    if hard_or_soft == "soft":
        p = F.softmax(target / TEMPERATURE, dim=0)
        q = F.log_softmax(output / TEMPERATURE, dim=0)
        return TEMPERATURE**2 * F.kl_div(q, p, reduction="sum")
    return F.cross_entropy(output[None], torch.tensor([target]))


def loss(tasks, outputs, rows, hard_or_soft):
    """`hard_or_soft` None: people's labels alone."""
    total, at = 0.0, 0
    for task in tasks:
        width = SLICES[task].stop - SLICES[task].start
        losses = []
        for output, (teacher, human) in zip(outputs[:, at : at + width], rows):
            by_human = None if human[task] is None else row_loss(task, output, human[task], None)
            by_teacher = hard_or_soft and row_loss(task, output, teacher[SLICES[task]], hard_or_soft)
            if by_human is not None and by_teacher is not None:
                losses.append(HUMAN_WEIGHT * by_human + (1 - HUMAN_WEIGHT) * by_teacher)
            elif by_human is not None or by_teacher is not None:
                losses.append(by_teacher if by_human is None else by_human)
        total = total + (sum(losses) / len(losses) if losses else 0.0 * outputs.sum())
        at += width
    return total


def digest(name, tensor):
    tensor = tensor.detach().flatten()
    return [tensor.norm().item(), (tensor @ numbers(f"probe/{name}", tensor.numel())).item()]


def canonical(name, kind):
    name = name.removeprefix("backbone.")
    for task in SLICES:
        name = name.replace(f"{task.upper()}_head.linear.", f"heads.{task}.")
    return name.replace("head.linear.", f"heads.{kind.removeprefix('teacher_')}.")


def train(kind, tasks, optimiser, hard_or_soft):
    model = Model(kind).double()
    trained = {canonical(name, kind): p for name, p in model.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in trained.items()}
    optimiser = optimiser(trained.values())
    golden = {"losses": []}
    for step in range(STEPS):
        numbers_ = [(step * BATCH + i) % 6 for i in range(BATCH)]
        inputs = torch.stack([sample(n) for n in numbers_]).double()
        value = loss(tasks, model(inputs), [labels(n) for n in numbers_], hard_or_soft)
        optimiser.zero_grad()
        value.backward()
        if step == 0:
            golden["gradients"] = {name: digest(name, p.grad) for name, p in trained.items()}
        optimiser.step()
        golden["losses"].append(value.item())
        print(kind, step, value.item(), flush=True)
    golden["steps"] = {name: digest(name, p.detach() - before[name]) for name, p in trained.items()}
    return golden


def main():
    golden = {"losses": {}}
    for name in ("human", "hard", "soft"):
        outputs = (2 * numbers("outputs", 6, 21)).requires_grad_()
        value = loss(list(SLICES), outputs, [labels(n) for n in range(6)], None if name == "human" else name)
        value.backward()
        golden["losses"][name] = {"loss": value.item(), "gradient": outputs.grad.flatten().tolist()}
    golden["teacher"] = train(
        "teacher_expr", ["expr"], lambda p: torch.optim.SGD(p, lr=1e-6, momentum=0.9, weight_decay=1e-4), "hard"
    )
    golden["student"] = train("student", list(SLICES), lambda p: torch.optim.Adam(p, lr=1e-5), "soft")
    (HERE / "train.json").write_text(json.dumps(golden, indent=0) + "\n")


if __name__ == "__main__":
    main()
