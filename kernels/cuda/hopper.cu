// 3x3 convolution with padding 1 on the tensor cores of compute capability 9.0, in 16 bits with sums in float32.
//
// An implicit matrix product: the pixels of a tile, 8 across and TILE_HEIGHT down, times BLOCK_N filters, summed over
// nine taps and all channels. Work is cut into items: a tile, BLOCK_N filters, and where there are too few of those one
// of `splits` parts of the sum. Block i of g takes the items i, i + g, i + 2 g, ...
//
// Steps. One step is 64 channels and the three taps of one column of the kernel, dx. Its data is one box of the input,
// {64 channels, 8, TILE_HEIGHT + 2} pixels, shifted by dx, and three boxes of the weight, {64 channels, BLOCK_N}. A tap
// dy of the three reads the lines dy to dy + TILE_HEIGHT - 1 of the first: each pixel is fetched three times and a
// little, not nine times. What lies outside of the image comes as zeros, which is the padding.
//
// Layout. 64 channels of 16 bits are a row of 128 bytes; 8 of them are 1024 bytes, the period of the 128-byte swizzle
// that copies, products and stores agree on: the 16-byte pieces of row r of 8 are exchanged, piece p lies at p ^ r. A
// line of a tile is one period, so that dy begins at a period and is an offset of the matrix descriptor.
//
// Roles. Of the 384 threads of a block, the first warpgroup fetches (one thread does), the other two multiply, each 64
// TILE_HEIGHT / 16 pixels: wgmma takes 64 rows, which are 8 lines. The fetching one gives registers to the others.
//
// Phases. STAGES steps lie in shared memory at a time, in a ring that runs on from item to item, so that the next
// item is fetched while this one is stored. Stage s has two barriers: full[s], whose phase ends with the fetching
// thread's arrival and all bytes of the step; and empty[s], whose phase ends with one arrival of each multiplying warp,
// which has waited for its products. Round r of the ring (0, 1, ...) waits for the end of phase r of full, and before
// filling for the end of phase r - 1 of empty; before the first round that is the phase before the first, which counts
// as over. A barrier only knows its phase's parity. Products run on while the next are begun: a stage is given back one
// step late.
//
// The end of an item. The sums get the bias, what is negative is cut off, or what mask has no bit for, each where asked
// to; 64 pixels times 64 filters go through 8192 bytes of shared memory, one area a warpgroup, to a store by the copy
// engine, which leaves out what lies outside of the image. Parts of a sum go to memory in float32; sum_of_parts
// (gemm.cu) adds them up.
//
// input is (height, width, channels), weight (3, 3, filters, channels), output (height, width, filters); channels is a
// multiple of 64, filters of BLOCK_N. All are used through tensor maps. mask is numpy.packbits of (height, width,
// filters); parts (splits, height, width, filters).
// Sources: PTX ISA 8.8, "wgmma.mma_async" (shapes, register fragments, matrix descriptors), "cp.async.bulk.tensor",
// "mbarrier", "fence.proxy.async", "setmaxnreg"; CUDA driver API, cuTensorMapEncodeTiled.

#define TILE_WIDTH 8
#define ROW_BYTES 128
#define LINE_BYTES (TILE_WIDTH * ROW_BYTES)
#define STORE_BYTES (8 * LINE_BYTES)

struct __align__(64) TensorMap {
    unsigned long long words[16];
};

#ifdef __CUDACC_RTC__
// The instructions themselves, each in a separate function: the rest of this file is C++ that runs anywhere.

__device__ __forceinline__ unsigned int shared_address(const void* pointer) {
    unsigned int address;
    asm("{.reg .u64 a; cvta.to.shared.u64 a, %1; cvt.u32.u64 %0, a;}" : "=r"(address) : "l"(pointer));
    return address;
}

// A number that is the same in all lanes of a warp: with this the compiler knows.
__device__ __forceinline__ int uniform(int number) {
    int result;
    asm volatile("shfl.sync.idx.b32 %0, %1, 0, 31, -1;" : "=r"(result) : "r"(number));
    return result;
}

__device__ __forceinline__ void barrier_init(unsigned int barrier, unsigned int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// What this thread has initialized is there for the copy engine too.
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

__device__ __forceinline__ void copy_box(unsigned int target, const TensorMap& map, unsigned int barrier, int x, int y,
                                         int z) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], "
        "[%2];" ::"r"(target),
        "l"(&map), "r"(barrier), "r"(x), "r"(y), "r"(z)
        : "memory");
}

__device__ __forceinline__ void copy_box(unsigned int target, const TensorMap& map, unsigned int barrier, int x, int y,
                                         int z, int w) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], "
        "[%2];" ::"r"(target),
        "l"(&map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w)
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

