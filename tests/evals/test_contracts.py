"""What every entry of EVALUATORS keeps: perfect, random and tied rankings, names, galleries without pickle."""

import importlib
import inspect
import io
import math
import pathlib

import numpy as np
import pytest

import evals
from core.config import bind, options_of
from evals import EVALUATORS
from evals.evaluation import Evaluation, direction
from evals.statistics import STATISTICS
from tests.evals import toys

OPTIONS = {
    "image_text_retrieval": {}, "zeroshot": {}, "held_out_loss": {"batch": 20},
    "ranking": {"query": "image", "passage": "text", "ks": (1, 5)}, "sts": {"first": "image"}, "pair_classification": {"first": "image"},
    "bitext": {"source": "image"}, "clustering": {"view": "image", "protocol": "legacy"},
    "knn": {"view": "text", "k": 5, "ks": (1,)}, "linear_probe": {"view": "text", "sweep": False}, "few_shot": {"view": "text", "draws": 1},
    "calibration": {}, "ood": {}, "embedding_geometry": {}, "complexity": {"view": "text"},
    "candidates": {}, "needle": {"query": "image", "passage": "text"},
    "noise": {"query": "image", "passage": "text", "characters": (0.0,), "words": (), "layout": ()},  # the perfect model reads names whole
}  # fmt: skip
TOY = toys.Toy()
DATA = {name: TOY for name in OPTIONS} | {"held_out_loss": toys.Toy(faces=1)}  # no positives to repeat in a batch
SCRIPTS = len(TOY.scripts)
UNDEFINED = {
    "sts": ("cosine_spearman", "cosine_pearson", "manhattan_spearman", "manhattan_pearson", "euclidean_spearman", "euclidean_pearson")
}

