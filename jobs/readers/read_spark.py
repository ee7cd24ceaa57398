"""Reads labels with Spark: the mean of happiness in each video, and a training set with as many faces of each expression.

    python read_spark.py [OUTPUT] [--most 1000]       OUTPUT: a folder, or s3a://bucket/prefix

For S3 start Spark with the package org.apache.hadoop:hadoop-aws of its Hadoop version (and spark.hadoop.fs.s3a.endpoint and
spark.hadoop.fs.s3a.path.style.access for a server other than AWS).

`face_score` is null where a box was interpolated between two detections. Such faces, most of them near copies of their neighbours,
are left out below; `face_score > 0.8 or face_score is null` keeps them.
"""

import argparse

from pyspark.sql import SparkSession, Window, functions as F

arguments = argparse.ArgumentParser(description="Read labels with Spark.")
arguments.add_argument("output", nargs="?", default="out")
arguments.add_argument("--most", type=int, default=1000, help="faces of each expression")
args = arguments.parse_args()

spark = SparkSession.builder.appName("labels").getOrCreate()
# Spark's vectorised reader does not know the encoding BYTE_STREAM_SPLIT; its row reader does.
spark.conf.set("spark.sql.parquet.enableVectorizedReader", "false")
labels = spark.read.parquet(f"{args.output}/labels")
happiest = (
    labels.where(F.col("status") == "ok")
    .groupBy("video")
    .agg(F.count("*").alias("faces"), F.avg("student_expr_Happiness_p").alias("happiness"))
    .orderBy(F.desc("happiness"))
)
happiest.show()

videos = spark.read.parquet(f"{args.output}/videos.parquet").where("status = 'ok'").select("video", "duration_us")
at_random = Window.partitionBy("student_expression").orderBy(F.rand(seed=1))
balanced = (
    labels.where("face_score > 0.8")
    .join(videos, "video")
    .withColumn("place", F.row_number().over(at_random))
    .where(F.col("place") <= args.most)
    .drop("place")
)
balanced.write.mode("overwrite").parquet("balanced")
