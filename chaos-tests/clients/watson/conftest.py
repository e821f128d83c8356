"""One organisation for all tests of a cluster: there can be no second one of its name."""

import pytest
from organisation import Org


@pytest.fixture(scope="session")
def org(cluster):
    return Org(cluster.nodes[0].admin, cluster.token)


@pytest.fixture(scope="session")
def secure_org(secure):
    return Org(secure.admin)
