// Convolution as an implicit matrix product on the tensor cores of compute capability 8.0 and later: pixels times
// filters, summed over taps and channels, without patches in memory; sums in float32.
//
// A block of 256 threads owns TILE_PIXELS outputs, in the order of memory, times FILTERS filters and, where the inner
// dimension is split (blockIdx.z), the sum over one part of it. A thread fetches one 16-byte piece of the inner
// dimension for two pixels and FILTERS / 64 filters a step, STAGES - 1 steps ahead. A warp owns 32 filters of
// 32 pixels (FILTERS 64) or of 64 (FILTERS 128), as fragments of 16 x 8.
//
// In shared memory a row is a pixel or a filter: STEP_BYTES of the inner dimension in four pieces, exchanged within the
// row so that neither the copies nor ldmatrix, which reads the same piece of eight rows, meet in a bank.

#define TILE_PIXELS 128
#define STEP_BYTES 64
#define PIECE_BYTES 16
#define STEP_PIECES (STEP_BYTES / PIECE_BYTES)
// Rows that are fetched at once, a thread for each of their pieces.
#define ROWS_AT_ONCE (256 / STEP_PIECES)

// Writes two neighboring values of a row of filters, together where they lie so; the second may be beyond the row.
template <class T>
__device__ __forceinline__ void put_neighbors(T* target, const float (&values)[2], int filter, int filters) {
    if (filters % 2 == 0) {
        put_two(target, values[0], values[1]);
        return;
    }
    put(target, values[0]);
    if (filter + 1 < filters) put(target + 1, values[1]);
}

// How factors go to the tensor cores: halves as they are, floats rounded to tf32, or floats as the sum of two of those.
enum Factors { HALF, TF32, SPLIT };

// Adds the products of one step to a warp's sums. of_a and of_b say where this thread's row begins for ldmatrix, in the
// first fragment of each factor and the step's first 32 bytes; in the second 32 the exchanged pieces differ in one bit.
template <Factors FACTORS, int DOWN>
__device__ __forceinline__ void multiply_step(float (&sum)[DOWN][4][4], unsigned int of_a, unsigned int of_b) {
#pragma unroll(FACTORS == SPLIT ? 1 : STEP_BYTES / 32)  // there are no registers for more of them
    for (int k = 0; k < STEP_BYTES / 32; k++) {
        unsigned int a[DOWN][4], low_a[FACTORS == SPLIT ? DOWN : 1][4];
#pragma unroll
        for (int m = 0; m < DOWN; m++) {
            load_matrices(a[m], (of_a ^ 32 * k) + m * 16 * STEP_BYTES);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                if constexpr (FACTORS == TF32) a[m][i] = rounded_to_tf32(__int_as_float(a[m][i]));
                if constexpr (FACTORS == SPLIT) take_apart(a[m][i], low_a[m][i]);
            }
        }
#pragma unroll
        for (int n = 0; n < 4; n += 2) {
            // Two fragments of eight filters.
            unsigned int b[4], low_b[4];
            load_matrices(b, (of_b ^ 32 * k) + n * 8 * STEP_BYTES);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                if constexpr (FACTORS == TF32) b[i] = rounded_to_tf32(__int_as_float(b[i]));
                if constexpr (FACTORS == SPLIT) take_apart(b[i], low_b[i]);
            }
#pragma unroll
            for (int m = 0; m < DOWN; m++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    if constexpr (FACTORS == HALF) multiply_fragments(sum[m][n + i], a[m], &b[2 * i]);
                    if constexpr (FACTORS == TF32) multiply_tf32(sum[m][n + i], a[m], &b[2 * i]);
                    if constexpr (FACTORS == SPLIT)
                        multiply_in_parts(sum[m][n + i], a[m], low_a[m], &b[2 * i], &low_b[2 * i]);
                }
        }
    }
}

