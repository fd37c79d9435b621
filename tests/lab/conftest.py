"""A task small enough for tests: the same decoder and the same text, only less of it."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

from lbw_policy.lab.gpt import GptShape
from lbw_policy.lab.tasks import ByteLanguage
from lbw_policy.lab.text import library_text

# Timings on a shared machine say nothing about a test.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def task() -> ByteLanguage:
    shape = GptShape(width=16, layers=1, heads=2, context=16)
    return ByteLanguage(library_text(limit=100_000), shape, size=4, held_out_size=8)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
