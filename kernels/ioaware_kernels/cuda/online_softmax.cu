// online_softmax: standard attention with a streaming softmax, forward (Milakov 2018, arXiv 1805.02867), fp32.
//
// What it does     S = scale Q K^T, then P = softmax(S) row by row, then O = P V.
// From naive       softmax_rows keeps no row: one pass over S finds maximum and sum, a second writes P. Rows of any
//                  length fit, for one more read of S. The flash kernels build on this recurrence.
// Predicted bytes  per query head, d = head_dim: S written once and read twice, P written once and read once,
//                  20 q_len kv_len in all; O 4 d q_len; Q 4 d q_len ceil(kv_len / TILE_KV);
//                  K and V 4 d kv_len ceil(q_len / TILE_Q) each.
// Launch           scores and weighted_values: grid (ceil(q_len / TILE_Q), heads, batch); softmax_rows: grid
//                  (q_len, heads, batch); block THREADS.
//
// Matrix products: LANES neighbouring threads own one query row, each TILE_KV / LANES scores or HEAD_DIM / LANES output
// columns. Softmax: the threads of a block share one row, each takes every THREADS-th score.
// Rows and columns past the end are zeros in shared memory: they change no sum and are never stored.

static_assert(THREADS == TILE_Q * LANES, "LANES threads own one query row");
static_assert(THREADS == WARPS * 32, "a row of scores is reduced by WARPS whole warps");
#define LD (HEAD_DIM + 1)  // a padded row: the rows of a warp fall into different banks
#define MINUS_INFINITY __int_as_float(0xff800000)

struct View {  // (batch, heads, rows, columns): strides in elements, columns contiguous
    float* data;
    long long batch, head, row;
};

__device__ __forceinline__ float* rows_of(View x, int batch, int head) {
    return x.data + batch * x.batch + head * x.head;
}

// Rows first, first + 1, ... of a matrix into shared memory; zeros where the matrix ends.
template <int ROWS, int COLUMNS>
__device__ __forceinline__ void load_tile(float* tile, const float* rows, long long stride, int first, int length,
                                          int columns) {
    for (int x = threadIdx.x; x < ROWS * COLUMNS; x += THREADS) {
        const int i = x / COLUMNS, c = x % COLUMNS;
        tile[i * (COLUMNS + 1) + c] = first + i < length && c < columns ? rows[(first + i) * stride + c] : 0.0f;
    }
}

struct Softmax {  // of some scores: their maximum m and l = sum(exp(score - m))
    float m, l;
};

// What is subtracted before exp; scores that are all -inf have no maximum to subtract.
__device__ __forceinline__ float shift_of(float m) { return m == MINUS_INFINITY ? 0.0f : m; }

__device__ __forceinline__ Softmax join(Softmax a, Softmax b) {  // of both sets of scores together
    const float m = fmaxf(a.m, b.m), shift = shift_of(m);
    return {m, a.l * __expf(a.m - shift) + b.l * __expf(b.m - shift)};
}

