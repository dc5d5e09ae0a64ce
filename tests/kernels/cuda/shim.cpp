// Runs CUDA kernels on the CPU: what the language adds to C++, and a launch of one block after another.
//
// The threads of a block run one after the other. Those of a kernel with barriers are fibers that change places at each
// barrier, in ascending order in one phase and descending in the next, so that a thread that reads what it should have
// waited for finds the wrong value in one of the two.

#include <math.h>
#include <setjmp.h>
#include <ucontext.h>

#include <cstring>
#include <utility>
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
static inline unsigned __float_as_uint(float value) { return __builtin_bit_cast(unsigned, value); }

namespace fibers {
constexpr size_t STACK = 64 << 10;
static std::vector<ucontext_t> beginnings;
static std::vector<char> stacks;
// Once begun, fibers are left and entered by jumps: unlike swapcontext, they make no call to the system.
struct Jump {
    jmp_buf buffer;
};
static std::vector<Jump> places;
static jmp_buf scheduler;
enum State : char { FRESH, WAITING, MEETING, ENDED };
static std::vector<State> states;
static unsigned current;
static void (*body)();

static void begin() {
    body();
    states[current] = ENDED;
    _longjmp(scheduler, 1);
}

// Waits for the block, or, MEETING, for the lanes of a warp alone.
static void barrier(State kind = WAITING) {
    unsigned self = current;
    states[self] = kind;
    if (_setjmp(places[self].buffer) == 0) _longjmp(scheduler, 1);
}

// Runs the current fiber up to its next barrier or its end.
static void resume() {
    if (_setjmp(scheduler)) return;
    if (states[current] == FRESH)
        setcontext(&beginnings[current]);
    else
        _longjmp(places[current].buffer, 1);
}
}  // namespace fibers

#define __syncthreads() fibers::barrier()

#define __align__(bytes) alignas(bytes)

static Place place_of(unsigned thread, Place block) {
    return {thread % block.x, thread / block.x % block.y, thread / (block.x * block.y)};
}

// Runs the threads first to before last up to a barrier of the block or their end; returns false if they part ways.
static bool run_warp(unsigned first, unsigned last, Place block, bool descending) {
    using namespace fibers;
    for (;;) {
        unsigned met = 0;
        for (unsigned i = first; i < last; i++) {
            current = descending ? first + last - 1 - i : i;
            threadIdx = place_of(current, block);
            resume();
            met += states[current] == MEETING;
        }
        if (met == 0) return true;
        if (met != last - first) return false;
    }
}

// Returns 1 if some threads of a block had ended while others waited at a barrier, or those of a warp waited at several.
// A warp runs as far as it can before the next one does.
static int run_block(Place block, bool descending) {
    using namespace fibers;
    unsigned count = block.x * block.y * block.z;
    beginnings.resize(count);
    places.resize(count);
    stacks.resize(count * STACK);
    states.assign(count, FRESH);
    for (unsigned t = 0; t < count; t++) {
        getcontext(&beginnings[t]);
        beginnings[t].uc_stack.ss_sp = &stacks[t * STACK];
        beginnings[t].uc_stack.ss_size = STACK;
        beginnings[t].uc_link = nullptr;
        makecontext(&beginnings[t], begin, 0);
    }
    for (;; descending = !descending) {
        unsigned still = 0;
        unsigned warps = (count + 31) / 32;
        for (unsigned w = 0; w < warps; w++) {
            unsigned first = 32 * (descending ? warps - 1 - w : w), last = first + 32 < count ? first + 32 : count;
            if (!run_warp(first, last, block, descending)) return 1;
        }
        for (State state : states) still += state == WAITING;
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
