"""How far rounding can take a tiled attention kernel from exact softmax attention: the formula of Rounding.v.

It is a worst case over all inputs. Rounding errors mostly cancel, and kernels are better by orders of magnitude; but
where P is rounded to 16 bits, there are inputs that come within 15 % of it.
"""

from __future__ import annotations

from math import expm1

from ioaware.problem import check_count

FP32, FP16, BF16 = 2.0**-24, 2.0**-11, 2.0**-8  # unit roundoffs of rounding to nearest
UPWARD = 1 + 2.0**-40  # more than the double arithmetic below can lose


def error_bound(
    kv_len: int,
    tile_kv: int,
    head_dim: int,
    *,
    largest_score: float = 32.0,
    cast: float = 0.0,
    store: float = 0.0,
    exp_error: float = 3 * 2.0**-23,
    exp_slope: float = 1.2 * 2.0**-23,
    unit: float = FP32,
    pieces_per_tile: int = 1,
) -> float:
    """A bound on |O - exact O| / max|V| of the loop over key tiles (FlashAttention-2): `online_error` of Rounding.v.

    exact O is softmax attention in real numbers on the inputs as they are; a key that is masked counts as absent. The
    sigma of the theorem comes from `score_error`, its rho and eps from `difference_exp_error`, both of RelativeError.v.

    largest_score    at least scale * sum over head_dim of |q_i k_i|, for every query and key
    cast, store      unit roundoffs of the formats that P and O are rounded to; 0: they are not
    exp_error        exp(x) is off by at most exp_error + exp_slope |x|, relatively, where x may be as low as
    exp_slope        -2 largest_score; the defaults cover `__expf` as the CUDA programming guide has it, and NumPy
    unit             unit roundoff of all other arithmetic
    pieces_per_tile  partial sums in which a tile is added to l and to O: 1, or tile_kv if key by key, or tile_kv / 16
                     if by `mma.m16n8k16`

    Nothing may overflow or underflow; sums of products inside an `mma` are taken to be rounded like others, which no
    vendor promises. Raises InputError for sizes below 1.
    """
    sizes = {"kv_len": kv_len, "tile_kv": tile_kv, "head_dim": head_dim, "pieces_per_tile": pieces_per_tile}
    for name, size in sizes.items():
        check_count(name, size)
    tiles = -(-kv_len // tile_kv)
    steps = (tiles - 1) + tiles * pieces_per_tile - 1  # rescalings and additions
    terms = -(-tile_kv // pieces_per_tile)  # of one piece, summed in any order

    sigma = expm1((head_dim + 2) * unit) * largest_score
    score_range = 2 * (largest_score + sigma)
    worst = exp_error + exp_slope * (1 + unit) * score_range
    rho, eps = unit + exp_slope * (1 + unit) / (1 - worst), exp_error / (1 - worst)
    weights = sigma + rho * score_range + tiles * eps
    sums = (2 * (steps + terms) + 1) * unit + cast + store
    return (expm1(sums) + expm1(2 * weights) / 2) * UPWARD
