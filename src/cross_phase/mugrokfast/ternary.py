r"""Ternary weights with a straight-through gradient, as BitNet b1.58 trains them.

With ``muon_ste_mode`` the optimizer keeps, for every parameter that Muon updates, a latent weight
:math:`W` in its state, and the model holds only the quantised :math:`Q(W)` of :func:`ternarize`.
Each step

1. takes the gradient that the backward pass left on the parameter, that is
   :math:`\partial L / \partial Q(W)`, as the gradient of :math:`W`: the straight-through estimator
   (Bengio et al., arXiv 1308.3432), which puts the identity in the place of
   :math:`\partial Q / \partial W`;
2. updates :math:`W` by Grokfast, Muon and weight decay as any parameter;
3. writes :math:`Q(W)` into the parameter.

So the model computes with ternary weights and can be saved as it is, and training resumes from the
optimizer's state. The latent weight is made at the first step, from the parameter as it is then:
only the first gradient is one of the full-precision weight. What else changes the parameter between
steps is overwritten. A module must not quantise such a weight again in its own forward pass.
"""

from torch import Tensor


def ternarize(weight: Tensor, eps: float = 1e-5) -> Tensor:
    r"""Round a weight to :math:`\{-\gamma, 0, \gamma\}`, with :math:`\gamma` its mean magnitude.

    Absmean quantisation, BitNet b1.58 (arXiv 2402.17764, equations 1 to 3):
    :math:`Q(W) = \gamma\,\mathrm{clip}(\mathrm{round}(W / (\gamma + \epsilon)), -1, 1)` with
    :math:`\gamma = \mathrm{mean}\,|W|`.

    Args:
        weight: A floating-point tensor of any shape; it is not modified.
        eps: Keeps the division defined for a weight of zeros.

    Returns:
        A tensor like ``weight`` with at most three different values.
    """
    scale = weight.abs().mean()
    return (weight / (scale + eps)).round_().clamp_(-1, 1).mul_(scale)
