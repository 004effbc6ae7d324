"""Starting: the public names, and what neither `import ioaware` nor a plain `simulate --json` may import."""

from __future__ import annotations

import re
import sys

import pytest

import ioaware
from tests.messages.command import spawn

HEAVY = {"cupy", "hypothesis", "ml_dtypes", "numba", "numpy", "pandas", "rich", "sympy", "torch", "triton", "xarray"}
PUBLIC = [
    "ALGORITHMS",
    "Algorithm",
    "AttentionProblem",
    "Band",
    "Bias",
    "Device",
    "InputError",
    "IoawareError",
    "Ledger",
    "ProgramError",
    "Traffic",
    "__version__",
    "flash_attn_backward",
    "flash_attn_func",
    "flash_attn_kvpacked_func",
    "flash_attn_qkvpacked_func",
    "flash_attn_varlen_func",
    "flash_attn_varlen_kvpacked_func",
    "flash_attn_varlen_qkvpacked_func",
    "flash_attn_with_kvcache",
    "load_device",
    "load_programs",
    "load_workload",
    "scaled_dot_product_attention",
    "simulate",
    "simulate_workload",
]


def imported(folder, *command):
    """The modules that a Python of its own imports, as `-X importtime` lists them: a table on stderr."""
    result = spawn(folder, python=("-X", "importtime", *command))
    assert result.code == 0, result.err
    rows = [line.split("|") for line in result.err.splitlines() if line.startswith("import time:")]
    return {name.strip() for _, _, name in rows[1:]}


def packages(modules):
    return {name.partition(".")[0] for name in modules}


LIGHT = [
    ("simulate", "--json"),
    ("simulate", "--json", "--N", "1000000000", "--causal", "--direction", "fwd+bwd"),
    ("simulate", "--json", "--workload", "pi0"),
    ("simulate", "--json", "--q-len", "1", "--page-size", "16", "--kv-dtype", "int8", "--alg", "flash_decoding"),
    ("fits", "--json"),
    ("pipeline", "flash3", "--json"),
    ("list",),
    ("cite",),
    ("config",),
    ("completion", "bash"),
    ("--help",),
]


@pytest.mark.parametrize("args", LIGHT, ids=" ".join)
def test_a_command_without_tables_imports_nothing_heavy(args, tmp_path):
    modules = imported(tmp_path, "-m", "ioaware", *args)
    assert "ioaware.cli" in modules
    assert not packages(modules) & HEAVY


def test_tables_import_no_arrays(tmp_path):
    """Rich draws them; nothing else."""
    assert packages(imported(tmp_path, "-m", "ioaware", "simulate", "--explain")) & HEAVY == {"rich"}


def test_importing_the_package_imports_nothing_else(tmp_path):
    """Only the standard library, and none of the package's own modules."""
    modules = imported(tmp_path, "-c", "import ioaware")
    baseline = imported(tmp_path, "-c", "pass")
    assert {name for name in modules if name.startswith("ioaware")} == {"ioaware"}
    assert packages(modules - baseline) - {"ioaware"} <= sys.stdlib_module_names


def test_the_public_names():
    assert ioaware.__all__ == PUBLIC
    assert dir(ioaware) == ioaware.__all__


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_resolves_to_something_documented(name):
    found = getattr(ioaware, name)
    assert name == "ALGORITHMS" or found.__doc__


def test_the_version_is_a_release():
    assert re.fullmatch(r"\d+\.\d+\.\d+", ioaware.__version__)


def test_everything_public_can_be_imported_at_once():
    names: dict[str, object] = {}
    exec("from ioaware import *", names)
    assert set(PUBLIC) <= set(names)


def test_a_name_that_does_not_exist():
    with pytest.raises(AttributeError, match="module 'ioaware' has no attribute 'simulat'"):
        ioaware.simulat  # noqa: B018
