"""Machine code on disk: found again by content, made again where it is damaged, never many files; the engine `jit`."""

import numpy as np
import pytest

from ioaware.errors import InputError
from ioaware_kernels.jit_engine import JitEngine, code_of
from ioaware_kernels.launch import GridEngine, Module, launch
from ioaware_kernels.ptx.jit import compile as jit
from ioaware_kernels.ptx.parse import parse
from ioaware_kernels.tensors import Tensor
from tests.unit.ptx_kernels import load, store, text_of

TEXT = text_of([*load(0, "%r1"), "add.u32 %r1, %r1, 5;", *store(0, "%r1")], 1)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("IOAWARE_CACHE_DIR", str(tmp_path))
    return tmp_path / "jit"


@pytest.fixture
def made(monkeypatch):
    """How often LLVM was asked."""
    calls, real = [], jit._machine_code
    monkeypatch.setattr(jit, "_machine_code", lambda text: calls.append(text) or real(text))
    return calls


def compiled(text=TEXT):
    return jit.compiled(parse(text)["k"], text)


def test_machine_code_is_found_again(folder, made):
    first, again = compiled(), compiled()
    assert len(made) == 1
    assert [f.suffix for f in folder.iterdir()] == [".o"]
    assert first.frame_bytes == again.frame_bytes > 0


def test_another_kernel_processor_or_version_is_another_file(folder, made, monkeypatch):
    compiled()
    compiled(TEXT.replace(", 5;", ", 6;"))
    monkeypatch.setattr(jit, "_versions", lambda: "another")
    compiled()
    assert len(made) == len(list(folder.iterdir())) == 3


def test_the_versions_name_the_code_the_compiler_and_the_processor(monkeypatch):
    before = jit._versions.__wrapped__()
    for module, name in ((jit.llvmlite, "__version__"), (jit.llvm, "get_host_cpu_name")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, "other" if name == "__version__" else lambda: "other")
            assert jit._versions.__wrapped__() != before
    assert jit._versions.__wrapped__() == before


@pytest.mark.parametrize("damage", [
    lambda stored: b"", lambda stored: stored[:-1], lambda stored: stored[:40],
    lambda stored: stored[:50] + bytes([stored[50] ^ 1]) + stored[51:], lambda stored: bytes(len(stored)),
], ids=["empty", "cut", "cut short", "a bit", "zeros"])  # fmt: skip
def test_a_damaged_file_is_made_again(folder, made, damage):
    compiled()
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    compiled()
    assert len(made) == 2
    assert [f.read_bytes() for f in folder.iterdir()] == [whole]


def test_a_folder_that_cannot_be_written_to_only_costs_time(tmp_path, made, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("IOAWARE_CACHE_DIR", str(tmp_path / "file"))
    assert compiled().frame_bytes == compiled().frame_bytes
    assert len(made) == 2


def test_only_the_newest_files_are_kept(folder, monkeypatch):
    monkeypatch.setattr(jit, "MOST_FILES", 3)
    for n in range(5):
        compiled(TEXT.replace(", 5;", f", {n};"))
    assert len(list(folder.iterdir())) == 3


def test_where_the_cache_is(tmp_path, monkeypatch):
    assert jit.folder() == tmp_path / "jit"
    monkeypatch.delenv("IOAWARE_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert jit.folder() == tmp_path / "xdg" / "ioaware" / "jit"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert jit.folder() == tmp_path / ".cache" / "ioaware" / "jit"


# The engine


SCALED = """.visible .entry k(.param .u64 x, .param .f32 by) {
.reg .f32 %f<3>; .reg .b64 %d<3>; .reg .b32 %r<3>;
ld.param.u64 %d1, [x]; ld.param.f32 %f1, [by]; mov.u32 %r1, %tid.x; mad.wide.u32 %d1, %r1, 4, %d1;
ld.global.f32 %f2, [%d1]; mul.f32 %f2, %f2, %f1; st.global.f32 [%d1], %f2; ret;
}"""


def filled():
    return Tensor("x", (1, 1, 4, 8)).fill(np.arange(32, dtype=np.float32).reshape(1, 1, 4, 8))


def test_the_engine_is_called_like_the_grid(made):
    module, tensors = Module(SCALED), [filled(), filled()]
    results = [launch(module, "k", (1,), (32,), [t, 0.5], engine=e) for t, e in zip(tensors, (JitEngine(), GridEngine()), strict=True)]  # noqa: E501  # fmt: skip
    assert (tensors[0].values == tensors[1].values).all()
    assert tensors[0].values.ravel().tolist() == [n / 2 for n in range(32)]
    moved = [{(i.text, *rest): n for (i, *rest), n in r.counts.bytes.items()} for r in results]
    assert moved[0] == moved[1]
    launch(module, "k", (1,), (32,), [filled(), 0.5], engine=JitEngine())
    assert len(made) == 1


def test_the_engine_notes_what_is_written():
    out = Tensor("x", (1, 1, 4, 8))
    module = Module(SCALED.replace("ld.global.f32 %f2, [%d1];", "mov.f32 %f2, 0f3F800000;"))
    launch(module, "k", (1,), (31,), [out, 0.5], engine=JitEngine())
    assert not out.is_written
    launch(module, "k", (1,), (32,), [out, 0.5], engine=JitEngine())
    assert out.is_written


def test_an_opcode_that_is_not_run_is_refused():
    with pytest.raises(InputError, match="frob"):
        code_of(Module(SCALED.replace("mul.f32", "frob.f32")), "k")
