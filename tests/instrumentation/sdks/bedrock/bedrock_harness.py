"""What the cases of Bedrock share: clients of boto3 and aiobotocore before the simulator, and one way to drive both."""

from __future__ import annotations

import functools
from typing import Any

from both_modes import each as each
from both_modes import settled as settled
from tokenbudget_otel.simulator import Simulator

CLAUDE = "global.anthropic.claude-sonnet-4-5-20250929-v1:0"
NOVA = "eu.amazon.nova-pro-v1:0"
MESSAGES = [{"role": "user", "content": [{"text": "Tell me a story about a river."}]}]
MESSAGE = {
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": 500,
    "messages": [{"role": "user", "content": "Tell me a story about a river."}],
}


@functools.cache
def session() -> Any:
    """A session that has read the descriptions of the service: every test collects garbage, and they are none."""
    import boto3

    made = boto3.session.Session()
    made.client("bedrock-runtime", region_name="eu-central-1", aws_access_key_id="", aws_secret_access_key="")
    return made


@functools.cache
def _async_session() -> Any:
    from aiobotocore.session import get_session

    made = get_session()
    # It need not read them again.
    made.register_component("data_loader", session()._session.get_component("data_loader"))
    return made


def client_of(sim: Simulator, asynchronous: bool = False, service: str = "bedrock-runtime", **config: Any) -> Any:
    """A client; of aiobotocore it is the manager that gives it. It does not retry unless ``config`` says so."""
    if asynchronous:
        from aiobotocore.config import AioConfig as Config
    else:
        from botocore.config import Config

    make = _async_session().create_client if asynchronous else session().client
    return make(
        service,
        region_name="eu-central-1",
        endpoint_url=config.pop("endpoint_url", sim.bedrock_url),
        aws_access_key_id="any",
        aws_secret_access_key="any",
        verify=False,
        config=Config(**{"retries": {"total_max_attempts": 1}, "read_timeout": 20, **config}),
    )


async def read(stream: Any) -> list[Any]:
    """Every item of a stream, sync or async."""
    return [item async for item in each(stream)]
