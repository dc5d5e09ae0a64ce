// Runs CUDA kernels on the CPU: what the language adds to C++, and a launch of one block after another.
//
// The threads of a block run one after the other. Those of a kernel with barriers are fibers that change places at each
// barrier, in ascending order in one phase and descending in the next, so that a thread that reads what it should have
// waited for finds the wrong value in one of the two.

#include <math.h>
#include <ucontext.h>

#include <cstring>
#include <vector>

struct Place {
    unsigned x, y, z;
};
static Place threadIdx, blockIdx, blockDim, gridDim;

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define __shared__ static

static inline float __int_as_float(int bits) { return __builtin_bit_cast(float, bits); }

namespace fibers {
constexpr size_t STACK = 64 << 10;
static ucontext_t scheduler;
static std::vector<ucontext_t> contexts;
static std::vector<char> stacks;
static std::vector<char> waiting;
static unsigned current;
static void (*body)();

static void start() {
    body();
    waiting[current] = 0;
}

static void barrier() {
    unsigned self = current;
    waiting[self] = 1;
    swapcontext(&contexts[self], &scheduler);
}
}  // namespace fibers

#define __syncthreads() fibers::barrier()

static Place place_of(unsigned thread, Place block) {
    return {thread % block.x, thread / block.x % block.y, thread / (block.x * block.y)};
}

// Returns 1 if some threads of a block had ended while others waited at a barrier.
static int run_block(Place block, bool descending) {
    using namespace fibers;
    unsigned count = block.x * block.y * block.z;
    contexts.resize(count);
    stacks.resize(count * STACK);
    waiting.assign(count, 0);
    for (unsigned t = 0; t < count; t++) {
        getcontext(&contexts[t]);
        contexts[t].uc_stack.ss_sp = &stacks[t * STACK];
        contexts[t].uc_stack.ss_size = STACK;
        contexts[t].uc_link = &scheduler;
        makecontext(&contexts[t], start, 0);
    }
    for (;; descending = !descending) {
        unsigned still = 0;
        for (unsigned i = 0; i < count; i++) {
            current = descending ? count - 1 - i : i;
            threadIdx = place_of(current, block);
            swapcontext(&scheduler, &contexts[current]);
            still += waiting[current];
        }
        if (still == 0) return 0;
        if (still != count) return 1;
    }
}

template <class F>
static int launch(const unsigned* grid, const unsigned* block, int barriers, int descending, F kernel) {
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    unsigned blocks = grid[0] * grid[1] * grid[2], threads = block[0] * block[1] * block[2];
    static F* called;
    called = &kernel;
    fibers::body = [] { (*called)(); };
    for (unsigned b = 0; b < blocks; b++) {
        blockIdx = place_of(descending ? blocks - 1 - b : b, gridDim);
        if (barriers) {
            if (run_block(blockDim, descending)) return 1;
            continue;
        }
        for (unsigned t = 0; t < threads; t++) {
            threadIdx = place_of(descending ? threads - 1 - t : t, blockDim);
            kernel();
        }
    }
    return 0;
}
