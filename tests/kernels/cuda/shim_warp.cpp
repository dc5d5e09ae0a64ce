// The instructions of a warp and of the copies to shared memory of compute capability 8.0, on the CPU.
//
// Written from the PTX ISA, not from the kernels: the lanes of a warp lay down their registers, or the addresses that
// they give, where the ISA says that they belong, and after they have met each takes its own result. All lanes of a warp
// must come to each. What a kernel may not do is noted in ``fault``.

static const char* fault;
static std::vector<unsigned char> dynamic_memory;
constexpr unsigned SHARED_BEGIN = 1024;

static unsigned shared_memory() { return SHARED_BEGIN; }

// Sixteen bytes of dynamic shared memory; of its first, for the results' sake, where there are no such.
static unsigned char* sixteen_bytes(unsigned address) {
    bool inside = address >= SHARED_BEGIN && address + 16 <= SHARED_BEGIN + dynamic_memory.size();
    if (!inside) fault = "an address is outside of the dynamic shared memory";
    if (address % 16) fault = "an address in shared memory is not a multiple of 16";
    return &dynamic_memory[inside ? address - SHARED_BEGIN : 0];
}

// ---- cp.async ("Data Movement and Conversion Instructions: cp.async", "cp.async.wait_group") ----

struct Copy {
    unsigned char* target;
    const void* source;
    bool inside;
};
// Of each thread: the groups that are committed, and the one that is not.
static std::vector<std::vector<Copy>> committed[1024];
static std::vector<Copy> begun[1024];

// Until they are waited for, copies have not been made: the target holds not-a-number.
static void copy_piece(unsigned target, const void* source, bool inside) {
    if ((size_t)source % 16) fault = "an address in global memory is not a multiple of 16";
    unsigned char* place = sixteen_bytes(target);
    memset(place, 0xFF, 16);
    begun[fibers::current].push_back({place, source, inside});
}

static void commit_copies() {
    committed[fibers::current].push_back(std::move(begun[fibers::current]));
    begun[fibers::current].clear();
}

template <int PENDING>
static void await_copies() {
    auto& groups = committed[fibers::current];
    while (groups.size() > PENDING) {
        for (Copy& copy : groups.front()) {
            if (copy.inside)
                memcpy(copy.target, copy.source, 16);
            else
                memset(copy.target, 0, 16);
        }
        groups.erase(groups.begin());
    }
}

// ---- ldmatrix ("Warp-level matrix load instruction: ldmatrix") ----

// Row r of matrix i comes from the address that lane 8 i + r gives; lane l gets bytes 4 (l % 4) to 4 (l % 4) + 3 of row
// l / 4 of each matrix. The eight rows of a matrix, read at once, should not meet in a bank.
static unsigned char* matrix_rows[32][32];

static void give_rows(unsigned row) {
    unsigned warp = fibers::current / 32, lane = fibers::current % 32;
    matrix_rows[warp][lane] = sixteen_bytes(row);
    fibers::barrier(fibers::MEETING);
    for (unsigned other = lane / 8 * 8; other < lane; other++)
        if ((matrix_rows[warp][other] - matrix_rows[warp][lane]) % 128 == 0)
            fault = "two rows of a matrix meet in a bank";
}

static void load_matrices(unsigned (&values)[4], unsigned row) {
    give_rows(row);
    unsigned warp = fibers::current / 32, lane = fibers::current % 32;
    for (unsigned i = 0; i < 4; i++) memcpy(&values[i], matrix_rows[warp][8 * i + lane / 4] + 4 * (lane % 4), 4);
    fibers::barrier(fibers::MEETING);
}

// With .trans: lane l gets, of each matrix, numbers l / 4 of rows 2 (l % 4) and 2 (l % 4) + 1.
static void load_transposed(unsigned (&values)[4], unsigned row) {
    give_rows(row);
    unsigned warp = fibers::current / 32, lane = fibers::current % 32;
    for (unsigned i = 0; i < 4; i++)
        for (unsigned j = 0; j < 2; j++)
            memcpy((char*)&values[i] + 2 * j, matrix_rows[warp][8 * i + 2 * (lane % 4) + j] + 2 * (lane / 4), 2);
    fibers::barrier(fibers::MEETING);
}

