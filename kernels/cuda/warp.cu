// Instructions of a warp and copies to shared memory, of compute capability 8.0 and later; every source is compiled behind
// them, and those that are for earlier cards too do not use them. Where this is compiled by a C++ compiler of the host,
// as the tests do, their shim supplies the same functions.
//
// Addresses in shared memory are those of the instructions, 32 bits. Fragments are as the PTX ISA has them.
// Source: PTX ISA 8.8, "cp.async", "ldmatrix", "Matrix Fragments for mma.m16n8k16 with floating point type", "Matrix
// Fragments for mma.m16n8k8", "cvt".

#ifdef __CUDACC_RTC__
// Where the block's dynamic shared memory begins.
__device__ __forceinline__ unsigned int shared_memory() {
    extern __shared__ __align__(128) unsigned char memory[];
    unsigned int address;
    asm("{.reg .u64 a; cvta.to.shared.u64 a, %1; cvt.u32.u64 %0, a;}" : "=r"(address) : "l"(memory));
    return address;
}

// Begins to copy 16 bytes to shared memory; zeros where there is nothing inside, and source is then not read.
__device__ __forceinline__ void copy_piece(unsigned int target, const void* source, bool inside) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(source), "r"(inside ? 16 : 0)
                 : "memory");
}

__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits for this thread's copies, all but those of the last PENDING groups.
template <int PENDING>
__device__ __forceinline__ void await_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Four matrices of eight rows of 16 bytes: lanes 8 i to 8 i + 7 give the rows of matrix i, and each gets 4 bytes.
__device__ __forceinline__ void load_matrices(unsigned int (&values)[4], unsigned int row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(values[0]), "=r"(values[1]), "=r"(values[2]), "=r"(values[3])
                 : "r"(row)
                 : "memory");
}

// The same, each matrix transposed: of rows that are the inner dimension.
__device__ __forceinline__ void load_transposed(unsigned int (&values)[4], unsigned int row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(values[0]), "=r"(values[1]), "=r"(values[2]), "=r"(values[3])
                 : "r"(row)
                 : "memory");
}

__device__ __forceinline__ float load_float(unsigned int address) {
    float value;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(value) : "r"(address) : "memory");
    return value;
}

// d += a b, for a warp: a is 16 x 16 halves, b is 16 x 8.
__device__ __forceinline__ void multiply_fragments(float* d, const unsigned int* a, const unsigned int* b) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The same where a is 16 x 8 and b is 8 x 8 in tf32.
__device__ __forceinline__ void multiply_tf32(float* d, const unsigned int* a, const unsigned int* b) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// A float32 as tf32, whose significand has 11 bits: the nearest, of two the one further from zero.
__device__ __forceinline__ unsigned int rounded_to_tf32(float value) {
    unsigned int bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
    return bits;
}
#endif

// The high part of a float32 number in tf32, in its place, and the low part: what is then missing, in tf32 again.
__device__ __forceinline__ void take_apart(unsigned int& high, unsigned int& low) {
    float value = __int_as_float(high);
    high = rounded_to_tf32(value);
    low = rounded_to_tf32(value - __int_as_float(high));
}

// d += a b of numbers that have been taken apart, in float32's own precision but for its last digit.
// Source: H. Ootomo, R. Yokota, "Recovering single precision accuracy from Tensor Cores while surpassing the FP32
// theoretical peak performance" (2022).
__device__ __forceinline__ void multiply_in_parts(float* d, const unsigned int* a, const unsigned int* low_a,
                                                  const unsigned int* b, const unsigned int* low_b) {
    // The small products first; that of the two low parts is below the last digit. Tensor cores do not round a sum but
    // cut it off: long ones are made outside.
    float few[4] = {};
    multiply_tf32(few, a, low_b);
    multiply_tf32(few, low_a, b);
    multiply_tf32(few, a, b);
#pragma unroll
    for (int j = 0; j < 4; j++) d[j] += few[j];
}
