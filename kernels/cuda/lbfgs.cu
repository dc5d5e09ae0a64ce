// What L-BFGS with bounds needs of the stored vectors: engine/lbfgs.py has the mathematics.
//
// Iterates and gradients are in double precision, stored vectors (rows of one matrix, length values each) in single. A
// row holds a vector's size values and then those of its grids' nodes: see kernels/grids.py. A thread block of SUM_THREADS
// threads owns a strip of STRIP values and leaves one part of each sum; sum_columns adds up the parts in the order of the
// thread blocks.

#define STRIP 4096

// One thread owns one value.
extern "C" __global__ void line_step(const double* image, const float* direction, double* output, unsigned int count,
                                     double length, double low, double high) {
    unsigned int i = thread_number();
    if (i < count) output[i] = clipped((double)direction[i] * length + image[i], low, high);
}

// Stores step and change of gradient in rows step_row and step_row + 1 (where step_row is not negative), and in
// gradient_row the gradient of the values that are free to move: those that are not at a bound with the gradient pointing
// outwards. Each thread block leaves three parts: <old gradient, step>, <new gradient, step> and the largest element of the
// projected gradient.
extern "C" __global__ void lbfgs_store(const double* image, const double* gradient, const double* old_image,
                                       const double* old_gradient, float* vectors, unsigned char* free, double* parts,
                                       unsigned int size, unsigned int length, int step_row, int gradient_row,
                                       double low, double high) {
    __shared__ double largest[SUM_THREADS];
    double falls = 0, slope = 0, most = 0;
    for (unsigned int i = blockIdx.x * STRIP + threadIdx.x; i < size && i < (blockIdx.x + 1) * STRIP; i += SUM_THREADS) {
        double x = image[i], g = gradient[i], step = x - old_image[i];
        falls += old_gradient[i] * step;
        slope += g * step;
        double moved = clipped(x - g, low, high) - x;
        double size_of_move = moved < 0 ? -moved : moved;
        if (size_of_move > most) most = size_of_move;
        unsigned char is_free = moved != 0;
        free[i] = is_free;
        vectors[(long long)gradient_row * length + i] = is_free ? (float)g : 0;
        if (step_row >= 0) {
            vectors[(long long)step_row * length + i] = (float)step;
            vectors[(long long)(step_row + 1) * length + i] = (float)(g - old_gradient[i]);
        }
    }
    falls = block_sum(falls);
    slope = block_sum(slope);
    largest[threadIdx.x] = most;
    __syncthreads();
    for (int reach = SUM_THREADS / 2; reach > 0; reach /= 2) {
        if (threadIdx.x < reach && largest[threadIdx.x + reach] > largest[threadIdx.x])
            largest[threadIdx.x] = largest[threadIdx.x + reach];
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        double* part = parts + 3 * blockIdx.x;
        part[0] = falls;
        part[1] = slope;
        part[2] = largest[0];
    }
}

// How many nodes of a grid lie along a row of pixels.
static __device__ int nodes_along(int length, int side) { return (length - 2 + side) / side + 1; }

// A node's hat at some distance from it.
static __device__ float hat(int distance, int side) {
    return 1 - (float)(distance < 0 ? -distance : distance) / side;
}

// The sum of a node's hat along a row of pixels.
static __device__ float sum_of_hat(int node, int length, int side) {
    float sum = 0;
    for (int distance = 1 - side; distance < side; distance++)
        if (node * side + distance >= 0 && node * side + distance < length) sum += hat(distance, side);
    return sum;
}

static __device__ float root_of_hat(int y, int x, int height, int width, int side) {
    return sqrtf(sum_of_hat(y, height, side) * sum_of_hat(x, width, side));
}

// What lies between a grid's nodes, interpolated: across of them stand side by side, step places apart.
static __device__ float between(const float* nodes, int y, int x, int step, int across, int channels, int c) {
    float sum = 0;
    for (int node_y = y / step; node_y * step < y + step; node_y++)
        for (int node_x = x / step; node_x * step < x + step; node_x++)
            sum += hat(node_y * step - y, step) * hat(node_x * step - x, step) *
                   nodes[(node_y * across + node_x) * channels + c];
    return sum;
}

// The values of one grid's nodes, of the step, the change of the gradient and the gradient (of the gradient alone where
// step_row is negative), from those of the level below: a node's value is the sum under its hat by the root of the hat's
// own sum. One thread owns one value.
extern "C" __global__ void fill_nodes(float* vectors, unsigned int below_start, unsigned int start,
                                      unsigned int values, unsigned int length, int height, int width, int channels,
                                      int below_side, int side, int step_row, int gradient_row) {
    unsigned int i = thread_number();
    if (i >= 3 * values || (step_row < 0 && i < 2 * values)) return;
    int which = i / values, value = i % values;
    float* row = vectors + (long long)(which == 2 ? gradient_row : step_row + which) * length;
    int across = nodes_along(width, side), below_across = nodes_along(width, below_side);
    int below_down = nodes_along(height, below_side), times = side / below_side;
    int c = value % channels, x = value / channels % across, y = value / channels / across;
    float sum = 0;
    for (int yy = y * times - times + 1; yy < (y + 1) * times; yy++)
        for (int xx = x * times - times + 1; xx < (x + 1) * times; xx++)
            if (yy >= 0 && yy < below_down && xx >= 0 && xx < below_across)
                sum += hat(yy - y * times, times) * hat(xx - x * times, times) *
                       root_of_hat(yy, xx, height, width, below_side) *
                       row[below_start + (yy * below_across + xx) * channels + c];
    row[start + value] = sum / root_of_hat(y, x, height, width, side);
}

