// What stands around the matrix product of a convolution; channels last, one thread owns one value of the result.

// The input under some rows of outputs: (outputs, taps, per_group), zeros where the window lies on padding.
// The first value belongs to the output at the left of row first_row; channels are taken from first_channel on.
extern "C" __global__ void patches(const REAL* input, REAL* output, unsigned int count, int height, int width,
                                   int channels, int columns, int first_row, int first_channel, int per_group,
                                   int kernel_height, int kernel_width, int stride_y, int stride_x, int dilation_y,
                                   int dilation_x, int top, int left) {
    unsigned int i = thread_number();
    if (i >= count) return;
    int c = i % per_group;
    int tap = i / per_group % (kernel_height * kernel_width);
    unsigned int pixel = i / per_group / (kernel_height * kernel_width);
    int x = pixel % columns, y = first_row + pixel / columns;
    int v = y * stride_y + tap / kernel_width * dilation_y - top;
    int u = x * stride_x + tap % kernel_width * dilation_x - left;
    bool inside = v >= 0 && v < height && u >= 0 && u < width;
    long long source = ((long long)v * width + u) * channels + first_channel + c;
    put(&output[i], inside ? value_of(input[source]) : 0.0f);
}

// The transpose of patches: adds, for each input value of some rows, what the taps that read it give, tap by tap.
// products is (outputs, taps, per_group) for the outputs from row first_output to before last_output; count values of
// the gradient are written, beginning at the left of its row first_row.
extern "C" __global__ void gather_patches(const float* products, REAL* gradient, unsigned int count, int width,
                                          int channels, int columns, int first_row, int first_output, int last_output,
                                          int first_channel, int per_group, int kernel_height, int kernel_width,
                                          int stride_y, int stride_x, int dilation_y, int dilation_x, int top,
                                          int left) {
    unsigned int i = thread_number();
    if (i >= count) return;
    int c = i % per_group, u = i / per_group % width, v = first_row + i / per_group / width;
    int taps = kernel_height * kernel_width;
    float sum = 0;
    for (int tap = 0; tap < taps; tap++) {
        int down = v + top - tap / kernel_width * dilation_y, across = u + left - tap % kernel_width * dilation_x;
        if (down < 0 || across < 0 || down % stride_y || across % stride_x) continue;
        int y = down / stride_y, x = across / stride_x;
        if (y < first_output || y >= last_output || x >= columns) continue;
        sum += products[(((long long)(y - first_output) * columns + x) * taps + tap) * per_group + c];
    }
    put(&gradient[((long long)v * width + u) * channels + first_channel + c], sum);
}

// The weight of the transposed convolution: (taps, filters / group, channels) from (taps, channels / group, filters),
// taps in reverse. Owned: one value of the result.
extern "C" __global__ void flip_weight(const REAL* weight, REAL* output, unsigned int count, int taps, int per_group,
                                       int filters, int group) {
    unsigned int i = thread_number();
    if (i >= count) return;
    int channels = per_group * group, kernels = filters / group;
    int channel = i % channels, kernel = i / channels % kernels, tap = i / channels / kernels;
    int part = channel / per_group;
    output[i] = weight[((long long)(taps - 1 - tap) * per_group + channel % per_group) * filters + part * kernels +
                       kernel];
}
