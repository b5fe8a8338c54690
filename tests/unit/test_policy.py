"""The policy: its files, the rules that merge them, and what it says about one update."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsipatch.device import policy, policy_files
from bsipatch.device.conditions import Answer
from bsipatch.device.policy_files import ManagedFile
from bsipatch.device.policy_gate import gate
from bsipatch.device.policy_merge import DEFAULTS, TOGETHER, merge
from bsipatch.device.policy_schema import SCHEMAS, Hours, Managed, Settings, schema, shipped
from bsipatch.errors import ConfigError, PolicyError
from bsipatch.feed.decide import CODES

ME = os.geteuid()
DAY = 86_400


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where managed files lie."""
    made = tmp_path / "etc"
    made.mkdir(mode=0o755)
    return made


def put(path: Path, text: str, mode: int = 0o644) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def managed(*documents: dict[str, Any]) -> list[ManagedFile]:
    return [
        ManagedFile(Path(f"/m/{n}.json"), msgspec.convert({"format": 1, **document}, Managed))
        for n, document in enumerate(documents)
    ]


# --- schemas ---


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_shipped_schema_is_that_of_the_structs(name: str) -> None:
    assert json.loads(shipped(name)) == json.loads(json.dumps(schema(name)))


GOOD = [
    {"format": 1},
    {"format": 1, "automatic": "on", "removal": "forbidden", "deferral_days": 3},
    {"format": 1, "enforce": [{"id": "x", "by": "2026-03-17T10:00:00+01:00"}]},
    {"format": 1, "quiet_hours": [{"from": "22:00", "to": "06:30", "days": ["mon", "sun"]}]},
    {"format": 1, "mirrors": ["https://a.example/", "file:///media/stick"]},
]
BAD: list[Any] = [
    {},
    {"format": 2},
    {"format": 1, "automatic": "maybe"},
    {"format": 1, "automatic": True},
    {"format": 1, "deferral_days": 91},
    {"format": 1, "deferral_days": -1},
    {"format": 1, "deferral_days": 1.5},
    {"format": 1, "battery_floor": 101},
    {"format": 1, "channel": "nightly"},
    {"format": 1, "mirrors": ["ftp://a"]},
    {"format": 1, "mirrors": ["https://a b"]},
    {"format": 1, "quiet_hours": [{"from": "24:00", "to": "06:00"}]},
    {"format": 1, "quiet_hours": [{"from": "22:00"}]},
    {"format": 1, "enforce": [{"id": "", "by": "2026-03-17"}]},
    {"format": 1, "enforce": [{"id": "x", "by": "soon"}]},
    {"format": 1, "unknown": 1},
    [],
]


