"""docs/CONFIGURATION.md says what the models say."""

from pathlib import Path

import yaml

from cache_server.config.keys import keys
from cache_server.config.model import ServerConfig
from cache_server.config.reference import reference

COMMITTED = Path(__file__).parents[4] / "docs" / "CONFIGURATION.md"


def test_the_committed_page_is_what_the_models_say():
    assert COMMITTED.read_text() == reference(), "run: python -m cache_server.config > " + str(
        COMMITTED
    )


def test_every_key_and_variable_is_on_the_page():
    page = reference()
    for key in keys():
        assert f"`{key.path[-1]}`" in page or f"`{key.dotted}`" in page
        if key.variable is not None and key.section is None:
            assert f"`{key.variable}`" in page


def test_its_examples_are_valid():
    examples = [part.split("```")[0] for part in reference().split("```yaml\n")[1:]]
    assert len(examples) == 2
    for text in examples:
        document = {
            "cache_dirs": ["/nvme"],
            "local_socket": {"path": "/run/x.sock"},
            **yaml.safe_load(text),
        }
        assert ServerConfig.model_validate(document).origins


def test_lines_are_readable():
    assert max(len(line) for line in reference().splitlines()) <= 110
