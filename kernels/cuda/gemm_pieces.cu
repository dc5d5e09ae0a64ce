// Matrix products with a first factor of 16 bits whose rows are whole pieces of 16 bytes, on the tensor cores of compute
// capability 8.0 and later, sums in float32; bias and rectify as in gemm.cu. The second factor is of 16 bits too, or
// of float32: both are then multiplied in tf32, which holds a half exactly.
//
// A block of 256 threads owns a tile of TILE_ROWS x TILE_COLUMNS of the result and, where the inner dimension is split
// (blockIdx.z), the sum over one part of it. Its eight warps stand four down and two across; each owns 32 x 32 values,
// as two times four fragments of 16 x 8. TILE_INNER of the inner dimension are fetched a step, STAGES - 1 steps ahead.
//
// A tile lies in shared memory as its factor does in memory: rows of 64 bytes (a, four pieces of the inner dimension),
// 128 (b of 16 bits) or 256 (a transposed, b of 32 bits), the row then being one value of the inner dimension. The
// pieces of a row are exchanged so that what a warp reads at once does not meet in a bank.

#define TILE_ROWS 128
#define TILE_COLUMNS 64
#define TILE_INNER 32
#define STAGES 3
#define PIECE_BYTES 16

// How a's rows and b's numbers are: GRAM is a transposed, b of 16 bits; PLAIN a as it is, b of 16 bits; MIXED a as it is,
// b of 32 bits.
enum Factors { GRAM, PLAIN, MIXED };

// Where a piece lies in a tile of rows of PIECES pieces. Eight rows that are read at the same piece lie in different
// banks; for the single numbers of MIXED four rows at the same two.
template <int PIECES, bool NUMBERS>
__device__ __forceinline__ unsigned int place_of(int row, int piece) {
    int exchange = PIECES == 4 ? row / 2 % 4 : NUMBERS ? row / 2 % 4 * 2 : row % 8;
    return row * PIECES * PIECE_BYTES + (piece ^ exchange) * PIECE_BYTES;
}

// Adds the products of one step to a warp's sums, the tiles of a and b being at these addresses.
template <Factors FACTORS>
__device__ __forceinline__ void multiply_step(float (&sum)[2][4][4], unsigned int of_a, unsigned int of_b) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warp_row = warp / 2 * 32, warp_column = warp % 2 * 32;
#pragma unroll
    for (int k = 0; k < TILE_INNER; k += 16) {
        unsigned int a[2][4];
#pragma unroll
        for (int m = 0; m < 2; m++) {
            int row = warp_row + 16 * m;
            if constexpr (FACTORS == GRAM)
                load_transposed(a[m], of_a + place_of<16, false>(k + lane % 8 + lane / 16 * 8, row / 8 + lane / 8 % 2));
            else
                load_matrices(a[m], of_a + place_of<4, false>(row + lane % 16, k / 8 + lane / 16));
        }
        if constexpr (FACTORS == MIXED) {
#pragma unroll
            for (int half_k = 0; half_k < 2; half_k++) {
                // A thread's two halves of a row are neighbors: their places in the fragments are four apart, in a as in
                // b, which changes nothing but the order of the sum.
                unsigned int wide_a[2][4];
#pragma unroll
                for (int m = 0; m < 2; m++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        half value = {(unsigned short)(a[m][2 * half_k + i % 2] >> i / 2 * 16)};
                        wide_a[m][i] = __float_as_uint(value_of(value));
                    }
                int inner = k + 8 * half_k + lane % 4 * 2;
#pragma unroll
                for (int n = 0; n < 4; n++) {
                    int column = warp_column + 8 * n + lane / 4;
                    unsigned int b[2];
#pragma unroll
                    for (int i = 0; i < 2; i++)
                        b[i] = rounded_to_tf32(
                            load_float(of_b + place_of<16, true>(inner + i, column / 4) + column % 4 * 4));
#pragma unroll
                    for (int m = 0; m < 2; m++) multiply_tf32(sum[m][n], wide_a[m], b);
                }
            }
        } else {
#pragma unroll
            for (int n = 0; n < 4; n += 2) {
                unsigned int b[4];
                load_transposed(b, of_b + place_of<8, false>(k + lane % 16, warp_column / 8 + n + lane / 16));
#pragma unroll
                for (int m = 0; m < 2; m++)
#pragma unroll
                    for (int i = 0; i < 2; i++) multiply_fragments(sum[m][n + i], a[m], &b[2 * i]);
            }
        }
    }
}

