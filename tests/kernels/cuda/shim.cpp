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
enum State : char { FRESH, READY, YIELDED, WAITING, ENDED };
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

static void barrier() { leave(WAITING); }
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

// mma.sync.aligned.m16n8k16 with 16-bit factors: the threads of a warp lay down their registers where the PTX ISA says
// that they belong ("Matrix Fragments for mma.m16n8k16"), and after a barrier each adds up its own four sums. All
// threads of the block must come here.
static void multiply_fragments(float* d, const unsigned* a, const unsigned* b) {
    static _Float16 of_a[32][16][16], of_b[32][16][8];
    unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4, inside = lane % 4;
    for (unsigned i = 0; i < 8; i++) {
        unsigned short bits = a[i / 2] >> 16 * (i % 2);
        unsigned row = i < 2 || (i >= 4 && i < 6) ? group : group + 8;
        unsigned column = inside * 2 + (i & 1) + (i < 4 ? 0 : 8);
        of_a[warp][row][column] = __builtin_bit_cast(_Float16, bits);
    }
    for (unsigned i = 0; i < 4; i++) {
        unsigned short bits = b[i / 2] >> 16 * (i % 2);
        of_b[warp][inside * 2 + (i & 1) + (i < 2 ? 0 : 8)][group] = __builtin_bit_cast(_Float16, bits);
    }
    fibers::barrier();
    for (unsigned i = 0; i < 4; i++) {
        unsigned row = i < 2 ? group : group + 8, column = inside * 2 + (i & 1);
        for (unsigned k = 0; k < 16; k++) d[i] += (float)of_a[warp][row][k] * (float)of_b[warp][k][column];
    }
    fibers::barrier();
}

static Place place_of(unsigned thread, Place block) {
    return {thread % block.x, thread / block.x % block.y, thread / (block.x * block.y)};
}

// Dynamic shared memory, all that a block can have; a kernel's array of it is declared extern.
alignas(1024) static unsigned char block_memory[227 << 10];

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
        unsigned waiting = 0, ended = 0;
        unsigned long before = events;
        for (unsigned i = 0; i < count; i++) {
            current = descending ? count - 1 - i : i;
            threadIdx = place_of(current, block);
            if (states[current] < WAITING) {
                resume();
                if (!fault.empty()) return;
                events += states[current] != YIELDED;
            }
            waiting += states[current] == WAITING;
            ended += states[current] == ENDED;
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
