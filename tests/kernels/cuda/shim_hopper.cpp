// What hopper.cu asks of compute capability 9.0, on the CPU: written from the PTX ISA 8.8, not from the kernel.
//
// Barriers ("mbarrier") count arrivals and bytes, phase by phase. Copies ("cp.async.bulk.tensor") and products
// ("wgmma.mma_async") are begun by a thread and done by the engine, as late as can be: only when no thread can go on by
// itself. Until then a copy's target holds not-a-number and so do a product's registers; products read shared memory
// when they are done. So a wait that is missing, or memory that is given back too early, shows as not-a-number; a wait
// that nothing will end shows as a fault that says who waits for what. A store ("cp.async.bulk.tensor" the other way)
// takes what shared memory holds at once, and finds it unchanged as late as can be. What a thread writes to shared
// memory is not there for the engine before the thread's fence. Other misuse is a fault where it happens.

#include <algorithm>
#include <cstddef>
#include <deque>
#include <map>

struct TensorMap;
struct float2 {
    float x, y;
};

namespace hopper {
// Shared memory as 32-bit addresses see it: 1024 bytes for variables, then the dynamic part.
constexpr unsigned DYNAMIC = 1024, GROUP = 128, REGISTERS = 65536;
constexpr unsigned NOT_A_NUMBER = 0xFFFFFFFF;

static void require(bool right, const char* fault) {
    if (!right) throw std::string(fault);
}

static unsigned thread() { return threadIdx.x; }

static unsigned char* shared(unsigned address, unsigned bytes) {
    require(address >= DYNAMIC && address + bytes <= DYNAMIC + sizeof block_memory,
            "a copy or a product goes beyond dynamic shared memory");
    return block_memory + address - DYNAMIC;
}

// The 128-byte swizzle: bits 4 to 6 of an address are combined with bits 7 to 9.
static unsigned swizzled(unsigned address) { return address ^ (address >> 7 & 7) << 4; }

// What each thread waits for, while it does; a thread that begins another wait has made a step.
struct Wait {
    const char* what;
    unsigned number, parity;
    bool operator==(const Wait&) const = default;
};
static std::vector<Wait> waits;

static void wait_a_while(Wait wait) {
    if (waits[thread()] != wait) {
        waits[thread()] = wait;
        fibers::events++;
    }
    fibers::yield();
}

static void waited() { waits[thread()] = {}; }

// Barriers.

struct Barrier {
    unsigned number, arrivals, pending, initializer;
    unsigned long meetings;
    unsigned phase;
    long bytes;
    bool ready;
};
static std::map<unsigned, Barrier> barriers;

static Barrier& barrier_at(unsigned address) {
    auto found = barriers.find(address);
    require(found != barriers.end(), "a barrier is used that is not initialized");
    Barrier& b = found->second;
    require(b.initializer == thread() || b.meetings < fibers::meetings,
            "a barrier is used that may not be initialized: its thread has not met this one since");
    return b;
}

static std::string named(const Barrier& b) { return "barrier " + std::to_string(b.number); }

static void count_down(Barrier& b, unsigned arrivals, long bytes) {
    if (b.pending < arrivals) throw "too many arrivals at " + named(b);
    b.pending -= arrivals;
    b.bytes -= bytes;
    if (b.bytes >= 1 << 20 || b.bytes <= -(1 << 20)) throw "the bytes of " + named(b) + " are out of range";
    if (b.pending == 0 && b.bytes == 0) {
        b.phase++;
        b.pending = b.arrivals;
    }
    fibers::events++;
}

// Copies.

// The emulator's tensor map: address, number of dimensions, then five sizes, four steps in bytes, five sides of the box.
struct Map {
    unsigned char* array;
    unsigned long long rank, sizes[5], steps[4], box[5];