// What is written here after a wait uses the registers after it: the compiler does not know what the products write.
template <int COUNT>
__device__ __forceinline__ void registers_are_done(float (&d)[COUNT]) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) asm volatile("" : "+f"(d[i])::"memory");
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

__device__ __forceinline__ void write_shared(unsigned int address, unsigned int value) {
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(address), "r"(value) : "memory");
}

// What this thread has written to shared memory is there for the copy engine too.
__device__ __forceinline__ void writes_are_ready() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

__device__ __forceinline__ void store_box(const TensorMap& map, unsigned int source, int x, int y, int z) {
    asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(&map),
                 "r"(source), "r"(x), "r"(y), "r"(z)
                 : "memory");
}

__device__ __forceinline__ void stores_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

// What the committed stores of this thread read may be written again.
__device__ __forceinline__ void stores_wait_for_reads() {
    asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

// A barrier of the 128 threads of a warpgroup; 0 is that of the block.
__device__ __forceinline__ void warpgroup_barrier(int number) {
    asm volatile("bar.sync %0, 128;" ::"r"(number) : "memory");
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
// apart, with the 128-byte swizzle.
__device__ __forceinline__ unsigned long long described(unsigned int address) {
    return (unsigned long long)((address & 0x3FFFF) >> 4) | 1ull << 16 | 64ull << 32 | 1ull << 62;
}

struct Shape {
    int height, width, channels, filters, splits;
};

// One item: its tile, its first filter, its part of the sum and the steps of that from first to before last.
struct Item {
    int left, top, filter, split, first, last;
};

template <int TILE_HEIGHT, int BLOCK_N>
struct Items {
    Shape shape;
    int blocks, across, down;

    __device__ __forceinline__ explicit Items(Shape of)
        : shape(of),
          blocks(of.filters / BLOCK_N),
          across((of.width + TILE_WIDTH - 1) / TILE_WIDTH),
          down((of.height + TILE_HEIGHT - 1) / TILE_HEIGHT) {}

    __device__ __forceinline__ int count() const { return blocks * across * down * shape.splits; }

    // Neighbors have the tile in common: blocks that run together read the same input.
    __device__ __forceinline__ Item at(int number) const {
        int tile = number / blocks, steps = 3 * (shape.channels / 64), split = tile / (across * down);
        int part = (steps + shape.splits - 1) / shape.splits, first = split * part;
        return {tile % across * TILE_WIDTH,
                tile / across % down * TILE_HEIGHT,
                number % blocks * BLOCK_N,
                split,
                first,
                first + part < steps ? first + part : steps};
    }
};

// A place in the ring of stages: which, and the parity of the round.
template <int STAGES>
struct Position {
    int stage = 0;
    unsigned int parity = 0;

    __device__ __forceinline__ void advance() {
        stage = stage == STAGES - 1 ? 0 : stage + 1;
        parity ^= stage == 0;
    }
};

// Where results go, and what is done to them before.
struct Results {
    const TensorMap& output;
    const float* bias;
    const unsigned char* mask;
    float* parts;
    int biased, rectify, masked;
};

// Of the 64 pixels and BLOCK_N filters of a matrix of sums, a thread has two lines, h, one pixel in each, and of every
// eight filters, j, two: its register 4 * j + 2 * h and the next.

// Writes a multiplying warpgroup's sums to the item's part.
template <int MATRICES, int BLOCK_N>
__device__ __forceinline__ void write_part(const float (&sum)[MATRICES][BLOCK_N / 2], Item item, Shape shape, int own,
                                           float* parts) {
    int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, x = item.left + lane / 4;
#pragma unroll
    for (int m = 0; m < MATRICES; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int y = item.top + 8 * (MATRICES * own + m) + 2 * warp + h;
            if (x >= shape.width || y >= shape.height) continue;
            long long pixel = ((long long)item.split * shape.height + y) * shape.width + x;
            float* target = &parts[pixel * shape.filters + item.filter + 2 * (lane % 4)];
#pragma unroll
            for (int j = 0; j < BLOCK_N / 8; j++)
                *(float2*)&target[8 * j] = {sum[m][4 * j + 2 * h], sum[m][4 * j + 2 * h + 1]};
        }
}

// Stores a multiplying warpgroup's results, 64 pixels and 64 filters at a time, by way of its area of shared memory.
template <int MATRICES, int BLOCK_N>
__device__ __forceinline__ void store_results(const float (&sum)[MATRICES][BLOCK_N / 2], Item item, Shape shape,
                                              int own, unsigned int area, const Results& to) {
    int thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32, x = item.left + lane / 4;
#pragma unroll
    for (int m = 0; m < MATRICES; m++)
#pragma unroll
        for (int block = 0; block < BLOCK_N / 64; block++) {
            int first_y = item.top + 8 * (MATRICES * own + m), first_filter = item.filter + 64 * block;
            unsigned long long masks[2] = {~0ull, ~0ull};
#pragma unroll
            for (int h = 0; h < 2; h++) {
                int y = first_y + 2 * warp + h;
                long long first = ((long long)y * shape.width + x) * shape.filters + first_filter;
                if (to.masked && x < shape.width && y < shape.height)
                    masks[h] = *(const unsigned long long*)&to.mask[first / 8];
            }
            // All at once, for what is written below keeps loads from being moved before it.
            float2 added[8] = {};
#pragma unroll
            for (int j = 0; j < 8; j++)
                if (to.biased) added[j] = *(const float2*)&to.bias[first_filter + 8 * j + 2 * (lane % 4)];
            // The store before has read the area.
            if (thread == 0) stores_wait_for_reads();
            warpgroup_barrier(1 + own);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                int pair = 2 * (lane % 4);
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    float first = sum[m][32 * block + 4 * j + 2 * h] + added[j].x;
                    float second = sum[m][32 * block + 4 * j + 2 * h + 1] + added[j].y;
                    // The first filter's mask is the highest bit of the byte of eight.
                    unsigned int bits = (unsigned int)(masks[h] >> 8 * j) << pair;
                    if ((to.rectify && first <= 0) || !(bits & 128)) first = 0;
                    if ((to.rectify && second <= 0) || !(bits & 64)) second = 0;
                    unsigned int row = area + (2 * warp + h) * LINE_BYTES + lane / 4 * ROW_BYTES;
                    write_shared(row + (j ^ lane / 4) * 16 + 2 * pair, pack_halves(first, second));
                }
            }
            writes_are_ready();
            warpgroup_barrier(1 + own);
            if (thread == 0) {
                store_box(to.output, area, first_filter, item.left, first_y);
                stores_commit();
            }
        }
}