# A constant model: (metric, value) with ties counted for it, then against it where the metric has such a mode.
TIED = {
    "image_text_retrieval": {
        "img2txt/recall@1": 1,
        "img2txt/recall@1_pessimistic": 0,
        "txt2img/recall@10_pessimistic": 0,
        "img2txt/tie_rate": 1,
    },
    "zeroshot": {"accuracy@1": 1 / SCRIPTS, "accuracy@1_pessimistic": 0, "tie_rate": 1, "cross_entropy": math.log(SCRIPTS)},
    "held_out_loss": {"loss": math.log(20), "loss/main": math.log(20)},
    # 20 candidates that tie stand in the order of their ids, 9, 8, ..., 2, 19, 18, ..., 10, 1, 0, each right for 3 queries.
    # The last one stays there whatever the rule.
    "ranking": {"mrr@10": sum(1 / r for r in range(1, 11)) / 20, "recall@5": 5 / 20, "mrr@10_pessimistic": 0, "tie_rate": 19 / 20},
    "sts": {"cosine_spearman": math.nan, "count/undefined": 6, "tie_rate": 1},
    "pair_classification": {"max_ap": 1 / 2, "cosine_f1": 0, "tie_rate": 1},
    # All take the first target: 3 of 60 are right, and its F1 is 2 * 3 / (60 + 3).
    "bitext": {"f1": 3 / 60 * 6 / 63, "accuracy": 3 / 60, "accuracy_pessimistic": 0, "tie_rate": 1},
    "clustering": {"v_measure": 0, "ami": 0},
    # The five nearest are the first five rows, one of each class.
    "knn": {"k5/accuracy@1": 1 / 5, "k5/accuracy@5": 1, "k1/accuracy@1": 1 / 5, "k5/accuracy@1_pessimistic": 0, "k5/tie_rate": 1},
    "linear_probe": {"accuracy@1": 1 / 5, "cross_entropy": math.log(5), "ece": 0, "accuracy@1_chance": 1 / 5},
    "few_shot": {"accuracy@1": 1 / 5, "f1_macro": 1 / 3 / 5},
    "complexity": {"accuracy@1": 1 / 5, "complexity/probe_error": 4 / 5},
    "calibration": {"ece": 0, "accuracy@1": 1 / SCRIPTS, "cross_entropy": math.log(SCRIPTS), "brier": 0.8, "scaled/ece": 0},
    "ood": {"msp/auroc": 1 / 2, "msp/auroc_pessimistic": 0, "mcm/tie_rate": 1, "logit/fpr95/id_positive": 1, "msp/fpr95/ood_positive": 1},
    "embedding_geometry": {
        "align_uniform": 0,
        "geometry/mean_cosine_image": 1,
        "geometry/effective_rank_text": 1,
        "geometry/modality_gap": 0,
        "geometry/modality_accuracy": 1 / 2,
        "geometry/isoscore_text": 0,
    },
    "candidates": {"accuracy": 1, "accuracy_pessimistic": 0, "mrr_pessimistic": 1 / 5, "accuracy_pessimistic/groups": 0, "tie_rate": 1},
    "needle": {"accuracy": 1 / 20, "accuracy_pessimistic": 0, "tie_rate": 19 / 20},  # as in ranking
    "noise": {"ndcg@10/noisy": sum(1 / math.log2(r + 1) for r in range(1, 11)) / 20, "ndcg@10_pessimistic/noisy": 0, "kept": 1},
}
PERFECT = {
    "image_text_retrieval": {
        "img2txt/recall@1_pessimistic": 1,
        "txt2img/recall@1_pessimistic": 1,
        "rsum": 600,
        "img2txt/tie_rate": 0,
        "img2txt/mean_rank": 1,
    },
    "zeroshot": {"accuracy@1": 1, "accuracy@1_pessimistic": 1, "mean_per_class_recall": 1, "tie_rate": 0},
    "ranking": {"mrr@10_pessimistic": 1, "ndcg@10_pessimistic": 1, "map": 1, "recall@1": 1, "success@1": 1, "tie_rate": 0},
    "sts": {"cosine_spearman": 1, "cosine_pearson": 1, "count/undefined": 0, "tie_rate": 1},
    "pair_classification": {"max_ap": 1, "max_f1": 1, "cosine_accuracy": 1, "tie_rate": 0},
    "bitext": {"f1": 1, "precision": 1, "recall": 1, "accuracy_pessimistic": 1, "tie_rate": 0},
    "clustering": {"v_measure": 1, "ami": 1},
    "knn": {"k5/accuracy@1_pessimistic": 1, "k1/accuracy@1": 1, "mean_per_class_recall": 1, "k5/tie_rate": 0},
    "linear_probe": {"accuracy@1": 1, "mean_per_class_recall": 1, "accuracy@1_chance": 1 / 5},
    "few_shot": {"accuracy@1": 1, "f1_macro": 1},
    "complexity": {"accuracy@1": 1, "complexity/entropy": 1 / 2 + math.log2(10) / 2},  # half of the words are one, the others five
    "calibration": {"ece": 0, "accuracy@1": 1, "scaled/ece": 0, "brier": 0},
    "ood": {"msp/auroc_pessimistic": 1, "mcm/auroc": 1, "energy/fpr95/id_positive": 0, "logit/fpr95/ood_positive": 0, "msp/aupr/out": 1},
    "embedding_geometry": {"geometry/alignment": 0.4},
    "candidates": {"accuracy_pessimistic": 1, "mrr_pessimistic": 1, "accuracy_pessimistic/face_2": 1, "tie_rate": 0},
    "needle": {"accuracy_pessimistic": 1, "accuracy/10": 1, "accuracy/depth_9": 1, "tie_rate": 0},
    "noise": {"ndcg@10/noisy": 1, "ndcg@10_pessimistic/characters_0": 1, "ndcg@10/clean": 1, "edited/characters_0": 0, "tie_rate": 0},
    "held_out_loss": {"loss": math.log(1 + 19 * math.exp(-20 * 0.8))},  # cosine 0.8 with the own text, 0 with the others
}
CHANCE = {
    "image_text_retrieval": {"img2txt/recall@1": 1 / 20, "img2txt/recall@5": 5 / 20, "txt2img/recall@1": 3 / 60},
    "zeroshot": {"accuracy@1": 1 / SCRIPTS},
    "held_out_loss": {"loss": math.log(20)},
    "sts": {"cosine_spearman": 0, "euclidean_pearson": 0},
    "pair_classification": {"cosine_ap": 29 / 59 + 30 / 59 * sum(1 / r for r in range(1, 61)) / 60},
    "bitext": {"accuracy": 1 / 20, "recall": 1 / 20},
    "clustering": {"ami": 0},
    "knn": {"k5/accuracy@1": 1 / 5, "k1/accuracy@1": 1 / 5},
    "linear_probe": {"accuracy@1": 1 / 5},
    "few_shot": {"accuracy@1": 1 / 5},
    "complexity": {"accuracy@1": 1 / 5},
    "calibration": {"accuracy@1": 1 / SCRIPTS},
    "ood": {"msp/auroc": 1 / 2, "energy/auroc": 1 / 2, "mcm/auroc_pessimistic": 1 / 2},
    "embedding_geometry": {"geometry/alignment": 2, "geometry/mean_cosine_image": 0, "geometry/modality_accuracy": 1 / 2},
    "candidates": {"accuracy_pessimistic": 1 / 5, "accuracy": 1 / 5, "mrr": sum(1 / r for r in range(1, 6)) / 5},
    "needle": {"accuracy": 1 / 20, "accuracy/11": 1 / 20},
    "noise": {"ndcg@10/noisy": sum(1 / math.log2(r + 1) for r in range(1, 11)) / 20},
    "ranking": {"mrr@10": sum(1 / r for r in range(1, 11)) / 20, "recall@5": 5 / 20, "map": sum(1 / r for r in range(1, 21)) / 20},
}


