"""Makes a label set of any size without videos and models, and counts what `affectmill report` should say of one.

    label_set.py make OUT ROWS [VALUES]     rows of four models in parts of 70,000, as schemas/README.md describes them
    label_set.py count OUT VIDEO            figures by Polars' and NumPy's own means, as JSON

Neither knows affectmill's code: what both agree on stands in schemas/README.md.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

CLASSES = ["Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise"]
UNITS = ["AU1", "AU2", "AU4", "AU6", "AU7", "AU10", "AU12", "AU15", "AU23", "AU24", "AU25", "AU26"]
MODELS = {"student": "student", "va": "teacher_va", "expr": "teacher_expr", "au": "teacher_au"}
HAS = {"student": "vea", "teacher_va": "v", "teacher_expr": "e", "teacher_au": "a"}
# Names as an enemy would choose them, among plain ones.
HOSTILE = ["</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\u202egpj.\"'&amp;`", "a\nb\\u003c"]
PART = 70_000
VIDEO = 2_500


# ---- make ------------------------------------------------------------------------------------------------------------


def make(out: Path, rows: int, values: str) -> None:
    rng = np.random.default_rng(5)
    for folder in ("labels", "_affectmill/plans", "_affectmill/commits"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    shards, first = [], 0
    while rows > 0:
        count = min(rows, PART)
        shards.append(write_shard(out, rng, first, count, values))
        first, rows = first + -(-count // VIDEO), rows - count
    plan = {"version": 1, "shards": shards}
    import pyarrow

    (out / "_affectmill/plans/00001.json.zst").write_bytes(
        pyarrow.compress(json.dumps(plan).encode(), codec="zstd", asbytes=True)
    )
    models = [
        {"name": name, "kind": kind, "sha256": "0" * 64, "architecture": "none", "preprocessing": "none",
         "precision": "fp32", "untrained": kind == "teacher_au"}
        for name, kind in MODELS.items()
    ]  # fmt: skip
    job = {
        "input": {"uri": "/nowhere"},
        "faces": {"mode": "full_frame"},
        "models": [{"name": name, "kind": kind, "weights": "/none"} for name, kind in MODELS.items()],
        "output": {"uri": str(out), "values": values},
    }
    record = {"version": 1, "affectmill": "0", "fingerprint": "f" * 64, "identity": {}, "models": models, "job": job}
    (out / "_affectmill/job.json").write_text(json.dumps(record))


def write_shard(out: Path, rng: np.random.Generator, first: int, count: int, values: str) -> dict:
    videos = sorted((video_name(n) for n in range(first, first + -(-count // VIDEO))), key=str.encode)
    keys = sorted([*videos, f"broken {first}"], key=str.encode)
    digest = hashlib.sha256(b"affectmill shard 1")
    for key in keys:
        digest.update(len(key.encode()).to_bytes(8, "little") + key.encode() + b"\0" + (1).to_bytes(8, "little"))
    shard = digest.digest()[:8].hex()
    part = out / f"labels/part-{shard}.parquet"
    outcomes = write_part(part, rng, videos, count, values)
    outcomes.append(
        {"key": f"broken {first}", "status": "failed", "frames": 0, "rows": 0, "faces": 0, "seconds": 0.5,
         "error": "it is <b>damaged</b>", "error_class": "corrupt"}
    )  # fmt: skip
    outcomes.sort(key=lambda outcome: outcome["key"].encode())
    commit = {
        "version": 1, "shard": shard, "fingerprint": "f" * 64, "videos": outcomes,
        "part": {"rows": count, "bytes": part.stat().st_size, "sha256": "0" * 64},
        "seconds": {"decode": 1.0, "decode_blocked": 3.0, "faces": 0.5, "infer": 4.0, "infer_blocked": 0.25, "rows": 0.25,
                    "total": 5.0},
    }  # fmt: skip
    (out / f"_affectmill/commits/{shard}.json").write_text(json.dumps(commit))
    planned = [{"key": key, "kind": "file", "bytes": 1, "etag": "0", "frames": 1, "duration_us": 0} for key in keys]
    return {"id": shard, "videos": planned}


def video_name(n: int) -> str:
    return f"{HOSTILE[n]} {n}" if n < len(HOSTILE) else f"folder/video {n:06}.mp4"


def write_part(path: Path, rng: np.random.Generator, videos: list[str], count: int, values: str) -> list[dict]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    video = np.minimum(np.arange(count) // VIDEO, len(videos) - 1)
    within = np.arange(count) - video * VIDEO
    # Two rows of three have a frame of their own; every third one is a second face.
    frame, face = within * 2 // 3, np.where(within % 3 == 1, 1, 0)
    lone = (within % 3 == 2) & (rng.random(count) < 0.3)
    status = np.where(lone, np.where(rng.random(count) < 0.8, 1, 2), 0)
    has = status == 0
    # A mood for each video, so that videos drift and models agree somewhat.
    mood = rng.normal(0, 0.25, len(videos))[video]
    coarse = lambda numbers: (np.round(numbers * 256) / 256).astype(np.float32)  # noqa: E731
    columns = {
        "video": pa.DictionaryArray.from_arrays(pa.array(video, pa.int32()), pa.array(videos)),
        "frame": pa.array(frame),
        "timestamp_us": pa.array(frame * 40_000),
        "status": pa.DictionaryArray.from_arrays(pa.array(status, pa.int32()), ["ok", "no_face", "decode_error"]),
        "face": pa.array(face, pa.int32(), mask=~has),
        "track": pa.array(face, pa.int32(), mask=~has),
    }
    for name in ("box_x", "box_y", "box_w", "box_h", "face_score"):
        columns[name] = pa.array(np.full(count, 8, np.float32), mask=~has)
    marks = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(10 * count, np.float32)), 10)
    columns["landmarks"] = marks

    def add(name: str, numbers: np.ndarray) -> None:
        columns[name] = pa.array(numbers.astype(np.float32), mask=~has)

    truth = rng.normal(0, 1.2, (count, len(CLASSES))) + np.where(np.arange(7) == 4, 2 * mood[:, None], 0)
    for name, kind in MODELS.items():
        if "v" in HAS[kind]:
            add(f"{name}_valence", coarse(mood + rng.normal(0, 0.3, count)))
            add(f"{name}_arousal", coarse(0.2 + rng.normal(0, 0.25, count)))
        if "e" in HAS[kind]:
            logits = coarse(truth + rng.normal(0, 0.8, truth.shape))
            names = pa.array(CLASSES)
            best = pa.array(logits.argmax(1), pa.int32(), mask=~has)
            columns[f"{name}_expression"] = pa.DictionaryArray.from_arrays(best, names)
            powers = np.exp(logits - logits.max(1, keepdims=True))
            store(add, values, name, [f"expr_{c}" for c in CLASSES], logits, powers / powers.sum(1, keepdims=True))
        if "a" in HAS[kind]:
            logits = coarse(rng.normal(-1, 1.5, (count, len(UNITS))) + mood[:, None])
            store(add, values, name, UNITS, logits, 1 / (1 + np.exp(-logits)))
    floats = [name for name in columns if columns[name].type == pa.float32()]
    pq.write_table(
        pa.table(columns), path, row_group_size=65_536, compression="zstd", use_byte_stream_split=floats,
        use_dictionary=["video", "status", *(name for name in columns if name.endswith("_expression"))],
    )  # fmt: skip
    outcomes = []
    for n, key in enumerate(videos):
        own = video == n
        faces = int((has & own).sum())
        outcomes.append({"key": key, "status": "ok", "frames": int(frame[own].max()) + 1, "rows": int(own.sum()),
                         "faces": faces, "seconds": 1.0})  # fmt: skip
    return outcomes


def store(add, values, model, names, logits, probabilities):
    for n, name in enumerate(names):
        if values != "probabilities":
            add(f"{model}_{name}", logits[:, n])
        if values != "logits":
            add(f"{model}_{name}_p", probabilities[:, n])


# ---- count -----------------------------------------------------------------------------------------------------------


def count(out: Path, video: str) -> dict:
    import polars as pl

    rows = pl.read_parquet(f"{out}/labels/*.parquet").with_columns(pl.col(pl.Categorical).cast(pl.String))
    models = {m["name"]: m["kind"] for m in json.loads((out / "_affectmill/job.json").read_text())["models"]}
    first = rows.unique(["video", "frame"], keep="first")
    faces = rows.filter(pl.col("status") == "ok")
    having = lambda task: [name for name, kind in models.items() if task in HAS[kind]]  # noqa: E731
    mean = lambda name: float(faces[name].cast(pl.Float64).mean())  # noqa: E731

    def probability(name: str) -> pl.Series:
        return faces[f"{name}_p"] if f"{name}_p" in faces.columns else (1 / (1 + (-faces[name]).exp()))

    def confidence(model: str) -> np.ndarray:
        stored = f"{model}_expr_Fear_p" in faces.columns
        numbers = faces.select([f"{model}_expr_{c}{'_p' if stored else ''}" for c in CLASSES]).to_numpy()
        if not stored:
            numbers = np.exp(numbers.astype(np.float64))
            numbers /= numbers.sum(1, keepdims=True)
        return numbers.max(1)

    def ccc(a: str, b: str) -> float:
        x, y = (faces[name].cast(pl.Float64).to_numpy() for name in (a, b))
        return float(2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2))

    def kappa(a: np.ndarray, b: np.ndarray) -> float:
        same = float((a == b).mean())
        chance = sum(float((a == c).mean() * (b == c).mean()) for c in np.unique(np.concatenate([a, b])))
        return (same - chance) / (1 - chance)

    pairs = lambda task: [(a, b) for n, a in enumerate(having(task)) for b in having(task)[n + 1 :]]  # noqa: E731
    edges = np.linspace(-1, 1, 41)
    own = faces.filter((pl.col("video") == video) & (pl.col("face") == 0))
    followed = having("e")[0]
    return {
        "rows": rows.height,
        "faces": faces.height,
        "frames": first.height,
        "statuses": dict(first.group_by("status").len().iter_rows()),
        "planes": [
            {
                "model": model,
                "mean": [mean(f"{model}_valence"), mean(f"{model}_arousal")],
                "deviation": [float(faces[f"{model}_{axis}"].cast(pl.Float64).std(ddof=0)) for axis in ("valence", "arousal")],
                "density": np.histogram2d(faces[f"{model}_arousal"], faces[f"{model}_valence"], [edges, edges])[0].astype(int).tolist(),
            }
            for model in having("v")
        ],
        "expressions": [
            {
                "model": model,
                "faces": [int((faces[f"{model}_expression"] == c).sum()) for c in CLASSES],
                "mean_confidence": float(confidence(model).mean()),
            }
            for model in having("e")
        ],
        "units": [
            {"model": model, "active": [int((probability(f"{model}_{u}") > 0.5).sum()) for u in UNITS]} for model in having("a")
        ],
        "ccc": [[ccc(f"{a}_{axis}", f"{b}_{axis}") for axis in ("valence", "arousal")] for a, b in pairs("v")],
        "confusion": [
            [[int(((faces[f"{a}_expression"] == r) & (faces[f"{b}_expression"] == c)).sum()) for c in CLASSES] for r in CLASSES]
            for a, b in pairs("e")
        ],
        "kappa": [kappa(faces[f"{a}_expression"].to_numpy(), faces[f"{b}_expression"].to_numpy()) for a, b in pairs("e")],
        "unit_kappa": [
            [kappa((probability(f"{a}_{u}") > 0.5).to_numpy(), (probability(f"{b}_{u}") > 0.5).to_numpy()) for u in UNITS]
            for a, b in pairs("a")
        ],
        "videos_with_faces": faces["video"].n_unique(),
        "most": float(confidence(followed).max()),
        "least": float(confidence(followed).min()),
        "timeline": {
            "faces": own.height,
            "valence": float(own[f"{having('v')[0]}_valence"].cast(pl.Float64).mean()),
        },
    }


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", out, rows, *values]:
            make(Path(out), int(rows), values[0] if values else "both")
        case ["count", out, video]:
            json.dump(count(Path(out), video), sys.stdout)
        case _:
            sys.exit(__doc__)
