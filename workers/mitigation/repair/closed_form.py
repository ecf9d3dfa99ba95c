"""The product of two thin matrices that takes back the most of a weight's error.

Let E = W − Ŵ be the error of a weight and C = E[x xᵀ] the second moment of its inputs. G = E[δ δᵀ] is that of the
divergence's gradient by its outputs (Fisher information). To second order the error causes a divergence of
½ tr(G E C Eᵀ). The product U V of rank R that leaves the least of it comes from the truncated singular
value decomposition of G^½ E C^½ (Eckart and Young). The nats that direction r takes back are ½ σ_r².

E C^½ alone is EoRA (arXiv 2410.21271, there with eigenvectors), QERA (2410.06040, exact solution) and LQER (2402.02446,
C by channel). G beside it is K-FAC's approximation of the Fisher information (Martens and Grosse, 1503.05671), which
makes directions of different modules comparable: ours. A root may be any S with S Sᵀ = C (the optimum is the same), so
both are Cholesky factors. And since U V = P E with P a projection, that of C is never inverted. G is of fewer tokens
than C and of labels drawn once, so what it has beside its diagonal is shrunk (Ledoit and Wolf 2004; by a constant).

Names: O outputs, I inputs, R rank.
"""

from dataclasses import dataclass

import torch

from app.contracts.errors import ErrorCode, HemostatError

# Of the mean input power, added to each channel's: directions that the text never showed stay bounded.
RIDGE = 1e-4
# Of the mean gradient power: a channel that no gradient reached still counts for something.
_LEAST_GRADIENT = 1e-3
# What is taken off the gradients' moments between different outputs.
_SHRINKAGE = 0.3
# Of layers with more outputs the moments of the gradient are taken by channel: the matrix, its root and what is on the
# way to it are half a gigabyte at this width, and grow with its square.
WHOLE_MOMENTS = 4096
# Singular values below this share of the largest are rounding.
_RANK_TOLERANCE = 1e-7


@dataclass(frozen=True)
class Factors:
    """`up_OR` · `down_RI` is what is added, float32; `gains_R` what each direction saves, falling."""

    up_OR: torch.Tensor
    down_RI: torch.Tensor
    gains_R: torch.Tensor

    @property
    def rank(self) -> int:
        """R."""
        return self.down_RI.shape[0]

    def first(self, rank: int) -> "Factors":
        """The best `rank` of them; all where there are no more."""
        return Factors(self.up_OR[:, :rank], self.down_RI[:rank], self.gains_R[:rank])

    def product(self) -> torch.Tensor:
        """What is added (O, I)."""
        return self.up_OR @ self.down_RI


@dataclass(frozen=True)
class Metric:
    """What an error of one layer costs, to second order: ½ tr(G E C Eᵀ) nats per token.

    `inputs_II` is a root of C, `outputs` one of G, (O, O) lower triangular or (O) where it is by channel; float64. Kept
    for a layer of which several errors are looked at: the roots take longer than the rest.
    """

    inputs_II: torch.Tensor
    outputs: torch.Tensor

    @classmethod
    def of(cls, moment_II: torch.Tensor, gradient: torch.Tensor | None, outputs: int) -> "Metric":
        """`moment_II` is E[x xᵀ], `gradient` E[δ δᵀ] (O, O) or its diagonal (O) (None: every output counts the same).
        ValueError if shapes do not fit, `HemostatError(ACTIVATIONS_NOT_FINITE)` if a moment is not finite."""
        square = moment_II.ndim == 2 and moment_II.shape[0] == moment_II.shape[1]
        if not square or (gradient is not None and gradient.shape not in ((outputs,), (outputs, outputs))):
            shape = None if gradient is None else tuple(gradient.shape)
            raise ValueError(f"{outputs} outputs with moments {tuple(moment_II.shape)} and {shape}")
        return cls(root_of(moment_II), _root_of_gradient(gradient, outputs))

    def solve(self, error_OI: torch.Tensor, *, most: int | None = None) -> Factors:
        """The `most` best directions (default: all that there are), split so that both factors of a direction have the
        same norm. ValueError if the shape does not fit."""
        return self.divide(error_OI, most=most)[0]

    def divide(self, error_OI: torch.Tensor, *, most: int | None = None) -> tuple[Factors, float]:
        """What `solve` gives, and the nats per token that it leaves."""
        scaled_OI = self._scaled(error_OI)
        weighted_OI = self._weighted(scaled_OI)
        outputs, inputs = error_OI.shape
        # Through the smaller of the two Gram matrices.
        if outputs <= inputs:
            values, vectors = torch.linalg.eigh(weighted_OI @ weighted_OI.T)
            values, left_OR = values.flip(0), vectors.flip(1)
            kept = _kept(values, most)
            left_OR = left_OR[:, :kept]
        else:
            values, vectors = torch.linalg.eigh(weighted_OI.T @ weighted_OI)
            values, vectors = values.flip(0), vectors.flip(1)
            kept = _kept(values, most)
            left_OR = torch.linalg.qr(weighted_OI @ vectors[:, :kept]).Q
        factors = balanced(self._unscaled(left_OR), left_OR.T @ scaled_OI, values[:kept] / 2)
        return factors, max(0.0, float(weighted_OI.square().sum() - values[:kept].sum()) / 2)

    def _scaled(self, error_OI: torch.Tensor) -> torch.Tensor:
        """G^½ E."""
        if error_OI.shape != (len(self.outputs), len(self.inputs_II)):
            shape = len(self.outputs), len(self.inputs_II)
            raise ValueError(f"an error {tuple(error_OI.shape)} with moments of {shape[0]} outputs, {shape[1]} inputs")
        error_OI = error_OI.to(torch.float64)
        return self.outputs[:, None] * error_OI if self.outputs.ndim == 1 else self.outputs.T @ error_OI

    def _unscaled(self, left_OR: torch.Tensor) -> torch.Tensor:
        if self.outputs.ndim == 1:
            return left_OR / self.outputs[:, None]
        found_OR: torch.Tensor = torch.linalg.solve_triangular(self.outputs.T, left_OR, upper=True)
        return found_OR

    def _weighted(self, scaled_OI: torch.Tensor) -> torch.Tensor:
        """G^½ E C^½."""
        return scaled_OI @ self.inputs_II


