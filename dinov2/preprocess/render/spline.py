"""Size of the picture, fast: the cubic B-spline as one sparse matrix per axis. Needs one thread and no BLAS.

In: a float32 film [H, W]. Out: a float32 film [h, w]. What `itk.resample` computes, to rounding.

Interpolation by a cubic B-spline is linear and separable: picture = R film Cᵀ. A row of R holds the four weights of the
spline at one output position times the inverse of the prefilter, B⁻¹, which turns samples into coefficients. That
inverse is known in closed form (Unser, Aldroubi, Eden: B-spline signal processing II, IEEE Trans. Signal Processing 41,
1993): its entries fall by |√3 - 2| = 0.268 with every pixel away from the diagonal, so about 30 weights a row are above
rounding and nothing is solved. ITK mirrors the coefficients about the first and the last pixel; so do these matrices.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from dinov2.preprocess.radiograph import Film
from dinov2.preprocess.render.geometry import Size

POLE = np.sqrt(3.0) - 2.0
SMALLEST_WEIGHT = 1e-8  # float32 adds up with 6e-8
GAUSSIAN_TAIL = 1e-9
SIGMA_PER_STEP = 0.4  # of `antialias`: standard deviation in film pixels over film pixels per output pixel
CACHED_MATRICES = 64  # about 0.2 MB each; an archive's scanners have a handful of sizes
SAMPLED_STEPS = (37, 41)  # rows, columns: every so many are looked at for a film's offset


def resample(film: Film, *, size: Size, antialias: bool = False) -> Film:
    """[H, W] -> [h, w] float32 by the cubic B-spline on half-pixel-centred grids.

    Pixel i of an axis covers [i, i+1); output pixel j is taken at (j + 0.5) * n_in / n_out - 0.5. An axis whose size
    does not change is left as it is. With `antialias` an axis that shrinks is first smoothed by a Gaussian.
    """
    if film.shape == size:
        return film
    film, offset = _without_offset(np.ascontiguousarray(film, dtype=np.float32))
    # Rows first: the film is read as it lies in memory, and what is turned round is the small result.
    rows = _along_first_axis(film, num_out=size[0], antialias=antialias)
    turned = _along_first_axis(np.ascontiguousarray(rows.T), num_out=size[1], antialias=antialias)
    result = np.ascontiguousarray(turned.T)
    return result + offset if offset else result


@lru_cache(maxsize=CACHED_MATRICES)
def axis_matrix(num_in: int, num_out: int, *, antialias: bool) -> sparse.csr_array:
    """float32 CSR [n_out, n_in]: output positions from film pixels along one axis; every row sums to 1."""
    weights = _spline_matrix(num_in, num_out)
    if antialias and num_out < num_in:
        weights = weights @ gaussian_matrix(num_in, sigma_px=SIGMA_PER_STEP * num_in / num_out)
    weights.data[np.abs(weights.data) < SMALLEST_WEIGHT] = 0
    weights.eliminate_zeros()
    weights.data /= np.repeat(weights.sum(axis=1), np.diff(weights.indptr))
    return weights.astype(np.float32)


def gaussian_matrix(num: int, *, sigma_px: float) -> sparse.csr_array:
    """float64 CSR [n, n]: the discrete Gaussian of variance sigma² (Lindeberg: Scale-space for discrete signals, IEEE
    Trans. PAMI 12, 1990), which is ITK's, with the border pixels repeated outwards.
    """
    kernel = _gaussian_kernel(sigma_px)
    reach = len(kernel) // 2
    columns = np.clip(np.arange(num)[:, None] + np.arange(-reach, reach + 1), 0, num - 1)
    return _gathered(np.broadcast_to(kernel, columns.shape), columns, num_in=num)


def _along_first_axis(film: Film, *, num_out: int, antialias: bool) -> Film:
    if num_out == len(film):
        return film
    result: Film = axis_matrix(len(film), num_out, antialias=antialias) @ film
    return result


def _without_offset(film: Film) -> tuple[Film, np.float32]:
    """The film less a constant where it lies far from 0, because float32 rounds in proportion to the value and not to
    the range; and the constant. A constant film comes out as exactly 0.
    """
    sample = film[:: SAMPLED_STEPS[0], :: SAMPLED_STEPS[1]]
    low, high = float(sample.min()), float(sample.max())
    middle = np.float32((low + high) / 2)
    if abs(middle) > high - low:
        return film - middle, middle
    return film, np.float32(0)


def _spline_matrix(num_in: int, num_out: int) -> sparse.csr_array:
    """float64 CSR [n_out, n_in]: E B⁻¹ with E the spline at the output positions."""
    reach = int(np.ceil(np.log(SMALLEST_WEIGHT) / np.log(-POLE)))
    inverse = np.sqrt(3.0) * POLE ** np.abs(np.arange(-reach, reach + 1))  # a row of B⁻¹ far from the borders
    positions = (np.arange(num_out) + 0.5) * num_in / num_out - 0.5
    left = np.floor(positions)
    taps = _cubic_taps(positions - left)
    weights = np.zeros((num_out, len(inverse) + 3))
    for number in range(4):
        weights[:, number : number + len(inverse)] += taps[:, number : number + 1] * inverse
    columns = left.astype(np.int64)[:, None] - 1 - reach + np.arange(weights.shape[1])
    return _gathered(weights, _mirrored(columns, num_in), num_in=num_in)


def _cubic_taps(away: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n] in 0..1 from the pixel on the left -> [n, 4]: the cubic B-spline at the two pixels on either side."""
    near, far = away, 1 - away
    return np.stack([far**3, 4 - 6 * near**2 + 3 * near**3, 4 - 6 * far**2 + 3 * far**3, near**3], axis=1) / 6


def _mirrored(indices: NDArray[np.int64], num: int) -> NDArray[np.int64]:
    """Indices reflected about the first and the last pixel, as often as needed: ... 2 1 0 1 2 ... n-2 n-1 n-2 ..."""
    period = max(1, 2 * (num - 1))
    folded = np.abs(indices) % period
    return np.minimum(folded, period - folded) if num > 1 else np.zeros_like(indices)


def _gaussian_kernel(sigma_px: float) -> NDArray[np.float64]:
    """e^-t I_n(t) for t = sigma² and |n| <= reach, from its Fourier transform e^(t (cos w - 1)); sums to 1."""
    length = 64 + 64 * int(np.ceil(sigma_px))  # so long that the tails do not meet
    frequencies = 2 * np.pi * np.arange(length // 2 + 1) / length
    half = np.fft.irfft(np.exp(sigma_px**2 * (np.cos(frequencies) - 1)), length)[: length // 2]
    reach = int(np.argmax(half < GAUSSIAN_TAIL))
    kernel = np.concatenate([half[reach:0:-1], half[: reach + 1]])
    whole: NDArray[np.float64] = kernel / kernel.sum()
    return whole


def _gathered(weights: NDArray[np.float64], columns: NDArray[np.int64], *, num_in: int) -> sparse.csr_array:
    """[n, k] weights of [n, k] columns -> CSR [n, n_in]; weights that meet in one column are added."""
    num_rows, width = weights.shape
    starts = np.arange(0, weights.size + 1, width)
    matrix = sparse.csr_array((weights.ravel(), columns.ravel(), starts), shape=(num_rows, num_in))
    matrix.sum_duplicates()
    return matrix
