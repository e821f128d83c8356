"""One tenant for all tests of a cluster: there can be no second one of its name."""

import pytest
from plant import Plant


@pytest.fixture(scope="session")
def plant(cluster):
    return Plant(cluster.nodes[0].admin, cluster.token)
