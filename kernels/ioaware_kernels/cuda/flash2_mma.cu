// flash2_mma: FlashAttention-2, forward (Dao 2023, arXiv 2307.08691, section 3), on tensor cores, fp16 or bf16.
//
// What it does     O = softmax(S) V and L = log(sum(exp(S))), S = scale Q K^T, one thread block per query tile; with
//                  causal = 1, S is -inf where k > q + kv_len - q_len. Products, sums and L are fp32; P is rounded to
//                  16 bits for the second product, its row sums are not.
// From flash2      a warp multiplies 16 x 16 blocks at once (mma.sync). S and P stay in its registers. While it works
//                  on a key tile the next one is on its way (cp.async): two of each are in shared memory.
// Predicted bytes  per query head, d = head_dim: Q and O once, 2 d q_len each; L 4 q_len; K and V 2 d each times
//                  kv_len ceil(q_len / TILE_Q), or if causal the sum in flash2_causal.
// Launch           grid (ceil(q_len / TILE_Q), heads, batch), block THREADS, dynamic shared memory as below. head_dim
//                  and the strides of Q, K, V and O are multiples of 8 elements, their data 16-byte aligned.
//
// A warp owns 16 query rows. Operands of mma (PTX ISA 9.7.13.4.8) are spread over its lanes in 8 x 8 matrices: lane
// 4g + t holds columns 2t and 2t + 1 of row g. A (16 x 16) is four, at (0,0), (8,0), (0,8), (8,8); B (16 x 8) two,
// transposed, at (0,0), (8,0); the fp32 accumulator C (16 x 8) two, at (0,0), (8,0). So two neighbouring Cs, rounded,
// are an A: S becomes P where it is.
// Rows past the end and columns past head_dim are zeros in shared memory: they change no sum and are never stored.

#if FP16 + BF16 != 1
#error "one of -DFP16=1 and -DBF16=1 chooses the format"
#elif FP16
#define FORMAT "f16"
#else
#define FORMAT "bf16"
#endif
static_assert(THREADS == 32 * WARPS && TILE_Q == 16 * WARPS, "a warp owns 16 query rows");
static_assert(KV_ROWS == 2 * TILE_KV, "one key tile is worked on, one is on its way");
static_assert(HEAD_DIM % 64 == 0, "the swizzle permutes eight 16-byte chunks of a row");
static_assert(TILE_Q % (8 * THREADS / HEAD_DIM) == 0 && TILE_KV % (8 * THREADS / HEAD_DIM) == 0, "whole load steps");
#define ROW_BYTES (2 * HEAD_DIM)
#define MINUS_INFINITY __int_as_float(0xff800000)

typedef unsigned short Bits;  // an fp16 or bf16 number

template <typename T>
struct View {  // (batch, heads, rows, columns): strides in elements, columns contiguous
    T* data;
    long long batch, head, row;
};

template <typename T>
__device__ __forceinline__ T* rows_of(View<T> x, int batch, int head) {
    return x.data + batch * x.batch + head * x.head;
}

// Where chunk c (16 bytes) of row r lies in a tile. ldmatrix reads the same chunk of 8 rows at once: the XOR moves each
// to other banks, so that no padding is needed.
__device__ __forceinline__ unsigned swizzled(int r, int c) {
    return r * ROW_BYTES + (c ^ (r & 7)) * 16;
}

// Starts to copy a chunk; unless it is there, nothing is read and zeros are written.
__device__ __forceinline__ void cp_async(unsigned to, const Bits* from, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0) : "memory");
}

