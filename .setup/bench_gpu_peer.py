"""PyTorch's side of bench_gpu.py: torchvision's ResNet-50 with its feature pyramid and the student's heads, on batches that lie on
the GPU already. Usage: bench_gpu_peer.py BATCH PRECISION; prints a JSON line for each way of running it."""

import json
import statistics
import sys

import torch
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

torch.set_grad_enabled(False)
torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
batch, kind = int(sys.argv[1]), {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[sys.argv[2]]


class Student(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fpn = resnet_fpn_backbone(backbone_name="resnet50", weights=None)
        self.heads = torch.nn.ModuleList(torch.nn.Linear(1280, outputs) for outputs in (2, 7, 12))

    def forward(self, x):
        levels = self.fpn(x).values()
        embedding = torch.cat([level.mean((2, 3)) for level in levels], 1)
        return torch.cat([head(embedding) for head in self.heads], 1)


def rate(model, x) -> float:
    for _ in range(5):
        model(x)
    times = []
    for _ in range(60):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        model(x)
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return batch / statistics.median(times) * 1e3


model = Student().eval().to("cuda", kind).to(memory_format=torch.channels_last)
x = torch.randn(batch, 3, 128, 128, device="cuda").to(kind).contiguous(memory_format=torch.channels_last)
say = lambda name, value: print(json.dumps({name: value, "card": torch.cuda.get_device_name()}), flush=True)
say("eager", rate(model, x))
import torch._inductor.config  # noqa: E402

torch._inductor.config.freezing = True
say("compiled", rate(torch.compile(model), x))
torch._dynamo.reset()
say("compiled, max-autotune", rate(torch.compile(model, mode="max-autotune"), x))
