// Average and maximum over a sliding window, and their input gradients; channels last.
//
// One thread owns one value of the result, channel fastest, then column, then row. Gradients are gathered: the owner of
// an input value adds up what the outputs that read it send, tap by tap, so that no two threads write to one place and
// the order of the additions is always the same.

// How many of a window's taps along one axis lie in [low, high); from is where its first tap lies.
__device__ __forceinline__ int taps_inside(int from, int kernel, int dilation, int low, int high) {
    int inside = 0;
    for (int k = 0; k < kernel; k++) {
        int position = from + k * dilation;
        inside += position >= low && position < high;
    }
    return inside;
}

// 1 / (values that count in the window of output (y, x)). The window counts padding as far as the border reaches.
__device__ __forceinline__ float mean_weight(int y, int x, int height, int width, int kernel_height, int kernel_width,
                                             int stride_y, int stride_x, int dilation_y, int dilation_x, int top,
                                             int left, int border_top, int border_left, int border_bottom,
                                             int border_right) {
    int down = taps_inside(y * stride_y - top, kernel_height, dilation_y, -border_top, height + border_bottom);
    int across = taps_inside(x * stride_x - left, kernel_width, dilation_x, -border_left, width + border_right);
    int counted = down * across;
    return 1.0f / (counted > 0 ? counted : 1);
}

extern "C" __global__ void average_pool(const REAL* input, REAL* output, int height, int width, int channels, int rows,
                                        int columns, int kernel_height, int kernel_width, int stride_y, int stride_x,
                                        int dilation_y, int dilation_x, int top, int left, int border_top,
                                        int border_left, int border_bottom, int border_right) {
    unsigned int i = thread_number();
    if (i >= (long long)rows * columns * channels) return;
    int c = i % channels, x = i / channels % columns, y = i / channels / columns;
    float sum = 0;
    for (int ky = 0; ky < kernel_height; ky++)
        for (int kx = 0; kx < kernel_width; kx++) {
            int v = y * stride_y + ky * dilation_y - top, u = x * stride_x + kx * dilation_x - left;
            if (v >= 0 && v < height && u >= 0 && u < width)
                sum += value_of(input[((long long)v * width + u) * channels + c]);
        }
    put(&output[i], sum * mean_weight(y, x, height, width, kernel_height, kernel_width, stride_y, stride_x, dilation_y,
                                      dilation_x, top, left, border_top, border_left, border_bottom, border_right));
}

extern "C" __global__ void average_pool_input_gradient(const REAL* output_gradient, REAL* gradient, int height,
                                                       int width, int channels, int rows, int columns,
                                                       int kernel_height, int kernel_width, int stride_y, int stride_x,
                                                       int dilation_y, int dilation_x, int top, int left,
                                                       int border_top, int border_left, int border_bottom,
                                                       int border_right) {
    unsigned int i = thread_number();
    if (i >= (long long)height * width * channels) return;
    int c = i % channels, u = i / channels % width, v = i / channels / width;
    float sum = 0;
    for (int ky = 0; ky < kernel_height; ky++)
        for (int kx = 0; kx < kernel_width; kx++) {
            int down = v + top - ky * dilation_y, across = u + left - kx * dilation_x;
            if (down < 0 || across < 0 || down % stride_y || across % stride_x) continue;
            int y = down / stride_y, x = across / stride_x;
            if (y >= rows || x >= columns) continue;
            sum += value_of(output_gradient[((long long)y * columns + x) * channels + c]) *
                   mean_weight(y, x, height, width, kernel_height, kernel_width, stride_y, stride_x, dilation_y,
                               dilation_x, top, left, border_top, border_left, border_bottom, border_right);
        }
    put(&gradient[i], sum);
}

