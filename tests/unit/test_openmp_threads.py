"""The user's OMP_NUM_THREADS is the number of threads of every engine that is told its threads by that variable."""

import pytest

from llmopt.engines.sizing import openmp_threads, thread_choices
from llmopt.errors import SettingsError
from llmopt.hardware.probe import probe
from llmopt.hardware.recorded import RecordedMachine


@pytest.fixture
def hardware():
    lines = {"system": "Linux", "architecture": "x86_64", "affinity": "0-7"}
    return probe(RecordedMachine(lines))


def test_without_it_the_threads_are_searched(hardware, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert openmp_threads() is None
    assert set(thread_choices(hardware)) == {1, 2, 4, 8}


def test_with_it_there_is_one_choice(hardware, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert thread_choices(hardware) == (3,)


@pytest.mark.parametrize("text", ["many", "0", "-2", "4,2", "1.5"])
def test_what_is_no_number_is_refused(hardware, monkeypatch, text):
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    with pytest.raises(SettingsError, match="OMP_NUM_THREADS"):
        thread_choices(hardware)
