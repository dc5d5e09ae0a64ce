// Rectified linear unit. Arrays of any shape; one thread owns one value, of the masks one byte: eight values.

extern "C" __global__ void relu(const REAL* input, REAL* output, unsigned int count) {
    unsigned int i = thread_number();
    if (i >= count) return;
    float value = value_of(input[i]);
    put(&output[i], value <= 0 ? 0.0f : value);  // not-a-number stays
}

// The first of eight values is a byte's highest bit, as numpy.packbits has it.
extern "C" __global__ void relu_mask(const REAL* output, unsigned char* mask, unsigned int count) {
    unsigned int i = thread_number();
    if (8 * i >= count) return;
    int bits = 0;
    for (int bit = 0; bit < 8 && 8 * i + bit < count; bit++)
        if (value_of(output[8 * i + bit]) > 0) bits |= 128 >> bit;
    mask[i] = bits;
}

// gradient may be output_gradient itself.
extern "C" __global__ void relu_input_gradient(const REAL* output_gradient, const REAL* output, REAL* gradient,
                                               unsigned int count) {
    unsigned int i = thread_number();
    if (i >= count) return;
    put(&gradient[i], value_of(output[i]) > 0 ? value_of(output_gradient[i]) : 0.0f);
}

extern "C" __global__ void relu_input_gradient_from_mask(const REAL* output_gradient, const unsigned char* mask,
                                                         REAL* gradient, unsigned int count) {
    unsigned int i = thread_number();
    if (i >= count) return;
    put(&gradient[i], bit_of(mask, i) ? value_of(output_gradient[i]) : 0.0f);
}
