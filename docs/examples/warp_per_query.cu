// warp_per_query: attention with one warp per query row, nothing in shared memory: a kernel of one's own to verify.
//
//     ioaware verify --kernel docs/examples/warp_per_query.cu
//
// Plain pointers to contiguous (batch, heads, rows, columns) tensors. Every query reads all keys for itself: its bytes
// are those of FlashAttention-2 with query tiles of one row, and that is what warp_per_query.toml claims.

#define MINUS_INFINITY __int_as_float(0xff800000)
#define COLUMNS (HEAD_DIM / 32)  // of each lane: lane, lane + 32, ...

extern "C" __global__ void __launch_bounds__(32)
warp_per_query(const float* Q, const float* K, const float* V, float* O, float* L, int q_len, int kv_len, int head_dim,
               int heads, int group, float scale) {
    const int lane = threadIdx.x, head = blockIdx.y;
    const long long row = ((long long)blockIdx.z * heads + head) * q_len + blockIdx.x;
    const long long first_key = ((long long)blockIdx.z * (heads / group) + head / group) * kv_len;
    float q[COLUMNS], acc[COLUMNS] = {}, m = MINUS_INFINITY, l = 0.0f;
    for (int n = 0; n < COLUMNS; ++n) q[n] = lane + 32 * n < head_dim ? Q[row * head_dim + lane + 32 * n] : 0.0f;

    for (int j = 0; j < kv_len; ++j) {
        const float* k = K + (first_key + j) * head_dim;
        const float* v = V + (first_key + j) * head_dim;
        float s = 0.0f;
        for (int n = 0; n < COLUMNS; ++n)
            if (lane + 32 * n < head_dim) s += q[n] * k[lane + 32 * n];
        for (int step = 16; step > 0; step /= 2) s += __shfl_xor_sync(0xffffffffu, s, step);
        s = __fmul_rn(scale, s);
        const float m_new = fmaxf(m, s), shift = m_new == MINUS_INFINITY ? 0.0f : m_new;
        const float alpha = __expf(m - shift), p = __expf(s - shift);
        l = alpha * l + p;
        m = m_new;
        for (int n = 0; n < COLUMNS; ++n)
            acc[n] = alpha * acc[n] + (lane + 32 * n < head_dim ? p * v[lane + 32 * n] : 0.0f);
    }

    const float inverse = l == 0.0f ? 0.0f : 1.0f / l;  // a row that sees no key is 0
    for (int n = 0; n < COLUMNS; ++n)
        if (lane + 32 * n < head_dim) O[row * head_dim + lane + 32 * n] = acc[n] * inverse;
    if (lane == 0) L[row] = m + __logf(l);
}
