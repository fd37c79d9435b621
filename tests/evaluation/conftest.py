from __future__ import annotations

from pathlib import Path

import pytest
from small_corpus import write_corpus

from lbw_policy.corpora import read_manifest
from lbw_policy.evaluation.examples import Example, examples


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small corpus."""
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def runs(corpus: Path) -> list[Example]:
    """Return its runs with their features."""
    return examples(read_manifest(corpus))
