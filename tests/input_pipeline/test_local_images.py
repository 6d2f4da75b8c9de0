"""Published sets of images: files of each format in miniature, and the real folders where they are."""

import gzip
import io
import json
import struct
import tarfile
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from input_pipeline import local_images

CLASSES = local_images.CIFAR_CLASSES


def png(value, shape=(2, 2)):
    buffer = io.BytesIO()
    Image.fromarray(np.full(shape, value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def pack(path, files):
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def zipped(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def test_each_caption_is_right_for_every_image_that_has_it(tmp_path):
    (tmp_path / "captions.csv").write_text('image,caption\na.jpg,"one, two"\na.jpg,both\nb.jpg,both\n')
    put(tmp_path / "images/a.jpg", png(1))
    put(tmp_path / "images/b.jpg", png(2))
    task = local_images.Flickr8k(path=str(tmp_path)).retrieval()
    assert task.texts == ["one, two", "both"] and task.relevant.tolist() == [[0, 0], [0, 1], [1, 1]]
    assert [image[0, 0, 0] for image in task.images] == [1, 2] and len(task.groups) == 2
    (tmp_path / "images/b.jpg").unlink()
    with pytest.raises(ValueError, match="1 of 2 images are not in .*: b.jpg"):
        local_images.Flickr8k(path=str(tmp_path))


def test_emoji_that_look_alike_share_their_names_and_skin_tones_are_left_out(tmp_path):
    rows = [
        ("1", "astronaut", "people", "role", "", 1),
        ("2", "man astronaut", "people", "role", "", 1),
        ("3", "axe", "things", "tool", "", 3),
        ("4", "axe", "extras", "tool", "", 4),
        ("5", "astronaut: dark", "people", "role", 5, 1),
    ]
    keys = ("hexcode", "annotation", "group", "subgroups", "skintone")
    (tmp_path / "openmoji.json").write_text(json.dumps([dict(zip(keys, row, strict=False)) for row in rows]))
    for row in rows[:-1]:
        put(tmp_path / f"png/{row[0]}.png", png(row[-1]))
    task = local_images.OpenMoji(path=str(tmp_path)).retrieval()
    assert task.texts == ["astronaut", "man astronaut", "axe"] and task.groups == ["people", "people", "things", "extras"]
    assert task.relevant.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [2, 2], [3, 2]]
    groups = local_images.OpenMoji(path=str(tmp_path)).classification()
    assert groups.class_names == ["extras", "people", "things"] and groups.labels.tolist() == [1, 1, 2, 0]
    assert groups.prompts[0][:2] == ["extras", "an emoji of extras"] and "an emoji of tool" in groups.prompts[0]
    subgroups = local_images.OpenMoji(path=str(tmp_path), classes="subgroup").classification()
    assert subgroups.class_names == ["role", "tool"] and len(subgroups.prompts[0]) == len(local_images.EMOJI_TEMPLATES)
    with pytest.raises(ValueError, match="no classes 'tags'; set options.classes to one of: group, subgroup"):
        local_images.OpenMoji(path=str(tmp_path), classes="tags")


@pytest.fixture
def cifar(tmp_path):
    (tmp_path / local_images.PROMPTS).write_text(json.dumps({"cifar10": ["a {c}.", "one {c}."], "mnist": ['"{c}"']}))
    for split in ("train", "test"):
        pack(tmp_path / f"{split}.tar", {f"{split}/{name}/{i}.jpg": png(c, (2, 2, 3)) for c, name in enumerate(CLASSES) for i in range(2)})
    return tmp_path


def test_classes_are_folders_of_a_tar_file(cifar):
    data = local_images.Cifar10(path=str(cifar), prompts=str(cifar))
    task, probe = data.classification(), data.probe()
    assert task.templates == ["a {}.", "one {}."] and task.class_names == CLASSES
    for part in (task, data.labelled(), probe.test, probe.train):
        values = part.images if part is task else part.values
        assert [image[0, 0, 0] for image in values] == list(part.labels) and np.bincount(part.labels).tolist() == [2] * 10
    assert probe.train.values.names[0] == "train/airplane/0.jpg"


def test_a_class_without_examples_or_a_name_is_refused(cifar):
    data = local_images.Cifar10(path=str(cifar), prompts=str(cifar))
    pack(cifar / "test.tar", {f"test/{name}/0.jpg": png(0) for name in CLASSES[:-2]})
    with pytest.raises(ValueError, match="test.tar holds no image of ship, truck, so the score would be one of fewer classes"):
        data.classification()
    pack(cifar / "test.tar", {f"test/{name}/0.jpg": png(0) for name in (*CLASSES, "whale")})
    with pytest.raises(ValueError, match="images of unknown classes: whale"):
        data.labelled()
    (cifar / "test.tar").write_bytes(b"no archive at all")
    with pytest.raises(ValueError, match="is no whole tar file"):
        data.labelled()
    with pytest.raises(ValueError, match="set options.prompts to the folder"):
        local_images.Mnist.classification(SimpleNamespace(_images=[], _labels=[], _prompts=str(cifar / "none")))
    (cifar / "test.tar").unlink()
    with pytest.raises(ValueError, match="there is no file .*test.tar; set options.path"):
        data.labelled()


def idx(path, values):
    shape = struct.pack(f">{1 + values.ndim}I", 0x0800 | values.ndim, *values.shape)
    path.write_bytes(gzip.compress(shape + values.astype(np.uint8).tobytes()))


def test_digits_are_split_once(tmp_path, monkeypatch):
    monkeypatch.setattr(local_images, "MNIST_TEST", 3)
    images, labels = np.arange(10 * 6).reshape(10, 2, 3), np.arange(10) % 4
    idx(tmp_path / "t10k-images-idx3-ubyte.gz", images)
    idx(tmp_path / "t10k-labels-idx1-ubyte.gz", labels)
    data = local_images.Mnist(path=str(tmp_path))
    np.testing.assert_array_equal(data.labelled().values[..., 0], images)
    probe = data.probe()
    assert (len(probe.train.labels), len(probe.test.labels)) == (7, 3)
    together = np.concatenate([probe.train.values, probe.test.values])
    assert sorted(together[:, 0, 0, 0].tolist()) == images[:, 0, 0].tolist()
    np.testing.assert_array_equal(labels[probe.test.values[:, 0, 0, 0] // 6], probe.test.labels)
    whole = (tmp_path / "t10k-images-idx3-ubyte.gz").read_bytes()
    for content, message in ((whole[:-9], "is cut off"), (gzip.compress(gzip.decompress(whole)[:-1]), "no whole IDX file")):
        (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            local_images.Mnist(path=str(tmp_path))
    idx(tmp_path / "t10k-images-idx3-ubyte.gz", images[:9])
    with pytest.raises(ValueError, match="9 images have 10 labels"):
        local_images.Mnist(path=str(tmp_path))


def test_drawings_of_one_run_are_compared_with_each_other(tmp_path):
    files = {f"run{r}/{kind}{i}.png": png(10 * r + i) for r in (1, 2) for kind in ("test/item", "training/class") for i in (1, 2)}
    lines = {f"run{r}/class_labels.txt": f"run{r}/test/item1.png run{r}/training/class2.png\n" for r in (1, 2)}
    zipped(tmp_path / "all_runs.zip", files | lines)
    data = local_images.Omniglot(path=str(tmp_path))
    task = data.candidates()
    assert [image[0, 0, 0] for image in task.queries] == [11, 21] and task.groups == ["run1", "run2"]
    assert [[task.candidates[i][0, 0, 0] for i in own] for own in task.lists] == [[11, 12], [21, 22]]
    assert [task.candidates[i][0, 0, 0] for i in task.right] == [12, 22]
    white = local_images.Omniglot(path=str(tmp_path), inverted=True).candidates()
    assert [white.candidates[i][0, 0, 0] for i in white.right] == [243, 233] and white.queries[0][0, 0, 0] == 244
    del files["run2/training/class2.png"]
    zipped(tmp_path / "all_runs.zip", files | lines)
    with pytest.raises(ValueError, match="names 1 images that it lacks, run2/training/class2.png first"):
        data.candidates()


def test_people_who_drew_are_in_one_part_each(tmp_path):
    names = [f"small/{a}/character{c:02d}/0{c}{c}_{d:02d}.png" for a in ("Greek", "Latin") for c in (1, 2) for d in (1, 15, 16)]
    zipped(tmp_path / "images_background_small1.zip", {"small/": b""} | {name: png(i) for i, name in enumerate(names)})
    data = local_images.Omniglot(path=str(tmp_path))
    assert data.labelled().labels.tolist() == [[c // 2, c] for c in range(4) for _ in range(3)]
    probe = data.probe()
    assert [name[-6:-4] for name in probe.train.values.names] == ["01", "15"] * 4 and probe.train.labels.tolist() == [
        0,
        0,
        1,
        1,
        2,
        2,
        3,
        3,
    ]
    assert [name[-6:-4] for name in probe.test.values.names] == ["16"] * 4 and probe.test.labels.tolist() == [0, 1, 2, 3]
    (tmp_path / "images_background_small1.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match="no whole zip file"):
        data.labelled()


def test_the_real_sets_have_what_their_publishers_say(shared_data):
    folder = lambda name: dict(path=str(shared_data / name))
    prompts = dict(prompts=str(shared_data / "clip_classnames"))
    photos = local_images.Flickr8k(**folder("flickr8k_p")).retrieval()
    assert (len(photos.images), len(photos.texts)) == (700, 3500) and np.bincount(photos.relevant[:, 0]).tolist() == [5] * 700
    assert np.unique(photos.relevant[:, 1]).size == 3500 and photos.images[0].shape[2] == 3
    emoji = local_images.OpenMoji(classes="subgroup", **folder("openmoji72"))
    assert len(emoji.retrieval().images) == 2362 and len(emoji.classification().class_names) == 119
    cifar = local_images.Cifar10(**folder("cifar10_jpg"), **prompts)
    assert np.bincount(cifar.classification().labels).tolist() == [500] * 10 and len(cifar.classification().templates) == 18
    assert cifar.labelled().values[0].shape == (32, 32, 3)
    digits = local_images.Mnist(**folder("mnist_t10k"), **prompts)
    assert digits.labelled().values.shape == (10_000, 28, 28, 1) and digits.labelled().labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert len(digits.probe().test.labels) == 2000 and digits.classification().templates == ['a photo of the number: "{}".']
    drawings = local_images.Omniglot(**folder("omniglot_small1"))
    runs = drawings.candidates()
    assert (len(runs.queries), len(runs.candidates), len(set(runs.groups))) == (400, 400, 20) and set(map(len, runs.lists)) == {20}
    assert runs.candidates.names[runs.right[0]] == "run01/training/class08.png"
    assert drawings.labelled().labels.max(axis=0).tolist() == [4, 135] and len(drawings.probe().test.labels) == 5 * 136
