"""Where numbers go: JSON lines, TensorBoard events, and one live progress line. Written by process 0 only."""

import json
import logging
import math
import pathlib
import sys
import time
from collections.abc import Mapping

import tqdm
from tensorboardX import SummaryWriter

log = logging.getLogger(__name__)


def read_lines(path: pathlib.Path) -> list[dict]:
    """Logged steps in order; where a step repeats (after a resume) the last counts; a torn last line is left out."""
    rows = {}
    if pathlib.Path(path).exists():
        for line in pathlib.Path(path).read_text().splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue  # the writer was killed inside this line
            rows[row["step"]] = row
    return [rows[step] for step in sorted(rows)]


def tag(name: str) -> str:
    """A metric's name as TensorBoard allows it: `recall@1` becomes `recall_at_1`."""
    return name.replace("@", "_at_")


class Logbook:
    """One JSON object per logged step in `metrics.jsonl`, the same numbers as TensorBoard events, and a progress line.

    An inactive logbook (any process but the first) takes the same calls and writes nothing.
    """

    def __init__(self, workdir: pathlib.Path, *, total_steps: int, first_step: int = 0, active: bool = True, tensorboard: bool = True):
        self.active = active
        if not active:
            return
        workdir.mkdir(parents=True, exist_ok=True)
        path = workdir / "metrics.jsonl"
        torn = path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n")
        self._file = open(path, "a", buffering=1)
        if torn:
            self._file.write("\n")
        # purge_step hides the steps that a killed run logged after the checkpoint it goes on from.
        self._events = SummaryWriter(str(workdir / "tensorboard" / "train"), purge_step=first_step + 1) if tensorboard else None
        self._bar = tqdm.tqdm(
            total=total_steps, initial=first_step, unit="step", mininterval=1.0 if sys.stderr.isatty() else 15.0, dynamic_ncols=True,
            bar_format="{desc}{percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]{postfix}",
        )  # fmt: skip

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs one step. A value that is not finite is written as null: JSON has no NaN."""
        if not self.active:
            return
        clean = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._file.write(json.dumps({"step": step, "time": round(time.time(), 3), **clean}) + "\n")
        if self._events is not None:
            try:
                for name, value in metrics.items():
                    self._events.add_scalar(tag(name), value, step)
            except OSError as error:  # training does not end because a plot cannot be drawn
                log.warning("TensorBoard events stop here: %s", error)
                self._events = None
        self._bar.set_postfix_str(f"loss {metrics['train/loss']:.3f}, {metrics['perf/examples_per_second']:,.0f} examples/s", refresh=False)

    def progress(self, step: int) -> None:
        """Moves the progress line to `step` finished steps."""
        if self.active:
            self._bar.update(step - self._bar.n)

    def close(self) -> None:
        """Flushes everything."""
        if self.active:
            self._bar.close()
            self._file.close()
            if self._events is not None:
                self._events.close()
