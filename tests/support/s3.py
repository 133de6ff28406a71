"""The S3 server of the tests: SeaweedFS, and buckets in it."""

import itertools
from typing import Any

import boto3
from botocore.config import Config

from hotshard.cli.s3_server import SeaweedS3

_numbers = itertools.count(1)


def client(server: SeaweedS3) -> Any:
    """A boto3 client for the server, to put things there and to look at them."""
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint_url,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name=server.region,
        config=Config(s3={"addressing_style": "path"}),
    )


def new_bucket(boto: Any) -> str:
    """Create an empty bucket."""
    name = f"bucket-{next(_numbers)}"
    boto.create_bucket(Bucket=name)
    return name