// input is (height, width, channels), weight (filters, inner) with the tap before the channel; output is (pixels,
// filters), pixels in rows of columns. channels, inner and part are counted in pieces of 16 bytes. Part z of the inner
// dimension begins at z * part; where there are several, their sums go to parts + z * pixels * filters instead of
// output, in float32 and without bias. Where masked is not 0, a result is 0 where the mask's bit is.
template <Factors FACTORS, int FILTERS, class REAL>
__device__ __forceinline__ void convolve(const REAL* input, const REAL* weight, REAL* output, float* parts, int height,
                                         int width, int channels, int columns, int pixels, int filters,
                                         int kernel_width, int inner, int part, int stride_y, int stride_x,
                                         int dilation_y, int dilation_x, int top, int left, const float* bias,
                                         int biased, int rectify, const unsigned char* mask, int masked) {
    constexpr int STAGES = FILTERS == 64 ? 4 : 3, STAGE_BYTES = (TILE_PIXELS + FILTERS) * STEP_BYTES;
    constexpr int INPUT_BYTES = TILE_PIXELS * STEP_BYTES, INPUT_ROWS = TILE_PIXELS / ROWS_AT_ONCE;
    constexpr int WEIGHT_ROWS = FILTERS / ROWS_AT_ONCE, WARPS_ACROSS = FILTERS / 32;
    constexpr int DOWN = TILE_PIXELS / (8 / WARPS_ACROSS) / 16;
    int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    // Blocks of the same pixels follow each other, so that they find them in the cache.
    int across = (filters + FILTERS - 1) / FILTERS;
    int first_pixel = blockIdx.x / across * TILE_PIXELS, first_filter = blockIdx.x % across * FILTERS;
    int begin = blockIdx.z * part, end = begin + part < inner ? begin + part : inner;
    int steps = (end - begin + STEP_PIECES - 1) / STEP_PIECES;
    unsigned int memory = shared_memory();

    // What this thread fetches: one piece, at the same place of the inner dimension, for each of its rows.
    int piece = thread % STEP_PIECES, row = thread / STEP_PIECES;
    unsigned int target = memory + row * STEP_BYTES + (piece ^ row / 2 % 4) * PIECE_BYTES;
    int y_of[INPUT_ROWS], x_of[INPUT_ROWS];
#pragma unroll
    for (int i = 0; i < INPUT_ROWS; i++) {
        int pixel = first_pixel + row + i * ROWS_AT_ONCE;
        x_of[i] = pixel % columns * stride_x - left;
        // Beyond the last pixel all taps are outside.
        y_of[i] = pixel < pixels ? pixel / columns * stride_y - top : -(1 << 30);
    }
    int place = begin + piece, tap = place / channels, channel = place % channels;
    int down = tap / kernel_width * dilation_y, right = tap % kernel_width * dilation_x;

    auto fetch = [&](int stage) {
        unsigned int to = target + stage * STAGE_BYTES;
        bool more = place < end;
#pragma unroll
        for (int i = 0; i < INPUT_ROWS; i++) {
            // What is negative is large without its sign.
            unsigned int y = y_of[i] + down, x = x_of[i] + right;
            bool inside = more && y < (unsigned int)height && x < (unsigned int)width;
            long long from = inside ? (y * width + x) * channels + channel : 0;
            copy_piece(to + i * ROWS_AT_ONCE * STEP_BYTES, (const char*)input + from * PIECE_BYTES, inside);
        }
#pragma unroll
        for (int i = 0; i < WEIGHT_ROWS; i++) {
            int filter = first_filter + row + i * ROWS_AT_ONCE;
            bool inside = more && filter < filters;
            long long from = inside ? filter * inner + place : 0;
            copy_piece(to + INPUT_BYTES + i * ROWS_AT_ONCE * STEP_BYTES, (const char*)weight + from * PIECE_BYTES,
                       inside);
        }
        place += STEP_PIECES;
        channel += STEP_PIECES;
        while (channel >= channels) {
            channel -= channels;
            right += dilation_x;
            if (right == kernel_width * dilation_x) {
                right = 0;
                down += dilation_y;
            }
        }
    };

    // What this thread gives ldmatrix: rows of a fragment of pixels, 16 and both pieces; of two of filters.
    int warp_row = warp / WARPS_ACROSS * (16 * DOWN), warp_column = warp % WARPS_ACROSS * 32, exchange = lane / 2 % 4;
    unsigned int of_input = (warp_row + lane % 16) * STEP_BYTES + (lane / 16 ^ exchange) * PIECE_BYTES;
    unsigned int of_weight = INPUT_BYTES + (warp_column + lane % 8 + lane / 16 * 8) * STEP_BYTES +
                             (lane / 8 % 2 ^ exchange) * PIECE_BYTES;
    float sum[DOWN][4][4] = {};

#pragma unroll
    for (int stage = 0; stage < STAGES - 1; stage++) {
        fetch(stage);
        commit_copies();
    }
    int stage = 0, next = STAGES - 1;
#pragma unroll 1
    for (int step = 0; step < steps; step++) {
        await_copies<STAGES - 2>();
        __syncthreads();  // the step's stage is complete, and all have read the last one's, which is filled again
        if (step + STAGES - 1 < steps) fetch(next);
        commit_copies();
        unsigned int at = memory + stage * STAGE_BYTES;
        multiply_step<FACTORS, DOWN>(sum, at + of_input, at + of_weight);
        next = stage;
        stage = stage + 1 == STAGES ? 0 : stage + 1;
    }
    await_copies<0>();

#pragma unroll
    for (int n = 0; n < 4; n++) {
        int filter = first_filter + warp_column + 8 * n + lane % 4 * 2;
        if (filter >= filters) continue;
        float added[2] = {biased ? bias[filter] : 0.0f, biased && filter + 1 < filters ? bias[filter + 1] : 0.0f};
#pragma unroll
        for (int m = 0; m < DOWN; m++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                int pixel = first_pixel + warp_row + 16 * m + lane / 4 + 8 * h;
                if (pixel >= pixels) continue;
                float values[2] = {sum[m][n][2 * h], sum[m][n][2 * h + 1]};
                if (gridDim.z > 1) {
                    long long at = ((long long)blockIdx.z * pixels + pixel) * filters + filter;
                    put_neighbors(parts + at, values, filter, filters);
                    continue;
                }
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    values[i] += added[i];
                    values[i] = rectify && values[i] <= 0 ? 0.0f : values[i];
                    if (masked && filter + i < filters && !bit_of(mask, (long long)pixel * filters + filter + i))
                        values[i] = 0;
                }
                put_neighbors(output + (long long)pixel * filters + filter, values, filter, filters);
            }
    }
}

