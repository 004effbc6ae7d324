// flash2_backward: FlashAttention-2, backward (Dao 2023, arXiv 2307.08691, Algorithm 2), fp32.
//
// What it does     preprocess: D = rowsum(dO * O), dQ_sum = 0. dk_dv_dq: P = exp(scale Q K^T - L) once more, tile by
//                  tile; dS = P * (dO V^T - D); dV = P^T dO, dK = scale dS^T Q, dQ_sum = dS K.
//                  convert: dQ = scale dQ_sum.
// From flash2      the loops are swapped back: a block keeps one key tile and its dK and dV and walks the queries of
//                  all heads that share the keys. Every key tile adds to a row of dQ, atomically, in no fixed order.
// Predicted bytes  per query head, d = head_dim: preprocess O, dO and dQ_sum once, 4 d q_len each, D 4 q_len;
//                  dk_dv_dq per key tile that it sees Q, dO and adds to dQ_sum, 4 d each per row of a query tile, L and
//                  D, 4 each; without a mask q_len ceil(kv_len / TILE_KV) such rows; convert dQ_sum and dQ once.
//                  Per key/value head K, V, dK and dV once, 4 d kv_len each.
// Launch           grid (ceil(q_len / TILE_Q), heads, batch); for dk_dv_dq (ceil(kv_len / TILE_KV), kv_heads, batch);
//                  block THREADS, dynamic shared memory as below.
//
// LANES neighbouring threads own one query row of S, P, dS and dQ and one key row of dK and dV: TILE_KV / LANES pairs,
// HEAD_DIM / LANES columns. Pairs past the end or masked are P = dS = 0, not what a padding of zeros makes of them.

static_assert(TILE_Q == TILE_KV && THREADS == TILE_Q * LANES, "LANES threads own one query row and one key row");
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

// One number of a row, read by the row's first thread and passed on to the others.
__device__ __forceinline__ float row_value(const float* rows, long long stride, int row, int length) {
    const float x = threadIdx.x % LANES == 0 && row < length ? rows[row * stride] : 0.0f;
    return __shfl_sync(0xffffffffu, x, 0, LANES);
}

