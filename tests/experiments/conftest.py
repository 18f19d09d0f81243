"""What tests of several commands learn from."""

import pytest


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A folder of documents."""
    folder = tmp_path_factory.mktemp("text")
    for i in range(40):
        (folder / f"{i}.txt").write_text(f"Document {i} says that seven times {i} is {7 * i}. " * 6)
    return folder
