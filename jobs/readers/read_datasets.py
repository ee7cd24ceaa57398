"""Reads labels with Hugging Face's `datasets`: a training set with as many faces of each expression.

    python read_datasets.py [OUTPUT] [--most 1000]

`face_score` is null where a box was interpolated between two detections. Such faces, most of them near copies of their neighbours,
are left out below; `row["face_score"] is None or row["face_score"] > 0.8` keeps them.
"""

import argparse

from datasets import concatenate_datasets, load_dataset

arguments = argparse.ArgumentParser(description="Read labels with datasets.")
arguments.add_argument("output", nargs="?", default="out")
arguments.add_argument("--most", type=int, default=1000, help="faces of each expression")
args = arguments.parse_args()

labels = load_dataset("parquet", data_files=f"{args.output}/labels/*.parquet", split="train")
videos = load_dataset("parquet", data_files=f"{args.output}/videos.parquet", split="train")
duration = {row["video"]: row["duration_us"] for row in videos if row["status"] == "ok"}
faces = labels.filter(lambda row: row["video"] in duration and (row["face_score"] or 0) > 0.8)
faces = faces.map(lambda row: {"duration_us": duration[row["video"]]}).shuffle(seed=1)
classes = [faces.filter(lambda row: row["student_expression"] == name) for name in faces.unique("student_expression")]
balanced = concatenate_datasets([faces.select(range(min(args.most, len(faces)))) for faces in classes])
balanced.to_parquet("balanced.parquet")
