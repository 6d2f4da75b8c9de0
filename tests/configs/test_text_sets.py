"""Recipes for sets of texts, on stand-ins of a few rows in the same form: what their commands make is what they read."""

import re
import zipfile

import pytest

from configs import multi30k, scifact
from evals import job, results
from input_pipeline import batching
from training.data import open_data

ABSTRACTS = ["['Mice were fed.' 'They grew.']", "['Cells were counted.']", "['Water was boiled.']"]


def first_batch(config, workdir):
    """After the checks of a start: a batch, and what the evals are asked."""
    job.check(config)
    data = open_data(config, workdir)
    with data.iterate(0) as rows:
        batch = next(rows)
    assert batch["query_mask"].any(axis=1).all() and batch["passage_mask"].any(axis=1).all()
    return batch, [batching.make_source(entry.data, "config.evals", results.DATA) for entry in config.evals.values()]


def claims(*rows):
    """A file as the publisher has it: (claim, abstract that it cites)."""
    lines = [f"{i},{claim},{document},SUPPORT,[0],[{document}]" for i, (claim, document) in enumerate(rows)]
    return "\n".join(["id,claim,evidence_doc_id,evidence_label,evidence_sentences,cited_doc_ids", *lines]) + "\n"


def test_claims_of_the_evaluation_are_not_learned(tmp_path, monkeypatch):
    corpus = "".join(f'{i + 1},Title {i + 1},"{text}",False\n' for i, text in enumerate(ABSTRACTS))
    with zipfile.ZipFile(tmp_path / "scifact.zip", "w") as archive:
        archive.writestr("corpus_train.csv", "doc_id,title,abstract,structured\n" + corpus)
        archive.writestr("claims_train.csv", claims(("Mice grow.", 1), ("Cells are few.", 2), ("Water boils.", 3)))
        archive.writestr("claims_validation.csv", claims(("Mice do not grow.", 1)))
        archive.extract("corpus_train.csv", tmp_path)
    monkeypatch.chdir(tmp_path)
    (command,) = re.findall(r'python -c "(.*?)"\n', scifact.__doc__, re.DOTALL)
    exec(re.sub(r"\n    ", "\n", command).replace("FOLDER", "."), {})
    lines = (tmp_path / "claims.jsonl").read_text()
    assert "Water boils." in lines and "Cells are few." in lines and "Mice grow." not in lines and lines.count("\n") == 2
    config = scifact.get_config(f"smoke,path={tmp_path}")
    batch, (held_out,) = first_batch(config, tmp_path / "run")
    assert abs((batch["source"] == 0).mean() - 1 / 3) < 0.02  # of three rows one is a claim
    assert held_out.ranking().queries == ["Mice do not grow."] and len(held_out.ranking().corpus) == 3


@pytest.mark.parametrize("first, second", [("de", "en"), ("en", "fr")])
def test_lines_side_by_side_are_pairs(tmp_path, first, second):
    (tmp_path / "task1").mkdir()
    for language in (first, second):
        (tmp_path / "task1" / f"test_2016_flickr.{language}").write_text(f"{language} 1\n{language} 2\n")
    (tmp_path / "train.tsv").write_text("".join(f"{first} {i}\t{second} {i}\n" for i in range(99)) + "a\ttab\tmore\n")
    config = multi30k.get_config(f"smoke,path={tmp_path},first={first},second={second}")
    with config.unlocked():
        config.data.max_bad_fraction = 0.1
    batch, (held_out,) = first_batch(config, tmp_path / "run")
    assert batch["query"].shape == (64, 32) and set(batch["record"].tolist()) <= set(range(99))
    assert held_out.bitext().sources == [f"{first} 1", f"{first} 2"] and held_out.bitext().targets[0] == f"{second} 1"
