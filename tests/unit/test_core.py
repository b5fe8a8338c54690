"""The wrappers of the native core: status mapping, lifetimes, buffers, cancellation."""

from __future__ import annotations

import mmap
import os
import random
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import bsipatch
from bsipatch import _core, errors
from bsipatch._core import Control, Diff, Patch, _native
from tests.support.native import CSRC

CHECK = bytes(8)
MAX = 1 << 40
HEADER = (CSRC / "include" / "bsipatch.h").read_text()
CDEF = (Path(_core.__file__).parent / "cdef.h").read_text()


def make(old: bytes, new: bytes, profile: str = "max") -> bytes:
    with Diff(old, new, profile=profile) as diff:
        return diff.finish(CHECK, CHECK)


def apply(old: bytes, patch: bytes) -> bytes:
    with Patch(patch, max_plain=MAX) as handle:
        handle.prepare(old)
        out = bytearray(handle.info.new_size)
        if out:
            handle.window(0, out)
        for index, (offset, length) in enumerate(handle.fills()):
            with memoryview(out) as view:
                handle.fill(index, view[offset : offset + length])
        return bytes(out)


def test_every_status_code_is_mapped() -> None:
    declared = {int(value) for value in re.findall(r"BSP_E_\w+ = (-\d+)", HEADER)}
    assert declared
    assert set(_native.STATUS_ERRORS) == declared


def test_every_status_code_has_a_text() -> None:
    unknown = _core.status_text(-12345)
    texts = [_core.status_text(code) for code in _native.STATUS_ERRORS]
    assert unknown not in texts
    assert len(set(texts)) == len(texts)
    assert all(text.endswith(".") for text in texts)


def test_cdef_declares_what_the_header_does() -> None:
    names = r"\b(?:bsp_|BSP_)\w+"
    private = {"BSP_MUST_CHECK", "BSP_VERSION_STRING"}
    code = re.sub(r"/\*.*?\*/", "", HEADER, flags=re.S)
    assert set(re.findall(names, CDEF)) == set(re.findall(names, code)) - private


def test_codecs_and_profiles_are_the_header_s() -> None:
    codecs = dict(re.findall(r"BSP_CODEC_(\w+) = (\d)", HEADER))
    assert {codec.name: str(codec.value) for codec in _core.Codec} == codecs
    profiles = dict(re.findall(r"BSP_PROFILE_(\w+) = (\d)", HEADER))
    assert {k.upper(): str(v) for k, v in _core.DIFF_PROFILES.items()} == profiles


def test_versions_agree() -> None:
    assert f'BSP_VERSION_STRING "{bsipatch.__version__}"' in HEADER


@pytest.mark.parametrize("profile", ["fast", "balanced", "max"])
def test_round_trip(profile: str) -> None:
    old = bytes(range(256)) * 300
    new = old[:5000] + b"something new" + old[5000:70000]
    assert apply(old, make(old, new, profile)) == new


def test_windows_may_be_asked_for_out_of_order_and_from_threads() -> None:
    step = _core.WINDOW_ALIGN
    old = bytes(range(251)) * 2000
    new = old[100:] + b"tail"
    made = bytearray(len(new))
    with Patch(make(old, new), max_plain=MAX) as handle:
        handle.prepare(old)

        def work(offset: int) -> None:
            buffer = bytearray(min(step, len(new) - offset))
            handle.window(offset, buffer)
            made[offset : offset + len(buffer)] = buffer

        threads = [
            threading.Thread(target=work, args=(at,)) for at in reversed(range(0, len(new), step))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert bytes(made) == new


def much_new() -> tuple[bytes, bytes]:
    """A pair whose literals get a code of their own, none in the first window."""
    old = bytes(range(251)) * 600
    return old, old[:120_000] + bytes(random.Random(7).choices(b"abcdefgh", k=100_000))


def test_windows_wait_for_what_finish_decodes() -> None:
    old, new = much_new()
    step = _core.WINDOW_ALIGN
    made = bytearray(len(new))
    with Patch(make(old, new), max_plain=MAX) as handle, memoryview(made) as view:
        assert handle.streams()[-1].codec == _core.Codec.MODEL_OWN
        handle.begin(old, jobs=2)
        handle.window(0, view[:step])  # which needs none of it
        others = [
            threading.Thread(target=handle.window, args=(at, view[at : at + step]))
            for at in range(step, len(new), step)
        ]
        for thread in others:
            thread.start()
        others[0].join(0.1)
        assert others[0].is_alive()
        handle.finish()
        for thread in others:
            thread.join()
    assert bytes(made) == new


def test_what_ends_finish_ends_those_who_wait() -> None:
    old, new = much_new()
    raised: list[BaseException] = []
    control = Control()
    control.cancel()
    with Patch(make(old, new), max_plain=MAX) as handle:
        handle.begin(old)

        def work() -> None:
            try:
                last = len(new) // _core.WINDOW_ALIGN * _core.WINDOW_ALIGN
                handle.window(last, bytearray(len(new) - last))
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        with pytest.raises(errors.CancelledError):
            handle.finish(control)
        thread.join()
        assert isinstance(raised[0], errors.CancelledError)
        with pytest.raises(errors.CancelledError):  # and those who come later
            handle.window(0, bytearray(_core.WINDOW_ALIGN))


def test_the_halves_of_preparing_come_once_and_in_order() -> None:
    with Patch(make(b"a" * 100, b"a" * 90), max_plain=MAX) as handle:
        with pytest.raises(errors.UsageError):
            handle.finish()
        handle.begin(b"a" * 100)
        with pytest.raises(errors.UsageError):
            handle.begin(b"a" * 100)
        handle.finish()
        handle.finish()  # nothing is left to do


def test_outputs_must_be_writable() -> None:
    with Patch(make(b"a" * 100, b"a" * 90), max_plain=MAX) as handle:
        handle.prepare(b"a" * 100)
        with pytest.raises((BufferError, TypeError, ValueError)):
            handle.window(0, bytes(90))


def test_buffers_are_pinned_while_open_and_let_go_after() -> None:
    old = bytearray(b"abc" * 1000)
    diff = Diff(old, old)
    with pytest.raises(BufferError):
        old.append(1)
    diff.close()
    diff.close()
    old.append(1)


def test_mapped_input(tmp_path: Path) -> None:
    path = tmp_path / "old"
    path.write_bytes(b"framework" * 5000)
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as old,
        Diff(old, b"new" * 9) as diff,
    ):
        assert diff.finish(CHECK, CHECK)


