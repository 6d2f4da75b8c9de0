"""Probes, calibration, detection and geometry against torch and MTEB, on drawn inputs and on real texts."""

import types

import numpy as np
import pytest

torch = pytest.importorskip("torch")
mteb = pytest.importorskip("mteb")

from datasets import Dataset  # noqa: E402
from mteb._evaluators.sklearn_evaluator import SklearnEvaluator  # noqa: E402
from mteb.abstasks.classification import AbsTaskClassification  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402

from evals import calibration as measures  # noqa: E402
from evals import geometry, probes  # noqa: E402
from evals.few_shot import few_shot  # noqa: E402
from evals.knn import knn  # noqa: E402
from evals.linear_probe import fit  # noqa: E402
from evals.metrics import unit  # noqa: E402
from input_pipeline import labelled_text  # noqa: E402

pytestmark = pytest.mark.parity


def trigrams(texts, width=128):
    """Counts of hashed trigrams, centred: float32 unit rows of real texts without a model."""
    rows = np.zeros((len(texts), width))
    for row, text in zip(rows, texts, strict=True):
        letters = np.frombuffer(text.lower().encode().ljust(3), np.uint8).astype(np.int64)
        row += np.bincount((letters[:-2] * 31**2 + letters[1:-1] * 31 + letters[2:]) * 40503 % 65521 % width, minlength=width)
    rows += np.random.default_rng(0).normal(scale=0.01, size=width)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


ENCODE = {"text": trigrams}


@pytest.fixture(scope="module")
def questions(shared_data):
    return labelled_text.Trec(path=str(shared_data / "trec_sst_mr_subj"))


def test_few_shots_are_those_of_mteb(questions):
    task = questions.probe()
    train, test = (Dataset.from_dict({"label": part.labels.tolist()}) for part in (task.train, task.test))
    rows = trigrams(task.train.values), trigrams(task.test.values)
    theirs = types.SimpleNamespace(seed=42, samples_per_label=8, label_column_name="label")
    scores, order = [], None
    for i in range(10):
        chosen, order, selected = AbsTaskClassification._undersample_data(theirs, train, i, order)
        model = LogisticRegression(max_iter=100, random_state=42)
        predicted = SklearnEvaluator(chosen, test, label_column_name="label", evaluator_model=model)(rows[0][selected], rows[1])
        scores.append(AbsTaskClassification._calculate_scores(theirs, test["label"], predicted))
    ours = few_shot(ENCODE, questions).metrics
    for name, other in (("accuracy@1", "accuracy"), ("f1_macro", "f1")):
        values = [one[other] for one in scores]
        assert (ours[name], ours[f"std/{name}"]) == pytest.approx((np.mean(values), np.std(values)), abs=1e-12), name
    assert 0.3 < ours["accuracy@1"] < 0.7


def test_nearest_neighbours_are_those_of_the_published_protocol(questions):
    """The votes of DINO's evaluation, written in torch: exp(s / 0.07) of the k nearest by class, the largest sum wins."""
    task = questions.probe()
    train, test = (torch.tensor(trigrams(part.values)) for part in (task.train, task.test))
    labels, wanted = torch.tensor(task.train.labels), torch.tensor(task.test.labels)
    values = knn(ENCODE, questions).metrics
    for k in (10, 20, 100, 200):
        similarity, near = (test.double() @ train.double().T).topk(k, dim=1)
        votes = torch.zeros(len(test), 6, dtype=torch.float64).scatter_add_(1, labels[near], (similarity / 0.07).exp())
        order = votes.argsort(dim=1, descending=True)
        top1 = (order[:, 0] == wanted).double().mean().item()
        top5 = ((order[:, :5] == wanted[:, None]) & (votes.gather(1, order[:, :5]) > 0)).any(1).double().mean().item()
        tied = values[f"k{k}/tie_rate"]
        assert values[f"k{k}/accuracy@1"] == pytest.approx(top1, abs=tied + 1e-12), k
        assert values[f"k{k}/accuracy@5"] == pytest.approx(top5, abs=tied + 1e-12), k
        assert tied <= 0.01  # the set repeats a few questions
        assert values[f"k{k}/accuracy@1"] - values[f"k{k}/accuracy@1_pessimistic"] <= tied


