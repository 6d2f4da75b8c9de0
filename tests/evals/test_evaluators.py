"""What is particular to each evaluator: galleries, options and refusals."""

import math

import numpy as np
import pytest

from evals import gallery, held_out_loss, image_text_retrieval, metrics, zeroshot
from tests.evals import toys
from tests.oracles import ranking

TOY = toys.Toy()
retrieve = image_text_retrieval.image_text_retrieval
classify = zeroshot.zeroshot
loss = held_out_loss.held_out_loss


def noisy(seed=0):
    """Right for most characters, wrong for some."""
    exact, rng = toys.perfect(TOY), np.random.default_rng(seed)
    return toys.Encoders(image=lambda v: exact["image"](v) + rng.normal(size=(len(v), 25)) * 0.3, text=exact["text"])


def test_grid_shows_what_was_measured():
    task, result = TOY.retrieval(), retrieve(noisy(), TOY, gallery_queries=10)
    shown = result.gallery
    assert shown["query_images"].shape == (10, 1, 2, 1) and shown["query_images"].dtype == np.uint8
    assert len(set(shown["query_names"].tolist())) == 10  # no character twice
    for image, name, group in zip(shown["query_images"], shown["query_names"], shown["query_groups"], strict=True):
        character = toys.of_image(image)
        assert name == task.texts[character] and group == TOY.scripts[TOY.script(character)]
    assert (np.diff(shown["top_scores"], axis=1) <= 0).all()
    np.testing.assert_array_equal(shown["top_right"], shown["top_names"] == shown["query_names"][:, None])
    in_top = shown["query_ranks"] < 5
    np.testing.assert_array_equal(shown["top_right"].any(1), in_top)
    np.testing.assert_array_equal(shown["top_right"].argmax(1)[in_top], shown["query_ranks"][in_top])
    assert not shown["top_right"][:, 0].all() and shown["top_right"][:, 0].any()


def test_both_directions_equal_the_double_loop():
    task, encode = TOY.retrieval(), noisy()
    images, texts = noisy()["image"](task.images), encode["text"](task.texts)
    images = images / np.linalg.norm(images, axis=1, keepdims=True)
    values = retrieve(encode, TOY).metrics
    for name, queries, candidates, pairs in (
        ("img2txt", images, texts, task.relevant.tolist()),
        ("txt2img", texts, images, task.relevant[:, ::-1].tolist()),
    ):
        reference, _ = ranking.ranks(queries, candidates, pairs)
        for k in (1, 5, 10):
            assert values[f"{name}/recall@{k}"] == pytest.approx(np.mean(np.array(reference) < k))
        assert values[f"{name}/mean_rank"] == pytest.approx(np.mean(reference) + 1)
    assert values["img2txt/mean_rank"] != values["txt2img/mean_rank"]


def test_any_relevant_text_is_right():
    """Two names of one picture: either counts, and the grid marks both."""

    class Alias(toys.Toy):
        def retrieval(self):
            task = super().retrieval()
            extra = [(i, 1) for i, (c, _) in enumerate(self.rows) if c == 0]
            return toys.Task(task.images, task.texts, np.concatenate([task.relevant, extra]), task.groups)

    swapped, exact = {"CHARACTER 0": "CHARACTER 1", "CHARACTER 1": "CHARACTER 0"}, toys.perfect(TOY)
    encode = toys.Encoders(image=exact["image"], text=lambda texts: exact["text"]([swapped.get(t, t) for t in texts]))
    result = retrieve(encode, Alias(), gallery_queries=20)
    assert result.metrics["img2txt/recall@1"] == 1 - 3 / 60  # character 1 is wrong in its three faces, character 0 is right
    first = result.gallery["query_names"].tolist().index("CHARACTER 0")
    assert result.gallery["top_names"][first, 0] == "CHARACTER 1" and result.gallery["top_right"][first, 0]


def test_similarity_and_map_carry_labels():
    shown = retrieve(toys.perfect(TOY), TOY, gallery_pairs=10).gallery
    assert shown["pair_scores"].shape == (10, 10) and shown["pair_groups"].tolist() == sorted(shown["pair_groups"].tolist())
    np.testing.assert_array_equal(shown["pair_scores"].argmax(1), np.arange(10))
    np.testing.assert_array_equal(shown["pair_relevant"], np.eye(10, dtype=bool))
    assert shown["map_image_embeddings"].shape == (60, 25) and shown["map_image_embeddings"].dtype == np.float16
    assert shown["map_text_groups"].tolist() == [TOY.scripts[TOY.script(c)] for c in range(20)]
    assert shown["map_image_names"].tolist() == [TOY.names[c] for c, _ in TOY.rows]