def test_use_after_close_is_an_error_of_the_caller() -> None:
    diff = Diff(b"a", b"b")
    diff.close()
    with pytest.raises(errors.UsageError):
        diff.streams()


def test_close_waits_for_a_call_inside() -> None:
    """Closing from another thread must not free the handle under a running call."""
    patch = Patch(make(b"a" * 1000, b"b" * 1000), max_plain=MAX)
    with patch._use() as pointer:
        patch.close()
        assert patch._pointer is pointer
    assert patch._pointer is None


@pytest.mark.parametrize(
    ("data", "cls"),
    [
        (b"", errors.TruncatedError),
        (b"not a patch at all, really not", errors.MagicError),
    ],
)
def test_not_a_patch(data: bytes, cls: type[errors.BsipatchError]) -> None:
    with pytest.raises((errors.TruncatedError, errors.MagicError)) as caught:
        Patch(data, max_plain=MAX)
    assert isinstance(caught.value, cls) or data == b""


def test_every_truncation_is_noticed() -> None:
    """Modelled streams aside: a range coder reads zeros behind its end, the digest notices."""
    patch = make(b"a" * 500, b"a" * 200 + b"xyz" * 50, "fast")
    for length in range(len(patch)):
        with pytest.raises(errors.FormatError), Patch(patch[:length], max_plain=MAX) as handle:
            handle.prepare(b"a" * 500)


def test_plain_limit() -> None:
    patch = make(b"", bytes(range(256)) * 10)
    with pytest.raises(errors.LimitError):
        Patch(patch, max_plain=3)


def test_wrong_old_size() -> None:
    patch = make(b"a" * 500, b"b")
    with Patch(patch, max_plain=MAX) as handle, pytest.raises(errors.OldMismatchError):
        handle.prepare(b"a" * 499)


def test_memory_budget() -> None:
    with pytest.raises(errors.MemoryLimitError):
        Diff(bytes(200_000), bytes(range(256)) * 800, memory_budget=1000)


def test_cancel_before_it_begins() -> None:
    control = Control()
    control.cancel()
    data = bytes(range(256)) * 4000
    with pytest.raises(errors.CancelledError):
        Diff(data, data[1:], control=control)


def test_checks_are_eight_bytes() -> None:
    with Diff(b"a", b"b") as diff, pytest.raises(errors.UsageError):
        diff.finish(b"short", CHECK)


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys; before = set(sys.modules); import bsipatch;"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"cffi", "zstandard", "cryptography", "msgspec", "typer", "dataclasses"}
    assert {name for name in loaded if name.startswith("bsipatch")} == {"bsipatch"}


@pytest.mark.skipif("BSIPATCH_SANITIZED" not in os.environ, reason="not a sanitized run")
def test_a_sanitized_run_tests_the_sanitized_core() -> None:
    assert "sanitized" in str(_native.__file__)
    (library,) = Path(_core.__file__).parent.glob("_bsipatch*.so")
    assert b"__asan_init" in library.read_bytes()