__device__ __forceinline__ float row_sum(float x) {  // over the LANES threads of a row
    for (int step = 1; step < LANES; step *= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

__device__ __forceinline__ bool sees(int q, int k, int q_len, int kv_len, int causal) {  // the mask is bottom-right
    return q < q_len && k < kv_len && (!causal || k <= q + kv_len - q_len);
}

extern "C" __global__ void __launch_bounds__(THREADS)
preprocess(View O, View dO, View D, View dQ_sum, int q_len, int head_dim) {
    const int row = blockIdx.x * TILE_Q + threadIdx.x / LANES, lane = threadIdx.x % LANES;
    const float* o = rows_of(O, blockIdx.z, blockIdx.y) + row * O.row;
    const float* d_o = rows_of(dO, blockIdx.z, blockIdx.y) + row * dO.row;
    float* dq = rows_of(dQ_sum, blockIdx.z, blockIdx.y) + row * dQ_sum.row;
    float sum = 0.0f;
    for (int c = lane; c < head_dim && row < q_len; c += LANES) {
        sum += o[c] * d_o[c];
        dq[c] = 0.0f;
    }
    sum = row_sum(sum);
    if (lane == 0 && row < q_len) rows_of(D, blockIdx.z, blockIdx.y)[row * D.row] = sum;
}

extern "C" __global__ void __launch_bounds__(THREADS)
dk_dv_dq(View Q, View K, View V, View dO, View L, View D, View dQ_sum, View dK, View dV, int q_len, int kv_len,
         int head_dim, int group, int causal, float scale) {
    extern __shared__ float shared[];
    float* sQ = shared;                        // TILE_Q x LD
    float* sK = sQ + TILE_Q * LD;              // TILE_KV x LD
    float* sV = sK + TILE_KV * LD;             // TILE_KV x LD
    float* sdO = sV + TILE_KV * LD;            // TILE_Q x LD
    float* sP = sdO + TILE_Q * LD;             // TILE_Q x (TILE_KV + 1)
    float* sdS = sP + TILE_Q * (TILE_KV + 1);  // TILE_Q x (TILE_KV + 1)

    const int r = threadIdx.x / LANES, lane = threadIdx.x % LANES;
    const int first_kv = blockIdx.x * TILE_KV, kv_head = blockIdx.y, batch = blockIdx.z;
    load_tile<TILE_KV>(sK, rows_of(K, batch, kv_head), K.row, first_kv, kv_len, head_dim);
    load_tile<TILE_KV>(sV, rows_of(V, batch, kv_head), V.row, first_kv, kv_len, head_dim);
    float dk[HEAD_DIM / LANES] = {}, dv[HEAD_DIM / LANES] = {};
    const int first_seen = causal ? max(0, first_kv - (kv_len - q_len)) : 0;  // by no query before this one

    for (int head = kv_head * group; head < (kv_head + 1) * group; ++head)
        for (int first_q = first_seen / TILE_Q * TILE_Q; first_q < q_len; first_q += TILE_Q) {
            const int row = first_q + r;
            __syncthreads();  // everyone is done with the previous tile
            load_tile<TILE_Q>(sQ, rows_of(Q, batch, head), Q.row, first_q, q_len, head_dim);
            load_tile<TILE_Q>(sdO, rows_of(dO, batch, head), dO.row, first_q, q_len, head_dim);
            const float lse = row_value(rows_of(L, batch, head), L.row, row, q_len);
            const float delta = row_value(rows_of(D, batch, head), D.row, row, q_len);
            __syncthreads();  // the tile is there

            float s[TILE_KV / LANES] = {}, dp[TILE_KV / LANES] = {};
            for (int k = 0; k < HEAD_DIM; ++k) {
                const float q = sQ[r * LD + k], d_o = sdO[r * LD + k];
                for (int c = 0; c < TILE_KV / LANES; ++c) {
                    s[c] += q * sK[(lane + LANES * c) * LD + k];
                    dp[c] += d_o * sV[(lane + LANES * c) * LD + k];
                }
            }
            const float shift = lse == MINUS_INFINITY ? 0.0f : lse;  // L of a row of -inf scores is -inf
            for (int c = 0; c < TILE_KV / LANES; ++c) {
                const int j = lane + LANES * c;
                const bool seen = sees(row, first_kv + j, q_len, kv_len, causal);
                const float p = seen ? __expf(__fmul_rn(scale, s[c]) - shift) : 0.0f;
                sP[r * (TILE_KV + 1) + j] = p;
                sdS[r * (TILE_KV + 1) + j] = seen ? p * (dp[c] - delta) : 0.0f;
            }
            __syncthreads();  // P and dS are there: a key's row needs all queries
            for (int i = 0; i < TILE_Q; ++i) {
                const float p = sP[i * (TILE_KV + 1) + r], ds = sdS[i * (TILE_KV + 1) + r];
                for (int n = 0; n < HEAD_DIM / LANES; ++n) {
                    dv[n] += p * sdO[i * LD + lane + LANES * n];
                    dk[n] += ds * sQ[i * LD + lane + LANES * n];
                }
            }
            float dq[HEAD_DIM / LANES] = {};
            for (int j = 0; j < TILE_KV; ++j) {
                const float ds = sdS[r * (TILE_KV + 1) + j];
                for (int n = 0; n < HEAD_DIM / LANES; ++n) dq[n] += ds * sK[j * LD + lane + LANES * n];
            }
            float* sum = rows_of(dQ_sum, batch, head) + row * dQ_sum.row;
            for (int n = 0; n < HEAD_DIM / LANES; ++n)
                if (row < q_len && lane + LANES * n < head_dim) atomicAdd(sum + lane + LANES * n, dq[n]);
        }

    const int key = first_kv + r;
    float *to_dk = rows_of(dK, batch, kv_head) + key * dK.row, *to_dv = rows_of(dV, batch, kv_head) + key * dV.row;
    for (int c = lane, n = 0; n < HEAD_DIM / LANES; c += LANES, ++n)
        if (key < kv_len && c < head_dim) to_dk[c] = scale * dk[n], to_dv[c] = dv[n];
}

extern "C" __global__ void __launch_bounds__(THREADS)
convert(View dQ_sum, View dQ, int q_len, int head_dim, float scale) {
    const float* sum = rows_of(dQ_sum, blockIdx.z, blockIdx.y);
    float* dq = rows_of(dQ, blockIdx.z, blockIdx.y);
    for (int x = threadIdx.x; x < TILE_Q * HEAD_DIM; x += THREADS) {
        const int row = blockIdx.x * TILE_Q + x / HEAD_DIM, c = x % HEAD_DIM;
        if (row < q_len && c < head_dim) dq[row * dQ.row + c] = scale * sum[row * dQ_sum.row + c];
    }
}
