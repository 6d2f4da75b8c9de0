"""Published sets of images as evaluators read them from folders on this machine; nothing is downloaded, and no source of training is here.

Each class names the folder and the files of its publisher; its docstring says which protocol it follows. Images keep their sizes and
colours: the eval job brings them to what the model's tower reads. Leaves sets whose texts are to be matched to `local_matching.py`.
"""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterable, Sequence

import numpy as np

from input_pipeline import local_files, pictures
from input_pipeline.pictures import Pictures
from input_pipeline.tasks import CandidatesTask, ClassificationTask, Labelled, ProbeTask, RetrievalTask

PROMPTS = "en_zeroshot_classification_templates.json"  # of CLIP_benchmark
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
EMOJI_TEMPLATES = ("{}", "an emoji of {}", "a drawing of {}", "an icon of {}")  # ours: no published protocol names any
MNIST_TEST = 2000
OMNIGLOT_TEST = 16  # of 20 people who drew each character, those from this one on


class Flickr8k:
    """700 photographs of Flickr8k with five captions each.

    A part of its own of the 8,000: numbers compare with each other, not with those published on the 1,000 of the test split. Photos are
    about 200 px wide, some 500.

    Args:
        path: folder with `captions.csv` and `images/`.

    Source: Hodosh et al. 2013; protocol Karpathy and Fei-Fei 2015, all five captions of an image being right.
    """

    def __init__(self, *, path: str = "data/flickr8k_p"):
        captions: dict[str, list[str]] = {}
        for image, caption in local_files.read_rows(path, "captions.csv")[1:]:
            captions.setdefault(image, []).append(caption)
        self._captions, self._images = captions, pictures.from_folder(f"{path}/images", list(captions))

    def retrieval(self) -> RetrievalTask:
        return _retrieval(self._images, self._captions.values(), ["photo"] * len(self._images))


class OpenMoji:
    """OpenMoji 15: 2,362 emoji of 72 px with their names, in 12 groups and 119 subgroups.

    The 1,785 emoji in a skin tone are left out: they are drawn and named like the one without, so telling them apart would be most of
    a score. Of emoji that are drawn alike pixel for pixel (`astronaut` and `man astronaut`) each name is right for each.

    Args:
        path: folder with `openmoji.json` and `png/`.
        classes: what `classification()` tells apart, `group` or `subgroup`.

    Source: openmoji.org; github.com/tommyettinger/openmoji-atlas. Prompts are ours.
    """

    def __init__(self, *, path: str = "data/openmoji72", classes: str = "group"):
        self._field = {"group": "group", "subgroup": "subgroups"}[local_files.one_of(classes, ("group", "subgroup"), "classes")]
        self._emoji = [row for row in local_files.read_json(path, "openmoji.json") if not row["skintone"]]
        self._images = pictures.from_folder(f"{path}/png", [f"{row['hexcode']}.png" for row in self._emoji])

    def retrieval(self) -> RetrievalTask:
        names: dict[bytes, list[str]] = {}
        looks = [image.tobytes() for image in self._images]
        for look, row in zip(looks, self._emoji, strict=True):
            names.setdefault(look, []).append(row["annotation"])
        return _retrieval(self._images, [names[look] for look in looks], [row["group"] for row in self._emoji])

    def classification(self) -> ClassificationTask:
        """Classes in the order of their names. Prompts of a group also name its subgroups: `extras openmoji` says nothing alone."""
        names = sorted({row[self._field] for row in self._emoji})
        labels = np.array([names.index(row[self._field]) for row in self._emoji])
        spoken = {name: {name: None} for name in names}
        for row in self._emoji:
            spoken[row[self._field]][row["subgroups"]] = None
        words = lambda name: name.replace("-", " ")
        prompts = [[template.format(words(word)) for word in spoken[name] for template in EMOJI_TEMPLATES] for name in names]
        return ClassificationTask(self._images, labels, [words(name) for name in names], EMOJI_TEMPLATES, prompts)


