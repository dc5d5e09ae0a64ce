// Matrix products of float32 whose rows are whole pieces of 16 bytes, on the tensor cores of compute capability 8.0 and
// later: each number is the sum of a high and a low part in tf32, three products of which leave an error near float32's
// own; sums in float32. Bias and rectify as in gemm.cu.
//
// A block of 256 threads owns a tile of TILE_ROWS x TILE_COLUMNS of the result and, where the inner dimension is split
// (blockIdx.z), the sum over one part of it. Its eight warps stand four down and two across; each owns 32 x 32 values,
// as two times four fragments of 16 x 8. TILE_INNER of the inner dimension are fetched a step, STAGES - 1 steps ahead.
//
// A tile lies in shared memory as its factor does in memory: rows of 64 bytes (a, four pieces of the inner dimension),
// 256 (b) or 512 (a transposed), the row then being one value of the inner dimension. The pieces of a row are exchanged
// so that what a warp reads at once does not meet in a bank.

#define TILE_ROWS 128
#define TILE_COLUMNS 64
#define TILE_INNER 16
#define STAGES 3
#define PIECE_BYTES 16

// Where a piece lies in a tile of rows of PIECES pieces. Of four, eight rows are read at the same piece; of more, four
// rows at the same two.
template <int PIECES>
__device__ __forceinline__ unsigned int place_of(int row, int piece) {
    int exchange = PIECES == 4 ? row / 2 % 4 : row % 4 * 2;
    return row * PIECES * PIECE_BYTES + (piece ^ exchange) * PIECE_BYTES;
}

// The bits of one number of a tile whose rows are the inner dimension.
template <int PIECES>
__device__ __forceinline__ unsigned int number_at(unsigned int tile, int inner, int column) {
    return __float_as_uint(load_float(tile + place_of<PIECES>(inner, column / 4) + column % 4 * 4));
}

// Adds the products of one step to a warp's sums, the tiles of a and b being at these addresses.
template <bool TRANSPOSED>
__device__ __forceinline__ void multiply_step(float (&sum)[2][4][4], unsigned int of_a, unsigned int of_b) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warp_row = warp / 2 * 32, warp_column = warp % 2 * 32;
#pragma unroll 1  // there are no registers for more of them
    for (int k = 0; k < TILE_INNER; k += 8) {
        unsigned int a[2][4], low_a[2][4];
#pragma unroll
        for (int m = 0; m < 2; m++) {
            int row = warp_row + 16 * m;
            if constexpr (!TRANSPOSED) load_matrices(a[m], of_a + place_of<4>(row + lane % 16, k / 4 + lane / 16));
#pragma unroll
            for (int i = 0; i < 4; i++) {
                if constexpr (TRANSPOSED)
                    a[m][i] = number_at<TILE_ROWS / 4>(of_a, k + lane % 4 + i / 2 * 4, row + lane / 4 + i % 2 * 8);
                take_apart(a[m][i], low_a[m][i]);
            }
        }
#pragma unroll
        for (int n = 0; n < 4; n++) {
            unsigned int b[2], low_b[2];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                b[i] = number_at<TILE_COLUMNS / 4>(of_b, k + lane % 4 + 4 * i, warp_column + 8 * n + lane / 4);
                take_apart(b[i], low_b[i]);
            }
#pragma unroll
            for (int m = 0; m < 2; m++) multiply_in_parts(sum[m][n], a[m], low_a[m], b, low_b);
        }
    }
}

// a is (rows, inner), or (inner, rows) if TRANSPOSED; b is (inner, columns). Part z of the inner dimension begins at
// z * part, a multiple of TILE_INNER, and its result goes to output + z * rows * columns.
template <bool TRANSPOSED>
__device__ __forceinline__ void multiply_tiles(const float* a, const float* b, float* output, int rows, int columns,
                                         int inner, int part, float factor, int add, const float* bias, int biased,
                                         int rectify) {
    constexpr int A_PIECES = (TRANSPOSED ? TILE_ROWS : TILE_INNER) / 4, B_PIECES = TILE_COLUMNS / 4;
    constexpr int A_BYTES = TILE_ROWS * TILE_INNER * sizeof(float);
    constexpr int STAGE_BYTES = A_BYTES + TILE_COLUMNS * TILE_INNER * sizeof(float);
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
            int r = TRANSPOSED ? first_row + 4 * piece : first_row + row;
            int k = TRANSPOSED ? from + row : from + 4 * piece;
            bool inside = r < rows && k < end;
            long long at = TRANSPOSED ? (long long)k * rows + r : (long long)r * inner + k;
            copy_piece(to + place_of<A_PIECES>(row, piece), a + (inside ? at : 0), inside);
        }
        int row = thread / B_PIECES, piece = thread % B_PIECES, k = from + row, column = first_column + 4 * piece;
        bool inside = k < end && column < columns;
        copy_piece(to + A_BYTES + place_of<B_PIECES>(row, piece), b + (inside ? (long long)k * columns + column : 0),
                   inside);
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
        multiply_step<TRANSPOSED>(sum, memory + stage * STAGE_BYTES, memory + stage * STAGE_BYTES + A_BYTES);
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
                float* target = &output[(long long)row * columns + column];
                float values[2];
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    values[i] = factor * sum[m][n][2 * h + i];
                    if (add) values[i] += target[i];
                    if (biased) values[i] += bias[column + i];
                    if (rectify && values[i] <= 0) values[i] = 0;
                }
                put_two(target, values[0], values[1]);
            }
        }
}

extern "C" __global__ void __launch_bounds__(256, 2) gemm_split_gram(const float* a, const float* b, float* output,
                                                                        int rows, int columns, int inner, int part,
                                                                        float factor, int add, const float* bias,
                                                                        int biased, int rectify) {
    multiply_tiles<true>(a, b, output, rows, columns, inner, part, factor, add, bias, biased, rectify);
}

extern "C" __global__ void __launch_bounds__(256, 2) gemm_split_plain(const float* a, const float* b, float* output,
                                                                         int rows, int columns, int inner, int part,
                                                                         float factor, int add, const float* bias,
                                                                         int biased, int rectify) {
    multiply_tiles<false>(a, b, output, rows, columns, inner, part, factor, add, bias, biased, rectify);
}
