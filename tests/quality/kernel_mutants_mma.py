"""Mistakes planted in the kernel for tensor cores: copies that are not waited for, fragments, swizzles, formats.

Its cases have three or more key tiles, so that both halves of the buffers are used again; of a name the causal one in
bf16. `banks` is caught where a request to shared memory takes more passes over the banks than its bytes.
"""

from __future__ import annotations

from tests.quality.kernel_mutants_table import Mutant

FULL = "4/2 heads, batch 2, bf16"
FP16 = "4/2 heads, batch 2, causal, fp16"
EMPTY = "130x63"  # a query tile that sees no key

LOADED = "first + i < length && 8 * c < columns"
LOAD_K = "load_tile<TILE_KV>(sK + stage, k_rows, K.row, first_kv, kv_len, head_dim);"
LOAD_V = "load_tile<TILE_KV>(sV + stage, v_rows, V.row, first_kv, kv_len, head_dim);"
READ_Q = "ldmatrix(q[k], block(sQ, lane_row, warp, k));"
PREFETCH = "if (first_kv + TILE_KV < end_kv) {"
STAGE = "const unsigned stage = first_kv % KV_ROWS * ROW_BYTES;"
SWIZZLE = "(c ^ (r & 7)) * 16"
LANE_ROW = "swizzled(lane % 16, lane / 16)"
ROW = "const int row = 16 * warp + lane / 4, column = 2 * (lane % 4);"
WAIT = "wait_group<0>();\n        __syncthreads();"
FIRST_COPIES = """\
    load_tile<TILE_Q>(sQ, rows_of(Q, batch, head), Q.row, first_q, q_len, head_dim);
    commit_group();
    if (end_kv > 0) prefetch(0);
    commit_group();"""
WAIT_Q = "wait_group<1>();\n    __syncthreads();"
EXP = "l[h] += s[n][e] = __expf(s[n][e] - shift);"
SEEN = "causal ? first_q + 1 + kv_len - q_len : kv_len"
END = "causal ? min(first_q + TILE_Q, q_len) + kv_len - q_len : kv_len"
O_PAIR = "acc[n][2 * h] * inverse, acc[n][2 * h + 1] * inverse"


def row(
    name: str, old: str, new: str, by: str, case: str = "65x135", at: int = 0, more: tuple[tuple[str, str], ...] = ()
) -> Mutant:
    """One mistake in flash2_mma."""
    return Mutant("flash2_mma", name, old, new, by, case, at, more)