class Cifar10:
    """CIFAR-10 as JPEG files: 10,000 images of 32 px to learn from, 1,000 a class, and 5,000 of the test split.

    JPEG has changed the pixels a little, and half of each split is here: numbers lie near the published ones, not upon them.

    Args:
        path: folder with `train.tar` and `test.tar`, members `<split>/<class>/<number>.jpg`.
        prompts: folder with CLIP_benchmark's templates, 18 for this set.

    Source: Krizhevsky 2009; prompts Radford et al. 2021, arXiv:2103.00020, as LAION-AI/CLIP_benchmark lists them.
    """

    def __init__(self, *, path: str = "data/cifar10_jpg", prompts: str = "data/clip_classnames"):
        self._path, self._prompts = path, prompts

    def classification(self) -> ClassificationTask:
        test = self.labelled()
        return ClassificationTask(test.values, test.labels, CIFAR_CLASSES, _templates(self._prompts, "cifar10"))

    def labelled(self) -> Labelled:
        """The test split."""
        return self._read("test")

    def probe(self) -> ProbeTask:
        return ProbeTask(self._read("train"), self._read("test"))

    def _read(self, split: str) -> Labelled:
        path = local_files.find(self._path, f"{split}.tar")
        try:
            with tarfile.open(path) as archive:
                found = {member.name: archive.extractfile(member).read() for member in archive if member.isfile()}
        except tarfile.TarError as error:
            raise ValueError(f"{path} is no whole tar file ({error}); copy the set again.") from error
        labels = _numbered([name.split("/")[-2] for name in found], CIFAR_CLASSES, path)
        return Labelled(Pictures(list(found), list(found.values())), labels)


class Mnist:
    """The 10,000 handwritten digits of MNIST's test split, 28 px, white on black.

    The images to learn from are not here, so a probe learns from 8,000 of these and is measured on 2,000 drawn once by a fixed seed (the
    first half, of other writers, is easier than the second): its numbers are no published ones. `classification()` is.

    Args:
        path: folder with `t10k-images-idx3-ubyte.gz` and `t10k-labels-idx1-ubyte.gz`.
        prompts: folder with CLIP_benchmark's template for this set.

    Source: LeCun et al. 1998; prompt as LAION-AI/CLIP_benchmark lists it.
    """

    def __init__(self, *, path: str = "data/mnist_t10k", prompts: str = "data/clip_classnames"):
        self._images, self._labels = (_idx(path, f"t10k-{name}-ubyte.gz") for name in ("images-idx3", "labels-idx1"))
        if len(self._images) != len(self._labels):
            raise ValueError(f"{len(self._images)} images have {len(self._labels)} labels; copy the files of {path} again.")
        self._prompts = prompts

    def classification(self) -> ClassificationTask:
        return ClassificationTask(self._images, self._labels, [str(digit) for digit in range(10)], _templates(self._prompts, "mnist"))

    def labelled(self) -> Labelled:
        return Labelled(self._images, self._labels)

    def probe(self) -> ProbeTask:
        order = np.random.Generator(np.random.PCG64(0)).permutation(len(self._labels))
        parts = np.sort(order[MNIST_TEST:]), np.sort(order[:MNIST_TEST])
        return ProbeTask(*(Labelled(self._images[rows], self._labels[rows]) for rows in parts))