@pytest.mark.parametrize("document", [*GOOD, *BAD], ids=repr)
def test_a_general_validator_agrees_with_ours(document: Any) -> None:
    validator = pytest.importorskip("jsonschema").Draft202012Validator(schema("managed"))
    good = document in GOOD
    assert validator.is_valid(document) == good
    data = json.dumps(document).encode()
    if good:
        policy_files.check_managed(data, Path("m.json"))
    else:
        with pytest.raises(ConfigError) as error:
            policy_files.check_managed(data, Path("m.json"))
        assert error.value.file == "m.json"


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"quiet_hours": [{"from": "22:00", "to": "22:00"}]}, "same time"),
        ({"quiet_hours": [{"from": "1:00", "to": "22:00"}]}, "quiet_hours"),
        ({"quiet_hours": [{"from": "01:00", "to": "2:00\n"}]}, "quiet_hours"),
        ({"quiet_hours": [{"from": "01:00", "to": "02:00", "days": ["mon", "mon"]}]}, "twice"),
        ({"enforce": [{"id": "x", "by": "2026-02-31"}]}, "enforce.by"),
    ],
)
def test_rules_beyond_the_schema(document: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        policy_files.check_managed(json.dumps({"format": 1, **document}).encode(), Path("m.json"))


def test_a_day_ends_at_its_end() -> None:
    assert policy_files.moment("2026-03-17") == policy_files.moment("2026-03-18T00:00Z")
    assert policy_files.moment("2026-03-17T01:00+01:00") == policy_files.moment("2026-03-17T00:00Z")


# --- managed files ---


def test_managed_files_are_read_in_order(folder: Path) -> None:
    put(folder / "managed.toml", "format = 1\n[[enforce]]\nid = 'x'\nby = 2026-03-17\n")
    put(folder / "managed.d" / "20.json", '{"format": 1, "deferral_days": 2}')
    put(folder / "managed.d" / "10.toml", "format = 1\n")
    put(folder / "managed.d" / ".hidden.toml", "nonsense")
    put(folder / "managed.d" / "readme.txt", "nonsense")
    found = policy_files.read_managed(folder, owner=ME)
    assert [file.path.name for file in found] == ["managed.toml", "10.toml", "20.json"]
    assert found[0].policy.enforce is not None
    assert found[0].policy.enforce[0].by == "2026-03-17"
    assert policy_files.read_managed(folder / "nothing", owner=ME) == []


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_can_write_is_refused(folder: Path, mode: int) -> None:
    file = put(folder / "managed.toml", "format = 1\n", mode)
    with pytest.raises(ConfigError, match="writable by group or others") as error:
        policy_files.read_managed(folder, owner=ME)
    assert error.value.file == str(file)
    assert error.value.found == f"mode {mode:04o}"
    assert "chmod go-w" in error.value.hint


@pytest.mark.parametrize("below", ["", "managed.d"])
def test_a_folder_that_others_can_write_is_refused(folder: Path, below: str) -> None:
    put(folder / below / ("managed.toml"), "format = 1\n")
    (folder / below).chmod(0o777)
    with pytest.raises(ConfigError, match=r"the folder .* is writable"):
        policy_files.read_managed(folder, owner=ME)
    (folder / below).chmod(0o1777)  # sticky does not help: anyone could add a file
    with pytest.raises(ConfigError, match=r"the folder .* is writable"):
        policy_files.read_managed(folder, owner=ME)


@pytest.mark.root
def test_a_file_of_someone_else_is_refused(folder: Path) -> None:
    file = put(folder / "managed.toml", "format = 1\n")
    os.chown(file, 4321, 4321)
    with pytest.raises(ConfigError, match="belongs to someone else") as error:
        policy_files.read_managed(folder)
    assert error.value.found == "user 4321"


def test_links_and_folders_are_no_policy(folder: Path) -> None:
    (folder / "managed.json").mkdir()
    with pytest.raises(ConfigError, match="not a regular file"):
        policy_files.read_managed(folder, owner=ME)
    (folder / "managed.json").rmdir()
    put(folder / "real", '{"format": 1}')
    (folder / "managed.json").symlink_to("real")
    with pytest.raises(ConfigError, match="cannot read it"):
        policy_files.read_managed(folder, owner=ME)


def test_a_policy_below_a_linked_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    put(folder / "managed.toml", "format = 1\n")
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(ConfigError, match="below a link"):
        policy_files.read_managed(tmp_path / "link", owner=ME)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("managed.toml", "format = ", "not TOML"),
        ("managed.json", "{", "not JSON"),
        ("managed.json", "[" * 100_000, "array"),
        ("managed.toml", "x = " + "[" * 100_000, "not TOML"),
        ("managed.json", '{"format": 1, "enforce": [{"id": ' + "[" * 9_999, "JSON|array"),
        ("managed.json", '{"format": 1, "x": 1}', "unknown field `x`"),
        ("managed.json", " " * (2 << 20), "too large"),
    ],
)
def test_a_broken_policy_stops_everything(folder: Path, name: str, text: str, words: str) -> None:
    put(folder / name, text)
    with pytest.raises(ConfigError, match=words):
        policy_files.read_managed(folder, owner=ME)


# --- settings ---


def test_settings_keep_comments_and_are_checked(tmp_path: Path) -> None:
    file = put(tmp_path / "settings.toml", '# mine\nchannel = "beta"  # braver\n')
    made = policy_files.write_settings(tmp_path, {"automatic": False, "bandwidth": 1000})
    assert made == Settings(automatic=False, channel="beta", bandwidth=1000)
    assert "# mine" in file.read_text()
    assert "# braver" in file.read_text()
    assert policy_files.read_settings(file) == made
    assert policy_files.write_settings(tmp_path, {"channel": None}).channel is None
    before = file.read_bytes()
    with pytest.raises(ConfigError, match="bandwidth"):
        policy_files.write_settings(tmp_path, {"bandwidth": -1})
    assert file.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["settings.toml"]


