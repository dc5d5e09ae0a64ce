// Weights of an activation's positions, (height, width, channels). One thread owns one value.

extern "C" __global__ void weigh_positions(const REAL* input, const float* weights, REAL* output, unsigned int count,
                                           int channels) {
    unsigned int i = thread_number();
    if (i < count) put(&output[i], value_of(input[i]) * weights[i / channels]);
}
