"""The ``triton`` backend: the time loop in Triton, one program per sequence, forward and backward.

Importing it imports Triton. Where the environment has ``TRITON_INTERPRET=1`` at that moment, the kernels run
in Triton's interpreter, on tensors of any device, slowly.

* ``layout``: what is compiled into the kernels, and the buffers that they share.
* ``tiles``: products, activations and tiles of the memory.
* ``forward`` and ``backward``: the two kernels.
* ``operation``: the differentiable operation around them.
"""

from mnm_rl.kernels.triton.operation import INTERPRETED, scan

__all__ = ["INTERPRETED", "scan"]