def test_broken_settings_are_not_overwritten(tmp_path: Path) -> None:
    file = put(tmp_path / "settings.toml", "automatic = 3\n")
    with pytest.raises(ConfigError, match="automatic"):
        policy_files.write_settings(tmp_path, {"channel": "beta"})
    assert file.read_text() == "automatic = 3\n"


def test_no_settings_are_defaults(tmp_path: Path) -> None:
    made = policy.load(tmp_path, managed=tmp_path / "none", owner=ME)
    assert {name: getattr(made, name) for name in DEFAULTS} == DEFAULTS
    assert {origin.rule for origin in made.origins.values()} == {"default"}


# --- merging ---


@pytest.mark.parametrize(
    ("name", "documents", "value", "rule", "origins"),
    [
        ("automatic", [{"automatic": "on"}, {"automatic": "off"}], False, "all-allow", (1,)),
        ("automatic", [{"automatic": "on"}], True, "managed-wins", (0,)),
        ("install", [{"install": "forbidden"}, {"install": "allowed"}], False, "all-allow", (0,)),
        ("removal", [{"removal": "allowed"}, {"removal": "forbidden"}], False, "all-allow", (1,)),
        ("deferral_days", [{"deferral_days": 3}, {"deferral_days": 7}], 7, "longest", (1,)),
        ("channel", [{"channel": "beta"}, {"channel": "release"}], "release", "most-tried", (1,)),
        ("channel", [{"channel": "beta"}, {"channel": "developer"}], "beta", "most-tried", (0,)),
        ("metered", [{"metered": "allow"}, {"metered": "wait"}], "wait", "strictest", (1,)),
        ("bandwidth", [{"bandwidth": 0}, {"bandwidth": 9}], 9, "smallest", (1,)),
        ("battery_floor", [{"battery_floor": 5}, {"battery_floor": 50}], 50, "largest", (1,)),
        ("only_idle", [{"only_idle": False}, {"only_idle": True}], True, "strictest", (1,)),
        ("reports", [{"reports": True}, {"reports": False}], False, "all-agree", (1,)),
        (
            "mirrors",
            [{"mirrors": ["https://b/", "https://a/"]}, {"mirrors": ["https://a/"]}],
            ("https://b/", "https://a/"),
            "in-order",
            (0, 1),
        ),
        (
            "enforce_after_days",
            [{"enforce_after_days": 9}, {"enforce_after_days": 4}],
            4,
            "shortest",
            (1,),
        ),
    ],
)
def test_rules_among_managed_files(
    name: str, documents: list[dict[str, Any]], value: Any, rule: str, origins: tuple[int, ...]
) -> None:
    for flipped in (False, True):
        made = merge(Settings(), managed(*documents))
        assert getattr(made, name) == value
        origin = made.origins[name]
        assert origin.rule == rule
        assert origin.origins == tuple(f"/m/{n}.json" for n in origins)
        if name in ("mirrors",) or len(documents) == 1:
            break
        if not flipped:  # the order of the files must not matter
            documents = documents[::-1]
            origins = tuple(1 - n for n in origins)


_FILES = st.fixed_dictionaries(
    {},
    optional={
        "automatic": st.sampled_from(["on", "off"]),
        "install": st.sampled_from(["allowed", "forbidden"]),
        "removal": st.sampled_from(["allowed", "forbidden"]),
        "deferral_days": st.integers(0, 90),
        "enforce_after_days": st.integers(0, 90),
        "channel": st.sampled_from(["release", "beta", "developer"]),
        "metered": st.sampled_from(["wait", "allow"]),
        "bandwidth": st.integers(0, 5),
        "battery_floor": st.integers(0, 100),
        "only_idle": st.booleans(),
        "reports": st.booleans(),
    },
)


