"""Sweeps: what a sweep file may say, which trials come, what is left after a kill, the page; and a real one on digits."""

import itertools
import json
import os
import re
import signal
import time

import pytest
from ml_collections import ConfigDict

from core.config import ConfigError
from core.workdir import locked, read_json, write_json
from launch import accelerators, children, overrides, process
from launch.sweeps import backends, page, schedule, space, trial
from tests.launch.test_commands import TOY, run, start

CONFIG = "configs/digits.py:smoke"
RENDER, IMPORTANCE = page.render, page.importance
RATE = dict(key="config.optimizer.learning_rate", values=(1e-3, 1e-2, 1e-1))
BATCH = dict(key="config.data.global_batch", low=8, high=64, step=8)
FILE = """
from ml_collections import ConfigDict


def get_config(arg=""):
    sweep = ConfigDict()
    sweep.objective = dict(evaluator="test", metric="accuracy@1")
    sweep.search = dict(name="grid")
    sweep.space = dict(rate=dict(key="config.optimizer.learning_rate", values=(1e-3, 1e-2)))
    return sweep
"""


def of(search="grid", options=None, entries=None, **sections):
    made = dict(objective=dict(evaluator="test", metric="accuracy@1"), search=dict(name=search, options=options or {}))
    made["space"] = entries or dict(rate=RATE, width=dict(key="config.model.towers.image.options.width", values=(16, 32)))
    return ConfigDict(made | sections)


def plan_of(made, folder, backend=None):
    here = backend or backends.local()
    return trial.Plan(made, CONFIG, ["--config.train.steps=4"], folder, folder / "trials", "pruner" in made, 1, here)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(objective=dict(evaluator="tset", metric="a")), r"sweep.objective.evaluator is 'tset', which is not among: test"),
        (dict(objective=dict(evaluator="test", metric="a", direction="up")), "sweep.objective.direction is 'up'"),
        (dict(objective=dict(evaluator="test")), "sweep.objective lacks metric"),
        (dict(entries=dict(rate=RATE | dict(key="config.optimizer.learning_rat"))), "Did you mean 'learning_rate'"),
        (dict(entries=dict(rate=RATE | dict(key="arg.loss"))), "has no 'loss'; it takes: smoke"),
        (dict(entries=dict(rate=RATE | dict(key="learning_rate"))), "sweep.space.rate.key must name what changes"),
        (dict(entries=dict(rate=RATE | dict(values=()))), "sweep.space.rate.values is empty"),
        (dict(entries=dict(rate=RATE | dict(values=((1, 2),)))), "holds \\(1, 2\\), a tuple"),
        (dict(entries=dict(rate=RATE | dict(valeus=1))), "sweep.space.rate.valeus is not a key"),
        (dict(entries=dict(batch=BATCH | dict(low=80))), "sweep.space.batch goes from 80 to 64: the space holds nothing"),
        (dict(constraints=("rat < 1",)), "sweep.space.rat is not a key"),
        (dict(constraints=("rate <",)), "is no expression"),
        (dict(constraints=("__import__('os').getcwd() == rate",)), "only comparisons and arithmetic"),
        (dict(seeds=()), "sweep.seeds is empty"),
        (dict(pruning="x"), "sweep.pruning is not a key"),
    ],
)
def test_a_mistake_in_the_file_names_its_key(changes, message):
    with pytest.raises(ConfigError, match=message):
        space.check(of(**changes), CONFIG, [])


def test_an_empty_space_is_an_error():
    empty = of()
    empty.space = ConfigDict()
    with pytest.raises(ConfigError, match="sweep.space is empty"):
        space.check(empty, CONFIG, [])
    with pytest.raises(ConfigError, match="leave none of 6 combinations"):
        space.search_of(of()).listed(of(constraints=("rate > 1",)))
    made = of("random", dict(trials=2), constraints=("rate > 1",))
    with pytest.raises(ConfigError, match="leave none of 200 random draws"):
        space.search_of(made).listed(made)
    with pytest.raises(ConfigError, match="trials is 0"):
        space.search_of(of("random", dict(trials=0)))


