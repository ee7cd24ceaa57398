"""Reads labels with PyArrow: a training set with as many faces of each expression.

    python read_pyarrow.py [OUTPUT] [--most 1000]     OUTPUT: a folder, or s3://bucket/prefix

`face_score` is null where a box was interpolated between two detections. Such faces, most of them near copies of their neighbours,
are left out below; `(score > 0.8) | score.is_null()` keeps them.
"""

import argparse

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

arguments = argparse.ArgumentParser(description="Read labels with PyArrow.")
arguments.add_argument("output", nargs="?", default="out")
arguments.add_argument("--most", type=int, default=1000, help="faces of each expression")
args = arguments.parse_args()

score = ds.field("face_score")
columns = ["video", "frame", "face", "student_expression"]
faces = ds.dataset(f"{args.output}/labels", format="parquet").to_table(columns, filter=score > 0.8)
faces = faces.set_column(0, "video", faces["video"].cast("string"))  # joins do not take dictionaries
videos = ds.dataset(f"{args.output}/videos.parquet").to_table(
    ["video", "duration_us"], filter=ds.field("status") == "ok"
)
faces = faces.join(videos, "video", join_type="inner")
random = np.random.default_rng(1)
chosen = []
for expression in pc.unique(faces["student_expression"].cast("string")):
    of_class = faces.filter(pc.equal(faces["student_expression"].cast("string"), expression))
    chosen.append(of_class.take(random.permutation(len(of_class))[: args.most]))
pq.write_table(pa.concat_tables(chosen), "balanced.parquet")
