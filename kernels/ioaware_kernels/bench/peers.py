"""Other people's kernels in the same run, where they can be imported: PyTorch's scaled_dot_product_attention.

They get the same inputs, are verified and timed in the same way, and have a floor; no prediction, for their programs
are not ours. What cannot be imported, or refuses a problem, is named with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ioaware.masks import CAUSAL
from ioaware.problem import AttentionProblem

from ..tensors import Array, unpacked
from .backend import Inputs, Subject

TORCH = "torch sdpa"
CUDA_BACKENDS = {  # the names of torch.nn.attention.SDPBackend, and of the rows
    "FLASH_ATTENTION": "flash", "CUDNN_ATTENTION": "cudnn", "EFFICIENT_ATTENTION": "efficient", "MATH": "math",
}  # fmt: skip

Peers = tuple[list[Subject], dict[str, str]]


def on_cpu(problem: AttentionProblem, inputs: Inputs) -> Peers:
    """PyTorch on the CPU, with the backend that it chooses."""
    torch, why = _torch(problem)
    if torch is None:
        return [], {TORCH: why}
    return [_subject(torch, TORCH, "cpu", problem, inputs, _plain)], {}


def on_cuda(problem: AttentionProblem, inputs: Inputs) -> Peers:
    """PyTorch on the GPU, each backend by itself."""
    torch, why = _torch(problem)
    if torch is None:
        return [], {TORCH: why}
    if not torch.cuda.is_available():
        return [], {TORCH: "this PyTorch finds no GPU"}
    ready: list[Subject] = []
    absent: dict[str, str] = {}
    for backend, name in CUDA_BACKENDS.items():
        subject = _subject(torch, f"{TORCH} {name}", "cuda", problem, inputs, partial(_only, backend))
        try:
            subject.run()
            torch.cuda.synchronize()
        except (RuntimeError, AttributeError) as e:  # not for this dtype, head_dim or GPU; or not in this PyTorch
            absent[subject.name] = str(e).splitlines()[0].rstrip(".")
        else:
            ready.append(subject)
    return ready, absent


def _torch(problem: AttentionProblem) -> tuple[Any, str]:
    """PyTorch, or why not."""
    if problem.band == CAUSAL and problem.q_len != problem.kv_len:
        return None, "aligns causal masks to the first key, not to the last"
    try:
        import torch
    except ImportError as e:
        return None, "not installed" if getattr(e, "name", "") == "torch" else str(e).splitlines()[0]
    return torch, ""


def _plain(attention: Callable[[], Any]) -> Any:
    return attention()


def _only(backend: str, attention: Callable[[], Any]) -> Any:
    """With this backend or not at all."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(getattr(SDPBackend, backend)):
        return attention()


def _subject(
    torch: Any, name: str, where: str, problem: AttentionProblem, inputs: Inputs, within: Callable[..., Any]
) -> Subject:
    """Q, K, V on the device; the output is a new tensor each time, as PyTorch has it."""
    causal = problem.band == CAUSAL
    q, k, v = (_tensor(torch, unpacked(problem, inputs[n])).to(where) for n in "QKV")
    last = {"O": torch.full_like(q, float("nan"))}

    def run() -> None:
        with torch.inference_mode():
            call = partial(torch.nn.functional.scaled_dot_product_attention, q, k, v, is_causal=causal)
            last["O"] = within(call)

    def outputs() -> dict[str, Array]:
        return {"O": last["O"].float().cpu().numpy()}

    def poison() -> None:
        last["O"] = torch.full_like(q, float("nan"))

    return Subject(name, run, outputs, poison)


def _tensor(torch: Any, array: Array) -> Any:
    """An array as PyTorch has it; bf16 is none of NumPy's own formats and goes as bits."""
    contiguous = np.ascontiguousarray(array)
    if contiguous.dtype.name == "bfloat16":
        return torch.from_numpy(contiguous.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(contiguous)
