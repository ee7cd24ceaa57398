"""The plain program that people write today: PyAV, PyTorch, torchvision. Reads "LAYOUT PRECISION" lines, answers rates.

Usage: bench_peer.py VIDEO THREADS. LAYOUT: default, channels_last, compiled (channels-last too, with freezing). A third word,
"mtcnn", has faces found in every frame first, by facenet-pytorch's MTCNN, batch by batch; rates are frames a second then.
"""

import functools
import json
import os
import sys
import time

answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)  # whatever libraries print

import av  # noqa: E402
import torch  # noqa: E402
import torch._inductor.config  # noqa: E402
from torch.nn.functional import interpolate  # noqa: E402
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone  # noqa: E402

video, threads = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(threads)
torch.set_grad_enabled(False)
torch._inductor.config.freezing = True
BATCH = 32
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


class Student(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fpn = resnet_fpn_backbone(backbone_name="resnet50", weights=None)
        self.heads = torch.nn.ModuleList(torch.nn.Linear(1280, outputs) for outputs in (2, 7, 12))

    def forward(self, x):
        levels = self.fpn(x).values()
        embedding = torch.cat([level.mean((2, 3)) for level in levels], 1)
        return torch.cat([head(embedding) for head in self.heads], 1)


@functools.cache
def network(layout, precision):
    model = Student().eval().to(PRECISIONS[precision])
    if layout != "default":
        model = model.to(memory_format=torch.channels_last)
    return torch.compile(model) if layout == "compiled" else model


@functools.cache
def mtcnn():
    from facenet_pytorch import MTCNN

    # A least face of 40 pixels makes it faster than its default of 20.
    return MTCNN(image_size=128, margin=0, min_face_size=40, keep_all=True, post_process=False)


def label(layout, precision, detector=None):
    model, frames, labels = network(layout, precision), [], []

    def flush():
        real = len(frames)
        while layout == "compiled" and len(frames) < BATCH:  # one shape, or it compiles again
            frames.append(frames[-1])
        batch = (torch.cat(frames) - MEAN) / STD
        if layout != "default":
            batch = batch.contiguous(memory_format=torch.channels_last)
        labels.append(model(batch.to(PRECISIONS[precision]))[:real].float())
        frames.clear()

    if detector:
        return label_found(model, layout)
    with av.open(video) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            picture = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)[None]
            frames.append(interpolate(picture.float() / 255, (128, 128), mode="bilinear", antialias=True))
            if len(frames) == BATCH:
                flush()
    if frames:
        flush()
    return torch.cat(labels)


def label_found(model, layout):
    """As `label`, with the faces found first; one result a frame."""
    pictures, results = [], []

    def flush():
        for faces in mtcnn()(pictures):
            if faces is None:
                results.append(None)
                continue
            batch = (faces / 255 - MEAN) / STD
            if layout != "default":
                batch = batch.contiguous(memory_format=torch.channels_last)
            results.append(batch)
        waiting = [batch for batch in results[-len(pictures) :] if batch is not None]
        if waiting:
            model(torch.cat(waiting))
        pictures.clear()

    with av.open(video) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            pictures.append(frame.to_ndarray(format="rgb24"))
            if len(pictures) == BATCH:
                flush()
    if pictures:
        flush()
    return results


warm = set()
for line in sys.stdin:
    variant = tuple(line.split())
    if variant not in warm:
        label(*variant)
        warm.add(variant)
    began = time.perf_counter()
    count = len(label(*variant))
    answers.write(json.dumps({"rate": count / (time.perf_counter() - began)}) + "\n")
