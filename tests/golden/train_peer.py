"""One training step of the student in plain PyTorch for each line on standard input; its seconds go to standard output.

What people write: torchvision's resnet_fpn_backbone, FrozenBatchNorm2d, torch.optim.Adam, channels-last. src/training/tests
takes turns with it. Arguments: batch, threads, `fp32` or `bf16` (autocast).
"""

import sys
import time

import torch
import torch.nn.functional as F
from make_fpn_golden import Model, sample

batch, threads, precision = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(threads)
model = Model("student").to(memory_format=torch.channels_last)
optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-5)
inputs = torch.stack([sample(n % 6) for n in range(batch)]).to(memory_format=torch.channels_last)
va, expr, au = torch.rand(batch, 2), torch.randn(batch, 7), torch.randn(batch, 12)
for _ in sys.stdin:
    begin = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        outputs = model(inputs)
    outputs = outputs.float()
    soft = F.kl_div(F.log_softmax(outputs[:, 2:9] / 2, 1), F.softmax(expr / 2, 1), reduction="batchmean") * 4
    loss = F.mse_loss(outputs[:, :2], va) + soft + F.binary_cross_entropy_with_logits(outputs[:, 9:], au.sigmoid())
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    loss.item()
    print(time.perf_counter() - begin, flush=True)