template <int TILE_HEIGHT, int BLOCK_N, int STAGES>
__device__ __forceinline__ void convolve(const TensorMap& input, const TensorMap& weight, const Results& results,
                                         Shape shape) {
    constexpr unsigned int INPUT_BYTES = (TILE_HEIGHT + 2) * LINE_BYTES, WEIGHT_BYTES = BLOCK_N * ROW_BYTES;
    constexpr unsigned int STAGE_BYTES = INPUT_BYTES + 3 * WEIGHT_BYTES;
    // A multiplying warpgroup's matrices of 64 pixels.
    constexpr int MATRICES = TILE_HEIGHT / 16;
    extern __shared__ __align__(1024) unsigned char block_memory[];
    __shared__ __align__(8) unsigned long long full[STAGES], empty[STAGES];
    unsigned int memory = shared_address(block_memory);
    Items<TILE_HEIGHT, BLOCK_N> items(shape);
    int group = uniform(threadIdx.x / 128), thread = threadIdx.x % 128;
    Position<STAGES> place;

    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            barrier_init(shared_address(&full[s]), 1);
            barrier_init(shared_address(&empty[s]), 8);
        }
        barriers_are_ready();
    }
    __syncthreads();

    if (group == 0) {
        give_registers<40>();
        if (thread == 0)
            for (int number = blockIdx.x; number < items.count(); number += gridDim.x) {
                Item item = items.at(number);
                for (int step = item.first; step < item.last; step++, place.advance()) {
                    unsigned int target = memory + place.stage * STAGE_BYTES;
                    unsigned int barrier = shared_address(&full[place.stage]);
                    int channel = step / 3 * 64, dx = step % 3;
                    await(shared_address(&empty[place.stage]), place.parity ^ 1);
                    arrive_expecting(barrier, STAGE_BYTES);
                    copy_box(target, input, barrier, channel, item.left + dx - 1, item.top - 1);
                    copy_box(target + INPUT_BYTES, weight, barrier, channel, item.filter, dx, 0);
                }
            }
    } else {
        take_registers<232>();
        int own = group - 1;
        unsigned int area = memory + STAGES * STAGE_BYTES + own * STORE_BYTES;
        for (int number = blockIdx.x; number < items.count(); number += gridDim.x) {
            Item item = items.at(number);
            float sum[MATRICES][BLOCK_N / 2];
            unsigned int last_given = 0;
            for (int step = item.first; step < item.last; step++, place.advance()) {
                unsigned int source = memory + place.stage * STAGE_BYTES;
                await(shared_address(&full[place.stage]), place.parity);
                products_fence();
                // Descriptors count in 16 bytes; 16 channels are 32 bytes.
                unsigned long long a = described(source + own * MATRICES * 8 * LINE_BYTES);
                unsigned long long b = described(source + INPUT_BYTES);
#pragma unroll
                for (int dy = 0; dy < 3; dy++)
#pragma unroll
                    for (int m = 0; m < MATRICES; m++)
#pragma unroll
                        for (int k = 0; k < 4; k++)
                            multiply_tile(sum[m], a + (8 * m + dy) * (LINE_BYTES / 16) + 2 * k,
                                          b + dy * (WEIGHT_BYTES / 16) + 2 * k, step > item.first || dy + k > 0);
                products_commit();
                // All products but those just begun are done.
                products_wait<1>();
                if (step > item.first && thread % 32 == 0) arrive(last_given);
                last_given = shared_address(&empty[place.stage]);
            }
            products_wait<0>();
#pragma unroll
            for (int m = 0; m < MATRICES; m++) registers_are_done(sum[m]);
            if (thread % 32 == 0) arrive(last_given);

            if (shape.splits > 1)
                write_part<MATRICES, BLOCK_N>(sum, item, shape, own, results.parts);
            else
                store_results<MATRICES, BLOCK_N>(sum, item, shape, own, area, results);
        }
        if (thread == 0) stores_wait_for_reads();
    }
}

