"""A config from elsewhere gets one sentence with file and line, whatever it holds."""

from __future__ import annotations

import pytest

from videonet.config import load_config, load_config_text
from videonet.errors import ConfigError


def laughs(levels):
    text = "&a0 [1,1,1,1,1,1,1,1,1,1]"
    for level in range(1, levels):
        text = f"&a{level} [{text}" + f",*a{level - 1}" * 9 + "]"
    return text


BAD = {
    "aliases within aliases": (f"RNG_SEED: {laughs(9)}", "more than 100,000 values"),
    "an alias to itself": ("RNG_SEED: &a [1, *a]", "contains itself"),
    "a group that contains itself": ("DATA: &a\n  DATA: *a", "contains itself"),
    "lists within lists": ("RNG_SEED: " + "[" * 100_000 + "]" * 100_000, "within each other"),
    "groups within groups": ("\n".join(" " * k + "a:" for k in range(500)), "within each other"),
    "flow groups": ("RNG_SEED: " + "{a: " * 50_000, "within each other"),
    "a number without end": ("RNG_SEED: " + "9" * 100_000, "a number of 100,000 digits"),
    "a float without end": ("RNG_SEED: 1." + "9" * 100_000, "a number of 100,002 digits"),
    "a date that is none": ("RNG_SEED: 2001-99-99", "no valid value"),
    "an object": ("RNG_SEED: !!python/object/apply:os.system ['true']", "not valid YAML"),
    "too long": ("# " + "x" * 2_000_000, "too many|too large"),
    "a long text": ("RNG_SEED: " + "x" * 100_000, "must be a whole number, not 'xxx"),
    "an integer of nothing": ('RNG_SEED: !!int ""', "no valid value"),
    "a float of nothing": ('RNG_SEED: !!float ""', "no valid value"),
    "a bool of a word": ("RNG_SEED: !!bool perhaps", "no valid value"),
    "a time of a word": ("RNG_SEED: !!timestamp today", "no valid value"),
    "base with a zero byte": ('_BASE_: "a\\0b"', "does not exist"),
    "base is a number": ("_BASE_: 3", "_BASE_ is 3"),
    "base is a list of numbers": ("_BASE_: [1]", r"_BASE_ is \[1\]"),
    "base is a list of nothing": ("_BASE_: [null]", r"_BASE_ is \[None\]"),
    "base is true": ("_BASE_: true", "_BASE_ is True"),
    "base is a date": ("_BASE_: 2001-01-01", "_BASE_ is"),
    "base is a folder": ("_BASE_: .", "_BASE_ names .*which is a folder"),
    "base is missing": ("_BASE_: [/no/such.yaml]", "_BASE_ names .*which does not exist"),
    "base of no user": ("_BASE_: ~nobody-of-this-name/x.yaml", "_BASE_ names .*does not exist"),
    "base of a long name": (f"_BASE_: {'x' * 400}", "_BASE_ names .*does not exist"),
    "base is itself": ("_BASE_: x.yaml", "inherits from itself"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_gets_one_short_sentence(tmp_path, kind):
    text, message = BAD[kind]
    path = tmp_path / "x.yaml"
    path.write_text(f"{text}\n")
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    said = str(caught.value)
    assert str(path) in said and "\n" not in said and len(said) < 600, said
    if not kind.startswith(("too long", "base")):
        with pytest.raises(ConfigError, match=message):
            load_config_text(text, name="the checkpoint")


@pytest.mark.parametrize("name", ["~nobody-of-this-name/x.yaml", "x" * 5000, "."])
def test_a_config_of_an_odd_name_does_not_exist(name):
    with pytest.raises(ConfigError, match="does not exist; shipped are"):
        load_config(name)


def test_files_that_start_from_many_others(tmp_path):
    for level in range(12):
        (tmp_path / f"{level}.yaml").write_text(f"_BASE_: [{', '.join([f'{level + 1}.yaml'] * 9)}]")
    (tmp_path / "12.yaml").write_text("RNG_SEED: 1")
    with pytest.raises(ConfigError, match="0.yaml: through _BASE_ it reads more than 100 files"):
        load_config(tmp_path / "0.yaml")


@pytest.mark.parametrize("value", ["", "null", "''", "[]", "~"])
def test_an_empty_base_is_none(tmp_path, value):
    path = tmp_path / "x.yaml"
    path.write_text(f"_BASE_: {value}\nMODEL: {{NAME: mvit_v2_xs}}\n")
    assert load_config(path).MODEL.NAME == "mvit_v2_xs"


@pytest.mark.parametrize("value", ["9" * 100_000, "[" * 100_000, laughs(9), "2001-99-99"])
def test_overrides_have_the_same_limits(value):
    with pytest.raises(ConfigError, match="RNG_SEED") as caught:
        load_config(None, ["MODEL.NAME", "mvit_v2_xs", "RNG_SEED", value])
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("TEST.NUM_ENSEMBLE_VIEWS", 100_000_000), ("DATA.NUM_FRAMES", 100_000_000)),
        *(("DATA.TEST_CROP_SIZE", 1_000_000), ("MODEL.NUM_CLASSES", 10**9)),
        *(("TEST.BATCH_SIZE", 10**90), ("RNG_SEED", 2**64), ("DATA.FRAMES_FPS", 1e300)),
        ("MODEL.ARGUMENTS.depth", 100_000_000),
        ("MODEL.ARGUMENTS.depths", "[1, 100000000]"),
        ("MODEL.ARGUMENTS.tables", "[{1: 100000000}]"),
        ("MODEL.ARGUMENTS.day", "2001-01-01"),
    ],
)
def test_no_config_asks_for_more_than_a_machine_has(key, value):
    with pytest.raises(ConfigError, match=f"{key} in the overrides is"):
        load_config(None, ["MODEL.NAME", "mvit_v2_xs", key, str(value)])


def test_all_views_together_have_a_limit():
    views = ["TEST.NUM_ENSEMBLE_VIEWS", "900", "DATA.NUM_FRAMES", "900"]
    with pytest.raises(ConfigError, match="16 GiB"):
        load_config(None, ["MODEL.NAME", "mvit_v2_xs", *views])