    unsigned bytes() const {
        unsigned product = 2;
        for (unsigned d = 0; d < rank; d++) product *= box[d];
        return product;
    }
};
static_assert(sizeof(Map) == 128);

struct Copy {
    Map map;
    int origin[5];
    unsigned target, barrier;
};
static std::vector<Copy> copies;

static Map decoded(const TensorMap& given, size_t rank, unsigned shared_address) {
    Map map;
    require((size_t)&given % 64 == 0, "a tensor map is not aligned to 64 bytes");
    memcpy(&map, &given, sizeof map);
    require(map.rank == rank, "a copy and its tensor map differ in their dimensions");
    require(shared_address % 1024 == 0, "a copy in shared memory is not aligned to 1024 bytes, the swizzle's period");
    shared(shared_address, map.bytes());
    return map;
}

// Goes through a box value by value: where it lies in shared memory, and in the array or null if outside.
template <class F>
static void for_each_value(const Map& map, const int* origin, unsigned address, F visit) {
    for (unsigned number = 0; number < map.bytes() / 2; number++) {
        unsigned rest = number;
        long long offset = 0;
        bool inside = true;
        for (unsigned d = 0; d < map.rank; d++) {
            long long at = origin[d] + (long long)(rest % map.box[d]);
            rest /= map.box[d];
            inside = inside && at >= 0 && at < (long long)map.sizes[d];
            offset += at * (long long)(d ? map.steps[d - 1] : 2);
        }
        visit(swizzled(address + 2 * number), inside ? map.array + offset : nullptr);
    }
}

static void begin_copy(unsigned target, const TensorMap& given, unsigned barrier, std::initializer_list<int> origin) {
    Copy copy{decoded(given, origin.size(), target)};
    std::copy(origin.begin(), origin.end(), copy.origin);
    copy.target = target;
    copy.barrier = barrier;
    require(barrier_at(barrier).ready, "a barrier of a copy is initialized, but not for the copy engine");
    for (const Copy& other : copies)
        require(other.target + other.map.bytes() <= target || target + copy.map.bytes() <= other.target,
                "two copies are under way to the same memory");
    memset(shared(target, copy.map.bytes()), 0xFF, copy.map.bytes());
    copies.push_back(copy);
    fibers::events++;
}

static void finish_copy(const Copy& copy) {
    for_each_value(copy.map, copy.origin, copy.target, [](unsigned address, unsigned char* source) {
        if (source)
            memcpy(shared(address, 2), source, 2);
        else
            memset(shared(address, 2), 0, 2);
    });
    count_down(barriers.at(copy.barrier), 0, copy.map.bytes());
}

// Stores.

struct Store {
    Map map;
    int origin[5];
    unsigned source, thread;
    std::vector<unsigned char> data;
};
static std::vector<Store> stores;
// Of each thread: stores begun and not committed, and writes to shared memory since its last fence.
static std::vector<unsigned> not_committed;
static std::vector<std::vector<std::pair<unsigned, unsigned>>> writes;

static void finish_store(const Store& store) {
    require(!memcmp(store.data.data(), shared(store.source, store.data.size()), store.data.size()),
            "what a store reads was written again before it was read");
    for_each_value(store.map, store.origin, store.source, [](unsigned address, unsigned char* target) {
        if (target) memcpy(target, shared(address, 2), 2);
    });
    fibers::events++;
}

// Barriers of a warpgroup: how many threads have come, and how often it has opened.
struct Meeting {
    unsigned come, opened;
};
static Meeting meetings[16];

// Products.

struct Product {
    unsigned long long a, b;
    unsigned columns;
    bool add;
    unsigned threads;
    // Where each thread's registers are; what they held if no product on them was under way.
    float* registers[GROUP];
    std::vector<float> before;
};

struct Warpgroup {
    std::deque<Product> products;
    // Where each committed group of products ends, how many products and groups are done, sums that are under way.
    std::vector<unsigned> groups;
    unsigned done, done_groups;
    std::map<float*, std::vector<float>> sums;
    // Of each thread: products begun, groups committed and waited for; whether registers have been fenced.
    unsigned begun[GROUP], committed[GROUP], wanted[GROUP];
    bool fenced[GROUP];
    // Registers a thread: how many it has, and the change under way.
    unsigned registers, changing_to, changing;
};
static std::vector<Warpgroup> warpgroups;
static unsigned spare_registers;

static Warpgroup& own() { return warpgroups[thread() / GROUP]; }

static bool under_way(const Warpgroup& w, unsigned end, unsigned lane, const float* registers) {
    for (unsigned p = w.done; p < end; p++)
        if (w.products[p].registers[lane] == registers) return true;
    return false;
}

static void begin_product(float* d, unsigned columns, unsigned long long a, unsigned long long b, bool add) {
    Warpgroup& w = own();
    unsigned lane = thread() % GROUP, number = w.begun[lane]++, count = columns / 2;
    if (number == w.products.size()) w.products.push_back({a, b, columns, add});
    Product& product = w.products[number];
    require(product.a == a && product.b == b && product.columns == columns && product.add == add,
            "threads of a warpgroup differ in a product");
    product.threads++;
    product.registers[lane] = d;
    if (under_way(w, number, lane, d)) {
        for (unsigned i = 0; i < count; i++)
            require(__builtin_bit_cast(unsigned, d[i]) == NOT_A_NUMBER, "registers of a product under way were changed");
    } else {
        require(w.fenced[lane], "wgmma.fence is missing before a product");
        product.before.resize(64 * columns);
        std::copy(d, d + count, &product.before[lane * count]);
        memset(d, 0xFF, count * sizeof(float));
    }
}

// A K-major matrix of 16-bit numbers behind a matrix descriptor, transposed.
static void read_matrix(unsigned long long descriptor, unsigned rows, float (*values)[256]) {
    unsigned start = (descriptor & 0x3FFF) << 4, step = (descriptor >> 32 & 0x3FFF) << 4;
    require(descriptor >> 62 == 1, "a matrix descriptor is not of the 128-byte swizzle");
    require((descriptor >> 49 & 7) == (start >> 7 & 7), "a matrix begins within the swizzle's pattern");
    for (unsigned r = 0; r < rows; r++)
        for (unsigned c = 0; c < 16; c++) {
            _Float16 value;
            memcpy(&value, shared(swizzled(start + r / 8 * step + r % 8 * 128 + 2 * c), 2), 2);
            values[c][r] = (float)value;
        }
}

// Row and column of a thread's register i of m64nNk16's result.
static unsigned row_of(unsigned lane, unsigned i) { return 16 * (lane / 32) + lane % 32 / 4 + 8 * (i / 2 % 2); }
static unsigned column_of(unsigned lane, unsigned i) { return 8 * (i / 4) + 2 * (lane % 4) + i % 2; }

__attribute__((optimize("O3"))) static void finish_product(Warpgroup& w) {
    Product& product = w.products[w.done];
    unsigned columns = product.columns, count = columns / 2;
    require(product.threads == GROUP, "not all threads of a warpgroup take part in a product");
    static float a[16][256], b[16][256];
    read_matrix(product.a, 64, a);
    read_matrix(product.b, columns, b);
    std::vector<float>& sum = w.sums[product.registers[0]];
    sum.resize(64 * columns);
    if (!product.before.empty())
        for (unsigned lane = 0; lane < GROUP; lane++)
            for (unsigned i = 0; i < count; i++)
                sum[row_of(lane, i) * columns + column_of(lane, i)] = product.before[lane * count + i];
    if (!product.add) std::fill(sum.begin(), sum.end(), 0.0f);
    for (unsigned r = 0; r < 64; r++)
        for (unsigned k = 0; k < 16; k++)
            for (unsigned c = 0; c < columns; c++) sum[r * columns + c] += a[k][r] * b[k][c];
    w.done++;
    if (under_way(w, w.products.size(), 0, product.registers[0])) return;
    for (unsigned lane = 0; lane < GROUP; lane++) {
        w.fenced[lane] = false;
        for (unsigned i = 0; i < count; i++)
            product.registers[lane][i] = sum[row_of(lane, i) * columns + column_of(lane, i)];
    }
    w.sums.erase(product.registers[0]);
}

// Does the first group of products that somebody waits for; says whether there was one.
static bool finish_products() {
    for (Warpgroup& w : warpgroups) {
        unsigned wanted = 0, committed = ~0u;
        for (unsigned lane = 0; lane < GROUP; lane++) {
            wanted = std::max(wanted, w.wanted[lane]);
            committed = std::min(committed, w.committed[lane]);
        }
        if (w.done_groups >= wanted || w.done_groups >= committed) continue;
        while (w.done < w.groups[w.done_groups]) finish_product(w);
        w.done_groups++;
        fibers::events++;
        return true;
    }
    return false;
}

static void change_registers(unsigned count, bool more) {
    Warpgroup& w = own();
    require(count % 8 == 0 && count >= 24 && count <= 256, "setmaxnreg: an impossible number of registers");
    if (w.changing == 0) w.changing_to = count;
    require(w.changing_to == count, "threads of a warpgroup differ in setmaxnreg");
    require(more ? count >= w.registers : count <= w.registers, "setmaxnreg goes the wrong way");
    w.changing++;
    while (w.registers != count) {
        unsigned more_of_all = more ? (count - w.registers) * GROUP : 0;
        if (w.changing == GROUP && spare_registers >= more_of_all) {
            spare_registers += w.registers * GROUP;
            spare_registers -= count * GROUP;
            w.registers = count;
            fibers::events++;
        } else {
            wait_a_while({"setmaxnreg", count});
        }
    }
    waited();
    if (--w.changing == 0) w.changing_to = 0;
}

// The engine: products first, so that data that nobody waited for is not yet there; then one copy, of those under way
// the oldest or, for threads in descending order, the youngest; then one store, likewise.
static bool youngest_first;

template <class T>
static T taken(std::vector<T>& from) {
    auto chosen = youngest_first ? from.end() - 1 : from.begin();
    T result = std::move(*chosen);
    from.erase(chosen);
    return result;
}

static void begin_block(bool descending) {
    youngest_first = descending;
    unsigned threads = blockDim.x;
    require(blockDim.y * blockDim.z == 1 && threads % GROUP == 0, "a block is not made of warpgroups");
    barriers.clear();
    copies.clear();
    stores.clear();
    not_committed.assign(threads, 0);
    writes.assign(threads, {});
    std::fill(std::begin(meetings), std::end(meetings), Meeting{});
    waits.assign(threads, {});
    warpgroups.assign(threads / GROUP, {});
    // As many as the compiler gives a thread of the only block of a multiprocessor.
    unsigned registers = REGISTERS / threads / 8 * 8;
    for (Warpgroup& w : warpgroups) w.registers = registers;
    spare_registers = 0;
}

static void step() {
    if (finish_products()) return;
    if (!copies.empty()) return finish_copy(taken(copies));
    if (!stores.empty()) return finish_store(taken(stores));
    std::map<std::string, unsigned> waiting;
    for (unsigned t = 0; t < waits.size(); t++)
        if (fibers::states[t] == fibers::YIELDED)
            waiting[waits[t].what + (" " + std::to_string(waits[t].number)) + ", " + std::to_string(waits[t].parity)]++;
    std::string fault = "deadlock";
    for (auto& [what, threads] : waiting) fault += "; " + std::to_string(threads) + " wait for " + what;
    throw fault;
}

static void end_block() {
    require(copies.empty(), "a block ended while copies to its memory were under way");
    require(stores.empty(), "a block ended before its stores had read its memory");
    for (const auto& of_thread : writes) require(of_thread.empty(), "writes to shared memory were not fenced");
    for (const Meeting& meeting : meetings) require(meeting.come == 0, "a barrier of a warpgroup was not completed");
    for (Warpgroup& w : warpgroups) {
        require(w.done == w.products.size(), "a block ended before its products were done");
        require(w.changing == 0, "not all threads of a warpgroup take part in setmaxnreg");
    }
}

// fibers::engine is looked at after this has run, when the library is loaded.
static const bool installed = (fibers::engine = {begin_block, step, end_block}, true);
}  // namespace hopper

