// Runs CUDA kernels on the CPU: what the language adds to C++, and a launch of one block after another.
//
// The threads of a block run one after the other. Those of a kernel with barriers are fibers that change places at each
// barrier, in ascending order in one phase and descending in the next, so that a thread that reads what it should have
// waited for finds the wrong value in one of the two. A fiber that waits for something else lets the others run and
// looks again; what works beside the threads is the engine of a further shim (shim_hopper.cpp).

#include <math.h>
#include <setjmp.h>
#include <ucontext.h>

#include <cstring>
#include <string>
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
#define __grid_constant__
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
enum State : char { FRESH, READY, YIELDED, WAITING, MEETING, ENDED };
static std::vector<State> states;
static unsigned current;
static void (*body)();
// What may let a fiber that yielded go on is counted, and how often all met at a barrier.
static unsigned long events, meetings;
// Why the launch failed; empty if it did not.
static std::string fault;

// What works beside the threads of a block: reset before it, checked after it, and asked for a step when no thread can
// go on by itself. All throw std::string for a fault, as the instructions do.
struct Engine {
    void (*begin)(bool descending);
    void (*step)();
    void (*end)();
};
static Engine engine;

static void begin() {
    try {
        body();
    } catch (const std::string& thrown) {
        fault = thrown;
    }
    states[current] = ENDED;
    _longjmp(scheduler, 1);
}

static void leave(State state) {
    unsigned self = current;
    states[self] = state;
    if (_setjmp(places[self].buffer) == 0) _longjmp(scheduler, 1);
}

// Waits for the block, or, MEETING, for the lanes of a warp alone.
static void barrier(State kind = WAITING) { leave(kind); }
static void yield() { leave(YIELDED); }

// Runs the current fiber up to its next barrier, until it yields, or to its end.
static void resume() {
    if (_setjmp(scheduler)) return;
    if (states[current] == FRESH)
        setcontext(&beginnings[current]);
    else
        _longjmp(places[current].buffer, 1);
}
}  // namespace fibers

#define __syncthreads() fibers::barrier()

#define __align__(bytes) __attribute__((aligned(bytes)))

static Place place_of(unsigned thread, Place block) {
    return {thread % block.x, thread / block.x % block.y, thread / (block.x * block.y)};
}

// Dynamic shared memory, all that a block can have; a kernel's array of it is declared extern.
alignas(1024) static unsigned char block_memory[227 << 10];

// Runs the threads first to before last as far as they can go: up to a barrier of the block, until they yield, or to
// their end. Where all of a warp meet, they go on.
static void run_warp(unsigned first, unsigned last, Place block, bool descending) {
    using namespace fibers;
    for (;;) {
        unsigned met = 0;
        for (unsigned i = first; i < last; i++) {
            current = descending ? first + last - 1 - i : i;
            threadIdx = place_of(current, block);
            if (states[current] < WAITING) {
                resume();
                if (!fault.empty()) return;
                events += states[current] != YIELDED;
            }
            met += states[current] == MEETING;
        }
        if (met == 0) return;
        if (met != last - first) throw std::string("threads of a warp part ways");
        for (unsigned i = first; i < last; i++) states[i] = READY;
    }
}

// A warp runs as far as it can before the next one does.
static void run_block(Place block, bool descending) {
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
        unsigned long before = events;
        unsigned warps = (count + 31) / 32, waiting = 0, ended = 0;
        for (unsigned w = 0; w < warps; w++) {
            unsigned first = 32 * (descending ? warps - 1 - w : w), last = first + 32 < count ? first + 32 : count;
            run_warp(first, last, block, descending);
            if (!fault.empty()) return;
        }
        for (State state : states) {
            waiting += state == WAITING;
            ended += state == ENDED;
        }
        if (ended == count) return;
        if (waiting == count) {
            states.assign(count, READY);
            meetings++;
        } else if (waiting + ended == count) {
            throw std::string("threads ended while others waited at a barrier");
        } else if (events == before) {
            engine.step();
        }
    }
}

template <class F>
static int launch(const unsigned* grid, const unsigned* block, unsigned shared_bytes, int barriers, int descending,
                  F kernel) {
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    unsigned blocks = grid[0] * grid[1] * grid[2], threads = block[0] * block[1] * block[2];
    static F* called;
    called = &kernel;
    fibers::body = [] { (*called)(); };
    fibers::fault.clear();
    try {
        if (shared_bytes > sizeof block_memory) throw std::string("more shared memory than a block can have");
        for (unsigned b = 0; b < blocks && fibers::fault.empty(); b++) {
            blockIdx = place_of(descending ? blocks - 1 - b : b, gridDim);
            if (shared_bytes) memset(block_memory, 0xFF, sizeof block_memory);
            if (barriers) {
                if (fibers::engine.begin) fibers::engine.begin(descending);
                run_block(blockDim, descending);
                if (fibers::engine.end && fibers::fault.empty()) fibers::engine.end();
            } else {
                for (unsigned t = 0; t < threads; t++) {
                    threadIdx = place_of(descending ? threads - 1 - t : t, blockDim);
                    kernel();
                }
            }
            unsigned char* beyond = block_memory + shared_bytes;
            unsigned rest = sizeof block_memory - shared_bytes;
            if (shared_bytes && rest && (*beyond != 0xFF || memcmp(beyond, beyond + 1, rest - 1)))
                throw std::string("wrote beyond its dynamic shared memory");
        }
    } catch (const std::string& thrown) {
        fibers::fault = thrown;
    }
    return !fibers::fault.empty();
}

extern "C" const char* launch_fault() { return fibers::fault.c_str(); }
