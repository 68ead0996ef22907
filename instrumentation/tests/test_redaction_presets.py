"""Presets are data that the documentation shows; what a service adds of its own is taken only if it is safe."""

from __future__ import annotations

import copy
import pickle
import re
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

import taskscope
from taskscope import Settings
from taskscope.errors import SettingsError
from taskscope.redaction import DEFAULT, PRESETS, REDACTED, SHAPES, Redaction, described
from taskscope.redaction.patterns import MOST_PATTERNS
from taskscope.testing.logs import read_lines
from taskscope.testing.needles import NEEDLES

PAGE = Path(__file__).parents[2] / "docs" / "logs.md"


def section(title: str) -> str:
    return PAGE.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_the_documentation_shows_every_preset_as_it_is() -> None:
    assert described(markdown=True) in section("What is hidden")


def test_the_documentations_example_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", section("What is hidden"), re.DOTALL)
    namespace: dict[str, object] = {"__name__": "example"}
    exec(compile(code, "logs.md", "exec"), namespace)
    telemetry = namespace["telemetry"]
    assert isinstance(telemetry, taskscope.Telemetry)
    telemetry.close()


def test_the_terminal_shows_every_preset() -> None:
    shown = described()
    assert all(name in shown and preset.says in shown for name, preset in PRESETS.items())


def test_each_preset_says_what_it_hides() -> None:
    assert list(PRESETS) == ["secrets", "default", "pci", "gdpr", "strict"]
    for preset in PRESETS.values():
        assert preset.says.endswith(".")
        assert set(preset.shapes) <= set(SHAPES)
        assert preset.keys
    assert {shape for preset in PRESETS.values() for shape in preset.shapes} == set(SHAPES)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_each_preset_hides_what_it_builds_on(preset: str) -> None:
    base = PRESETS["secrets"]
    assert set(base.keys) <= set(PRESETS[preset].keys)
    assert set(base.shapes) <= set(PRESETS[preset].shapes)
    if preset != "strict":
        assert set(PRESETS[preset].shapes) <= set(PRESETS["strict"].shapes)
        assert set(PRESETS[preset].keys) <= set(PRESETS["strict"].keys)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_name_of_a_preset_hides_its_value(preset: str) -> None:
    redaction = Redaction(presets=(preset,))
    for key in PRESETS[preset].keys:
        name = key.replace("…", "db_")
        for written in (name, name.upper(), name.replace("_", "-"), f"my.{name}"):
            assert redaction.secret(written), written
            assert redaction.redact({written: "x7"}) == {written: REDACTED}
            assert redaction.text(f"{written}=x7") == f"{written}={REDACTED}"


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_every_shape_has_a_needle(shape: str) -> None:
    hide = SHAPES[shape].hide
    if hide is not None:
        assert any(hide(needle.text) != needle.text for needle in NEEDLES)


@pytest.mark.parametrize(
    ("text", "presets"),
    [("pci", ("pci",)), ("pci, GDPR", ("pci", "gdpr")), ("Strict", ("strict",))],
)
def test_the_environment_chooses_presets(text: str, presets: tuple[str, ...]) -> None:
    redaction = Settings.from_environ({"TASKSCOPE_REDACT": text}).redaction
    assert redaction is not None
    assert redaction.presets == presets


@pytest.mark.parametrize("text", ["true", "1", "yes", "on", ""])
def test_the_environment_may_just_say_yes(text: str) -> None:
    assert Settings.from_environ({"TASKSCOPE_REDACT": text}).redaction is DEFAULT


@pytest.mark.parametrize("text", ["false", "0", "no", "Off"])
def test_the_environment_may_just_say_no(text: str) -> None:
    assert Settings.from_environ({"TASKSCOPE_REDACT": text}).redaction is None


def test_a_preset_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(SettingsError) as told:
        Settings.from_environ({"TASKSCOPE_REDACT": "pci,gpdr"})
    assert str(told.value) == (
        "TASKSCOPE_REDACT='pci,gpdr' cannot be read; "
        "write true or false, or presets with commas between: secrets, default, pci, gdpr, strict"
    )
    with pytest.raises(SettingsError, match="there is no preset 'gpdr'; take some of secrets"):
        Redaction(presets=("gpdr",))
    with pytest.raises(SettingsError, match="setting redact is 'pci'; take a Redaction"):
        Settings(redact="pci")  # type: ignore[arg-type] # it is what the test is about