// The functions of hopper.cu.

static unsigned shared_address(const void* pointer) {
    static std::map<const void*, unsigned> variables;
    std::ptrdiff_t offset = (const unsigned char*)pointer - block_memory;
    if (offset >= 0 && offset < (std::ptrdiff_t)sizeof block_memory) return hopper::DYNAMIC + offset;
    return variables.try_emplace(pointer, 8 * variables.size()).first->second;
}

static int uniform(int number) { return number; }

static void barrier_init(unsigned address, unsigned arrivals) {
    using namespace hopper;
    require(address % 8 == 0 && arrivals > 0 && arrivals < 1 << 20, "a barrier cannot be initialized like this");
    Barrier made{(unsigned)barriers.size(), arrivals, arrivals, thread(), fibers::meetings};
    require(barriers.emplace(address, made).second, "a barrier is initialized twice");
}

static void barriers_are_ready() {
    for (auto& [address, barrier] : hopper::barriers) barrier.ready = true;
}

static void arrive(unsigned barrier) { hopper::count_down(hopper::barrier_at(barrier), 1, 0); }

static void arrive_expecting(unsigned barrier, unsigned bytes) {
    hopper::Barrier& b = hopper::barrier_at(barrier);
    b.bytes += bytes;
    hopper::count_down(b, 1, 0);
}

