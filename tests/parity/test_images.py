"""CLIP_benchmark's own functions beside the evaluators, on the captions, photos, templates and hard negatives of real sets."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
retrieval = pytest.importorskip("clip_benchmark.metrics.zeroshot_retrieval")
classification = pytest.importorskip("clip_benchmark.metrics.zeroshot_classification")
selection = pytest.importorskip("clip_benchmark.metrics.image_caption_selection")

from evals.candidates import candidates  # noqa: E402
from evals.image_text_retrieval import image_text_retrieval  # noqa: E402
from evals.zeroshot import zeroshot  # noqa: E402
from input_pipeline import local_images, local_matching  # noqa: E402
from input_pipeline.tasks import CandidatesTask, ClassificationTask, RetrievalTask  # noqa: E402
from tests.evals import toys  # noqa: E402

pytestmark = pytest.mark.parity
WIDTH = 24


class Made:
    """A set that delivers one task, under any name."""

    def __init__(self, task):
        self.retrieval = self.classification = self.candidates = lambda: task


class Tower:
    """A model for CLIP_benchmark that finds rows by number: images are [B 1 1 1], a tokenized text its number."""

    def __init__(self, images, texts):
        self.images, self.texts = torch.tensor(images), torch.tensor(texts)

    def encode_image(self, x):
        return self.images[x.long().flatten()]

    def encode_text(self, x):
        return self.texts[x.long()]


def numbered(count):
    return torch.arange(count, dtype=torch.float32)[:, None, None, None]


def encoders(images, texts, number):
    return toys.Encoders(
        image=lambda values: images[[int(value) for value in values]], text=lambda values: texts[[number[value] for value in values]]
    )


def test_recalls_of_photos_with_five_captions_are_equal(shared_data):
    task = local_images.Flickr8k(path=str(shared_data / "flickr8k_p")).retrieval()
    rng, own = np.random.default_rng(0), task.relevant[:, 0]
    images = rng.normal(size=(len(task.images), WIDTH)).astype(np.float32)
    texts = (images[own] + 2 * rng.normal(size=(len(own), WIDTH))).astype(np.float32)
    captions = [[task.texts[j] for j in task.relevant[own == i, 1]] for i in range(len(images))]
    number = {text: i for i, text in enumerate(task.texts)}
    batches = [(numbered(len(images))[start : start + 100], captions[start : start + 100]) for start in range(0, len(images), 100)]
    tokenize = lambda texts: torch.tensor([number[text] for text in texts])
    theirs = retrieval.evaluate(Tower(images, texts), batches, tokenize, "cpu", amp=False, recall_k_list=[1, 5, 10])
    ours = image_text_retrieval(
        encoders(images, texts, number), Made(RetrievalTask(range(len(images)), task.texts, task.relevant, task.groups)), gallery_queries=0
    ).metrics
    for k in (1, 5, 10):
        assert ours[f"img2txt/recall@{k}"] == pytest.approx(theirs[f"text_retrieval_recall@{k}"], abs=1e-6)
        assert ours[f"txt2img/recall@{k}"] == pytest.approx(theirs[f"image_retrieval_recall@{k}"], abs=1e-6)
    assert 0.05 < ours["img2txt/recall@1"] < 0.95  # neither is a test of a perfect or an ignorant model
    assert ours["rsum"] == pytest.approx(100 * sum(theirs.values()), abs=1e-3)


def test_accuracies_through_the_templates_of_a_set_are_equal(shared_data):
    data = local_images.Cifar10(path=str(shared_data / "cifar10_jpg"), prompts=str(shared_data / "clip_classnames"))
    task = data.classification()
    labels, rng = np.asarray(task.labels)[::5], np.random.default_rng(0)
    prompts = [template.replace("{}", name) for name in task.class_names for template in task.templates]
    number = {prompt: i for i, prompt in enumerate(prompts)}
    classes = rng.normal(size=(10, WIDTH))
    # Rows of unlike lengths: an average before the norm would be another.
    texts = np.repeat(classes, len(task.templates), axis=0) + 3 * rng.normal(size=(len(prompts), WIDTH))
    texts = (texts * rng.lognormal(size=(len(prompts), 1))).astype(np.float32)
    images = (classes[labels] + 2 * rng.normal(size=(len(labels), WIDTH))).astype(np.float32)
    tower, tokenize = Tower(images, texts), lambda texts: torch.tensor([number[text] for text in texts])
    templates = [template.replace("{}", "{c}") for template in task.templates]
    classifier = classification.zero_shot_classifier(tower, tokenize, list(task.class_names), templates, "cpu", amp=False)
    batches = [(numbered(len(labels)), torch.tensor(labels))]
    logits, target = classification.run_classification(tower, classifier, batches, "cpu", amp=False)
    ours = zeroshot(encoders(images, texts, number), Made(ClassificationTask(range(len(labels)), labels, task.class_names, task.templates)))
    # Its own `accuracy` fails with NumPy 2.4; what it counts is this.
    right = logits.topk(5).indices == target[:, None]
    assert ours.metrics["accuracy@1"] == pytest.approx(right[:, 0].double().mean().item(), abs=1e-9)
    assert ours.metrics["accuracy@5"] == pytest.approx(right.any(dim=1).double().mean().item(), abs=1e-9)
    recall = classification.balanced_accuracy_score(target, logits.argmax(axis=1))
    assert ours.metrics["mean_per_class_recall"] == pytest.approx(recall, abs=1e-9)
    assert 0.2 < ours.metrics["accuracy@1"] < 0.95


@pytest.mark.parametrize("spread", [1.0, 0.0])
def test_captions_and_their_false_doubles_are_chosen_between_alike(shared_data, spread):
    """Without spread all texts are one vector: by the published rule, which takes the first of equals, that is right for all items.

    The vector is an axis: a product of 24 terms ties in CLIP_benchmark's float32 for 4 items of 5 only, by the place in the matrix.
    """
    task = local_matching.SugarCrepe(path=str(shared_data / "sugarcrepe_coco5k")).candidates()
    rng = np.random.default_rng(0)
    images = rng.normal(size=(len(task.queries), WIDTH)).astype(np.float32)
    texts = (np.eye(1, WIDTH) + spread * rng.normal(size=(len(task.candidates), WIDTH))).astype(np.float32)
    pairs = [[2 * i, 2 * i + 1] for i in range(len(images))]
    batches = [(numbered(len(images)), pairs)]
    theirs = selection.evaluate(Tower(images, texts), batches, torch.tensor, "cpu", amp=False)
    made = CandidatesTask(range(len(images)), range(len(texts)), task.lists, task.right, task.groups)
    ours = candidates(encoders(images, texts, range(len(texts))), Made(made)).metrics
    assert ours["accuracy"] == pytest.approx(theirs["text_acc"], abs=1e-6)
    assert ours["accuracy_pessimistic"] == (ours["accuracy"] if spread else 0)
