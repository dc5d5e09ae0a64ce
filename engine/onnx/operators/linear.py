"""Matrix products."""

from __future__ import annotations

import numpy as np

from engine.onnx.operators.operator import Array, Call, Gradients, Operator, summed_to


def gemm(call: Call, A: Array, B: Array, C: Array | None = None) -> Array:
    """Return alpha A' B' + beta C, where A' and B' are A and B, transposed if asked for. Source: ONNX Gemm (opset 13).

    Parameters
    ----------
    A : (M, K), or (K, M) with ``transA``.
    B : (K, N), or (N, K) with ``transB``.
    C : what can be broadcast to (M, N), or None.
    """
    a, b = _turned(call, A, B)
    product: Array = a @ b
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)
    product = product if alpha == 1 else product * np.asarray(alpha).astype(product.dtype)
    if C is None:
        return product
    return product + (C if beta == 1 else C * np.asarray(beta).astype(C.dtype))


def gemm_input_gradients(
    call: Call, output_gradient: Array, output: Array, A: Array, B: Array, C: Array | None = None
) -> Gradients:
    """Return the gradients with respect to A, B and C."""
    a, b = _turned(call, A, B)
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)

    def of_a() -> Array:
        gradient: Array = alpha * (output_gradient @ b.T)
        return gradient.T if call.flag("transA") else gradient

    def of_b() -> Array:
        gradient: Array = alpha * (a.T @ output_gradient)
        return gradient.T if call.flag("transB") else gradient

    def of_c() -> Array:
        return beta * summed_to(output_gradient, () if C is None else C.shape)

    return of_a, of_b, of_c


def matmul(call: Call, A: Array, B: Array) -> Array:
    """Return the matrix product of A and B, over their last two axes. Source: ONNX MatMul (opset 13)."""
    return np.matmul(A, B)


def matmul_input_gradients(call: Call, output_gradient: Array, output: Array, A: Array, B: Array) -> Gradients:
    """Return the gradients with respect to A and B."""
    # A vector stands for a matrix of one row on the left, of one column on the right.
    a = A[None] if A.ndim == 1 else A
    b = B[:, None] if B.ndim == 1 else B
    gradient = output_gradient if A.ndim > 1 else np.expand_dims(output_gradient, -1 if B.ndim == 1 else -2)
    gradient = gradient[..., None] if B.ndim == 1 else gradient
    return (
        lambda: summed_to(np.matmul(gradient, b.swapaxes(-1, -2)), a.shape).reshape(A.shape),
        lambda: summed_to(np.matmul(a.swapaxes(-1, -2), gradient), b.shape).reshape(B.shape),
    )


def _turned(call: Call, A: Array, B: Array) -> tuple[Array, Array]:
    a, b = A.T if call.flag("transA") else A, B.T if call.flag("transB") else B
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ValueError(f"A has the shape {A.shape} and B {B.shape}, which do not fit as matrices")
    return a, b


OPERATORS = (
    Operator("Gemm", gemm, gemm_input_gradients),
    Operator("MatMul", matmul, matmul_input_gradients),
)
