"""What all tests of Drogue share: one application in a cluster, and whoever hears its events."""

import pytest
from plant import Events, Plant, authority


@pytest.fixture(scope="session")
def anchor(tmp_path_factory):
    """The authority of the application's devices."""
    return authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def plant(cluster, anchor):
    """There can be no second tenant of its name."""
    return Plant(cluster.nodes[0], cluster.token, anchor)


@pytest.fixture(scope="session")
def events(cluster, plant):
    """A program of the application, which hears all events."""
    heard = Events(plant, cluster.nodes[2])
    yield heard
    heard.client.close()