def test_keys_and_patterns_of_ones_own_are_hidden() -> None:
    redaction = Redaction(keys=("customer_no", "mandate"), patterns=(r"\bACC-\d{4,8}\b",))
    for name in ("customer_no", "customerNo", "X-Customer-No", "order.mandate", "customerno"):
        assert redaction.redact({name: 7}) == {name: REDACTED}, name
    assert redaction.redact({"customer": 7}) == {"customer": 7}
    assert (
        redaction.text("of ACC-12345, customer_no=77") == f"of {REDACTED}, customer_no={REDACTED}"
    )
    assert redaction.text("/x?a=%41CC-12345") == f"/x?a={REDACTED}"


def test_a_pattern_of_ones_own_finds_numbers_of_ten_digits_or_more() -> None:
    redaction = Redaction(patterns=(r"\b99\d{8}\b",))
    assert redaction.redact([9_912_345_678, 99]) == [REDACTED, 99]


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(", "cannot be read"),
        (r"(a+)+b", "repeats without an upper bound"),
        (r"\w+@x", "repeats without an upper bound"),
        (r"(a{1,30}){1,30}b", "may take more than 10000 steps"),
        (r"(a|a){1,40}b", "may take more than 10000 steps"),
        (r"\d{1,60}\d{1,60}\d{1,60}x", "may take more than 10000 steps"),
        (r"(?=(a{1,99}a{1,99}a{1,99}b))a", "may take more than 10000 steps"),
        (r"a{0,5}", "matches a text of nothing"),
        (r"[a-z]{8}", "matches the mark"),
        ("x" * 1001, "is 1001 characters long"),
        (7, "is no text"),
    ],
)
def test_a_pattern_that_is_wrong_or_slow_is_refused_in_a_sentence(pattern: str, why: str) -> None:
    with pytest.raises(SettingsError) as told:
        Redaction(patterns=(pattern,))
    sentence = str(told.value)
    assert sentence.startswith("redact: pattern ")
    assert why in sentence
    assert "; " in sentence or ": " in sentence


def test_all_wrong_patterns_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as told:
        Redaction(patterns=("(", "a+", r"good-\d{4}"))
    assert str(told.value).count("redact: pattern") == 2
    with pytest.raises(SettingsError, match="33 patterns are too many"):
        Redaction(patterns=tuple(f"x{n}" for n in range(MOST_PATTERNS + 1)))


@pytest.mark.parametrize(
    "pattern",
    [r"a{1,60}a{1,60}b", r"(?:a{1,4}b?){1,3}q", r"[a-z0-9]{1,64}+@[a-z]{1,63}+", r"(a|b){12}"],
)
def test_the_slowest_pattern_that_is_taken_is_bounded(pattern: str) -> None:
    redaction = Redaction(patterns=(pattern,))
    began = time.thread_time()
    redaction.text("a" * 4_096)
    assert time.thread_time() - began < 1.0


def test_a_single_text_is_one_preset_key_or_pattern() -> None:
    given: dict[str, Any] = {
        "presets": "pci",
        "keys": "mandate",
        "patterns": re.compile("q-[0-9]{3}", re.IGNORECASE),
    }
    redaction = Redaction(**given)
    assert redaction.presets == ("pci",)
    assert redaction.secret("mandate")
    assert redaction.text("saw Q-123") == f"saw {REDACTED}"


@pytest.mark.parametrize("keys", [("--",), (7,), tuple(f"k{n}x" for n in range(257))])
def test_a_key_that_names_nothing_is_refused(keys: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match="redact: "):
        Redaction(keys=keys)


def test_it_is_a_value() -> None:
    one, two = (Redaction(presets=("pci",), keys=("a",), patterns=("x-1",)) for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)
    for other in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one)):
        assert other == one
        assert other.text("card x-1, a=2") == f"card {REDACTED}, a={REDACTED}"


def test_a_service_hides_what_it_was_told_to(tmp_path: Path) -> None:
    app = FastAPI()
    telemetry = taskscope.instrument(
        app,
        service_name="shop",
        service_version="1",
        settings=Settings(spool=tmp_path),
        redact=Redaction(presets=("gdpr",), keys=("mandate",), patterns=(r"ACC-\d{4}",)),
    )
    try:
        for _ in range(2):  # the second time a text may have been remembered
            taskscope.get_logger("shop").info(
                "paid by ACC-1234", note="10.1.2.3", mandate="m7", n=3, to="ACC-9876"
            )
    finally:
        telemetry.close()
    for line in read_lines(tmp_path):
        assert line["message"] == f"paid by {REDACTED}"
        assert line["labels"] == {"note": REDACTED, "mandate": REDACTED, "n": 3, "to": REDACTED}
