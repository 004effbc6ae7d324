"""What PyTorch's CPU kernels return: writes sdpa.npz, so that tests/unit/test_sdpa.py needs no PyTorch.

pip install torch --index-url https://download.pytorch.org/whl/cpu && python -m tests.data.make_sdpa_fixture
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import ml_dtypes
import numpy as np

FIXTURE = Path(__file__).with_name("sdpa.npz")
FORMATS = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float64": np.float64}


@dataclass(frozen=True)
class Case:
    """Shapes of one call, its mask by name, its other arguments; gradients where `flash_attn_backward` has them."""

    batch: tuple[int, ...] = (2,)
    heads: int = 2
    kv_heads: int = 2
    lengths: tuple[int, int] = (9, 13)
    widths: tuple[int, int] = (6, 6)
    dtype: str = "float32"
    mask: str = ""
    options: dict[str, object] = field(default_factory=dict)
    gradients: bool = False


CAUSAL, GQA = {"is_causal": True}, {"enable_gqa": True}
SQUARE = Case(batch=(1,), lengths=(19, 19), options=CAUSAL, gradients=True)
CASES = {
    **{f"plain {dtype}": Case(dtype=dtype, gradients=True) for dtype in FORMATS},
    **{f"causal {dtype}": replace(SQUARE, dtype=dtype) for dtype in FORMATS},
    **{f"padding {dtype}": Case(dtype=dtype, mask="padding") for dtype in FORMATS},
    **{f"lowest {dtype}": Case(dtype=dtype, mask="lowest") for dtype in FORMATS},
    "causal, fewer queries than keys": Case(lengths=(5, 9), options=CAUSAL),
    "causal, more queries than keys": Case(lengths=(9, 5), options=CAUSAL),
    "causal, one query": Case(lengths=(1, 9), options=CAUSAL),
    "bool": Case(mask="bool"),
    "bool, per head": Case(mask="bool per head"),
    "additive": Case(mask="additive"),
    "additive, per head": Case(mask="additive per head"),
    "minus infinity": Case(mask="minus infinity"),
    "nothing is seen": Case(mask="nothing"),
    "groups": Case(heads=6, options=GQA, gradients=True),
    "one key head, causal": Case(heads=4, kv_heads=1, lengths=(7, 7), options=CAUSAL | GQA, gradients=True),
    "groups, bool": Case(heads=6, options=GQA, mask="bool per head"),
    "scale": Case(options={"scale": 0.7}, gradients=True),
    "negative scale": Case(options={"scale": -0.4}),
    "wide values": Case(widths=(5, 11)),
    "narrow values": Case(widths=(7, 3), options=CAUSAL),
    "long, bool": Case(batch=(1,), heads=1, kv_heads=1, lengths=(5, 530), widths=(4, 4), mask="bool"),
    "two batch axes": Case(batch=(2, 3), mask="additive"),
    "no batch": Case(batch=()),
    "no heads": Case(batch=(), heads=0, kv_heads=0, mask="bool"),
}


def inputs(case: Case, seed: int) -> dict[str, np.ndarray]:
    """query, key, value, dout, and attn_mask if there is one."""
    rng, dtype = np.random.default_rng(seed), FORMATS[case.dtype]
    (length, keys), (width, value_width) = case.lengths, case.widths
    head_axis = ((case.heads,), (case.kv_heads,)) if case.heads else ((), ())
    shapes = {
        "query": (*head_axis[0], length, width), "key": (*head_axis[1], keys, width),
        "value": (*head_axis[1], keys, value_width), "dout": (*head_axis[0], length, value_width),
    }  # fmt: skip
    found = {name: rng.standard_normal((*case.batch, *shape)).astype(dtype) for name, shape in shapes.items()}
    if case.mask:
        found["attn_mask"] = mask(case, rng, (*case.batch, *head_axis[0], length, keys))
    return found


def mask(case: Case, rng: np.random.Generator, every: tuple[int, ...]) -> np.ndarray:
    """attn_mask; `every` is the shape of all scores. Of `seen` query 0 sees one key, query 1 none."""
    dtype, matrix = FORMATS[case.dtype], every[-2:]
    seen = rng.random(matrix) < 0.6
    seen[:2], seen[0, 0] = False, True
    if case.mask == "lowest":  # all of row 0, every other key of row 1
        found = np.zeros(matrix, dtype)
        found[0] = found[1, ::2] = ml_dtypes.finfo(dtype).min
        return found
    return {
        "padding": rng.random((*case.batch, 1, 1, matrix[1])) < 0.7, "bool": seen,
        "bool per head": rng.random(every) < 0.5, "additive": rng.standard_normal(matrix).astype(dtype),
        "additive per head": rng.standard_normal(every).astype(dtype),
        "minus infinity": np.where(seen, 0, -np.inf).astype(dtype), "nothing": np.zeros(matrix, bool),
    }[case.mask]  # fmt: skip


def torch_outputs(case: Case, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """out, and the gradients dquery, dkey and dvalue if the case has them."""
    import torch

    tensors = {name: _tensor(array) for name, array in given.items()}
    dout, leaves = tensors.pop("dout"), [tensors[name] for name in ("query", "key", "value")]
    for leaf in leaves:
        leaf.requires_grad_(case.gradients)
    out = torch.nn.functional.scaled_dot_product_attention(**tensors, **case.options)
    found = {"out": _array(out.detach(), case.dtype)}
    if case.gradients:
        for name, gradient in zip(("query", "key", "value"), torch.autograd.grad(out, leaves, dout), strict=True):
            found[f"d{name}"] = _array(gradient, case.dtype)
    return found


def _tensor(array: np.ndarray) -> object:
    import torch

    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.uint16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def _array(tensor: object, dtype: str) -> np.ndarray:
    import torch

    if dtype == "bfloat16":
        return tensor.contiguous().view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def load() -> tuple[str, dict[str, dict[str, np.ndarray]]]:
    """(PyTorch's version, the arrays of every case)."""
    cases: dict[str, dict[str, np.ndarray]] = {}
    with np.load(FIXTURE, allow_pickle=False) as stored:
        about = json.loads(str(stored["about"]))
        for key, dtype in about["dtypes"].items():
            case, name = key.split("/")
            cases.setdefault(case, {})[name] = stored[key].view(FORMATS.get(dtype, dtype))
    return about["torch"], cases


def main() -> None:
    import torch

    arrays = {}
    for n, (name, case) in enumerate(CASES.items()):
        given = inputs(case, n)
        arrays |= {f"{name}/{of}": array for of, array in (given | torch_outputs(case, given)).items()}
    about = {"torch": torch.__version__, "dtypes": {key: str(array.dtype) for key, array in arrays.items()}}
    plain = {key: a.view(np.uint16) if a.dtype == ml_dtypes.bfloat16 else a for key, a in arrays.items()}
    np.savez_compressed(FIXTURE, about=np.array(json.dumps(about)), **plain)


if __name__ == "__main__":
    main()
