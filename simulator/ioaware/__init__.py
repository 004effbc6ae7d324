"""ioaware: what attention costs in bytes, why, and how far that is from the proved optimum.

import ioaware as io

report = io.simulate(io.AttentionProblem(q_len=8192), device="h100-sxm", algorithms=["flash2"])
report.algorithms["flash2"].totals.levels["issued"].read_bytes
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .algorithms import ALGORITHMS, Algorithm
    from .device import Device
    from .device import load as load_device
    from .errors import InputError, IoawareError, ProgramError
    from .functional import (
        Ledger,
        flash_attn_backward,
        flash_attn_func,
        flash_attn_kvpacked_func,
        flash_attn_qkvpacked_func,
        flash_attn_varlen_func,
        flash_attn_varlen_kvpacked_func,
        flash_attn_varlen_qkvpacked_func,
        flash_attn_with_kvcache,
        scaled_dot_product_attention,
    )
    from .masks import Band
    from .problem import AttentionProblem, Bias
    from .program_file import load_programs
    from .simulator import simulate, simulate_workload
    from .traffic import Traffic
    from .workload import load as load_workload

_WHERE = {  # public name: (module, its name there); imported when first used, so that `import ioaware` costs nothing
    "ALGORITHMS": ("algorithms", "ALGORITHMS"),
    "Algorithm": ("algorithms", "Algorithm"),
    "AttentionProblem": ("problem", "AttentionProblem"),
    "Band": ("masks", "Band"),
    "Bias": ("problem", "Bias"),
    "Device": ("device", "Device"),
    "InputError": ("errors", "InputError"),
    "IoawareError": ("errors", "IoawareError"),
    "Ledger": ("functional", "Ledger"),
    "ProgramError": ("errors", "ProgramError"),
    "Traffic": ("traffic", "Traffic"),
    "flash_attn_backward": ("functional", "flash_attn_backward"),
    "flash_attn_func": ("functional", "flash_attn_func"),
    "flash_attn_kvpacked_func": ("functional", "flash_attn_kvpacked_func"),
    "flash_attn_qkvpacked_func": ("functional", "flash_attn_qkvpacked_func"),
    "flash_attn_varlen_func": ("functional", "flash_attn_varlen_func"),
    "flash_attn_varlen_kvpacked_func": ("functional", "flash_attn_varlen_kvpacked_func"),
    "flash_attn_varlen_qkvpacked_func": ("functional", "flash_attn_varlen_qkvpacked_func"),
    "flash_attn_with_kvcache": ("functional", "flash_attn_with_kvcache"),
    "load_device": ("device", "load"),
    "load_programs": ("program_file", "load_programs"),
    "load_workload": ("workload", "load"),
    "scaled_dot_product_attention": ("functional", "scaled_dot_product_attention"),
    "simulate": ("simulator", "simulate"),
    "simulate_workload": ("simulator", "simulate_workload"),
}
__all__ = [
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


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'ioaware' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _WHERE[name]
    return getattr(import_module(f".{module}", __name__), attribute)


def __dir__() -> list[str]:
    return __all__