def run(name, encode):
    return bind(EVALUATORS[name], OPTIONS[name], f"config.evals.{name}.options")(encode, DATA[name])


def test_every_file_of_an_evaluator_is_listed():
    found = set()
    for path in pathlib.Path(evals.__file__).parent.glob("*.py"):
        module = importlib.import_module(f"evals.{path.stem}") if path.stem != "__init__" else evals
        function = getattr(module, path.stem, None)
        if inspect.isfunction(function) and list(inspect.signature(function).parameters)[:2] == ["encode", "data"]:
            found.add(path.stem)
    assert found == set(EVALUATORS)
    assert all(function.__name__ == name for name, function in EVALUATORS.items())
    assert set(OPTIONS) == set(TIED) == set(PERFECT) == set(CHANCE) == found


@pytest.mark.parametrize("name", sorted(EVALUATORS))
@pytest.mark.parametrize("kind", ["perfect", "constant"])
def test_result_is_plain(name, kind):
    result = run(name, getattr(toys, kind)(TOY))
    assert isinstance(result, Evaluation) and result.primary in result.metrics and result.count == len(DATA[name])
    for key, value in result.metrics.items():
        assert type(value) is float and (math.isfinite(value) or kind == "constant" and key in UNDEFINED.get(name, ())), key
        assert key == key.lower() and " " not in key
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **result.gallery)
    file.seek(0)
    with np.load(file, allow_pickle=False) as stored:
        assert set(stored) == set(result.gallery)
    assert sum(array.nbytes for array in result.gallery.values()) < 1 << 20


@pytest.mark.parametrize("name", sorted(EVALUATORS))
@pytest.mark.parametrize("model", [toys.perfect(TOY), toys.constant(TOY), toys.random(1)])
def test_items_make_up_the_primary_metric(name, model):
    result = run(name, model)
    if result.items is not None:
        made = STATISTICS[result.statistic](result.items)
        assert made == pytest.approx(result.metrics[result.primary], rel=1e-6, nan_ok=True)
        assert result.statistic != "mean" or result.items.ndim == 1


