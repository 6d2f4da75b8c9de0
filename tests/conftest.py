"""Strict defaults for every test: 8 virtual CPU devices, rank promotion raises, shapes are checked."""

import os
import pathlib
import tempfile

# Most of the suite's time is compilation; without LLVM's optimisation it needs two thirds of the CPU, and the same programs are tested.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Compiled programs are kept between runs: most of the suite's time is compilation.
CACHE = os.environ.get("TANDEM_TEST_CACHE", os.path.join(tempfile.gettempdir(), f"tandem-test-cache-{os.getuid()}"))
jax.config.update("jax_compilation_cache_dir", CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

install_import_hook(["losses", "models"], "beartype.beartype")

SHARED_DATA = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real data sets; a test that needs it is skipped where it is missing."""
    if not SHARED_DATA.is_dir():
        reason = "needs the real data sets in ../shared/data, which are not here"
        pytest.skip(reason)
    return SHARED_DATA


def pytest_ignore_collect(collection_path, config):
    """Importing torch takes seconds; nothing below tests/parity is looked at without `-m parity`."""
    return True if collection_path.name == "parity" and config.option.markexpr != "parity" else None


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return _no_skips((yield))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    return _no_skips((yield))


def _no_skips(report):
    """With TANDEM_NO_SKIPS (CI) a skipped test is a failed one: a comparison that was not made must not look like one that held."""
    if report.skipped and os.environ.get("TANDEM_NO_SKIPS"):
        report.outcome = "failed"
        report.longrepr = f"skipped although TANDEM_NO_SKIPS is set: {report.longrepr}"
    return report
