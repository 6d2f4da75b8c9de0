"""The launcher of several processes: what ends them, what starts them again, and a real run that loses one."""

import contextlib
import errno
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from core.checkpoint import committed_steps
from core.config import ConfigError
from core.logbook import read_lines
from core.workdir import read_json
from launch import arrival, children, process, supervisor
from tests.launch.test_commands import ROOT, TOY, run, start
from training.fitting import Stopped
from training.loop import BadLoss


def script(text):
    """A command that stands for the trainer: `me` is its index, `log` a file that its starts share."""
    return [sys.executable, "-c", f"import os, signal, sys, time\nme = os.environ['TANDEM_PROCESS']\n{text}"]


def supervise(text, count=2, restarts=0, **options):
    return supervisor.supervise(script(text), count, restarts=restarts, **options)


@pytest.mark.parametrize(
    "own, code",
    [(0, 0), (3, 3), (4, 4), (75, 75), (5, 5), (1, 1)],
)
def test_the_code_is_the_one_that_decided(own, code):
    """The other process loses the first, as it does in a run, except where all end well."""
    assert supervise(f"sys.exit({own} if me == '0' or {own} in (0, 75) else (time.sleep(0.2), 5)[1])") == code


def test_a_killed_process_is_a_lost_one():
    assert supervise("os.kill(os.getpid(), signal.SIGKILL) if me == '1' else time.sleep(60)", grace_seconds=0.2) == 5


@pytest.mark.parametrize("code, starts", [(1, 3), (5, 3), (3, 1), (4, 1), (75, 1), (0, 1)])
def test_only_crashes_are_worth_another_start(code, starts, tmp_path):
    text = f"open(r'{tmp_path}/' + me, 'a').write('x'); sys.exit({code})"
    assert supervise(text, restarts=2) == code
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"0": "x" * starts, "1": "x" * starts}


def test_a_crash_that_does_not_come_back_is_overcome(tmp_path, caplog):
    text = f"from pathlib import Path\nfirst = not Path(r'{tmp_path}/f').exists()\nif me == '1': Path(r'{tmp_path}/f').touch()\n"
    assert supervise(text + "sys.exit((first and me == '1') * 7)", restarts=1) == 0
    assert "process 1 ended with code 7; starting all again from the last checkpoint, 1 of 1" in caplog.text


def test_each_line_comes_with_the_index_once(capfd):
    assert supervise("print('plain'); print(f'[{me}] own', file=sys.stderr); print('a\\rb', end='')") == 0
    lines = capfd.readouterr().err.splitlines()
    assert sorted(lines) == sorted(f"[{i}] {text}" for i in (0, 1) for text in ("plain", "own", "a", "b"))


def test_a_signal_is_passed_on_once_to_all():
    """Processes that leave with 75 at the first SIGTERM and with 9 at the second, or when it comes to their group."""
    text = "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), sys.exit(75)))\nfor _ in range(600): time.sleep(0.1)"
    timer = threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    assert supervise(text) == 75
    timer.join()


def test_the_own_flags_stay_with_the_launcher():
    words = ["--processes=2", "--config=a.py:b", "-port", "8476", "--restarts=1", "--flag", "--config.train.steps=3", "--workdir", "w"]
    kept = ["--config=a.py:b", "--config.train.steps=3", "--workdir", "w"]
    assert children.without(words, ("processes", "restarts", "port", "flag")) == kept


def meet(port, count, indices, seconds=1.0):
    """What each process gets at the meeting: None or an error."""
    found = {}

    def one(index):
        try:
            found[index] = arrival.meet(f"127.0.0.1:{port}", count, index, seconds)
        except (ConfigError, arrival.Absent) as error:
            found[index] = error

    threads = [threading.Thread(target=one, args=(index,)) for index in indices]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return found


def test_all_arrive_and_the_port_is_free_again():
    port = children.free_port()
    for _ in range(2):
        assert meet(port, 3, [2, 0, 1], seconds=20.0) == {0: None, 1: None, 2: None}


def test_one_that_never_comes_is_named_to_all():
    found = meet(children.free_port(), 3, [0, 1])
    assert all("process 2 of 3 did not come within 1 s" in str(found[i]) for i in (0, 1)), found


def test_a_coordinator_that_never_comes_is_named():
    (error,) = meet(children.free_port(), 2, [1]).values()
    assert isinstance(error, arrival.Absent) and "process 0 of 2 did not come" in str(error)


def test_a_port_in_use_is_named():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (error,) = meet(port, 2, [0]).values()
    assert isinstance(error, ConfigError) and f"port {port} " in str(error)


def connect(port):
    """A connection to a server that is about to start."""
    for _ in range(500):
        with contextlib.suppress(OSError):
            return socket.create_connection(("127.0.0.1", port), timeout=10)
        time.sleep(0.01)
    pytest.fail("nobody listens")


def test_a_stranger_at_the_port_is_ignored():
    port, found = children.free_port(), []
    first = threading.Thread(target=lambda: found.append(arrival.meet(f"127.0.0.1:{port}", 2, 0, 20.0)))
    first.start()
    with connect(port) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n")
        arrival.meet(f"127.0.0.1:{port}", 2, 1, 20.0)
    first.join(30)
    assert found == [None]


def test_twins_are_refused():
    port = children.free_port()
    with pytest.raises(ConfigError, match="process 1 of 3 came to a run of 3 processes where \\[0, 1\\] had arrived"):
        knocks = [threading.Thread(target=lambda: connect(port).sendall(b"tandem 3 1\n")) for _ in range(2)]
        for knock in knocks:
            knock.start()
        arrival.meet(f"127.0.0.1:{port}", 3, 0, 20.0)