static bool try_wait(unsigned barrier, unsigned parity) {
    using namespace hopper;
    const Barrier& b = barrier_at(barrier);
    require(parity < 2, "a parity is 0 or 1");
    if (b.phase % 2 == parity) wait_a_while({"barrier", b.number, parity});
    if (b.phase % 2 == parity) return false;
    waited();
    return true;
}

static void copy_box(unsigned target, const TensorMap& map, unsigned barrier, int x, int y, int z) {
    hopper::begin_copy(target, map, barrier, {x, y, z});
}

static void copy_box(unsigned target, const TensorMap& map, unsigned barrier, int x, int y, int z, int w) {
    hopper::begin_copy(target, map, barrier, {x, y, z, w});
}

static void write_shared(unsigned address, unsigned value) {
    hopper::require(address % 4 == 0, "a write to shared memory is not aligned");
    hopper::shared(address, 4);
    hopper::writes[hopper::thread()].push_back({address, value});
}

static void writes_are_ready() {
    auto& own = hopper::writes[hopper::thread()];
    for (auto [address, value] : own) memcpy(hopper::shared(address, 4), &value, 4);
    own.clear();
}

static void store_box(const TensorMap& map, unsigned source, int x, int y, int z) {
    using namespace hopper;
    Store store{decoded(map, 3, source), {x, y, z}, source, thread()};
    unsigned char* begin = shared(source, store.map.bytes());
    store.data.assign(begin, begin + store.map.bytes());
    stores.push_back(store);
    not_committed[thread()]++;
}

