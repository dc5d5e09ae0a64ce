// Matrix products of 16-bit factors on the tensor cores of compute capability 8.0 and later, with sums in float32:
// output = factor * a b, or that added to it; bias and rectify as in gemm.cu.
//
// A block of 256 threads owns a tile of TILE_ROWS x TILE_COLUMNS of the result and, where the inner dimension is split
// (blockIdx.z), the sum over one part of it. Its eight warps stand four down and two across; each owns 32 x 32 values,
// as two times four fragments of 16 x 8. The factors go through shared memory, TILE_INNER of the inner dimension at a
// time, both with the inner dimension fastest.
// Source: PTX ISA 8.8, "Matrix Fragments for mma.m16n8k16 with floating point type".

#define TILE_ROWS 128
#define TILE_COLUMNS 64
#define TILE_INNER 32
// Eight more than needed: rows then begin in different banks.
#define ROW (TILE_INNER + 8)
#define A_LOADS (TILE_ROWS * TILE_INNER / 256)
#define B_LOADS (TILE_COLUMNS * TILE_INNER / 256)

// Two neighboring values, of which the first is at an even place.
__device__ __forceinline__ unsigned int pair(const half* values) { return *(const unsigned int*)values; }

// a is (rows, inner), or (inner, rows) where transposed is not 0; b is (inner, columns). Part z of the inner dimension
// begins at z * part and its result goes to output + z * rows * columns.
extern "C" __global__ void __launch_bounds__(256, 2) gemm_half(const half* a, const half* b, OUTPUT* output,
                                                                  int rows, int columns, int inner, int part,
                                                                  int transposed, float factor, int add,
                                                                  const float* bias, int biased, int rectify) {
    __align__(16) __shared__ half a_tile[TILE_ROWS][ROW];
    __align__(16) __shared__ half b_tile[TILE_COLUMNS][ROW];
    int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    int first_row = blockIdx.x * TILE_ROWS, first_column = blockIdx.y * TILE_COLUMNS;
    int begin = blockIdx.z * part, end = begin + part < inner ? begin + part : inner;
    float sum[2][4][4] = {};
    const half zero = {0};

    for (int step = begin; step < end; step += TILE_INNER) {
        __syncthreads();  // all have read the last step's tiles
#pragma unroll 4
        for (int j = 0; j < A_LOADS; j++) {
            // Neighboring threads read neighboring values.
            int e = thread + 256 * j, k = transposed ? e / TILE_ROWS : e % TILE_INNER;
            int row = transposed ? e % TILE_ROWS : e / TILE_INNER;
            bool inside = step + k < end && first_row + row < rows;
            long long at = transposed ? (long long)(step + k) * rows + first_row + row
                                      : (long long)(first_row + row) * inner + step + k;
            a_tile[row][k] = inside ? a[at] : zero;
        }
#pragma unroll 4
        for (int j = 0; j < B_LOADS; j++) {
            int e = thread + 256 * j, k = e / TILE_COLUMNS, column = e % TILE_COLUMNS;
            bool inside = step + k < end && first_column + column < columns;
            b_tile[column][k] = inside ? b[(long long)(step + k) * columns + first_column + column] : zero;
        }
        __syncthreads();  // the tiles are complete
#pragma unroll
        for (int k = 0; k < TILE_INNER; k += 16) {
            unsigned int of_a[2][4], of_b[4][2];
            int inside = k + 2 * (lane % 4);
#pragma unroll
            for (int m = 0; m < 2; m++) {
                int row = 32 * (warp / 2) + 16 * m + lane / 4;
                of_a[m][0] = pair(&a_tile[row][inside]);
                of_a[m][1] = pair(&a_tile[row + 8][inside]);
                of_a[m][2] = pair(&a_tile[row][inside + 8]);
                of_a[m][3] = pair(&a_tile[row + 8][inside + 8]);
            }
#pragma unroll
            for (int n = 0; n < 4; n++) {
                int column = 32 * (warp % 2) + 8 * n + lane / 4;
                of_b[n][0] = pair(&b_tile[column][inside]);
                of_b[n][1] = pair(&b_tile[column][inside + 8]);
            }
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int n = 0; n < 4; n++) multiply_fragments(sum[m][n], of_a[m], of_b[n]);
        }
    }
    output += (long long)blockIdx.z * rows * columns;
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int n = 0; n < 4; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int row = first_row + 32 * (warp / 2) + 16 * m + lane / 4 + 8 * (i / 2);
                int column = first_column + 32 * (warp % 2) + 8 * n + 2 * (lane % 4) + i % 2;
                if (row >= rows || column >= columns) continue;
                OUTPUT* target = &output[(long long)row * columns + column];
                finish(target, factor * sum[m][n][i], add, bias, biased, column, rectify);
            }
}
