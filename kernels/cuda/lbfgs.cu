// What L-BFGS with bounds needs of the stored vectors: engine/lbfgs.py has the mathematics.
//
// Iterates and gradients are in double precision, stored vectors (rows of one matrix, size values each) in single. A
// block of SUM_THREADS threads owns a strip of STRIP values and leaves one part of each sum; sum_columns adds up the
// parts in the order of the blocks.

#define STRIP 4096

// One thread owns one value.
extern "C" __global__ void line_step(const double* image, const float* direction, double* output, unsigned int count,
                                     double length, double low, double high) {
    unsigned int i = thread_number();
    if (i < count) output[i] = clipped((double)direction[i] * length + image[i], low, high);
}

// Stores step and change of gradient in rows step_row and step_row + 1 (where step_row is not negative) and the
// gradient in gradient_row; notes which values are free to move: those that are not at a bound with the gradient pointing
// outwards. changed is 1 where a value has become free, 255 where it is no longer, else 0. Each block leaves three
// parts: <old gradient, step>, <new gradient, step> and the largest element of the projected gradient.
extern "C" __global__ void lbfgs_store(const double* image, const double* gradient, const double* old_image,
                                       const double* old_gradient, float* vectors, const unsigned char* old_free,
                                       unsigned char* free, unsigned char* changed, double* parts, unsigned int size,
                                       int step_row, int gradient_row, double low, double high) {
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
        changed[i] = is_free - old_free[i];
        free[i] = is_free;
        vectors[(long long)gradient_row * size + i] = (float)g;
        if (step_row >= 0) {
            vectors[(long long)step_row * size + i] = (float)step;
            vectors[(long long)(step_row + 1) * size + i] = (float)(g - old_gradient[i]);
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

// Inner products of the newest pair and the gradient with every one of the listed rows. Each block leaves, for each
// listed row r, five parts: <s, r> and <y, r> over all values, <s, r>, <y, r> and <g, r> over the free ones.
extern "C" __global__ void lbfgs_products(const float* vectors, const int* listed, const unsigned char* free,
                                          double* parts, unsigned int size, int rows, int step_row,
                                          int gradient_row) {
    __shared__ double sums[5][SUM_THREADS];
    unsigned int begin = blockIdx.x * STRIP, end = begin + STRIP < size ? begin + STRIP : size;
    for (int r = 0; r < rows; r++) {
        const float* row = vectors + (long long)listed[r] * size;
        const float* s = vectors + (long long)(step_row < 0 ? gradient_row : step_row) * size;
        const float* y = vectors + (long long)(step_row < 0 ? gradient_row : step_row + 1) * size;
        const float* g = vectors + (long long)gradient_row * size;
        double of_s = 0, of_y = 0, free_s = 0, free_y = 0, free_g = 0;
        for (unsigned int i = begin + threadIdx.x; i < end; i += SUM_THREADS) {
            // A product of two floats is exact in double precision.
            double value = row[i], by_s = value * s[i], by_y = value * y[i];
            of_s += by_s;
            of_y += by_y;
            if (free[i]) {
                free_s += by_s;
                free_y += by_y;
                free_g += value * g[i];
            }
        }
        sums[0][threadIdx.x] = of_s;
        sums[1][threadIdx.x] = of_y;
        sums[2][threadIdx.x] = free_s;
        sums[3][threadIdx.x] = free_y;
        sums[4][threadIdx.x] = free_g;
        __syncthreads();
        for (int reach = SUM_THREADS / 2; reach > 0; reach /= 2) {
            if (threadIdx.x < reach)
                for (int k = 0; k < 5; k++) sums[k][threadIdx.x] += sums[k][threadIdx.x + reach];
            __syncthreads();
        }
        if (threadIdx.x < 5) parts[((long long)blockIdx.x * rows + r) * 5 + threadIdx.x] = sums[threadIdx.x][0];
        __syncthreads();  // the next row overwrites the sums
    }
}

// By how much the inner products over the free values change, for every two of the listed rows, because some values
// have become free or no longer are. A thread owns some of the block's rows * rows parts.
extern "C" __global__ void lbfgs_changed(const float* vectors, const int* listed, const unsigned char* changed,
                                         double* parts, unsigned int size, int rows) {
    __shared__ unsigned char flags[STRIP];
    unsigned int begin = blockIdx.x * STRIP;
    int count = begin + STRIP < size ? STRIP : size - begin;
    double any = 0;
    for (int i = threadIdx.x; i < count; i += SUM_THREADS) {
        flags[i] = changed[begin + i];
        any += flags[i] != 0;
    }
    any = block_sum(any);  // its barriers complete the flags, too
    for (int pair = threadIdx.x; pair < rows * rows; pair += SUM_THREADS) {
        const float* a = vectors + (long long)listed[pair / rows] * size + begin;
        const float* b = vectors + (long long)listed[pair % rows] * size + begin;
        double sum = 0;
        if (any > 0)
            for (int i = 0; i < count; i++)
                if (flags[i]) sum += (flags[i] == 1 ? 1.0 : -1.0) * a[i] * b[i];
        parts[(long long)blockIdx.x * rows * rows + pair] = sum;
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

// The direction: a combination of the rows where values are free, 0 elsewhere. A row whose coefficient is 0 may hold
// anything. One thread owns one value.
extern "C" __global__ void lbfgs_direction(const float* vectors, const float* coefficients, const unsigned char* free,
                                           float* direction, unsigned int size, int rows) {
    unsigned int i = thread_number();
    if (i >= size) return;
    float sum = 0;
    if (free[i])
        for (int r = 0; r < rows; r++)
            if (coefficients[r] != 0) sum += coefficients[r] * vectors[(long long)r * size + i];
    direction[i] = sum;
}
