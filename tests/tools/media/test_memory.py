"""How much memory a machine has to spare, as Linux tells of it."""

import pytest

from tools.media.memory import available_memory


@pytest.fixture
def system(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 1000 kB\nMemAvailable: 600 kB\n")
    return tmp_path


def test_what_is_available_on_a_machine(system, tmp_path):
    assert available_memory(system, tmp_path / "none") == 600 * 1024
    assert available_memory(tmp_path / "none", tmp_path / "none") is None


def test_a_container_has_its_own_limit_and_file_cache_does_not_count_as_used(system, tmp_path):
    group = tmp_path / "group"
    group.mkdir()
    (group / "memory.max").write_text("max\n")
    assert available_memory(system, group) == 600 * 1024
    (group / "memory.max").write_text("500000\n")
    (group / "memory.current").write_text("450000\n")
    assert available_memory(system, group) == 50_000
    (group / "memory.stat").write_text("anon 100000\nactive_file 50000\ninactive_file 300000\n")
    assert available_memory(system, group) == 350_000
    (group / "memory.max").write_text("5000000\n")
    assert available_memory(system, group) == 600 * 1024