# fmt: off
COPIES = [
    row("Q without a group of its own", "    commit_group();\n    if (end_kv > 0)", "    if (end_kv > 0)",
        "values findings"),
    row("Q after the first key tile", FIRST_COPIES, "\n".join(FIRST_COPIES.splitlines()[n] for n in (2, 1, 0, 3)),
        "values findings"),
    row("first key tile not committed", "commit_group();  // empty", "// empty", "values findings"),
    row("next key tile not committed", "            commit_group();\n        }", "        }", "values findings"),
    row("committed before it is copied", "prefetch(first_kv + TILE_KV);\n            commit_group();",
        "commit_group();\n            prefetch(first_kv + TILE_KV);", "values findings"),
    row("Q not waited for", "    wait_group<1>();\n", "", "values findings"),
    row("two groups still on their way at Q", "wait_group<1>()", "wait_group<2>()", "values findings"),
    row("key tiles not waited for", "        wait_group<0>();\n", "", "values findings"),
    row("a group still on its way at the key tile", "wait_group<0>()", "wait_group<1>()", "values findings"),
    row("waited after the barrier", WAIT, "__syncthreads();\n        wait_group<0>();", "findings only"),
    row("Q waited for after the barrier", WAIT_Q, "__syncthreads();\n    wait_group<1>();", "findings only"),
    row("always copied into the first half", STAGE, "const unsigned stage = 0;", "values findings", at=1),
    row("always read from the first half", STAGE, "const unsigned stage = 0;", "values findings", at=2),
    row("read from the other half", STAGE, STAGE.replace("first_kv", "(first_kv + TILE_KV)"), "values findings", at=2),
    row("a tile past the diagonal prefetched", PREFETCH, PREFETCH.replace("end_kv", "kv_len"), "tensors shared only",
        "128x128"),
    row("a tile past the end prefetched", PREFETCH, "{", "shared only"),
    row("a tile for rows that see no key", "if (end_kv > 0) prefetch(0);", "prefetch(0);", "tensors shared only",
        EMPTY),
    row("K copied twice", LOAD_K, 2 * LOAD_K, "tensors shared findings"),
    row("V not copied", LOAD_V, "", "values tensors shared findings"),
    row("K copied for V", LOAD_V, LOAD_V.replace("v_rows, V.row", "k_rows, K.row"), "values tensors"),
    row("V over the second tile of K", "sV = sK + KV_ROWS", "sV = sK + TILE_KV", "shared findings only"),
    row("half a chunk copied", "there ? 16 : 0", "there ? 8 : 0", "values tensors only"),
    row("always copied", "there ? 16 : 0", "16", "tensors findings"),
    row("no row guard", LOADED, "8 * c < columns", "tensors findings"),
    row("no column guard", LOADED, "first + i < length", "values tensors findings"),
    row("a row too many", LOADED, LOADED.replace("< length", "<= length"), "tensors findings"),
    row("a row too few", LOADED, LOADED.replace("i < length", "i + 1 < length"), "values tensors"),
    row("a chunk too few", LOADED, LOADED.replace("8 * c <", "8 * c + 8 <"), "values tensors only"),
    row("half of a tile copied", "n < ROWS;", "n < ROWS / 2;", "values tensors shared findings"),
    row("V walked with the stride of K", LOAD_V, LOAD_V.replace("V.row", "K.row"), "values", "1x129"),
    row("O walked with the stride of Q", "i * O.row", "i * Q.row", "values", "64x200"),
    row("row stride taken for the columns", "(first + i) * stride", "(first + i) * columns", "values", "1x129"),
]

FRAGMENTS = [
    row("no swizzle", SWIZZLE, "c * 16", "banks only"),
    row("swizzle of four chunks", SWIZZLE, "(c ^ (r & 3)) * 16", "banks only"),
    row("swizzle of neighbouring rows", SWIZZLE, "(c ^ (r / 2 & 7)) * 16", "banks only"),
    row("a sum for an XOR", "(first ^ 32 * j)", "(first + 32 * j)", "values"),
    row("half a step to the right", "(first ^ 32 * j)", "(first ^ 16 * j)", "values"),
    row("another chunk of a block", LANE_ROW, "swizzled(lane % 16, lane / 8)", "values"),
    row("another row of a block", LANE_ROW, "swizzled(lane % 8, lane / 16)", "values"),
    row("matrices of a block in another order", LANE_ROW, "swizzled(lane % 8 + lane / 16 * 8, lane / 8 % 2)",
        "values only"),
    row("every warp on the first 16 rows", READ_Q, READ_Q.replace("warp", "0"), "values only"),
    row("Q read twice", READ_Q, "{" + 2 * READ_Q + "}", "shared only"),
    row("K: columns taken for rows", "q[k], x[0], x[2]", "q[k], x[0], x[1]", "values only"),
    row("K: a block's first keys twice", "q[k], x[1], x[3]", "q[k], x[0], x[2]", "values only"),
    row("K: block rows and columns exchanged", "sK + stage, lane_row, j, k", "sK + stage, lane_row, k, j", "values"),
    row("V not transposed", "ldmatrix_trans(x, block", "ldmatrix(x, block", "values only"),
    row("K transposed", "ldmatrix(x, block", "ldmatrix_trans(x, block", "values only"),
    row("V: rows taken for columns", "p, x[0], x[1]", "p, x[0], x[2]", "values only"),
    row("V: block rows and columns exchanged", "sV + stage, lane_row, k, n", "sV + stage, lane_row, n, k", "values"),
    row("halves of a pair exchanged", '"f"(high), "f"(low)', '"f"(low), "f"(high)', "values only"),
    row("P: lower rows from the right block", "pack(s[2 * k][2], s[2 * k][3]),\n",
        "pack(s[2 * k + 1][0], s[2 * k + 1][1]),\n", "values only"),
    row("an accumulator taken twice", "+f\"(c[3])", "+f\"(c[2])", "values only"),
    row("rows of a warp", ROW, ROW.replace("16 * warp", "8 * warp"), "values"),
    row("columns of a lane", ROW, ROW.replace("2 * (lane % 4)", "lane % 4"), "values findings"),
    row("rows next to each other", "first_q + row + 8 * h", "first_q + row + h", "values findings memory"),
    row("multiplied as fp16", 'f32." FORMAT "." FORMAT ".f32', "f32.f16.f16.f32", "values only"),
    row("multiplied as bf16", 'f32." FORMAT "." FORMAT ".f32', "f32.bf16.bf16.f32", "values only", FP16),
    row("rounded to fp16", 'cvt.rn." FORMAT "x2', "cvt.rn.f16x2", "values only"),
    row("rounded to bf16", 'cvt.rn." FORMAT "x2', "cvt.rn.bf16x2", "values only", FP16),
    row("P with 7 bits", EXP, "{\n                    const float p = __expf(s[n][e] - shift);\n"
        "                    l[h] += p;\n"
        "                    s[n][e] = __int_as_float(__float_as_int(p) & 0xfffe0000);\n                }",
        "values only", FP16),
    row("S rounded to 16 bits", "__fmul_rn(scale, s[n][e])",
        "__int_as_float(__float_as_int(__fmul_rn(scale, s[n][e])) & 0xffff0000)", "values only"),
]

