"""Strict defaults for every test: 8 virtual CPU devices, rank promotion raises, shapes are checked."""

import os
import pathlib
import tempfile

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
    """The folder of real data sets; a test that needs it is skipped where it is missing, but not in CI."""
    if not SHARED_DATA.is_dir():
        reason = "needs the real data sets in ../shared/data, which are not here"
        pytest.fail(reason) if os.environ.get("TANDEM_REQUIRE_DATA") else pytest.skip(reason)
    return SHARED_DATA
