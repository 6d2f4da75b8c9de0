"""Presets of compiler flags: the user's values stay, and the pinned jaxlib knows every flag."""

import os
import subprocess
import sys

import pytest

from core.config import ConfigError
from launch import presets

ALL = ",".join(presets.PRESETS)


def test_without_a_preset_nothing_changes():
    assert presets.variables({}) == presets.variables({"TANDEM_PRESET": "", "XLA_FLAGS": "--a=1"}) == {}


def test_a_preset_adds_to_what_the_user_set():
    own = "--xla_gpu_enable_latency_hiding_scheduler=false --xla_dump_to=x"
    found = presets.variables({"TANDEM_PRESET": "gpu-overlap, gpu-triton", "XLA_FLAGS": own})
    assert list(found) == ["XLA_FLAGS"] and found["XLA_FLAGS"].startswith(own + " ")
    assert found["XLA_FLAGS"].count("latency_hiding_scheduler") == 1 and "--xla_gpu_triton_gemm_any=true" in found["XLA_FLAGS"].split()


def test_every_platform_has_a_variable_of_its_own():
    found = presets.variables({"TANDEM_PRESET": ALL})
    assert set(found) == {"XLA_FLAGS", "LIBTPU_INIT_ARGS"}
    assert "tpu" not in found["XLA_FLAGS"] and "gpu" not in found["LIBTPU_INIT_ARGS"]  # jaxlib does not know the flags of libtpu


def test_an_unknown_preset_is_one_line():
    with pytest.raises(ConfigError, match="TANDEM_PRESET is 'gpu-overlp', which is not among: cpu-crowded, .* Did you mean 'gpu-overlap'"):
        presets.variables({"TANDEM_PRESET": "gpu-overlp"})


@pytest.mark.many_processes
def test_jaxlib_accepts_the_flags_and_would_refuse_others():
    flags = presets.variables({"TANDEM_PRESET": ALL})["XLA_FLAGS"]
    command = [sys.executable, "-c", "import jax; jax.numpy.ones(3).sum()"]
    start = lambda flags: subprocess.run(command, env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}, capture_output=True)
    assert start(flags).returncode == 0
    assert start(f"{flags} --xla_gpu_no_such_flag=true").returncode != 0