@given(st.lists(_FILES, max_size=4), st.randoms(use_true_random=False))
def test_neither_order_nor_repetition_of_files_changes_a_value(
    documents: list[dict[str, Any]], draw: Any
) -> None:
    def values(files: list[dict[str, Any]]) -> dict[str, Any]:
        made = merge(Settings(), managed(*files))
        return {name: getattr(made, name) for name in DEFAULTS}

    shuffled = list(documents)
    draw.shuffle(shuffled)
    assert values(documents) == values(shuffled) == values(documents + shuffled)
    made = merge(Settings(automatic=True, reports=True), managed(*documents))
    for name in DEFAULTS:  # whoever is named as the origin asked for just that value
        said = {str(n): d.get(name) for n, d in enumerate(documents)}
        assert made.managed(name) == any(value is not None for value in said.values())


def test_enforcement_takes_the_earliest_moment_of_each_update() -> None:
    made = merge(
        Settings(),
        managed(
            {"enforce": [{"id": "b", "by": "2026-03-20"}, {"id": "a", "by": "2026-03-20"}]},
            {"enforce": [{"id": "a", "by": "2026-03-18T10:00Z"}]},
        ),
    )
    assert [(item.id, item.by) for item in made.enforce] == [
        ("a", "2026-03-18T10:00Z"),
        ("b", "2026-03-20"),
    ]
    assert policy.deadline(made, "b", 0) == policy_files.moment("2026-03-20")
    assert policy.deadline(made, "c", 0) is None


MANAGED_VALUES: dict[str, tuple[Any, Any, Any]] = {
    # what the owner says, what the administrator says, what holds
    "automatic": (True, "off", False),
    "channel": ("developer", "release", "release"),
    "quiet_hours": ((Hours("01:00", "02:00"),), ({"from": "03:00", "to": "04:00"},), None),
    "metered": ("wait", "allow", "allow"),
    "battery_floor": (100, 10, 10),
    "only_idle": (True, False, False),
}


@pytest.mark.parametrize("name", MANAGED_VALUES)
def test_what_is_managed_wins_over_the_owner(name: str) -> None:
    ours, theirs, value = MANAGED_VALUES[name]
    made = merge(Settings(**{name: ours}), managed({name: theirs}))
    expected = (Hours("03:00", "04:00"),) if value is None else value
    assert getattr(made, name) == expected
    assert made.managed(name)
    assert made.origins[name].rule == "managed-wins"
    assert made.origins[name].passed_over == (("owner", ours),)
    with pytest.raises(PolicyError) as error:
        policy.allow_change(made, name)
    assert error.value.file == "/m/0.json"


def test_the_owner_may_be_stricter_where_both_count() -> None:
    made = merge(Settings(bandwidth=100, reports=False), managed({"bandwidth": 500}))
    assert (made.bandwidth, made.origins["bandwidth"].origins) == (100, ("owner",))
    assert made.origins["bandwidth"].passed_over == (("/m/0.json", 500),)
    assert merge(Settings(bandwidth=900), managed({"bandwidth": 500})).bandwidth == 500
    # an administrator cannot make a device report against its owner's word
    assert not merge(Settings(reports=False), managed({"reports": True})).reports
    for name in TOGETHER:
        policy.allow_change(made, name)


def test_the_feed_counts_below_the_owner() -> None:
    feed = {"channel": "beta", "mirrors": ("https://f/",), "bandwidth": None}
    made = merge(Settings(), (), feed)
    assert (made.channel, made.mirrors, made.bandwidth) == ("beta", ("https://f/",), 0)
    assert (made.origins["channel"].rule, made.managed("channel")) == ("feed", False)
    assert merge(Settings(channel="release"), (), feed).channel == "release"
    assert merge(Settings(), managed({"channel": "developer"}), feed).channel == "developer"


def test_the_feeds_own_configuration_is_read(tmp_path: Path) -> None:
    (tmp_path / "feed").mkdir()
    assert policy.load(tmp_path, managed=tmp_path / "x", owner=ME).channel == "release"
    put(tmp_path / "feed" / "config.toml", 'mirrors = ["https://u.example/"]\nchannel = "beta"\n')
    made = policy.load(tmp_path, managed=tmp_path / "x", owner=ME)
    assert (made.channel, made.mirrors) == ("beta", ("https://u.example/",))


# --- one update ---

