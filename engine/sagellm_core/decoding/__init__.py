"""How tokens are chosen: `params` settles a request's parameters, `sampler` draws (and brings torch)."""

from sagellm_core.decoding.params import resolve_sampling

__all__ = ["resolve_sampling"]