// a is (rows, inner), or (inner, rows) for GRAM; b is (inner, columns). Part z of the inner dimension begins at z * part,
// a multiple of TILE_INNER, and its result goes to output + z * rows * columns.
template <Factors FACTORS, class OTHER>
__device__ __forceinline__ void multiply_tiles(const half* a, const OTHER* b, OUTPUT* output, int rows, int columns,
                                         int inner, int part, float factor, int add, const float* bias, int biased,
                                         int rectify) {
    constexpr int A_PIECES = FACTORS == GRAM ? TILE_ROWS / 8 : TILE_INNER / 8;
    constexpr int B_VALUES = PIECE_BYTES / sizeof(OTHER), B_PIECES = TILE_COLUMNS / B_VALUES;
    constexpr int A_BYTES = TILE_ROWS * TILE_INNER * sizeof(half);
    constexpr int STAGE_BYTES = A_BYTES + TILE_COLUMNS * TILE_INNER * sizeof(OTHER);
    int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    int first_row = blockIdx.x * TILE_ROWS, first_column = blockIdx.y * TILE_COLUMNS;
    int begin = blockIdx.z * part, end = begin + part < inner ? begin + part : inner;
    int steps = (end - begin + TILE_INNER - 1) / TILE_INNER;
    unsigned int memory = shared_memory();
    float sum[2][4][4] = {};

    auto fetch = [&](int step, int stage) {
        unsigned int to = memory + stage * STAGE_BYTES;
        int from = begin + step * TILE_INNER;
#pragma unroll
        for (int j = 0; j < A_BYTES / PIECE_BYTES / 256; j++) {
            int row = (thread + 256 * j) / A_PIECES, piece = (thread + 256 * j) % A_PIECES;
            int r = FACTORS == GRAM ? first_row + 8 * piece : first_row + row;
            int k = FACTORS == GRAM ? from + row : from + 8 * piece;
            bool inside = r < rows && k < end;
            long long at = FACTORS == GRAM ? (long long)k * rows + r : (long long)r * inner + k;
            copy_piece(to + place_of<A_PIECES, false>(row, piece), a + (inside ? at : 0), inside);
        }
#pragma unroll
        for (int j = 0; j < TILE_INNER * B_PIECES / 256; j++) {
            int row = (thread + 256 * j) / B_PIECES, piece = (thread + 256 * j) % B_PIECES;
            int k = from + row, column = first_column + B_VALUES * piece;
            bool inside = k < end && column < columns;
            long long at = inside ? (long long)k * columns + column : 0;
            copy_piece(to + A_BYTES + place_of<B_PIECES, FACTORS == MIXED>(row, piece), b + at, inside);
        }
    };

#pragma unroll
    for (int stage = 0; stage < STAGES - 1; stage++) {
        fetch(stage, stage);
        commit_copies();
    }
    int stage = 0, next = STAGES - 1;
#pragma unroll 1
    for (int step = 0; step < steps; step++) {
        await_copies<STAGES - 2>();
        __syncthreads();  // the step's stage is complete, and all have read the last one's, which is filled again
        if (step + STAGES - 1 < steps) fetch(step + STAGES - 1, next);
        commit_copies();
        multiply_step<FACTORS>(sum, memory + stage * STAGE_BYTES, memory + stage * STAGE_BYTES + A_BYTES);
        next = stage;
        stage = stage + 1 == STAGES ? 0 : stage + 1;
    }
    await_copies<0>();

    output += (long long)blockIdx.z * rows * columns;
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int row = first_row + warp / 2 * 32 + 16 * m + lane / 4 + 8 * h;
            if (row >= rows) continue;
#pragma unroll
            for (int n = 0; n < 4; n++) {
                int column = first_column + warp % 2 * 32 + 8 * n + lane % 4 * 2;
                if (column >= columns) continue;
                OUTPUT* target = &output[(long long)row * columns + column];
                float values[2];
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    values[i] = factor * sum[m][n][2 * h + i];
                    if (add) values[i] += value_of(target[i]);
                    if (biased) values[i] += bias[column + i];
                    if (rectify && values[i] <= 0) values[i] = 0;
                }
                put_two(target, values[0], values[1]);
            }
        }
}

extern "C" __global__ void __launch_bounds__(256, 2) gemm_pieces_gram(const half* a, const half* b, OUTPUT* output,
                                                                         int rows, int columns, int inner, int part,
                                                                         float factor, int add, const float* bias,
                                                                         int biased, int rectify) {
    multiply_tiles<GRAM>(a, b, output, rows, columns, inner, part, factor, add, bias, biased, rectify);
}

extern "C" __global__ void __launch_bounds__(256, 2) gemm_pieces_plain(const half* a, const half* b, OUTPUT* output,
                                                                          int rows, int columns, int inner, int part,
                                                                          float factor, int add, const float* bias,
                                                                          int biased, int rectify) {
    multiply_tiles<PLAIN>(a, b, output, rows, columns, inner, part, factor, add, bias, biased, rectify);
}

extern "C" __global__ void __launch_bounds__(256, 2) gemm_pieces_mixed(const half* a, const float* b, OUTPUT* output,
                                                                          int rows, int columns, int inner, int part,
                                                                          float factor, int add, const float* bias,
                                                                          int biased, int rectify) {
    multiply_tiles<MIXED>(a, b, output, rows, columns, inner, part, factor, add, bias, biased, rectify);
}
