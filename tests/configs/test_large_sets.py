"""Recipes for sets that are too large to be here, on stand-ins of nine records in the same form."""

import numpy as np

from configs import tfds_coco, webdataset
from core import mesh as meshes
from evals import job
from input_pipeline import batching
from input_pipeline.sources.tfds import Tfds
from tests.input_pipeline import encoded
from training import run as runs
from training.data import open_data


def check(config, workdir):
    """The recipe traces, its batches are of real images, its evals have their data."""
    job.check(config)
    data = open_data(config, workdir)
    run = runs.prepare(config, data, meshes.make(2, 2, 2))
    assert run.steps == config.train.steps
    with data.iterate(0) as rows:
        batch = next(rows)
    assert batch["image"].shape == (8, 16, 16, 3) and len(np.unique(batch["image"])) > 50 and batch["text_mask"].any(axis=1).all()
    for label, entry in config.evals.items():
        task = batching.make_source(entry.data, f"config.evals.{label}.data").retrieval()
        assert len(task.images) == 9 and type(task.images[0]) is bytes


def test_tar_shards(tmp_path):
    encoded.webdataset(tmp_path)
    shards = f"{tmp_path}/{{00000..00001}}.tar"
    check(webdataset.get_config(f"smoke,shards={shards},held_out={shards}"), tmp_path)


def test_a_folder_of_tfds(tmp_path):
    encoded.tfds(tmp_path, train="train")
    info = tmp_path / "toy" / "1.0.0" / "dataset_info.json"
    for name in ("restval", "val"):
        for shard in (tmp_path / "toy" / "1.0.0").glob("toy-train.*"):
            (shard.parent / shard.name.replace("train", name)).write_bytes(shard.read_bytes())
    text = info.read_text()
    splits = "".join(f'{{"name": "{name}", "shardLengths": ["4", "5"]}}, ' for name in ("restval", "val"))
    info.write_text(text.replace('"splits": [', f'"splits": [{splits}'))
    config = tfds_coco.get_config(f"smoke,path={tmp_path / 'toy'}")
    with config.unlocked():
        config.evals.test.data.options.split = "val"  # the stand-in's other splits have five records
    check(config, tmp_path)
    assert len(Tfds(**config.data.sources.main.options)) == 18
