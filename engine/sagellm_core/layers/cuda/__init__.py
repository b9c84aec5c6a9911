"""The engine on NVIDIA GPUs: Triton kernels, attention over the paged cache, a fused decoder, recorded decode steps.

Brings triton, and is imported by the CUDA backend alone.
"""

__all__: list[str] = []
