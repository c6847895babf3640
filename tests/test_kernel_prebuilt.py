"""Which of the kernels that come with the package is taken, and when none is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from mnm_rl.kernels import build, compiler, prebuilt

AVX2 = "flags : fpu sse2 avx avx2 bmi1 bmi2 f16c fma abm movbe"
AVX512 = f"{AVX2} avx512f avx512bw avx512cd avx512dq avx512vl"
pytestmark = pytest.mark.skipif(
    prebuilt.platform.machine() != "x86_64" or prebuilt.platform.system() != "Linux",
    reason="prebuilt kernels are for Linux on x86-64",
)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of prebuilt kernels, and a processor with AVX-512."""
    folder = tmp_path / "prebuilt"
    folder.mkdir()
    monkeypatch.setattr(prebuilt, "FOLDER", folder)
    monkeypatch.setattr(compiler, "instruction_sets", lambda: AVX512)
    monkeypatch.delenv("MNM_RL_PREBUILT", raising=False)
    return folder


def put(folder: Path, kind: str, version: str = torch.__version__) -> Path:
    library = folder / f"{prebuilt.library_name(kind, version)}.so"
    library.write_text("library")
    compiler.checksum_file(library).write_text(compiler.checksum(library))
    return library


def test_the_best_kind_that_the_processor_has_is_taken(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    avx2 = put(installed, "avx2")
    assert prebuilt.find().library == avx2
    avx512 = put(installed, "avx512")
    assert prebuilt.find().library == avx512
    wide = put(installed, "avx512wide")
    assert prebuilt.find().library == avx512
    monkeypatch.setattr(compiler, "instruction_sets", lambda: f"{AVX512} avx_vnni")
    assert prebuilt.find().library == wide
    monkeypatch.setattr(compiler, "instruction_sets", lambda: f"{AVX2} avx_vnni")
    assert prebuilt.find().library == avx2
    monkeypatch.setattr(compiler, "instruction_sets", lambda: AVX2)
    assert prebuilt.find().library == avx2
    for lacking in ("fma", "movbe"):
        monkeypatch.setattr(compiler, "instruction_sets", lambda lacking=lacking: AVX2.replace(lacking, ""))
        assert prebuilt.find() == (None, "made for other processors than this one")
    avx2.unlink()
    monkeypatch.setattr(compiler, "instruction_sets", lambda: AVX2)
    assert prebuilt.find() == (None, "made for other processors than this one")


def test_one_is_taken_only_if_it_was_made_of_the_installed_sources(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = put(installed, "avx512")
    sources = tmp_path / "cpp"
    shutil.copytree(compiler.SOURCES, sources)
    monkeypatch.setattr(compiler, "SOURCES", sources)
    assert prebuilt.find().library == library
    changed = sources / "loop.h"
    changed.write_text(changed.read_text() + "\n")
    assert prebuilt.find().library is None
    assert prebuilt.find().reason.startswith("made of other sources, or with other flags")


def test_flags_and_sanitizers_are_part_of_what_must_fit(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(installed, "avx512")
    with monkeypatch.context() as patch:
        patch.setattr(compiler, "FLAGS", ("-O1",))
        assert prebuilt.find().library is None
    assert prebuilt.find().library is not None
    monkeypatch.setenv("MNM_RL_SANITIZE", "address")
    assert prebuilt.find().library is None


def test_one_for_another_torch_is_not_taken_and_the_reason_names_it(installed: Path) -> None:
    put(installed, "avx512", "2.8.0")
    put(installed, "avx2", "2.9.1+cu130")
    reason = f"made for torch 2.8, 2.9, not for {torch.__version__}"
    assert prebuilt.find() == (None, reason)
    assert prebuilt.torch_tag("2.9.1+cu130") == prebuilt.torch_tag("2.9.0") == "torch2_9"


def test_a_damaged_one_is_not_loaded_because_it_would_end_the_process(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops, "load_library", lambda path: pytest.fail(f"loaded {path}"))
    monkeypatch.setattr(build, "_kept_library", lambda: None)
    best, other = put(installed, "avx512"), put(installed, "avx2")
    best.write_text("libr")
    assert prebuilt.find().library == other, "one for fewer instructions takes its place"
    compiler.checksum_file(other).unlink()
    assert prebuilt.find().library is None
    assert prebuilt.find().reason == f"damaged, as the checksum beside it tells: {best.name}, {other.name}"
    assert "damaged" in build.find_kernel().reason


def test_they_can_be_left_alone(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert prebuilt.find() == (None, "none has come with this installation")
    put(installed, "avx512")
    monkeypatch.setenv("MNM_RL_PREBUILT", "0")
    assert prebuilt.find().library is None
    assert "MNM_RL_PREBUILT=0" in prebuilt.find().reason


def test_a_prebuilt_one_goes_before_one_that_is_kept(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, loaded = put(installed, "avx512"), []
    monkeypatch.setattr(torch.ops, "load_library", loaded.append)
    monkeypatch.setattr(build, "_kept_library", lambda: pytest.fail("looked for a kept one"))
    assert build.load_library() == library.stem
    assert loaded == [library]
    assert build.find_kernel()[:2] == ("prebuilt", library)


def test_where_a_prebuilt_one_does_not_load_another_is_kept_or_compiled(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, kept = put(installed, "avx512"), tmp_path / "kept.so"

    def load(path: Path) -> None:
        if path == library:
            raise OSError("made for another system")

    monkeypatch.setattr(torch.ops, "load_library", load)
    monkeypatch.setattr(build, "_kept_library", lambda: kept)
    assert build.load_library() == "kept"
    assert build.find_kernel() == ("compiled", kept, f"prebuilt kernels: {library.name} does not load")


def test_what_is_said_where_nothing_is_compiled_yet_or_cannot_be(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(installed, "avx512", "2.8.0")
    monkeypatch.setenv("MNM_RL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "temporary_cache", lambda: None)
    script = tmp_path / "cc"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    kernel = build.find_kernel()
    assert kernel[:2] == ("not compiled yet", tmp_path / "cache")
    assert f"{script} will compile it" in kernel.reason
    assert "made for torch 2.8" in kernel.reason
    monkeypatch.setenv("CXX", "no-such-compiler")
    kernel = build.find_kernel()
    assert kernel[:2] == ("none", None)
    assert "no-such-compiler" in kernel.reason
    assert "made for torch 2.8" in kernel.reason
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_clone_has_none() -> None:
    assert not prebuilt.FOLDER.exists()
