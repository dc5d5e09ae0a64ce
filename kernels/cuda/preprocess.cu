// From an RGB image of 0..255 in double precision to the network's input, and back for the gradient.
// One thread owns one pixel.

extern "C" __global__ void normalize_pixels(const double* image, REAL* output, unsigned int pixels, int bgr, double scale,
                                            double mean_0, double mean_1, double mean_2, double std_0, double std_1,
                                            double std_2) {
    unsigned int i = thread_number();
    if (i >= pixels) return;
    double first = image[3 * i + (bgr ? 2 : 0)], last = image[3 * i + (bgr ? 0 : 2)];
    put(&output[3 * i], (float)((first * scale - mean_0) / std_0));
    put(&output[3 * i + 1], (float)((image[3 * i + 1] * scale - mean_1) / std_1));
    put(&output[3 * i + 2], (float)((last * scale - mean_2) / std_2));
}

extern "C" __global__ void normalize_pixels_input_gradient(const REAL* output_gradient, double* gradient,
                                                           unsigned int pixels, int bgr, double factor_0, double factor_1,
                                                           double factor_2) {
    unsigned int i = thread_number();
    if (i >= pixels) return;
    gradient[3 * i + (bgr ? 2 : 0)] = value_of(output_gradient[3 * i]) * factor_0;
    gradient[3 * i + 1] = value_of(output_gradient[3 * i + 1]) * factor_1;
    gradient[3 * i + (bgr ? 0 : 2)] = value_of(output_gradient[3 * i + 2]) * factor_2;
}