// One output tile of S after another, each a matrix product of its own that fetches both of its operands.
extern "C" __global__ void __launch_bounds__(THREADS)
scores(View Q, View K, View S, int q_len, int kv_len, int head_dim, int group, float scale) {
    extern __shared__ float shared[];
    float* sQ = shared;            // TILE_Q x LD
    float* sK = sQ + TILE_Q * LD;  // TILE_KV x LD

    const int r = threadIdx.x / LANES, lane = threadIdx.x % LANES;
    const int first_q = blockIdx.x * TILE_Q, row = first_q + r, head = blockIdx.y, batch = blockIdx.z;
    const float* q_rows = rows_of(Q, batch, head);
    const float* k_rows = rows_of(K, batch, head / group);
    float* s_row = rows_of(S, batch, head) + row * S.row;

    for (int first_kv = 0; first_kv < kv_len; first_kv += TILE_KV) {
        __syncthreads();  // everyone is done with the previous tiles
        load_tile<TILE_Q, HEAD_DIM>(sQ, q_rows, Q.row, first_q, q_len, head_dim);
        load_tile<TILE_KV, HEAD_DIM>(sK, k_rows, K.row, first_kv, kv_len, head_dim);
        __syncthreads();  // the tiles are there

        float s[TILE_KV / LANES] = {};
        for (int k = 0; k < HEAD_DIM; ++k) {
            const float q = sQ[r * LD + k];
            for (int c = 0; c < TILE_KV / LANES; ++c) s[c] += q * sK[(lane + LANES * c) * LD + k];
        }
        for (int c = 0; c < TILE_KV / LANES; ++c) {
            const int column = first_kv + lane + LANES * c;
            if (row < q_len && column < kv_len) s_row[column] = scale * s[c];
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
softmax_rows(View S, View P, int kv_len) {
    extern __shared__ float shared[];
    float* partial = shared;  // 2 x WARPS: m and l of every warp

    const int warp = threadIdx.x / 32;
    const float* s = rows_of(S, blockIdx.z, blockIdx.y) + blockIdx.x * S.row;
    float* p = rows_of(P, blockIdx.z, blockIdx.y) + blockIdx.x * P.row;

    Softmax row = {MINUS_INFINITY, 0.0f};
    for (int c = threadIdx.x; c < kv_len; c += THREADS) row = join(row, {s[c], 1.0f});
    for (int step = 1; step < 32; step *= 2)
        row = join(row, {__shfl_xor_sync(0xffffffffu, row.m, step), __shfl_xor_sync(0xffffffffu, row.l, step)});
    if (threadIdx.x % 32 == 0) {
        partial[warp] = row.m;
        partial[WARPS + warp] = row.l;
    }
    __syncthreads();  // every warp's part is there; all threads join them in the same order
    row = {partial[0], partial[WARPS]};
    for (int w = 1; w < WARPS; ++w) row = join(row, {partial[w], partial[WARPS + w]});

    const float shift = shift_of(row.m);
    const float inverse = row.l == 0.0f ? 0.0f : 1.0f / row.l;  // a row of -inf scores has no weights: they are 0
    for (int c = threadIdx.x; c < kv_len; c += THREADS) p[c] = __expf(s[c] - shift) * inverse;
}

extern "C" __global__ void __launch_bounds__(THREADS)
weighted_values(View P, View V, View O, int q_len, int kv_len, int head_dim, int group) {
    extern __shared__ float shared[];
    float* sP = shared;                       // TILE_Q x (TILE_KV + 1)
    float* sV = sP + TILE_Q * (TILE_KV + 1);  // TILE_KV x LD

    const int r = threadIdx.x / LANES, lane = threadIdx.x % LANES;
    const int first_q = blockIdx.x * TILE_Q, row = first_q + r, head = blockIdx.y, batch = blockIdx.z;
    const float* p_rows = rows_of(P, batch, head);
    const float* v_rows = rows_of(V, batch, head / group);
    float acc[HEAD_DIM / LANES] = {};

    for (int first_kv = 0; first_kv < kv_len; first_kv += TILE_KV) {
        __syncthreads();  // everyone is done with the previous tiles
        load_tile<TILE_Q, TILE_KV>(sP, p_rows + first_kv, P.row, first_q, q_len, kv_len - first_kv);
        load_tile<TILE_KV, HEAD_DIM>(sV, v_rows, V.row, first_kv, kv_len, head_dim);
        __syncthreads();  // the tiles are there

        for (int j = 0; j < TILE_KV; ++j) {
            const float p = sP[r * (TILE_KV + 1) + j];
            for (int n = 0; n < HEAD_DIM / LANES; ++n) acc[n] += p * sV[j * LD + lane + LANES * n];
        }
    }

    if (row >= q_len) return;
    float* o = rows_of(O, batch, head) + row * O.row;
    for (int n = 0; n < HEAD_DIM / LANES; ++n)
        if (lane + LANES * n < head_dim) o[lane + LANES * n] = acc[n];
}
