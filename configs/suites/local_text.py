"""Published tasks on texts from folders on this machine: similarity, search, pairs, clusters, translations.

    python -m launch.evaluate --suite=configs/suites/local_text.py:path=data --model=downloads/all-MiniLM-L6-v2

`path` holds a folder for each set, named as below. `full` takes whole sets, as their publishers rank them, and those scores may stand
beside published ones; by default searches are cut, so that all of it takes a few minutes on two cores, and a label with a number says
to how many documents. A set that is not there is left out, and the table says so.
"""

from ml_collections import ConfigDict

from configs import common

STSB = dict(
    source="Cer et al. 2017, SemEval-2017 task 1; translations github.com/PhilipMay/stsb-multi-mt",
    licence="research only",
    protocol="test split, 1,379 pairs, Spearman of the cosine (MTEB's STSBenchmark)",
)
LANGUAGES = dict(nld="Dutch", deu="German", fra="French", spa="Spanish", rus="Russian", cmn="Chinese")  # of Tatoeba


def get_config(arg: str = "") -> ConfigDict:
    arg = common.parse_arg(arg, path="data", full=False)
    config = ConfigDict()
    config.name = "local_text"
    config.bootstrap = dict(number=2000, seed=0, level=0.95)
    config.references = ("constant", "random")
    config.tasks = {}

    def task(label, type, name, data, options, source, licence, protocol, cut=None):
        folder, data_options = data
        data_options = dict(path=f"{arg.path}/{folder[1]}", **data_options)
        cut = {} if cut is None or arg.full else dict(cut=cut)
        config.tasks[label] = dict(
            type=type, name=name, data=dict(name=folder[0], options=data_options), options=options,
            source=source, licence=licence, protocol=protocol, **cut,
        )  # fmt: skip

    control = dict(controls=("bag_of_words",))
    stsb = ("stsb", "stsb_mt_p")
    for language in ("en", "de", "es", "fr", "zh"):
        task(f"stsb_{language}", "sts", "sts", (stsb, dict(first=language)), control, **STSB)
    task("stsb_en_de", "sts", "sts", (stsb, dict(first="en", second="de")), control, **STSB)
    return config.lock()
