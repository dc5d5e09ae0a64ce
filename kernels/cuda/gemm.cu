// Matrix products in single precision: output = factor * a b, or that added to it; then, where asked to, a bias is added
// to each column and what is negative is cut off.
//
// A block of 256 threads owns a tile of TILE_ROWS x TILE_COLUMNS of the result and, where the inner dimension is split
// (blockIdx.z), the sum over one part of it; a thread owns 8 x 4 values of the tile, in registers. The factors go
// through shared memory, TILE_INNER columns of a and rows of b at a time, while those of the next step are on the way.
// Parts are added up by sum_of_parts, always in the same order.

#define TILE_ROWS 128
#define TILE_COLUMNS 64
#define TILE_INNER 16
#define OWN_ROWS 8
#define OWN_COLUMNS 4
#define A_LOADS (TILE_ROWS * TILE_INNER / 256)
#define B_LOADS (TILE_COLUMNS * TILE_INNER / 256)

// a is (rows, inner), or (inner, rows) where transposed is not 0; b is (inner, columns). Part z of the inner dimension
// begins at z * part and its result goes to output + z * rows * columns.
extern "C" __global__ void __launch_bounds__(256) gemm(const REAL* a, const OTHER* b, OUTPUT* output, int rows,
                                                          int columns, int inner, int part, int transposed,
                                                          float factor, int add, const float* bias, int biased,
                                                          int rectify) {
    // A row of a_tile is a column of a; four floats more than it needs keep the stores below out of one bank.
    __shared__ float a_tile[TILE_INNER][TILE_ROWS + 4];
    __shared__ float b_tile[TILE_INNER][TILE_COLUMNS];
    int thread = threadIdx.x, across = thread % 16, down = thread / 16;
    int first_row = blockIdx.x * TILE_ROWS, first_column = blockIdx.y * TILE_COLUMNS;
    int begin = blockIdx.z * part, end = begin + part < inner ? begin + part : inner;
    float sum[OWN_ROWS][OWN_COLUMNS] = {};
    float next_a[A_LOADS], next_b[B_LOADS];

    for (int step = begin - TILE_INNER; step < end; step += TILE_INNER) {
        int next = step + TILE_INNER;
#pragma unroll
        for (int j = 0; j < A_LOADS; j++) {
            int e = thread + 256 * j;
            // Neighboring threads read neighboring values of a.
            int k = next + (transposed ? e / TILE_ROWS : e % TILE_INNER);
            int row = first_row + (transposed ? e % TILE_ROWS : e / TILE_INNER);
            long long at = transposed ? (long long)k * rows + row : (long long)row * inner + k;
            next_a[j] = k < end && row < rows ? value_of(a[at]) : 0.0f;
        }
#pragma unroll
        for (int j = 0; j < B_LOADS; j++) {
            int e = thread + 256 * j, k = next + e / TILE_COLUMNS, column = first_column + e % TILE_COLUMNS;
            next_b[j] = k < end && column < columns ? value_of(b[(long long)k * columns + column]) : 0.0f;
        }
        if (step >= begin) {
#pragma unroll
            for (int k = 0; k < TILE_INNER; k++) {
                float of_a[OWN_ROWS], of_b[OWN_COLUMNS];
#pragma unroll
                for (int i = 0; i < OWN_ROWS; i++) of_a[i] = a_tile[k][down * OWN_ROWS + i];
#pragma unroll
                for (int j = 0; j < OWN_COLUMNS; j++) of_b[j] = b_tile[k][across * OWN_COLUMNS + j];
#pragma unroll
                for (int i = 0; i < OWN_ROWS; i++)
#pragma unroll
                    for (int j = 0; j < OWN_COLUMNS; j++) sum[i][j] += of_a[i] * of_b[j];
            }
        }
        __syncthreads();  // all have read the tiles
#pragma unroll
        for (int j = 0; j < A_LOADS; j++) {
            int e = thread + 256 * j;
            a_tile[transposed ? e / TILE_ROWS : e % TILE_INNER][transposed ? e % TILE_ROWS : e / TILE_INNER] =
                next_a[j];
        }
#pragma unroll
        for (int j = 0; j < B_LOADS; j++) {
            int e = thread + 256 * j;
            b_tile[e / TILE_COLUMNS][e % TILE_COLUMNS] = next_b[j];
        }
        __syncthreads();  // the tiles are complete
    }
    output += (long long)blockIdx.z * rows * columns;
#pragma unroll
    for (int i = 0; i < OWN_ROWS; i++)
#pragma unroll
        for (int j = 0; j < OWN_COLUMNS; j++) {
            int row = first_row + down * OWN_ROWS + i, column = first_column + across * OWN_COLUMNS + j;
            if (row >= rows || column >= columns) continue;
            OUTPUT* target = &output[(long long)row * columns + column];
            finish(target, factor * sum[i][j], add, bias, biased, column, rectify);
        }
}

// One thread owns one value: output = factor * (the sum of its parts), or that added to it, and bias and rectify; 0 where
// masked is not 0 and the mask's bit is.
extern "C" __global__ void sum_of_parts(const float* parts, OUTPUT* output, unsigned int count, int columns,
                                        int splits, float factor, int add, const float* bias, int biased,
                                        int rectify, const unsigned char* mask, int masked) {
    unsigned int i = thread_number();
    if (i >= count) return;
    if (masked && !bit_of(mask, i)) {
        put(&output[i], 0.0f);
        return;
    }
    double sum = 0;
    for (int split = 0; split < splits; split++) sum += parts[(long long)split * count + i];
    finish(&output[i], factor * (float)sum, add, bias, biased, i % columns, rectify);
}
