import dataclasses
import logging

import pytest
from omegaconf import OmegaConf

from vitrine.config.assignment import assign, writable_tree
from vitrine.core.settings import SettingError, setting


@dataclasses.dataclass(frozen=True)
class Search:
    early_stop: bool = setting(True, "images leave once they are misclassified", renamed_from="compact")
    steps: int = setting(10, "gradient steps", least=1)


@dataclasses.dataclass(frozen=True)
class Section:
    search: Search = dataclasses.field(default_factory=Search)


def refused(key):
    return SettingError(key, "there is no such setting")


def test_a_key_of_before_is_read_under_its_new_name_with_a_note(caplog):
    tree = writable_tree(Section)
    with caplog.at_level(logging.WARNING):
        assign(tree, "search", {"compact": False}, refused)
    assert OmegaConf.to_object(tree) == Section(Search(early_stop=False))
    assert [record.message for record in caplog.records] == [
        "the setting search.compact is called search.early_stop now"
    ]
    assert "compact" not in OmegaConf.to_yaml(tree)


def test_what_is_wrong_with_it_is_said_of_the_new_name():
    with pytest.raises(SettingError, match=r"^search\.early_stop: is 'often', expected bool"):
        assign(writable_tree(Section), "search", {"compact": "often"}, refused)


@pytest.mark.parametrize("key", ["compacts", "early"])
def test_other_keys_are_refused(key):
    with pytest.raises(SettingError, match=rf"^search\.{key}: there is no such setting$"):
        assign(writable_tree(Section), "search", {key: 1}, refused)
