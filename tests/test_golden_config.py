"""Sizes of a machine: what a preset chooses is allowed, and fits what it is for."""

import pytest

from thresher.golden.config import PRESETS, Config, preset_sizes


@pytest.mark.parametrize("lanes", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_machine_of_any_number_of_lanes(name: str, lanes: int) -> None:
    sizes = preset_sizes(name, lanes)
    config = Config(lanes=lanes, **sizes)
    assert {key: getattr(config, key) for key in sizes} == sizes
    assert sizes.keys() >= PRESETS[name].keys()


def test_what_eight_lanes_have_of_their_own_goes_over_the_preset() -> None:
    sizes = preset_sizes("ulx3s", 8)
    assert (sizes["tap_depth"], sizes["group_depth"], sizes["shared_store"]) == (512, 512, 1)
    assert sizes["accumulator_depth"] == PRESETS["ulx3s"]["accumulator_depth"]
    assert preset_sizes("ulx3s", 4) == PRESETS["ulx3s"]
    assert "shared_store" not in PRESETS["ulx3s"]


def test_elements_of_the_preset_have_memories_of_18_kbit() -> None:
    for lanes in (2, 4, 8):
        config = Config(lanes=lanes, **preset_sizes("ulx3s", lanes))
        tap_bits = config.offset_bits + config.weight_code_bits
        stores = config.tap_depth * tap_bits
        if config.shared_store:
            stores += config.group_depth * tap_bits
        assert stores <= 18 << 10
        assert config.accumulator_depth * config.accumulator_bits <= 18 << 10


def test_registers_in_links_are_for_outputs_in_four_cycles_alone() -> None:
    with pytest.raises(ValueError, match=r"registered_links must be 0, or 1 with output_cycles 4"):
        Config(registered_links=1)
    assert Config(registered_links=1, output_cycles=4).registered_links