__device__ __forceinline__ void commit_group() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int PENDING>
__device__ __forceinline__ void wait_group() {  // all but the last PENDING groups of this thread are there
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Starts to copy rows first, first + 1, ... of a matrix into shared memory; zeros where the matrix ends.
template <int ROWS>
__device__ __forceinline__ void load_tile(unsigned tile, const Bits* rows, long long stride, int first, int length,
                                          int columns) {
    const int chunks = HEAD_DIM / 8, c = threadIdx.x % chunks;
    for (int n = 0; n < ROWS; n += THREADS / chunks) {
        const int i = n + threadIdx.x / chunks;
        cp_async(tile + swizzled(i, c), rows + (first + i) * stride + 8 * c, first + i < length && 8 * c < columns);
    }
}

// Four 8 x 8 matrices, at (0,0), (8,0), (0,8), (8,8) of a 16 x 16 block; each lane says where one of the 32 rows is.
__device__ __forceinline__ void ldmatrix(unsigned (&x)[4], unsigned row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(row) : "memory");
}

__device__ __forceinline__ void ldmatrix_trans(unsigned (&x)[4], unsigned row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(row) : "memory");
}

__device__ __forceinline__ void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {  // c += a b
    asm("mma.sync.aligned.m16n8k16.row.col.f32." FORMAT "." FORMAT ".f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ unsigned pack(float low, float high) {  // rounded to nearest
    unsigned x;
    asm("cvt.rn." FORMAT "x2.f32 %0, %1, %2;" : "=r"(x) : "f"(high), "f"(low));
    return x;
}

__device__ __forceinline__ float row_max(float x) {  // over the 4 lanes of a row
    for (int step = 1; step < 4; step *= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

__device__ __forceinline__ float row_sum(float x) {
    for (int step = 1; step < 4; step *= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

// The row that a lane gives to ldmatrix for 16 x 16 block (i, j) of a tile, `first` being the one for block (0, 0): in
// the swizzle, 2 j chunks to the right are an XOR.
__device__ __forceinline__ unsigned block(unsigned tile, unsigned first, int i, int j) {
    return tile + 16 * i * ROW_BYTES + (first ^ 32 * j);
}

extern "C" __global__ void __launch_bounds__(THREADS)
flash2_mma(View<Bits> Q, View<Bits> K, View<Bits> V, View<Bits> O, View<float> L, int q_len, int kv_len, int head_dim,
           int group, int causal, float scale) {
    extern __shared__ uint4 shared[];
    const unsigned sQ = __cvta_generic_to_shared(shared);  // TILE_Q x HEAD_DIM
    const unsigned sK = sQ + TILE_Q * ROW_BYTES;           // KV_ROWS x HEAD_DIM: key k in row k % KV_ROWS
    const unsigned sV = sK + KV_ROWS * ROW_BYTES;          // KV_ROWS x HEAD_DIM

    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int row = 16 * warp + lane / 4, column = 2 * (lane % 4);  // of element 0 of the lane's C; 2 and 3 are 8 below
    const unsigned lane_row = swizzled(lane % 16, lane / 16);
    const int first_q = blockIdx.x * TILE_Q, head = blockIdx.y, batch = blockIdx.z;
    const int seen = causal ? first_q + 1 + kv_len - q_len : kv_len;  // keys that the tile's first row sees
    const int end_kv = causal ? min(first_q + TILE_Q, q_len) + kv_len - q_len : kv_len;  // and its last; below 1: none
    const Bits* k_rows = rows_of(K, batch, head / group);
    const Bits* v_rows = rows_of(V, batch, head / group);
    const auto prefetch = [&](int first_kv) {
        const unsigned stage = first_kv % KV_ROWS * ROW_BYTES;
        load_tile<TILE_KV>(sK + stage, k_rows, K.row, first_kv, kv_len, head_dim);
        load_tile<TILE_KV>(sV + stage, v_rows, V.row, first_kv, kv_len, head_dim);
    };

    load_tile<TILE_Q>(sQ, rows_of(Q, batch, head), Q.row, first_q, q_len, head_dim);
    commit_group();
    if (end_kv > 0) prefetch(0);
    commit_group();  // empty if no row sees a key
    wait_group<1>();
    __syncthreads();  // Q is there
    unsigned q[HEAD_DIM / 16][4];
    for (int k = 0; k < HEAD_DIM / 16; ++k) ldmatrix(q[k], block(sQ, lane_row, warp, k));
    float acc[HEAD_DIM / 8][4] = {}, m[2] = {MINUS_INFINITY, MINUS_INFINITY}, l[2] = {};

    for (int first_kv = 0; first_kv < end_kv; first_kv += TILE_KV) {
        wait_group<0>();
        __syncthreads();  // the tile is there, and everyone is done with the one before: the next takes its place
        if (first_kv + TILE_KV < end_kv) {
            prefetch(first_kv + TILE_KV);
            commit_group();
        }
        const unsigned stage = first_kv % KV_ROWS * ROW_BYTES;

        float s[TILE_KV / 8][4] = {};
        for (int k = 0; k < HEAD_DIM / 16; ++k)
            for (int j = 0; j < TILE_KV / 16; ++j) {
                unsigned x[4];
                ldmatrix(x, block(sK + stage, lane_row, j, k));
                mma(s[2 * j], q[k], x[0], x[2]);  // keys are the rows of K: B transposed
                mma(s[2 * j + 1], q[k], x[1], x[3]);
            }
        for (int n = 0; n < TILE_KV / 8; ++n)  // rounded, never fused with - shift: the maximum's exp is 1
            for (int e = 0; e < 4; ++e) s[n][e] = __fmul_rn(scale, s[n][e]);
        if (first_kv + TILE_KV > seen)  // some row does not see the whole tile
            for (int n = 0; n < TILE_KV / 8; ++n)
                for (int e = 0; e < 4; ++e)
                    if (first_kv + 8 * n + column + e % 2 >= seen + causal * (row + e / 2 * 8))
                        s[n][e] = MINUS_INFINITY;

        for (int h = 0; h < 2; ++h) {  // the lane's two rows
            float m_new = m[h];
            for (int n = 0; n < TILE_KV / 8; ++n) m_new = fmaxf(m_new, fmaxf(s[n][2 * h], s[n][2 * h + 1]));
            m_new = row_max(m_new);
            const float shift = m_new == MINUS_INFINITY ? 0.0f : m_new;  // a row of -inf has no maximum to subtract
            const float alpha = __expf(m[h] - shift);
            m[h] = m_new;
            l[h] *= alpha;
            for (int n = 0; n < HEAD_DIM / 8; ++n)
                for (int e = 2 * h; e < 2 * h + 2; ++e) acc[n][e] *= alpha;
            for (int n = 0; n < TILE_KV / 8; ++n)
                for (int e = 2 * h; e < 2 * h + 2; ++e) l[h] += s[n][e] = __expf(s[n][e] - shift);
        }

        for (int k = 0; k < TILE_KV / 16; ++k) {
            const unsigned p[4] = {pack(s[2 * k][0], s[2 * k][1]), pack(s[2 * k][2], s[2 * k][3]),
                                   pack(s[2 * k + 1][0], s[2 * k + 1][1]), pack(s[2 * k + 1][2], s[2 * k + 1][3])};
            for (int n = 0; n < HEAD_DIM / 16; ++n) {
                unsigned x[4];
                ldmatrix_trans(x, block(sV + stage, lane_row, k, n));
                mma(acc[2 * n], p, x[0], x[1]);
                mma(acc[2 * n + 1], p, x[2], x[3]);
            }
        }
    }

    for (int h = 0; h < 2; ++h) {
        const float sum = row_sum(l[h]), inverse = sum == 0.0f ? 0.0f : 1.0f / sum;  // a row that sees no key is 0
        const int i = first_q + row + 8 * h;
        if (i >= q_len) continue;
        Bits* o = rows_of(O, batch, head) + i * O.row + column;
        for (int n = 0; n < HEAD_DIM / 8; ++n)
            if (8 * n < head_dim)
                *reinterpret_cast<unsigned*>(o + 8 * n) = pack(acc[n][2 * h] * inverse, acc[n][2 * h + 1] * inverse);
        if (lane % 4 == 0) rows_of(L, batch, head)[i * L.row] = m[h] + __logf(sum);
    }
}
