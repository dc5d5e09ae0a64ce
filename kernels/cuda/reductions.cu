// Differences, sums of squares, and what is not finite.
//
// A sum is taken in two steps, in double precision and always in the same order: each block of SUM_THREADS threads adds
// up every (number of threads)-th value and leaves one part; then one block adds up the parts. An element-wise kernel's
// thread owns one value.

extern "C" __global__ void squared_distance(const REAL* a, const REAL* b, double* parts, unsigned int count) {
    double sum = 0;
    for (unsigned int i = thread_number(); i < count; i += gridDim.x * blockDim.x) {
        double difference = (double)value_of(a[i]) - (double)value_of(b[i]);
        sum += difference * difference;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

extern "C" __global__ void quotient_distance(const float* a, float a_divisor, const float* b, float b_divisor,
                                             double* parts, unsigned int count) {
    double sum = 0;
    for (unsigned int i = thread_number(); i < count; i += gridDim.x * blockDim.x) {
        double difference = a[i] / a_divisor - b[i] / b_divisor;
        sum += difference * difference;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

extern "C" __global__ void count_not_finite(const REAL* values, double* parts, unsigned int count) {
    double sum = 0;
    for (unsigned int i = thread_number(); i < count; i += gridDim.x * blockDim.x) {
        double value = value_of(values[i]);
        sum += value - value == 0 ? 0 : 1;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

// One block. numbers[index] = sum of parts / divisor: what is to be fetched at once is brought together.
extern "C" __global__ void sum_parts(const double* parts, double* numbers, int index, int count, double divisor) {
    double sum = 0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) sum += parts[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) numbers[index] = sum / divisor;
}

extern "C" __global__ void quotient_difference(const float* a, float a_divisor, const float* b, float b_divisor,
                                               float* output, unsigned int count) {
    unsigned int i = thread_number();
    if (i < count) output[i] = a[i] / a_divisor - b[i] / b_divisor;
}

// target = (a - b) * weight, or that added to target where add is not 0.
extern "C" __global__ void weighted_difference(const REAL* a, const REAL* b, REAL* target, float weight, int add,
                                               unsigned int count) {
    unsigned int i = thread_number();
    if (i >= count) return;
    float value = (value_of(a[i]) - value_of(b[i])) * weight;
    put(&target[i], add ? value_of(target[i]) + value : value);
}
