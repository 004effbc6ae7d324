// flash1: FlashAttention, forward (Dao et al. 2022, arXiv 2205.14135, Algorithm 2), fp32.
//
// What it does     O = softmax(scale Q K^T) V in one kernel, one thread block per query head; a row's m and l are the
//                  maximum of its scores and the sum of exp(score - m).
// From online_softmax  one kernel: scores live on chip only, a tile at a time. A block holds a key tile and walks
//                  the queries; O, l and m are unfinished until the last key tile, a round trip to HBM per tile.
// Predicted bytes  per query head, d = head_dim, T = ceil(kv_len / TILE_KV): K and V once, 4 d kv_len each;
//                  Q 4 d q_len T; O read 4 d q_len T, written 4 d q_len (T + 1); l and m like O with d = 1.
// Launch           grid (heads, batch), block THREADS, dynamic shared memory as below.
//
// LANES neighbouring threads own one query row: each has TILE_KV / LANES scores and HEAD_DIM / LANES output columns,
// the first of them also l and m. A thread reads back only what it wrote itself, so O, l and m need no barrier.
// Rows past the end and columns past head_dim are zeros in shared memory: they change no sum and are never stored.

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

extern "C" __global__ void __launch_bounds__(THREADS, 1)  // 1: all the registers, or ptxas spills
flash1(View Q, View K, View V, View O, View l, View m, int q_len, int kv_len, int head_dim, int group, float scale) {
    extern __shared__ float shared[];
    float* sQ = shared;              // TILE_Q x LD
    float* sK = sQ + TILE_Q * LD;    // TILE_KV x LD
    float* sV = sK + TILE_KV * LD;   // TILE_KV x LD
    float* sP = sV + TILE_KV * LD;   // TILE_Q x (TILE_KV + 1)

    const int r = threadIdx.x / LANES, lane = threadIdx.x % LANES, head = blockIdx.x, batch = blockIdx.y;
    const float* q_rows = rows_of(Q, batch, head);
    const float* k_rows = rows_of(K, batch, head / group);
    const float* v_rows = rows_of(V, batch, head / group);
    float* o_rows = rows_of(O, batch, head);
    float* l_rows = rows_of(l, batch, head);
    float* m_rows = rows_of(m, batch, head);

    for (int row = r; row < q_len; row += TILE_Q) {
        for (int n = lane; n < head_dim; n += LANES) o_rows[row * O.row + n] = 0.0f;
        if (lane == 0) {
            l_rows[row * l.row] = 0.0f;
            m_rows[row * m.row] = MINUS_INFINITY;
        }
    }
    for (int first_kv = 0; first_kv < kv_len; first_kv += TILE_KV) {
        load_tile<TILE_KV>(sK, k_rows, K.row, first_kv, kv_len, head_dim);
        load_tile<TILE_KV>(sV, v_rows, V.row, first_kv, kv_len, head_dim);
        for (int first_q = 0; first_q < q_len; first_q += TILE_Q) {
            load_tile<TILE_Q>(sQ, q_rows, Q.row, first_q, q_len, head_dim);
            __syncthreads();  // the tiles are there

            const int row = first_q + r;
            const bool mine = row < q_len;
            float* o = o_rows + row * O.row;
            float l_old = mine && lane == 0 ? l_rows[row * l.row] : 0.0f;
            float m_old = mine && lane == 0 ? m_rows[row * m.row] : MINUS_INFINITY;
            l_old = __shfl_sync(0xffffffffu, l_old, 0, LANES);  // from the row's first thread
            m_old = __shfl_sync(0xffffffffu, m_old, 0, LANES);

            float s[TILE_KV / LANES] = {};
            for (int k = 0; k < HEAD_DIM; ++k) {
                const float q = sQ[r * LD + k];
                for (int c = 0; c < TILE_KV / LANES; ++c) s[c] += q * sK[(lane + LANES * c) * LD + k];
            }
            float m_new = m_old;
            for (int c = 0; c < TILE_KV / LANES; ++c) {
                s[c] = first_kv + lane + LANES * c < kv_len ? scale * s[c] : MINUS_INFINITY;
                m_new = fmaxf(m_new, s[c]);
            }
            m_new = row_max(m_new);
            const float shift = m_new == MINUS_INFINITY ? 0.0f : m_new;  // -inf scores have no maximum to subtract
            float sum = 0.0f;
            for (int c = 0; c < TILE_KV / LANES; ++c) {
                const float p = __expf(s[c] - shift);
                sP[r * (TILE_KV + 1) + lane + LANES * c] = p;
                sum += p;
            }
            const float old = __expf(m_old - shift) * l_old;
            const float l_new = old + row_sum(sum);
            const float inverse = l_new == 0.0f ? 0.0f : 1.0f / l_new;  // a row that saw no key yet is 0
            __syncwarp();  // a row of P is written and read by the same warp

            float acc[HEAD_DIM / LANES];
            for (int n = 0; n < HEAD_DIM / LANES; ++n)
                acc[n] = mine && lane + LANES * n < head_dim ? old * o[lane + LANES * n] : 0.0f;
            for (int j = 0; j < TILE_KV; ++j) {
                const float p = sP[r * (TILE_KV + 1) + j];
                for (int n = 0; n < HEAD_DIM / LANES; ++n) acc[n] += p * sV[j * LD + lane + LANES * n];
            }
            for (int n = 0; n < HEAD_DIM / LANES; ++n)
                if (mine && lane + LANES * n < head_dim) o[lane + LANES * n] = acc[n] * inverse;
            if (mine && lane == 0) {
                l_rows[row * l.row] = l_new;
                m_rows[row * m.row] = m_new;
            }
            __syncthreads();  // everyone is done with the tiles
        }
    }
}
