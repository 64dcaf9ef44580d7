"""A tiny text and a recipe for it."""

import pytest

from support.trainings import a_corpus, spec_for


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    return a_corpus(tmp_path_factory.mktemp("text"))


@pytest.fixture
def spec(corpus):
    return spec_for(corpus)