def test_items_of_something_else_are_refused():
    with pytest.raises(ValueError, match="the mean of the items is 0.5, but a is 1.0; they must be the same number"):
        Evaluation("a", {"a": 1.0}, 2, items=np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match=r"items are float64 of shape \(0,\); they are numbers"):
        Evaluation("a", {"a": 1.0}, 2, items=np.array([]))


@pytest.mark.parametrize("name", sorted(EVALUATORS))
@pytest.mark.parametrize("expected, kind", [(PERFECT, "perfect"), (TIED, "constant")])
def test_perfect_and_tied_rankings(name, expected, kind):
    values = run(name, getattr(toys, kind)(TOY)).metrics
    assert {key: values[key] for key in expected[name]} == pytest.approx(expected[name], nan_ok=True)


@pytest.mark.parametrize("name", sorted(EVALUATORS))
def test_random_rankings_score_chance(name):
    scale = 0.0  # an infinite temperature: the one scale at which a random model's loss is ln batch, not only near it
    draws = [run(name, toys.random(seed, logit_scale=scale)).metrics for seed in range(60)]
    for key, chance in CHANCE[name].items():
        values = [draw[key] for draw in draws]
        # Rows that share their candidates are correlated, so the spread comes from the draws: four standard errors.
        assert np.mean(values) == pytest.approx(chance, abs=4 * np.std(values) / np.sqrt(len(values)) + 1e-9), key


@pytest.mark.parametrize("name", sorted(EVALUATORS))
def test_better_models_score_better_in_the_primary_metric(name):
    perfect, drawn = run(name, toys.perfect(TOY)), run(name, toys.random(0))
    assert direction(perfect.primary) * (perfect.metrics[perfect.primary] - drawn.metrics[perfect.primary]) > 0


@pytest.mark.parametrize("name", sorted(EVALUATORS))
@pytest.mark.parametrize("view", ["image", "text"])
def test_embeddings_that_are_not_finite_are_refused(name, view):
    encode = toys.perfect(TOY)
    if view != OPTIONS[name].get("view", view):
        return  # one view is all that this evaluator reads
    good = encode[view]
    encode[view] = lambda values: np.where(np.arange(len(values))[:, None] == 2, np.nan, good(values))
    with pytest.raises(ValueError, match="not finite in rows"):
        run(name, encode)


@pytest.mark.parametrize("name", sorted(EVALUATORS))
def test_same_twice(name):
    first, second = run(name, toys.perfect(TOY)), run(name, toys.perfect(TOY))
    assert first.metrics == second.metrics
    for key, array in first.gallery.items():
        np.testing.assert_array_equal(array, second.gallery[key])


@pytest.mark.parametrize("name", sorted(EVALUATORS))
def test_options_have_defaults_that_bind(name):
    assert "encode" not in options_of(EVALUATORS[name]) and options_of(EVALUATORS[name])


def test_primary_must_be_measured():
    with pytest.raises(ValueError, match="'a' is not among: b"):
        Evaluation("a", {"b": 1.0}, 1)


@pytest.mark.parametrize(
    "name, expected",
    [("img2txt/recall@1", 1), ("accuracy@1", 1), ("rsum", 1), ("loss", -1), ("loss/main", -1), ("img2txt/mean_rank", -1),
     ("cross_entropy", -1), ("img2txt/recall@1_chance", 0), ("tie_rate", 0), ("geometry/alignment", 0), ("count/texts", 0),
     ("mean_per_class_recall", 1), ("logit_scale", 0), ("ece", -1), ("scaled/brier", -1), ("msp/fpr95/id_positive", -1),
     ("k20/accuracy@1", 1), ("strength/log10_lambda", 0), ("temperature/fitted", 0), ("confidence", 0)],
)  # fmt: skip
def test_direction_of_metrics(name, expected):
    assert direction(name) == expected
