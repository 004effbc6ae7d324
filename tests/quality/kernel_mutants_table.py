"""Mistakes planted in the project's own kernels: text to replace, and the checks of `verify` that must see it.

A row may be for several kernels. Where `by` ends with `only`, every other check must hold.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """One mistake."""

    kernel: str  # of a row: all that it is for
    name: str
    old: str
    new: str
    by: str
    case: str = "37x41"  # a part of its name: ragged tiles in both directions, two sequences, groups of two heads
    at: int = 0  # which occurrence of the old text; 0: there is but one
    more: tuple[tuple[str, str], ...] = ()  # further replacements that the same mistake takes


STANDARD = "naive online_softmax"
ONLINE = "flash2 flash2_causal split_kv"
FORWARD = f"{STANDARD} flash1 {ONLINE}"
BACKWARD = "flash2_backward flash2_no_atomics"
ALL = f"{FORWARD} {BACKWARD}"
SOME, OTHERS = "naive flash2 split_kv", "online_softmax flash2_causal"  # for a text that many have

# A decoding kernel's cases for the same purposes
DECODING = {"37x41": "2x300", "1x65": "2x300", "batch 2": "far apart", "64x64": "1x512", "34x70": "2x280"}
VECTORS = {"34x70": "34x140"}  # those of a kernel for tensor cores

# Texts that several kernels have
LOADED = "first + i < length && c < columns ? rows[(first + i) * stride + c]"
GUARD = "m_new == MINUS_INFINITY ? 0.0f : m_new"
PAST = "first_kv + lane + LANES * c < kv_len ? scale * s[c]"
LOAD_K = "load_tile<TILE_KV>(sK, k_rows, K.row, first_kv, kv_len, head_dim);"
LOAD_V = "load_tile<TILE_KV>(sV, v_rows, V.row, first_kv, kv_len, head_dim);"
LOAD_Q = "load_tile<TILE_Q>(sQ, rows_of(Q, batch, head), Q.row, first_q, q_len, head_dim);"
Q_READ = "const float q = sQ[r * LD + k]"
ROW_MAX = "= 1; step < LANES; step *= 2) x = fm"
ROW_SUM = "= 1; step < LANES; step *= 2) x +="
INVERSE = "l == 0.0f ? 0.0f : 1.0f / l"
STORED = "if (lane + LANES * n < head_dim) o[lane"
O_ROW = "rows_of(O, batch, head) + row * O.row"
ROWS_END = "if (row >= q_len) return;"
USE_V = "acc[n] += p * sV[j * LD + lane + LANES * n]"
V_FROM_HBM = (
    "acc[n] += first_kv + j < kv_len && lane + LANES * n < head_dim "
    "? p * v_rows[(first_kv + j) * V.row + lane + LANES * n] : 0.0f"
)
SEEN_KEYS = "causal ? min(q_len, first_q + TILE_Q) + kv_len - q_len : kv_len"
MASK = "k <= q + kv_len - q_len"

# fmt: off
M = Mutant
TILES = [
    M(SOME, "loads without row guard", LOADED, LOADED.replace("first + i < length && ", ""), "tensors findings"),
    M(BACKWARD, "loads without row guard", LOADED, LOADED.replace("first + i < length && ", ""), "findings", "9x31"),
    M(SOME, "loads without column guard", LOADED, LOADED.replace(" && c < columns", ""), "values tensors findings"),
    M(SOME, "loads a row too many", LOADED, LOADED.replace("< length", "<= length"), "tensors findings"),
    M(SOME, "loads a row too few", LOADED, LOADED.replace("i < length", "i + 1 < length"), "values tensors"),
    M(SOME, "loads a column too few", LOADED, LOADED.replace("c < columns", "c + 1 < columns"), "values tensors"),
    M(SOME, "row stride taken for the columns", LOADED, LOADED.replace("* stride", "* columns"), "values", "1x65"),
    M(ALL, "batch stride ignored", "batch * x.batch + ", "", "values findings memory", "batch 2"),
    M(SOME, "head stride ignored", " + head * x.head", "", "values findings memory"),
    M(ALL, "offset in 32 bits", "batch * x.batch", "batch * (int)x.batch", "values findings memory", "far apart"),
    M(SOME, "no padding column", "#define LD (HEAD_DIM + 1)", "#define LD (HEAD_DIM)", "shared"),
    M("flash2 split_kv", "short tile load", "x < ROWS * HEAD_DIM", "x < (ROWS - 1) * HEAD_DIM",
      "values tensors shared findings"),
    M("naive", "short tile load", "x < ROWS * COLUMNS", "x < (ROWS - 1) * COLUMNS", "values tensors shared findings"),
    M("flash2 split_kv", "tile written twice", "tile[i *",
      "((volatile float*)tile)[i * LD + c] = 0.0f;\n        tile[i *", "shared only"),
    M("naive", "tile written twice", "tile[i *",
      "((volatile float*)tile)[i * (COLUMNS + 1) + c] = 0.0f;\n        tile[i *", "shared only"),
    M(SOME, "padding column read", "k < HEAD_DIM; ++k", "k <= HEAD_DIM; ++k", "values shared findings", at=1),
    M(SOME, "Q read twice", Q_READ, "const float q = 0.5f * (sQ[r * LD + k] + ((volatile float*)sQ)[r * LD + k])",
      "shared only", at=1),
    M("flash1 flash2", "K loaded twice", LOAD_K, LOAD_K * 2, "tensors shared only"),
    M("flash2_causal", "V not loaded", LOAD_V, "", "values tensors shared findings"),
    M("flash2", "K loaded for V", LOAD_V, LOAD_V.replace("v_rows, V.row", "k_rows, K.row"), "values tensors"),
    M("flash2 flash2_causal flash2_no_atomics", "Q loaded for every key tile", LOAD_V, LOAD_V + LOAD_Q,
      "tensors shared only"),
    M("naive flash2_causal split_kv", "V loaded for every row", USE_V, V_FROM_HBM, "tensors shared only"),
    M(STANDARD, "K loaded twice", "load_tile<TILE_KV, HEAD_DIM>(sK",
      "load_tile<TILE_KV, HEAD_DIM>(sK, k_rows, K.row, first_kv, kv_len, head_dim);\n"
      "        load_tile<TILE_KV, HEAD_DIM>(sK",
      "tensors shared only"),
]

HEADS = [
    M("naive flash2 flash2_causal", "wrong head of K", "rows_of(K, batch, head / group)",
      "rows_of(K, batch, head % group)", "values only"),
    M("online_softmax flash1 flash2_no_atomics", "wrong head of V", "rows_of(V, batch, head / group)",
      "rows_of(V, batch, head % group)", "values only"),
    M(BACKWARD, "one head of a group only", "head < (kv_head + 1) * group", "head < kv_head * group + 1",
      "values tensors"),
    M("flash2_backward", "wrong heads of a group", "int head = kv_head * group; head < (kv_head + 1) * group; ++head",
      "int head = kv_head; head < (int)gridDim.y * group; head += (int)gridDim.y", "values"),
]

SOFTMAX = [
    M("flash1 flash2", "a key too many", PAST, PAST.replace("< kv_len", "<= kv_len"), "values only"),
    M("flash1 flash2", "a key too few", PAST, PAST.replace("< kv_len", "< kv_len - 1"), "values only"),
    M("flash1 flash2", "scale forgotten", PAST, PAST.replace("scale * ", ""), "values only"),
    M("flash1 flash2", "scale applied twice", PAST, PAST.replace("scale", "scale * scale"), "values only"),
    M("flash2_causal split_kv", "scale forgotten", "__fmul_rn(scale, s[c])", "s[c]", "values only"),
    M("flash2_causal split_kv", "scale applied twice", "__fmul_rn(scale,", "__fmul_rn(scale * scale,", "values only"),
    M("flash1 split_kv", "scores of -inf not guarded", GUARD, "m_new", "values", "only minus infinity", at=1),
    M("flash1 split_kv", "nothing subtracted", GUARD, "0.0f", "values", "huge equal", at=1),
    M("flash2 split_kv", "division not guarded", INVERSE, "1.0f / l", "values", "only minus infinity", at=1),
    M("flash2 split_kv", "rescaled by the inverse", "alpha = __expf(m - shift)", "alpha = __expf(shift - m)", "values",
      at=1),
    M("flash2 split_kv", "acc not rescaled", "acc[n] *= alpha", "acc[n] *= 1.0f", "values only", at=1),
    M("flash2 split_kv", "l not rescaled", "l = alpha * l +", "l = l +", "values only", at=1),
    M("flash2 split_kv", "maximum not kept", "m = m_new;", "", "values only", at=1),
    M("flash2 split_kv", "maximum of each tile anew", "float m_new = m;", "float m_new = MINUS_INFINITY;", "values",
      "spread"),
    M("flash2 flash2_causal", "maximum of a thread alone", "m_new = row_max(m_new);", "", "values"),
    M("split_kv", "maximum of a thread alone", "m_new = row_max<LANES>(m_new);", "", "values"),
    M("flash2 flash2_causal", "a step of row_max missing", ROW_MAX, ROW_MAX.replace("= 1", "= 2"), "values"),
    M("flash1 flash2_causal flash2_backward", "a step of row_sum missing", ROW_SUM,
      ROW_SUM.replace("LANES", "LANES / 2"), "values"),
    M("split_kv", "a step of row_max missing", ROW_MAX.replace("LANES", "WIDTH"),
      "= 2; step < WIDTH; step *= 2) x = fm", "values"),
    M("split_kv", "a step of row_sum missing", ROW_SUM.replace("LANES", "WIDTH"), "= 2; step < WIDTH; step *= 2) x +=",
      "values"),
    M("flash1 split_kv", "P without exp", "p = __expf(s[c] - shift);", "p = s[c] - shift;", "values"),
    M("flash1 split_kv", "NaN hidden by a minimum", "p = __expf(s[c] - shift)", "p = __expf(fminf(s[c] - shift, 0.0f))",
      "values", "not a number"),
    M("flash1 split_kv", "P truncated to 10 bits", "p = __expf(s[c] - shift)",
      "p = __int_as_float(__float_as_int(__expf(s[c] - shift)) & 0xffffe000)", "values only"),
    M("flash1 split_kv", "denormal outputs flushed", "acc[n] * inverse",
      "(fabsf(acc[n] * inverse) < 1.17549435e-38f ? 0.0f : acc[n] * inverse)", "values only", "denormal", 1),
    M("flash2 flash2_causal", "l added up by atomics", "l = alpha * l + row_sum(sum);",
      "float* total = sP + r * (TILE_KV + 1) + TILE_KV;  // the padding\n        if (lane == 0) *total = 0.0f;\n"
      "        __syncwarp();\n        atomicAdd(total, sum);\n        __syncwarp();\n        l = alpha * l + *total;",
      "shared determinism"),
    M("flash1 split_kv", "subtracted after exp", "p = __expf(s[c] - shift);", "p = __expf(s[c]) / __expf(shift);",
      "values only", "huge equal"),
    M("flash2 split_kv", "not divided", "acc[n] * inverse", "acc[n]", "values only", at=1),
    M("flash2 split_kv", "L without log l", "m + __logf(l)", "m", "values only", at=1),
    M("flash2 split_kv", "L without the maximum", "m + __logf(l)", "__logf(l)", "values only", at=1),
    M("flash2", "multiplied and subtracted in one FFMA", "? scale * s[c] :", "? s[c] :", "values", "huge equal",
      more=(
        ("m_new = fmaxf(m_new, s[c])", "m_new = fmaxf(m_new, scale * s[c])"),
        ("__expf(s[c] - shift)", "__expf(__fmaf_rn(scale, s[c], -shift))"))),
]

BOUNDS = [
    M("flash1", "a key tile too many", "first_kv < kv_len;", "first_kv <= kv_len;", "tensors shared only", "64x64"),
    M("flash2", "a key tile too many", "first_kv < kv_len;", "first_kv <= kv_len;", "shared only", "64x64"),
    M("flash2_causal", "a key tile too many", "first_kv < end_kv;", "first_kv <= end_kv;", "shared", "64x64"),
    M("flash1 flash2", "a key tile too few", "first_kv < kv_len;", "first_kv + TILE_KV < kv_len;",
      "values tensors shared"),
    M("flash1", "a query tile too many", "first_q < q_len;", "first_q <= q_len;", "shared only", "64x64"),
    M("flash1", "a query tile too few", "first_q < q_len;", "first_q + TILE_Q < q_len;", "values tensors shared"),
    M("online_softmax flash1 flash2", "a row of V too few", "for (int j = 0; j <", "for (int j = 1; j <",
      "values shared", at=1),
    M(OTHERS, "O stored without row guard", ROWS_END, "", "tensors findings"),
    M(OTHERS, "a row of O too many", ROWS_END, "if (row > q_len) return;", "tensors findings"),
    M(OTHERS, "a row of O too few", ROWS_END, "if (row >= q_len - 1) return;", "values tensors memory"),
    M(OTHERS + " split_kv", "O stored without column guard", STORED, "o[lane", "tensors findings"),
    M(OTHERS, "a column of O not written", STORED, STORED.replace("_dim", "_dim - 1"), "values tensors memory"),
    M(OTHERS, "row stride of O taken for head_dim", O_ROW, O_ROW.replace("O.row", "head_dim"), "values findings memory",
      "interleaved"),
    M(OTHERS, "a column past the end written", STORED, STORED.replace("_dim", "_dim + 1"), "tensors findings memory",
      "1x65"),
    M(OTHERS, "O of every sequence in the first", O_ROW, O_ROW.replace("batch", "0"), "values findings memory",
      "batch 2"),
    M("flash2 flash2_causal", "row stride of L ignored", "[row * L.row]", "[row]", "values findings memory",
      "interleaved"),
    M("flash2 flash2_causal", "an input overwritten", "    const float inverse",
      "    rows_of(Q, batch, head)[row * Q.row] = 0.0f;\n    const float inverse", "tensors memory"),
    M("flash2 flash2_causal", "rows past the end leave early", "    float acc[",
      "    if (first_q + r >= q_len) return;\n    float acc[", "values tensors shared findings"),
    M("flash1 flash2 flash2_causal", "V over the last row of K", "sV = sK + TILE_KV * LD",
      "sV = sK + (TILE_KV - 1) * LD", "values shared findings"),
    M("flash2 flash2_causal", "L stored by every thread of a row", "if (lane == 0) rows_of(L", "rows_of(L", "tensors"),
]

CAUSAL = [
    M("flash2_causal", "a key too few", "> last_key + r)", ">= last_key + r)", "values only"),
    M("flash2_causal", "a key too many", "> last_key + r)", "> last_key + r + 1)", "values only"),
    M("flash2_causal", "top-left alignment", "last_key = first_q + kv_len - q_len", "last_key = first_q",
      "values only"),
    M("flash2_causal", "diagonal tile not masked", "if (diagonal &&", "if (false &&", "values only"),
    M("flash2_causal", "mask of the last diagonal tile only", "first_kv + TILE_KV - 1 > last_key",
      "first_kv > last_key", "values only"),
    M("flash2_causal", "no tile skipped", "first_kv < end_kv", "first_kv < kv_len", "tensors shared only", "64x64"),
    M("flash2_causal", "a tile too many skipped", "min(first_q + TILE_Q, q_len)", "first_q", "values tensors"),
    M("flash2_causal", "tiles of one key skipped", "first_kv < end_kv", "first_kv < end_kv - 1", "values tensors",
      "70x33"),
    M("flash2_causal", "tiles of rows past the end", "min(first_q + TILE_Q, q_len)", "(first_q + TILE_Q)",
      "shared only"),
    M(f"{BACKWARD} split_kv", "top-left alignment", "+ kv_len - q_len", "", "values", at=1),
    M(BACKWARD, "a key too few", MASK, MASK.replace("<=", "<"), "values only", "9x31"),
    M(BACKWARD, "a key too many", MASK, MASK + " + 1", "values only", "9x31"),
    M(BACKWARD, "no mask", f"(!causal || {MASK})", "true", "values only", "9x31"),
    M("flash2_no_atomics", "no tile skipped", "int first_seen = causal ?", "int first_seen = false ?", "tensors shared",
      "64x64"),
    M("flash2_backward", "a tile too many skipped", "first_seen / TILE_Q * TILE_Q",
      "(first_seen + TILE_Q - 1) / TILE_Q * TILE_Q", "values tensors"),
    M("flash2_backward", "tiles before the first", "max(0, first_kv - (kv_len - q_len))", "first_kv - (kv_len - q_len)",
      "tensors findings", "1x65"),
    M("flash2_no_atomics", "no key tile skipped", SEEN_KEYS, "kv_len", "tensors shared only", "64x64"),
    M("flash2_no_atomics", "a key tile too many skipped", SEEN_KEYS, SEEN_KEYS.replace("first_q + TILE_Q", "first_q"),
      "values tensors"),
    M("flash2_no_atomics", "key tiles of rows past the end", SEEN_KEYS,
      SEEN_KEYS.replace("min(q_len, first_q + TILE_Q)", "first_q + TILE_Q"), "shared only"),
    M("split_kv", "a key too few", "<= last_key ?", "< last_key ?", "values only"),
    M("split_kv", "a key too many", "<= last_key ?", "<= last_key + 1 ?", "values only"),
    M("split_kv", "limit of the packed row", "causal ? query + kv_len", "causal ? r + kv_len", "values only"),
]
