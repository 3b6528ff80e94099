"""Of what transformer blocks are made."""

from dataclasses import dataclass

from torch import nn

from ldm.nn.attention import SelfAttention
from ldm.nn.context_attention import ContextAttention
from ldm.nn.swiglu import SwiGLU


@dataclass(frozen=True)
class Parts:
    """The layers of a block, whatever hears the conditioning and how; one object makes those of a whole network.

    Attributes:
        width: channels of a token.
        num_heads: attention heads.
        mlp_ratio: hidden width of the perceptron in units of `width`; a gated one gets 2/3 of it.
        swiglu, rms_norm, qk_norm: see `DiT`.
    """

    width: int
    num_heads: int
    mlp_ratio: float = 4.0
    swiglu: bool = False
    rms_norm: bool = False
    qk_norm: bool = False

    def norm(self, affine: bool = False) -> nn.Module:
        """Without a scale and shift of its own where the conditioning gives them."""
        kind = nn.RMSNorm if self.rms_norm else nn.LayerNorm
        return kind(self.width, eps=1e-6, elementwise_affine=affine)

    def attention(self) -> SelfAttention:
        return SelfAttention(self.width, self.num_heads, self.qk_norm)

    def context_attention(self) -> ContextAttention:
        return ContextAttention(self.width, self.num_heads, self.qk_norm)

    def mlp(self) -> nn.Module:
        if self.swiglu:
            return SwiGLU(self.width, int(2 / 3 * self.mlp_ratio * self.width))
        hidden = int(self.width * self.mlp_ratio)
        return nn.Sequential(nn.Linear(self.width, hidden), nn.GELU("tanh"), nn.Linear(hidden, self.width))
