"""`swift deploy` with its API key from the environment.

Run as `python -m palmswift.deploy.keyed deploy --model ...` with PALMSWIFT_API_KEY set.
ms-swift takes the key as `--api_key` only, or from a YAML file that `swift` turns into the same
words (swift/cli/main.py), so every user of the machine could read it in the list of processes;
`swift` also prints its command line and all its arguments into the log. Here the key is put in
after the arguments were read, as text that hides itself when printed.
"""

from __future__ import annotations

import os
import sys

KEY_VARIABLE = "PALMSWIFT_API_KEY"
"""The environment variable that holds the key which a server asks of its clients."""


class Secret(str):
    """Text that equals itself but does not print itself in a repr, such as a dataclass's."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def serve(argv: list[str], key: str) -> None:
    """Serve as `swift deploy ARGV` does, asking for `key`; returns when the server ends."""
    from swift.arguments import DeployArguments
    from swift.pipelines import deploy_main
    from swift.utils import parse_args

    arguments, unknown = parse_args(DeployArguments, argv)
    if unknown:
        raise ValueError(f"remaining_argv: {unknown}")  # as swift/pipelines/base.py says it
    arguments.api_key = Secret(key)
    deploy_main(arguments)


def main() -> None:
    """Serve with the key of PALMSWIFT_API_KEY; without one it ends at once."""
    key = os.environ.pop(KEY_VARIABLE, "")
    if not key:
        raise SystemExit(f"{KEY_VARIABLE} is not set")
    if sys.argv[1:2] != ["deploy"]:
        raise SystemExit("usage: python -m palmswift.deploy.keyed deploy --model ...")
    serve(sys.argv[2:], key)


if __name__ == "__main__":
    main()