#define ARGUMENTS                                                                                                      \
    input, weight, output, parts, height, width, channels, columns, pixels, filters, kernel_width, inner, part,        \
        stride_y, stride_x, dilation_y, dilation_x, top, left, bias, biased, rectify, mask, masked

extern "C" __global__ void __launch_bounds__(256, 2) implicit_gemm_half_64(
    const half* input, const half* weight, half* output, float* parts, int height, int width, int channels, int columns,
    int pixels, int filters, int kernel_width, int inner, int part, int stride_y, int stride_x, int dilation_y,
    int dilation_x, int top, int left, const float* bias, int biased, int rectify, const unsigned char* mask,
    int masked) {
    convolve<HALF, 64>(ARGUMENTS);
}

extern "C" __global__ void __launch_bounds__(256, 2) implicit_gemm_half_128(
    const half* input, const half* weight, half* output, float* parts, int height, int width, int channels, int columns,
    int pixels, int filters, int kernel_width, int inner, int part, int stride_y, int stride_x, int dilation_y,
    int dilation_x, int top, int left, const float* bias, int biased, int rectify, const unsigned char* mask,
    int masked) {
    convolve<HALF, 128>(ARGUMENTS);
}

extern "C" __global__ void __launch_bounds__(256, 2) implicit_gemm_tf32_64(
    const float* input, const float* weight, float* output, float* parts, int height, int width, int channels,
    int columns, int pixels, int filters, int kernel_width, int inner, int part, int stride_y, int stride_x,
    int dilation_y, int dilation_x, int top, int left, const float* bias, int biased, int rectify,
    const unsigned char* mask, int masked) {
    convolve<TF32, 64>(ARGUMENTS);
}

extern "C" __global__ void __launch_bounds__(256, 2) implicit_gemm_tf32_128(
    const float* input, const float* weight, float* output, float* parts, int height, int width, int channels,
    int columns, int pixels, int filters, int kernel_width, int inner, int part, int stride_y, int stride_x,
    int dilation_y, int dilation_x, int top, int left, const float* bias, int biased, int rectify,
    const unsigned char* mask, int masked) {
    convolve<TF32, 128>(ARGUMENTS);
}

extern "C" __global__ void __launch_bounds__(256, 2) implicit_gemm_split_64(
    const float* input, const float* weight, float* output, float* parts, int height, int width, int channels,
    int columns, int pixels, int filters, int kernel_width, int inner, int part, int stride_y, int stride_x,
    int dilation_y, int dilation_x, int top, int left, const float* bias, int biased, int rectify,
    const unsigned char* mask, int masked) {
    convolve<SPLIT, 64>(ARGUMENTS);
}