// Windows side by side, of a ReLU's output: signs gets, for each of them, a bit for every tap that is positive.
extern "C" __global__ void average_pool_of_relu(const REAL* input, REAL* output, unsigned char* signs, int width,
                                                int rows, int columns, int channels, int kernel_height,
                                                int kernel_width) {
    unsigned int i = thread_number();
    if (i >= (long long)rows * columns * channels) return;
    int c = i % channels, x = i / channels % columns, y = i / channels / columns;
    float sum = 0;
    int bits = 0;
    for (int ky = 0; ky < kernel_height; ky++)
        for (int kx = 0; kx < kernel_width; kx++) {
            long long at = (long long)(y * kernel_height + ky) * width + x * kernel_width + kx;
            float value = value_of(input[at * channels + c]);
            sum += value;
            if (value > 0) bits |= 1 << (ky * kernel_width + kx);
        }
    put(&output[i], sum * (1.0f / (kernel_height * kernel_width)));
    signs[i] = bits;
}

// Back through both: what no window covers, and what was not positive, gets nothing.
extern "C" __global__ void average_pool_of_relu_input_gradient(const REAL* output_gradient, const unsigned char* signs,
                                                               REAL* gradient, int height, int width, int channels,
                                                               int rows, int columns, int kernel_height,
                                                               int kernel_width) {
    unsigned int i = thread_number();
    if (i >= (long long)height * width * channels) return;
    int c = i % channels, u = i / channels % width, v = i / channels / width;
    int y = v / kernel_height, x = u / kernel_width;
    float value = 0;
    if (y < rows && x < columns) {
        long long o = ((long long)y * columns + x) * channels + c;
        if (signs[o] >> (v % kernel_height * kernel_width + u % kernel_width) & 1)
            value = value_of(output_gradient[o]) * (1.0f / (kernel_height * kernel_width));
    }
    put(&gradient[i], value);
}

// The first of equal taps wins, and not-a-number over all. A window of padding only gives minus infinity.
extern "C" __global__ void max_pool(const REAL* input, REAL* output, TAP* winners, int height, int width, int channels,
                                    int rows, int columns, int kernel_height, int kernel_width, int stride_y,
                                    int stride_x, int dilation_y, int dilation_x, int top, int left) {
    unsigned int i = thread_number();
    if (i >= (long long)rows * columns * channels) return;
    int c = i % channels, x = i / channels % columns, y = i / channels / columns;
    float best = -__int_as_float(0x7f800000);
    int winner = 0;
    for (int ky = 0; ky < kernel_height; ky++)
        for (int kx = 0; kx < kernel_width; kx++) {
            int v = y * stride_y + ky * dilation_y - top, u = x * stride_x + kx * dilation_x - left;
            if (v < 0 || v >= height || u < 0 || u >= width) continue;
            float candidate = value_of(input[((long long)v * width + u) * channels + c]);
            if (!(candidate <= best) && best == best) {
                best = candidate;
                winner = ky * kernel_width + kx;
            }
        }
    put(&output[i], best);
    winners[i] = winner;
}

extern "C" __global__ void max_pool_input_gradient(const REAL* output_gradient, const TAP* winners, REAL* gradient,
                                                   int height, int width, int channels, int rows, int columns,
                                                   int kernel_height, int kernel_width, int stride_y, int stride_x,
                                                   int dilation_y, int dilation_x, int top, int left) {
    unsigned int i = thread_number();
    if (i >= (long long)height * width * channels) return;
    int c = i % channels, u = i / channels % width, v = i / channels / width;
    float sum = 0;
    for (int ky = 0; ky < kernel_height; ky++)
        for (int kx = 0; kx < kernel_width; kx++) {
            int down = v + top - ky * dilation_y, across = u + left - kx * dilation_x;
            if (down < 0 || across < 0 || down % stride_y || across % stride_x) continue;
            int y = down / stride_y, x = across / stride_x;
            if (y >= rows || x >= columns) continue;
            long long o = ((long long)y * columns + x) * channels + c;
            if (winners[o] == ky * kernel_width + kx) sum += value_of(output_gradient[o]);
        }
    put(&gradient[i], sum);
}