// Inner products of the newest pair and the gradient with every one of the listed rows, in the level of values that
// begins at start. Each thread block leaves, for each listed row r, three parts: of <s, r>, <y, r> and <g, r>.
extern "C" __global__ void lbfgs_products(const float* vectors, const int* listed, double* parts, unsigned int start,
                                          unsigned int values, unsigned int length, int rows, int step_row,
                                          int gradient_row) {
    __shared__ double sums[3][SUM_THREADS];
    unsigned int begin = blockIdx.x * STRIP, end = begin + STRIP < values ? begin + STRIP : values;
    for (int r = 0; r < rows; r++) {
        const float* row = vectors + (long long)listed[r] * length + start;
        const float* s = vectors + (long long)(step_row < 0 ? gradient_row : step_row) * length + start;
        const float* y = vectors + (long long)(step_row < 0 ? gradient_row : step_row + 1) * length + start;
        const float* g = vectors + (long long)gradient_row * length + start;
        double of_s = 0, of_y = 0, of_g = 0;
        for (unsigned int i = begin + threadIdx.x; i < end; i += SUM_THREADS) {
            double value = row[i];  // a product of two floats is exact in double precision
            of_s += value * s[i];
            of_y += value * y[i];
            of_g += value * g[i];
        }
        sums[0][threadIdx.x] = of_s;
        sums[1][threadIdx.x] = of_y;
        sums[2][threadIdx.x] = of_g;
        __syncthreads();
        for (int reach = SUM_THREADS / 2; reach > 0; reach /= 2) {
            if (threadIdx.x < reach)
                for (int k = 0; k < 3; k++) sums[k][threadIdx.x] += sums[k][threadIdx.x + reach];
            __syncthreads();
        }
        if (threadIdx.x < 3) parts[((long long)blockIdx.x * rows + r) * 3 + threadIdx.x] = sums[threadIdx.x][0];
        __syncthreads();  // the next row overwrites the sums
    }
}

// One thread owns one column: the sum over the blocks' parts, or where by_size is not 0 the largest of them in every
// third column.
extern "C" __global__ void sum_columns(const double* parts, double* output, unsigned int columns, int blocks,
                                       int by_size) {
    unsigned int column = thread_number();
    if (column >= columns) return;
    double result = 0;
    for (int block = 0; block < blocks; block++) {
        double part = parts[(long long)block * columns + column];
        if (by_size && column % 3 == 2)
            result = part > result ? part : result;
        else
            result += part;
    }
    output[column] = result;
}

// The value at one place of the rows, times their factors. A row whose factor is 0 may hold anything.
static __device__ float combination(const float* vectors, const float* factors, int rows, unsigned int length,
                                    unsigned int place) {
    float sum = 0;
    for (int r = 0; r < rows; r++)
        if (factors[r] != 0) sum += factors[r] * vectors[(long long)r * length + place];
    return sum;
}

// The means under the hats of one grid, of a combination of the rows, and on them what the larger grids have between
// their nodes, where larger_side is not 0. One thread owns one value.
extern "C" __global__ void means_at_nodes(const float* vectors, const float* factors, int rows, unsigned int length,
                                          const float* larger, float* means, unsigned int start, unsigned int values,
                                          int level, int height, int width, int channels, int side,
                                          int larger_side) {
    unsigned int i = thread_number();
    if (i >= values) return;
    int across = nodes_along(width, side), c = i % channels, x = i / channels % across, y = i / channels / across;
    float mean = combination(vectors, factors + (long long)level * rows, rows, length, start + i) /
                 root_of_hat(y, x, height, width, side);
    if (larger_side > 0)
        mean += between(larger, y, x, larger_side / side, nodes_along(width, larger_side), channels, c);
    means[i] = mean;
}

// The direction: a combination of the rows, and what lies between the nodes where side is not 0, where values are free; 0
// elsewhere. One thread owns one value.
extern "C" __global__ void lbfgs_direction(const float* vectors, const float* factors, int rows, unsigned int length,
                                           const float* means, const unsigned char* free, float* direction,
                                           unsigned int size, int width, int channels, int side) {
    unsigned int i = thread_number();
    if (i >= size) return;
    float sum = 0;
    if (free[i]) {
        sum = combination(vectors, factors, rows, length, i);
        if (side > 0) {
            unsigned int c = i % channels, x = i / channels % width, y = i / channels / width;
            sum += between(means, y, x, side, nodes_along(width, side), channels, c);
        }
    }
    direction[i] = sum;
}
