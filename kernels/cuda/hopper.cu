// 3x3 convolution with padding 1 on the tensor cores of compute capability 9.0, in 16 bits with sums in float32.
//
// An implicit matrix product: 128 pixels (a tile of TILE_WIDTH x TILE_HEIGHT) times 9 * channels times BLOCK_N filters.
// A block of 384 threads owns such a tile. Its first warpgroup fetches: for each tap and each 64 channels one box of
// the input, shifted by the tap (what lies outside of the image comes as zeros, which is the padding), and one of the
// weight, STAGES of them ahead. The other two warpgroups multiply, 64 pixels each, then add the bias, cut off what is
// negative where asked to, and store.
//
// input is (height, width, channels), weight (filters, 9 * channels) with the tap before the channel, output (height,
// width, filters); channels is a multiple of 64, filters of BLOCK_N. Both are read through tensor maps.
// Sources: PTX ISA 8.8, "wgmma.mma_async" (shapes, register fragments, matrix descriptors), "cp.async.bulk.tensor",
// "mbarrier", "setmaxnreg"; CUDA driver API, cuTensorMapEncodeTiled.

#define TILE_WIDTH 16
#define TILE_HEIGHT 8
#define STAGES 4
#define ROW_BYTES 128
#define INPUT_BYTES (TILE_WIDTH * TILE_HEIGHT * ROW_BYTES)

struct __align__(64) TensorMap {
    unsigned long long words[16];
};

#ifdef __CUDACC_RTC__
// The instructions themselves, each in a function of its own: the rest of this file is C++ that runs anywhere.

__device__ __forceinline__ unsigned int shared_address(const void* pointer) {
    unsigned int address;
    asm("{.reg .u64 a; cvta.to.shared.u64 a, %1; cvt.u32.u64 %0, a;}" : "=r"(address) : "l"(pointer));
    return address;
}

__device__ __forceinline__ void barrier_init(unsigned int barrier, unsigned int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// What this thread has initialised is there for the copy engine too.
__device__ __forceinline__ void barriers_are_ready() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void arrive(unsigned int barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Arrives, and the phase is not over before so many bytes more have been copied.
__device__ __forceinline__ void arrive_expecting(unsigned int barrier, unsigned int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

// Says whether the phase of this parity is over; waits a while for it.
__device__ __forceinline__ bool try_wait(unsigned int barrier, unsigned int parity) {
    unsigned int done;
    asm volatile(
        "{.reg .pred p;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;}"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
    return done;
}

__device__ __forceinline__ void copy_box(unsigned int target, const TensorMap& map, unsigned int barrier, int x,
                                         int y) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
            target),
        "l"(&map), "r"(barrier), "r"(x), "r"(y)
        : "memory");
}

__device__ __forceinline__ void copy_box(unsigned int target, const TensorMap& map, unsigned int barrier, int x, int y,
                                         int z) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], "
        "[%2];" ::"r"(target),
        "l"(&map), "r"(barrier), "r"(x), "r"(y), "r"(z)
        : "memory");
}

// Before products whose registers have been written or read since the last.
__device__ __forceinline__ void products_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

__device__ __forceinline__ void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// All but the last PENDING committed groups are done.
template <int PENDING>
__device__ __forceinline__ void products_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

template <int COUNT>
__device__ __forceinline__ void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}

template <int COUNT>
__device__ __forceinline__ void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

__device__ __forceinline__ unsigned int pack_halves(float first, float second) {
    unsigned int both;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(second), "f"(first));
    return both;
}

// d = a b, or that added to it; d are the registers of m64nNk16.
__device__ __forceinline__ void multiply_tile(float (&d)[32], unsigned long long a, unsigned long long b, int add) {
    asm volatile(
        "{.reg .pred add;\n"
        "setp.ne.b32 add, %34, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "%32, %33, add, 1, 1, 0, 0;}"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
          "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
          "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
          "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
        : "l"(a), "l"(b), "r"(add));
}

__device__ __forceinline__ void multiply_tile(float (&d)[64], unsigned long long a, unsigned long long b, int add) {
    asm volatile(
        "{.reg .pred add;\n"
        "setp.ne.b32 add, %66, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "%64, %65, add, 1, 1, 0, 0;}"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
          "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
          "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
          "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]),
          "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]),
          "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]),
          "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
          "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
        : "l"(a), "l"(b), "r"(add));
}
#endif

__device__ __forceinline__ void await(unsigned int barrier, unsigned int parity) {
    while (!try_wait(barrier, parity)) {
    }
}

