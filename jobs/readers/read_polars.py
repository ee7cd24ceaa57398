"""Reads labels with Polars: the mean of happiness in each video, and a training set with as many faces of each expression.

    python read_polars.py [OUTPUT] [--most 1000]      OUTPUT: a folder, or s3://bucket/prefix

`face_score` is null where a box was interpolated between two detections. Such faces, most of them near copies of their neighbours,
are left out below; `(pl.col("face_score") > 0.8) | pl.col("face_score").is_null()` keeps them.
"""

import argparse

import polars as pl

arguments = argparse.ArgumentParser(description="Read labels with Polars.")
arguments.add_argument("output", nargs="?", default="out")
arguments.add_argument("--most", type=int, default=1000, help="faces of each expression")
args = arguments.parse_args()

labels = pl.scan_parquet(f"{args.output}/labels/*.parquet").with_columns(pl.col("video").cast(pl.String))
happiest = (
    labels.filter(pl.col("status") == "ok")
    .group_by("video")
    .agg(pl.len().alias("faces"), pl.col("student_expr_Happiness_p").mean().alias("happiness"))
    .sort("happiness", descending=True)
    .collect()
)
print(happiest)

videos = pl.scan_parquet(f"{args.output}/videos.parquet").filter(pl.col("status") == "ok")
faces = labels.join(videos.select("video", "duration_us"), on="video").filter(pl.col("face_score") > 0.8)
at_random = pl.int_range(pl.len()).shuffle(seed=1)
balanced = faces.filter(at_random.over("student_expression") < args.most).collect()
balanced.write_parquet("balanced.parquet")
