"""Tasks small enough for tests: the same nets and the same data, only less of them."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

from lbw_policy.lab.digits import DigitClasses, digits
from lbw_policy.lab.gpt import GptShape
from lbw_policy.lab.language import ByteLanguage
from lbw_policy.lab.moe import MoeShape
from lbw_policy.lab.nets import Mlp
from lbw_policy.lab.tasks import Task
from lbw_policy.lab.text import library_text

# Timings on a shared machine say nothing about a test.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

_TINY = {"width": 16, "layers": 1, "heads": 2, "context": 16}


@pytest.fixture(scope="session")
def task() -> ByteLanguage:
    return ByteLanguage(library_text(limit=100_000), GptShape(**_TINY), size=4, held_out_size=8)


@pytest.fixture(scope="session")
def tasks(task: ByteLanguage) -> dict[str, Task]:
    """One task of each kind of data, and one with routers."""
    experts = ByteLanguage(task.text, MoeShape(**_TINY, hidden=16), size=4, held_out_size=8)
    return {"gpt": task, "moe": experts, "mlp": DigitClasses(digits(), lambda: Mlp(16), size=8)}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
