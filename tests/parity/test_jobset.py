"""JobSets against published schemas: each Job template against Kubernetes' own, the rest against that of JobSet."""

import json

import pytest

validate = pytest.importorskip("kubernetes_validate").validate
jsonschema = pytest.importorskip("jsonschema")

from launch.gke import job  # noqa: E402
from tests.launch.test_gke import EVALUATE, GPU, STANDINS, TPU, WORDS, cluster_of  # noqa: E402

pytestmark = pytest.mark.parity
FULL = dict(
    spot=True, service_account="s", queue="q", labels=dict(team="x"), volumes=dict(data="/data"), variables=dict(A="b"), node_pool="p"
)  # fmt: skip


@pytest.mark.parametrize("fields", [TPU, GPU, TPU | FULL | dict(slices=2), GPU | FULL | dict(nodes=1)])
@pytest.mark.parametrize("words, evaluation", [(WORDS, "none"), (WORDS, "job"), (EVALUATE, "none")])
def test_jobsets_are_what_the_cluster_takes(fields, words, evaluation, tmp_path):
    made = job.made(cluster_of(tmp_path, fields), words, dict(B="c"), evaluation, 7)
    schema = json.loads((STANDINS / "jobset.json").read_text())
    jsonschema.validate(made, schema)
    for one in made["spec"]["replicatedJobs"]:
        template = dict(apiVersion="batch/v1", kind="Job", metadata=dict(name="a") | one["template"].get("metadata", {}))
        for version in ("1.31", "1.34", "1.37"):
            validate(template | dict(spec=one["template"]["spec"]), version, strict=True)


def test_the_schemas_refuse_what_is_wrong(tmp_path):
    made = job.made(cluster_of(tmp_path, TPU), WORDS, {}, "none", 7)
    made["spec"]["failurePolicy"]["maxRestart"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(made, json.loads((STANDINS / "jobset.json").read_text()))
    spec = made["spec"]["replicatedJobs"][0]["template"]["spec"]
    spec["template"]["spec"]["containers"][0]["commands"] = []
    with pytest.raises(Exception, match="commands"):
        validate(dict(apiVersion="batch/v1", kind="Job", metadata=dict(name="a"), spec=spec), "1.34", strict=True)
