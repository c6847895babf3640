"""A core in a training loop of your own, with truncated back-propagation through an endless stream.

    python examples/own_loop.py

The stream is random bits; at every step the model is asked which bit came ``DELAY`` steps before. The loop
gets ``CHUNK`` steps at a time. What the memory holds is handed on from chunk to chunk, gradients are not: in
the first ``DELAY`` steps of a chunk the answer is in the state alone.

Dimensions: ``T`` time, ``B`` batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mnm_rl import make_core
from mnm_rl.cores import detach_state

BATCH, CHUNK, DELAY, UPDATES = 32, 12, 3, 250


class BitStream:
    """``B`` endless streams of random bits."""

    def __init__(self) -> None:
        self.last_bits = torch.randint(2, (DELAY, BATCH)).float()

    def next_chunk(self) -> tuple[Tensor, Tensor]:
        """The next bits, and the bits to be given back, each ``[T, B]``."""
        bits = torch.cat([self.last_bits, torch.randint(2, (CHUNK, BATCH)).float()])
        self.last_bits = bits[-DELAY:]
        return bits[DELAY:], bits[:-DELAY]


def main() -> None:
    """Train, and print how many answers are wrong."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    small = {"hidden_size": 32, "key_size": 16, "value_size": 16, "memory_widths": (16, 16)}
    core = make_core("mnm-p", input_size=1, **small)
    head = nn.Linear(core.output_size, 1)
    parameters = [*core.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    stream, state = BitStream(), core.initial_state(BATCH)
    for update in range(1, UPDATES + 1):
        bits, targets = stream.next_chunk()
        output = core(bits.unsqueeze(2), state)  # resets=[T, B] would say where an episode starts
        logits = head(output.outputs).squeeze(2)
        loss = F.binary_cross_entropy_with_logits(logits, targets) + output.meta_loss.mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 10.0)
        optimizer.step()
        state = detach_state(output.state)  # the values go on, the graph ends here
        if update == 1 or update % 50 == 0:
            wrong = (logits > 0) != (targets > 0.5)
            print(
                f"update {update:3}: {wrong.float().mean():5.1%} of all answers are wrong, "
                f"{wrong[:DELAY].float().mean():5.1%} of those that only the state can give"
            )


if __name__ == "__main__":
    main()