static float load_float(unsigned address) {
    float value;
    memcpy(&value, sixteen_bytes(address / 16 * 16) + address % 16, 4);
    return value;
}

// ---- mma ("Matrix Fragments for mma.m16n8k16 with floating point type", "Matrix Fragments for mma.m16n8k8") ----

// The ISA leaves open how sums are rounded. Tensor cores cut them off (M. Fasi et al., "Numerical behavior of NVIDIA
// tensor cores", 2021): so here, once for each fragment.
static float cut_off(double value) {
    float nearest = value;
    return fabs((double)nearest) > fabs(value) ? nextafterf(nearest, 0) : nearest;
}

template <int INNER>
struct Fragments {
    float a[32][16][INNER], b[32][INNER][8];

    // Adds to the four values of D that a lane holds.
    void multiply(float* d) const {
        unsigned warp = fibers::current / 32, group = fibers::current % 32 / 4, inside = fibers::current % 4;
        for (unsigned i = 0; i < 4; i++) {
            unsigned row = i < 2 ? group : group + 8, column = inside * 2 + (i & 1);
            double sum = d[i];
            for (unsigned k = 0; k < INNER; k++) sum += (double)a[warp][row][k] * b[warp][k][column];
            d[i] = cut_off(sum);
        }
    }
};

// mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32
static void multiply_fragments(float* d, const unsigned* a, const unsigned* b) {
    static Fragments<16> fragments;
    unsigned warp = fibers::current / 32, group = fibers::current % 32 / 4, inside = fibers::current % 4;
    for (unsigned i = 0; i < 8; i++) {
        unsigned short bits = a[i / 2] >> 16 * (i % 2);
        unsigned row = i < 2 || (i >= 4 && i < 6) ? group : group + 8;
        unsigned column = inside * 2 + (i & 1) + (i < 4 ? 0 : 8);
        fragments.a[warp][row][column] = __builtin_bit_cast(_Float16, bits);
    }
    for (unsigned i = 0; i < 4; i++) {
        unsigned short bits = b[i / 2] >> 16 * (i % 2);
        fragments.b[warp][inside * 2 + (i & 1) + (i < 2 ? 0 : 8)][group] = __builtin_bit_cast(_Float16, bits);
    }
    fibers::barrier(fibers::MEETING);
    fragments.multiply(d);
    fibers::barrier(fibers::MEETING);
}

// mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32: of a factor the 13 low bits are not looked at.
static void multiply_tf32(float* d, const unsigned* a, const unsigned* b) {
    static Fragments<8> fragments;
    unsigned warp = fibers::current / 32, group = fibers::current % 32 / 4, inside = fibers::current % 4;
    for (unsigned i = 0; i < 4; i++) {
        unsigned row = i % 2 == 0 ? group : group + 8, column = i < 2 ? inside : inside + 4;
        fragments.a[warp][row][column] = __builtin_bit_cast(float, a[i] & ~0x1FFFu);
    }
    for (unsigned i = 0; i < 2; i++)
        fragments.b[warp][i == 0 ? inside : inside + 4][group] = __builtin_bit_cast(float, b[i] & ~0x1FFFu);
    fibers::barrier(fibers::MEETING);
    fragments.multiply(d);
    fibers::barrier(fibers::MEETING);
}

// cvt.rna.tf32.f32: to the nearest number of 10 fractional bits, of two the one of larger magnitude.
static unsigned rounded_to_tf32(float value) {
    unsigned bits = __builtin_bit_cast(unsigned, value);
    if ((bits & 0x7F800000) == 0x7F800000) return bits;
    return (bits + 0x1000) & ~0x1FFFu;
}

// ---- for the emulator ----

extern "C" void reserve_shared_memory(unsigned bytes) { dynamic_memory.assign(bytes, 0xFF); }

// What the last launch did that it may not, or null.
extern "C" const char* fault_of_launch() {
    for (unsigned t = 0; t < 1024; t++) {
        if (!committed[t].empty() || !begun[t].empty()) fault = "a copy to shared memory is not waited for";
        committed[t].clear();
        begun[t].clear();
    }
    return std::exchange(fault, nullptr);
}