extern "C" __global__ void __launch_bounds__(384, 1) hopper_conv_16_64(
    const __grid_constant__ TensorMap input, const __grid_constant__ TensorMap weight,
    const __grid_constant__ TensorMap output, const float* bias, const unsigned char* mask, float* parts, int height,
    int width, int channels, int filters, int splits, int biased, int rectify, int masked) {
    Shape shape = {height, width, channels, filters, splits};
    convolve<16, 64, 4>(input, weight, {output, bias, mask, parts, biased, rectify, masked}, shape);
}

extern "C" __global__ void __launch_bounds__(384, 1) hopper_conv_16_128(
    const __grid_constant__ TensorMap input, const __grid_constant__ TensorMap weight,
    const __grid_constant__ TensorMap output, const float* bias, const unsigned char* mask, float* parts, int height,
    int width, int channels, int filters, int splits, int biased, int rectify, int masked) {
    Shape shape = {height, width, channels, filters, splits};
    convolve<16, 128, 3>(input, weight, {output, bias, mask, parts, biased, rectify, masked}, shape);
}

extern "C" __global__ void __launch_bounds__(384, 1) hopper_conv_32_64(
    const __grid_constant__ TensorMap input, const __grid_constant__ TensorMap weight,
    const __grid_constant__ TensorMap output, const float* bias, const unsigned char* mask, float* parts, int height,
    int width, int channels, int filters, int splits, int biased, int rectify, int masked) {
    Shape shape = {height, width, channels, filters, splits};
    convolve<32, 64, 3>(input, weight, {output, bias, mask, parts, biased, rectify, masked}, shape);
}

extern "C" __global__ void __launch_bounds__(384, 1) hopper_conv_32_128(
    const __grid_constant__ TensorMap input, const __grid_constant__ TensorMap weight,
    const __grid_constant__ TensorMap output, const float* bias, const unsigned char* mask, float* parts, int height,
    int width, int channels, int filters, int splits, int biased, int rectify, int masked) {
    Shape shape = {height, width, channels, filters, splits};
    convolve<32, 128, 2>(input, weight, {output, bias, mask, parts, biased, rectify, masked}, shape);
}

extern "C" __global__ void __launch_bounds__(384, 1) hopper_conv_64_64(
    const __grid_constant__ TensorMap input, const __grid_constant__ TensorMap weight,
    const __grid_constant__ TensorMap output, const float* bias, const unsigned char* mask, float* parts, int height,
    int width, int channels, int filters, int splits, int biased, int rectify, int masked) {
    Shape shape = {height, width, channels, filters, splits};
    convolve<64, 64, 2>(input, weight, {output, bias, mask, parts, biased, rectify, masked}, shape);
}

// The weight as it is read here: each tap transposed, (taps, filters, channels) from (taps, channels, filters). One
// thread owns one value of the result.
extern "C" __global__ void hopper_weight(const half* weight, half* output, unsigned int count, int channels,
                                         int filters) {
    unsigned int i = thread_number();
    if (i >= count) return;
    int channel = i % channels, filter = i / channels % filters, tap = i / channels / filters;
    output[i] = weight[((long long)tap * channels + channel) * filters + filter];
}