def test_the_probe_is_the_minimum_that_torch_finds(questions):
    task = questions.probe()
    rows, labels = trigrams(task.train.values[:600], 32), task.train.labels[:600]
    c = 2.0
    weights = torch.zeros(6, 32, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    x, y = torch.tensor(rows, dtype=torch.float64), torch.tensor(labels)
    search = torch.optim.LBFGS([weights, bias], max_iter=2000, tolerance_grad=1e-11, tolerance_change=0, line_search_fn="strong_wolfe")

    def closure():
        search.zero_grad()
        loss = c * torch.nn.functional.cross_entropy(x @ weights.T + bias, y, reduction="sum") + weights.square().sum() / 2
        loss.backward()
        return loss

    search.step(closure)
    ours = fit(probes.Part(rows, labels), c, tolerance=1e-10)
    np.testing.assert_allclose(ours.coef_, weights.detach().numpy(), atol=1e-5)
    theirs = bias.detach().numpy()
    np.testing.assert_allclose(ours.intercept_ - ours.intercept_.mean(), theirs - theirs.mean(), atol=1e-5)
    held = trigrams(task.test.values, 32)
    np.testing.assert_array_equal(ours.predict(held), (torch.tensor(held).double() @ weights.T + bias).argmax(1).numpy())


def test_calibration_is_that_of_the_reference():
    """Bins and temperature as in the code of Guo et al., written in torch."""
    rng = np.random.default_rng(0)
    logits = 9 * rng.normal(size=(2000, 10))
    labels = np.array([rng.choice(10, p=p) for p in torch.tensor(logits / 3).softmax(1).numpy()])
    z, y = torch.tensor(logits), torch.tensor(labels)
    confidence, predicted = z.softmax(1).max(1)
    edges, error = torch.linspace(0, 1, 16, dtype=torch.float64), 0.0
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = confidence.gt(low) & confidence.le(high)
        if inside.any():
            gap = (predicted[inside] == y[inside]).double().mean() - confidence[inside].mean()
            error += gap.abs().item() * inside.double().mean().item()
    found = measures.reliability(logits, labels)
    assert found["ece"] == pytest.approx(error, abs=1e-12)
    assert found["cross_entropy"] == pytest.approx(torch.nn.functional.cross_entropy(z, y).item())
    temperature = torch.full((1,), 1.5, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([temperature], lr=0.01, max_iter=50)

    def closure():
        search.zero_grad()
        loss = torch.nn.functional.cross_entropy(z / temperature, y)
        loss.backward()
        return loss

    search.step(closure)
    loss = lambda t: torch.nn.functional.cross_entropy(z / t, y).item()
    ours = measures.temperature(logits, labels)
    # Fifty short steps stop on the way to the minimum, which is ours.
    assert loss(ours) <= loss(temperature.item()) and 1.5 < temperature.item() and ours == pytest.approx(3, rel=0.1)


def test_geometry_is_that_of_the_published_formulas():
    rng = np.random.default_rng(1)
    x, y = (unit(rng.normal(size=(200, 16)) + 0.3, "rows") for _ in range(2))
    a, b = torch.tensor(x), torch.tensor(y)
    assert geometry.alignment(x, y) == pytest.approx((a - b).norm(p=2, dim=1).pow(2).mean().item())
    assert geometry.uniformity(x) == pytest.approx(torch.pdist(a, p=2).pow(2).mul(-2).exp().mean().log().item())
    singular = torch.linalg.svdvals(a)
    share = singular / singular.sum() + 1e-7
    assert geometry.effective_rank(x, epsilon=1e-7) == pytest.approx((-(share * share.log()).sum()).exp().item())
    assert geometry.modality_gap(x, y) == pytest.approx((a.mean(0) - b.mean(0)).norm().item())
