"""Every CUDA source compiles for every architecture it claims, and uses no more than a card has; without a GPU."""

import re
import subprocess
import tempfile
from functools import cache

import pytest

from kernels.cuda.hopper import STAGES, THREADS
from kernels.cuda.source import declared, program, sources, variants
from tests.kernels.cuda import nvrtc

pytestmark = pytest.mark.skipif(
    nvrtc.library() is None, reason="NVRTC is not installed: pip install 'nvidia-cuda-nvrtc==13.0.*'"
)

# Turing, Ampere (data center and other), Ada, Hopper and Blackwell; NVRTC 13 has no 7.0 any more.
ARCHITECTURES = ["75", "80", "86", "89", "90", "90a", "120"]
PORTABLE = [file for file in sources() if file != "hopper.cu"]
NOT_FOR = {("gemm_half.cu", "75"), ("implicit_gemm.cu", "75"), ("gemm_pieces.cu", "75"), ("gemm_split.cu", "75")}
# CuPy's own (cupy/cuda/compiler.py and cupy/_core/core.pyx, version 14.2).
OF_CUPY = ("-ftz=true",)


@cache
def compiled(file, types, architecture):
    return nvrtc.compile_source(program(file, types), architecture, OF_CUPY)


def check(file, types, architecture, threads=256, blocks=2):
    code, log = compiled(file, types, architecture)
    assert code[:4] == b"\x7fELF"
    used = nvrtc.uses(log)
    assert set(used) == set(declared(file))
    for name, use in used.items():
        assert (use.stack, use.spills) == (0, 0), (name, use)
        assert use.shared <= 48 << 10, (name, use)
        # So many blocks must find room on a multiprocessor.
        assert blocks * threads * use.registers <= 1 << 16, (name, use)
    assert "warning" not in log
    return code


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("file", PORTABLE)
def test_compiles_without_local_memory(file, architecture):
    if (file, architecture) in NOT_FOR:
        with pytest.raises(ValueError, match="sm_80 or higher"):
            check(file, variants(file)[0], architecture)
        return
    check(file, variants(file)[0], architecture)


@pytest.mark.parametrize("file", [file for file in PORTABLE if len(variants(file)) > 1])
def test_compiles_for_every_type(file):
    for types in variants(file)[1:]:
        check(file, types, "90")


def test_a_source_with_a_fault_does_not_compile():
    with pytest.raises(ValueError, match="nothing"):
        nvrtc.compile_source('extern "C" __global__ void faulty(int* x) { *x = nothing; }', "90")


def test_spills_and_local_memory_are_seen():
    """A run-time index into an array that does not fit into registers."""
    text = 'extern "C" __global__ void local(int* x, int n) { int v[99]; for (int i = 0; i < n; i++) v[i] = x[i * i];'
    _, log = nvrtc.compile_source(text + " x[0] = v[n / 2] + v[n / 3]; }", "90")
    assert nvrtc.uses(log)["local"].stack >= 396


def disassembled(code):
    """Return the instructions of each kernel, as text."""
    disassembler = nvrtc.find("*/bin/nvdisasm")
    if disassembler is None:
        pytest.skip("nvdisasm is not installed: pip install nvidia-cuda-nvdisasm==13.2.51")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code)
        file.flush()
        text = subprocess.run([disassembler, file.name], capture_output=True, text=True, check=True).stdout
    parts = re.split(r"\.section\s+\.text\.(\w+)", text)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize("architecture", ["80", "90", "120"])
def test_products_of_16_bits_use_tensor_cores(architecture):
    code = disassembled(check("gemm_half.cu", variants("gemm_half.cu")[0], architecture))["gemm_half"]
    # Two by four fragments, two pieces of the inner dimension a step.
    assert len(re.findall(r"\bHMMA\.16816\.F32\b", code)) == 16
    assert not re.search(r"\b(LDL|STL)\b", code)