ENDS = [
    row("a key too many", ">= seen + causal", "> seen + causal", "values only"),
    row("a key too few", ">= seen + causal", "+ 1 >= seen + causal", "values only"),
    row("lower rows masked as upper ones", "(row + e / 2 * 8)", "row", "values only"),
    row("rows masked alike", "seen + causal * (row + e / 2 * 8)", "seen", "values only"),
    row("a row's limit where there is none", "seen + causal * (row", "seen + 1 * (row", "values only", FULL),
    row("right columns masked as left ones", "column + e % 2 >=", "column >=", "values only"),
    row("diagonal tile not masked", "if (first_kv + TILE_KV > seen)", "if (first_kv + TILE_KV > seen + TILE_Q)",
        "values only"),
    row("last tile not masked", "if (first_kv + TILE_KV > seen)", "if (causal && first_kv + TILE_KV > seen)",
        "values only", FULL),
    row("top-left alignment", SEEN, "causal ? first_q + 1 : kv_len", "values only"),
    row("tiles of rows past the end", END, "causal ? first_q + TILE_Q + kv_len - q_len : kv_len", "shared only"),
    row("no tile skipped", END, "kv_len", "tensors shared only", "128x128"),
    row("a tile too many skipped", END, END.replace("first_q + TILE_Q", "first_q"), "values tensors"),
    row("a key tile too few", "first_kv < end_kv;", "first_kv + TILE_KV < end_kv;", "values shared only"),
    row("a key tile too many", "first_kv < end_kv;", "first_kv <= end_kv;", "shared findings", "128x128"),
    row("O stored without column guard", "if (8 * n < head_dim)", "if (true)", "tensors findings"),
    row("columns of O too many", "8 * n < head_dim", "8 * n <= head_dim", "tensors findings"),
    row("columns of O too few", "8 * n < head_dim", "8 * n + 8 < head_dim", "values tensors memory"),
    row("O stored without row guard", "if (i >= q_len) continue;", "", "tensors findings"),
    row("a row of O too many", "if (i >= q_len) continue;", "if (i > q_len) continue;", "tensors findings"),
    row("a row of O too few", "if (i >= q_len) continue;", "if (i >= q_len - 1) continue;", "values tensors memory"),
    row("L written by four lanes", "if (lane % 4 == 0) rows_of", "rows_of", "tensors findings only"),
    row("an input overwritten", "if (lane % 4 == 0) rows_of(L", "rows_of(Q, batch, head)[i * Q.row + column] = 0;\n"
        "        if (lane % 4 == 0) rows_of(L", "tensors memory"),
    row("wrong head of K", "rows_of(K, batch, head / group)", "rows_of(K, batch, head % group)", "values only"),
    row("V of the query head", "rows_of(V, batch, head / group)", "rows_of(V, batch, head)", "values findings"),
    row("row stride of O taken for head_dim", "i * O.row", "i * head_dim", "values findings memory", "interleaved"),
    row("row stride of L ignored", "[i * L.row]", "[i]", "values findings memory", "interleaved"),
    row("batch stride ignored", "batch * x.batch + ", "", "values findings memory"),
    row("offset in 32 bits", "batch * x.batch", "batch * (int)x.batch", "values findings memory", "far apart"),
]