def test_galleries_can_be_left_out():
    assert retrieve(toys.perfect(TOY), TOY, gallery_queries=0).gallery == {}
    assert classify(toys.perfect(TOY), TOY, confusion_classes=0).gallery == {}
    assert "pair_scores" not in retrieve(toys.perfect(TOY), TOY, gallery_pairs=0).gallery


def test_samples_favour_small_groups_without_ignoring_large_ones():
    groups = ["A"] * 400 + ["B"] * 100 + ["C"] * 4
    some = gallery.spread(groups, 34, seed=0)
    counts = [sum(groups[i] == label for i in some) for label in "ABC"]
    assert len(set(some.tolist())) == 34 and counts == [21, 11, 2]
    assert gallery.spread(groups, 34, seed=1).tolist() != some.tolist() == gallery.spread(groups, 34, seed=0).tolist()
    distinct = np.arange(504) % 50
    assert len(set(distinct[gallery.spread(groups, 40, seed=0, distinct=distinct)].tolist())) == 40
    assert len(gallery.spread(groups, 1000, seed=0)) == 504


def test_large_and_uneven_images_become_one_array():
    images = [np.full((300, 200, 3), 7, np.uint8), np.full((20, 90, 3), 9, np.uint8)]
    small = gallery.thumbnails(images)
    assert small.shape == (2, 75, 90, 3) and (small[0, :, :50] == 7).all() and (small[0, :, 50:] == 0).all() and (small[1, :20] == 9).all()


def test_an_image_without_a_text_is_named():
    class Lonely(toys.Toy):
        def retrieval(self):
            task = super().retrieval()
            return toys.Task(task.images, task.texts, task.relevant[task.relevant[:, 0] != 7], task.groups)

    with pytest.raises(ValueError, match=r"img2txt: queries without a relevant candidate in rows 7 \(1 of 60\).*config.evals"):
        retrieve(toys.perfect(TOY), Lonely())


def test_recall_at_1_is_measured_whatever_ks_say():
    assert {"img2txt/recall@1", "txt2img/recall@3"} <= set(retrieve(toys.perfect(TOY), TOY, ks=[3]).metrics)


def test_confusion_counts_rows_by_prediction():
    encode = toys.perfect(TOY)
    exact = encode["image"]
    encode["image"] = lambda images: exact([np.zeros_like(i) if toys.of_image(i) == 1 else i for i in images])  # script 1 read as script 0
    shown = classify(encode, TOY).gallery
    assert shown["confusion"].sum() == 60 and shown["confusion"].shape == (5, 6)
    assert shown["confusion"][1].tolist() == [3, 9, 0, 0, 0, 0] and shown["class_recall"].tolist() == [1, 0.75, 1, 1, 1]
    few = classify(encode, TOY, confusion_classes=2).gallery
    assert few["confusion"].tolist() == [[12, 0, 0], [3, 9, 0]] and few["class_rows"].tolist() == [12, 12]


def test_templates_can_be_replaced_and_need_their_hole():
    asked = []
    encode = toys.perfect(TOY)
    exact = encode["text"]
    encode["text"] = lambda texts: asked.extend(texts) or exact(texts)
    classify(encode, TOY, templates=["the script {}"])
    assert asked == [f"the script {name}" for name in TOY.scripts]
    with pytest.raises(ValueError, match="templates need a {}.*config.evals.<label>.options.templates"):
        classify(encode, TOY, templates=["no hole"])


def test_a_class_may_bring_its_own_prompts():
    task = TOY.classification()
    prompts = [[f"{name} {k}" for k in range(1 + label)] for label, name in enumerate(task.class_names)]

    class Listed(toys.Toy):
        def classification(self):
            return toys.Classes(task.images, task.labels, task.class_names, ["never {}"], prompts)

    vector = {prompt: np.random.default_rng(i).normal(size=8) for i, prompt in enumerate(p for some in prompts for p in some)}
    images = np.random.default_rng(99).normal(size=(len(task.images), 8))
    found = classify({"text": lambda texts: np.stack([vector[t] for t in texts]), "image": lambda _: images}, Listed())
    # By definition: the mean of unit vectors of each class, made unit again.
    unit = lambda x: x / np.linalg.norm(x)
    classes = np.stack([unit(np.mean([unit(vector[p]) for p in some], axis=0)) for some in prompts])
    assert found.metrics["accuracy@1"] == np.mean((images @ classes.T).argmax(1) == task.labels)