def wrapped(number):
    """An error of a library around the system's."""
    try:
        try:
            raise OSError(number, os.strerror(number))
        except OSError as error:
            raise RuntimeError(f"could not write shard 3: {error}") from error
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device", "/w/f"), OSError(errno.EROFS, "Read-only file system", "/w"), wrapped(errno.ENOSPC),
     PermissionError(errno.EACCES, "Permission denied", "/w"), ValueError("RESOURCE_EXHAUSTED: No space left on device [/w/a]")],
)  # fmt: skip
def test_a_disk_that_refuses_is_one_line_and_3(error, caplog):
    with pytest.raises(SystemExit) as ended, process.exit_codes():
        raise error
    assert ended.value.code == 3 and "choose another folder" in caplog.text and len(caplog.records) == 1


@pytest.mark.parametrize("error", [OSError(errno.EIO, "I/O error"), RuntimeError("no"), wrapped(errno.EEXIST)])
def test_other_trouble_keeps_its_traceback(error):
    with pytest.raises(type(error)), process.exit_codes():
        raise error


@pytest.mark.many_processes
def test_a_run_that_loses_a_process_goes_on_from_its_last_checkpoint(tmp_path):
    workdir = tmp_path / "run"
    words = [*TOY, "--eval=none", "--config.train.steps=120", "--config.checkpoint.every_steps=40", f"--workdir={workdir}"]
    launcher = start("local", "--processes=2", *words)
    lines, killed, second = [], None, None
    reader = threading.Thread(target=lambda: lines.extend(iter(launcher.stderr.readline, "")))
    reader.start()
    try:
        deadline = time.monotonic() + 200
        while launcher.poll() is None:
            assert time.monotonic() < deadline, lines
            if killed is None and committed_steps(workdir / "checkpoints"):
                killed = int(re.search(r"1 is (\d+)", "".join(lines))[1])
                os.kill(killed, signal.SIGKILL)
                second = run("local", "--processes=2", *words)
            time.sleep(0.05)
    finally:
        launcher.kill()
        reader.join()
    text = "".join(lines)
    assert launcher.returncode == 0, text
    assert second[0] == 3 and "is being supervised by process" in second[2] and "Traceback" not in second[2]
    assert "process 1 ended with SIGKILL; starting all again from the last checkpoint, 1 of 3" in text
    (resumed,) = map(int, re.findall(r"resuming .* from step (\d+)", text))
    assert resumed % 40 == 0 and read_json(workdir / "done.json") == {"step": 120, "exit_code": 0}
    assert [row["step"] for row in read_lines(workdir / "metrics.jsonl")] == list(range(1, 121))
    assert {line[:4] for line in lines if line.strip()} <= {"[0] ", "[1] ", "[lau"}


@pytest.mark.many_processes
def test_a_mistake_is_said_once_and_not_tried_again(tmp_path):
    code, _, err = run("local", "--processes=2", "--eval=none", *TOY, "--config.mesh.data=3", f"--workdir={tmp_path / 'run'}")
    assert code == 3 and "does not fit 2 devices" in err and "starting all again" not in err, err


@pytest.mark.many_processes
def test_a_port_in_use_ends_all_in_bounded_time(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code, _, err = run("local", "--processes=2", f"--port={port}", "--eval=none", *TOY, f"--workdir={tmp_path / 'run'}")
    assert code == 3 and f"port {port} of the coordinator cannot be opened" in err, err


@pytest.mark.many_processes
def test_a_launcher_that_is_killed_leaves_no_process(tmp_path):
    launcher = subprocess.Popen(
        [sys.executable, "-c", "from launch import supervisor; supervisor.supervise(['sleep', '300'], 2, restarts=0)"], cwd=ROOT
    )
    try:
        children = []
        while len(children) < 2:
            children = subprocess.run(["pgrep", "-P", str(launcher.pid)], capture_output=True, text=True).stdout.split()
            time.sleep(0.05)
    finally:
        launcher.kill()
        launcher.wait()
    deadline = time.monotonic() + 30
    while any(_runs(pid) for pid in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(pid):
    """Whether a process is there and has not ended; one that nobody has asked for its result yet has."""
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize("error, code", [(BadLoss("nan"), 4), (Stopped("saved"), 75), (ConfigError("no"), 3)])
def test_what_ends_a_training_is_a_line_and_its_code(error, code, caplog):
    with caplog.at_level("INFO"), pytest.raises(SystemExit) as end, process.exit_codes():
        raise error
    assert end.value.code == code and caplog.messages == [str(error)]


@pytest.mark.parametrize("error", [FloatingPointError(), KeyboardInterrupt(), ValueError()])
def test_what_nobody_foresaw_keeps_its_traceback(error):
    with pytest.raises(type(error)), process.exit_codes():
        raise error


@pytest.mark.many_processes
@pytest.mark.parametrize(
    "option, reason", [("size=192k", "No space left on device"), ("ro", "Read-only file system")], ids=["full", "read-only"]
)
def test_a_disk_that_refuses_ends_a_run_with_a_line_and_3(option, reason, tmp_path):
    """A small file system, or one that cannot be written to, in a namespace of mounts that goes with the process. What Orbax's threads
    say about a checkpoint that is cut short stands above the line."""
    alone = ["unshare", "--map-root-user", "--mount", "sh", "-c", f'mount -t tmpfs -o {option} tmpfs {tmp_path} && exec "$@"', "sh"]
    if subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a file system of their own")
    command = [*alone, sys.executable, "-m", "launch.train", *TOY, f"--workdir={tmp_path / 'run'}"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, timeout=240)
    # Threads of Orbax and Grain may still speak after it.
    said = [line for line in done.stderr.splitlines() if reason in line and "choose another folder" in line]
    assert done.returncode == 3 and len(said) == 1, done.stderr
    assert option != "ro" or "Traceback" not in done.stderr
