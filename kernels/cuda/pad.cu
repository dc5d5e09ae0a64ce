// Padding by zeros, by reflection, or by the edges. One thread owns one value of what is written.

#define CONSTANT 0
#define REFLECT 1
#define EDGE 2

// Which of the input's rows stands at a place that counts from its first one; -1 for zeros. Columns alike.
__device__ __forceinline__ int source_of(int place, int size, int mode) {
    int last = size - 1;
    if (place >= 0 && place <= last) return place;
    if (mode == CONSTANT) return -1;
    if (mode == EDGE) return place < 0 ? 0 : last;
    return place < 0 ? -place : 2 * last - place;
}

// The k-th of the output's rows that may be taken from row y: the padding before, the row itself, the padding behind.
__device__ __forceinline__ int candidate(int k, int y, int size, int before) {
    return k < before ? k : k == before ? before + y : size + k - 1;
}

// output is (height + top + bottom, width + left + right, channels), and count what it holds.
extern "C" __global__ void pad(const REAL* input, REAL* output, unsigned int count, int height, int width, int channels,
                               int top, int left, int bottom, int right, int mode) {
    unsigned int i = thread_number();
    if (i >= count) return;
    int columns = left + width + right;
    int c = i % channels, x = i / channels % columns, y = i / channels / columns;
    int row = source_of(y - top, height, mode), column = source_of(x - left, width, mode);
    if (row < 0 || column < 0) {
        put(&output[i], 0.0f);
        return;
    }
    output[i] = input[((long long)row * width + column) * channels + c];
}

// The sum over all places that a value of the input, (height, width, channels), was taken to, row by row.
extern "C" __global__ void pad_input_gradient(const REAL* output_gradient, REAL* gradient, unsigned int count,
                                              int height, int width, int channels, int top, int left, int bottom,
                                              int right, int mode) {
    unsigned int i = thread_number();
    if (i >= count) return;
    int columns = left + width + right;
    int c = i % channels, x = i / channels % width, y = i / channels / width;
    float total = 0;
    for (int j = 0; j <= top + bottom; j++) {
        int row = candidate(j, y, height, top);
        if (source_of(row - top, height, mode) != y) continue;
        for (int k = 0; k <= left + right; k++) {
            int column = candidate(k, x, width, left);
            if (source_of(column - left, width, mode) != x) continue;
            total += value_of(output_gradient[((long long)row * columns + column) * channels + c]);
        }
    }
    put(&gradient[i], total);
}