def test_braces_in_class_names_are_text():
    class Braces(toys.Toy):
        def classification(self):
            task = super().classification()
            return toys.Classes(task.images, task.labels, ["{0} " + name for name in task.class_names], task.templates)

    assert classify(toys.perfect(TOY), Braces()).metrics["accuracy@1"] == 1


def test_labels_outside_the_classes_are_refused():
    class Wrong(toys.Toy):
        def classification(self):
            task = super().classification()
            return toys.Classes(task.images, task.labels + 1, task.class_names, task.templates)

    with pytest.raises(ValueError, match="do not name one of 5 classes for each of 60 images"):
        classify(toys.perfect(TOY), Wrong())


@pytest.mark.parametrize("batch", [4, 10])
def test_constant_embeddings_cost_the_log_of_the_batch(batch):
    single = toys.Toy(faces=1)
    assert loss(toys.constant(single), single, batch=batch).metrics["loss"] == pytest.approx(math.log(batch), rel=1e-6)


def test_batches_are_disjoint_full_and_fixed():
    seen = []
    encode = toys.perfect(TOY)
    encode.losses = [("main", 1.0, lambda arrays: seen.append(arrays) or 0.0)]
    result = loss(encode, TOY, batch=25, seed=3)
    assert [len(arrays["id"]) for arrays in seen] == [25, 25] and result.count == 50 and result.metrics["count/batch"] == 25
    ids = np.concatenate([arrays["pixel_id"] for arrays in seen])
    assert len(set(ids.tolist())) == 50 and ids.dtype == np.int32
    assert set(seen[0]) == {"z_image", "z_text", "id", "pixel_id", "logit_scale"} and seen[0]["logit_scale"] == 20
    loss(encode, TOY, batch=25, seed=3)
    np.testing.assert_array_equal(seen[2]["pixel_id"], seen[0]["pixel_id"])
    loss(encode, TOY, batch=25, batches=1, seed=4)
    assert len(seen) == 5 and seen[4]["pixel_id"].tolist() != seen[0]["pixel_id"].tolist()


def test_rows_of_a_batch_belong_together():
    def check(arrays):
        return float(np.mean(arrays["z_image"].argmax(1) == arrays["id"]) + np.mean(arrays["z_text"].argmax(1) == arrays["id"]))

    assert loss(toys.Encoders(losses=[("main", 1.0, check)], **toys.perfect(TOY)), TOY, batch=12).metrics["loss"] == 2


def test_losses_are_weighted_and_named():
    losses = [("main", 2.0, lambda arrays: 1.5), ("other", 0.5, lambda arrays: float(arrays["logit_bias"]))]
    encode = toys.Encoders(losses=losses, logit_bias=-10.0, **toys.perfect(TOY))
    values = loss(encode, TOY, batch=30).metrics
    assert (values["loss"], values["loss/main"], values["loss/other"], values["logit_scale"]) == (-2.0, 1.5, -10.0, 20.0)


def test_the_mean_is_over_batches():
    values = iter([1.0, 4.0])
    encode = toys.Encoders(losses=[("main", 1.0, lambda arrays: next(values))], **toys.perfect(TOY))
    assert loss(encode, TOY, batch=30).metrics["loss"] == 2.5


@pytest.mark.parametrize("options, cure", [({"batch": 61}, "batch to 60 or less"), ({"batch": 20, "batches": 4}, "batch to 15 or less")])
def test_too_few_pairs_name_the_key(options, cure):
    with pytest.raises(ValueError, match=f"60 pairs do not fill .* config.evals.<label>.options.{cure}"):
        loss(toys.perfect(TOY), TOY, **options)


def test_embeddings_of_any_length_rank_the_same():
    exact = toys.perfect(TOY)
    longer = toys.Encoders(image=lambda v: 3 * exact["image"](v), text=lambda v: np.arange(1, len(v) + 1)[:, None] * exact["text"](v))
    assert retrieve(longer, TOY).metrics["rsum"] == 600
    assert classify(longer, TOY).metrics["accuracy@1"] == metrics.hit_rate(np.zeros(60), 1)
