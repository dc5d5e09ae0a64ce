// Steps of the first-order optimizers, in double precision. One thread owns one value.

extern "C" __global__ void scaled(const double* values, double* output, unsigned int count, double factor) {
    unsigned int i = thread_number();
    if (i < count) output[i] = values[i] * factor;
}

extern "C" __global__ void fill(double* output, unsigned int count, double value) {
    unsigned int i = thread_number();
    if (i < count) output[i] = value;
}

// mean and square are updated in place. share_1 and share_2 are 1 - beta^t.
extern "C" __global__ void adam_step(const double* image, const double* gradient, double* mean, double* square,
                                     double* output, unsigned int count, double beta_1, double beta_2, double share_1,
                                     double share_2, double epsilon, double rate, double low, double high) {
    unsigned int i = thread_number();
    if (i >= count) return;
    double g = gradient[i];
    mean[i] += (1 - beta_1) * (g - mean[i]);
    square[i] += (1 - beta_2) * (g * g - square[i]);
    double step = mean[i] / share_1 / (sqrt(square[i] / share_2) + epsilon);
    output[i] = clipped(image[i] - rate * step, low, high);
}

// velocity is updated in place.
extern "C" __global__ void momentum_step(const double* image, const double* gradient, double* velocity, double* output,
                                         unsigned int count, double momentum, double rate, double low, double high) {
    unsigned int i = thread_number();
    if (i >= count) return;
    velocity[i] = momentum * velocity[i] - rate * gradient[i];
    output[i] = clipped(image[i] + velocity[i], low, high);
}