// Where a matrix of rows of 128 bytes begins in shared memory, and how it lies there: groups of eight rows 1024 bytes
// apart, each row's 16-byte pieces exchanged as the 128-byte swizzle has it.
__device__ __forceinline__ unsigned long long described(unsigned int address) {
    return (unsigned long long)((address & 0x3FFFF) >> 4) | 1ull << 16 | 64ull << 32 | 1ull << 62;
}

template <int BLOCK_N>
__device__ __forceinline__ void convolve(const TensorMap& input, const TensorMap& weight, const float* bias,
                                         half* output, int height, int width, int channels, int filters,
                                         int tiles_across, int rectify) {
    constexpr unsigned int WEIGHT_BYTES = BLOCK_N * ROW_BYTES, STAGE_BYTES = INPUT_BYTES + WEIGHT_BYTES;
    extern __shared__ __align__(1024) unsigned char dynamic_memory[];
    __shared__ __align__(8) unsigned long long full[STAGES], empty[STAGES];
    int group = threadIdx.x / 128, blocks = channels / 64, steps = 9 * blocks;
    int left = blockIdx.x % tiles_across * TILE_WIDTH, top = blockIdx.x / tiles_across * TILE_HEIGHT;
    int first_filter = blockIdx.y * BLOCK_N;
    unsigned int memory = shared_address(dynamic_memory);

    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            barrier_init(shared_address(&full[s]), 1);
            barrier_init(shared_address(&empty[s]), 2);
        }
        barriers_are_ready();
    }
    __syncthreads();

    if (group == 0) {
        give_registers<40>();
        if (threadIdx.x == 0)
            for (int step = 0; step < steps; step++) {
                int stage = step % STAGES, tap = step / blocks, channel = step % blocks * 64;
                unsigned int place = memory + stage * STAGE_BYTES, barrier = shared_address(&full[stage]);
                // The first wait for each stage passes: the phase before the first is over.
                await(shared_address(&empty[stage]), (step / STAGES + 1) & 1);
                arrive_expecting(barrier, STAGE_BYTES);
                copy_box(place, input, barrier, channel, left + tap % 3 - 1, top + tap / 3 - 1);
                copy_box(place + INPUT_BYTES, weight, barrier, tap * channels + channel, first_filter);
            }
    } else {
        take_registers<232>();
        float sum[BLOCK_N / 2];
        for (int step = 0; step < steps; step++) {
            int stage = step % STAGES;
            unsigned int place = memory + stage * STAGE_BYTES;
            await(shared_address(&full[stage]), step / STAGES & 1);
            products_fence();
            unsigned long long a = described(place + (group - 1) * (INPUT_BYTES / 2));
            unsigned long long b = described(place + INPUT_BYTES);
#pragma unroll
            for (int k = 0; k < 4; k++) multiply_tile(sum, a + 2 * k, b + 2 * k, step + k > 0);
            products_commit();
            // All but the products just begun are done: the stage before this one can be filled again.
            products_wait<1>();
            if (step > 0 && threadIdx.x % 128 == 0) arrive(shared_address(&empty[(step - 1) % STAGES]));
        }
        products_wait<0>();
        int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
#pragma unroll
        for (int j = 0; j < BLOCK_N / 8; j++) {
            int filter = first_filter + 8 * j + 2 * (lane % 4);
            float2 added = {bias[filter], bias[filter + 1]};
#pragma unroll
            for (int h = 0; h < 2; h++) {
                int row = 64 * (group - 1) + 16 * warp + lane / 4 + 8 * h;
                int x = left + row % TILE_WIDTH, y = top + row / TILE_WIDTH;
                float first = sum[4 * j + 2 * h] + added.x, second = sum[4 * j + 2 * h + 1] + added.y;
                if (rectify) {
                    first = first <= 0 ? 0.0f : first;
                    second = second <= 0 ? 0.0f : second;
                }
                unsigned int both = pack_halves(first, second);
                if (x < width && y < height)
                    *(unsigned int*)&output[((long long)y * width + x) * filters + filter] = both;
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(384, 1) hopper_conv_64(const __grid_constant__ TensorMap input,
                                                                    const __grid_constant__ TensorMap weight,
                                                                    const float* bias, half* output, int height,
                                                                    int width, int channels, int filters,
                                                                    int tiles_across, int rectify) {
    convolve<64>(input, weight, bias, output, height, width, channels, filters, tiles_across, rectify);
}

extern "C" __global__ void __launch_bounds__(384, 1) hopper_conv_128(const __grid_constant__ TensorMap input,
                                                                     const __grid_constant__ TensorMap weight,
                                                                     const float* bias, half* output, int height,
                                                                     int width, int channels, int filters,
                                                                     int tiles_across, int rectify) {
    convolve<128>(input, weight, bias, output, height, width, channels, filters, tiles_across, rectify);
}
