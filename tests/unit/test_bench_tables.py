"""The repository's bench: generated files, the size table, documents, the command line's words."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import msgspec
import pytest

from bench import __main__ as command
from bench import corpora, documents, public, sizes, synthetic, tasks
from bench.sizes import Sizes
from bsipatch.bench import machine

KIB = 1 << 10


def built(plan: synthetic.Plan) -> bytes:
    out = io.BytesIO()
    length = synthetic.write(plan, out)
    assert length == len(out.getvalue())
    return out.getvalue()


# --- generated files ---


def test_the_same_arguments_give_the_same_bytes() -> None:
    one, two = ([built(plan) for plan in synthetic.plans(512 * KIB, 0.25)] for _ in range(2))
    assert one == two
    assert one[0] != one[1]


def test_blocks_are_those_of_the_older_build_but_for_the_share() -> None:
    old, new = synthetic.plans(64 * synthetic.BLOCK, 0.25)
    assert len(new.seeds) == len(old.seeds) + 1
    assert len(set(new.seeds) - set(old.seeds)) == 16 + 1


def test_calls_go_to_the_beginning_of_blocks() -> None:
    _, new = synthetic.plans(32 * synthetic.BLOCK, 0.1)
    data = built(new)
    place = 12
    start = 0x1000 + place * synthetic.BLOCK
    called = set()
    for at in range(start, start + synthetic.BLOCK, 32):
        (word,) = struct.unpack_from("<I", data, at)
        if word >> 26 == 0b100101:
            distance = (word & 0x3FFFFFF) - ((word & 0x2000000) << 1)
            target = at + 4 * distance
            assert (target - 0x1000) % synthetic.BLOCK == 0
            called.add((target - 0x1000) // synthetic.BLOCK)
    places = {seed & 0xFFFFFFFF: n for n, seed in enumerate(new.seeds) if seed < 1 << 33}
    assert called == {places[t] for t in new.targets[place]} - {place}


def test_it_is_an_executable_that_the_core_understands(tmp_path: Path) -> None:
    from bsipatch import delta

    old, new = synthetic.generate(1_000_000, 0.01, tmp_path)
    patch = tmp_path / "patch"
    delta.diff(old, new, patch, profile="balanced")
    told = delta.explain(patch, old)
    references = sum(row.references for row in told.rows)
    assert references > 20_000
    right = sum(row.right + row.overridden for row in told.rows)
    assert right > 0.95 * references


# --- sizes ---


@pytest.mark.parametrize(
    ("name", "feature"),
    [
        ("bun-linux-x64-1.2.23", True),
        ("node-22.20.0", True),
        ("swc-1.15.33", True),
        ("libvips-1.2.4", True),
        ("jscgtk4.1-amd64-252-254", True),
        ("webkitgtk4.1-amd64-252-254", True),
        ("jsc-android-241213-arm64", True),
        ("webkitgtk4.1-amd64-u1u2", False),
        ("chromium-amd64", False),
        ("QtWebEngineCore-fat-6.9.2", False),
    ],
)
def test_feature_releases(name: str, feature: bool) -> None:
    assert name in corpora.load_pairs()
    assert sizes.is_feature(name) is feature


def test_the_table_and_its_means() -> None:
    table = corpora.load_pairs()
    libssl, libcrypto = table["libssl-amd64"], table["libcrypto-amd64"]
    assert libssl.hdiffz_best
    assert libcrypto.hdiffz_best
    made = Sizes(
        "c", "e",
        {"max": {
            "libssl-amd64": libssl.hdiffz_best // 4,
            "libcrypto-amd64": libcrypto.hdiffz_best,
            "node-22.20.0": 1_000_000,
        }, "fast": {"libssl-amd64": 7}},
        {},
    )  # fmt: skip
    lines = sizes.markdown(made)
    assert lines[0] == (
        "| pair | new bytes | max | fast | HDiffPatch | ratio | Zucchini + xz | ratio |"
    )
    assert all(line.count("|") == lines[0].count("|") for line in lines)
    text = "\n".join(lines)
    assert text.index("**patch releases**") < text.index("**feature releases**")
    assert "**50.0 %**" in text
    assert "No sizes yet" in sizes.markdown(Sizes("c", "e", {}, {}))[0]


def test_sizes_are_kept(tmp_path: Path) -> None:
    made = Sizes("commit", "engine", {"max": {"a": 1}}, {"max": {"a": 0.5}})
    made.save(tmp_path / "sizes.json")
    assert Sizes.load(tmp_path / "sizes.json") == made
    assert Sizes.load(tmp_path / "none.json") is None


def test_made_once_and_taken_up_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(b"a" * 5000)
    new.write_bytes(b"a" * 5000 + b"b")
    monkeypatch.setattr(sizes, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(
        public, "obtain", lambda wanted, say, fetch: dict.fromkeys(wanted, (old, new))
    )
    said: list[str] = []
    wanted = ["libssl-amd64", "libxml2-deb12-amd64"]
    made = sizes.make(wanted, ["fast"], 1, said.append)
    assert set(made.sizes["fast"]) == set(wanted)
    assert len(said) == 2
    assert sizes.make(wanted, ["fast"], 1, said.append) == made
    assert len(said) == 2
    assert [path.suffix for path in (tmp_path / "results").iterdir()] == [".json"]


# --- documents ---


def test_marked_parts_are_replaced_and_nothing_else() -> None:
    text = "a\n<!-- bench:x -->\nold\n<!-- /bench:x -->\nb <!-- bench:y --> inline\n"
    made = documents.fill(text, {"x": lambda: ["new", "lines"]})
    assert made == (
        "a\n<!-- bench:x -->\n\nnew\nlines\n\n<!-- /bench:x -->\nb <!-- bench:y --> inline\n"
    )
    assert documents.fill(made, {"x": lambda: ["new", "lines"]}) == made
    assert documents.fill(text, {"x": lambda: None}) == text


def test_unknown_and_open_markers_are_errors() -> None:
    with pytest.raises(documents.MarkerError, match="nothing is called"):
        documents.fill("<!-- bench:x -->\n<!-- /bench:x -->\n", {})
    with pytest.raises(documents.MarkerError, match="not closed"):
        documents.fill("<!-- bench:x -->\n", {"x": list})


def test_the_documents_markers_are_known() -> None:
    for path in documents.DOCS.rglob("*.md"):
        documents.fill(path.read_text(), {name: lambda: None for name in documents.VIEWS})


# --- the command line ---


def test_tasks_are_named() -> None:
    assert command.chosen_tasks("") == command.TASKS
    assert command.chosen_tasks("apply,sizes") == ("diff", "apply")
    with pytest.raises(ValueError, match="no such task: fly"):
        command.chosen_tasks("fly")


def test_pairs_are_named() -> None:
    assert public.names([]) == list(corpora.SMALL)
    assert public.names(["libssl-amd64"]) == ["libssl-amd64"]
    assert not any(name.startswith("bundle-") for name in public.names([], everything=True))
    with pytest.raises(corpora.TableError, match="no such pair: nothing"):
        public.names(["nothing"])


def test_growing_contenders_exist() -> None:
    from bsipatch.bench.contenders import CONTENDERS

    assert set(tasks.GROWING) <= {one.name for one in CONTENDERS}


def test_a_store_from_end_to_end(tmp_path: Path) -> None:
    from bsipatch.bench import pairs

    for name, text in (("old", b"one" * 900), ("new", b"one" * 899 + b"two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "library").write_bytes(text)
    made = machine.begin((), tmp_path)
    plan = pairs.Plan(repeat=1, work=tmp_path)
    tasks.store("tiny", tmp_path / "old", tmp_path / "new", plan, made)
    tasks.start(plan, made)
    assert made.skipped == []
    assert {run.task for run in made.runs} == {
        "build", "init", "stage", "activate", "revert", "revert command", "start",
    }  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {"old", "new"}


def test_a_stopped_run_goes_on_where_nothing_else_differs(tmp_path: Path) -> None:
    fresh = machine.begin((), tmp_path)
    left = msgspec.structs.replace(fresh, date="earlier")
    path = tmp_path / "run.json"
    left.save(path)
    assert command.resumed(path, fresh) == left
    with pytest.raises(ValueError, match="commit"):
        command.resumed(path, msgspec.structs.replace(fresh, commit="another"))


def test_the_command_line_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"])
    assert "--resume" in capsys.readouterr().out
