// What every source of this folder is compiled behind: 16-bit numbers, a thread's number, bounds, and sums over a block.
//
// No header is included: NVRTC finds none unless the whole toolkit is installed. Where this is compiled by a C++
// compiler of the host, as the tests do, only the two conversions differ.

struct half {
    unsigned short bits;
};

#ifdef __CUDACC_RTC__
__device__ __forceinline__ float value_of(half x) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(x.bits));
    return value;
}

__device__ __forceinline__ void put(half* target, float value) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(target->bits) : "f"(value));
}
#else
__device__ __forceinline__ float value_of(half x) { return (float)__builtin_bit_cast(_Float16, x.bits); }

__device__ __forceinline__ void put(half* target, float value) {
    target->bits = __builtin_bit_cast(unsigned short, (_Float16)value);
}
#endif

__device__ __forceinline__ float value_of(float x) { return x; }
__device__ __forceinline__ double value_of(double x) { return x; }
__device__ __forceinline__ void put(float* target, float value) { *target = value; }
__device__ __forceinline__ void put(double* target, double value) { *target = value; }

// Two neighboring values at once, of which the first lies at an even place.
struct __align__(8) TwoFloats {
    float first, second;
};

__device__ __forceinline__ void put_two(half* target, float first, float second) {
    half low, high;
    put(&low, first);
    put(&high, second);
    *(unsigned int*)target = low.bits | (unsigned int)high.bits << 16;
}

__device__ __forceinline__ void put_two(float* target, float first, float second) {
    *(TwoFloats*)target = {first, second};
}

// The number of this thread among all of a one-dimensional launch.
__device__ __forceinline__ unsigned int thread_number() { return blockIdx.x * blockDim.x + threadIdx.x; }

// One bit of a mask as relu.cu leaves it.
__device__ __forceinline__ bool bit_of(const unsigned char* mask, long long i) { return mask[i / 8] >> (7 - i % 8) & 1; }

// Writes what a product gives: its value, added to what was there where add is not 0, plus the bias of its column where
// biased is not 0, cut off below 0 where rectify is not 0 (not-a-number stays).
template <class T>
__device__ __forceinline__ void finish(T* target, float value, int add, const float* bias, int biased, int column,
                                       int rectify) {
    if (add) value += value_of(*target);
    if (biased) value += bias[column];
    put(target, rectify && value <= 0 ? 0.0f : value);
}

#define SUM_THREADS 256

// The sum of one number of each of a block's SUM_THREADS threads, in every thread; always added in the same order.
__device__ __forceinline__ double block_sum(double value) {
    __shared__ double parts[SUM_THREADS];
    __syncthreads();  // the last sum's parts may still be read
    parts[threadIdx.x] = value;
    __syncthreads();
    for (int reach = SUM_THREADS / 2; reach > 0; reach /= 2) {
        if (threadIdx.x < reach) parts[threadIdx.x] += parts[threadIdx.x + reach];
        __syncthreads();
    }
    return parts[0];
}

__device__ __forceinline__ double clipped(double value, double low, double high) {
    return value < low ? low : value > high ? high : value;
}
