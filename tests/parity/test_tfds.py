"""Folders that a real TFDS builder wrote, read as `tfds.data_source` reads them; building needs no TensorFlow here either."""

import io

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tensorflow_datasets", reason="needs tensorflow-datasets")
pytestmark = pytest.mark.parity

from input_pipeline.sources.tfds import Tfds  # noqa: E402


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """What TFDS reads, and the folder."""
    import tensorflow_datasets as tfds

    with tfds.core.registered.skip_registration():

        class Toy(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.0.0")

            def _info(self):
                captions = tfds.features.Sequence({"id": tfds.features.Scalar(np.int64), "text": tfds.features.Text()})
                features = dict(
                    image=tfds.features.Image(shape=(None, None, 3), encoding_format="png"), captions=captions,
                    label=tfds.features.ClassLabel(names=["cat", "guinea_pig"]), score=np.float32, name=tfds.features.Text(),
                )  # fmt: skip
                return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

            def _split_generators(self, manager):
                return {"train": self._generate_examples(13), "test": self._generate_examples(5)}

            def _generate_examples(self, count):
                for i in range(count):
                    file = io.BytesIO()
                    Image.fromarray(np.full((4 + i, 5, 3), 9 * i, np.uint8)).save(file, "PNG")
                    file.seek(0)
                    texts = [dict(id=10 * i + k, text=f"é {i} {k}") for k in range(1 + i % 3)]
                    yield i, dict(image=file, captions=texts, label=i % 2, score=i / 2, name=f"name {i}")

    folder = tmp_path_factory.mktemp("tfds")
    builder = Toy(data_dir=folder, file_format="array_record")
    builder.download_and_prepare()
    read = lambda split: builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
    return read, str(folder / "toy")


@pytest.mark.parametrize("split", ["train", "test", "train[:50%]", "train[3:7]", "train[-20%:]", "train[10%:35%]+test"])
def test_records_are_those_of_data_source(built, split):
    read, folder = built
    if "+" in split:
        expected = [record for part in split.split("+") for record in read(part)]
    else:
        expected = list(read(split))
    source = Tfds(folder=folder, split=split, numbers=("score",))
    assert len(source) == len(expected)
    for i, record in enumerate(expected):
        texts = [text.decode() for text in record["captions"]["text"]]
        assert source.whole(i) == {"image": record["image"], "text": texts, "id": i, "score": float(record["score"])}


def test_classes_are_those_of_data_source(built):
    read, folder = built
    source = Tfds(folder=folder, text=("label",))
    task = source.classification()
    assert task.class_names == ("cat", "guinea_pig") and task.labels.tolist() == [int(record["label"]) for record in read("train")]
    assert {source[i]["text"] for i in range(len(source))} == {"a photo of a cat.", "a photo of a guinea pig."}