NOW = 1_800_000_000.0
LOW = Answer(name="power", ok=False, code="battery", text="3 %")
QUIET = Answer(name="quiet-hours", ok=False, code="quiet-hours", text="quiet", until=NOW + 60)
METERED = Answer(name="network", ok=False, code="metered", text="metered")
BUSY = Answer(name="idle", ok=False, code="idle", text="in use")
FULL = Answer(name="space", ok=False, code="space", text="full")
FINE = Answer(name="power", ok=True, code="battery", text="mains")


def codes(waits: tuple[policy.Wait, ...]) -> set[str]:
    return {wait.code for wait in waits}


def judge(made: policy.Policy, *answers: Answer, **more: Any) -> policy.Verdict:
    settings = {"update": "u", "published": NOW - 100, "now": NOW, **more}
    return policy.judge(made, answers=answers, **settings)


def test_nothing_in_the_way() -> None:
    assert judge(merge(Settings()), FINE) == policy.Verdict(install=True)


def test_every_condition_holds_it_back() -> None:
    verdict = judge(merge(Settings()), LOW, QUIET, METERED, BUSY, FULL)
    assert not verdict.install
    assert codes(verdict.waits) == {"battery", "quiet-hours", "metered", "idle", "space"}
    assert verdict.waits[1].until == NOW + 60


def test_a_person_lifts_comfort_but_not_protection() -> None:
    verdict = judge(merge(Settings(automatic=False)), LOW, QUIET, METERED, BUSY, FULL, asked=True)
    assert codes(verdict.waits) == {"battery", "space"}
    assert codes(verdict.set_aside) == {"policy", "quiet-hours", "metered", "idle"}


def test_switched_off_waits_for_a_person() -> None:
    made = merge(Settings(), managed({"automatic": "off", "organization": "Example University"}))
    verdict = judge(made)
    assert codes(verdict.waits) == {"policy"}
    assert "by Example University" in verdict.waits[0].text
    assert judge(made, asked=True).install


def test_what_an_administrator_forbids_no_person_lifts() -> None:
    assert not judge(merge(Settings(), managed({"install": "forbidden"})), asked=True).install
    verdict = judge(merge(Settings(), managed({"deferral_days": 3})), asked=True)
    assert codes(verdict.waits) == {"deferred"}
    assert verdict.waits[0].until == NOW - 100 + 3 * DAY
    later = NOW + 3 * DAY
    assert judge(merge(Settings(), managed({"deferral_days": 3})), now=later).install


def test_a_deadline_overrides_switch_and_comfort_but_not_protection() -> None:
    made = merge(
        Settings(automatic=False),
        managed({"enforce_after_days": 2, "deferral_days": 30, "install": "forbidden"}),
    )
    before = judge(made, QUIET, published=NOW - 2 * DAY + 1)
    assert (before.enforced, before.by) == (False, NOW + 1)
    assert codes(before.waits) == {"policy", "deferred", "quiet-hours"}
    after = judge(made, QUIET, METERED, published=NOW - 2 * DAY)
    assert (after.install, after.enforced) == (True, True)
    assert codes(after.set_aside) == {"policy", "deferred", "quiet-hours", "metered"}
    assert not judge(made, LOW, published=NOW - 9 * DAY).install
    assert not judge(made, FULL, published=NOW - 9 * DAY).install


def test_removal() -> None:
    policy.allow_removal(merge(Settings()))
    with pytest.raises(PolicyError, match="removing") as error:
        policy.allow_removal(merge(Settings(), managed({"removal": "forbidden"})))
    assert error.value.exit_code == 54


def test_the_gate_gives_reasons_of_the_feed() -> None:
    class Offer:
        id = "u"
        published = int(NOW - 100)

    made = merge(Settings(automatic=False))
    reasons = list(gate(made, [LOW, QUIET, BUSY, FULL], NOW)(Offer()))  # type: ignore[arg-type]
    assert [reason.code for reason in reasons] == ["policy", "battery", "quiet-hours"]
    assert {reason.code for reason in reasons} <= set(CODES)
    assert reasons[2].evidence["until"] == NOW + 60
    assert list(gate(merge(Settings()), [BUSY], NOW)(Offer())) == []  # type: ignore[arg-type]