def solve(
    error_OI: torch.Tensor, moment_II: torch.Tensor, gradient: torch.Tensor | None = None, *, most: int | None = None
) -> Factors:
    """The `most` best directions of one error: see `Metric.of` and `Metric.solve`."""
    return Metric.of(moment_II, gradient, error_OI.shape[0]).solve(error_OI, most=most)


def root_of(moment_II: torch.Tensor, *, ridge: float = RIDGE) -> torch.Tensor:
    """S (I, I), float64, with S Sᵀ = moment + ridge · mean power · identity; raises the ridge until that is
    numerically positive.

    `HemostatError(ACTIVATIONS_NOT_FINITE)` if the moment is not finite.
    """
    if not bool(torch.isfinite(moment_II).all()):
        raise _not_finite()
    moment_II = moment_II.to(torch.float64, copy=True)
    diagonal_I = moment_II.diagonal().clone()
    power = float(diagonal_I.mean()) or 1.0
    while True:
        moment_II.diagonal().copy_(diagonal_I + ridge * power)
        found, info = torch.linalg.cholesky_ex(moment_II)
        if int(info) == 0:
            root_II: torch.Tensor = found
            return root_II
        ridge *= 10


def _not_finite() -> HemostatError:
    return HemostatError(
        ErrorCode.ACTIVATIONS_NOT_FINITE,
        "the second moment of a layer's inputs or gradients is NaN or infinite on the calibration text",
        hint=(
            "the model overflows in its dtype on this text: leave out earlier steps to find the cause, or calibrate "
            "on another text"
        ),
    )


def balanced(up_OR: torch.Tensor, down_RI: torch.Tensor, gains_R: torch.Tensor) -> Factors:
    """Float32 factors whose directions have the same norm on both sides."""
    left_R, right_R = up_OR.norm(dim=0), down_RI.norm(dim=1)
    share_R = torch.where(left_R * right_R > 0, (right_R / left_R.clamp_min(1e-30)).sqrt(), torch.ones_like(left_R))
    return Factors(
        (up_OR * share_R).float().contiguous(),
        (down_RI / share_R[:, None]).float().contiguous(),
        gains_R.float().contiguous(),
    )


def _root_of_gradient(gradient: torch.Tensor | None, outputs: int) -> torch.Tensor:
    """R, float64, with R Rᵀ = the shrunk moments: (O, O) lower triangular, or (O) where they are by channel."""
    if gradient is not None and not bool(torch.isfinite(gradient).all()):
        raise _not_finite()
    if gradient is None or not bool(gradient.any()):
        return torch.ones(outputs, dtype=torch.float64)
    if gradient.ndim == 1:
        gradient = gradient.to(torch.float64)
        return (gradient + _LEAST_GRADIENT * gradient.mean()).sqrt()
    shrunk_OO = gradient.to(torch.float64, copy=True)
    diagonal_O = shrunk_OO.diagonal().clone()
    shrunk_OO.mul_(1 - _SHRINKAGE).diagonal().copy_(diagonal_O)
    return root_of(shrunk_OO, ridge=_LEAST_GRADIENT)


def _kept(values: torch.Tensor, most: int | None) -> int:
    """How many falling eigenvalues of a Gram matrix count."""
    real = int((values > values[0] * _RANK_TOLERANCE**2).sum()) if float(values[0]) > 0 else 0
    return min(real, len(values) if most is None else most)
