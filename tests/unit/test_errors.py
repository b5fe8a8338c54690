"""The tree of errors: one exit code a class, one text a class, messages that say everything."""

from __future__ import annotations

import errno
import json
import os
import pickle
import re

import pytest

from bsipatch import errors
from bsipatch._error_texts import TEXTS
from bsipatch.errors import BsipatchError, error_classes, from_os_error

CLASSES = list(error_classes().values())


def test_every_class_has_its_own_exit_code() -> None:
    codes = [cls.exit_code for cls in CLASSES]
    assert len(codes) == len(set(codes))
    assert all("exit_code" in vars(cls) for cls in CLASSES)
    assert all(0 < code < 126 or code == 130 for code in codes)


def test_every_class_has_a_text_and_every_text_a_class() -> None:
    assert set(TEXTS) == set(error_classes())
    for name, (summary, advice) in TEXTS.items():
        assert summary, name
        assert not summary.endswith("."), name
        assert advice.endswith(".") or not advice, name


def test_docstring_draws_the_tree_as_it_is() -> None:
    assert errors.__doc__ is not None
    drawn = dict(re.findall(r"(\w+Error) +(\d+) ", errors.__doc__))
    assert drawn == {name: str(cls.exit_code) for name, cls in error_classes().items()}


def test_drawn_parents_are_the_parents() -> None:
    assert errors.__doc__ is not None
    stack: list[tuple[int, str]] = []
    for line in errors.__doc__.splitlines():
        match = re.match(r"^([ │├└─]*)(\w+Error) ", line)
        if match is None:
            continue
        depth, name = len(match.group(1)), match.group(2)
        while stack and stack[-1][0] >= depth:
            stack.pop()
        if stack:
            assert error_classes()[name].__bases__[0].__name__ == stack[-1][1]
        stack.append((depth, name))


def test_what_errors_of_one_class_share_is_said_once() -> None:
    one = errors.TransferError("it answers 404", file="https://a.example/x")
    other = errors.MismatchError("another payload", file="https://b.example/x")
    told = errors.TransferError(f"no mirror gives it: {one.message}; {other.message}", file="x")
    assert told.message == (
        "x: the transfer failed: no mirror gives it: https://a.example/x: it answers 404; "
        "https://b.example/x: a digest differs from the expected one: another payload"
    )
    assert told.as_dict()["detail"].count("the transfer failed") == 0


def test_a_reason_with_its_own_stop_gets_no_second_one() -> None:
    error = errors.PolicyError("it is barred: Pages stay blank.", hint="Wait.")
    assert str(error) == "held back by policy: it is barred: Pages stay blank. Wait."


def test_message_says_file_offset_expected_found_and_what_to_do() -> None:
    error = errors.CorruptError(
        "cover.len", file="fix.bsp", offset=17, expected=8, found=b"\xab\xcd"
    )
    assert str(error) == (
        "fix.bsp: damaged or not made by bsipatch: cover.len (at byte 17, expected 8, found abcd). "
        "Get the file again from its source; do not trust it."
    )
    assert error.code == "corrupt"
    assert errors.WrongBaselineError().code == "wrong-baseline"


def test_own_hint_replaces_the_advice() -> None:
    assert str(errors.UsageError("no", hint="Say yes.")).endswith("no. Say yes.")
    assert errors.UsageError("no", hint="").hint == ""


@pytest.mark.parametrize("cls", CLASSES)
def test_survives_json_and_pickle(cls: type[BsipatchError]) -> None:
    error = cls("why", file="f", offset=1, expected=b"\1", found="x", hint="Do.")
    data = json.loads(json.dumps(error.as_dict()))
    assert data["error"] == error.code
    assert data["exit_code"] == cls.exit_code
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert str(again) == str(error)


@pytest.mark.parametrize(
    ("number", "cls"),
    [
        (errno.ENOENT, errors.NotFoundError),
        (errno.EEXIST, errors.ExistsError),
        (errno.ENOSPC, errors.NoSpaceError),
        (errno.EDQUOT, errors.NoSpaceError),
        (errno.EACCES, errors.SystemCallError),
        (errno.EROFS, errors.SystemCallError),
    ],
)
def test_system_errors(number: int, cls: type[BsipatchError]) -> None:
    error = from_os_error(OSError(number, "why", "name"))
    assert type(error) is cls
    assert error.file == "name"


def test_what_the_class_says_the_system_does_not_say_again() -> None:
    missing = OSError(errno.ENOENT, os.strerror(errno.ENOENT), "name")
    assert from_os_error(missing).message == "name: not found"
    assert from_os_error(missing, "x", "looking").message == "x: not found: looking"
    refused = OSError(errno.EACCES, os.strerror(errno.EACCES), "name")
    assert from_os_error(refused).message == (
        f"name: the operating system refused: {os.strerror(errno.EACCES)}"
    )


def test_subclasses_elsewhere_use_the_nearest_text() -> None:
    class Special(errors.StoreBusyError):
        pass

    assert Special().summary == TEXTS["StoreBusyError"][0]
    assert "Special" not in error_classes()
