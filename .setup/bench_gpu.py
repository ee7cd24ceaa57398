#!/usr/bin/env python3
"""Measures affectmill on an NVIDIA GPU, beside plain PyTorch on the same card in the same run, and checks what only a GPU can show.

    bench_gpu.py --affectmill BINARY --video H264_1080P [--other VIDEO ...] [--faces VIDEO] [--python PYTHON] [-o REPORT.json]

whole    the whole pipeline: one worker, and several on the one GPU, over copies of the video
models   models alone, by batch and precision: the student, and the student with three teachers
drift    of the labels: precisions against fp32, NVDEC against the CPU, the GPU against the CPU, for each head
same     two runs give the same bytes
damage   files with flipped bytes: NVDEC beside the CPU, which takes over where NVDEC refuses something; every frame keeps its number
decode   decoding alone, by file: NVDEC, and one thread of the CPU
memory   a GPU with ever less memory left: a batch is halved, then refused with advice
torch    PyTorch with torchvision's ResNet-50 and feature pyramid, channels last: eager, compiled, compiled with max-autotune (which
         takes many minutes)

Parts run in this order; `--only` names some. PYTHON needs torch with CUDA and torchvision; without it the last two are left
out. This Python needs pyarrow. Labels come from UNTRAINED weights: they serve to measure.
"""

import argparse
import filecmp
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KINDS = {"student": "student", "va": "teacher_va", "expr": "teacher_expr", "au": "teacher_au"}
PARTS = ["whole", "models", "drift", "same", "damage", "decode", "memory", "torch"]
PEER = Path(__file__).with_name("bench_gpu_peer.py")


# Takes the GPU's memory but for so many GiB, until its input ends.
HOG = """
import sys, torch
free, _ = torch.cuda.mem_get_info()
taken = torch.empty(int(free - float(sys.argv[1]) * 2**30), dtype=torch.uint8, device="cuda")
print("taken", flush=True)
sys.stdin.read()
"""


