"""Mistakes in a config: what is refused, and the sentence a user meets."""

import dataclasses
import re

import flax.linen as nn
import pytest
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from core.config import ConfigError, bind, check_keys, choose, differences, options_of, plain

KEY = "config.losses.main.options"


def function(
    zq,
    zp=None,
    *,
    symmetric: bool = False,
    block_size: int = 64,
    margin: float = 0.1,
    method: str = "dense",
    sizes=(1, 2),
    limit=None,
    required,
):
    return dict(symmetric=symmetric, block_size=block_size, margin=margin, method=method, sizes=sizes, limit=limit)


class Module(nn.Module):
    width: int = 16
    sizes: tuple[int, ...] = (1, 2)

    def __call__(self):
        return self.width


@dataclasses.dataclass
class Record:
    made: list = dataclasses.field(default_factory=list)
    hidden: int = dataclasses.field(default=3, init=False)


def test_choose_returns_the_entry_that_is_named():
    assert choose({"a": 1, "b": 2}, "b", "config.x.name") == 2


def test_choose_names_the_key_the_choices_and_the_nearest():
    with pytest.raises(ConfigError, match="config.x.name is 'infonse', which is not among: infonce, sigmoid. Did you mean 'infonce'?"):
        choose({"sigmoid": 1, "infonce": 2}, "infonse", "config.x.name")


def test_choose_guesses_nothing_where_nothing_is_near():
    with pytest.raises(ConfigError) as error:
        choose({"sigmoid": 1, "infonce": 2}, "???", "config.x.name")
    assert str(error.value).endswith("infonce, sigmoid.")


def test_check_keys_names_the_key_the_choices_and_the_nearest():
    with pytest.raises(ConfigError, match="config.train.stepz is not a key; valid ones: epochs, steps. Did you mean 'steps'"):
        check_keys({"steps": 1, "stepz": 2}, ("steps", "epochs"), "config.train")
    check_keys({"steps": 1}, ("steps", "epochs"), "config.train")


def test_check_keys_says_none_where_nothing_is_allowed():
    with pytest.raises(ConfigError, match=r"config\.a\.b is not a key; valid ones: none\."):
        check_keys({"b": 1}, (), "config.a")


def test_options_of_a_function_are_keyword_only_with_a_default():
    assert set(options_of(function)) == {"symmetric", "block_size", "margin", "method", "sizes", "limit"}


def test_options_of_a_module_are_its_own_fields():
    assert options_of(Module) == {"width": 16, "sizes": (1, 2)}


def test_options_of_a_dataclass_leave_out_what_init_does_not_take():
    assert options_of(Record) == {"made": []}


def test_bind_fixes_options_and_leaves_other_defaults():
    bound = bind(function, ConfigDict(dict(symmetric=True, margin=1)), KEY)
    assert bound(None, required=0) == dict(symmetric=True, block_size=64, margin=1, method="dense", sizes=(1, 2), limit=None)


def test_bind_builds_modules():
    assert bind(Module, ConfigDict(dict(width=8)), KEY)().width == 8


def test_bind_refuses_strangers():
    message = f"{KEY}.symetric is not a key; valid ones: block_size, limit, margin, method, sizes, symmetric. Did you mean 'symmetric'?"
    with pytest.raises(ConfigError, match=re.escape(message)):
        bind(function, dict(symetric=True), KEY)


@pytest.mark.parametrize("name", ["zq", "zp", "required"])
def test_bind_refuses_arrays_and_what_has_no_default(name):
    with pytest.raises(ConfigError, match=re.escape(f"{KEY}.{name} is not a key")):
        bind(function, {name: 1}, KEY)


@pytest.mark.parametrize("name", ["parent", "name"])
def test_bind_refuses_the_fields_that_linen_adds(name):
    with pytest.raises(ConfigError, match="valid ones: sizes, width"):
        bind(Module, {name: "x"}, KEY)


@pytest.mark.parametrize(
    "options, kind",
    [
        (dict(symmetric=1), "a bool such as False"),
        (dict(symmetric="true"), "a bool such as False"),
        (dict(block_size=True), "a int such as 64"),
        (dict(block_size=64.0), "a int such as 64"),
        (dict(block_size="64"), "a int such as 64"),
        (dict(margin="0.1"), "a float such as 0.1"),
        (dict(margin=True), "a float such as 0.1"),
        (dict(method=3), "a str such as 'dense'"),
        (dict(sizes=3), "a tuple such as (1, 2)"),
        (dict(sizes="12"), "a tuple such as (1, 2)"),
    ],
    ids=str,
)
def test_bind_refuses_other_kinds_than_the_default(options, kind):
    ((name, value),) = options.items()
    with pytest.raises(ConfigError) as error:
        bind(function, options, KEY)
    assert str(error.value) == f"{KEY}.{name} is {value!r}, a {type(value).__name__}; it must be {kind}."


@pytest.mark.parametrize(
    "options",
    [
        dict(margin=2),
        dict(margin=2.0),
        dict(block_size=None),
        dict(symmetric=None),
        dict(limit=3),
        dict(limit="x"),
        dict(sizes=[3]),
        dict(sizes=(3, 4)),
    ],
    ids=str,
)
def test_bind_accepts_what_fits(options):
    bound = bind(function, options, KEY)
    assert {name: bound.keywords[name] for name in options} == {name: plain(value) for name, value in options.items()}


def test_plain_is_what_json_gives_back():
    import json

    config = ConfigDict(dict(a=(1, 2), b=dict(c=[dict(d=(3,))]), e=placeholder(int), f=1.5))
    assert plain(config) == {"a": [1, 2], "b": {"c": [{"d": [3]}]}, "e": None, "f": 1.5}
    assert json.loads(json.dumps(plain(config))) == plain(config)


def test_differences_name_each_leaf():
    old = dict(seed=0, data=dict(a=1, gone=2), same=(1, 2))
    new = dict(seed=1, data=dict(a=1, new="x"), same=[1, 2])
    assert differences(old, new) == ["config.seed: 0 -> 1", "config.data.gone: 2 -> '(absent)'", "config.data.new: '(absent)' -> 'x'"]
    assert differences(old, old) == []


def test_differences_see_a_section_that_became_a_value():
    assert differences(dict(a=dict(b=1)), dict(a=3)) == ["config.a: {'b': 1} -> 3"]


def test_differences_tell_a_switch_from_a_number():
    assert differences(dict(a=True), dict(a=1)) == ["config.a: True -> 1"]
    assert differences(dict(a=2), dict(a=2.0)) == []
