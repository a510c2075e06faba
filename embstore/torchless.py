"""What stands for the public names that need torch, where it is not installed."""

from __future__ import annotations

from functools import cache
from typing import NoReturn

from embstore.errors import InvalidInputError

NEEDS_TORCH = "needs torch: pip install embstore[torch]"


class MissingTorchError(InvalidInputError, ImportError):
    """Something is used that needs torch, which is not installed."""


@cache
def stand_in(name: str) -> type:
    """Return a class that can be imported and looked at as ``embstore.<name>``, but raises MissingTorchError when it is called.

    So a program that only looks at names, or imports one for a part of it that does not run, does without torch.
    """

    def refuse(_: type, *__: object, **___: object) -> NoReturn:
        msg = f"embstore.{name} {NEEDS_TORCH}"
        raise MissingTorchError(msg)

    return type(name, (), {"__new__": refuse, "__module__": "embstore", "__doc__": f"It {NEEDS_TORCH}."})
