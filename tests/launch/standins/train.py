"""Stands in for launch.train on workers: one file a step, resumed, stopped by SIGTERM, crashing where `crash` in the workdir says."""

import os
import pathlib
import signal
import sys
import time

workdir = pathlib.Path(next(word.partition("=")[2] for word in sys.argv if word.startswith("--workdir=")))
me = (pathlib.Path(os.environ["HOME"]) / "tandem" / "index").read_text()
steps = int(next((word.partition("=")[2] for word in sys.argv if word.startswith("--config.train.steps=")), 5))
signal.signal(signal.SIGTERM, lambda *_: (print(f"[{me}] saved", flush=True), os._exit(75)))
done = len(list(workdir.glob(f"step_{me}_*")))
print(f"[{me}] goes on at step {done} of commit {os.environ['TANDEM_COMMIT']}, {os.environ.get('TANDEM_COORDINATOR')}", flush=True)
for step in range(done, steps):
    crash = workdir / f"crash_{me}_{step}"
    if crash.exists():
        code = int(crash.read_text())
        crash.unlink()
        print("goes down", flush=True)
        os._exit(code)
    time.sleep(0.05)
    (workdir / f"step_{me}_{step}").touch()
print("done", flush=True)
