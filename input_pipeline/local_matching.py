"""Published sets that ask which text belongs to an image, or to another text, where a word or two decide.

Read from folders on this machine; nothing is downloaded, and no source of training is here.
"""

import json
import random
import re

import numpy as np

from input_pipeline import local_files, pictures
from input_pipeline.tasks import CandidatesTask, PairScores, RankingTask, ranking_task

CAPTIONS = "coco_karpathy_test_captions.tsv"
SUGARCREPE = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
LISTED = 100  # captions in a list of `CocoCaptions.candidates`


class Nlvr:
    """NLVR's development set: 989 sentences that are true or false of an image of three boxes, six orders of the boxes each.

    Args:
        path: folder with `dev.json` and `images/`.
        orders: images of an example that are read, 1 to 6; the published accuracy is over all 5,934.

    Raises:
        ValueError: fewer than 1 order or more than 6.

    Source: Suhr et al. 2017, github.com/lil-lab/nlvr. Calling every image true is right for 0.553 of them.
    """

    def __init__(self, *, path: str = "data/nlvr_dev", orders: int = 6):
        if not 1 <= orders <= 6:
            raise ValueError(f"an example has 6 images, not {orders}; set options.orders to 1 to 6.")
        lines = local_files.find(path, "dev.json").read_text(encoding="utf-8").splitlines()
        self._rows = [(row, k) for k in range(orders) for row in map(json.loads, lines)]
        names = [f"{row['directory']}/dev-{row['identifier']}-{k}.png" for row, k in self._rows]
        self._images = pictures.from_folder(f"{path}/images", names)

    def pairs(self) -> PairScores:
        """Each image with its sentence, 1 where it is true."""
        return PairScores(
            self._images, [row["sentence"] for row, _ in self._rows], np.array([self._true(i) for i in range(len(self._rows))])
        )

    def candidates(self) -> CandidatesTask:
        """Each sentence picks the image that it is true of, among those of its own presentation that it is false of.

        Ours: a similarity has no threshold of its own, and this needs none. Examples without a false image beside them are left out.
        """
        shown: dict[tuple[str, int], list[int]] = {}
        for i, (row, k) in enumerate(self._rows):
            shown.setdefault((row["identifier"].split("-")[0], k), []).append(i)
        false = {key: [i for i in own if not self._true(i)] for key, own in shown.items()}
        right = [(i, false[key]) for key, own in shown.items() for i in own if self._true(i) and false[key]]
        sentences = [self._rows[i][0]["sentence"] for i, _ in right]
        return CandidatesTask(sentences, self._images, [[i, *others] for i, others in right], np.array([i for i, _ in right]))

    def _true(self, i: int) -> int:
        return int(self._rows[i][0]["label"] == "true")


class CocoCaptions:
    """The captions of COCO's 5,000 test images (Karpathy's split), five each, without the images: which texts tell of one photo?

    Args:
        path: folder with the captions' TSV.
        seed: of the other captions in a list of `candidates()`.

    Source: Lin et al. 2014; split Karpathy and Fei-Fei 2015. From caption to caption after Parekh et al. 2021, arXiv:2004.15020.
    """

    def __init__(self, *, path: str = "data/sugarcrepe_coco5k", seed: int = 0):
        self._captions, self._seed = [own[:5] for own in read_captions(path).values()], seed  # ten images have six

    def ranking(self) -> RankingTask:
        """The first caption of each image against the other four of all; those of its image are relevant."""
        return ranking_task((own[0], other) for own in self._captions for other in own[1:])

    def candidates(self) -> CandidatesTask:
        """The first caption of each image picks the second one among 100: the second ones of 99 images drawn by the seed."""
        queries, others = zip(*(own[:2] for own in self._captions), strict=True)
        number = {text: i for i, text in enumerate(dict.fromkeys(others))}
        right, rng = [number[text] for text in others], random.Random(self._seed)
        size = min(LISTED, len(number))
        drawn = (rng.sample(range(len(number)), size) for _ in right)  # one too many, for when the right one is drawn
        lists = [rng.sample([*(i for i in some if i != own)][: size - 1] + [own], size) for own, some in zip(right, drawn, strict=True)]
        return CandidatesTask(queries, list(number), lists, np.array(right))


class SugarCrepe:
    """SugarCrepe: a caption of a COCO photo, and a sentence that differs from it by a few words and is false of it; by kind.

    The published test shows the image: give the folder of COCO's val2017 and it is that, on all 7,511 items. Without, another person's
    caption of the same photo stands for the image, where that is known: 852 items whose photos are among the 5,000 of Karpathy's test.
    That tells whether a text tower feels the difference, and compares with nothing published.

    Args:
        path: folder with `<kind>.json` and the captions' TSV.
        images: folder with the photos by their file names; empty uses captions in their place.

    Source: Hsieh et al. 2023, arXiv:2306.14610, github.com/RAIVNLab/sugar-crepe.
    """

    def __init__(self, *, path: str = "data/sugarcrepe_coco5k", images: str = ""):
        kinds = {kind: local_files.read_json(path, f"{kind}.json") for kind in SUGARCREPE}
        self._items = [(kind, item) for kind, items in kinds.items() for item in items.values()]
        self._captions, self._images = read_captions(path), images

    def candidates(self) -> CandidatesTask:
        """Queries are captions of the same photo, or photos; each list holds the caption and its false double."""
        if self._images:
            items = self._items
            queries = pictures.from_folder(self._images, [item["filename"] for _, item in items])
        else:
            stand = [(kind, item, self._other(item)) for kind, item in self._items]
            items = [(kind, item) for kind, item, other in stand if other is not None]
            queries = [other for _, _, other in stand if other is not None]
        pool = [item[name] for _, item in items for name in ("caption", "negative_caption")]
        lists = [[2 * i, 2 * i + 1] for i in range(len(items))]
        return CandidatesTask(queries, pool, lists, 2 * np.arange(len(items)), [kind for kind, _ in items])

    def _other(self, item: dict) -> str | None:
        """The first caption of the photo that is not the item's, which must be one of them: an edited one might stand here as the other."""
        captions = {_plain(caption): caption for caption in self._captions.get(item["filename"], ())}
        own = captions.pop(_plain(item["caption"]), None)
        return next(iter(captions.values()), None) if own is not None else None


def read_captions(folder: str) -> dict[str, list[str]]:
    """Captions by the image's file name without the split, `000000391895.jpg`, in the order of the file."""
    captions: dict[str, list[str]] = {}
    for line in local_files.find(folder, CAPTIONS).read_text(encoding="utf-8").removesuffix("\n").split("\n"):
        _, image, caption = line.split("\t")
        captions.setdefault(image.split("_")[-1], []).append(caption.strip())
    return captions


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
