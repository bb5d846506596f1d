"""The ops ``torch.ops.fastgan.*``: schema, shape function and autograd formula of each stem. No maths."""

from fastgan.ops import bias_act, conv_norm_act, gradient_penalty, norm_act, spectral_norm

__all__ = ["bias_act", "conv_norm_act", "gradient_penalty", "norm_act", "spectral_norm"]