class Omniglot:
    """Omniglot: 136 characters of five alphabets, drawn by 20 people each, and the 20 runs of the one-shot test; 105 px, black on white.

    Args:
        path: folder with `images_background_small1.zip` and `all_runs.zip`.
        inverted: white on black, for models that learnt it so: one may lose most of what it knows to the colour of the paper.

    Source: Lake et al. 2015 (one-shot test: among 20 drawings of one alphabet, find the one of the same character).
    """

    def __init__(self, *, path: str = "data/omniglot_small1", inverted: bool = False):
        self._path, self._inverted = path, inverted

    def candidates(self) -> CandidatesTask:
        """One-shot: each of 20 drawings of a run against the run's 20 classes, one drawing each; by run. 1 - accuracy is the error rate."""
        files = _unzip(self._path, "all_runs.zip")
        lines = [line for name, text in sorted(files.items()) if name.endswith("class_labels.txt") for line in text.decode().splitlines()]
        tests, answers = zip(*(line.split() for line in lines if line.strip()), strict=True)
        pool = sorted(name for name in files if "/training/" in name)
        if unknown := [name for name in (*tests, *answers) if name not in files]:
            raise ValueError(f"all_runs.zip names {len(unknown)} images that it lacks, {unknown[0]} first; copy the set again.")
        run = [name.split("/")[0] for name in tests]
        own = {name: [i for i, candidate in enumerate(pool) if candidate.startswith(f"{name}/")] for name in set(run)}
        right = np.array([pool.index(answer) for answer in answers])
        pick = lambda names: Pictures(names, [files[name] for name in names], self._inverted)
        return CandidatesTask(pick(tests), pick(pool), [own[name] for name in run], right, run)

    def labelled(self) -> Labelled:
        """Every drawing; labels [N 2] are its alphabet and its character."""
        images, labels, _ = self._drawings()
        return Labelled(images, labels)

    def probe(self) -> ProbeTask:
        """Characters from the drawings of 15 people, measured on those of the other five: no hand is in both. The split is ours."""
        images, labels, drawer = self._drawings()
        parts = np.flatnonzero(drawer < OMNIGLOT_TEST), np.flatnonzero(drawer >= OMNIGLOT_TEST)
        return ProbeTask(*(Labelled(images.take(rows), labels[rows, 1]) for rows in parts))

    def _drawings(self) -> tuple[Pictures, np.ndarray, np.ndarray]:
        files = {name: content for name, content in sorted(_unzip(self._path, "images_background_small1.zip").items())}
        alphabet, character = ([tuple(name.split("/")[1:part]) for name in files] for part in (2, 3))
        number = lambda names: np.unique(["/".join(name) for name in names], return_inverse=True)[1]
        drawer = np.array([int(name.removesuffix(".png").split("_")[-1]) for name in files])
        return Pictures(list(files), list(files.values()), self._inverted), np.stack([number(alphabet), number(character)], axis=1), drawer


def _retrieval(images: Sequence, captions: Iterable[Sequence[str]], groups: Sequence[str]) -> RetrievalTask:
    """Distinct captions as candidates; one that several images have is right for all of them."""
    number: dict[str, int] = {}
    pairs = {(i, number.setdefault(caption, len(number))) for i, own in enumerate(captions) for caption in own}
    return RetrievalTask(images, list(number), np.array(sorted(pairs)), groups)


def _templates(folder: str, name: str) -> list[str]:
    return [template.replace("{c}", "{}") for template in local_files.read_json(folder, PROMPTS, "prompts")[name]]


def _numbered(names: Sequence[str], classes: Sequence[str], path) -> np.ndarray:
    """Index of each name in `classes`, each of which occurs."""
    if strange := sorted(set(names) - set(classes)):
        raise ValueError(f"{path} holds images of unknown classes: {', '.join(strange)}; they are: {', '.join(classes)}.")
    if empty := [name for name in classes if name not in set(names)]:
        raise ValueError(f"{path} holds no image of {', '.join(empty)}, so the score would be one of fewer classes; copy the set again.")
    return np.array([classes.index(name) for name in names])


def _unzip(folder: str, name: str) -> dict[str, bytes]:
    path = local_files.find(folder, name)
    try:
        with zipfile.ZipFile(path) as archive:
            return {entry.filename: archive.read(entry) for entry in archive.infolist() if not entry.is_dir()}
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is no whole zip file ({error}); copy the set again.") from error


def _idx(folder: str, name: str) -> np.ndarray:
    """Images uint8 [N H W 1] or labels int64 [N] of an IDX file."""
    path = local_files.find(folder, name)
    try:
        content = gzip.GzipFile(fileobj=io.BytesIO(path.read_bytes())).read()
    except EOFError as error:
        raise ValueError(f"{path} is cut off ({error}); copy the set again.") from error
    axes = content[3] if content[:3] == b"\0\0\x08" else 0
    shape = np.frombuffer(content, ">u4", axes, 4).tolist()
    if axes not in (1, 3) or len(content) != 4 + 4 * axes + int(np.prod(shape)):
        raise ValueError(f"{path} is no whole IDX file of bytes; copy the set again.")
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)
    return values[..., None] if axes == 3 else values.astype(np.int64)
