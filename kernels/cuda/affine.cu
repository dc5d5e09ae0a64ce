// Scale and shift of each channel. One thread owns one value; step is 1, or 0 where all channels share one number.

extern "C" __global__ void affine(const REAL* input, const float* scale, const float* shift, REAL* output,
                                  unsigned int count, int channels, int scale_step, int shift_step) {
    unsigned int i = thread_number();
    if (i >= count) return;
    int channel = i % channels;
    float scaled = scale[channel * scale_step] * value_of(input[i]);
    put(&output[i], scaled + shift[channel * shift_step]);
}

extern "C" __global__ void affine_input_gradient(const REAL* output_gradient, const float* scale, REAL* gradient,
                                                 unsigned int count, int channels, int scale_step) {
    unsigned int i = thread_number();
    if (i >= count) return;
    put(&gradient[i], scale[i % channels * scale_step] * value_of(output_gradient[i]));
}