class Failed(Exception):
    pass


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--affectmill", required=True, type=Path)
    parser.add_argument("--video", required=True, type=Path)
    parser.add_argument("--other", nargs="*", default=[], type=Path, help="files to decode, of other codecs and sizes")
    parser.add_argument("--faces", type=Path, help="a video to detect faces in")
    parser.add_argument("--detector", type=Path, help="the detector's weights, for --faces")
    parser.add_argument("--python", type=Path)
    parser.add_argument("--batches", default="32,128,256,512")
    parser.add_argument("--precisions", default="fp32,bf16,fp16")
    parser.add_argument("--workers", default="1,4,8,14")
    parser.add_argument("--copies", type=int, default=28, help="of the video, for several workers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(PARTS), help="parts of it")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    if args.faces and not args.detector:
        parser.error("--faces needs --detector")
    strangers = set(args.only.split(",")) - set(PARTS)
    if strangers:
        parser.error(f"--only knows no {', '.join(sorted(strangers))}")
    return args


class Bench:
    def __init__(self, args: argparse.Namespace, work: Path):
        self.args, self.work = args, work
        self.report: dict = {}
        for name, kind in KINDS.items():
            self.run(
                "init-weights", "--kind", kind, "--seed", "1", "--crop", "arcface112", "-o", work / f"{name}.safetensors"
            )

    def run(self, *command, codes=(0,), **extra) -> str:
        command = [str(self.args.affectmill.absolute()), *map(str, command)]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, **extra)
        if done.returncode not in codes:
            raise Failed(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr[-2000:]}")
        return done.stdout

    def tell(self, part: str, row) -> None:
        """Prints a row of a part, and keeps it: time on a GPU is dear, and may end at any moment."""
        say(row)
        self.report.setdefault(part, []).append(row)
        if self.args.output:
            self.args.output.write_text(json.dumps(self.report, indent=1))

    def job(self, videos: Path, output: str, models=("student",), precision="bf16", batch=256, decode="nvdec", detect=False) -> Path:
        text = [f'[input]\nuri = "{videos}"\ndecode = "{decode}"\n[output]\nuri = "{self.work / output}"\nshard_frames = 500']
        if detect:
            text.append(f'[faces]\nmode = "detect"\ndetector = "{self.args.detector.absolute()}"\ncrop = "arcface112"')
        else:
            text.append('[faces]\nmode = "full_frame"')
        text.append(f"[run]\nbatch = {batch}")
        for name in models:
            weights = self.work / f"{name}.safetensors"
            text.append(
                f'[[models]]\nname = "{name}"\nkind = "{KINDS[name]}"\nweights = "{weights}"\nprecision = "{precision}"'
            )
        path = self.work / "job.toml"
        path.write_text("\n".join(text) + "\n")
        return path

    def rates(self, job: Path) -> dict:
        report = json.loads(self.run("bench", job, "--rounds", self.args.rounds, "--json"))
        return report["median"] | ({"batches in halves": True} if report["halves"] else {})

    # ---- the parts ---------------------------------------------------------------------------------------------------

    def models(self) -> None:
        short = self.short()
        for precision in self.args.precisions.split(","):
            for batch in map(int, self.args.batches.split(",")):
                row = {"precision": precision, "batch": batch}
                for name, models in (("student", ["student"]), ("student + 3 teachers", list(KINDS))):
                    if name == "student" or (precision, batch) == ("bf16", 256):
                        row[name] = self.rates(self.job(short, "bench", models, precision, batch))["model"]
                self.tell("models", row)

    def short(self) -> Path:
        """The shortest of the files: the models do not care."""
        return min([self.args.video, *self.args.other], key=lambda path: path.stat().st_size).absolute()

    def decode(self) -> None:
        for video in [self.args.video, *self.args.other]:
            row = {"video": video.name}
            for decode in ("nvdec", "cpu"):
                row[decode] = self.rates(self.job(video.absolute(), "bench", decode=decode))["decode"]
            self.tell("decode", row)

    def whole(self) -> None:
        rates = self.rates(self.job(self.args.video.absolute(), "bench"))
        rates["of limit"] = rates["whole"] / min(rates["decode"], rates["model"])
        self.tell("whole", rates)
        copies = links(self.args.video.absolute(), self.work / "copies", self.args.copies)
        for workers in map(int, self.args.workers.split(",")):
            for decode in ("nvdec", "cpu"):
                shutil.rmtree(self.work / "whole", ignore_errors=True)
                job = self.job(copies, "whole", decode=decode)
                began = time.monotonic()
                self.run("run", job, "--set", f"run.workers={workers}")
                seconds = time.monotonic() - began
                row = {"workers": workers, "decode": decode, "seconds": seconds}
                row.update(labelling(self.work / "whole", workers))
                self.tell("whole", row)

    def memory(self) -> None:
        if not self.args.python:
            return
        for left in (6.0, 3.0, 2.2, 1.6, 1.2):
            with subprocess.Popen([self.args.python, "-c", HOG, str(left)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as hog:
                if hog.stdout.readline().strip() != b"taken":
                    raise Failed(f"the GPU's memory could not be taken but for {left} GiB")
                try:
                    row = {"GiB left": left, **self.rates(self.job(self.short(), "bench", precision="fp32", batch=1024))}
                except Failed as failure:
                    row = {"GiB left": left, "refused": str(failure).splitlines()[-1]}
                hog.stdin.close()
            self.tell("memory", row)

    def torch(self) -> None:
        if not self.args.python:
            return
        command = [str(self.args.python), str(PEER), "256", "bf16"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as peer:
            for line in peer.stdout or []:
                if line.startswith("{"):
                    self.tell("torch", json.loads(line))
        if peer.returncode:
            self.tell("torch", {"PyTorch ended with": peer.returncode})
        for name, models in (("student", ["student"]), ("student + 3 teachers", list(KINDS))):
            self.tell("torch", {name: self.rates(self.job(self.short(), "bench", models))["model"]})

    def drift(self) -> None:
        video = (self.args.faces or self.args.video).absolute()
        detect = self.args.faces is not None
        runs = {"reference: fp32, decoded by the CPU": ("fp32", "cpu", {})}
        runs["fp32 on the CPU itself"] = ("fp32", "cpu", {"CUDA_VISIBLE_DEVICES": ""})
        for precision in self.args.precisions.split(","):
            runs[f"{precision}, decoded by NVDEC"] = (precision, "nvdec", {})
        tables = {}
        for n, (name, (precision, decode, extra)) in enumerate(runs.items()):
            job = self.job(video, f"drift{n}", list(KINDS), precision, decode=decode, detect=detect)
            self.run("run", job, env=os.environ | extra)
            tables[name] = read(self.work / f"drift{n}")
            say({name: labelling(self.work / f"drift{n}", 1)})
        reference = tables.pop("reference: fp32, decoded by the CPU")
        for name, table in tables.items():
            self.tell("drift", {name: apart(reference, table)})

    def same(self) -> None:
        """One worker, then two that share the GPU, over four videos."""
        video = (self.args.faces or self.args.video).absolute()
        folder = links(video, self.work / "four", 4)
        for n in (0, 1):
            job = self.job(folder, f"same{n}", detect=self.args.faces is not None)
            self.run("run", job, "--set", f"run.workers={n + 1}")
        parts = [sorted((self.work / f"same{n}/labels").rglob("*.parquet")) for n in (0, 1)]
        names = [[part.name for part in side] for side in parts]
        equal = bool(names[0]) and names[0] == names[1] and all(filecmp.cmp(a, b, shallow=False) for a, b in zip(*parts))
        self.tell("same", {"two runs give the same bytes": equal, "parts": len(names[0])})


    def damage(self) -> None:
        for video in [self.args.video, *self.args.other[:1]]:
            dice, data = random.Random(1), bytearray(video.read_bytes())
            for _ in range(24):
                # Tables of a container lie at its ends.
                data[dice.randrange(len(data) * 3 // 10, len(data) * 7 // 10)] ^= 1 << dice.randrange(8)
            folder = self.work / f"damaged-{video.stem}"
            folder.mkdir()
            (folder / video.name).write_bytes(data)
            tables, row = {}, {"video": video.name}
            for decode in ("cpu", "nvdec"):
                output = f"{folder.name}-{decode}"
                # 3: a video was not whole.
                self.run("run", self.job(folder, output, decode=decode), codes=(0, 3))
                tables[decode] = read(self.work / output)
                row[f"left out by {decode}"] = int((tables[decode]["status"] != "ok").sum())
                row[f"{decode} fell back"] = fell_back(self.work / output)
            cpu, nvdec = tables["cpu"], tables["nvdec"]
            row["the same frames"] = cpu["frame"].tolist() == nvdec["frame"].tolist()
            row["the same times"] = cpu["timestamp_us"].tolist() == nvdec["timestamp_us"].tolist()
            row["apart"] = apart(cpu, nvdec)
            self.tell("damage", row)


def links(video: Path, folder: Path, count: int) -> Path:
    """A folder of so many videos that are one."""
    folder.mkdir()
    for n in range(count):
        os.symlink(video, folder / f"{n:03}{video.suffix}")
    return folder


def labelling(output: Path, workers: int) -> dict:
    """What the commit records tell: rows, rows a second while workers labelled, and how their time was spent."""
    records = [json.loads(path.read_text()) for path in (output / "_affectmill").rglob("*.json")]
    shards = [record for record in records if "seconds" in record and "part" in record]
    if not shards:
        return {}
    rows = sum(record["part"]["rows"] for record in shards)
    busy = {key: sum(record["seconds"].get(key, 0) for record in shards) for key in shards[0]["seconds"]}
    return {"rows": rows, "rate": rows / (busy["total"] / workers), "busy": busy}


def read(output: Path) -> dict:
    """The columns of a label set of one video as NumPy arrays; landmarks, lists that may be null, are left out."""
    import numpy
    import pyarrow.dataset

    labels = pyarrow.dataset.dataset(output / "labels", format="parquet")
    names = [field.name for field in labels.schema if "list" not in str(field.type)]
    table = labels.to_table(columns=names)
    columns = {name: numpy.asarray(table.column(name).to_pylist(), dtype=object) for name in names}
    columns["key"] = columns["frame"].astype(int) * 1000 + numpy.array([-1 if n is None else n for n in columns["face"]])
    return columns


def fell_back(output: Path) -> list:
    """Why videos were decoded by the CPU, where they were not meant to be."""
    import pyarrow.parquet

    return pyarrow.parquet.read_table(output / "videos.parquet").column("decode_fallback").to_pylist()


def apart(reference: dict, other: dict) -> dict:
    """Largest and mean difference over the rows that both have, for each head; the share of expressions that are others."""
    import numpy

    _, here, there = numpy.intersect1d(reference["key"], other["key"], return_indices=True)
    found: dict = {"rows": [len(reference["key"]), len(other["key"]), len(here)]}
    gaps: dict = {}
    for name, column in reference.items():
        a, b = column[here], other[name][there]
        if name.endswith("_expression"):
            found[f"{name}: another one"] = float(numpy.mean(a != b))
        head = head_of(name)
        if head:
            gap = numpy.abs(a.astype(float) - b.astype(float))
            known = ~numpy.isnan(gap)
            gaps.setdefault(head, []).append((gap[known], numpy.std(a[known].astype(float)) if known.any() else 0.0))
    for head, parts in gaps.items():
        gap = numpy.concatenate([gap for gap, _ in parts])
        if len(gap):
            spread = float(numpy.mean([spread for _, spread in parts]))
            found[head] = {"most": float(gap.max()), "mean": float(gap.mean()), "spread of the column": spread}
    return found


def head_of(column: str) -> str | None:
    if column.startswith("box_"):
        return "boxes, pixels"
    if column == "face_score":
        return column
    if column.endswith("_p"):
        return None
    for model in KINDS:
        rest = column.removeprefix(f"{model}_")
        if rest == column:
            continue
        if rest in ("valence", "arousal"):
            return f"{model}: valence and arousal"
        if rest.startswith("expr_"):
            return f"{model}: expression logits"
        if rest.startswith("AU"):
            return f"{model}: action unit logits"
    return None


def say(row: dict) -> None:
    def short(value):
        if isinstance(value, float):
            return float(f"{value:.4g}")
        if isinstance(value, dict):
            return {key: short(value) for key, value in value.items()}
        return [short(v) for v in value] if isinstance(value, list) else value

    print(json.dumps(short(row)), flush=True)


def main() -> int:
    args = arguments()
    with tempfile.TemporaryDirectory(prefix="affectmill-bench-") as folder:
        try:
            bench = Bench(args, Path(folder))
            print(bench.run("doctor"))
        except Failed as failure:
            print(failure, file=sys.stderr)
            return 1
        failed = False
        for part in args.only.split(","):
            print(f"== {part}", flush=True)
            try:
                getattr(bench, part)()
            except Exception as failure:  # the parts after it may work
                failed = True
                bench.tell(part, {"failed": str(failure) if isinstance(failure, Failed) else repr(failure)})
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
