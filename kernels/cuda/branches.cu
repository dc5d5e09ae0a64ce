// Add, concatenate and split branches. One thread owns one value of what is written.

// target = a + b; target may be a.
extern "C" __global__ void add(const REAL* a, const REAL* b, REAL* target, unsigned int count) {
    unsigned int i = thread_number();
    if (i >= count) return;
    put(&target[i], value_of(a[i]) + value_of(b[i]));
}

// Copies some columns of a matrix into some columns of another; count is rows * columns of what is copied.
extern "C" __global__ void copy_columns(const REAL* source, REAL* target, unsigned int count, int columns,
                                        int source_columns, int source_first, int target_columns, int target_first) {
    unsigned int i = thread_number();
    if (i >= count) return;
    long long row = i / columns, column = i % columns;
    target[row * target_columns + target_first + column] = source[row * source_columns + source_first + column];
}
