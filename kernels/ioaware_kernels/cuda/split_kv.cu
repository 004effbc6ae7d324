// split_kv: Flash-Decoding (Dao, Haziza, Massa, Sizov 2023): attention of few queries to many keys, forward, fp32.
//
// What it does     split: softmax(scale Q K^T) V and L over one split, TILE_KV keys, one thread block each. combine:
//                  O and L from those of all splits, each output weighed by exp(L_part - L).
// From flash2      blocks are cut along the keys: decoding has one query per head, too few query tiles to fill a GPU.
//                  A block packs the queries of all heads that share its keys, group x q_len <= TILE_Q rows.
// Predicted bytes  per key/value head, d = head_dim: K and V once, 4 d kv_len each, however large the group. Per query
//                  head: Q read, O_part written and read, 4 d q_len each, L_part written and read, 4 q_len each, all
//                  times ceil(kv_len / TILE_KV); O once, 4 d q_len, L 4 q_len.
// Launch           split: grid (ceil(kv_len / TILE_KV), kv_heads, batch), block THREADS, shared memory as below;
//                  combine: grid (ceil(q_len / TILE_Q), heads, batch), block THREADS.
//
// In split LANES neighbouring threads own one packed row and walk the split KEYS keys at a time: KEYS / LANES scores,
// HEAD_DIM / LANES output columns. In combine a warp owns a row. A split of which a row sees no key has the output 0
// and L = -inf. O_part and L_part have the rows split * q_len + query.

static_assert(THREADS == TILE_Q * LANES, "LANES threads own one packed row");
static_assert(TILE_KV % KEYS == 0, "a split is whole inner tiles");
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

