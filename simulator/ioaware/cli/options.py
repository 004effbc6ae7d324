"""From option texts to a problem and a device: everything is parsed here, so that every refusal is one sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ..device import Device
from ..errors import InputError, refuse, unknown
from ..problem import MASKS, AttentionProblem, Bias
from ..simulator import describe
from ..units import parse_count
from .conventions import Function, option

PROBLEM = (
    option("--N", "n", metavar="N", help="Sequence length of queries and keys; default 8192."),
    option("--q-len", metavar="N", help="Query length, where it differs."),
    option("--kv-len", metavar="N", help="Key/value length, where it differs."),
    option("--d", metavar="D", help="Head dimension; default 64."),
    option("--d-v", metavar="D", help="Value head dimension; default: as --d."),
    option("--heads", metavar="H", help="Query heads; default 1."),
    option("--kv-heads", metavar="H", help="Key/value heads; default: as --heads."),
    option("--batch", metavar="B", help="Sequences; default 1."),
    option("--dtype", metavar="NAME", help="fp32, tf32, fp16, bf16, fp8_e4m3, fp8_e5m2, fp64; default fp16."),
    option("--mask", metavar="NAME", help="full, causal, padding (a vector), sinks:4,1023, documents:900,100, ..."),
    option("--causal", is_flag=True, help="Causal mask, bottom-right aligned; may be added to --mask padding."),
    option("--window", metavar="LEFT[,RIGHT]", help="Keys beside the query's own, as flash-attn counts; -1: all."),
    option("--softcap", metavar="C", help="c tanh(s / c) of the scores."),
    option("--alibi", is_flag=True, help="Linear biases, one slope per query head."),
    option("--bias", metavar="NAME", help="An additive matrix: full, or shared by heads, by batch, or by both."),
    option("--sinks", "sink", is_flag=True, help="A learned logit per query head, a key of value 0."),
    option("--page-size", metavar="KEYS", help="The KV cache in pages, found through a block table."),
    option("--kv-dtype", metavar="NAME", help="The KV cache in fp8_e4m3, fp8_e5m2, int8 or int4."),
    option("--kv-scales", metavar="NAME", help="Its scales per tensor, head or token; default head."),
    option("--latent", is_flag=True, help="V is the first columns of K: the cache of multi-head latent attention."),
    option("--dropout", metavar="P", help="Probability of dropping an attention weight; default 0."),
    option("--direction", metavar="NAME", help="fwd, bwd or fwd+bwd; default fwd."),
)
DEVICE = (
    option("--device", metavar="NAME|FILE", default="a100-sxm-40gb", show_default=True, help="A device or its TOML."),
    option("--sram", metavar="SIZE", help="Fast memory per SM, like 192KB (1024-based); default: the device's."),
    option("--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Change a device field; repeatable."),
)
DEBUG = click.option("--debug", is_flag=True, help="Show the traceback of an error (or IOAWARE_DEBUG=1).")
BUILT_IN = {  # what an option that is not given means
    "n": "8192", "d": "64", "heads": "1", "batch": "1", "dtype": "fp16", "mask": "full", "dropout": "0",
    "direction": "fwd", "d_v": "as d", "kv_heads": "as heads", "q_len": "as N", "kv_len": "as N",
    "sram": "the device's", "algorithms": "naive flash1 flash2",
}  # fmt: skip
BIASES = {"full": (True, True), "heads": (False, True), "batch": (True, False), "both": (False, False)}  # shared by
LENGTHS = (
    "n", "q_len", "kv_len", "d", "d_v", "heads", "kv_heads", "mask", "causal", "window", "latent",
    "softcap", "alibi", "bias", "sink",
)  # fmt: skip


def decorated(*options: Callable[[Function], Function]) -> Callable[[Function], Function]:
    """A decorator that applies several options in the order in which the help shows them."""

    def apply(function: Function) -> Function:
        for decorator in reversed(options):
            function = decorator(function)
        return function

    return apply


def problem(values: dict[str, Any]) -> AttentionProblem:
    """The problem that the options describe; defaults are the setting of the FlashAttention paper."""
    return AttentionProblem(**{"q_len": 8192, **shape(values), **rest(values)})


def shape(values: dict[str, Any]) -> dict[str, Any]:
    """Lengths, heads and mask: what a workload fixes."""
    out: dict[str, Any] = {}
    names = {"q_len": "--q-len", "kv_len": "--kv-len", "head_dim": "--d", "value_dim": "--d-v", "heads": "--heads",
             "kv_heads": "--kv-heads"}  # fmt: skip
    if values["n"] is not None:
        out["q_len"] = out["kv_len"] = parse_count(values["n"], "--N")
    for field, flag in names.items():
        text = values[{"head_dim": "d", "value_dim": "d_v"}.get(field, field)]
        if text is not None:
            out[field] = parse_count(text, flag)
    if "q_len" not in out and "kv_len" in out:
        out["q_len"] = 8192
    return {**out, **_mask(values), **_scores(values), "shared_kv": bool(values.get("latent"))}


def _mask(values: dict[str, Any]) -> dict[str, Any]:
    """--mask, --causal and --window: which keys a query sees, and whether a padding vector is given."""
    name, padding = values["mask"] or "full", values["mask"] == "padding"
    if values.get("window") is not None:
        if values["causal"] or name not in ("full", "padding"):
            raise InputError(f"--window={values['window']:.60} is a mask of its own; leave --causal and --mask out")
        from ..masks.parse import parse_window

        return {"mask": parse_window(values["window"]), "padding": padding}
    if name in MASKS:
        return {"mask": "causal" if values["causal"] or name == "causal" else "full", "padding": padding}
    from ..masks.parse import parse_mask

    mask = parse_mask(name)
    if values["causal"]:
        raise InputError(f"--causal with --mask {name:.60}: write the cut into the mask, like {name:.40}+causal")
    return {"mask": mask, "padding": False}


def _scores(values: dict[str, Any]) -> dict[str, Any]:
    """What is done to the scores."""
    out: dict[str, Any] = {name: True for name in ("alibi", "sink") if values.get(name)}
    if values.get("softcap") is not None:
        out["softcap"] = _number("--softcap", values["softcap"])
    if values.get("bias") is not None:
        if values["bias"] not in BIASES:
            raise unknown("--bias", values["bias"], BIASES, f"known: {', '.join(BIASES)}")
        out["bias"] = Bias(*BIASES[values["bias"]])
    return out


def _number(flag: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{flag}={text:.60}: not a number; write it like 50") from None


def rest(values: dict[str, Any]) -> dict[str, Any]:
    """What applies to a problem and to every phase of a workload."""
    out: dict[str, Any] = {name: values[name] for name in ("dtype", "direction") if values[name] is not None}
    out |= {name: values[name] for name in ("kv_dtype", "kv_scales") if values.get(name) is not None}
    if values.get("page_size") is not None:
        out["page_size"] = parse_count(values["page_size"], "--page-size")
    if values["batch"] is not None:
        out["batch"] = parse_count(values["batch"], "--batch")
    if values["dropout"] is not None:
        out["dropout"] = _probability(values["dropout"])
    return out


def _probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"--dropout={text:.60}: not a number; write a probability in [0, 1), like 0.1") from None
    if not 0 <= value < 1:  # also NaN
        raise refuse("--dropout", text, "a probability in [0, 1)", 0.999 if value >= 1 else 0.0)
    return value


def hardware(values: dict[str, Any]) -> Device:
    """The device with --sram and --set."""
    settings = {}
    for text in values["settings"]:
        field, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--set {text:.60}: not FIELD=VALUE; write it like --set l2_bytes=80MB")
        if field.strip() in settings:
            raise InputError(f"--set {text:.60}: {field.strip()} is set twice; give it once")
        settings[field.strip()] = value.strip()
    return describe(values["device"], values["sram"], settings)


def parse_seed(text: str) -> int:
    """The seed of random inputs. Raises InputError."""
    from ..errors import refuse
    from ..units import LARGEST

    if not text.isascii() or not text.isdigit():
        raise refuse("--seed", text, "a whole number from 0 on", 0)
    if len(text) > len(str(LARGEST)) or int(text) > LARGEST:
        raise refuse("--seed", text, "at most 10^15", LARGEST)
    return int(text)