@pytest.mark.parametrize(
    "made, message", [(of("gird"), "not among: grid, random, tpe"), (of("tpe", dict(trails=3)), "sweep.search.options.trails is not a key")]
)
def test_an_unknown_search_or_option_is_an_error(made, message):
    with pytest.raises(ConfigError, match=message):
        space.search_of(made)


def test_a_grid_of_a_range_is_an_error():
    made = of(entries=dict(batch=BATCH))
    with pytest.raises(ConfigError, match="sweep.space.batch is a range"):
        space.search_of(made).listed(made)


def test_the_grid_is_every_combination_that_constraints_allow():
    made = of(constraints=("rate * width <= 0.32", "not (width == 32 and rate in (0.001,))"))
    listed = space.search_of(made).listed(made)
    wanted = [(r, w) for r, w in itertools.product((1e-3, 1e-2, 1e-1), (16, 32)) if r * w <= 0.32 and not (w == 32 and r == 1e-3)]
    assert sorted((values["rate"], values["width"]) for values in listed) == sorted(wanted)


def test_random_draws_follow_the_seed_and_the_space():
    draw = lambda seed: space.search_of(of("random", dict(trials=6, seed=seed))).listed(of(entries=dict(batch=BATCH, rate=RATE)))
    assert draw(0) == draw(0) != draw(1)
    assert all(values["batch"] % 8 == 0 and 8 <= values["batch"] <= 64 and values["rate"] in RATE["values"] for values in draw(0))


def test_values_become_words_of_the_trainer():
    made = of(entries=dict(rate=RATE, loss=dict(key="arg.loss", values=("sigmoid",))))
    words = space.words(made, "configs/glyphs.py:smoke", ["--config.train.steps=4"], dict(rate=0.01, loss="sigmoid"), 3)
    assert words == ["--config=configs/glyphs.py:smoke,loss=sigmoid", "--config.train.steps=4"] + [
        "--config.optimizer.learning_rate=0.01", "--config.seed=3"
    ]  # fmt: skip
    assert space.words(made, "configs/glyphs.py", [], {}, None) == ["--config=configs/glyphs.py"]


def test_the_metrics_name_says_which_way_is_better():
    assert space.maximize(of()) and not space.maximize(of(objective=dict(evaluator="test", metric="loss")))
    assert not space.maximize(of(objective=dict(evaluator="test", metric="accuracy@1", direction="minimize")))


