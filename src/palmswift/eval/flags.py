"""Flags that the evaluation commands share, and what they become."""

from __future__ import annotations

import argparse
import json
from typing import Any

from palmswift.errors import InputError, Problem
from palmswift.eval.asking.endpoint import Endpoint, parse_endpoints
from palmswift.eval.asking.engine import Sampling
from palmswift.eval.asking.pace import Limits
from palmswift.eval.asking.retry import RetryPolicy


def whole(text: str) -> int:
    """An integer of at least 1, as argparse's `type`."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def positive(text: str) -> float:
    """A finite number above 0, as argparse's `type`."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return number


def temperature(text: str) -> float:
    """A finite number of at least 0, as argparse's `type`."""
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 up")
    return number


def add_endpoint_flags(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """`--endpoint`, `--model`, `--api-key-env` and `--extra`."""
    if several:
        parser.add_argument(
            "--endpoint",
            action="append",
            default=[],
            metavar="[LABEL=]URL",
            help="an OpenAI-compatible server; may be given several times, with labels",
        )
    else:
        parser.add_argument(
            "--endpoint", required=True, metavar="URL", help="an OpenAI-compatible server"
        )
    parser.add_argument("--model", help="the model name to send; default: the server's first")
    parser.add_argument(
        "--api-key-env", metavar="NAME", help="the environment variable that holds the API key"
    )
    parser.add_argument(
        "--extra",
        metavar="JSON",
        help="further request fields, such as "
        '\'{"chat_template_kwargs": {"enable_thinking": false}}\'',
    )


def add_sampling_flags(parser: argparse.ArgumentParser, *, max_tokens: int = 256) -> None:
    """`--max-tokens`, `--temperature` and `--timeout`."""
    parser.add_argument("--max-tokens", type=whole, default=max_tokens, metavar="N")
    parser.add_argument("--temperature", type=temperature, default=0.0, metavar="T")
    parser.add_argument(
        "--timeout", type=positive, default=600.0, metavar="SECONDS", help="for one whole answer"
    )


def add_asking_flags(parser: argparse.ArgumentParser) -> None:
    """`--concurrency`, `--attempts`, the limits a minute, `--stream` and `--no-fingerprint`."""
    parser.add_argument(
        "--concurrency",
        type=whole,
        default=8,
        metavar="N",
        help="requests in flight at most (8); fewer while the server says that it has too many",
    )
    parser.add_argument(
        "--requests-per-minute", type=positive, metavar="N", help="what the provider allows"
    )
    parser.add_argument(
        "--tokens-per-minute", type=positive, metavar="N", help="the same, for tokens"
    )
    parser.add_argument(
        "--stream",
        action="store_true",
        help="have replies streamed, so that the time to the first token is kept",
    )
    parser.add_argument(
        "--no-fingerprint",
        action="store_true",
        help="do not probe the model; answers that are kept may then be another model's",
    )
    parser.add_argument(
        "--attempts", type=whole, default=4, metavar="N", help="tries of a request (4)"
    )


def extra_of(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of `--extra`."""
    if args.extra is None:
        return {}
    try:
        fields = json.loads(args.extra)
    except ValueError as error:
        raise InputError(f"--extra is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise InputError("--extra is not a JSON object of request fields")
    fixed = sorted({"messages", "stream"} & fields.keys())
    if fixed:
        raise InputError(
            "--extra sets what the command sets itself",
            [Problem(f"`{name}` cannot be set", "--extra") for name in fixed],
        )
    return fields


def endpoints_of(args: argparse.Namespace, words: list[str], label: str) -> list[Endpoint]:
    """The endpoints that `--endpoint` names."""
    return parse_endpoints(
        words,
        label=label,
        model=args.model,
        api_key_env=args.api_key_env,
        extra=extra_of(args),
        limits=Limits(
            requests_per_minute=getattr(args, "requests_per_minute", None),
            tokens_per_minute=getattr(args, "tokens_per_minute", None),
        ),
    )


def sampling_of(args: argparse.Namespace) -> Sampling:
    """What `--max-tokens`, `--temperature` and `--stream` say."""
    stream = getattr(args, "stream", False)
    return Sampling(max_tokens=args.max_tokens, temperature=args.temperature, stream=stream)


def policy_of(args: argparse.Namespace) -> RetryPolicy:
    """What `--timeout` and `--attempts` say."""
    attempts = getattr(args, "attempts", 1)
    return RetryPolicy(attempts=attempts, total=args.timeout, first_byte=args.timeout)
