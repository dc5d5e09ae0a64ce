// Total variation of an image (height, width, channels), in double precision: kernels/cpu/variation.py has the formulas.
//
// The sum is taken as those of reductions.cu; of the gradient, one thread owns one value.

// The step from a value to the one below it, or to its right: behind the last, to the first, or 0 without wrap.
__device__ __forceinline__ double step_down(const double* image, unsigned int i, int y, int height, int row, int wrap) {
    if (y + 1 < height) return image[i + row] - image[i];
    return wrap ? image[i - (unsigned int)y * row] - image[i] : 0.0;
}

__device__ __forceinline__ double step_along(const double* image, unsigned int i, int x, int width, int channels,
                                             int wrap) {
    if (x + 1 < width) return image[i + channels] - image[i];
    return wrap ? image[i - (unsigned int)x * channels] - image[i] : 0.0;
}

// What both steps of a value are divided by in the derivative.
__device__ __forceinline__ double length_of(double down, double along, int squared, double epsilon) {
    return squared ? 1.0 : sqrt(down * down + along * along + epsilon * epsilon);
}

extern "C" __global__ void variation(const double* image, double* parts, int height, int width, int channels,
                                     int wrap, int squared, double epsilon) {
    unsigned int count = (unsigned int)height * width * channels;
    int row = width * channels;
    double sum = 0;
    for (unsigned int i = thread_number(); i < count; i += gridDim.x * blockDim.x) {
        double down = step_down(image, i, i / row, height, row, wrap);
        double along = step_along(image, i, i % row / channels, width, channels, wrap);
        double squares = down * down + along * along;
        sum += squared ? squares / 2 : sqrt(squares + epsilon * epsilon) - epsilon;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

extern "C" __global__ void variation_gradient(const double* image, double* gradient, int height, int width,
                                              int channels, int wrap, int squared, double epsilon, double factor,
                                              int add) {
    unsigned int i = thread_number();
    int row = width * channels;
    if (i >= (unsigned int)height * row) return;
    int y = i / row, x = i % row / channels;
    double down = step_down(image, i, y, height, row, wrap);
    double along = step_along(image, i, x, width, channels, wrap);
    double sum = -(down + along) / length_of(down, along, squared, epsilon);
    if (x > 0 || wrap) {
        int before = x > 0 ? x - 1 : width - 1;
        unsigned int left = i + (before - x) * channels;
        double below = step_down(image, left, y, height, row, wrap);
        double here = step_along(image, left, before, width, channels, wrap);
        sum += here / length_of(below, here, squared, epsilon);
    }
    if (y > 0 || wrap) {
        int before = y > 0 ? y - 1 : height - 1;
        unsigned int above = i + (before - y) * row;
        double here = step_down(image, above, before, height, row, wrap);
        double beside = step_along(image, above, x, width, channels, wrap);
        sum += here / length_of(here, beside, squared, epsilon);
    }
    gradient[i] = factor * sum + (add ? gradient[i] : 0.0);
}
