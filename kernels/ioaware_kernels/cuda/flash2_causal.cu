// flash2_causal: FlashAttention-2, forward (Dao 2023, arXiv 2307.08691, section 3.1.1), causal, fp32.
//
// What it does     O = softmax(S) V and L = log(sum(exp(S))), S = scale Q K^T where k <= q + kv_len - q_len, else -inf:
//                  the causal mask, aligned bottom-right. One thread block per query tile.
// From flash2      a block stops at the last key tile that one of its rows sees; only the tiles on the diagonal are
//                  masked. For q_len = kv_len about half of the K and V traffic and of the work goes.
// Predicted bytes  per query head, d = head_dim: Q and O once, 4 d q_len each; L 4 q_len; K and V 4 d each times
//                  sum over query tiles i of min(kv_len, TILE_KV ceil(max(0, end_i + kv_len - q_len) / TILE_KV)),
//                  end_i = min(q_len, TILE_Q (i + 1)).
// Launch           grid (ceil(q_len / TILE_Q), heads, batch), block THREADS, dynamic shared memory as below.
//
// LANES neighbouring threads own one query row: each has TILE_KV / LANES scores and HEAD_DIM / LANES output columns.
// Rows past the end and columns past head_dim are zeros in shared memory: they change no sum and are never stored.
// No row of the matrix sees a key past kv_len, so the mask hides the ragged end of the keys, too.

static_assert(THREADS == TILE_Q * LANES, "LANES threads own one query row");
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
template <int ROWS>
__device__ __forceinline__ void load_tile(float* tile, const float* rows, long long stride, int first, int length,
                                          int columns) {
    for (int x = threadIdx.x; x < ROWS * HEAD_DIM; x += THREADS) {
        const int i = x / HEAD_DIM, c = x % HEAD_DIM;
        tile[i * LD + c] = first + i < length && c < columns ? rows[(first + i) * stride + c] : 0.0f;
    }
}

__device__ __forceinline__ float row_max(float x) {  // over the LANES threads of a row
    for (int step = 1; step < LANES; step *= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

__device__ __forceinline__ float row_sum(float x) {
    for (int step = 1; step < LANES; step *= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

extern "C" __global__ void __launch_bounds__(THREADS)
flash2_causal(View Q, View K, View V, View O, View L, int q_len, int kv_len, int head_dim, int group, float scale) {
    extern __shared__ float shared[];
    float* sQ = shared;              // TILE_Q x LD
    float* sK = sQ + TILE_Q * LD;    // TILE_KV x LD
    float* sV = sK + TILE_KV * LD;   // TILE_KV x LD
    float* sP = sV + TILE_KV * LD;   // TILE_Q x (TILE_KV + 1)

    const int r = threadIdx.x / LANES, lane = threadIdx.x % LANES;
    const int first_q = blockIdx.x * TILE_Q, head = blockIdx.y, batch = blockIdx.z;
    const int last_key = first_q + kv_len - q_len;  // that the tile's first row sees; below 0 it sees none
    const int end_kv = min(first_q + TILE_Q, q_len) + kv_len - q_len;  // where its last row's keys end
    const float* k_rows = rows_of(K, batch, head / group);
    const float* v_rows = rows_of(V, batch, head / group);

    load_tile<TILE_Q>(sQ, rows_of(Q, batch, head), Q.row, first_q, q_len, head_dim);
    float acc[HEAD_DIM / LANES] = {}, m = MINUS_INFINITY, l = 0.0f;

    for (int first_kv = 0; first_kv < end_kv; first_kv += TILE_KV) {
        __syncthreads();  // everyone is done with the previous tile
        load_tile<TILE_KV>(sK, k_rows, K.row, first_kv, kv_len, head_dim);
        load_tile<TILE_KV>(sV, v_rows, V.row, first_kv, kv_len, head_dim);
        __syncthreads();  // the tile is there

        float s[TILE_KV / LANES] = {};
        for (int k = 0; k < HEAD_DIM; ++k) {
            const float q = sQ[r * LD + k];
            for (int c = 0; c < TILE_KV / LANES; ++c) s[c] += q * sK[(lane + LANES * c) * LD + k];
        }
        const bool diagonal = first_kv + TILE_KV - 1 > last_key;  // some row does not see the whole tile
        float m_new = m;
        for (int c = 0; c < TILE_KV / LANES; ++c) {
            s[c] = __fmul_rn(scale, s[c]);  // rounded, never fused with - shift: the maximum's exp is 1
            if (diagonal && first_kv + lane + LANES * c > last_key + r) s[c] = MINUS_INFINITY;
            m_new = fmaxf(m_new, s[c]);
        }
        m_new = row_max(m_new);
        const float shift = m_new == MINUS_INFINITY ? 0.0f : m_new;  // a row of -inf scores has no maximum to subtract
        const float alpha = __expf(m - shift);
        float sum = 0.0f;
        for (int c = 0; c < TILE_KV / LANES; ++c) {
            const float p = __expf(s[c] - shift);
            sP[r * (TILE_KV + 1) + lane + LANES * c] = p;
            sum += p;
        }
        l = alpha * l + row_sum(sum);
        m = m_new;
        __syncwarp();  // a row of P is written and read by the same warp
        for (int n = 0; n < HEAD_DIM / LANES; ++n) acc[n] *= alpha;
        for (int j = 0; j < TILE_KV; ++j) {
            const float p = sP[r * (TILE_KV + 1) + j];
            for (int n = 0; n < HEAD_DIM / LANES; ++n) acc[n] += p * sV[j * LD + lane + LANES * n];
        }
    }

    const int row = first_q + r;
    if (row >= q_len) return;
    const float inverse = l == 0.0f ? 0.0f : 1.0f / l;  // a row that sees no key is 0
    float* o = rows_of(O, batch, head) + row * O.row;
    for (int n = 0; n < HEAD_DIM / LANES; ++n)
        if (lane + LANES * n < head_dim) o[lane + LANES * n] = acc[n] * inverse;
    if (lane == 0) rows_of(L, batch, head)[row * L.row] = m + __logf(l);
}
