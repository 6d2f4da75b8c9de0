"""Cluster files: defaults for what they leave out, and one line that names the field for each mistake."""

import pathlib

import pytest

from core.config import ConfigError
from launch import clusters
from launch.gke import job as gke
from launch.slurm import job as slurm
from launch.tpu import job as tpu

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = {  # of configs/clusters: platform, fields, what must be given
    "slurm": ("slurm", slurm.DEFAULTS, ""),
    "tpu": ("tpu", tpu.DEFAULTS, "project=p"),
    "gke_tpu": ("gke", gke.DEFAULTS, "image=i"),
    "gke_gpu": ("gke", gke.DEFAULTS, "image=i"),
}

DEFAULTS = dict(
    zone=str, hosts=int, spot=False, network="", seconds=60.0, tags=(), disk=dict(size_gb=100, kind="ssd"), labels={}, port=None
)
WHOLE = dict(platform="tpu", zone="us-west4-a", hosts=4)


@pytest.fixture
def written(tmp_path):
    def write(fields, name="mine"):
        path = tmp_path / f"{name}.py"
        path.write_text(f"from ml_collections import ConfigDict\n\n\ndef get_config(arg=''):\n    return ConfigDict({fields!r})\n")
        return str(path)

    return write


def test_what_a_file_leaves_out_has_a_default(written):
    found = clusters.load(written(WHOLE | dict(disk=dict(kind="hdd"), labels=dict(team="x"), seconds=5)), "tpu", DEFAULTS)
    assert found.to_dict() == dict(
        zone="us-west4-a", hosts=4, spot=False, network="", seconds=5, tags=(), disk=dict(size_gb=100, kind="hdd"),
        labels=dict(team="x"), port=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(platform="gke"), "cluster.platform is 'gke', which is not among: tpu"),
        (dict(platform=None), "cluster.platform is None"),
        (dict(zone=""), "cluster.zone is not set; the cluster file must give it, as a str"),
        (dict(zone=None), "cluster.zone is None"),
        (dict(zone=4), "cluster.zone is 4, a int; it must be a str"),
        (dict(hosts="4"), "cluster.hosts is '4', a str; it must be a int"),
        (dict(spott=True), "cluster.spott is not a key; .* Did you mean 'spot'"),
        (dict(spot=1), "cluster.spot is 1, a int; it must be a bool"),
        (dict(disk=dict(size=1)), "cluster.disk.size is not a key; valid ones: kind, size_gb. Did you mean 'size_gb'"),
        (dict(disk=100), "cluster.disk is 100, a int; it must be a Mapping"),
        (dict(labels=("a",)), "cluster.labels is"),
    ],
)
def test_a_mistake_names_its_field(written, changes, message):
    with pytest.raises(ConfigError, match=message):
        clusters.load(written(WHOLE | changes), "tpu", DEFAULTS)


def test_a_field_that_must_be_given(written):
    with pytest.raises(ConfigError, match="cluster.hosts is not set"):
        clusters.load(written(dict(platform="tpu", zone="a")), "tpu", DEFAULTS)
    with pytest.raises(ConfigError, match="--cluster=nowhere.py does not exist"):
        clusters.load("nowhere.py", "tpu", DEFAULTS)


def test_stored_files_are_whole(monkeypatch):
    """As they stand, but for what only their user can know, which is asked for."""
    monkeypatch.chdir(ROOT)
    assert {path.stem for path in pathlib.Path("configs/clusters").glob("*.py")} == set(FILES)
    for name, (platform, defaults, given) in FILES.items():
        assert set(clusters.load(f"configs/clusters/{name}.py:{given}", platform, defaults)) == set(defaults)
        if given:
            with pytest.raises(ConfigError, match=f"cluster.{given.partition('=')[0]} is not set"):
                clusters.load(f"configs/clusters/{name}.py", platform, defaults)


def test_a_name_belongs_to_a_module_and_a_workdir():
    name = lambda *words: clusters.name_of("tandem", ["python", "-m", *words])
    train = name("launch.train", "--config=a.py", "--workdir=gs://b/runs/A_b/")
    assert train == name("launch.train", "--workdir", "gs://b/runs/A_b", "--config.seed=2") and train.startswith("tandem-a-b-")
    assert name("launch.evaluate", "--workdir=gs://b/runs/A_b/") == train + "-evaluate"
    assert len({train, name("launch.train", "--workdir=gs://c/runs/A_b/"), name("launch.doctor"), name("launch.doctor", "--json")}) == 4
