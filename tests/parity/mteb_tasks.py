"""Tasks of a suite as tasks of MTEB, made of the same values: nothing is downloaded.

python -m tests.parity.mteb_tasks DATA MODEL CACHE > docs/results/local_text_mteb.json

runs the whole text suite through MTEB alone, with sentence-transformers: nothing of Tandem but the reading of the files. Started again
after a stop, MTEB goes on with what is missing from the folder CACHE.
"""

import json
import sys

import datasets
import mteb
from mteb.abstasks.classification import AbsTaskClassification
from mteb.abstasks.clustering import AbsTaskClustering
from mteb.abstasks.pair_classification import AbsTaskPairClassification
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.abstasks.text.bitext_mining import AbsTaskBitextMining

from configs.suites import local_text
from core.config import bind, options_of, plain
from evals import EVALUATORS, results
from evals.cut import Cut
from input_pipeline.batching import make_source

# Of each evaluator: the class of MTEB, its type, and the name there of the score that is primary here.
KINDS = {
    "bitext": (AbsTaskBitextMining, "BitextMining", "f1"),
    "clustering": (AbsTaskClustering, "Clustering", "v_measure"),
    "few_shot": (AbsTaskClassification, "Classification", "accuracy"),
    "pair_classification": (AbsTaskPairClassification, "PairClassification", "max_ap"),
    "ranking": (AbsTaskRetrieval, "Retrieval", None),
    "sts": (AbsTaskSTS, "STS", "cosine_spearman"),
}


def task(label, entry):
    """MTEB's task of an entry of a suite; its main score is the entry's primary metric."""
    base, kind, score = KINDS[entry.name]
    source = make_source(entry.data, label, results.DATA)
    source = bind(Cut, entry.cut, label)(source) if "cut" in entry else source
    options = options_of(EVALUATORS[entry.name]) | plain(entry.options)
    values = globals()[f"_{entry.name}"](source)

    def load_data(self, **kwargs):
        self.dataset, self.data_loaded = values, True

    name = "".join(part.capitalize() for part in label.split("_"))
    metadata = TaskMetadata(
        name=name, description=entry.protocol, reference=None, type=kind, category="t2t", modalities=["text"],
        eval_splits=["test"], eval_langs=["eng-Latn"], main_score=score or options["primary"].replace("@", "_at_"),
        dataset=dict(path=f"local/{label}", revision="0"), date=None, domains=None, task_subtypes=None, license=None,
        annotations_creators=None, dialect=None, sample_creation=None, bibtex_citation=None,
    )  # fmt: skip
    fields = {"load_data": load_data, "metadata": metadata}
    if entry.name == "clustering":
        fields |= dict(max_fraction_of_documents_to_embed=None, n_clusters=options["draws"], max_documents_per_cluster=options["size"])
    if entry.name == "few_shot":
        fields |= dict(samples_per_label=options["shots"], n_experiments=options["draws"])
    return type(name, (base,), fields)()


def _split(**columns):
    return datasets.Dataset.from_dict({name: list(values) for name, values in columns.items()})


def _sts(source):
    found = source.similarity()
    return {"test": _split(sentence1=found.first, sentence2=found.second, score=found.score.tolist())}


def _pair_classification(source):
    found = source.pairs()
    return {"test": _split(sentence1=found.first, sentence2=found.second, labels=found.score.tolist())}


def _clustering(source):
    found = source.labelled()
    return {"test": _split(sentences=found.values, labels=found.labels.tolist())}


def _few_shot(source):
    found = source.probe()
    part = lambda rows: _split(text=rows.values, label=rows.labels.tolist())
    return datasets.DatasetDict({"train": part(found.train), "test": part(found.test)})


def _bitext(source):
    found = source.bitext()
    return {"default": {"test": _split(sentence1=found.sources, sentence2=[found.targets[i] for i in found.gold])}}


def _ranking(source):
    found = source.ranking()
    rows = lambda ids, texts: [{"id": name, "text": text} for name, text in zip(ids, texts, strict=True)]
    relevant = {}
    for query, candidate, grade in found.relevant.tolist():
        relevant.setdefault(found.query_ids[query], {})[found.corpus_ids[candidate]] = grade
    corpus = datasets.Dataset.from_list([row | {"title": ""} for row in rows(found.corpus_ids, found.corpus)])
    queries = datasets.Dataset.from_list([row for row in rows(found.query_ids, found.queries) if row["id"] in relevant])
    return {"default": {"test": dict(corpus=corpus, queries=queries, relevant_docs=relevant, top_ranked=None)}}


def main(data, folder, cache):
    import sentence_transformers

    model, found = sentence_transformers.SentenceTransformer(folder, device="cpu"), {}
    for label, entry in local_text.get_config(f"path={data}").tasks.items():
        options = dict(encode_kwargs={"batch_size": 32}, co2_tracker=False, show_progress_bar=False)
        done = mteb.evaluate(model, task(label, entry), cache=mteb.cache.ResultCache(cache), **options)
        found[label] = float(done.task_results[0].get_score())
    versions = {"mteb": mteb.__version__, "sentence-transformers": sentence_transformers.__version__}
    print(json.dumps({"versions": versions, "scores": found}, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
