"""How fast the processor multiplies and adds: the bound of every kernel.

    $ python benchmarks/peak.py

A matrix product of torch's is no such bound. On AMD's processors its library, MKL, takes vectors of 32 bytes,
also where the processor has vectors of 64 and does a whole one at a time.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from pathlib import Path

from mnm_rl.kernels import compiler

PROGRAM = r"""
#include "vector.h"
#include <algorithm>
#include <chrono>
#include <cstdio>

#if defined(__x86_64__)
#define KEPT(v) asm volatile("" : "+v"(v))  // in a register, and not to be left out
#else
#define KEPT(v) asm volatile("" : "+w"(v))
#endif
#define ADD(v) v += a * b; KEPT(v)

// Twelve sums in registers, more than there are multiply-adds under way; each grows by a product.
int main() {
  using V = mnm::Vec<float>;
  constexpr long kTimes = 10'000'000;
  V a = mnm::broadcast(0.5f), b = mnm::broadcast(0.25f);
  double best = 0;
  for (int round = 0; round < 10; ++round) {
    V s0{}, s1{}, s2{}, s3{}, s4{}, s5{}, s6{}, s7{}, s8{}, s9{}, s10{}, s11{};
    const auto begun = std::chrono::steady_clock::now();
    for (long i = 0; i < kTimes; ++i) {
      KEPT(a);
      KEPT(b);
      ADD(s0); ADD(s1); ADD(s2); ADD(s3); ADD(s4); ADD(s5);
      ADD(s6); ADD(s7); ADD(s8); ADD(s9); ADD(s10); ADD(s11);
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begun;
    best = std::max(best, 2.0 * kTimes * 12 * mnm::kLanes<float> / seconds.count());
  }
  std::printf("%g %d\n", best, mnm::kVectorBytes);
}
"""


@functools.cache
def multiply_add_rate() -> tuple[float, int]:
    """Operations per second of one thread, in float32, and the bytes of a vector.

    Raises:
        mnm_rl.kernels.compiler.BuildError: there is no C++ compiler, or it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "peak.cpp"), Path(folder, "peak")
        source.write_text(PROGRAM)
        command = [*compiler.find_compiler(), *compiler.FLAGS, *compiler.NATIVE, f"-I{compiler.SOURCES}"]
        compiler.run_compiler([*command, str(source), "-o", str(program)])
        rate, size = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()
    return float(rate), int(size)


def processor_peak(threads: int) -> tuple[float, int] | None:
    """The same of several threads; None where there is no compiler that can tell."""
    try:
        rate, size = multiply_add_rate()
    except compiler.BuildError:
        return None
    return threads * rate, size


if __name__ == "__main__":
    try:
        rate, size = multiply_add_rate()
    except compiler.BuildError as error:
        sys.exit(str(error))
    print(f"{rate / 1e9:.0f} GFLOP/s in one thread, with vectors of {size} bytes")
