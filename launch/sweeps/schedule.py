"""Which trials of a sweep run when: its state lies in SQLite, so that a start goes on where a killed one stopped."""

import contextlib
import pathlib
import shlex
from collections.abc import Generator
from functools import partial

from core.config import ConfigError, differences
from launch import children, process
from launch.sweeps import page, space, trial


def rehearsal(plan: trial.Plan, search: space.Search, listed, parallel: int = 1) -> str:
    """The commands of all trials; of a search that learns, of one that could come first."""
    proposed = listed
    lines = []
    if proposed is None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        proposed = [optuna.create_study(sampler=search.sampler(0)).ask(space.distributions(plan.sweep.space)).params]
        lines.append(f"# {plan.sweep.search.name} proposes each of {search.trials} trials from earlier results; the first could be")
    found = [shlex.join(words) for number, values in enumerate(proposed) for words, _ in trial.commands(plan, number, values)]
    if announces(plan, listed):
        lines.append(f"# one array job of {len(found)} tasks, {parallel} at a time")
    return "\n".join(lines + found)


def announces(plan: trial.Plan, listed) -> bool:
    """Whether the trainings are submitted together: all are known, and none is ended early."""
    return plan.backend.ahead is not None and listed is not None and not plan.prunes


def run(plan: trial.Plan, search: space.Search, listed, pruner, parallel: int, run_trial=trial.run) -> int:
    """Runs what is left of a sweep; the exit code.

    Args:
        plan: what all trials share.
        search: how they are found.
        listed: values of all trials, where the search lists them.
        pruner: Optuna's.
        parallel: trials at once.
        run_trial: runs one as `launch/sweeps/trial.py:run` does.
    """
    from core.workdir import locked

    environments = plan.backend.slots(parallel)
    with locked(plan.folder, "swept"), children.Stop() as stop, contextlib.ExitStack() as cleanup:
        claim(plan)
        study = open_study(plan, search, pruner)
        for values in listed or ():
            study.enqueue_trial(values, skip_if_exists=True)
        trials = waiting(plan, study, search)
        running: dict[int, Generator] = {}
        if announces(plan, listed):
            plan.backend.ahead.announce(plan.folder, remaining(plan, study), parallel)
            cleanup.callback(plan.backend.ahead.withdraw)
        while True:
            if stop.wanted and plan.backend.ahead:  # before those that run leave room for others
                plan.backend.ahead.withdraw()
            for slot in range(parallel):
                if slot not in running and not stop.wanted and (one := next(trials, None)) is not None:
                    running[slot] = follow(plan, study, one, stop, partial(run_trial, environment=environments[slot]))
            if not running:
                break
            for slot, going in list(running.items()):
                if next(going, True):
                    del running[slot]
            trial.pause()
        print(page.write(plan, study))
        if stop.wanted:
            return process.STOPPED
        if not page.finished(study):
            raise ConfigError(f"no trial came to its end; look at {plan.folder / 'trials'}/*/{trial.LOG}, and choose another --workdir.")
    return process.DONE


def claim(plan: trial.Plan) -> None:
    """Writes what the folder belongs to.

    Raises:
        ConfigError: another sweep made it; lists every differing key.
    """
    from core.workdir import read_json, write_json

    path = plan.folder / "sweep.json"
    own = dict(config=plan.config, overrides=list(plan.fixed), sweep=space.as_json(plan.sweep))
    if plan.trials != plan.folder / "trials":
        own["trials"] = str(plan.trials)
    if path.exists() and (found := differences(read_json(path), own, "")):
        lines = "; ".join(line.lstrip(".") for line in found)
        raise ConfigError(f"{plan.folder} was made by another sweep: {lines}. Choose another --workdir.")
    write_json(path, own)


def open_study(plan: trial.Plan, search: space.Search, pruner):
    """The state of the sweep, new or as an earlier start left it."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(f"sqlite:///{plan.folder.resolve() / 'sweep.db'}", engine_kwargs={"connect_args": {"timeout": 60}})
    names = optuna.get_all_study_names(storage)
    done = len(optuna.load_study(study_name="sweep", storage=storage).trials) if names else 0
    return optuna.create_study(
        study_name="sweep", storage=storage, sampler=search.sampler(done), pruner=pruner, load_if_exists=True,
        direction="maximize" if space.maximize(plan.sweep) else "minimize",
    )  # fmt: skip


def waiting(plan: trial.Plan, study, search: space.Search):
    """Trials to run: first those that an earlier start left unfinished, then listed or proposed ones."""
    import optuna
    from optuna.trial import TrialState

    for left in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        yield optuna.trial.Trial(study, left._trial_id)
    distributions, allowed, refused = space.distributions(plan.sweep.space), space.allows(plan.sweep), 0
    while True:
        states = [one.state for one in study.get_trials(deepcopy=False) if page.REFUSED not in one.user_attrs]
        if search.listed is not None and TrialState.WAITING not in states:
            return
        if search.listed is None and sum(state is not TrialState.WAITING for state in states) >= search.trials:
            return
        one = study.ask(distributions)
        if allowed(one.params):
            refused = 0
            yield one
            continue
        one.set_user_attr(page.REFUSED, True)
        study.tell(one, state=TrialState.PRUNED)
        refused += 1
        if refused == 1000:
            raise ConfigError("sweep.constraints refused 1,000 proposals in a row: the space is (nearly) empty; loosen them.")


def remaining(plan: trial.Plan, study) -> list[tuple[list[str], pathlib.Path]]:
    """What trains the listed trials that have no result, and their logs, in the order of `waiting`."""
    from optuna.trial import TrialState

    found = []
    for state in (TrialState.RUNNING, TrialState.WAITING):
        for one in study.get_trials(deepcopy=False, states=(state,)):
            listed = one.system_attrs["fixed_params"]
            found += trial.commands(plan, one.number, {label: listed[label] for label in space.distributions(plan.sweep.space)})
    return found


def follow(plan: trial.Plan, study, one, stop: children.Stop, run_trial) -> Generator[bool, None, None]:
    """Runs a trial to its end and writes that down; yields False while it runs."""
    from optuna.trial import TrialState

    reported = set(study.trials[one.number].intermediate_values)
    process.log.info("trial %d: %s", one.number, page.readable(one.params))

    def report(value: float, step: int) -> bool:
        if step in reported:
            return False
        reported.add(step)
        one.report(value, step)
        return one.should_prune()

    going = run_trial(plan, one.number, one.params, report, stop)
    while True:
        try:
            next(going)
        except StopIteration as end:
            outcome = end.value
            break
        yield False
    if outcome.how != trial.STOPPED:  # it stays unfinished, and goes on at the next start
        one.set_user_attr(page.NOTE, f"{outcome.how}{': ' if outcome.note else ''}{outcome.note}")
        state = {trial.DONE: TrialState.COMPLETE, trial.PRUNED: TrialState.PRUNED}.get(outcome.how, TrialState.FAIL)
        study.tell(one, outcome.value, state=state)
        page.write(plan, study)
    process.log.info("trial %d %s %s", one.number, outcome.how, outcome.note if outcome.value is None else f"{outcome.value:.4f}")
    if outcome.code == process.CONFIG_ERROR and not page.finished(study):
        raise ConfigError(f"trial {one.number} was refused, and none before it ended well: {outcome.note}")