static void stores_commit() { hopper::not_committed[hopper::thread()] = 0; }

static void stores_wait_for_reads() {
    using namespace hopper;
    require(not_committed[thread()] == 0, "a thread waits for stores that it has not committed");
    auto of_thread = [](const Store& store) { return store.thread == thread(); };
    while (std::any_of(stores.begin(), stores.end(), of_thread)) wait_a_while({"stores"});
    waited();
}

static void warpgroup_barrier(int number) {
    using namespace hopper;
    require(number > 0 && number < 16, "a barrier of a warpgroup has an impossible number");
    Meeting& meeting = meetings[number];
    unsigned opened = meeting.opened;
    if (++meeting.come == GROUP) {
        meeting.come = 0;
        meeting.opened++;
        fibers::events++;
    }
    while (meeting.opened == opened) wait_a_while({"the warpgroup's barrier", (unsigned)number});
    waited();
}

static void products_fence() { hopper::own().fenced[hopper::thread() % hopper::GROUP] = true; }

static void products_commit() {
    using namespace hopper;
    Warpgroup& w = own();
    unsigned lane = thread() % GROUP, number = w.committed[lane]++;
    if (number == w.groups.size()) w.groups.push_back(w.begun[lane]);
    require(w.groups[number] == w.begun[lane], "threads of a warpgroup differ in a group of products");
}

template <int PENDING>
static void products_wait() {
    using namespace hopper;
    Warpgroup& w = own();
    unsigned lane = thread() % GROUP, committed = w.committed[lane];
    w.wanted[lane] = committed > PENDING ? committed - PENDING : 0;
    while (w.done_groups < w.wanted[lane]) wait_a_while({"gemm", w.wanted[lane] - 1});
    waited();
}

template <int COLUMNS_BY_2>
static void multiply_tile(float (&d)[COLUMNS_BY_2], unsigned long long a, unsigned long long b, int add) {
    hopper::begin_product(d, 2 * COLUMNS_BY_2, a, b, add);
}

template <int COUNT>
static void registers_are_done(float (&)[COUNT]) {}

template <int COUNT>
static void give_registers() {
    hopper::change_registers(COUNT, false);
}

template <int COUNT>
static void take_registers() {
    hopper::change_registers(COUNT, true);
}

static unsigned pack_halves(float first, float second) {
    unsigned low = __builtin_bit_cast(unsigned short, (_Float16)first);
    return low | (unsigned)__builtin_bit_cast(unsigned short, (_Float16)second) << 16;
}
