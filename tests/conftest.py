"""Fixtures that any test may use."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from hotshard.cli.s3_server import SeaweedS3
from support import s3 as support_s3

# How long an example takes says more of the machine than of the code: timed numbers are benchmarks.
settings.register_profile("hotshard", deadline=None, print_blob=True)
settings.load_profile("hotshard")


@pytest.fixture(scope="session")
def s3() -> Iterator[SeaweedS3]:
    """A real S3 server for the whole run; the environment holds its endpoint and its keys."""
    with SeaweedS3() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield server


@pytest.fixture
def bucket(s3: SeaweedS3) -> tuple[Any, str]:
    """A boto3 client and an empty bucket of its own."""
    boto = support_s3.client(s3)
    return boto, support_s3.new_bucket(boto)