def test_an_accelerator_is_never_shared(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    shares = lambda count, gpus, chips=0: accelerators.shares(count, "--parallel", accelerators.visible(gpus), chips)
    devices = lambda *found: [slot["CUDA_VISIBLE_DEVICES"] for slot in shares(*found)]
    assert shares(2, 0) == [{}, {}] and shares(1, 0, 4) == [{}] and devices(1, 2) == ["0,1"]
    assert devices(2, 4) == devices(2, 5) == ["0,1", "2,3"]
    with pytest.raises(ConfigError, match="--parallel=2, but processes do not share 1 GPUs; set it to 1"):
        shares(2, 1)
    with pytest.raises(ConfigError, match="--parallel=2, but processes do not share the 4 TPU chips of this machine; set it to 1"):
        shares(2, 0, 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, 7")
    assert devices(2, 8) == ["5", "7"]


@pytest.mark.parametrize(
    "name, cluster, message",
    [
        ("slrum", None, "--backend is 'slrum', which is not among: gke, local, slurm, tpu. Did you mean 'slurm'"),
        ("tpu", None, "--backend=tpu needs to know the cluster; give --cluster="),
        ("local", "a.py", "--backend=local runs on this machine, but --cluster=a.py names a cluster"),
    ],
)
def test_a_mistaken_backend_is_one_line(name, cluster, message):
    with pytest.raises(ConfigError, match=message):
        backends.find(name, cluster)


@pytest.mark.parametrize(
    "name, cluster", [("slurm", "slurm.py"), ("tpu", "tpu.py:project=p"), ("gke", "gke_gpu.py:image=i"), ("gke", "gke_tpu.py:image=i")]
)
def test_every_backend_opens_its_cluster_file(name, cluster):
    found = backends.find(name, f"configs/clusters/{cluster}")
    assert callable(found.start) and found.slots(3) == [{}] * 3 and not found.beside
    with pytest.raises(ConfigError, match="cluster.platform is"):
        backends.find("tpu" if name != "tpu" else "slurm", f"configs/clusters/{cluster}")


class Job:
    """A job of a cluster that stands for a trainer or an evaluation; ends at its third look."""

    def __init__(self, code, work):
        self.returncode, self._code, self._work, self._looks = None, code, work, 0

    def poll(self):
        self._looks += 1
        if self.returncode is None and self._looks == 3:
            self._work()
            self.returncode = self._code
        return self.returncode

    def terminate(self):
        self._code = process.STOPPED

    def kill(self):
        self.returncode = -9 if self.returncode is None else self.returncode

    def wait(self):
        return self.returncode


def test_a_cluster_runs_what_this_machine_would(tmp_path, monkeypatch):
    """The trainer is preempted once; what a job gets is only what it needs beside the cluster's own environment."""
    monkeypatch.setenv("TANDEM_COORDINATOR", "10.0.0.1:1")
    started, codes = [], iter((75, 0, 0))
    folder = tmp_path / "elsewhere" / "0000"

    def start(words, variables, output):
        started.append((words, dict(variables), output.name))
        if words[2] == "launch.train":
            return Job(next(codes), lambda: write_json(folder / "done.json", {"step": 8, "exit_code": 0}))
        return Job(next(codes), lambda: write_json(folder / "evals" / "8" / "test.json", {"metrics": {"accuracy@1": 0.5}}))

    plan = plan_of(of(), tmp_path, backends.Backend(start, lambda parallel: [{}] * parallel, {}))._replace(trials=folder.parent)
    going = trial.run(plan, 0, dict(rate=0.1, width=16), None, children.Stop(), {})
    with pytest.raises(StopIteration) as end:
        for _ in range(30):
            next(going)
    assert end.value.value == trial.Outcome(trial.DONE, 0.5)
    words = trial.command(plan, dict(rate=0.1, width=16), None, folder)
    evaluate = ["python", "-m", "launch.evaluate", f"--workdir={folder}", "--evals=test", "--step=8"]
    assert [one for one, _, _ in started] == [words, words, evaluate]  # the same words: a job that is still there is joined
    assert all(not variables and path == str(tmp_path / "trials" / "0000" / trial.LOG) for _, variables, path in started)


class Trials:
    """Trials that take three looks and whose value is a function of theirs; `log` notes what starts."""

    def __init__(self, value, dies_at=None):
        self.value, self.dies_at, self.log, self.most, self._now = value, dies_at, [], 0, 0

    def __call__(self, plan, number, values, report, stop, environment):
        self.log.append((number, dict(values)))
        if len(self.log) == self.dies_at:
            raise KeyboardInterrupt  # the sweep is gone
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            for step in (1, 2, 3):
                yield
                if plan.prunes and report(self.value(values) * step, step):
                    return trial.Outcome(trial.PRUNED, note=f"step {step}")
        finally:
            self._now -= 1
        value = self.value(values)
        return trial.Outcome(trial.FAILED, note="code 4", code=4) if value is None else trial.Outcome(trial.DONE, value)


def swept(made, folder, backend, parallel=1):
    plan, search = plan_of(made, folder), space.search_of(made)
    code = schedule.run(plan, search, search.listed and search.listed(made), space.pruner_of(made)[1], parallel, run_trial=backend)
    return code, read_json(folder / "results.json")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No pauses, and no page after each trial: a third of the time of these tests."""
    monkeypatch.setattr(trial, "pause", lambda: None)
    monkeypatch.setattr(page, "render", lambda *_: "")
    monkeypatch.setattr(page, "importance", lambda _: {})


@pytest.fixture
def whole_page(quick, monkeypatch):
    monkeypatch.setattr(page, "render", RENDER)
    monkeypatch.setattr(page, "importance", IMPORTANCE)


def test_a_grid_runs_each_combination_once_and_finds_the_best(tmp_path, whole_page):
    backend = Trials(lambda values: -abs(values["rate"] - 0.01) - values["width"])
    code, found = swept(of(), tmp_path, backend, parallel=2)
    assert code == 0 and backend.most == 2 and len(backend.log) == 6
    assert len({json.dumps(values, sort_keys=True) for _, values in backend.log}) == 6
    assert found["best"]["values"] == {"rate": 0.01, "width": 16} and [row["state"] for row in found["trials"]] == ["done"] * 6
    assert found["importance"]["width"] > 0.9
    swept(of(), tmp_path, backend)
    assert len(backend.log) == 6  # done is done
    with pytest.raises(ConfigError, match="sweep.seeds: '\\(absent\\)' -> \\[1\\]. Choose another --workdir"):
        swept(of(seeds=(1,)), tmp_path, backend)


@pytest.mark.parametrize("search", ["grid", "random", "tpe"])
def test_a_killed_sweep_goes_on_with_what_was_unfinished(search, tmp_path):
    made = of(search, {} if search == "grid" else dict(trials=6))
    value = lambda values: values["rate"]
    first, whole = Trials(value, dies_at=4), Trials(value)
    with pytest.raises(KeyboardInterrupt):
        swept(made, tmp_path / "killed", first, parallel=2)
    second = Trials(value)
    _, found = swept(made, tmp_path / "killed", second, parallel=2)
    unfinished = {number for number, _ in second.log} & {number for number, _ in first.log}
    assert 3 in unfinished and all(dict(first.log)[number] == dict(second.log)[number] for number in unfinished)
    assert sorted({number for number, _ in first.log + second.log}) == list(range(6)) and len(found["trials"]) == 6
    if search != "tpe":  # which proposes from what it knows
        _, wanted = swept(made, tmp_path / "whole", whole)
        by_number = lambda result: [row["values"] for row in sorted(result["trials"], key=lambda row: row["number"])]
        assert by_number(found) == by_number(wanted)


class Ahead:
    """What a backend is told beforehand."""

    def __init__(self):
        self.announced, self.withdrawn = [], 0

    def announce(self, folder, commands, parallel):
        self.announced.append((folder, commands, parallel))

    def withdraw(self, commands=None):
        self.withdrawn += 1


@pytest.mark.parametrize("search", ["grid", "random"])
def test_a_backend_is_told_beforehand_what_a_sweep_will_start(search, tmp_path):
    entries = dict(rate=RATE, width=dict(key="config.model.towers.image.options.width", values=(16, 32)))
    if search == "random":
        entries |= dict(batch=BATCH, decay=dict(key="config.optimizer.weight_decay", low=1e-4, high=1e-1, log=True))
    made = of(search, {} if search == "grid" else dict(trials=6), entries=entries, seeds=(1, 0))
    started, plan, found = [], plan_of(made, tmp_path), space.search_of(made)

    def run_trial(plan, number, values, report, stop, environment):
        started.append(trial.commands(plan, number, values))
        if len(started) == 4:
            raise KeyboardInterrupt
        yield
        return trial.Outcome(trial.DONE, values["rate"])

    sweep = lambda ahead, **changes: schedule.run(
        plan._replace(backend=plan.backend._replace(ahead=ahead), **changes), found, found.listed(made), None, 1, run_trial=run_trial
    )
    first, second = Ahead(), Ahead()
    with pytest.raises(KeyboardInterrupt):
        sweep(first)
    assert first.withdrawn == 1  # what waits is taken back, however a sweep ends
    sweep(second)
    (folder, whole, parallel), (_, rest, _) = *first.announced, *second.announced
    assert (folder, parallel, len(whole)) == (tmp_path, 1, 12)
    assert sum(started[:3], []) + sum(started[4:], []) == whole and rest == whole[6:]  # to the word, and in this order


def test_a_stop_takes_back_what_waits_before_trials_make_room_for_it(tmp_path):
    ahead, seen = Ahead(), []

    def run_trial(*_, **__):
        signal.raise_signal(signal.SIGTERM)
        yield
        seen.append(ahead.withdrawn)
        return trial.Outcome(trial.STOPPED)

    plan = plan_of(of(), tmp_path, backends.local()._replace(ahead=ahead))
    assert schedule.run(plan, space.grid(), space.grid().listed(of()), None, 1, run_trial=run_trial) == process.STOPPED
    assert seen == [1] and len(ahead.announced) == 1


@pytest.mark.parametrize("changes", [dict(search="tpe", options=dict(trials=2)), dict(pruner=dict(name="median"))])
def test_a_sweep_that_learns_or_prunes_announces_nothing(changes, tmp_path):
    made, ahead = of(**changes), Ahead()
    plan, search = plan_of(made, tmp_path, backends.local()._replace(ahead=ahead)), space.search_of(made)
    listed = search.listed and search.listed(made)
    schedule.run(plan, search, listed, space.pruner_of(made)[1], 1, run_trial=Trials(lambda values: values["rate"]))
    assert not ahead.announced and "array" not in schedule.rehearsal(plan, search, listed)


def test_the_seeds_after_one_that_failed_are_taken_back(tmp_path, monkeypatch):
    taken = []

    class Jobs(Ahead):
        def withdraw(self, commands=None):
            taken.extend(words[-2] for words in commands)

    def one(*_):
        yield
        return trial.Outcome(trial.FAILED, code=4)

    monkeypatch.setattr(trial, "_one", one)
    plan = plan_of(of(seeds=(0, 1, 5)), tmp_path, backends.local()._replace(ahead=Jobs()))
    assert len(list(trial.run(plan, 0, dict(rate=0.1, width=16), None, children.Stop(), {}))) == 1
    assert taken == ["--config.seed=0", "--config.seed=1", "--config.seed=5"]


def test_tpe_obeys_constraints_and_counts_only_trials_that_ran(tmp_path):
    made = of("tpe", dict(trials=7, startup_trials=3), constraints=("rate < 0.1",))
    backend = Trials(lambda values: values["rate"])
    _, found = swept(made, tmp_path, backend)
    assert len(backend.log) == 7 == len(found["trials"]) and all(values["rate"] < 0.1 for _, values in backend.log)


def test_trials_that_fall_behind_are_pruned_and_failures_end_nothing(tmp_path):
    made = of(pruner=dict(name="median", options=dict(startup_trials=2)), entries=dict(rate=RATE | dict(values=(0.3, 0.4, 0.1, 0.5, 0.2))))
    _, found = swept(made, tmp_path, Trials(lambda values: values["rate"]))
    assert {row["values"]["rate"]: row["state"] for row in found["trials"]} == {
        0.3: "done", 0.4: "done", 0.1: "pruned", 0.5: "done", 0.2: "pruned"
    }  # fmt: skip
    assert [row["state"] for row in found["trials"]] == ["done"] * 3 + ["pruned"] * 2
    _, found = swept(of(), tmp_path / "other", Trials(lambda values: None if values["rate"] > 0.05 else values["rate"]))
    assert [row["state"] for row in found["trials"]] == ["done"] * 4 + ["failed"] * 2
    with pytest.raises(ConfigError, match="no trial came to its end"):
        swept(of(), tmp_path / "none", Trials(lambda values: None))


def test_a_second_sweep_on_the_folder_is_refused(tmp_path):
    with locked(tmp_path), pytest.raises(ConfigError, match="is being swept by process"):
        swept(of(), tmp_path, Trials(lambda values: 0.0))


def test_the_page_is_whole_and_escapes(tmp_path, whole_page):
    entries = dict(name=dict(key="arg.name", values=("<b>", "c")), batch=BATCH, rate=RATE)
    made = of("random", dict(trials=5), entries=entries)
    swept(made, tmp_path, Trials(lambda values: values["batch"] / 64))
    text = (tmp_path / "sweep.html").read_text()
    assert "<b>" not in text.replace("<b style", "") and "&lt;b&gt;" in text and "http" not in text
    assert text.count("<polyline") == 5 and text.count('class="upright"') == 4 and text.count("<tr") == 6
    for x, y in re.findall(r"([\d.]+),([\d.]+)", " ".join(re.findall(r'points="([^"]+)"', text))):
        assert page.SIDE <= float(x) <= page.WIDTH - page.SIDE and page.TOP - 40 <= float(y) <= page.HEIGHT


def test_the_objective_is_read_from_the_eval_files(tmp_path):
    made = of(objective=dict(evaluator="test", metric="m", direction="maximize"))
    for step, value in (("10", 0.5), ("20", None), ("30", 0.25), ("best", 9.0)):
        write_json(tmp_path / "evals" / step / "test.json", {"metrics": {"m": value, "n": 1.0}})
    assert trial.results(made, tmp_path) == {10: 0.5, 30: 0.25}
    with pytest.raises(ConfigError, match="sweep.objective.metric is 'o', which is not among: m, n"):
        trial.results(of(objective=dict(evaluator="test", metric="o", direction="maximize")), tmp_path)


def test_the_result_of_seeds_is_their_mean(tmp_path, monkeypatch):
    made = of(seeds=(0, 1, 5))
    values = iter((0.1, 0.2, 0.6))

    def one(plan, words, workdir, log, report, stop, environment):
        assert words[-2:] == [f"--config.seed={workdir.name.removeprefix('seed_')}", f"--workdir={workdir}"]
        yield
        return trial.Outcome(trial.DONE, next(values))

    monkeypatch.setattr(trial, "_one", one)
    going = trial.run(plan_of(made, tmp_path), 0, dict(rate=0.1, width=16), None, children.Stop(), {})
    with pytest.raises(StopIteration) as end:
        while True:
            next(going)
    assert end.value.value == trial.Outcome(trial.DONE, pytest.approx(0.3))


def test_a_rehearsal_prints_commands_and_writes_nothing(tmp_path):
    made = of()
    search = space.search_of(made)
    lines = schedule.rehearsal(plan_of(made, tmp_path / "sweep"), search, search.listed(made)).splitlines()
    assert len(lines) == 6 and all(line.startswith(f"python -m launch.train --config={CONFIG} --config.train.steps=4") for line in lines)
    assert list(tmp_path.iterdir()) == []
    ahead = plan_of(made, tmp_path / "sweep", backends.local()._replace(ahead=Ahead()))
    assert schedule.rehearsal(ahead, search, search.listed(made), 2).splitlines() == ["# one array job of 6 tasks, 2 at a time", *lines]
    learned = of("tpe", dict(trials=3))
    assert "tpe proposes each of 3 trials" in schedule.rehearsal(plan_of(learned, tmp_path / "sweep"), space.search_of(learned), None)


@pytest.mark.parametrize("name", ["glyphs_lr_loss"])
def test_the_sweep_files_fit_their_configs(name):
    for arg, count in (("", 8), ("search=random", 8), ("search=tpe,prune", None)):
        made = overrides.load(f"configs/sweeps/{name}.py:{arg}", "--sweep")
        space.check(made, "configs/glyphs.py", [])
        search = space.search_of(made)
        assert search.listed is None or len(search.listed(made)) == count


@pytest.mark.many_processes
def test_a_real_sweep_loses_a_trainer_and_itself_and_ends_all_the_same(tmp_path):
    (tmp_path / "toy.py").write_text(FILE)
    folder = tmp_path / "sweep"
    words = [*TOY, "--config.train.steps=600", "--config.checkpoint.every_steps=100", "--config.evals.test.every_steps=300"]
    words += [f"--sweep={tmp_path / 'toy.py'}", f"--workdir={folder}", "--parallel=2"]
    going = start("sweep", *words)
    waited = time.monotonic()
    saved = lambda: {path.parents[2].name for path in folder.glob("trials/*/checkpoints/*/commit_success.txt")}  # old ones are deleted
    while len(saved()) < 2:
        assert going.poll() is None and time.monotonic() - waited < 120, going.communicate()[1]
        time.sleep(0.05)
    os.kill(int((folder / "trials" / "0000" / "lock").read_text()), signal.SIGKILL)  # a trainer: the sweep starts it again
    while "resuming" not in (folder / "trials" / "0000" / trial.LOG).read_text():
        assert going.poll() is None and time.monotonic() - waited < 120
        time.sleep(0.05)
    going.kill()  # the sweep itself
    going.communicate()
    code, out, err = run("sweep", *words)
    assert code == 0, err
    found = read_json(folder / "results.json")
    assert [row["state"] for row in found["trials"]] == ["done", "done"] and found["best"]["value"] == found["trials"][0]["value"]
    for number in ("0000", "0001"):
        assert read_json(folder / "trials" / number / "done.json") == {"step": 600, "exit_code": 0}
        assert (folder / "trials" / number / "evals" / "600" / "test.json").exists()
    assert str(folder / "sweep.html") in out and "polyline" in (folder / "sweep.html").read_text()
