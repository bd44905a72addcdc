"""
`aws:NAME-OR-ARN#FIELD`: AWS Secrets Manager, through botocore (`pip install 'sluicegate[aws]'`).

Who asks and where is found as by every tool of AWS: environment, profile, container or instance role; of an
ARN its own region counts. Without `#FIELD` the whole text is the secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry import plugins
from registry.errors import BadSettings, SecretUnavailable
from registry.secrets import field_of, split_field

_NAMED = ("AWS_REGION", "AWS_DEFAULT_REGION")


def resolve(rest: str, environ: Mapping[str, str]) -> str:
    """
    The secret, or one field of it.

    Raises:
        BadSettings: nobody says in which region, or the secret is binary or has no such field.
        SecretUnavailable: AWS does not answer or refuses.
        MissingExtra: botocore is not installed.
    """
    place, field = split_field(rest)
    reference = f"aws:{rest}"
    try:
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError, NoRegionError
        from botocore.session import get_session
    except ModuleNotFoundError as error:
        raise plugins.missing(error, "aws") from error
    region = next((environ[name] for name in _NAMED if environ.get(name)), None)
    if place.startswith("arn:") and place.count(":") >= 6:
        region = place.split(":")[3]
    bounds = Config(connect_timeout=3, read_timeout=5, retries={"total_max_attempts": 2, "mode": "standard"})
    try:
        client = get_session().create_client("secretsmanager", region_name=region, config=bounds)
        answer: dict[str, Any] = client.get_secret_value(SecretId=place)
    except NoRegionError as error:
        raise BadSettings(f"{reference} takes AWS_REGION, or the secret's ARN") from error
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", "an error"))[:80]
        raise SecretUnavailable(f"{reference}: AWS Secrets Manager refuses: {code}") from None
    except BotoCoreError as error:
        raise SecretUnavailable(f"{reference}: AWS Secrets Manager: {type(error).__name__}") from None
    text = answer.get("SecretString")
    if not isinstance(text, str):
        raise BadSettings(f"{reference} is binary; store it as text")
    return field_of(text, field, reference)
