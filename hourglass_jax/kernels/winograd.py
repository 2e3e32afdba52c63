"""3x3 convolutions with a quarter of the multiplications, for CPUs: Winograd's filtering, F(4x4, 3x3).

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), section 4. Tiles of 6 x 6 cells,
which start every 4 cells, and the kernel are transformed (BT d B, G g GT) and multiplied elementwise. Over
all channels this is one matrix product for each of the 36 elements. The inverse transform gives 4 x 4 cells
of the result (AT m A).
"""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np

TILE = 4  # cells of the result
TAPS = 3
# The points at which the polynomials of a tile and a kernel are multiplied, in addition to infinity. Compared
# with the usual (0, 1, -1, 2, -2), the error in float32 is less than half: about 3e-6 of the largest value.
POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)


def _matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(AT (4, 6), G (6, 3), BT (6, 6)), float64: AT ((G g) * (BT d)) is d correlated with g."""
    powers = np.vander(POINTS, TILE, increasing=True)
    at = np.vstack([powers, np.eye(TILE)[-1]]).T
    others = [[q for q in POINTS if q != p] for p in POINTS]
    norms = np.array([np.prod([p - q for q in rest]) for p, rest in zip(POINTS, others, strict=True)])
    g = np.vstack([powers[:, :TAPS] / norms[:, None], np.eye(TAPS)[-1]])
    # For each point the polynomial that is zero at all other points; for infinity the one that is zero at
    # all.
    rows = [np.append(np.poly(rest)[::-1], 0) for rest in others]
    return at, g, np.vstack([*rows, np.poly(POINTS)[::-1]])


AT, G, BT = _matrices()


def fits(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether x (b, h, w, c) and kernel (3, 3, c, d) have the sizes for this form, and it is faster for them.

    As measured, XLA's own convolutions are faster below 16 x 16 or 1024 cells, and below 32 channels.
    """
    b, h, w, _ = x.shape
    whole = h % TILE == 0 and w % TILE == 0
    large = min(h, w) >= 16 and b * h * w >= 1024 and min(kernel.shape[2:]) >= 32
    return kernel.shape[:2] == (TAPS, TAPS) and whole and large


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Correlates x (b, h, w, c), zero-padded, with a kernel (3, 3, c, d): (b, h, w, d).

    h and w are multiples of 4.
    """
    b, h, w, _ = x.shape
    spectrum = _combine(G, [_combine(G, list(kernel[:, j])) for j in range(TAPS)])  # (column, row, c, d)
    products = jnp.matmul(_tiles(x), spectrum.reshape(len(BT) ** 2, *kernel.shape[2:]))
    # Combine columns by a matrix product, which XLA does not fuse: one sum over 36 values whose addresses
    # differ by powers of two misses the cache.
    columns = _product(AT, products.reshape(len(BT), len(BT), b, h // TILE, w // TILE, -1))
    rows = _combine(AT, list(columns.transpose(1, 2, 3, 4, 0, 5)))  # (row, b, h / 4, w / 4, column, d)
    return rows.transpose(1, 2, 0, 3, 4, 5).reshape(b, h, w, -1)


def kernel_gradient(x: jax.Array, g: jax.Array) -> jax.Array:
    """The gradient (3, 3, c, d) of `convolve` with respect to its kernel, for the gradient g (b, h, w, d)."""
    b, h, w, d = g.shape
    tiles = g.reshape(b, h // TILE, TILE, w // TILE, TILE, d)
    rows = _combine(AT.T, [tiles[:, :, p] for p in range(TILE)])  # (6, b, h / 4, w / 4, 4, d)
    spectrum = _combine(AT.T, [rows[..., q, :] for q in range(TILE)]).reshape(len(BT) ** 2, -1, d)
    products = jnp.einsum("ntc,ntd->ncd", _tiles(x), spectrum)
    products = products.reshape(len(BT), len(BT), *products.shape[1:])  # column, row
    rows = _combine(G.T, list(products))
    return _combine(G.T, list(jnp.moveaxis(rows, 1, 0)))


def _tiles(x: jax.Array) -> jax.Array:
    """BT d B of each tile: (36, b * h / 4 * w / 4, c); the first index is column * 6 + row."""
    h, w, c = x.shape[1:]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    # Combine columns by a matrix product here, too.
    columns = jnp.stack([x[:, :, j : j + w - TAPS : TILE] for j in range(len(BT))])
    columns = _product(BT, columns)
    rows = _combine(BT, [columns[:, :, i : i + h - TAPS : TILE] for i in range(len(BT))], axis=1)
    return rows.reshape(len(BT) ** 2, -1, c)


def _product(matrix: np.ndarray, values: jax.Array) -> jax.Array:
    """matrix (m, n), values (n, ...) -> (m, ...); not flattened, so a batch stays spread over devices."""
    return jnp.tensordot(jnp.asarray(matrix, values.dtype), values, 1)


def _combine(matrix: np.ndarray, values: list[jax.Array], axis: int = 0) -> jax.Array:
    """matrix (m, n), n arrays -> their m weighted sums along a new axis, which XLA computes in one pass."""
    values = [jnp.expand_dims(value, axis) for value in values]
    columns = np.asarray(matrix, values[0].dtype).T
    shape = [-1 if i == axis else 1 for i in range(values[0].ndim)]
    terms = (column.reshape(shape) * value for column, value in zip(columns, values, strict=True))
    return functools.reduce(operator.add, terms)
