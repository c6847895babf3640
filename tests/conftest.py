"""One thread per process: the tests run side by side, and results must not depend on the number of cores."""

import collections
import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported, which the next import does

# The compiler that optimizers import loads LLVM, which crashes in a process that has loaded pygame before.
import torch._dynamo

torch.set_num_threads(1)


@pytest.fixture(params=["RecurrentA2C", "RecurrentPPO"])
def algorithm(request):
    """Each algorithm in turn, for what both promise."""
    from mnm_rl import agents

    return getattr(agents, request.param)


BAD_INPUT_SHARE = 10
"""CI takes one of so many of the cases in tests/test_refused_*.py."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    seen = collections.Counter()
    for item in items:
        if item.get_closest_marker("cuda") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="there is no GPU"))
        if item.path.name.startswith("test_refused_"):
            test = item.originalname
            if seen[test] % BAD_INPUT_SHARE:
                item.add_marker(pytest.mark.learning)
            seen[test] += 1
