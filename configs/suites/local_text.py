"""Published tasks on texts from folders on this machine: similarity, search, pairs, classes, clusters, translations.

    python -m launch.evaluate --suite=configs/suites/local_text.py:path=data --model=minilm=downloads/all-MiniLM-L6-v2

`path` holds a folder for each set, named as below; a set that is not there is left out, and the table says so. With `full` all sets are
whole, and scores may stand beside published ones. By default two searches are cut to 1,000 documents (their labels say so), which are
easier than the whole, so that a small model takes minutes on two cores.
"""

from ml_collections import ConfigDict

from configs import common

STSB = dict(
    source="Cer et al. 2017, SemEval-2017 task 1; translations github.com/PhilipMay/stsb-multi-mt",
    licence="research only: CC BY-SA 4.0 with parts under Microsoft's research terms",
    protocol="1,379 test pairs, Spearman of the cosine, as MTEB's STSBenchmark",
)
SCIFACT = dict(
    source="Wadden et al. 2020, arXiv:2004.14974",
    licence="research only: claims CC BY-NC 2.0, abstracts ODC-By",
    protocol="BEIR: title and abstract, 300 claims of validation, nDCG@10 as trec_eval",
)
CRANFIELD = dict(
    source="Cleverdon 1967; github.com/oussbenk/cranfield-trec-dataset",
    licence="none stated",
    protocol="1,400 abstracts, 225 questions with graded judgements, nDCG@10 as trec_eval",
)
COSQA = dict(
    source="Huang et al. 2021, arXiv:2105.13239",
    licence="code MIT, data C-UDA",
    protocol="500 test queries over 6,267 functions, MRR@10",
)
COSQA_PAIRS = COSQA | dict(protocol="604 judged pairs of dev, highest average precision of five similarities, as MTEB")
BANKING = dict(source="Casanueva et al. 2020, arXiv:2003.04807", licence="CC BY 4.0")
SENTENCES = dict(source="Li and Roth 2002 (TREC), Socher et al. 2013 (SST)", licence="none stated")
FEW = "ten draws of eight examples a class, logistic regression, accuracy on all of test, as MTEB"
TATOEBA = dict(
    source="Artetxe and Schwenk 2019, arXiv:1812.10464",
    licence="CC BY 2.0 FR",
    protocol="1,000 sentences look up their English translation, weighted F1, as MTEB's Tatoeba",
)
MULTI30K = dict(
    source="Elliott et al. 2016, arXiv:1605.00459",
    licence="research only: captions of Flickr30k",
    protocol="992 German captions of test 2016 look up their English translation, weighted F1, as MTEB mines bitext",
)


def get_config(arg: str = "") -> ConfigDict:
    arg = common.parse_arg(arg, path="data", full=False)
    config = ConfigDict()
    config.name = "local_text_full" if arg.full else "local_text"
    config.bootstrap = dict(number=2000, seed=0, level=0.95)
    config.references = ("constant", "random", "hashed_words")
    config.tasks = {}

    def data(name, folder, **options):
        return dict(name=name, options=dict(path=f"{arg.path}/{folder}", **options))

    words, search = dict(controls=("bag_of_words",)), dict(primary="ndcg@10", controls=("bm25",), gallery_queries=6)
    for language in ("en", "de", "es", "fr", "zh"):
        stsb = data("stsb", "stsb_mt_p", first=language)
        config.tasks[f"stsb_{language}"] = dict(type="sts", name="sts", data=stsb, options=words, **STSB)
    stsb = data("stsb", "stsb_mt_p", first="en", second="de")
    config.tasks.stsb_en_de = dict(type="sts", name="sts", data=stsb, options=words, **STSB)

    for label, cut, name, options, said in (
        ("scifact", 1000, "scifact", search, SCIFACT),
        ("cranfield", 0, "cranfield", search, CRANFIELD),
        ("cosqa", 1000, "cosqa", search | dict(primary="mrr@10"), COSQA),
    ):
        entry = dict(type="retrieval", name="ranking", data=data(name, name), options=options, **said)
        cut = 0 if arg.full else cut
        config.tasks[f"{label}_{cut}" if cut else label] = entry | (dict(cut=dict(candidates=cut)) if cut else {})
    pairs = dict(type="pair_classification", name="pair_classification", data=data("cosqa", "cosqa"), options=words, **COSQA_PAIRS)
    config.tasks.cosqa_pairs = pairs

    banking, folder = data("banking77", "banking77"), "trec_sst_mr_subj"
    config.tasks.banking77_clusters = dict(
        type="clustering", name="clustering", data=banking, options={}, protocol="test, v-measure of ten k-means runs, as MTEB",
        **BANKING,
    )  # fmt: skip
    config.tasks.banking77 = dict(type="classification", name="few_shot", data=banking, options={}, protocol=FEW, **BANKING)
    for name in ("trec", "sst"):
        config.tasks[name] = dict(type="classification", name="few_shot", data=data(name, folder), options={}, protocol=FEW, **SENTENCES)

    for language in ("deu", "fra", "nld", "cmn"):
        tatoeba = data("tatoeba", "tatoeba_p", language=language)
        config.tasks[f"tatoeba_{language}"] = dict(type="bitext", name="bitext", data=tatoeba, options=words, **TATOEBA)
    multi30k = data("multi30k", "multi30k_p", first="de", second="en")
    config.tasks.multi30k_de = dict(type="bitext", name="bitext", data=multi30k, options=words, **MULTI30K)
    return config.lock()