ONLINE = [
    row("maximum of a lane alone", "m_new = row_max(m_new);", "", "values only"),
    row("sum of a lane alone", "sum = row_sum(l[h])", "sum = l[h]", "values only"),
    row("a step of row_max missing", "step < 4; step *= 2) x = fm", "step < 2; step *= 2) x = fm", "values only"),
    row("a step of row_sum missing", "step < 4; step *= 2) x +=", "step < 2; step *= 2) x +=", "values only"),
    row("acc not rescaled", "acc[n][e] *= alpha", "acc[n][e] *= 1.0f", "values only"),
    row("one row of acc not rescaled", "int e = 2 * h; e < 2 * h + 2; ++e) acc", "int e = 0; e < 2; ++e) acc",
        "values only"),
    row("l not rescaled", "l[h] *= alpha;", "", "values only"),
    row("rescaled by the inverse", "__expf(m[h] - shift)", "__expf(shift - m[h])", "values"),
    row("maximum not kept", "m[h] = m_new;", "", "values only"),
    row("maximum of each tile anew", "m_new = m[h];", "m_new = MINUS_INFINITY;", "values only", "spread"),
    row("scores of -inf not guarded", "m_new == MINUS_INFINITY ? 0.0f : m_new", "m_new", "values only", "only minus"),
    row("nothing subtracted", "m_new == MINUS_INFINITY ? 0.0f : m_new", "0.0f", "values only", "huge equal"),
    row("division not guarded", "sum == 0.0f ? 0.0f : 1.0f / sum", "1.0f / sum", "values only", "only minus"),
    row("not divided", O_PAIR, O_PAIR.replace(" * inverse", ""), "values only"),
    row("L without log l", "m[h] + __logf(sum)", "m[h]", "values only"),
    row("L without the maximum", "m[h] + __logf(sum)", "__logf(sum)", "values only"),
    row("scale forgotten", "__fmul_rn(scale, s[n][e])", "s[n][e]", "values only"),
    row("scale applied twice", "__fmul_rn(scale,", "__fmul_rn(scale * scale,", "values only"),
    row("multiplied and subtracted in one FFMA", "__fmul_rn(scale, s[n][e])", "s[n][e]", "values only", "huge equal",
        more=(("fmaxf(s[n][2 * h], s[n][2 * h + 1])", "fmaxf(scale * s[n][2 * h], scale * s[n][2 * h + 1])"),
              ("__expf(s[n][e] - shift)", "__expf(__fmaf_rn(scale, s[n][e], -shift))"))),
    row("NaN hidden by a minimum", "__expf(s[n][e] - shift)", "__expf(fminf(s[n][e] - shift, 0.0f))", "values only",
        "not a number"),
    row("denormal outputs flushed", O_PAIR, f"fabsf(acc[n][2 * h] * inverse) < 1.17549435e-38f ? 0.0f : {O_PAIR}",
        "values only", "denormal"),
    row("denormal fp16 outputs flushed", O_PAIR, f"fabsf(acc[n][2 * h] * inverse) < 6.10351563e-5f ? 0.0f : {O_PAIR}",
        "values only", "fp16, denormal"),
]
# fmt: on

TENSOR_CORES = [*COPIES, *FRAGMENTS, *ENDS, *ONLINE]