@pytest.mark.parametrize("architecture", ["80", "86", "90", "120"])
def test_the_implicit_matrix_product_uses_tensor_cores_and_copies_past_registers(architecture):
    kernels = disassembled(check("implicit_gemm.cu", (), architecture))
    # Of a step: products of fragments, loads of fragments; copies of a step, and of those before the first.
    expected = {
        "half_64": ("HMMA.16816.F32", 16, 8, 3 * 4),
        "half_128": ("HMMA.16816.F32", 32, 12, 4 * 3),
        "tf32_64": ("HMMA.1688.F32.TF32", 2 * 8, 8, 3 * 4),
        "tf32_128": ("HMMA.1688.F32.TF32", 2 * 16, 12, 4 * 3),
        # Half a step at a time.
        "split_64": ("HMMA.1688.F32.TF32", 3 * 8, 4, 3 * 4),
    }
    assert set(kernels) == {f"implicit_gemm_{name}" for name in expected}
    for name, (product, products, loads, copies) in expected.items():
        code = kernels[f"implicit_gemm_{name}"]
        assert len(re.findall(rf"\b{re.escape(product)} ", code)) == products
        assert len(re.findall(r"\bLDSM\.16\.M88\.4 ", code)) == loads
        assert len(re.findall(r"\bLDGSTS\.E\.BYPASS\.128\b", code)) == copies
        assert not re.search(r"\b(LDL|STL)\b", code)


@pytest.mark.parametrize("architecture", ["80", "90", "120"])
def test_products_of_pieces_use_tensor_cores_and_copies_past_registers(architecture):
    kernels = disassembled(check("gemm_pieces.cu", variants("gemm_pieces.cu")[0], architecture))
    # Of a step: products of fragments, loads of fragments, as they are and transposed; copies of three steps.
    expected = {
        "gram": ("HMMA.16816.F32", 16, 0, 8, 3 * 3),
        "plain": ("HMMA.16816.F32", 16, 4, 4, 3 * 3),
        "mixed": ("HMMA.1688.F32.TF32", 32, 4, 0, 3 * 4),
    }
    for name, (product, products, loads, transposed, copies) in expected.items():
        code = kernels[f"gemm_pieces_{name}"]
        assert len(re.findall(rf"\b{re.escape(product)} ", code)) == products
        assert len(re.findall(r"\bLDSM\.16\.M88\.4 ", code)) == loads
        assert len(re.findall(r"\bLDSM\.16\.MT88\.4 ", code)) == transposed
        assert len(re.findall(r"\bLDGSTS\.E\.BYPASS\.128\b", code)) == copies
        assert not re.search(r"\b(LDL|STL)\b", code)


@pytest.mark.parametrize("architecture", ["80", "90", "120"])
def test_products_in_three_parts_use_tensor_cores_and_copies_past_registers(architecture):
    kernels = disassembled(check("gemm_split.cu", (), architecture))
    # Of half a step: three products for each of two by four fragments; loads of fragments; copies of three steps.
    for name, loads in (("gram", 0), ("plain", 2)):
        code = kernels[f"gemm_split_{name}"]
        assert len(re.findall(r"\bHMMA\.1688\.F32\.TF32 ", code)) == 3 * 8
        assert len(re.findall(r"\bLDSM\.16\.M88\.4 ", code)) == loads
        assert len(re.findall(r"\bLDGSTS\.E\.BYPASS\.128\b", code)) == 3 * 3
        assert not re.search(r"\b(LDL|STL)\b", code)


@pytest.fixture(scope="module")
def hopper():
    return disassembled(check("hopper.cu", (), "90a", threads=THREADS, blocks=1))


@pytest.mark.parametrize(("height", "block"), STAGES)
def test_the_hopper_kernel_uses_tensor_cores_and_the_copy_engine(hopper, height, block):
    code, matrices = hopper[f"hopper_conv_{height}_{block}"], height // 16
    # Three taps and four times 16 channels a step; one copy of the input and one of the weight; a store for each 64
    # pixels and 64 filters; both kinds of warpgroup.
    assert len(re.findall(rf"\bHGMMA\.64x{block}x16\.F32\b", code)) == 12 * matrices
    assert len(re.findall(r"\bUTMALDG\.3D\b", code)) == len(re.findall(r"\bUTMALDG\.4D\b", code)) == 1
    assert len(re.findall(r"\bUTMASTG\.3D\b", code)) == matrices * block // 64
    assert not re.search(r"\b(LDL|STL)\b", code)
    # Between the products no descriptor comes from a thread's own registers.
    assert "R2UR" not in code[code.index("HGMMA") : code.rindex("HGMMA")]
    # Either role makes do with the registers that it keeps or takes.
    _, *roles = code.split("USETMAXREG")
    assert len(roles) == 2
    for role in roles:
        most = 232 if "HGMMA" in role else 40
        assert max(int(number) for number in re.findall(r"\bR(\d+)\b", role)) < most


def test_the_hopper_kernel_is_for_hopper_alone():
    with pytest.raises(ValueError, match="sm_90"):
        nvrtc.compile_source(program("hopper.cu", ()), "90")