template <int WIDTH>
__device__ __forceinline__ float row_max(float x) {  // over WIDTH neighbouring threads
    for (int step = 1; step < WIDTH; step *= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

template <int WIDTH>
__device__ __forceinline__ float row_sum(float x) {
    for (int step = 1; step < WIDTH; step *= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

extern "C" __global__ void __launch_bounds__(THREADS)
split(View Q, View K, View V, View O_part, View L_part, int q_len, int kv_len, int head_dim, int group, int causal,
      float scale) {
    extern __shared__ float shared[];
    float* sQ = shared;            // TILE_Q x LD
    float* sK = sQ + TILE_Q * LD;  // KEYS x LD
    float* sV = sK + KEYS * LD;    // KEYS x LD
    float* sP = sV + KEYS * LD;    // TILE_Q x (KEYS + 1)

    const int r = threadIdx.x / LANES, lane = threadIdx.x % LANES, rows = group * q_len;
    const int kv_head = blockIdx.y, batch = blockIdx.z, first_key = blockIdx.x * TILE_KV;
    const int head = kv_head * group + r / q_len, query = r % q_len;  // of packed row r
    const int last_key = causal ? query + kv_len - q_len : kv_len - 1;  // that the row sees: bottom-right alignment
    const float* k_rows = rows_of(K, batch, kv_head);
    const float* v_rows = rows_of(V, batch, kv_head);

    for (int x = threadIdx.x; x < TILE_Q * HEAD_DIM; x += THREADS) {
        const int i = x / HEAD_DIM, c = x % HEAD_DIM;
        const float* q_rows = rows_of(Q, batch, kv_head * group + i / q_len);
        sQ[i * LD + c] = i < rows && c < head_dim ? q_rows[i % q_len * Q.row + c] : 0.0f;
    }
    float acc[HEAD_DIM / LANES] = {}, m = MINUS_INFINITY, l = 0.0f;

    for (int first_kv = first_key; first_kv < kv_len && first_kv < first_key + TILE_KV; first_kv += KEYS) {
        __syncthreads();  // everyone is done with the previous keys
        load_tile<KEYS>(sK, k_rows, K.row, first_kv, kv_len, head_dim);
        load_tile<KEYS>(sV, v_rows, V.row, first_kv, kv_len, head_dim);
        __syncthreads();  // the keys are there

        float s[KEYS / LANES] = {};
        for (int k = 0; k < HEAD_DIM; ++k) {
            const float q = sQ[r * LD + k];
            for (int c = 0; c < KEYS / LANES; ++c) s[c] += q * sK[(lane + LANES * c) * LD + k];
        }
        float m_new = m;
        for (int c = 0; c < KEYS / LANES; ++c) {
            s[c] = first_kv + lane + LANES * c <= last_key ? __fmul_rn(scale, s[c]) : MINUS_INFINITY;
            m_new = fmaxf(m_new, s[c]);
        }
        m_new = row_max<LANES>(m_new);
        const float shift = m_new == MINUS_INFINITY ? 0.0f : m_new;  // a row of -inf scores has no maximum to subtract
        const float alpha = __expf(m - shift);
        float sum = 0.0f;
        for (int c = 0; c < KEYS / LANES; ++c) {
            const float p = __expf(s[c] - shift);
            sP[r * (KEYS + 1) + lane + LANES * c] = p;
            sum += p;
        }
        l = alpha * l + row_sum<LANES>(sum);
        m = m_new;
        __syncwarp();  // a row of P is written and read by the same warp
        for (int n = 0; n < HEAD_DIM / LANES; ++n) acc[n] *= alpha;
        for (int j = 0; j < KEYS; ++j) {
            const float p = sP[r * (KEYS + 1) + j];
            for (int n = 0; n < HEAD_DIM / LANES; ++n) acc[n] += p * sV[j * LD + lane + LANES * n];
        }
    }

    if (r >= rows) return;
    const long long row = (long long)blockIdx.x * q_len + query;
    const float inverse = l == 0.0f ? 0.0f : 1.0f / l;  // a row that sees no key is 0
    float* o = rows_of(O_part, batch, head) + row * O_part.row;
    for (int n = 0; n < HEAD_DIM / LANES; ++n)
        if (lane + LANES * n < head_dim) o[lane + LANES * n] = acc[n] * inverse;
    if (lane == 0) rows_of(L_part, batch, head)[row * L_part.row] = m + __logf(l);
}

// An online softmax over the splits, 32 at a time: each thread of a warp weighs one split, all of them add up columns.
extern "C" __global__ void __launch_bounds__(THREADS, 1)  // 1: all the registers, or ptxas spills
combine(View O_part, View L_part, View O, View L, int q_len, int kv_tiles, int head_dim) {
    const int lane = threadIdx.x % 32, head = blockIdx.y, batch = blockIdx.z;
    for (int r = threadIdx.x / 32; r < TILE_Q; r += THREADS / 32) {
        const int query = blockIdx.x * TILE_Q + r;
        if (query >= q_len) return;
        float acc[HEAD_DIM / 32] = {}, m = MINUS_INFINITY, l = 0.0f;
        for (int first = 0; first < kv_tiles; first += 32) {
            const long long row = (long long)first * q_len + query;  // of the first split; q_len further is the next
            float l_part = MINUS_INFINITY;
            if (first + lane < kv_tiles)
                l_part = rows_of(L_part, batch, head)[(row + (long long)lane * q_len) * L_part.row];
            const float m_new = fmaxf(m, row_max<32>(l_part));
            const float shift = m_new == MINUS_INFINITY ? 0.0f : m_new;
            const float alpha = __expf(m - shift), weight = __expf(l_part - shift);
            l = alpha * l + row_sum<32>(weight);
            m = m_new;
            for (int n = 0; n < HEAD_DIM / 32; ++n) acc[n] *= alpha;
            for (int j = 0; j < 32 && first + j < kv_tiles; ++j) {
                const float w = __shfl_sync(0xffffffffu, weight, j);
                const float* o_part = rows_of(O_part, batch, head) + (row + (long long)j * q_len) * O_part.row;
                for (int n = 0; n < HEAD_DIM / 32; ++n)
                    if (lane + 32 * n < head_dim) acc[n] += w * o_part[lane + 32 * n];
            }
        }
        const float inverse = l == 0.0f ? 0.0f : 1.0f / l;
        float* o = rows_of(O, batch, head) + query * O.row;
        for (int n = 0; n < HEAD_DIM / 32; ++n)
            if (lane + 32 * n < head_dim) o[lane + 32 * n] = acc[n] * inverse;
        if (lane == 0) rows_of(L, batch, head)[query * L.row] = m + __logf(l);
    }
}
